"""Extended XYZ, ASE databases, POSCARs and pymatgen's JSON: what their writers wrote is what is read, and no more."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import sqlite3
import sys
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry
from pymatgen.io.vasp import Poscar

from crystens.cif import write_cif
from crystens.crystal import Crystal
from crystens.data import ase_db, streams, xyz
from crystens.data.ase_db import AseDatabase
from crystens.data.entries import Entry, Record, Reject
from crystens.data.kinds import KINDS, guess_kind, open_source
from crystens.data.limits import Limits
from crystens.data.poscar import PoscarFolder
from crystens.data.pymatgen_json import PymatgenJson
from crystens.data.sources import Source
from crystens.data.xyz import ExtendedXyz
from crystens.errors import CrystensError

CRYSTALS = ["nacl", "copper_primitive", "triclinic", "sites_52"]


def _items(source: Source, **limits) -> tuple[list[Entry], list[Reject]]:
    """Return the entries and rejects of a source; every record makes its way to another process."""
    bounds = Limits(**limits)
    items: list[Entry | Reject] = []
    for record in source.records():
        if isinstance(record, Reject):
            items.append(record)
        else:
            items += pickle.loads(pickle.dumps(source)).parsed(pickle.loads(pickle.dumps(record)), bounds)
    return [i for i in items if isinstance(i, Entry)], [i for i in items if isinstance(i, Reject)]


def _categories(source: Source, **limits) -> list[str]:
    """Return the categories of the rejects of a source that has nothing else."""
    entries, rejects = _items(source, **limits)
    assert entries == []
    assert all(reject.advice for reject in rejects)
    return [reject.category for reject in rejects]


def _assert_same(read: Crystal, written: Crystal) -> None:
    """Check formula, cell, sites and space group."""
    assert read.formula == written.formula
    assert read.space_group == written.space_group
    np.testing.assert_allclose(read.lengths, written.lengths, atol=1e-6)
    np.testing.assert_allclose(read.angles, written.angles, atol=1e-6)
    _assert_same_sites(read, written.numbers, written.coordinates)


def _assert_same_sites(read: Crystal, numbers: np.ndarray, coordinates: np.ndarray) -> None:
    """Check that each site has its own one among those expected, in any order, up to 1e-6 of the cell."""
    assert len(read) == len(numbers)
    steps = read.coordinates[:, None] - coordinates[None]
    same = (np.abs(steps - np.round(steps)).max(axis=2) < 1e-6) & (read.numbers[:, None] == np.asarray(numbers)[None])
    assert (same.sum(axis=0) == 1).all()
    assert (same.sum(axis=1) == 1).all()


def _atoms(crystal: Crystal) -> Atoms:
    """Return a crystal as ASE has it."""
    matrix = crystal.lattice.matrix
    return Atoms(crystal.numbers, cell=matrix, scaled_positions=crystal.coordinates, pbc=True)


def _write_database(path: Path, rows: list[tuple[Atoms, dict]]) -> Path:
    """Write a database of ASE."""
    with ase.db.connect(str(path), use_lock_file=False) as database:
        for atoms, pairs in rows:
            database.write(atoms, **pairs)
    return path


# Round trips


@pytest.mark.parametrize("name", CRYSTALS)
@pytest.mark.parametrize(
    ("file", "kind", "write"),
    [
        ("a.extxyz", ExtendedXyz, lambda path, c: ase.io.write(path, _atoms(c), format="extxyz")),
        (
            "a.xyz",
            ExtendedXyz,
            lambda path, c: ase.io.write(path, _atoms(c), columns=["symbols", "positions", "numbers"]),
        ),
        ("a.db", AseDatabase, lambda path, c: _write_database(path, [(_atoms(c), {})])),
        ("a.json", AseDatabase, lambda path, c: _write_database(path, [(_atoms(c), {})])),
        ("POSCAR", PoscarFolder, lambda path, c: ase.io.write(path, _atoms(c), format="vasp", direct=False)),
        ("a.vasp", PoscarFolder, lambda path, c: ase.io.write(path, _atoms(c), format="vasp", direct=True)),
        ("CONTCAR", PoscarFolder, lambda path, c: Poscar(c.to_structure()).write_file(path)),
        ("a.json", PymatgenJson, lambda path, c: c.to_structure().to(filename=str(path))),
    ],
)
def test_what_others_wrote_is_read_back(request, tmp_path, name, file, kind, write):
    crystal = request.getfixturevalue(name)
    write(tmp_path / file, crystal)
    entries, rejects = _items(kind(tmp_path / file))
    assert rejects == []
    assert len(entries) == 1
    _assert_same(entries[0].crystal, crystal)
    assert guess_kind(str(tmp_path / file)) == next(kind_ for kind_, made in KINDS.items() if made is kind)


@pytest.mark.parametrize("name", CRYSTALS)
def test_rotated_cell_with_atoms_far_outside_of_it_is_the_same_crystal(request, tmp_path, name):
    crystal = request.getfixturevalue(name)
    atoms = _atoms(crystal)
    atoms.rotate(77, (1, 2, 3), rotate_cell=True)
    atoms.positions += np.array([5, -3, 2]) @ atoms.cell
    ase.io.write(tmp_path / "a.xyz", atoms, format="extxyz")
    _write_database(tmp_path / "a.db", [(atoms, {})])
    ase.io.write(tmp_path / "POSCAR", atoms, format="vasp")
    for source in (ExtendedXyz(tmp_path / "a.xyz"), AseDatabase(tmp_path / "a.db"), PoscarFolder(tmp_path / "POSCAR")):
        _assert_same(_items(source)[0][0].crystal, crystal)


def test_left_handed_cell_keeps_the_handedness_of_the_crystal(tmp_path, quartz):
    atoms = _atoms(quartz)
    mirrored = atoms.copy()
    mirrored.set_cell(atoms.cell * [1, 1, -1], scale_atoms=True)
    atoms.set_cell(atoms.cell[[1, 0, 2]])  # the same crystal along axes in another order
    for same, group in ((atoms, 152), (mirrored, 154)):
        assert np.linalg.det(same.cell) < 0
        ase.io.write(tmp_path / "a.xyz", same, format="extxyz")
        ase.io.write(tmp_path / "POSCAR", same, format="vasp")
        for source in (ExtendedXyz(tmp_path / "a.xyz"), PoscarFolder(tmp_path / "POSCAR")):
            assert _items(source)[0][0].crystal.space_group == group


# Extended XYZ


def _frame(crystal: Crystal, **info) -> str:
    """Return a frame as ASE writes it."""
    atoms = _atoms(crystal)
    atoms.info.update(info)
    text = io.StringIO()
    ase.io.write(text, atoms, format="extxyz")
    return text.getvalue()


SALT = 'Lattice="3.4 0 0 0 3.4 0 0 0 3.4"'
ATOMS = "Na 0 0 0\nCl 1.7 1.7 1.7\n"


def _read_xyz(path: Path, text: str | bytes, **limits) -> tuple[list[Entry], list[Reject]]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return _items(ExtendedXyz(path), **limits)


def test_frames_are_called_by_their_ids_or_counted(tmp_path, nacl, copper_primitive):
    text = _frame(nacl, material_id="mp-22") + "\n" + _frame(copper_primitive) + _frame(nacl, name="salt, again")
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
    ],
)
def test_comment_line_is_understood_in_every_spelling(tmp_path, comment, atoms):
    entries, rejects = _read_xyz(tmp_path / "a.xyz", f"\ufeff2\n{comment}\n{atoms}")
    assert rejects == []
    crystal = entries[0].crystal
    assert (crystal.formula, crystal.space_group) == ("NaCl", 221)
    _assert_same_sites(crystal, np.array([11, 17]), np.array([[0, 0, 0], [0.5, 0.5, 0.5]]))


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
        ('Lattice="3.4 3.4 3.4"', ATOMS, "Lattice not understood"),
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


def test_truncated_last_frame_keeps_the_earlier_ones(tmp_path, nacl):
    whole = _frame(nacl)
    for cut in (1, len(whole) // 2, len(whole) - len(whole.splitlines()[-1]) - 1):
        entries, rejects = _read_xyz(tmp_path / "a.xyz", whole * 3 + whole[:cut])
        assert len(entries) == 3
        assert [(r.entry, r.category) for r in rejects] == [("frame 4", "truncated frame")]
    # The last line may end without a line end.
    assert len(_read_xyz(tmp_path / "a.xyz", (whole * 2).rstrip("\n"))[0]) == 2


def test_frame_that_promises_a_trillion_atoms_costs_no_memory(tmp_path):
    _, rejects = _read_xyz(tmp_path / "a.xyz", f"999999999999\n{SALT}\n{ATOMS}")
    assert "after 2 of 999999999999 atoms" in rejects[0].reason


def test_wrong_count_ends_the_file_with_a_word(tmp_path, nacl):
    entries, rejects = _read_xyz(tmp_path / "a.xyz", _frame(nacl) + f"1\n{SALT}\n{ATOMS}" + _frame(nacl))
    assert len(entries) == 2  # of two atoms one is taken for a crystal: the file says so
    assert [(r.entry, r.category) for r in rejects] == [("frame 3", "not an XYZ frame")]
    assert "'Cl 1.7 1.7 1.7'" in rejects[0].reason


def test_frame_above_the_limit_is_passed_over_and_not_held(tmp_path, nacl, monkeypatch):
    monkeypatch.setattr(xyz, "MAX_BYTES", 4000)
    rows = "Na 0 0 0\n" * 1000
    entries, rejects = _read_xyz(
        tmp_path / "a.xyz", f"1000\n{SALT}\n{rows}2\n{SALT} {'x' * 5000}\n{ATOMS}{_frame(nacl)}"
    )
    assert [(r.entry, r.category) for r in rejects] == [("frame 1", "frame too large"), ("frame 2", "frame too large")]
    assert [e.entry for e in entries] == ["frame 3"]


def test_site_count_bound_is_checked_before_the_atoms_are_read(tmp_path, nacl):
    _, rejects = _read_xyz(tmp_path / "a.xyz", _frame(nacl).replace("Na", "?"), max_sites=7)
    assert [reject.category for reject in rejects] == ["more than 7 atoms in the cell"]


def test_occupancy_column_follows_the_policy(tmp_path):
    text = f"3\nProperties=species:S:1:pos:R:3:occupancy:R:1 {SALT}\nNa 0 0 0 0.7\nK 0 0 0 0.3\nCl 1.7 1.7 1.7 1\n"
    entries, _ = _read_xyz(tmp_path / "a.xyz", text, occupancy="majority")
    assert entries[0].crystal.formula == "NaCl"


def test_frame_that_ase_made_of_a_disordered_cif_is_not_taken_for_an_ordered_one(tmp_path):
    mixed = Structure(Lattice.cubic(3.4), [{"Na": 0.6, "K": 0.4}, "Cl"], [[0, 0, 0], [0.5] * 3])
    mixed.to(filename=str(tmp_path / "a.cif"))
    ase.io.write(tmp_path / "a.xyz", ase.io.read(tmp_path / "a.cif"), format="extxyz")
    assert _categories(ExtendedXyz(tmp_path / "a.xyz")) == ["partial occupancy (disordered structure)"]
    # and an ordered one is no different for it
    mixed.replace_species({"K": "Na"})
    mixed.to(filename=str(tmp_path / "a.cif"))
    ase.io.write(tmp_path / "a.xyz", ase.io.read(tmp_path / "a.cif"), format="extxyz")
    assert len(_items(ExtendedXyz(tmp_path / "a.xyz"))[0]) == 1


def test_long_file_is_streamed_in_bounded_memory(tmp_path, nacl):
    block = _frame(nacl) * 500
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
        return [reject.category for reject in _items(ExtendedXyz(tmp_path / name))[1]]

    assert category(b"") == ["empty file"]
    assert category(b"\0\1\2\xff" * 100) == ["not an XYZ frame"]
    assert category(f"1\n{SALT}\nNa 0 0 \0\n".encode()) == ["not a text file"]
    packed = gzip.compress("".join(_frame(nacl, energy=1 / k) for k in range(1, 200)).encode())
    assert category(packed[: len(packed) // 2], "a.xyz.gz") == ["cannot read the file"]
    assert len(_items(ExtendedXyz(tmp_path / "a.xyz.gz"))[0]) > 10


# Databases of ASE


@pytest.mark.parametrize("file", ["a.db", "a.json"])
def test_rows_come_in_order_under_their_ids_or_names(tmp_path, nacl, copper_primitive, file):
    rows = [(_atoms(nacl), {}), (_atoms(copper_primitive), {"material_id": "mp-30"}), (_atoms(nacl), {"name": "salt"})]
    path = _write_database(tmp_path / file, [*rows, (_atoms(nacl), {"x": 1.5})])
    ase.db.connect(str(path), use_lock_file=False).delete([1])
    entries, rejects = _items(AseDatabase(path))
    assert rejects == []
    assert [(e.entry, e.crystal.formula) for e in entries] == [("mp-30", "Cu"), ("salt", "NaCl"), ("row 4", "NaCl")]


@pytest.mark.parametrize("file", ["a.db", "a.json"])
def test_rows_equal_those_that_ase_reads(tmp_path, triclinic, sites_52, file):
    path = _write_database(tmp_path / file, [(_atoms(c), {"k": n}) for n, c in enumerate([triclinic, sites_52] * 3)])
    entries, _ = _items(AseDatabase(path))
    for entry, row in zip(entries, ase.db.connect(str(path), use_lock_file=False).select(), strict=True):
        atoms = row.toatoms()
        np.testing.assert_allclose(entry.crystal.lengths, atoms.cell.lengths(), atol=1e-12)
        np.testing.assert_allclose(entry.crystal.angles, atoms.cell.angles(), atol=1e-10)
        _assert_same_sites(entry.crystal, atoms.numbers, atoms.get_scaled_positions())


@pytest.mark.parametrize("file", ["a.db", "a.json"])
def test_molecule_unknown_atom_and_flat_cell_are_set_aside(tmp_path, nacl, file):
    slab, vacancy, flat, slim = (_atoms(nacl) for _ in range(4))
    slab.pbc = (True, True, False)
    vacancy.numbers[0] = 0
    flat.cell[2] = flat.cell[0]
    slim.cell[2] = 0
    rows = [Atoms("H2", [[0, 0, 0], [0, 0, 0.74]]), slab, vacancy, flat, slim, _atoms(nacl)]
    entries, rejects = _items(AseDatabase(_write_database(tmp_path / file, [(atoms, {}) for atoms in rows])))
    assert [r.category for r in rejects] == ["no cell", "no cell", "unknown element", "impossible cell", "no cell"]
    assert [r.entry for r in rejects] == [f"row {number}" for number in range(1, 6)]
    assert [e.entry for e in entries] == ["row 6"]


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_reading_a_database_changes_nothing_on_the_disk(tmp_path, nacl, mode):
    path = _write_database(tmp_path / "a.db", [(_atoms(nacl), {})])
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
    connection.close()
    before = {
        item.name: (item.stat().st_mtime_ns, hashlib.sha256(item.read_bytes()).digest()) for item in tmp_path.iterdir()
    }
    assert list(before) == ["a.db"]
    source = AseDatabase(path)
    assert next(iter(source.records())).entry == "row 1"
    assert len(_items(source)[0]) == 1
    after = {
        item.name: (item.stat().st_mtime_ns, hashlib.sha256(item.read_bytes()).digest()) for item in tmp_path.iterdir()
    }
    assert after == before


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user to whom permissions apply")
def test_database_in_a_folder_that_cannot_be_written_is_read(tmp_path, nacl):
    path = _write_database(tmp_path / "a.db", [(_atoms(nacl), {})])
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        assert len(_items(AseDatabase(path))[0]) == 1
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_database_that_is_being_written_is_an_error_and_not_repaired(tmp_path, nacl, mode):
    path = _write_database(tmp_path / "a#1?.db", [(_atoms(nacl), {})])
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute(f"PRAGMA journal_mode = {mode}")
    assert len(_items(AseDatabase(path))[0]) == 1
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE systems SET natoms = 7")
    if mode == "wal":
        writer.execute("COMMIT")
    with pytest.raises(CrystensError, match=r"is being written or was not closed: a#1\?\.db-(wal|journal)"):
        _items(AseDatabase(path))
    writer.close()


def test_what_is_no_database_of_ase_is_one_error_and_is_not_created(tmp_path, nacl):
    with pytest.raises(CrystensError, match=r"none\.db does not exist"):
        _items(AseDatabase(tmp_path / "none.db"))
    assert list(tmp_path.iterdir()) == []
    path = tmp_path / "a.db"
    for content, message in (
        (b"", "no database of ASE: its tables are"),
        (b"garbage" * 1000, "file is not a database"),
    ):
        path.write_bytes(content)
        with pytest.raises(CrystensError, match=message):
            _items(AseDatabase(path))
        assert path.read_bytes() == content
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE information (name, value)")
        # A query without an end, where a table should be.
        connection.execute(
            "CREATE VIEW systems AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x id FROM n"
        )
    connection.close()
    with pytest.raises(CrystensError, match="no database of ASE"):
        _items(AseDatabase(path))
    path.unlink()
    _write_database(path, [(_atoms(nacl), {})])
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE information SET value = '10' WHERE name = 'version'")
    connection.close()
    with pytest.raises(CrystensError, match="version 10 of ASE's format"):
        _items(AseDatabase(path))
    (tmp_path / "a.json").write_text("3.5")
    with pytest.raises(CrystensError, match="JSON but no database of ASE"):
        _items(AseDatabase(tmp_path / "a.json"))


def test_damaged_database_keeps_the_rows_before_the_damage(tmp_path, nacl):
    path = _write_database(tmp_path / "a.db", [(_atoms(nacl), {"name": f"salt-{k}"}) for k in range(400)])
    content = path.read_bytes()
    kept = len(content) * 3 // 5 // 4096 * 4096
    path.write_bytes(content[:kept] + bytes(len(content) - kept))
    entries, rejects = _items(AseDatabase(path))
    assert 100 < len(entries) < 400
    assert [entry.entry for entry in entries] == [f"salt-{k}" for k in range(len(entries))]
    assert [reject.category for reject in rejects] == ["cannot read the database"]
    # SQLite reads nothing of a file that is shorter than it says.
    path.write_bytes(content[:kept])
    with pytest.raises(CrystensError, match=r"a\.db cannot be read as a database: .*malformed; fetch or copy it again"):
        _items(AseDatabase(path))


def test_damaged_rows_are_set_aside_one_by_one(tmp_path, nacl, monkeypatch):
    path = _write_database(tmp_path / "a.db", [(_atoms(nacl), {}) for _ in range(7)])
    with sqlite3.connect(path) as connection:
        for number, (column, value) in enumerate(
            [
                ("numbers", b"abc"),
                ("positions", None),
                ("cell", b""),
                ("positions", b"\0" * 64),
                ("key_value_pairs", "{"),
                ("data", b"x" * 3_000_000),
                ("numbers", b"\0" * 30_000),
            ],
            start=1,
        ):
            connection.execute(f"UPDATE systems SET {column} = ? WHERE id = ?", (value, number))
    connection.close()
    monkeypatch.setattr(ase_db, "_MAX_ROW_BYTES", 20_000)
    entries, rejects = _items(AseDatabase(path))
    assert [e.entry for e in entries] == ["row 6"]
    assert [(r.entry, r.category) for r in rejects] == [
        ("row 1", "atomic numbers damaged"),
        ("row 2", "positions damaged"),
        ("row 3", "cell vectors of the wrong shape"),
        ("row 4", "positions of the wrong shape"),
        ("row 5", "not JSON"),
        ("row 7", "row too large"),
    ]


def test_damaged_json_database_keeps_the_rows_before_the_damage(tmp_path, nacl):
    path = _write_database(tmp_path / "a.json", [(_atoms(nacl), {}) for _ in range(5)])
    text = path.read_text()
    path.write_text(text[: int(len(text) * 0.7)])
    entries, rejects = _items(AseDatabase(path))
    assert [e.entry for e in entries] == ["row 1", "row 2", "row 3"]
    assert [r.category for r in rejects] == ["not JSON"]
    path.write_text('{"1": {"numbers": {"__ndarray__": [[9], "object", [11]]}, "positions": 3}, "2": null, "ids": [1]}')
    assert _categories(AseDatabase(path)) == ["array damaged", "no row of a database of ASE"]


# POSCARs

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
    return _items(PoscarFolder(tmp_path / "POSCAR"), **limits)


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
    _assert_same(entries[0].crystal, nacl)


@pytest.mark.parametrize("direct", [True, False])
def test_volume_as_scale_agrees_with_other_readers(tmp_path, triclinic, direct):
    lines = Poscar(triclinic.to_structure()).get_str(direct=direct).splitlines()
    lines[1] = "-300.0"
    (entry,), _ = _read_poscar(tmp_path, "\n".join(lines))
    assert entry.crystal.lattice.volume == pytest.approx(300, abs=1e-6)
    atoms = ase.io.read(tmp_path / "POSCAR")
    assert atoms.get_volume() == pytest.approx(300, abs=1e-6)
    _assert_same_sites(entry.crystal, atoms.numbers, atoms.get_scaled_positions())
    if direct:  # Cartesian positions are multiplied by the volume itself in pymatgen 2026.10
        structure = Structure.from_file(tmp_path / "POSCAR")
        assert structure.volume == pytest.approx(300, abs=1e-6)
        _assert_same_sites(entry.crystal, structure.atomic_numbers, structure.frac_coords)


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
    assert _categories(PoscarFolder(tmp_path)) == [category]


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
    entries, rejects = _items(source)
    assert rejects == []
    assert [e.file for e in entries] == sorted(names)
    assert list(source.contents()) == sorted(names)
    assert source.expected() == 6


# pymatgen's JSON


def _write_json(path: Path, value: object) -> Path:
    text = json.dumps(value).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def _salt() -> dict:
    """Return a Structure of NaCl as pymatgen writes it."""
    return Structure(Lattice.cubic(3.4), ["Na+", "Cl-"], [[0, 0, 0], [0.5] * 3]).as_dict()


@pytest.mark.parametrize("file", ["a.json", "a.json.gz"])
@pytest.mark.parametrize(
    ("wrap", "names"),
    [
        (lambda s: s, [""]),
        (lambda s: [s, s], ["item 1", "item 2"]),
        (lambda s: {"mp-1": s, "mp-2": s}, ["mp-1", "mp-2"]),
        (lambda s: {"material_id": "mp-7", "nsites": 2, "structure": s}, ["mp-7"]),
        (lambda s: {"structure": s, "material_id": "mp-7"}, ["mp-7"]),
        (lambda s: [{"material_id": "mp-7", "structure": s}, {"structure": s}], ["mp-7", "item 2"]),
        (lambda s: {"x": {"structure": s, "material_id": "mp-7"}}, ["x"]),
        (
            lambda s: [ComputedStructureEntry(Structure.from_dict(s), -7.0, entry_id="mp-3").as_dict()],
            ["mp-3"],
        ),
        (lambda s: Structure.from_dict(s).as_dict(verbosity=0), [""]),
    ],
)
def test_structures_are_found_wherever_pymatgen_puts_them(tmp_path, file, wrap, names):
    path = _write_json(tmp_path / file, wrap(_salt()))
    assert guess_kind(str(path)) == "pymatgen_json"
    entries, rejects = _items(PymatgenJson(path))
    assert rejects == []
    assert [e.entry for e in entries] == names
    assert {(e.crystal.formula, e.crystal.space_group) for e in entries} == {("NaCl", 221)}


def test_object_whose_first_value_is_no_structure_gives_the_others(tmp_path):
    entries, rejects = _items(PymatgenJson(_write_json(tmp_path / "a.json", {"mp-1": None, "mp-2": _salt()})))
    assert [e.entry for e in entries] == ["mp-2"]
    assert [(r.entry, r.category) for r in rejects] == [("mp-1", "no structure")]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_json_lines_of_structures_are_told_from_crystal_dictionaries(tmp_path, name):
    lines = [json.dumps(_salt()), "", "{", json.dumps({"material_id": "mp-9", "structure": _salt()})]
    text = "\n".join(lines).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    assert guess_kind(str(path)) == "pymatgen_json"
    entries, rejects = _items(PymatgenJson(path))
    assert [e.entry for e in entries] == ["line 1", "mp-9"]
    assert [(r.entry, r.category) for r in rejects] == [("line 3", "not JSON")]
    own = {"lattice": [3.4] * 3 + [90] * 3, "sites": [["Na", 0, 0, 0], ["Cl", 0.5, 0.5, 0.5]]}
    (tmp_path / "b.jsonl").write_text(json.dumps(own) + "\n")
    assert guess_kind(str(tmp_path / "b.jsonl")) == "crystal_dictionary"
    assert len(_items(open_source(str(tmp_path / "b.jsonl")))[0]) == 1


def test_no_class_that_a_file_names_is_imported(tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\nclass Trap:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    hostile = [
        _salt() | {"@module": "trap", "@class": "Trap"},
        {"@module": "os", "@class": "system", "structure": _salt() | {"@module": "trap", "@class": "Trap"}},
        {"@module": "os", "@callable": "system", "@bound": None, "command": "true"},
        _salt() | {"lattice": {"@module": "trap", "@class": "Trap"}},
        _salt() | {"sites": [{"@module": "trap", "@class": "Trap", "species": [{"@module": "trap", "element": "os"}]}]},
    ]
    entries, rejects = _items(PymatgenJson(_write_json(tmp_path / "a.json", hostile)))
    assert [e.entry for e in entries] == ["item 1", "item 2"]
    assert [r.category for r in rejects] == ["no structure", "cell vectors of the wrong shape", "unknown element"]
    assert "trap" not in sys.modules
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("change", "category"),
    [
        ({"lattice": {"matrix": [[3.4, 0, 0], [0, 3.4, 0]]}}, "cell vectors of the wrong shape"),
        ({"lattice": {"matrix": [[3.4, 0, 0], [0, 3.4, 0], [0]]}}, "cell vectors not numbers"),
        ({"lattice": {"matrix": [[3.4, 0, 0], [0, 3.4, 0], [0, 0, float("nan")]]}}, "cell vectors not finite"),
        ({"lattice": {"matrix": [[3.4, 0, 0], [0, 3.4, 0], [0, 0, 0]]}}, "no cell"),
        ({"lattice": _salt()["lattice"] | {"pbc": [True, True, False]}}, "no cell"),
        ({"lattice": None}, "no structure"),
        ({"sites": []}, "no atoms in the cell"),
        ({"sites": [{"species": [], "abc": [0, 0, 0]}]}, "species not understood"),
        ({"sites": [{"species": [{"element": "Vac"}], "abc": [0, 0, 0]}]}, "unknown element"),
        ({"sites": [{"species": [{"element": ["Na"]}], "abc": [0, 0, 0]}]}, "unknown element"),
        ({"sites": [{"species": [{"element": "Na", "occu": "all"}], "abc": [0, 0, 0]}]}, "occupancy not a number"),
        ({"sites": [{"species": [{"element": "Na", "occu": -1}], "abc": [0, 0, 0]}]}, "occupancy below 0"),
        ({"sites": [{"species": [{"element": "Na", "occu": 2}], "abc": [0, 0, 0]}]}, "occupancy above 1"),
        ({"sites": [{"species": [{"element": "Na", "occu": 1}]}]}, "coordinates of the wrong shape"),
        ({"sites": [{"species": [{"element": "Na"}], "abc": [0, 0, 1e999]}]}, "coordinates not finite"),
        ({"sites": [{"species": [{"element": "Na"}], "abc": [0, 0, "far"]}]}, "coordinates not numbers"),
    ],
)
def test_bad_structure_is_set_aside_and_the_next_one_read(tmp_path, change, category):
    path = _write_json(tmp_path / "a.json", [_salt() | change, _salt()])
    entries, rejects = _items(PymatgenJson(path))
    assert [(r.entry, r.category) for r in rejects] == [("item 1", category)]
    assert [e.entry for e in entries] == ["item 2"]


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("", "empty file"),
        ("[]", "no structure in the file"),
        ("{}", "no structure"),
        ('"a text"', "no structure"),
        ("{" + '"a": ' * 3, "not JSON"),
        ("nonsense", "not JSON"),
        ("[" * 200_000, "not JSON"),
        ('{"structure": "data_NaCl"}', "no structure"),
        ('{"columns": ["structure"], "data": [[1]]}', "no structure"),
    ],
)
def test_json_without_a_structure_is_set_aside(tmp_path, text, category):
    (tmp_path / "a.json").write_text(text)
    assert _categories(PymatgenJson(tmp_path / "a.json")) == [category]


def test_json_that_ends_early_or_goes_on_keeps_what_was_read(tmp_path):
    text = json.dumps([_salt()] * 4)
    for broken in (text[:-40], text[:-1], text + "{}", text[:-1] + text[1:]):
        (tmp_path / "a.json").write_text(broken)
        entries, rejects = _items(PymatgenJson(tmp_path / "a.json"))
        assert len(entries) >= 3
        assert [r.category for r in rejects] == ["not JSON"]


def test_partial_occupancy_follows_the_policy_and_oxidation_states_do_not_make_disorder(tmp_path):
    lattice = Lattice.cubic(3.4)
    sites = [[0, 0, 0], [0.5] * 3]
    valence = Structure(lattice, [{"Fe2+": 1 / 3, "Fe3+": 2 / 3}, {"D": 0.4, "H": 0.6}], sites)
    mixed = Structure(lattice, [{"Na": 0.6, "K": 0.4}, "Cl"], sites)
    path = _write_json(tmp_path / "a.json", [valence.as_dict(), mixed.as_dict()])
    entries, rejects = _items(PymatgenJson(path))
    assert [e.crystal.formula for e in entries] == ["FeH"]
    assert [r.category for r in rejects] == ["partial occupancy (disordered structure)"]
    entries, _ = _items(PymatgenJson(path), occupancy="majority")
    assert [e.crystal.formula for e in entries] == ["FeH", "NaCl"]


def test_long_json_is_streamed_and_a_large_entry_named(tmp_path, monkeypatch):
    text = json.dumps(_salt())
    path = tmp_path / "a.json"
    with path.open("w") as file:
        file.write("[" + text)
        for _ in range(20_000):
            file.write(", \n" + text)
        file.write("]")
    assert path.stat().st_size > 12e6
    tracemalloc.start()
    count = sum(isinstance(record, Record) for record in PymatgenJson(path).records())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_001
    assert peak < 10e6
    monkeypatch.setattr(streams, "MAX_BYTES", 2000)
    big = _salt() | {"properties": {"note": "x" * 3000}}
    (tmp_path / "b.json").write_text(json.dumps([_salt(), big, _salt()]))
    entries, rejects = _items(PymatgenJson(tmp_path / "b.json"))
    assert len(entries) == 1
    assert rejects[0].category == "entry too large"
    assert "JSON lines" in rejects[0].advice


def test_values_across_the_borders_of_what_is_read_at_once_stay_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "_CHUNK", 7)
    value = [12345678901, "a\\u00e9b", {"a": [1.25e-10, True]}, None, -0.5]
    (tmp_path / "a.json").write_text("\n  " + json.dumps(value, indent=3) + "  \n", encoding="utf-8-sig")
    with streams.opened(tmp_path / "a.json") as file:
        items = list(streams.json_items(file, lambda key, first: True))
    assert [(name, json.loads(text)) for name, text in items] == [(f"item {k}", v) for k, v in enumerate(value, 1)]
    (tmp_path / "a.json").write_text(json.dumps({"x": 1234567890, "y": 2}))
    for split, expected in ((True, [("x", 1234567890), ("y", 2)]), (False, [("", {"x": 1234567890, "y": 2})])):
        with streams.opened(tmp_path / "a.json") as file:
            items = list(streams.json_items(file, lambda key, first, split=split: split))
        assert [(name, json.loads(text)) for name, text in items] == expected


# Folders, archives, and what goes wrong with files


def _contents(crystal: Crystal) -> dict[str, tuple[type[Source], bytes]]:
    """Return a file name, the source and the bytes of each kind that reads folders."""
    structure = crystal.to_structure()
    return {
        "deep/salt.xyz": (ExtendedXyz, _frame(crystal).encode()),
        "deep/salt.vasp": (PoscarFolder, Poscar(structure).get_str().encode()),
        "deep/salt.json": (PymatgenJson, json.dumps(structure.as_dict()).encode()),
    }


@pytest.mark.parametrize("name", ["deep/salt.xyz", "deep/salt.vasp", "deep/salt.json"])
@pytest.mark.parametrize("packed", [False, True])
def test_folder_and_archives_hold_the_same_crystal_as_the_file(tmp_path, nacl, name, packed):
    kind, content = _contents(nacl)[name]
    name, content = (name + ".gz", gzip.compress(content)) if packed else (name, content)
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / name).write_bytes(content)
    (tmp_path / "in" / "readme.txt").write_text("passed over")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.write(tmp_path / "in" / name, name)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tarred:
        tarred.add(tmp_path / "in", arcname="")
    label = next(label for label, made in KINDS.items() if made is kind)
    for path, file in (("in", name), ("a.zip", f"a.zip/{name}"), ("a.tar.gz", f"a.tar.gz/{name}")):
        assert guess_kind(str(tmp_path / path)) == label
        entries, rejects = _items(open_source(str(tmp_path / path)))
        assert rejects == []
        assert [entry.file for entry in entries] == [file]
        _assert_same(entries[0].crystal, nacl)
        assert kind(tmp_path / path).contents()


@pytest.mark.parametrize("name", ["deep/salt.xyz", "deep/salt.vasp", "deep/salt.json"])
def test_pipe_vanished_file_and_damaged_gzip_are_set_aside(tmp_path, nacl, name):
    kind, content = _contents(nacl)[name]
    suffix = Path(name).suffix
    os.mkfifo(tmp_path / f"1{suffix}")
    (tmp_path / f"2{suffix}").symlink_to(tmp_path / "nowhere")
    (tmp_path / f"3{suffix}.gz").write_bytes(gzip.compress(content)[:-12])
    (tmp_path / f"4{suffix}").write_bytes(content)
    (tmp_path / f"5{suffix}").write_bytes(content)
    source = kind(tmp_path)
    items: list[Entry | Reject] = []
    for record in source.records():
        (tmp_path / f"5{suffix}").unlink(missing_ok=True)
        items += [record] if isinstance(record, Reject) else source.parsed(record, Limits())
    reasons = {item.file: item.category for item in items if isinstance(item, Reject)}
    assert reasons[f"1{suffix}"] == reasons[f"2{suffix}"] == "not a regular file"
    assert reasons[f"3{suffix}.gz"] in ("damaged gzip file", "cannot read the file")
    assert reasons[f"5{suffix}"] == "file not found"
    assert [item.file for item in items if isinstance(item, Entry)] in ([f"4{suffix}"], [f"3{suffix}.gz", f"4{suffix}"])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (ExtendedXyz, r"no \.xyz or \.extxyz file in"),
        (PoscarFolder, "no POSCAR file in"),
        (PymatgenJson, "no .json"),
    ],
)
def test_folder_without_such_files_and_a_file_of_another_name_are_errors(tmp_path, kind, message):
    with pytest.raises(CrystensError, match=message):
        _items(kind(tmp_path))
    (tmp_path / "a.png").touch()
    with pytest.raises(CrystensError, match=r"a\.png is neither .*; give "):
        _items(kind(tmp_path / "a.png"))
    with pytest.raises(CrystensError, match=r"a\.png is no database of ASE"):
        _items(AseDatabase(tmp_path / "a.png"))


# Kinds


def test_folder_is_guessed_by_what_stands_in_it(tmp_path, nacl):
    for name, (kind, content) in _contents(nacl).items():
        folder = tmp_path / Path(name).suffix[1:]
        folder.mkdir()
        (folder / Path(name).name).write_bytes(content)
        assert KINDS[guess_kind(str(folder))] is kind
        (folder / "salt.cif").write_text(write_cif(nacl))
        assert guess_kind(str(folder)) == "cif_folder"
    (tmp_path / "empty").mkdir()
    assert guess_kind(str(tmp_path / "empty")) == "cif_folder"


def test_folder_of_several_kinds_or_of_tables_says_what_was_found(tmp_path, nacl):
    for name, (_, content) in _contents(nacl).items():
        (tmp_path / Path(name).name).write_bytes(content)
    with pytest.raises(CrystensError, match=r"no CIF file in .* 1 of kind extxyz, 1 of kind poscar, 1 of "):
        guess_kind(str(tmp_path))
    (tmp_path / "salt.xyz").unlink()
    (tmp_path / "salt.json").write_text('{"author": "someone"}')  # notes
    assert guess_kind(str(tmp_path)) == "poscar"
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "a.csv").touch()
    with pytest.raises(CrystensError, match=r"no CIF file in .*tables, but 1 of kind csv; give one of the files"):
        guess_kind(str(tmp_path / "tables"))


def test_file_of_an_unknown_name_names_the_kinds(tmp_path):
    (tmp_path / "a.pdb").touch()
    with pytest.raises(CrystensError, match=r"a\.pdb has a name that tells no kind of source; known are cif_f"):
        guess_kind(str(tmp_path / "a.pdb"))


def test_json_file_is_told_by_its_first_value(tmp_path, nacl):
    assert guess_kind(str(_write_database(tmp_path / "a.json", [(_atoms(nacl), {})]))) == "ase_db"
    assert guess_kind(str(_write_json(tmp_path / "b.json", {"mp-1": _salt()}))) == "pymatgen_json"
    (tmp_path / "c.json").write_text("broken")
    assert guess_kind(str(tmp_path / "c.json")) == "pymatgen_json"
