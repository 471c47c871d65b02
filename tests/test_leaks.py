"""Leaks: what val and test share with train is found, told and written."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.ingest.kinds import open_source
from crystens.sources.limits import Limits
from crystens.sources.record import Entry
from crystens.survey.leaks import Leak, describe_leaks, find_leaks, leak_report, write_leaks

REPOSITORY = Path(__file__).parent.parent


def _rocksalt(length: float) -> Crystal:
    """Return NaCl in its primitive cell; matching scales the volume away."""
    return Crystal([length / 2**0.5] * 3, [60] * 3, 225, [11, 17], np.array([[0, 0, 0], [0.5, 0.5, 0.5]]))


@pytest.fixture
def crystals(nacl, copper_primitive, single_atom, triclinic) -> list[Crystal]:
    caesium_chloride = Crystal([3.4] * 3, [90] * 3, 221, [11, 17], np.array([[0, 0, 0], [0.5, 0.5, 0.5]]))
    return [nacl, copper_primitive, _rocksalt(5.6), single_atom, caesium_chloride, _rocksalt(5.7), triclinic, triclinic]


SPLITS = ["train", "train", "test", "val", "val", "val", None, None]


def test_leaks_are_the_crystals_of_val_and_test_that_are_in_train(crystals):
    assert find_leaks(crystals, SPLITS) == [Leak("val", 5, 0, "NaCl"), Leak("test", 2, 0, "NaCl")]


def test_crystals_without_a_split_are_not_looked_at(crystals):
    assert all(leak.position < 6 and leak.match < 6 for leak in find_leaks(crystals, SPLITS, candidates=None))


def test_report_counts_shared_formulas_and_random_pairs(crystals):
    report = leak_report(crystals, SPLITS, null_pairs=20)
    assert (report.count("val"), report.count("test")) == (1, 1)
    assert report.shared_formulas == {"val": (1, 2), "test": (1, 1)}
    assert report.in_shared_formulas == {"val": 2, "test": 1}
    # Only copper has as many sites as a crystal of val, and none has as many as that of test.
    assert report.null_pairs == {"val": 20, "test": 0}
    assert report.null_matches == {"val": 0, "test": 0}
    assert report.describe().splitlines() == [
        "val: 1 of 3 crystals (33.3 %) are in train (at least: compared with the 8 most similar crystals only)",
        "test: 1 of 1 crystals (100.0 %) are in train (at least: compared with the 8 most similar crystals only)",
        "val: 1 of 2 formulas are in train, with 2 of 3 crystals",
        "test: 1 of 1 formulas are in train, with 1 of 1 crystals",
        "val: 0 of 20 random pairs with a crystal of train with the same number of sites match",
    ]


def test_random_pairs_that_are_the_same_are_counted(nacl):
    crystals = [nacl, _rocksalt(5.6), _rocksalt(5.7)]
    report = leak_report(crystals, ["train", "train", "val"], null_pairs=10)
    assert (report.null_matches["val"], report.null_pairs["val"]) == (10, 10)


def test_exhaustive_search_is_not_called_a_lower_bound():
    assert describe_leaks([], {"val": 4, "test": 0}, None).splitlines() == [
        "val: 0 of 4 crystals (0.0 %) are in train (compared with all crystals that could match)",
        "test: no crystals",
    ]


def test_leaks_are_written_with_the_names_of_both_entries(crystals, tmp_path):
    files, entries = ([f"{name} {k}" for k in range(len(crystals))] for name in ("file", "block"))
    path = write_leaks(find_leaks(crystals, SPLITS), files, entries, tmp_path / "new" / "leaks.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["split", "file", "entry", "matches_file", "matches_entry", "formula"]
    assert list(rows[0].values()) == ["val", "file 5", "block 5", "file 0", "block 0", "NaCl"]
    assert len(rows) == 2


def test_file_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CrystensError, match="cannot write"):
        write_leaks([], [], [], tmp_path / "file" / "leaks.csv")


@pytest.mark.parametrize("splits", [["val", "test"], ["train", "train"], [None, "train"]])
def test_nothing_to_compare_is_an_error(splits, nacl):
    with pytest.raises(CrystensError, match="cannot search leaks"):
        find_leaks([nacl, nacl], splits)


@pytest.mark.slow
def test_known_leaks_of_mp_3dsc_are_found(shared_data):
    source = open_source(str(shared_data / "mp_3dsc"))
    entries = [item for item in source.read(Limits(max_sites=None)) if isinstance(item, Entry)]
    leaks = find_leaks([entry.crystal for entry in entries], [entry.split for entry in entries])
    found = {(leak.split, entries[leak.position].entry, entries[leak.match].entry) for leak in leaks}
    assert found == {
        ("test", "mp-605060", "mp-1079570"),
        ("test", "mp-578628", "mp-1198573"),
        ("test", "mp-19", "mp-567313"),
        ("val", "mp-867537", "mp-1275876"),
        ("val", "mp-22230", "mp-20461"),
    }


def test_no_warning_of_noble_gases_reaches_who_runs_the_command(tmp_path):
    frames = []
    for k in range(12):
        a = 4 + k / 10
        frames.append(f'2\nLattice="{a} 0 0 0 {a} 0 0 0 {a}" pbc="T T T"\nXe 0 0 0\nNe {a / 2} {a / 2} {a / 2}\n')
    (tmp_path / "frames.extxyz").write_text("".join(frames))
    command = [sys.executable, "-W", "default", "-m", "crystens.data", "leaks", str(tmp_path / "frames.extxyz")]
    options = ["--split", "random", "--workers", "2", "--out", str(tmp_path / "out")]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert "1 of 1 formulas" in done.stdout
    assert "electronegativity" not in done.stdout + done.stderr
