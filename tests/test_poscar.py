"""POSCARs: every spelling of VASP, what cannot be read, and folders of them."""

from __future__ import annotations

import gzip
from pathlib import Path

import ase.db
import ase.io
import pytest
from pymatgen.core import Structure
from pymatgen.io.vasp import Poscar
from structure_sources import assert_same, assert_same_sites, categories_of, items_of

from crystens.formats.poscar import PoscarFolder
from crystens.sources.record import Entry, Reject

POSCAR = """salt
1.0
5.64 0 0
0 5.64 0
0 0 5.64
Na Cl
4 4
Direct
0 0 0
0 0.5 0.5
0.5 0 0.5
0.5 0.5 0
0.5 0.5 0.5
0.5 0 0
0 0.5 0
0 0 0.5
"""


def _read_poscar(tmp_path: Path, text: str, **limits) -> tuple[list[Entry], list[Reject]]:
    (tmp_path / "POSCAR").write_text(text)
    return items_of(PoscarFolder(tmp_path / "POSCAR"), **limits)


def _changed(*changes: tuple[str, str]) -> str:
    """Return the POSCAR with parts of it replaced, once each."""
    text = POSCAR
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return text


VASP_4 = _changed(("Na Cl\n", ""), ("salt", "Na Cl"))


def _cartesian(scale: str, factor: float) -> str:
    """Return the POSCAR with a scale, vectors and Cartesian positions divided by a factor."""
    head, sites = POSCAR.split("Direct\n")
    rows = [[float(value) * 5.64 / factor for value in row.split()] for row in sites.splitlines()]
    body = "\n".join(" ".join(f"{value:.12f}" for value in row) for row in rows)
    return head.replace("1.0\n", f"{scale}\n").replace("5.64", f"{5.64 / factor:.12f}") + f"Cartesian\n{body}\n"


@pytest.mark.parametrize(
    "text",
    [
        POSCAR,
        _changed(("salt", "Fe O  4 4")),  # the comment names other elements
        _changed(("1.0\n", "-179.406144\n")),
        _changed(("1.0\n", "2 1 0.5\n"), ("5.64 0 0", "2.82 0 0"), ("0 0 5.64", "0 0 11.28")),
        _cartesian("2.0", 2.0),
        _cartesian("-179.406144", 3.0),
        _cartesian("1 1 1", 1.0),
        _changed(("Direct\n", "selective dynamics\ndirect\n"), ("0 0 0\n", "0 0 0 T F T\n")),
        _changed(("Na Cl\n", "Na_pv/6a2f546d Cl_GW\n")),
        _changed(("4 4\n", "4 4 ! Na Cl\n"), ("Direct", "Direct # fractional")),
        _changed(("Na Cl\n4 4\n", " Na Cl Cl\n Cl\n 4 1\n 2 1\n")),
        _changed(("5.64 0 0", "5.64D0 0.0d0 0"), ("0 0 0\n", "0 0 0 Na\n")),
        POSCAR.replace("\n", "\r\n"),
        POSCAR + "\n" + "0.01 0.02 0.03\n" * 8,
        POSCAR + "Lattice velocities and vectors\n1\n" + "0 0 0\n" * 6 + "\nDirect\n" + "0.01 0.02 0.03\n" * 8,
    ],
)
def test_poscar_is_understood_in_every_spelling(tmp_path, nacl, text):
    entries, rejects = _read_poscar(tmp_path, text)
    assert rejects == []
    assert_same(entries[0].crystal, nacl)


