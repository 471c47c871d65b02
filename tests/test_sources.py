"""Sources: nothing crashes on one bad entry, nothing is lost without a word, and errors say what to do."""

from __future__ import annotations

import csv
import gzip
import json
import logging
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from crystens.cif.write import write_cif
from crystens.crystal import Crystal
from crystens.data.__main__ import main
from crystens.datasets.cdvae import CdvaeSplits
from crystens.datasets.mp_3dsc import Mp3dsc
from crystens.datasets.prototypes import Prototypes
from crystens.errors import CrystensError
from crystens.formats.ase_db import AseDatabase
from crystens.formats.cif_folder import CifFolder
from crystens.formats.crystal_dictionary import CrystalDictionary
from crystens.formats.csv_table import CsvTable
from crystens.formats.extxyz import ExtendedXyz
from crystens.formats.poscar import PoscarFolder
from crystens.formats.pymatgen_json import PymatgenJson
from crystens.ingest.kinds import guess_kind
from crystens.ingest.store import CrystalStore
from crystens.ingest.store_source import StoredCrystals
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Reject
from crystens.sources.source import Source, read_all


def _items(source: Source, **limits: float) -> tuple[list[Entry], list[Reject]]:
    """Return the entries and rejects of a source."""
    items = list(source.read(Limits(**limits)))
    return [i for i in items if isinstance(i, Entry)], [i for i in items if isinstance(i, Reject)]


