"""Whatever bytes a reader gets, it gives crystals that are sound and rejects that can be read, and soon.

Inputs and what must hold of them come from `experiments/fuzz`; what its campaigns found stands here by name.
"""

from __future__ import annotations

import importlib.util
import io
import json
import random
import sqlite3
import sys
import tarfile
import tempfile
import time
import zipfile
from collections import Counter
from contextlib import closing
from pathlib import Path
from types import ModuleType

import ase.db
import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from crystens.cif.read import read_cif
from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.formats.ase_db import AseDatabase
from crystens.formats.cif_folder import CifFolder
from crystens.formats.crystal_dictionary import CrystalDictionary
from crystens.formats.csv_table import CsvTable
from crystens.formats.extxyz import ExtendedXyz
from crystens.formats.poscar import PoscarFolder
from crystens.formats.pymatgen_json import PymatgenJson
from crystens.ingest.kinds import guess_kind
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Reject, Unusable
from crystens.sources.source import Source

REPOSITORY = Path(__file__).parent.parent


def _fuzz() -> ModuleType:
    """Return the experiment as a module."""
    folder = REPOSITORY / "experiments" / "fuzz"
    specification = importlib.util.spec_from_file_location("fuzz", folder / "run.py")
    module = importlib.util.module_from_spec(specification)
    sys.path.insert(0, str(folder))  # for its grammar
    try:
        specification.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    return module


FUZZ = _fuzz()

CSCL = """data_CsCl
_cell_length_a 4.123
_cell_length_b 4.123
_cell_length_c 4.123
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Cs 0 0 0
Cl 0.5 0.5 0.5
"""
SALT = {
    "lengths": [3.4] * 3,
    "angles": [90] * 3,
    "elements": ["Na", "Cl"],
    "coordinates": [[0, 0, 0], [0.5, 0.5, 0.5]],
}


# Any input


# Seeds and not choices that hypothesis draws: an input of the grammar may take more choices than it allows.
SEEDS = st.integers(0, 2**32 - 1)


def _check(name: str, seed: int) -> Counter[str]:
    """Read one broken input of a format, and check what must hold."""
    rng = random.Random(seed)
    content, limits = FUZZ.broken_input(rng, name), rng.choice(FUZZ.LIMITS)
    kind, file, _ = FUZZ.FORMATS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file
        path.write_bytes(content)
        found, seen = FUZZ.faults(kind, path, limits)
    # Not mended yet, see `test_kind_of_an_archive_with_a_damaged_header_can_be_asked_for`.
    assert found == [], f"{seed=}: {content[:2000]!r}"
    return seen


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", FUZZ.FORMATS)
def test_broken_input_gives_sound_crystals_and_readable_rejects(name):
    seen: Counter[str] = Counter()

    @settings(derandomize=True, database=None, max_examples=150, deadline=None)
    @given(SEEDS)
    def check(seed: int) -> None:
        seen.update(_check(name, seed))

    check()
    # Inputs that are all refused at the first letter, or all sound, would try nothing.
    assert seen["crystal"] >= 10
    assert len(seen) >= (5 if name == "pt" else 8)  # arrays that do not fit each other are refused as a whole


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", FUZZ.FORMATS)
def test_many_broken_inputs_give_sound_crystals_and_readable_rejects(name):
    for seed in range(300):
        _check(name, seed)


@settings(derandomize=True, database=None, max_examples=150, deadline=None)
@given(SEEDS)
def test_distances_agree_with_pymatgen_in_any_cell(seed):
    rng = np.random.default_rng(seed)
    lengths, angles = rng.uniform(1.0, 6, 3), rng.uniform(25, 155, 3)
    places, bound = rng.random((2, 3)), rng.uniform(0.5, 1.6)
    try:
        lattice = Crystal(lengths, angles, 1, [6, 6], places).lattice
        Limits(min_distance=bound).check_cell(lengths, angles)
    except Exception:
        return  # no cell, or one that is refused at once
    between = lattice.get_points_in_sphere([places[1]], lattice.get_cartesian_coords(places[0]), 20)
    own = lattice.get_points_in_sphere([[0, 0, 0]], [0, 0, 0], 20)
    shortest = min(min(point[1] for point in between), sorted(point[1] for point in own)[1])
    limits = Limits(min_distance=bound, max_volume_per_site=1e9)
    try:
        limits.crystal(lengths, angles, np.array([6, 6]), places)
        reason = ""
    except Unusable as error:
        reason = error.reason
    assert reason.startswith("two atoms") == (shortest < bound)


# What was found: CIFs


def _read(text: str | bytes, limits: Limits | None = None) -> Entry | Reject:
    """Return the one entry or reject of a CIF, which is as it should be."""
    (item,) = read_cif(text, "file.cif", limits or Limits())
    if isinstance(item, Reject):
        assert FUZZ._reject_faults(item) == []
    return item


