"""Databases of ASE: read as ASE reads them, changed in nothing, and as far as they are whole."""

from __future__ import annotations

import hashlib
import os
import sqlite3

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from structure_sources import as_atoms, assert_same_sites, categories_of, items_of, write_database

from crystens.errors import CrystensError
from crystens.formats import ase_db
from crystens.formats.ase_db import AseDatabase


@pytest.mark.parametrize("file", ["a.db", "a.json"])
def test_rows_come_in_order_under_their_ids_or_names(tmp_path, nacl, copper_primitive, file):
    rows = [
        (as_atoms(nacl), {}),
        (as_atoms(copper_primitive), {"material_id": "mp-30"}),
        (as_atoms(nacl), {"name": "salt"}),
    ]
    path = write_database(tmp_path / file, [*rows, (as_atoms(nacl), {"x": 1.5})])
    ase.db.connect(str(path), use_lock_file=False).delete([1])
    entries, rejects = items_of(AseDatabase(path))
    assert rejects == []
    assert [(e.entry, e.crystal.formula) for e in entries] == [("mp-30", "Cu"), ("salt", "NaCl"), ("row 4", "NaCl")]


@pytest.mark.parametrize("file", ["a.db", "a.json"])
def test_rows_equal_those_that_ase_reads(tmp_path, triclinic, sites_52, file):
    path = write_database(tmp_path / file, [(as_atoms(c), {"k": n}) for n, c in enumerate([triclinic, sites_52] * 3)])
    entries, _ = items_of(AseDatabase(path))
    for entry, row in zip(entries, ase.db.connect(str(path), use_lock_file=False).select(), strict=True):
        atoms = row.toatoms()
        np.testing.assert_allclose(entry.crystal.lengths, atoms.cell.lengths(), atol=1e-12)
        np.testing.assert_allclose(entry.crystal.angles, atoms.cell.angles(), atol=1e-10)
        assert_same_sites(entry.crystal, atoms.numbers, atoms.get_scaled_positions())


@pytest.mark.parametrize("file", ["a.db", "a.json"])
def test_molecule_unknown_atom_and_flat_cell_are_set_aside(tmp_path, nacl, file):
    slab, vacancy, flat, slim = (as_atoms(nacl) for _ in range(4))
    slab.pbc = (True, True, False)
    vacancy.numbers[0] = 0
    flat.cell[2] = flat.cell[0]
    slim.cell[2] = 0
    rows = [Atoms("H2", [[0, 0, 0], [0, 0, 0.74]]), slab, vacancy, flat, slim, as_atoms(nacl)]
    entries, rejects = items_of(AseDatabase(write_database(tmp_path / file, [(atoms, {}) for atoms in rows])))
    assert [r.category for r in rejects] == ["no cell", "no cell", "unknown element", "impossible cell", "no cell"]
    assert [r.entry for r in rejects] == [f"row {number}" for number in range(1, 6)]
    assert [e.entry for e in entries] == ["row 6"]


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_reading_a_database_changes_nothing_on_the_disk(tmp_path, nacl, mode):
    path = write_database(tmp_path / "a.db", [(as_atoms(nacl), {})])
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
    connection.close()
    before = {
        item.name: (item.stat().st_mtime_ns, hashlib.sha256(item.read_bytes()).digest()) for item in tmp_path.iterdir()
    }
    assert list(before) == ["a.db"]
    source = AseDatabase(path)
    assert next(iter(source.records())).entry == "row 1"
    assert len(items_of(source)[0]) == 1
    after = {
        item.name: (item.stat().st_mtime_ns, hashlib.sha256(item.read_bytes()).digest()) for item in tmp_path.iterdir()
    }
    assert after == before


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user to whom permissions apply")
def test_database_in_a_folder_that_cannot_be_written_is_read(tmp_path, nacl):
    path = write_database(tmp_path / "a.db", [(as_atoms(nacl), {})])
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        assert len(items_of(AseDatabase(path))[0]) == 1
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_database_that_is_being_written_is_an_error_and_not_repaired(tmp_path, nacl, mode):
    path = write_database(tmp_path / "a#1?.db", [(as_atoms(nacl), {})])
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute(f"PRAGMA journal_mode = {mode}")
    assert len(items_of(AseDatabase(path))[0]) == 1
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE systems SET natoms = 7")
    if mode == "wal":
        writer.execute("COMMIT")
    with pytest.raises(CrystensError, match=r"is being written or was not closed: a#1\?\.db-(wal|journal)"):
        items_of(AseDatabase(path))
    writer.close()


def test_what_is_no_database_of_ase_is_one_error_and_is_not_created(tmp_path, nacl):
    with pytest.raises(CrystensError, match=r"none\.db does not exist"):
        items_of(AseDatabase(tmp_path / "none.db"))
    assert list(tmp_path.iterdir()) == []
    path = tmp_path / "a.db"
    for content, message in (
        (b"", "no database of ASE: its tables are"),
        (b"garbage" * 1000, "file is not a database"),
    ):
        path.write_bytes(content)
        with pytest.raises(CrystensError, match=message):
            items_of(AseDatabase(path))
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
        items_of(AseDatabase(path))
    path.unlink()
    write_database(path, [(as_atoms(nacl), {})])
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE information SET value = '10' WHERE name = 'version'")
    connection.close()
    with pytest.raises(CrystensError, match="version 10 of ASE's format"):
        items_of(AseDatabase(path))
    (tmp_path / "a.json").write_text("3.5")
    with pytest.raises(CrystensError, match="JSON but no database of ASE"):
        items_of(AseDatabase(tmp_path / "a.json"))


def test_damaged_database_keeps_the_rows_before_the_damage(tmp_path, nacl):
    path = write_database(tmp_path / "a.db", [(as_atoms(nacl), {"name": f"salt-{k}"}) for k in range(400)])
    content = path.read_bytes()
    kept = len(content) * 3 // 5 // 4096 * 4096
    path.write_bytes(content[:kept] + bytes(len(content) - kept))
    entries, rejects = items_of(AseDatabase(path))
    assert 100 < len(entries) < 400
    assert [entry.entry for entry in entries] == [f"salt-{k}" for k in range(len(entries))]
    assert [reject.category for reject in rejects] == ["cannot read the database"]
    # SQLite reads nothing of a file that is shorter than it says.
    path.write_bytes(content[:kept])
    with pytest.raises(CrystensError, match=r"a\.db cannot be read as a database: .*malformed; fetch or copy it again"):
        items_of(AseDatabase(path))


def test_damaged_rows_are_set_aside_one_by_one(tmp_path, nacl, monkeypatch):
    path = write_database(tmp_path / "a.db", [(as_atoms(nacl), {}) for _ in range(7)])
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
    entries, rejects = items_of(AseDatabase(path))
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
    path = write_database(tmp_path / "a.json", [(as_atoms(nacl), {}) for _ in range(5)])
    text = path.read_text()
    path.write_text(text[: int(len(text) * 0.7)])
    entries, rejects = items_of(AseDatabase(path))
    assert [e.entry for e in entries] == ["row 1", "row 2", "row 3"]
    assert [r.category for r in rejects] == ["not JSON"]
    path.write_text('{"1": {"numbers": {"__ndarray__": [[9], "object", [11]]}, "positions": 3}, "2": null, "ids": [1]}')
    assert categories_of(AseDatabase(path)) == ["array damaged", "no row of a database of ASE"]
