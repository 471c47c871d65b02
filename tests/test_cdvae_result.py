"""Result files of CDVAE and DiffCSP become crystals."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.formats.cdvae_result import CdvaeResult
from crystens.ingest.generated import JudgingLimits
from crystens.ingest.kinds import guess_kind, open_source
from crystens.sources.record import Entry, Reject


def result(*crystals: Crystal) -> dict[str, torch.Tensor]:
    return {
        "frac_coords": torch.cat([torch.tensor(crystal.coordinates) for crystal in crystals]).float(),
        "atom_types": torch.cat([torch.tensor(crystal.numbers) for crystal in crystals]),
        "num_atoms": torch.tensor([len(crystal) for crystal in crystals]),
        "lengths": torch.stack([torch.tensor(crystal.lengths) for crystal in crystals]).float(),
        "angles": torch.stack([torch.tensor(crystal.angles) for crystal in crystals]).float(),
    }


def saved(values: object, path: Path) -> Path:
    torch.save(values, path)
    return path


def read(path: Path) -> list[Entry | Reject]:
    return list(open_source(str(path)).read(JudgingLimits()))


def assert_same(items: list[Entry | Reject], crystals: list[Crystal]) -> None:
    assert len(items) == len(crystals)
    for item, crystal in zip(items, crystals, strict=True):
        assert isinstance(item, Entry)
        assert np.array_equal(item.crystal.numbers, crystal.numbers)
        np.testing.assert_allclose(item.crystal.lengths, crystal.lengths, rtol=1e-6)
        np.testing.assert_allclose(item.crystal.angles, crystal.angles, rtol=1e-6)
        away = item.crystal.coordinates - crystal.coordinates
        assert np.abs(away - np.round(away)).max() < 1e-6


def test_arrays_without_an_axis_of_evaluations_are_read(nacl: Crystal, triclinic: Crystal, tmp_path: Path) -> None:
    path = saved(result(nacl, triclinic), tmp_path / "eval_gen.pt")
    assert guess_kind(str(path)) == "cdvae_result"
    assert_same(read(path), [nacl, triclinic])
    assert [item.entry for item in read(path)] == ["0", "1"]


def test_the_first_of_several_evaluations_is_read_and_said(
    nacl: Crystal, triclinic: Crystal, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = result(nacl, triclinic), result(nacl, triclinic)
    second["lengths"] = second["lengths"] * 2
    values = {key: torch.stack([first[key], second[key]]) for key in first}
    assert_same(read(saved(values, tmp_path / "a.pt")), [nacl, triclinic])
    assert "holds 2 evaluations; the first is read" in caplog.text
    assert_same(read(saved({key: first[key][None] for key in first}, tmp_path / "b.pt")), [nacl, triclinic])


def test_a_list_of_batches_is_read_one_behind_the_other(nacl: Crystal, triclinic: Crystal, tmp_path: Path) -> None:
    for case, crystals in enumerate([[nacl, nacl], [nacl, triclinic]]):  # of one shape, and not
        batches = [result(crystal) for crystal in crystals]
        values = {key: [batch[key] for batch in batches] for key in batches[0]}
        assert_same(read(saved(values, tmp_path / f"{case}.pt")), crystals)
        evaluated = {key: [torch.stack([batch[key], batch[key] * 2]) for batch in batches] for key in batches[0]}
        assert_same(read(saved(evaluated, tmp_path / f"evaluated_{case}.pt")), crystals)
        values["num_atoms"] = list(torch.cat(values["num_atoms"]))  # of no axis
        assert_same(read(saved(values, tmp_path / f"numbers_{case}.pt")), crystals)


def test_weights_of_elements_become_the_heaviest_weighted_element(nacl: Crystal, tmp_path: Path) -> None:
    values = result(nacl)
    values["atom_types"] = torch.nn.functional.one_hot(values["atom_types"] - 1, 100).float() * 3 - 1
    assert_same(read(saved(values, tmp_path / "a.pt")), [nacl])


def test_settings_of_a_command_line_beside_the_arrays_do_no_harm(nacl: Crystal, tmp_path: Path) -> None:
    values = {**result(nacl), "eval_setting": argparse.Namespace(label="x"), "time": 1.5, "all_frac_coords_stack": []}
    assert_same(read(saved(values, tmp_path / "a.pt")), [nacl])


class Foreign:
    """Something that a file may hold, and whose loading would run code."""

    def __reduce__(self) -> tuple:
        return os._exit, (3,)  # not sys.exit, which wandb replaces


def test_a_file_with_code_is_refused_and_not_run(nacl: Crystal, tmp_path: Path) -> None:
    path = saved({**result(nacl), "input_data_batch": Foreign()}, tmp_path / "a.pt")
    with pytest.raises(CrystensError, match="more than tensors and plain values") as error:
        read(path)
    assert "save the entries frac_coords, num_atoms" in str(error.value)


def test_a_crystal_that_cannot_be_is_a_reject_and_the_others_stay(
    nacl: Crystal, triclinic: Crystal, single_atom: Crystal, tmp_path: Path
) -> None:
    values = result(nacl, triclinic, single_atom, nacl)
    values["lengths"][0, 1] = float("nan")
    values["angles"][1] = torch.tensor([170.0, 10.0, 90.0])
    values["atom_types"][len(nacl) + len(triclinic)] = 0
    items = read(saved(values, tmp_path / "a.pt"))
    assert [isinstance(item, Entry) for item in items] == [False, False, False, True]
    assert [item.category for item in items[:3]] == ["impossible cell", "impossible cell", "not a crystal"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.pop("angles"), "has no angles"),
        (lambda values: values.update(num_atoms=torch.tensor([7])), "do not fit each other, with 7 atoms"),
        (lambda values: values.update(num_atoms=torch.tensor([9, -1])), "do not fit each other"),
        (lambda values: values.update(lengths=[1.0, 2.0, 3.0]), "lengths is list, not a tensor"),
        (lambda values: values.update(frac_coords=values["frac_coords"][None]), "do not share an axis of evaluations"),
        (lambda values: values.update(atom_types=values["atom_types"][:, None]), "do not fit each other"),
        (lambda values: values.update(atom_types=torch.eye(119)[values["atom_types"]]), "do not fit each other"),
        (
            lambda values: values.update(atom_types=values["atom_types"] + 0.4),
            "atom_types has a value that is no whole",
        ),
        (lambda values: values.update(num_atoms=torch.tensor([torch.nan])), "num_atoms has a value that is no whole"),
        (lambda values: values.update(num_atoms=torch.tensor(8)), "do not fit each other"),
        (lambda values: values.update(frac_coords=[torch.rand(3, 3), torch.rand(3, 2)]), "of frac_coords do not fit"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, message: str, nacl: Crystal, tmp_path: Path) -> None:
    values = result(nacl)
    change(values)
    with pytest.raises(CrystensError, match=message):
        read(saved(values, tmp_path / "a.pt"))


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"no archive")
    with pytest.raises(CrystensError, match=r"a\.pt"):
        read(tmp_path / "a.pt")
    (tmp_path / "a.pt").write_text("a line of text, which is no archive either\n")
    with pytest.raises(CrystensError, match=r"a\.pt"):
        read(tmp_path / "a.pt")
    with pytest.raises(CrystensError, match="has no frac_coords, num_atoms, atom_types, lengths, angles"):
        read(saved(torch.zeros(3), tmp_path / "b.pt"))
    with pytest.raises(CrystensError, match="does not exist"):
        list(CdvaeResult(tmp_path / "c.pt").records())
    with pytest.raises(CrystensError, match="is not a file"):
        list(CdvaeResult(tmp_path).records())


def test_weights_beside_structure_files_do_not_hide_them(nacl: Crystal, tmp_path: Path) -> None:
    saved(result(nacl), tmp_path / "weights.pt")
    (tmp_path / "a.xyz").write_text('1\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3\nPo 0 0 0\n')
    assert guess_kind(str(tmp_path)) == "extxyz"