def _with_operations(*triplets: str) -> str:
    return CSCL + "loop_\n_symmetry_equiv_pos_as_xyz\n" + "".join(f"'{triplet}'\n" for triplet in triplets)


@pytest.mark.parametrize("number", ["1" * 5000, "'\u00b2'", "'\u0663'"])
def test_group_number_that_int_does_not_take_is_an_unknown_group(number):
    assert _read(CSCL + f"_space_group_IT_number {number}\n").category == "space group not known"


@pytest.mark.parametrize("symbol", ["P 1 \u00e9", "\uff26 m", "P " * 1000])
def test_symbol_that_gemmi_cannot_complain_about_is_an_unknown_group(symbol):
    for tag in ("_space_group_name_Hall", "_space_group_name_H-M_alt"):
        assert _read(f"{CSCL}{tag} '{symbol}'\n").category == "space group not known"


@pytest.mark.parametrize(
    "triplet",
    [
        f"x+1/{'1' * 5000},y,z",
        f"x+1/{'9' * 400},y,z",
        f"x+{'9' * 400},y,z",
        "x,99999999999999999999*x+y,z",
        f"x{'+x-x' * 200_000},y,z",
    ],
)
def test_operation_with_numbers_or_terms_without_end_is_not_understood(triplet):
    assert _read(_with_operations("x,y,z", triplet)).category == "symmetry operation not understood"


def test_thousands_of_operations_on_thousands_of_atoms_are_refused_at_once():
    atoms = "".join(f"C 0.{k:04d} 0.1 0.2\n" for k in range(3000))
    text = CSCL + atoms + "loop_\n_symmetry_equiv_pos_as_xyz\n" + "".join(f"'x+{k},y,z'\n" for k in range(1000))
    start = time.perf_counter()
    assert _read(text, Limits(cell="primitive")).category == "too many symmetry operations"
    assert time.perf_counter() - start < 5


def test_operations_of_a_large_supercell_are_not_too_many():
    text = CSCL.replace("_a 4.123", "_a 824.6").replace("Cl 0.5", "Cl 0.0025")
    entry = _read(text + _with_operations(*(f"x+{k}/200,y,z" for k in range(200))).removeprefix(CSCL))
    assert len(entry.crystal) == 400


@pytest.mark.parametrize(
    ("old", "new", "category"),
    [
        ("_a 4.123", f"_a {'x' * 100_000}", "cell is not a number"),
        ("_a 4.123", "_a\n;\na\nb\n;", "cell is not a number"),
        ("Cs 0 0 0", "Cs 0 0\n;\na\nb\n;", "coordinate is not a finite number"),
        ("Cs 0 0 0", f"Cs 0 0 {'9' * 100_000}", "coordinate is not a finite number"),
        ("Cs 0 0 0", f"{'x' * 100_000} 0 0 0", "unknown element"),
        ("Cs 0 0 0", "'\x7f\u2028' 0 0 0", "unknown element"),
        ("_type_symbol", f"_type_symbol\n_a{'a' * 100_000}", "loop is truncated"),
        ("_a 4.123", f"_a '{'x ' * 50_000}", "CIF syntax error"),
    ],
)
def test_reason_is_one_short_line_whatever_the_file_holds(old, new, category):
    assert _read(CSCL.replace(old, new)).category == category


def test_name_of_a_data_block_is_cut():
    assert len(_read(CSCL.replace("data_CsCl", f"data_{'a' * 100_000}")).entry) < 300


def test_coordinate_without_decimals_left_is_refused_and_not_taken_for_zero():
    assert _read(CSCL.replace("Cs 0 0 0", "Cs 1e300 0 0")).category == "coordinate out of range"
    assert _read(CSCL.replace("Cs 0 0 0", "Cs -1000 0 0")).crystal.space_group == 221


def test_columns_of_two_loops_do_not_make_atoms():
    assert _read(CSCL.replace("Cs 0", "Cs ?") + "_atom_site_label C1\n").reason.endswith("Cs at ?, 0, 0")
    assert _read(CSCL + "_atom_site_occupancy 1\n").category == "atoms incomplete"


# What was found: distances and sizes


