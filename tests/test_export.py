"""Exported crystals are read back as the same, by our readers and by other libraries."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from pymatgen.core import Structure

from crystens.cif.write import write_cif
from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.ingest.generated import read_generated
from crystens.samples.export import FORMATS, export, main
from crystens.sources.record import Entry

TOLERANCES = {"pt": 0, "json": 1e-12, "csv": 1e-6, "extxyz": 1e-7}  # of coordinates; lengths in angstrom


@pytest.fixture
def crystals(nacl: Crystal, triclinic: Crystal, single_atom: Crystal, copper_primitive: Crystal) -> list[Crystal]:
    """Cells of all shapes, and one with two atoms at one place, which stay two."""
    double = Crystal([4, 4, 4], [90] * 3, 1, [55, 17, 17], np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]))
    return [nacl, triclinic, single_atom, copper_primitive, double]


@pytest.fixture
def samples(crystals: list[Crystal], tmp_path: Path) -> Path:
    """A folder as sample.py writes it, in which samples 1 and 3 failed."""
    folder = tmp_path / "samples"
    (folder / "cifs").mkdir(parents=True)
    lines = ["index,file,status,reason"]
    for index, place in enumerate((0, None, 1, None, 2)):
        if place is None:
            lines.append(f"{index},,failed,no site")
        else:
            (folder / "cifs" / f"{index:06d}.cif").write_text(write_cif(crystals[place]))
            lines.append(f"{index},cifs/{index:06d}.cif,ok,")
    (folder / "crystals.csv").write_text("\n".join([*lines, ""]))
    return folder


def _assert_same(found: Crystal, crystal: Crystal, tolerance: float) -> None:
    assert found.numbers.tolist() == crystal.numbers.tolist()
    np.testing.assert_allclose(found.lengths, crystal.lengths, rtol=0, atol=tolerance)
    np.testing.assert_allclose(found.angles, crystal.angles, rtol=0, atol=10 * tolerance)
    apart = found.coordinates - crystal.coordinates
    np.testing.assert_allclose(apart - np.round(apart), 0, atol=tolerance)


@pytest.mark.parametrize("to", sorted(FORMATS))
def test_our_readers_read_back_what_is_written(to: str, crystals: list[Crystal], tmp_path: Path) -> None:
    out = tmp_path / "new" / f"crystals.{to}"
    export(dict(enumerate(crystals)), to, out)
    found = read_generated(out)
    assert len(found) == len(crystals)
    for item, crystal in zip(found, crystals, strict=True):
        assert isinstance(item, Entry)
        _assert_same(item.crystal, crystal, TOLERANCES[to])
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_the_arrays_are_those_that_cdvaes_evaluation_takes_apart(crystals: list[Crystal], tmp_path: Path) -> None:
    export(dict(enumerate(crystals)), "pt", tmp_path / "eval_gen.pt")
    data = torch.load(tmp_path / "eval_gen.pt", weights_only=True)
    sites = sum(len(crystal) for crystal in crystals)
    shapes = {name: tuple(array.shape) for name, array in data.items()}
    assert shapes == {
        "frac_coords": (1, sites, 3),
        "atom_types": (1, sites),
        "lengths": (1, 5, 3),
        "angles": (1, 5, 3),
        "num_atoms": (1, 5),
    }
    assert data["num_atoms"][0].tolist() == [len(crystal) for crystal in crystals]
    assert not data["atom_types"].is_floating_point()
    # As its evaluation does: the sites of a crystal are those behind the sites of the crystals before it.
    start = 0
    for place, crystal in enumerate(crystals):
        count = int(data["num_atoms"][0][place])
        assert data["frac_coords"][0].narrow(0, start, count).tolist() == crystal.coordinates.tolist()
        assert data["atom_types"][0].narrow(0, start, count).tolist() == crystal.numbers.tolist()
        start += count


def test_ase_and_pymatgen_read_what_is_written(crystals: list[Crystal], tmp_path: Path) -> None:
    for to in FORMATS:
        export(dict(enumerate(crystals)), to, tmp_path / f"crystals.{to}")
    frames = ase.io.read(tmp_path / "crystals.extxyz", index=":")
    assert [frame.info["sample"] for frame in frames] == [0, 1, 2, 3, 4]
    listed = [Structure.from_dict(value) for value in json.loads((tmp_path / "crystals.json").read_text())]
    with (tmp_path / "crystals.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["material_id"] for row in rows] == ["0", "1", "2", "3", "4"]
    for crystal, frame, structure, row in zip(crystals, frames, listed, rows, strict=True):
        assert frame.pbc.all()
        _assert_same(Crystal.from_atoms(frame, 1), crystal, 1e-7)
        _assert_same(Crystal.from_structure(structure, 1), crystal, 1e-12)
        _assert_same(Crystal.from_structure(Structure.from_dict(json.loads(row["structure"])), 1), crystal, 1e-12)
        if crystal is not crystals[-1]:  # pymatgen merges sites of a CIF that coincide
            assert Structure.from_str(row["cif"], "cif").matches(crystal.to_structure())


@pytest.mark.parametrize("to", sorted(FORMATS))
def test_failed_samples_are_left_out_counted_and_keep_the_numbers_of_the_others(
    to: str, samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / f"crystals.{to}"
    assert main([str(samples), "--to", to, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"{out} holds 3 crystals" in printed
    assert "2 of 5 samples are no crystals and are left out: not decoded (2); " in printed
    assert "times 0.6 is a rate over all samples" in printed
    if to == "csv":
        assert re.findall(r"^(\d+),\"data_", out.read_text(), re.MULTILINE) == ["0", "2", "4"]
    if to == "extxyz":
        assert re.findall(r"sample=(\d+)", out.read_text()) == ["0", "2", "4"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--to", "pt", "--out", "{folder}/x.pt"], "nowhere does not exist"),
        (["{folder}/bad", "--to", "json", "--out", "{folder}/x.json"], "no sample of {folder}/bad is a crystal"),
        (["{folder}/bad", "--to", "json", "--out", "{folder}/bad"], "is SAMPLES, which would be overwritten"),
        (["prototypes", "--to", "json", "--out", "{folder}/bad"], "cannot write {folder}/bad: Is a directory"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.cif").write_text("no cif at all\n")
    before = sorted(tmp_path.rglob("*"))
    assert main([argument.format(folder=tmp_path) for argument in arguments]) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert message.format(folder=tmp_path) in error
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unknown_format_and_no_crystal_are_refused(nacl: Crystal, tmp_path: Path) -> None:
    with pytest.raises(CrystensError, match="the format 'xsf' is not known; use one of pt, extxyz, csv, json"):
        export({0: nacl}, "xsf", tmp_path / "x")
    with pytest.raises(CrystensError, match="there is no crystal to write"):
        export({}, "pt", tmp_path / "x")
