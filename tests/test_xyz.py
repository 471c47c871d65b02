"""Extended XYZ: every spelling of a comment line, frames damaged or endless, and memory for one frame only."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from structure_sources import assert_same_sites, categories_of, items_of, xyz_frame

from crystens.formats import xyz_frames
from crystens.formats.extxyz import ExtendedXyz
from crystens.sources.record import Entry, Record, Reject

SALT = 'Lattice="3.4 0 0 0 3.4 0 0 0 3.4"'
ATOMS = "Na 0 0 0\nCl 1.7 1.7 1.7\n"


def _read_xyz(path: Path, text: str | bytes, **limits) -> tuple[list[Entry], list[Reject]]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return items_of(ExtendedXyz(path), **limits)


def test_frames_are_called_by_their_ids_or_counted(tmp_path, nacl, copper_primitive):
    text = (
        xyz_frame(nacl, material_id="mp-22") + "\n" + xyz_frame(copper_primitive) + xyz_frame(nacl, name="salt, again")
    )
    entries, rejects = _read_xyz(tmp_path / "a.xyz", text)
    assert rejects == []
    assert [(e.entry, e.crystal.formula) for e in entries] == [
        ("mp-22", "NaCl"),
        ("frame 2", "Cu"),
        ("salt, again", "NaCl"),
    ]
    entries, _ = _read_xyz(tmp_path / "a.xyz", f"2\nmaterial_id=007 {SALT}\n{ATOMS}")
    assert entries[0].entry == "007"


@pytest.mark.parametrize(
    ("comment", "atoms"),
    [
        (SALT, ATOMS),
        (f'energy=-1.5 note="a Lattice=\\"1 2\\" of no use" {SALT} pbc="T T T"', ATOMS),
        ("lattice={3.4, 0, 0, 0, 3.4, 0, 0, 0, 3.4} pbc=[True, True, True]", ATOMS),
        (f"Properties=id:I:1:pos:R:3:Z:I:1:forces:R:3 {SALT}", "1 0 0 0 11 1 1 1\n2 1.7 1.7 1.7 17 0 0 0\n"),
        (f"Properties=species:S:1:pos:R:3:occupancy:R:1 {SALT}", "Na 0 0 0 1\nCl 1.7 1.7 1.7 1.0\n"),
        (f"{SALT}\r", "11 0 0 0\r\n17 1.7 1.7 1.7 0.3 0.2"),
        (SALT, "Na+ 3.4 0 -6.8\nCl1- 1.7E0 1.7 1.7\n"),
        ("Lattice=[3.4, 3.4, 3.4]", ATOMS),
        ('Lattice="3.4 3.4 3.4" pbc=T', ATOMS),
        ("Lattice=[[3.4, 0, 0], [0, 3.4, 0], [0, 0, 3.4]] pbc=[T, T, T]", ATOMS),
        ('"Lattice" = "3.4d0 0 0 0 3.4D+00 0 0 0 34.0d-1" pbc={T T T}', "Na 0.0D0 0 0\nCl 1.7d0 .17d1 17.D-1\n"),
        (f'old::Lattice="9 0 0 0 9 0 0 0 9" {SALT} flag lattice', ATOMS),
        (f'a="b\\"c=d\\\\" {SALT} pbc="[T, T, T]"', ATOMS),
        (f'a={{"x": "}}"}} b=[["]", 1], [2]] {SALT}', ATOMS),
        (f"{SALT} note=it's note2='a b'", ATOMS),
        (f"{SALT} Properties=species:S:1:pos:R:3:mtt::aux::q:R:1", "Na 0 0 0 1\nCl 1.7 1.7 1.7 2\n"),
        (f"{SALT} Properties=species:S:1:pos:R:3:odd:X:1", "Na 0 0 0 1\nCl 1.7 1.7 1.7 2\n"),
        (
            f"{SALT} Properties=label:S:1:pos:R:3:ok:L:1:species:S:1",
            '"a b" 0 0 0 T Na\n"c \\" d e" 1.7 1.7 1.7 F "Cl"\n',
        ),
        (f"{SALT} Properties=species:S:1:pos:R:3:Z:I:1", "Na 0 0 0 11\nCl 1.7 1.7 1.7 17\n"),
        (f"{SALT} Properties=z:R:1:species:S:1:Pos:R:3", "5 Na 0 0 0\n6 Cl 1.7 1.7 1.7\n"),
        (f"{SALT} Properties=species:S:1:pos:R:3:forces:R:3 energy=nan", "Na 0 0 0 nan NaN 1\nCl 1.7 1.7 1.7 1 1 1\n"),
        (SALT, "\nNa 0 0 0\n \t\nCl 1.7 1.7 1.7\n\n\n"),
        (f" \n{SALT}", ATOMS),
    ],
)
def test_comment_line_is_understood_in_every_spelling(tmp_path, comment, atoms):
    entries, rejects = _read_xyz(tmp_path / "a.xyz", f"\ufeff2\n{comment}\n{atoms}")
    assert rejects == []
    crystal = entries[0].crystal
    assert (crystal.formula, crystal.space_group) == ("NaCl", 221)
    assert_same_sites(crystal, np.array([11, 17]), np.array([[0, 0, 0], [0.5, 0.5, 0.5]]))


@pytest.mark.parametrize(
    ("comment", "atoms", "category"),
    [
        ("a molecule", ATOMS, "no cell"),
        ("", ATOMS, "no cell"),
        (f'{SALT} pbc="T T F"', ATOMS, "no cell"),
        (f"{SALT} pbc=F", ATOMS, "no cell"),
        ('Lattice="3.4 0 0 0 3.4 0 0 0 0"', ATOMS, "no cell"),
        ('Lattice="3.4 0 0 0 3.4 0 3.4 3.4 0"', ATOMS, "impossible cell"),
        ('Lattice="1e300 0 0 0 1e300 0 0 0 1e300"', ATOMS, "impossible cell"),
        ('Lattice="3.4 3.4 3.4 3.4"', ATOMS, "Lattice not understood"),
        ('Lattice="3.4 0 0"', ATOMS, "no cell"),
        ("Lattice=[[3.4, 0, 0], [0, 3.4, 0, 0], [0, 3.4]]", ATOMS, "Lattice not understood"),
        ("Lattice=[[[3.4, 0, 0, 0, 3.4, 0, 0, 0, 3.4]]]", ATOMS, "Lattice not understood"),
        ("Lattice=[3.4, 0, 0, [0, 3.4, 0], 0, 0, 3.4]", ATOMS, "Lattice not understood"),
        ("Lattice=", ATOMS, "Lattice not understood"),
        ("Lattice = 3.4 0 0 0 3.4 0 0 0 3.4", ATOMS, "Lattice not understood"),
        ('Lattice="3.4 0 0 0 3.4 0 0', ATOMS, "comment line not understood"),
        (f"energy=[1, 2 {SALT}", ATOMS, "comment line not understood"),
        (f'old::{SALT} "x=y" aux:{SALT}', ATOMS, "no cell"),
        (f'{SALT} Lattice="4 0 0 0 4 0 0 0 4"', ATOMS, "Lattice stands twice"),
        (f'{SALT} pbc="yes yes yes"', ATOMS, "pbc not understood"),
        ('Lattice="3_4 0 0 0 3.4 0 0 0 3.4"', ATOMS, "Lattice values not numbers"),
        ('Lattice="3.4 0 0 0 x 0 0 0 3.4"', ATOMS, "Lattice values not numbers"),
        ('Lattice="3.4 0 0 0 nan 0 0 0 3.4"', ATOMS, "Lattice values not finite"),
        (SALT, "Na 0 0 0\nXx 1 1 1\n", "unknown element"),
        (SALT, "Na 0 0 0\n0 1 1 1\n", "unknown element"),
        (SALT, "Na 0 0 0\nCl 1 1\n", "atom line too short"),
        (SALT, "Na 0 0 0\nCl 1 1 far\n", "positions not numbers"),
        (SALT, "Na 0 0 0\nCl 1 1 inf\n", "positions not finite"),
        (SALT, "Na 0 0 0\nCl 3.4 0 0\n", "two atoms at the same position"),
        (f"Properties=species:S:1 {SALT}", ATOMS, "Properties without species or pos"),
        (f"Properties=species:S:one:pos:R:3 {SALT}", ATOMS, "Properties not understood"),
        (f"Properties=species:S:1:pos:R {SALT}", ATOMS, "Properties not understood"),
        (f"Properties=species:S:1:pos:R:2 {SALT}", ATOMS, "Properties not understood"),
        (f"Properties=species:S:1:pos:S:3 {SALT}", ATOMS, "Properties not understood"),
        (f"Properties=x:Q:1:species:S:1:pos:R:3 {SALT}", ATOMS, "Properties not understood"),
        (f"Properties=[species, S, 1] {SALT}", ATOMS, "Properties not understood"),
        (
            f"Properties=pos:R:3:species:S:1:pos:R:3 {SALT}",
            "0 0 0 Na 1 1 1\n1 1 1 Cl 2 2 2\n",
            "Properties not understood",
        ),
        (f"Properties=z:I:1:pos:R:3 {SALT}", "11 0 0 0\n17 1.7 1.7 1.7\n", "Properties without species or pos"),
        (f"Properties=species:S:1:pos:R:3 {SALT}", "Na 0 0 0 0.1\nCl 1.7 1.7 1.7\n", "atom line too long"),
        (
            f"Properties=species:S:1:pos:R:3:Z:I:1 {SALT}",
            "Na 0 0 0 17\nCl 1.7 1.7 1.7 11\n",
            "species and Z disagree",
        ),
        (
            f"Properties=species:S:1:pos:R:3:occupancy:R:1 {SALT}",
            "Na 0 0 0 0.5\nCl 1 1 1 1\n",
            "partial occupancy (disordered structure)",
        ),
    ],
)
def test_bad_frame_is_set_aside_and_the_next_one_read(tmp_path, comment, atoms, category):
    entries, rejects = _read_xyz(tmp_path / "a.xyz", f"2\n{comment}\n{atoms}2\n{SALT}\n{ATOMS}")
    assert [(r.entry, r.category) for r in rejects] == [("frame 1", category)]
    assert [e.entry for e in entries] == ["frame 2"]


CELL = [[4.0, 0.0, 0.0], [0.5, 5.0, 0.0], [1.0, 2.0, 6.0]]


@pytest.mark.parametrize(
    "lattice",
    [
        '"4 0 0 0.5 5 0 1 2 6"',
        "{4 0 0 0.5 5 0 1 2 6}",
        "[4, 0, 0, 0.5, 5, 0, 1, 2, 6]",
        "[[4, 0, 0], [0.5, 5, 0], [1, 2, 6]]",
        "[[4,0,0],[.5,5.,0],[1,2,6]]",
        "4,0,0,0.5,5,0,1,2,6",
    ],
)
def test_rows_of_the_lattice_are_cell_vectors_in_every_spelling(tmp_path, lattice):
    entries, _ = _read_xyz(tmp_path / "a.xyz", f"2\nLattice={lattice}\nCs 0 0 0\nCl 2 2 2\n", site_order="given")
    lengths = np.linalg.norm(CELL, axis=1)
    np.testing.assert_allclose(entries[0].crystal.lengths, lengths)
    np.testing.assert_allclose(entries[0].crystal.coordinates[1] @ CELL, [2, 2, 2])


@pytest.mark.parametrize("end", ["\r", "\r\n"])
def test_lines_of_old_systems_are_lines(tmp_path, nacl, end):
    text = (xyz_frame(nacl) * 2).replace("\n", end) + "\x1a"
    entries, rejects = _read_xyz(tmp_path / "a.xyz", text.encode())
    assert (len(entries), rejects) == (2, [])


def test_truncated_last_frame_keeps_the_earlier_ones(tmp_path, nacl):
    whole = xyz_frame(nacl)
    for cut in (1, len(whole) // 2, len(whole) - len(whole.splitlines()[-1]) - 1):
        entries, rejects = _read_xyz(tmp_path / "a.xyz", whole * 3 + whole[:cut])
        assert len(entries) == 3
        assert [(r.entry, r.category) for r in rejects] == [("frame 4", "truncated frame")]
    # The last line may end without a line end.
    assert len(_read_xyz(tmp_path / "a.xyz", (whole * 2).rstrip("\n"))[0]) == 2


def test_frame_that_promises_a_trillion_atoms_costs_no_memory(tmp_path):
    _, rejects = _read_xyz(tmp_path / "a.xyz", f"999999999999\n{SALT}\n{ATOMS}")
    assert "after 2 of 999999999999 atoms" in rejects[0].reason


GOOD = f"2\n{SALT}\n{ATOMS}"


@pytest.mark.parametrize(
    ("torn", "category", "shows"),
    [
        (f"1\n{SALT}\n{ATOMS}", "number of atoms wrong", "after 1: 'Cl 1.7 1.7 1.7'"),
        (f"2\n{SALT}\n{ATOMS}{ATOMS}{ATOMS}", "number of atoms wrong", "after 2"),
        (f"3\n{SALT}\n{ATOMS}", "truncated frame", "the next frame begins after 2 of 3 atoms"),
        (f"3\n{SALT}\n{ATOMS}\n\n", "truncated frame", "after 2 of 3 atoms"),
        (f"2\n{SALT}\n", "truncated frame", "after 0 of 2 atoms"),
        ("2\n", "truncated frame", "after 0 of 2 atoms"),
        (f"{SALT}\n{ATOMS}", "not an XYZ frame", "'Lattice="),
        (ATOMS, "number of atoms wrong", ""),
        ("two\n\n", "not an XYZ frame", "'two'"),
        (f"-2\n{SALT}\n{ATOMS}", "not an XYZ frame", "'-2'"),
        (f"2\n\n{ATOMS}", "no cell", ""),
        (f"2\n\n{ATOMS}{ATOMS}", "number of atoms wrong", ""),
        (f"2\n{SALT[:20]}\n{ATOMS}", "comment line not understood", ""),
    ],
)
def test_torn_frame_costs_one_reject_and_the_others_are_read(tmp_path, torn, category, shows):
    entries, rejects = _read_xyz(tmp_path / "a.xyz", GOOD + torn + GOOD + GOOD)
    assert [r.category for r in rejects] == [category]
    assert shows in rejects[0].reason
    assert len(entries) == (3 if rejects[0].entry == "frame 2" and torn != ATOMS else 2)


def test_frame_above_the_limit_is_passed_over_and_not_held(tmp_path, nacl, monkeypatch):
    monkeypatch.setattr(xyz_frames, "MAX_BYTES", 4000)
    rows = "Na 0 0 0\n" * 1000
    entries, rejects = _read_xyz(
        tmp_path / "a.xyz", f"1000\n{SALT}\n{rows}2\n{SALT} {'x' * 5000}\n{ATOMS}{xyz_frame(nacl)}"
    )
    assert [(r.entry, r.category) for r in rejects] == [("frame 1", "frame too large"), ("frame 2", "frame too large")]
    assert [e.entry for e in entries] == ["frame 3"]


def test_site_count_bound_is_checked_before_the_atoms_are_read(tmp_path, nacl):
    _, rejects = _read_xyz(tmp_path / "a.xyz", xyz_frame(nacl).replace("Na", "?"), max_sites=7)
    assert [reject.category for reject in rejects] == ["more than 7 atoms in the cell"]


def test_occupancy_column_follows_the_policy(tmp_path):
    text = f"3\nProperties=species:S:1:pos:R:3:occupancy:R:1 {SALT}\nNa 0 0 0 0.7\nK 0 0 0 0.3\nCl 1.7 1.7 1.7 1\n"
    entries, _ = _read_xyz(tmp_path / "a.xyz", text, occupancy="majority")
    assert entries[0].crystal.formula == "NaCl"


def test_frame_that_ase_made_of_a_disordered_cif_is_not_taken_for_an_ordered_one(tmp_path):
    mixed = Structure(Lattice.cubic(3.4), [{"Na": 0.6, "K": 0.4}, "Cl"], [[0, 0, 0], [0.5] * 3])
    mixed.to(filename=str(tmp_path / "a.cif"))
    ase.io.write(tmp_path / "a.xyz", ase.io.read(tmp_path / "a.cif"), format="extxyz")
    assert categories_of(ExtendedXyz(tmp_path / "a.xyz")) == ["partial occupancy (disordered structure)"]
    # and an ordered one is no different for it
    mixed.replace_species({"K": "Na"})
    mixed.to(filename=str(tmp_path / "a.cif"))
    ase.io.write(tmp_path / "a.xyz", ase.io.read(tmp_path / "a.cif"), format="extxyz")
    assert len(items_of(ExtendedXyz(tmp_path / "a.xyz"))[0]) == 1


def test_long_file_is_streamed_in_bounded_memory(tmp_path, nacl):
    block = xyz_frame(nacl) * 500
    path = tmp_path / "long.xyz"
    with path.open("w") as file:
        for _ in range(60):
            file.write(block)
    assert path.stat().st_size > 15e6
    tracemalloc.start()
    count = sum(isinstance(record, Record) for record in ExtendedXyz(path).records())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 30_000
    assert peak < 2e6


@pytest.mark.parametrize("comment", ["a" * 300_000, 'a="' * 3000, "a =" * 60_000, "a" + " " * 300_000])
def test_hostile_comment_line_is_read_in_time(tmp_path, comment):
    assert _read_xyz(tmp_path / "a.xyz", f"2\n{comment}\n{ATOMS}")[1][0].category == "no cell"


def test_xyz_that_is_empty_binary_or_damaged_says_so(tmp_path, nacl):
    def category(content: bytes, name: str = "a.xyz") -> list[str]:
        (tmp_path / name).write_bytes(content)
        return [reject.category for reject in items_of(ExtendedXyz(tmp_path / name))[1]]

    assert category(b"") == ["empty file"]
    assert category(b"0") == ["no cell"]
    assert category(b"2") == ["truncated frame"]
    assert category(b"\0\1\2\xff" * 100) == ["not an XYZ frame"]
    assert category(f"1\n{SALT}\nNa 0 0 \0\n".encode()) == ["not a text file"]
    packed = gzip.compress("".join(xyz_frame(nacl, energy=1 / k) for k in range(1, 200)).encode())
    assert category(packed[: len(packed) // 2], "a.xyz.gz") == ["cannot read the file"]
    assert len(items_of(ExtendedXyz(tmp_path / "a.xyz.gz"))[0]) > 10