def _write_table(path: Path, rows: list[tuple[str, str]], header: tuple[str, ...] = ("", "material_id", "cif")) -> Path:
    """Write a table in CDVAE's form."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([(k, *row) if header[0] == "" else row for k, row in enumerate(rows)])
    return path


# Folders and archives


@pytest.fixture
def folder(tmp_path, nacl, copper_primitive) -> Path:
    """A folder with a good file, a good gzipped one further down, a bad one, and one that is no CIF by name."""
    root = tmp_path / "cifs"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "salt.cif").write_text(write_cif(nacl))
    (root / "deep" / "er" / "copper.CIF.GZ").write_bytes(gzip.compress(write_cif(copper_primitive).encode()))
    (root / "deep" / "bad.cif").write_text("no data here")
    (root / "README.txt").write_text("not a crystal")
    return root


def test_store_that_was_made_inside_of_its_source_is_not_read_as_data(folder):
    for _ in range(2):
        assert main(["ingest", str(folder), "--out", str(folder / "store"), "--workers", "0"]) == 0
    assert main(["ingest", str(folder), "--out", str(folder / "other"), "--workers", "0"]) == 0
    assert len(CrystalStore.open(folder / "other")) == 2
    assert CrystalStore.open(folder / "other").num_rejects == 1


def test_folder_is_searched_to_any_depth_in_sorted_order(folder):
    entries, rejects = _items(CifFolder(folder))
    assert [entry.file for entry in entries] == ["deep/er/copper.CIF.GZ", "salt.cif"]
    assert [reject.file for reject in rejects] == ["deep/bad.cif"]


@pytest.mark.parametrize("name", ["cifs.tar.gz", "cifs.zip", "cifs.tar"])
def test_archive_holds_the_same_crystals_as_its_folder(folder, tmp_path, name):
    archive = tmp_path / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(archive, "w") as packed:
            for path in sorted(folder.rglob("*.*")):
                packed.write(path, path.relative_to(folder))
    else:
        with tarfile.open(archive, "w:gz" if name.endswith("gz") else "w") as packed:
            packed.add(folder, arcname="cifs")
    entries, rejects = _items(CifFolder(archive))
    assert sorted(entry.crystal.formula for entry in entries) == ["Cu", "NaCl"]
    assert len(rejects) == 1
    assert all(entry.file.startswith(f"{name}/") for entry in entries)
    # The same archive inside of a folder.
    entries, _ = _items(CifFolder(tmp_path))
    assert len(entries) == 4


def test_archive_member_that_is_a_link_is_set_aside_and_never_followed(tmp_path, nacl):
    (tmp_path / "secret.cif").write_text(write_cif(nacl))
    with tarfile.open(tmp_path / "links.tar", "w") as packed:
        link = tarfile.TarInfo("../link.cif")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.cif")
        packed.addfile(link)
    entries, rejects = _items(CifFolder(tmp_path / "links.tar"))
    assert not entries
    assert rejects[0].reason.startswith("not a regular file")


def test_archive_that_ends_early_keeps_what_was_read(tmp_path, nacl):
    rng = np.random.default_rng(0)
    with tarfile.open(tmp_path / "whole.tar.gz", "w:gz") as packed:
        for k in range(20):
            path = tmp_path / f"{k}.txt"
            path.write_text(write_cif(nacl) + f"# {rng.random(200).tolist()}\n")
            packed.add(path, arcname=f"{k}.cif")
    content = (tmp_path / "whole.tar.gz").read_bytes()
    (tmp_path / "half.tar.gz").write_bytes(content[: len(content) // 2])
    entries, rejects = _items(CifFolder(tmp_path / "half.tar.gz"))
    assert 0 < len(entries) < 20
    assert rejects[-1].file == "half.tar.gz"
    assert rejects[-1].reason.startswith("cannot read the archive")


def test_pipe_and_broken_link_are_set_aside_without_waiting(tmp_path, nacl):
    os.mkfifo(tmp_path / "pipe.cif")
    (tmp_path / "gone.cif").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "salt.cif").write_text(write_cif(nacl))
    entries, rejects = _items(CifFolder(tmp_path))
    assert len(entries) == 1
    assert sorted(reject.file for reject in rejects) == ["gone.cif", "pipe.cif"]


# Tables


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
def test_table_ids_are_text_and_bad_rows_are_set_aside(tmp_path, nacl, name):
    text = write_cif(nacl)
    path = _write_table(tmp_path / name, [("007", text), ("8", ""), ("9", "garbage"), ("", text)])
    entries, rejects = _items(CsvTable(path))
    assert [entry.entry for entry in entries] == ["007", "row 4"]
    assert [(reject.entry, reject.category) for reject in rejects] == [("8", "empty file"), ("9", "not a CIF")]


def test_last_row_of_a_table_that_was_cut_off_is_set_aside(tmp_path, nacl):
    path = _write_table(tmp_path / "table.csv", [("1", write_cif(nacl)), ("2", write_cif(nacl))])
    text = path.read_text()
    path.write_text(text[: text.rindex("Cl4")])  # the CIF of the last row is still one, of other contents
    entries, rejects = _items(CsvTable(path))
    assert [entry.entry for entry in entries] == ["1"]
    assert [(reject.entry, reject.category) for reject in rejects] == [("2", "table is truncated")]


def test_quotation_marks_inside_of_a_table_are_no_truncation(tmp_path, nacl):
    text = write_cif(nacl).replace("data_", '# a "quoted" word, and 5" of it\ndata_', 1)
    path = _write_table(tmp_path / "table.csv", [("1", text), ("2", text)])
    assert [entry.entry for entry in _items(CsvTable(path))[0]] == ["1", "2"]


def test_table_without_the_column_says_which_it_has(tmp_path):
    path = _write_table(tmp_path / "table.csv", [("1", "x")], header=("id", "formula"))
    message = r"table\.csv has no column cif, cif_string or structure \(its columns: id, formula\)"
    with pytest.raises(CrystensError, match=message):
        _items(CsvTable(path))


@pytest.mark.parametrize("column", ["cif_string", "structure", "LeMatStructs", "cif"])
def test_crystals_of_a_table_stand_in_columns_of_several_names_as_cif_or_json(tmp_path, nacl, column):
    structure = nacl.to_structure().as_dict()
    cells = [
        write_cif(nacl),
        json.dumps(structure),
        " " + json.dumps({"structure": structure}),
        "{'lattice': ",
        "",
        "x",
    ]
    rows = [(f"mp-{k}", cell) for k, cell in enumerate(cells)]
    path = _write_table(tmp_path / "table.csv", rows, header=("immutable_id", column))
    entries, rejects = _items(CsvTable(path))
    assert [(entry.entry, entry.crystal.formula) for entry in entries] == [(f"mp-{k}", "NaCl") for k in range(3)]
    assert [reject.entry for reject in rejects] == ["mp-3", "mp-4", "mp-5"]
    assert rejects[0].category == "not JSON"


def test_first_filled_cell_of_a_row_is_its_crystal(tmp_path, nacl, single_atom):
    other = json.dumps(single_atom.to_structure().as_dict())
    rows = [("", write_cif(nacl), other), ("b", "", other), ("c", "", "")]
    path = _write_table(tmp_path / "table.csv", rows, header=("id", "cif", "structure"))
    entries, rejects = _items(CsvTable(path))
    assert [(entry.entry, len(entry.crystal)) for entry in entries] == [("row 1", 8), ("b", 1)]
    assert [reject.entry for reject in rejects] == ["c"]


def test_gzipped_table_that_ends_early_keeps_what_was_read(tmp_path, nacl):
    rng = np.random.default_rng(0)
    text = write_cif(nacl)
    path = _write_table(tmp_path / "t.csv.gz", [(str(k), f"{text}# {rng.random(200).tolist()}\n") for k in range(20)])
    path.write_bytes(path.read_bytes()[:-30000])
    entries, rejects = _items(CsvTable(path))
    assert 0 < len(entries) < 20
    assert rejects[-1].reason.startswith("cannot read the table")


def test_three_tables_give_their_splits(tmp_path, nacl, copper_primitive, single_atom):
    for split, crystal in (("train", nacl), ("val", copper_primitive), ("test", single_atom)):
        _write_table(tmp_path / f"{split}.csv", [("1", write_cif(crystal))])
    entries, _ = _items(CdvaeSplits(tmp_path, "perov_5"))
    assert [(e.split, e.crystal.formula) for e in entries] == [("train", "NaCl"), ("val", "Cu"), ("test", "Po")]
    (tmp_path / "val.csv").unlink()
    with pytest.raises(CrystensError, match=r"no val\.csv or val\.csv\.gz in .*cdvae/.*/data/perov_5"):
        _items(CdvaeSplits(tmp_path, "perov_5"))


# Crystal dictionaries

SALT = {
    "lengths": [5.64] * 3,
    "angles": [90] * 3,
    "elements": ["Na", "Cl"],
    "coordinates": [[0, 0, 0], [0.5, 0.5, 0.5]],
}


@pytest.mark.parametrize(
    "line",
    [
        {"id": "x", **SALT},
        {"name": "x", "a": 5.64, "b": 5.64, "c": 5.64, "alpha": 90, "beta": 90, "gamma": 90}
        | {"atomic_numbers": [11, 17], "frac_coords": SALT["coordinates"]},
        {"material_id": "x", "Cell": [5.64] * 3 + [90] * 3, "sites": [["Na", 0, 0, 0], [17, 0.5, 0.5, 0.5]]},
        {"id": "x", "lattice": {"Cell Lengths": [5.64] * 3, "cell-angles": [90] * 3}, "Species": ["Na", "Cl"]}
        | {"x": [0, 0.5], "y": [0, 0.5], "z": [0, 0.5], "space_group": 225},
    ],
)
def test_dictionary_understands_every_way_of_saying_it(tmp_path, line):
    path = tmp_path / "crystals.jsonl"
    path.write_text("\n" + json.dumps(line) + "\n")
    entries, rejects = _items(CrystalDictionary(path))
    assert rejects == []
    assert [(e.entry, e.crystal.formula, e.crystal.space_group) for e in entries] == [("x", "NaCl", 221)]


@pytest.mark.parametrize(
    ("line", "category"),
    [
        ("not json", "not JSON"),
        ("[1, 2]", "not a JSON object"),
        (json.dumps(SALT | {"lengths": [5.64] * 2}), "cell lengths of the wrong shape"),
        (json.dumps(SALT | {"lengths": [0, 1, 1]}), "impossible cell"),
        (json.dumps(SALT | {"angles": None}), "cell missing"),
        (json.dumps(SALT | {"elements": ["Na", "Xx"]}), "unknown element"),
        (json.dumps(SALT | {"elements": ["Na", 1e400]}), "unknown element"),
        (json.dumps(SALT | {"elements": ["Na"]}), "coordinates of the wrong shape"),
        (json.dumps(SALT | {"elements": [], "coordinates": []}), "no atoms in the cell"),
        (json.dumps(SALT | {"coordinates": [[0, 0, 0], [0, 0, float("nan")]]}), "coordinates not finite"),
        (json.dumps(SALT | {"coordinates": [[0, 0, 0], [0, 0, "far"]]}), "coordinates not a table of numbers"),
        (json.dumps(SALT | {"coordinates": [[0, 0, 0], [0, 0, 0.01]]}), "two atoms closer than any bond"),
    ],
)
def test_dictionary_sets_a_bad_line_aside_and_reads_on(tmp_path, line, category):
    path = tmp_path / "crystals.jsonl"
    path.write_text(line + "\n" + json.dumps(SALT) + "\n")
    entries, rejects = _items(CrystalDictionary(path))
    assert [entry.entry for entry in entries] == ["line 2"]
    assert [(reject.entry, reject.category) for reject in rejects] == [("line 1", category)]


# Sources with a name


@pytest.fixture(scope="module")
def prototypes() -> tuple[list[Entry], list[Reject]]:
    return _items(Prototypes(), max_sites=52)


def test_prototypes_have_282_crystals_of_at_most_52_sites(prototypes):
    entries, rejects = prototypes
    assert len(entries) == 282
    assert [reject.category for reject in rejects] == ["more than 52 atoms in the cell"] * 6
    assert all(1 <= len(entry.crystal) <= 52 for entry in entries)


def test_prototypes_refuse_a_path_that_they_would_pass_over():
    with pytest.raises(CrystensError, match=r"data=prototypes reads no path, but data\.path=/some/where"):
        Prototypes("/some/where")


def test_mp_3dsc_gives_the_listed_splits(tmp_path, nacl, copper_primitive, single_atom):
    (tmp_path / "cifs").mkdir()
    for name, crystal in (("mp-1", nacl), ("mp-2", copper_primitive), ("mp-3", single_atom)):
        (tmp_path / "cifs" / f"{name}.cif").write_text(write_cif(crystal))
    (tmp_path / "splits.json").write_text(json.dumps({"rule": "", "train": ["mp-1"], "val": [], "test": ["mp-3"]}))
    entries, rejects = _items(Mp3dsc(tmp_path))
    assert [(entry.entry, entry.split) for entry in entries] == [("mp-1", "train"), ("mp-3", "test")]
    assert [(reject.entry, reject.reason) for reject in rejects] == [("mp-2", "in no split")]


@pytest.mark.slow
def test_mp_3dsc_of_the_shared_data_has_its_stated_counts(shared_data):
    entries, rejects = _items(Mp3dsc(shared_data / "mp_3dsc"), max_sites=4)
    # Numbers of sites and splits as its README states them; small cells only, to be fast.
    assert {entry.split for entry in entries} == {"train", "val", "test"}
    assert len(entries) + len(rejects) == 4704
    assert {reject.category for reject in rejects} == {"more than 4 atoms in the cell"}


# Paths, and reading to the end

SOURCES = [
    CifFolder,
    CsvTable,
    CrystalDictionary,
    Mp3dsc,
    StoredCrystals,
    ExtendedXyz,
    AseDatabase,
    PoscarFolder,
    PymatgenJson,
    lambda path: CdvaeSplits(path, "carbon_24"),
]


@pytest.mark.parametrize("make", SOURCES)
def test_missing_path_is_one_error_that_says_what_was_expected(make, tmp_path):
    if make != SOURCES[-1]:  # a benchmark without a path is fetched
        with pytest.raises(CrystensError, match=r"no path to the data: give data\.path=PATH, (a|the) "):
            _items(make(None))
    with pytest.raises(CrystensError, match=r"nowhere does not exist; give (a|the) "):
        _items(make(tmp_path / "nowhere"))


def test_empty_folder_and_wrong_file_are_errors(tmp_path):
    with pytest.raises(CrystensError, match="no CIF file in"):
        _items(CifFolder(tmp_path))
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(CrystensError, match=r"a\.png is neither a CIF file nor an archive"):
        _items(CifFolder(tmp_path / "a.png"))


def test_read_all_writes_every_reject_and_counts_them_in_one_line(folder, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        entries, rejects = read_all(CifFolder(folder), Limits(), tmp_path / "out" / "rejected.csv")
    assert (len(entries), len(rejects)) == (2, 1)
    assert "3 entries read, 2 used, 1 set aside (1 x not a CIF)" in caplog.text
    with (tmp_path / "out" / "rejected.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["file", "entry", "reason", "advice"]
    assert rows[1][0] == "deep/bad.cif"
    assert len(rows) == 2
    assert all(rows[1][k] for k in (2, 3))


def test_folder_in_which_nothing_is_usable_is_an_error_with_the_first_reason(tmp_path):
    (tmp_path / "bad.cif").write_text("nothing")
    with pytest.raises(CrystensError, match=r"nothing usable in CIF files of .*bad\.cif: not a CIF.*rejected\.csv"):
        read_all(CifFolder(tmp_path), Limits(), tmp_path / "out" / "rejected.csv")
    assert "bad.cif" in (tmp_path / "out" / "rejected.csv").read_text()


# Limits


def test_site_count_bound_is_the_largest_that_is_allowed(sites_52):
    def crystal(bound: int) -> Crystal:
        return Limits(max_sites=bound).crystal(
            sites_52.lengths, sites_52.angles, sites_52.numbers, sites_52.coordinates
        )

    assert crystal(52).space_group == 217
    with pytest.raises(Exception, match="more than 51 atoms in the cell: 52"):
        crystal(51)


def test_limits_measure_distances_across_the_cell_border(nacl):
    near = np.array([[0.99, 0.5, 0.5], [0.01, 0.5, 0.5]])
    with pytest.raises(Exception, match=r"two atoms closer than any bond.*0\.080 angstrom"):
        Limits().crystal(np.full(3, 4.0), np.full(3, 90.0), np.array([1, 1]), near)


# The command line


def test_summary_prints_what_a_folder_holds_and_writes_the_rejects(folder, tmp_path, capsys):
    assert main(["summary", str(folder), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "entries: 3; used: 2; set aside: 1" in printed
    assert "1  not a CIF" in printed
    assert (tmp_path / "out" / "summary.txt").read_text() in printed
    assert "deep/bad.cif" in (tmp_path / "out" / "rejected.csv").read_text()


def test_summary_of_a_missing_path_is_one_line_and_status_1(tmp_path, capsys):
    assert main(["summary", str(tmp_path / "nowhere"), "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_kind_is_guessed_from_name_and_content(tmp_path, folder):
    kinds = {
        **dict.fromkeys(("t.csv", "t.CSV.gz"), "csv"),
        **dict.fromkeys(("t.cif", "t.CIF.GZ", "t.zip", "t.tar.gz"), "cif_folder"),
        **dict.fromkeys(("t.jsonl", "t.ndjson.gz"), "crystal_dictionary"),
        **dict.fromkeys(("t.xyz", "t.extxyz.gz"), "extxyz"),
        **dict.fromkeys(("POSCAR", "CONTCAR_2.gz", "t.vasp", "t.poscar"), "poscar"),
        **dict.fromkeys(("t.json", "t.json.gz"), "pymatgen_json"),
        "t.db": "ase_db",
    }
    for name, kind in kinds.items():
        (tmp_path / name).touch()
        assert guess_kind(str(tmp_path / name)) == kind, name
    assert guess_kind(str(folder)) == "cif_folder"
    (folder / "train.csv").touch()
    assert guess_kind(str(folder)) == "cdvae"
    (folder / "splits.json").touch()
    assert guess_kind(str(folder)) == "mp_3dsc"
    assert guess_kind("prototypes") == "prototypes"