def test_many_sites_in_a_thin_cell_are_looked_at_in_time():
    count = 2000
    places = np.stack([np.zeros(count), np.arange(count) % 50 / 50, np.arange(count) // 50 / 40], axis=1)
    start = time.perf_counter()
    with pytest.raises(Unusable, match=r"the cell repeats after 0\.9"):
        Limits().crystal(np.array([0.9, 150, 120]), np.full(3, 90.0), np.full(count, 6), places)
    assert time.perf_counter() - start < 4


def test_cell_of_more_sites_than_can_be_looked_at_is_refused_at_once():
    text = CSCL.replace("4.123", "100") + "".join(f"C 0.{k:06d} 0.1 0.2\n" for k in range(20_000))
    start = time.perf_counter()
    assert _read(text).category == "more than 5000 atoms in the cell of the file"
    assert time.perf_counter() - start < 4


# What was found: the other formats


def _items(source: Source, **limits) -> list[Entry | Reject]:
    """Return what a source holds; rejects are as they should be."""
    items = list(source.read(Limits(**limits)))
    for item in items:
        assert isinstance(item, Entry) or FUZZ._reject_faults(item) == []
        assert len(item.entry) < 300
    return items


@pytest.mark.parametrize(
    ("change", "category"),
    [
        ({"lengths": []}, "cell lengths of the wrong shape"),
        ({"lengths": [10**400, 4, 4]}, "cell lengths not a table of numbers"),
        ({"elements": [True, "Cl"]}, "unknown element"),
        ({"elements": ["X" * 100_000, "Cl"]}, "unknown element"),
        ({"elements": [{"a\nb": 1}, "Cl"]}, "unknown element"),
        ({"coordinates": [["x" * 100_000, 0, 0], [0, 0, 0]]}, "coordinates not a table of numbers"),
        ({"id": "a" * 100_000, "angles": [0, 0, 0]}, "impossible cell"),
        ({"id": [[1]] * 10_000, "angles": [0, 0, 0]}, "impossible cell"),
    ],
)
def test_line_of_a_dictionary_is_set_aside_in_a_few_words(tmp_path, change, category):
    (tmp_path / "a.jsonl").write_text(json.dumps(SALT | change))
    (reject,) = _items(CrystalDictionary(tmp_path / "a.jsonl"))
    assert reject.category == category


@pytest.mark.parametrize("depth", [60, 70, *range(880, 1000, 5)])
def test_deep_nesting_is_set_aside_at_any_depth(tmp_path, depth):
    deep = "[" * depth + "1" + "]" * depth
    line = json.dumps(SALT | {"elements": ["@", "Cl"]}).replace('"@"', deep)
    (tmp_path / "a.jsonl").write_text(line)
    site = f'{{"species": {deep}, "abc": {deep}}}'
    (tmp_path / "a.json").write_text(f'{{"lattice": {{"matrix": [[4,0,0],[0,4,0],[0,0,4]]}}, "sites": [{site}]}}')
    row = f'{{"numbers": {deep}, "positions": {deep}, "cell": [[4,0,0],[0,4,0],[0,0,4]], "pbc": [true, true, true]}}'
    (tmp_path / "b.json").write_text(f'{{"1": {row}}}')
    for source in (
        CrystalDictionary(tmp_path / "a.jsonl"),
        PymatgenJson(tmp_path / "a.json"),
        AseDatabase(tmp_path / "b.json"),
    ):
        assert [type(item) for item in _items(source)] == [Reject]


@pytest.mark.parametrize(
    ("occupancy", "category"),
    [(10**400, "occupancy not a number"), (True, "occupancy not a number"), (1e308, "occupancy not a number")],
)
def test_occupancy_that_is_no_number_is_set_aside(tmp_path, occupancy, category):
    site = {"species": [{"element": "Na", "occu": occupancy}], "abc": [0, 0, 0]}
    structure = {"lattice": {"matrix": [[4, 0, 0], [0, 4, 0], [0, 0, 4]]}, "sites": [site]}
    (tmp_path / "a.json").write_text(json.dumps(structure))
    assert [item.category for item in _items(PymatgenJson(tmp_path / "a.json"))] == [category]


def test_keys_and_flags_of_json_do_not_fill_a_reason(tmp_path):
    structure = {"lattice": {"matrix": [[4, 0, 0]] * 3, "pbc": [True] * 10_000}, "sites": []}
    for value in (
        [structure],
        [{"a\nb": 1, "k" * 10_000: 2}],
        {"k\n" * 10_000: structure},
        {"mp-1": structure, "x": 1},
    ):
        (tmp_path / "a.json").write_text(json.dumps(value))
        assert all(isinstance(item, Reject) for item in _items(PymatgenJson(tmp_path / "a.json")))
    (tmp_path / "b.json").write_text(json.dumps({"1\n" * 10_000: {"numbers": [1], "positions": [[0, 0, 0]]}}) + "\x1b")
    assert [item.category for item in _items(AseDatabase(tmp_path / "b.json"))] == ["no cell", "not JSON"]
    (tmp_path / "b.json").write_text('{"1": {"numbers": [1], "positions": [[0, 0, 0]]} \x1b')
    assert [item.category for item in _items(AseDatabase(tmp_path / "b.json"))] == ["no cell", "not JSON"]


def test_row_of_a_database_whose_id_is_no_key_is_set_aside(tmp_path):
    path = tmp_path / "a.db"
    with ase.db.connect(str(path), use_lock_file=False) as database:
        for length in (4.0, 5.0):
            database.write(Atoms("Na", [[0, 0, 0]], cell=[length] * 3, pbc=True))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE copy AS SELECT * FROM systems")
        connection.execute("DROP TABLE systems")
        connection.execute("ALTER TABLE copy RENAME TO systems")
        connection.execute("UPDATE systems SET id = NULL WHERE id = 1")
    items = _items(AseDatabase(path))
    assert [getattr(item, "category", "crystal") for item in items] == ["row not found again by its id", "crystal"]


def test_database_with_a_damaged_schema_is_an_error(tmp_path):
    path = tmp_path / "a.db"
    with ase.db.connect(str(path), use_lock_file=False) as database:
        database.write(Atoms("Na", [[0, 0, 0]], cell=[4.0] * 3, pbc=True))
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE systems", b"CREATE \xc2ABLE systems"))
    with pytest.raises(CrystensError, match="cannot be read as a database"):
        _items(AseDatabase(path))


def test_name_and_flags_of_an_xyz_frame_are_cut(tmp_path):
    lattice = 'Lattice="4 0 0 0 4 0 0 0 4"'
    (tmp_path / "a.xyz").write_text(f'1\n{lattice} pbc="{"T " * 10_000}" id={"a" * 10_000}\nNa 0 0 0\n')
    assert [item.category for item in _items(ExtendedXyz(tmp_path / "a.xyz"))] == ["no cell"]


@pytest.mark.parametrize(
    ("line", "new", "category"),
    [
        (1, "1 " * 100_000, "scale not understood"),
        (5, "Na\x1b Cl Fe", "numbers of atoms do not fit the elements"),
    ],
)
def test_poscar_is_set_aside_in_a_few_words(tmp_path, line, new, category):
    lines = ["salt", "1", "4 0 0", "0 4 0", "0 0 4", "Na Cl", "1 1", "Direct", "0 0 0", "0.5 0.5 0.5"]
    (tmp_path / "POSCAR").write_text("\n".join([*lines[:line], new, *lines[line + 1 :]]))
    assert [item.category for item in _items(PoscarFolder(tmp_path))] == [category]


def test_table_of_many_columns_and_rows_is_read_in_time(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("cif" + ",a" * 20_000 + "\n" + "x\n" * 20_000)
    start = time.perf_counter()
    assert sum(1 for _ in CsvTable(path).records()) == 20_000
    assert time.perf_counter() - start < 3


# What was found: archives


def _tar(path: Path, headers: dict[str, str], name: str = "a.cif") -> Path:
    """Write an archive of two CIFs, with words in the extended header of the second."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as file:
        for member, words in ((tarfile.TarInfo("first.cif"), {}), (tarfile.TarInfo(name), headers)):
            member.size = len(CSCL)
            member.pax_headers = words
            file.addfile(member, io.BytesIO(CSCL.encode()))
    return path


def _zip_of_another_version(path: Path) -> Path:
    """Write an archive that asks for a version of its format that there is not."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.cif", CSCL)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 99
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "words", [{"GNU.sparse.size": "1.5"}, {"GNU.sparse.size": "x" * 1000}, {"GNU.sparse.map": "?"}]
)
def test_tar_with_a_damaged_header_keeps_what_was_read(tmp_path, words):
    items = _items(CifFolder(_tar(tmp_path / "a.tar", words)))
    assert [getattr(item, "category", "crystal") for item in items] == ["crystal", "cannot read the archive"]


def test_zip_of_an_unknown_version_is_set_aside(tmp_path):
    items = _items(CifFolder(_zip_of_another_version(tmp_path / "a.zip")))
    assert [item.reason for item in items] == ["cannot read the archive: zip file version 9.9"]


def test_member_of_an_archive_with_a_name_without_end_is_set_aside(tmp_path):
    items = _items(CifFolder(_tar(tmp_path / "a.tar", {}, name="a" * 100_000 + ".cif")))
    assert [getattr(item, "category", "crystal") for item in items] == ["crystal", "name of an archive member too long"]
    assert all(len(item.file) < 300 for item in items)


@pytest.mark.parametrize(
    "make", [lambda p: _tar(p / "a.tar", {"GNU.sparse.size": "1.5"}), lambda p: _zip_of_another_version(p / "a.zip")]
)
def test_kind_of_an_archive_with_a_damaged_header_can_be_asked_for(tmp_path, make):
    assert guess_kind(str(make(tmp_path))) == "cif_folder"
