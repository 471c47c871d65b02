"""Result files of CDVAE and DiffCSP become crystals."""

from __future__ import annotations

import argparse
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.formats.cdvae_result import CdvaeResult
from crystens.ingest.generated import JudgingLimits, read_generated
from crystens.ingest.kinds import guess_kind, open_source
from crystens.sources.limits import Limits
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


def test_numpy_arrays_and_lists_of_them_are_read_as_tensors_are(
    nacl: Crystal, triclinic: Crystal, tmp_path: Path
) -> None:
    for case, kind in enumerate(("float32", "float64", "float16")):
        values = {key: tensor.numpy() for key, tensor in result(nacl, nacl).items()}
        values["lengths"] = values["lengths"].astype(kind)
        read_lengths = read(saved(values, tmp_path / f"{case}.pt"))[0].crystal.lengths
        np.testing.assert_allclose(read_lengths, nacl.lengths, rtol=1e-3)
    batches = [result(nacl), result(triclinic)]
    values = {key: [batches[0][key].numpy(), batches[1][key]] for key in batches[0]} | {"time": np.float64(1.5)}
    assert_same(read(saved(values, tmp_path / "mixed.pt")), [nacl, triclinic])


def test_pickles_of_older_numpy_name_the_same_arrays(nacl: Crystal, tmp_path: Path) -> None:
    values = {key: tensor.numpy() for key, tensor in result(nacl).items()}
    content = saved(values, tmp_path / "new.pt").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as new, zipfile.ZipFile(tmp_path / "old.pt", "w") as old:
        for name in new.namelist():
            old.writestr(name, new.read(name).replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert_same(read(tmp_path / "old.pt"), [nacl])


@pytest.mark.parametrize("bad", [np.array(["a"] * 8), np.array([{}] * 8), np.zeros(8, complex)])
def test_arrays_of_anything_but_numbers_are_refused(bad: np.ndarray, nacl: Crystal, tmp_path: Path) -> None:
    values = {key: tensor.numpy() for key, tensor in result(nacl).items()} | {"atom_types": bad}
    with pytest.raises(CrystensError, match=r"atom_types is an array of .*, not a tensor; save it as one of numbers"):
        read(saved(values, tmp_path / "a.pt"))


def test_angles_none_of_which_is_above_pi_are_radians_and_that_is_said(
    nacl: Crystal, triclinic: Crystal, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = result(nacl, triclinic, nacl)
    values["angles"][2, 0] = float("nan")  # a failed sample does not hide what the others are in
    radians = values | {"angles": torch.deg2rad(values["angles"].double())}
    assert_same(read(saved(radians, tmp_path / "a.pt"))[:2], [nacl, triclinic])
    assert "no angle is above pi (the largest: 1." in caplog.text
    caplog.clear()
    assert_same(read(saved(values, tmp_path / "b.pt"))[:2], [nacl, triclinic])
    assert caplog.text == ""


class _Batch:
    """Takes the place of a class of PyTorch Geometric, which is pickled as its maker, called with other classes."""

    def __reduce__(self) -> tuple:
        return _Maker(), (_Data,), {"_store": _Data(), "_slice_dict": {"x": torch.zeros(2)}}


class _Maker:
    def __call__(self, *_: type) -> _Batch:
        return _Batch()


class _Data:
    pass


def test_the_batch_of_test_crystals_in_a_result_of_diffcsp_does_no_harm(nacl: Crystal, tmp_path: Path) -> None:
    names = {"_Batch": "DataBatch", "_Maker": "DynamicInheritanceGetter", "_Data": "Data"}
    content = saved({**result(nacl), "input_data_batch": _Batch()}, tmp_path / "ours.pt").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as ours, zipfile.ZipFile(tmp_path / "eval_diff.pt", "w") as theirs:
        for name in ours.namelist():
            text = ours.read(name)
            for own, foreign in names.items():
                text = text.replace(f"c{__name__}\n{own}\n".encode(), f"ctorch_geometric.data\n{foreign}\n".encode())
            theirs.writestr(name, text)
    assert_same(read(tmp_path / "eval_diff.pt"), [nacl])


def test_the_folder_of_a_run_is_read_by_its_one_result(nacl: Crystal, triclinic: Crystal, tmp_path: Path) -> None:
    saved(result(nacl, triclinic), tmp_path / "eval_gen.pt")
    saved({"scale": torch.ones(3)}, tmp_path / "lattice_scaler.pt")
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "wandb-summary.json").write_text('{"val_loss": 1}')
    (tmp_path / "eval_metrics.json").write_text('{"comp_valid": 0.9}')
    assert guess_kind(str(tmp_path)) == "cdvae_result"
    assert_same(read(tmp_path), [nacl, triclinic])
    assert_same(read_generated(tmp_path), [nacl, triclinic])
    assert list(CdvaeResult(tmp_path).contents()) == ["eval_gen.pt"]
    (tmp_path / "wandb" / "a.cif").touch()
    with pytest.raises(CrystensError, match=r"holds a result \(eval_gen\.pt\) and files of crystals \(wandb/a\.cif\)"):
        guess_kind(str(tmp_path))
    (tmp_path / "wandb" / "a.cif").unlink()
    saved(result(nacl), tmp_path / "eval_diff_2.pt")
    with pytest.raises(CrystensError, match=r"several files eval_\*\.pt \(eval_diff_2\.pt, eval_gen\.pt\): give one"):
        read(tmp_path)


class Foreign:
    """Something that a file may hold, and whose loading would run code."""

    def __reduce__(self) -> tuple:
        return os._exit, (3,)  # not sys.exit, which wandb replaces


def test_a_file_with_code_is_refused_and_not_run(nacl: Crystal, tmp_path: Path) -> None:
    path = saved({**result(nacl), "input_data_batch": Foreign()}, tmp_path / "a.pt")
    with pytest.raises(CrystensError, match="more than tensors, NumPy arrays and plain values") as error:
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
    assert [item.category for item in items[:3]] == ["impossible cell", "impossible cell", "unknown element"]


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -3.0, 1e30, 119.0])
def test_a_type_that_is_no_element_costs_its_crystal_alone(odd: float, nacl: Crystal, tmp_path: Path) -> None:
    values = result(nacl, nacl)
    values["atom_types"] = values["atom_types"].double()
    values["atom_types"][3] = odd
    for limits in (JudgingLimits(), Limits()):
        items = list(open_source(str(saved(values, tmp_path / "a.pt"))).read(limits))
        assert [isinstance(item, Entry) for item in items] == [False, True]
        assert items[0].category == "unknown element"


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
        (lambda values: values.update(num_atoms=torch.tensor([torch.inf])), "num_atoms has a value that is no whole"),
        (lambda values: values.update(num_atoms=torch.tensor(8)), "do not fit each other"),
        (
            lambda values: values.update({key: values[key][None] for key in values}, num_atoms=torch.tensor(8)),
            "do not share an axis of evaluations",
        ),
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
    with pytest.raises(CrystensError, match=r"holds no file eval_\*\.pt; give"):
        list(CdvaeResult(tmp_path).records())
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(CrystensError, match="is not a file"):
        list(CdvaeResult(tmp_path / "pipe.pt").records())


def test_a_file_of_the_old_format_is_read_and_a_damaged_one_refused(nacl: Crystal, tmp_path: Path) -> None:
    torch.save(result(nacl), tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    assert_same(read(tmp_path / "a.pt"), [nacl])
    content = (tmp_path / "a.pt").read_bytes()
    start = content.rindex(b"]q") if b"]q" in content else len(content) // 2
    for cut in (100, len(content) // 2, start, len(content) - 1):
        (tmp_path / "a.pt").write_bytes(content[:cut])
        with pytest.raises(CrystensError, match=r"cannot read .*a\.pt|holds more than tensors"):
            read(tmp_path / "a.pt")


def test_weights_beside_structure_files_do_not_hide_them(nacl: Crystal, tmp_path: Path) -> None:
    saved(result(nacl), tmp_path / "weights.pt")
    (tmp_path / "a.xyz").write_text('1\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3\nPo 0 0 0\n')
    assert guess_kind(str(tmp_path)) == "extxyz"
