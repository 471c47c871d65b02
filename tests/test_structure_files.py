"""Extended XYZ, ASE databases, POSCARs and pymatgen's JSON: what their writers wrote is what is read, packed or not."""

from __future__ import annotations

import gzip
import json
import os
import tarfile
import zipfile
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pytest
from pymatgen.io.vasp import Poscar
from structure_sources import (
    CRYSTALS,
    as_atoms,
    assert_same,
    items_of,
    salt_json,
    write_database,
    write_json,
    xyz_frame,
)

from crystens.cif.write import write_cif
from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.formats.ase_db import AseDatabase
from crystens.formats.extxyz import ExtendedXyz
from crystens.formats.poscar import PoscarFolder
from crystens.formats.pymatgen_json import PymatgenJson
from crystens.ingest.kinds import KINDS, guess_kind, open_source
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Reject
from crystens.sources.source import Source

# Round trips


@pytest.mark.parametrize("name", CRYSTALS)
@pytest.mark.parametrize(
    ("file", "kind", "write"),
    [
        ("a.extxyz", ExtendedXyz, lambda path, c: ase.io.write(path, as_atoms(c), format="extxyz")),
        (
            "a.xyz",
            ExtendedXyz,
            lambda path, c: ase.io.write(path, as_atoms(c), columns=["symbols", "positions", "numbers"]),
        ),
        ("a.db", AseDatabase, lambda path, c: write_database(path, [(as_atoms(c), {})])),
        ("a.json", AseDatabase, lambda path, c: write_database(path, [(as_atoms(c), {})])),
        ("POSCAR", PoscarFolder, lambda path, c: ase.io.write(path, as_atoms(c), format="vasp", direct=False)),
        ("a.vasp", PoscarFolder, lambda path, c: ase.io.write(path, as_atoms(c), format="vasp", direct=True)),
        ("CONTCAR", PoscarFolder, lambda path, c: Poscar(c.to_structure()).write_file(path)),
        ("a.json", PymatgenJson, lambda path, c: c.to_structure().to(filename=str(path))),
    ],
)
def test_what_others_wrote_is_read_back(request, tmp_path, name, file, kind, write):
    crystal = request.getfixturevalue(name)
    write(tmp_path / file, crystal)
    entries, rejects = items_of(kind(tmp_path / file))
    assert rejects == []
    assert len(entries) == 1
    assert_same(entries[0].crystal, crystal)
    assert guess_kind(str(tmp_path / file)) == next(kind_ for kind_, made in KINDS.items() if made is kind)


@pytest.mark.parametrize("name", CRYSTALS)
def test_rotated_cell_with_atoms_far_outside_of_it_is_the_same_crystal(request, tmp_path, name):
    crystal = request.getfixturevalue(name)
    atoms = as_atoms(crystal)
    atoms.rotate(77, (1, 2, 3), rotate_cell=True)
    atoms.positions += np.array([5, -3, 2]) @ atoms.cell
    ase.io.write(tmp_path / "a.xyz", atoms, format="extxyz")
    write_database(tmp_path / "a.db", [(atoms, {})])
    ase.io.write(tmp_path / "POSCAR", atoms, format="vasp")
    for source in (ExtendedXyz(tmp_path / "a.xyz"), AseDatabase(tmp_path / "a.db"), PoscarFolder(tmp_path / "POSCAR")):
        assert_same(items_of(source)[0][0].crystal, crystal)


def test_left_handed_cell_keeps_the_handedness_of_the_crystal(tmp_path, quartz):
    atoms = as_atoms(quartz)
    mirrored = atoms.copy()
    mirrored.set_cell(atoms.cell * [1, 1, -1], scale_atoms=True)
    atoms.set_cell(atoms.cell[[1, 0, 2]])  # the same crystal along axes in another order
    for same, group in ((atoms, 152), (mirrored, 154)):
        assert np.linalg.det(same.cell) < 0
        ase.io.write(tmp_path / "a.xyz", same, format="extxyz")
        ase.io.write(tmp_path / "POSCAR", same, format="vasp")
        for source in (ExtendedXyz(tmp_path / "a.xyz"), PoscarFolder(tmp_path / "POSCAR")):
            assert items_of(source)[0][0].crystal.space_group == group


# Folders, archives, and what goes wrong with files


def _contents(crystal: Crystal) -> dict[str, tuple[type[Source], bytes]]:
    """Return a file name, the source and the bytes of each kind that reads folders."""
    structure = crystal.to_structure()
    return {
        "deep/salt.xyz": (ExtendedXyz, xyz_frame(crystal).encode()),
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
        entries, rejects = items_of(open_source(str(tmp_path / path)))
        assert rejects == []
        assert [entry.file for entry in entries] == [file]
        assert_same(entries[0].crystal, nacl)
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
        items_of(kind(tmp_path))
    (tmp_path / "a.png").touch()
    with pytest.raises(CrystensError, match=r"a\.png is neither .*; give "):
        items_of(kind(tmp_path / "a.png"))
    with pytest.raises(CrystensError, match=r"a\.png is no database of ASE"):
        items_of(AseDatabase(tmp_path / "a.png"))


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
    with pytest.raises(CrystensError, match=r"the name of .*a\.pdb matches no kind of source; known are cif_f"):
        guess_kind(str(tmp_path / "a.pdb"))


def test_json_file_is_told_by_its_first_value(tmp_path, nacl):
    assert guess_kind(str(write_database(tmp_path / "a.json", [(as_atoms(nacl), {})]))) == "ase_db"
    assert guess_kind(str(write_json(tmp_path / "b.json", {"mp-1": salt_json()}))) == "pymatgen_json"
    (tmp_path / "c.json").write_text("broken")
    assert guess_kind(str(tmp_path / "c.json")) == "pymatgen_json"