@pytest.mark.parametrize("direct", [True, False])
def test_volume_as_scale_agrees_with_other_readers(tmp_path, triclinic, direct):
    lines = Poscar(triclinic.to_structure()).get_str(direct=direct).splitlines()
    lines[1] = "-300.0"
    (entry,), _ = _read_poscar(tmp_path, "\n".join(lines))
    assert entry.crystal.lattice.volume == pytest.approx(300, abs=1e-6)
    atoms = ase.io.read(tmp_path / "POSCAR")
    assert atoms.get_volume() == pytest.approx(300, abs=1e-6)
    assert_same_sites(entry.crystal, atoms.numbers, atoms.get_scaled_positions())
    if direct:  # Cartesian positions are multiplied by the volume itself in pymatgen 2026.10
        structure = Structure.from_file(tmp_path / "POSCAR")
        assert structure.volume == pytest.approx(300, abs=1e-6)
        assert_same_sites(entry.crystal, structure.atomic_numbers, structure.frac_coords)


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("", "empty file"),
        ("no structure\n" * 3, "truncated POSCAR"),
        ("no structure\n" * 20, "not a POSCAR"),
        (_changed(("Na Cl\n", "")), "no elements in the POSCAR"),
        (VASP_4, "no elements in the POSCAR"),
        (_changed(("Na Cl\n", "\n")), "no elements in the POSCAR"),
        (_changed(("4 4\n", "4\n")), "numbers of atoms do not fit the elements"),
        (_changed(("4 4\n", "4 4 4\n")), "numbers of atoms do not fit the elements"),
        (_changed(("4 4\n", "4 -4\n")), "numbers of atoms do not fit the elements"),
        (_changed(("4 4\n", "0 0\n")), "no atoms in the cell"),
        (_changed(("4 4\n", "999999999 4\n")), "truncated POSCAR"),
        (_changed(("0 0 0.5\n", "")), "truncated POSCAR"),
        (_changed(("0 0 0.5\n", "0 0\n")), "truncated POSCAR"),
        (_changed(("0 0 0.5\n", "0 0 far\n")), "not a POSCAR"),
        (_changed(("0 0 0.5\n", "0 0 nan\n")), "coordinates not finite"),
        (_changed(("Direct\n", "")), "kind of coordinates missing"),
        (_changed(("Na Cl", "Na Xx")), "unknown element"),
        (_changed(("1.0\n", "0\n")), "scale not understood"),
        (_changed(("1.0\n", "1 -1 1\n")), "scale not understood"),
        (_changed(("1.0\n", "1 1\n")), "scale not understood"),
        (_changed(("1.0\n", "one\n")), "not a POSCAR"),
        (_changed(("0 5.64 0\n", "0 5.64\n")), "cell vectors not numbers"),
        (_changed(("1.0\n", "-100\n"), ("0 5.64 0\n", "5.64 0 0\n")), "impossible cell"),
    ],
)
def test_bad_poscar_is_set_aside_with_a_reason(tmp_path, text, category):
    (tmp_path / "POSCAR").write_text(text)
    assert categories_of(PoscarFolder(tmp_path)) == [category]


def test_vasp_4_file_is_not_guessed_even_beside_a_potcar(tmp_path):
    (tmp_path / "POTCAR").write_text("  TITEL  = PAW_PBE Na_pv 19Sep2006\n  TITEL  = PAW_PBE Cl 06Sep2000\n")
    _, rejects = _read_poscar(tmp_path, VASP_4)
    assert rejects[0].reason.startswith("no elements in the POSCAR")
    assert "write the elements" in rejects[0].advice


def test_poscar_folder_reads_the_names_of_vasp_at_any_depth_and_nothing_else(tmp_path):
    names = ["POSCAR", "a/CONTCAR", "a/POSCAR_relaxed", "b/x.vasp", "b/y.poscar", "b/CONTCAR.gz"]
    for name in [*names, "a/OUTCAR", "notes.txt"]:
        path = tmp_path / "runs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(POSCAR.encode()) if name.endswith(".gz") else POSCAR.encode())
    source = PoscarFolder(tmp_path / "runs")
    entries, rejects = items_of(source)
    assert rejects == []
    assert [e.file for e in entries] == sorted(names)
    assert list(source.contents()) == sorted(names)
    assert source.expected() == 6
