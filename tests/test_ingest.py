"""Ingest: every input is in the store or in rejected.csv, whatever happens to it, to its process, or to the run."""

from __future__ import annotations

import csv
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from crystens.cif.write import write_cif
from crystens.crystal import Crystal
from crystens.data.__main__ import main
from crystens.errors import CrystensError
from crystens.formats.cif_folder import CifFolder
from crystens.ingest import ingest
from crystens.ingest import recipe as fingerprint
from crystens.ingest.generated import JudgingLimits
from crystens.ingest.ingest import IngestOptions, ingest_shard, open_store
from crystens.ingest.store import CRYSTALS, MANIFEST, REJECTED, CrystalStore
from crystens.ingest.workers import parse
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Record, Reject
from crystens.sources.source import Source

TESTS = Path(__file__).parent


class Lines(Source):
    """Source: a text file; each line is a cell length, or says what happens to the process that parses it."""

    def __init__(self, path: Path, pause: float = 0.0) -> None:
        self.path = path
        self.pause = pause

    def __str__(self) -> str:
        return "lines"

    def contents(self) -> dict[str, Path]:
        return {self.path.name: self.path}

    def records(self) -> Iterator[Record]:
        for number, line in enumerate(self.path.read_text().splitlines()):
            yield Record(self.path.name, str(number), line)

    def parse(self, record: Record, limits: Limits) -> list[Entry | Reject]:
        time.sleep(self.pause)
        match record.content:
            case "hang":
                while True:  # what counts is time of the processor
                    pass
            case "die":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "eat":
                _ = np.ones(2**31).sum()  # 16 GiB
            case "bug":
                raise ZeroDivisionError("of the parser")
            case "bad":
                return [Reject(record.file, record.entry, "bad line: it says so", "mend it")]
        crystal = limits.crystal(np.full(3, float(record.content)), np.full(3, 90.0), np.array([84]), np.zeros((1, 3)))
        return [Entry(record.file, record.entry, crystal)]


class Unstored(Lines):
    """The same, of a source without files to identify its contents by."""

    def contents(self) -> None:
        return None


def _lines(folder: Path, lines: list[str], name: str = "lines.txt") -> Path:
    path = folder / name
    path.write_text("\n".join(lines))
    return path


def _options(folder: Path, **options: object) -> IngestOptions:
    return IngestOptions(**{"workers": 0, "cache": folder / "cache"} | options)


def _read(folder: Path, lines: list[str], **options: object) -> CrystalStore:
    return open_store(Lines(_lines(folder, lines)), Limits(), _options(folder, **options))


def _files(folder: Path) -> dict[str, bytes]:
    """Return the files of the one store in a cache."""
    (store,) = (path for path in (folder / "stores").iterdir() if path.is_dir())
    return {path.name: path.read_bytes() for path in sorted(store.iterdir())}


def _told(item: Entry | Reject) -> tuple[object, ...]:
    if isinstance(item, Reject):
        return item.file, item.entry, item.reason, item.advice
    crystal = item.crystal
    return item.file, item.entry, crystal.space_group, crystal.lengths.tolist(), crystal.coordinates.tolist()


# What happens to an input, or to the process that parses it


@pytest.mark.parametrize("kind", [Lines, pytest.param(Unstored, marks=pytest.mark.slow)])
def test_one_bad_input_costs_itself_and_nothing_else(tmp_path, kind):
    lines = ["3.3", "hang", "3.4", "die", "bug", "3.5", "eat", "bad", "3.6"]
    source = kind(_lines(tmp_path, lines))
    store = open_store(source, Limits(), _options(tmp_path, workers=2, time_limit=2.0))
    assert [round(float(crystal.lengths[0]), 1) for crystal in store] == [3.3, 3.4, 3.5, 3.6]
    rejects = list(store.rejects())
    assert [reject.entry for reject in rejects] == ["1", "3", "4", "6", "7"]
    assert rejects[0].reason == "reading takes too long: more than 2 s"
    assert rejects[1].category == "reading broke down"
    assert rejects[2].reason == "the reader failed: ZeroDivisionError: of the parser"
    assert rejects[3].category in ("the reader failed", "reading broke down")
    assert rejects[4].advice == "mend it"
    assert store.num_rejects == 5


def test_number_of_workers_does_not_change_a_byte(tmp_path):
    lines = [str(3 + k / 1000) if k % 7 else "bad" for k in range(600)]
    made = []
    for workers in (0, 1, 2):
        source = Lines(_lines(tmp_path, lines))
        open_store(source, Limits(), _options(tmp_path, workers=workers, cache=tmp_path / str(workers)))
        files = _files(tmp_path / str(workers))
        # Without workers there is no limit in time, which the manifest says.
        made.append({name: content for name, content in files.items() if name != MANIFEST})
    assert made[0] == made[1] == made[2]
    assert len(CrystalStore.open(next((tmp_path / "2" / "stores").glob("*/")))) == 514


@pytest.mark.parametrize("limits", [Limits(), Limits(cell="conventional", max_sites=1), JudgingLimits()])
def test_a_chunk_holds_what_its_records_hold_alone(tmp_path, limits):
    source = Lines(_lines(tmp_path, ["3.3", "bug", "1.2", "bad", "0.1", "3.4"]))  # no symmetry is looked for at 1.2
    alone = list(source.read(limits))
    together = parse(source, limits, list(source.records()))
    assert len(together) == 6
    assert [_told(item) for item in together] == [_told(item) for item in alone]


def test_rejects_are_written_and_counted_by_category(tmp_path):
    store = _read(tmp_path, ["3.3", "bad", "0", "bad"])
    assert dict(store.reject_counts) == {"bad line": 2, "impossible cell": 1}
    with (store.folder / REJECTED).open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["file", "entry", "reason", "advice"]
    assert [row[1] for row in rows[1:]] == ["1", "2", "3"]


def test_source_in_which_nothing_is_usable_is_an_error_with_the_first_reason(tmp_path):
    source = Lines(_lines(tmp_path, ["bad", "bad"]))
    with pytest.raises(
        CrystensError, match=r"nothing usable in lines.*2 x bad line.*it says so; mend it; see .*r\.csv"
    ):
        open_store(source, Limits(), _options(tmp_path), tmp_path / "r.csv")
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 3


# Stored and found again


def test_second_reading_parses_nothing(tmp_path, monkeypatch):
    first = _read(tmp_path, ["3.3", "bad"])
    monkeypatch.setattr(Lines, "records", None)
    second = open_store(Lines(tmp_path / "lines.txt"), Limits(), _options(tmp_path))
    assert second.folder == first.folder
    assert list(second.rejects()) == list(first.rejects())


def test_touched_file_is_the_same_store_and_a_changed_one_is_not(tmp_path):
    first = _read(tmp_path, ["3.3"])
    os.utime(tmp_path / "lines.txt", (1, 1))
    assert open_store(Lines(tmp_path / "lines.txt"), Limits(), _options(tmp_path)).folder == first.folder
    changed = _read(tmp_path, ["3.4"])
    assert changed.folder != first.folder
    assert changed[0].lengths[0] == pytest.approx(3.4)


def test_file_changed_without_changing_size_or_time_of_change_is_seen_by_its_other_times(tmp_path):
    _read(tmp_path, ["3.3"])
    times = (tmp_path / "lines.txt").stat()
    _lines(tmp_path, ["3.4"])
    os.utime(tmp_path / "lines.txt", ns=(times.st_atime_ns, times.st_mtime_ns))
    store = open_store(Lines(tmp_path / "lines.txt"), Limits(), _options(tmp_path))
    assert store[0].lengths[0] == pytest.approx(3.4)


@pytest.mark.parametrize(
    "changed",
    [
        {"max_sites": 1},
        {"symprec": 0.1},
        {"cell": "primitive"},
        {"occupancy": "majority"},
        {"site_order": "given"},
        {"shift": 0.25},
    ],
    ids=lambda option: next(iter(option)),
)
def test_changed_option_is_another_store(tmp_path, changed):
    first = _read(tmp_path, ["3.3"])
    other = open_store(Lines(tmp_path / "lines.txt"), Limits(**changed), _options(tmp_path))
    assert other.folder != first.folder


def test_numbers_of_the_command_line_are_those_of_the_limits(tmp_path, nacl):
    (tmp_path / "cifs").mkdir()
    (tmp_path / "cifs" / "salt.cif").write_text(write_cif(nacl))
    arguments = ["ingest", str(tmp_path / "cifs"), "--workers", "0", "--cache", str(tmp_path / "cache")]
    assert main([*arguments, "--out", str(tmp_path / "shifted"), "--shift", "0.125"]) == 0
    assert set(CrystalStore.open(tmp_path / "shifted")[0].coordinates.round(4).flat) == {0.125, 0.625}
    assert main([*arguments, "--out", str(tmp_path / "none"), "--max-length", "5"]) == 0
    assert CrystalStore.open(tmp_path / "none").num_rejects == 1


def test_changed_library_is_another_store(tmp_path, monkeypatch):
    first = _read(tmp_path, ["3.3"])
    monkeypatch.setattr(fingerprint, "version", lambda name: "0.0")
    assert _read(tmp_path, ["3.3"]).folder != first.folder


def test_same_data_at_another_place_is_the_same_store(tmp_path, nacl):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "salt.cif").write_text(write_cif(nacl))
    here, there = (open_store(CifFolder(tmp_path / name), Limits(), _options(tmp_path)) for name in ("here", "there"))
    assert here.folder == there.folder


def test_file_that_changes_while_it_is_read_is_looked_at_again(tmp_path, caplog):
    path = _lines(tmp_path, ["3.3"])

    class Changing(Lines):
        def records(self) -> Iterator[Record]:
            yield from super().records()
            path.write_text("3.4")

    with caplog.at_level(logging.WARNING):
        open_store(Changing(path), Limits(), _options(tmp_path))
    assert "changed while it was read" in caplog.text
    assert open_store(Lines(path), Limits(), _options(tmp_path))[0].lengths[0] == pytest.approx(3.4)


def test_file_that_vanishes_in_mid_run_is_a_reject(tmp_path, nacl, monkeypatch):
    for k in range(3):
        (tmp_path / f"{k}.cif").write_text(write_cif(nacl))
    original = CifFolder.records

    def records(self: CifFolder) -> Iterator[Record | Reject]:
        for record in original(self):
            (tmp_path / "1.cif").unlink(missing_ok=True)
            yield record

    monkeypatch.setattr(CifFolder, "records", records)
    store = open_store(CifFolder(tmp_path), Limits(), _options(tmp_path))
    assert len(store) == 2
    assert [(reject.file, reject.category) for reject in store.rejects()] == [("1.cif", "file not found")]


def test_store_that_cannot_be_written_is_one_error(tmp_path):
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(CrystensError, match="cannot write the store"):
        _read(tmp_path, ["3.3"])


@pytest.mark.parametrize("name", [CRYSTALS, MANIFEST])
def test_damaged_store_in_the_cache_is_made_again(tmp_path, name, caplog):
    store = _read(tmp_path, ["3.3", "bad"])
    whole = (store.folder / name).read_bytes()
    (store.folder / name).write_bytes(whole[:50])
    with caplog.at_level(logging.WARNING):
        assert len(_read(tmp_path, ["3.3", "bad"])) == 1
    assert "is damaged and will be made again" in caplog.text
    assert (store.folder / name).read_bytes() == whole


def test_damaged_shard_is_an_error_that_says_what_to_do(tmp_path):
    source = Lines(_lines(tmp_path, ["3.3"]))
    folder = ingest_shard(source, Limits(), _options(tmp_path), tmp_path / "out", 0, 1)
    (folder / CRYSTALS).write_bytes(b"garbage")
    with pytest.raises(CrystensError, match="delete the folder and ingest the source again"):
        CrystalStore.open(tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": -1}, "data.ingest.workers must be"),
        ({"workers": "many"}, "got 'many'"),
        ({"time_limit": 0}, "data.ingest.time_limit must be above 0"),
        ({"time_limit": float("nan")}, "data.ingest.time_limit must be above 0"),
        ({"time_limit": "abc"}, "data.ingest.time_limit must be above 0 seconds, got 'abc'"),
        ({"duplicates": "merge"}, "data.ingest.duplicates=merge is not known"),
    ],
)
def test_option_out_of_range_is_an_error(options, message):
    with pytest.raises(CrystensError, match=message):
        IngestOptions(**options)


# Duplicates


@pytest.mark.parametrize("kind", [Lines, Unstored])
def test_duplicates_are_set_aside_and_name_the_first(tmp_path, kind):
    source = kind(_lines(tmp_path, ["3.3", "bad", "3.3", "3.3"]))
    store = open_store(source, Limits(), _options(tmp_path, duplicates="set_aside"))
    assert len(store) == 1
    reasons = sorted(reject.reason for reject in store.rejects())
    assert reasons[1:] == ["the same crystal as an earlier one: lines.txt 0"] * 2
    assert len(open_store(source, Limits(), _options(tmp_path))) == 3


# Interruption and shards


def test_interrupted_ingest_goes_on_where_it_stopped(tmp_path, monkeypatch, caplog):
    lines = [str(3 + k / 1000) for k in range(1000)]
    whole = _read(tmp_path, lines)
    parse, parsed = Lines.parse, []

    def failing(self: Lines, record: Record, limits: Limits) -> list[Entry | Reject]:
        parsed.append(record.entry)
        if len(parsed) == 600:
            raise KeyboardInterrupt
        return parse(self, record, limits)

    monkeypatch.setattr(Lines, "parse", failing)
    options = _options(tmp_path, cache=tmp_path / "other")
    with pytest.raises(KeyboardInterrupt):
        open_store(Lines(tmp_path / "lines.txt"), Limits(), options)
    with caplog.at_level(logging.INFO):
        store = open_store(Lines(tmp_path / "lines.txt"), Limits(), options)
    assert "2 chunks of 256 inputs are done" in caplog.text
    assert len(parsed) == 600 + 1000 - 512
    assert _files(tmp_path / "other") == _files(tmp_path / "cache")
    assert len(store) == len(whole) == 1000
    assert not list((tmp_path / "other" / "stores").glob("*.partial"))


def test_part_that_a_power_failure_emptied_is_read_again(tmp_path):
    whole = _read(tmp_path, [str(3 + k / 1000) for k in range(300)])
    source = Lines(tmp_path / "lines.txt")
    made_from = whole.manifests[0]["made_from"]
    folder = tmp_path / "again"
    parts = tmp_path / "again.partial" / fingerprint.digest(json.dumps(made_from, sort_keys=True))
    parts.mkdir(parents=True)
    (parts / "00000000.arrow").touch()
    ingest._make(source, Limits(), _options(tmp_path), folder, made_from, (0, 1))
    assert (folder / CRYSTALS).read_bytes() == (whole.folder / CRYSTALS).read_bytes()


def test_shards_together_are_the_whole(tmp_path):
    lines = [str(3 + k / 1000) if k % 5 else "bad" for k in range(1300)]
    whole = _read(tmp_path, lines)
    source = Lines(tmp_path / "lines.txt")
    for shard in (2, 0):
        ingest_shard(source, Limits(), _options(tmp_path), tmp_path / "out", shard, 3)
    with pytest.raises(CrystensError, match="lacks 1 of 3 shards: 1;"):
        CrystalStore.open(tmp_path / "out")
    ingest_shard(source, Limits(), _options(tmp_path), tmp_path / "out", 1, 3)
    store = CrystalStore.open(tmp_path / "out")
    assert sorted(store.column("entry"), key=int) == whole.column("entry")
    assert store.reject_counts == whole.reject_counts
    assert sorted(r.entry for r in store.rejects()) == sorted(r.entry for r in whole.rejects())
    before = (tmp_path / "out" / "00001-of-00003" / CRYSTALS).stat().st_mtime_ns
    ingest_shard(source, Limits(), _options(tmp_path), tmp_path / "out", 1, 3)
    assert (tmp_path / "out" / "00001-of-00003" / CRYSTALS).stat().st_mtime_ns == before


def test_shards_of_different_data_do_not_mix(tmp_path):
    source = Lines(_lines(tmp_path, ["3.3"]))
    ingest_shard(source, Limits(), _options(tmp_path), tmp_path / "out", 0, 2)
    ingest_shard(source, Limits(symprec=0.1), _options(tmp_path), tmp_path / "out", 1, 2)
    with pytest.raises(CrystensError, match="read from different data, with different options"):
        CrystalStore.open(tmp_path / "out")
    with pytest.raises(CrystensError, match="holds a store of other data or options"):
        ingest_shard(source, Limits(), _options(tmp_path), tmp_path / "out", 1, 2)


def test_shard_out_of_range_is_an_error(tmp_path):
    with pytest.raises(CrystensError, match="shard must be 0 to 1 of 2 shards, got 2"):
        ingest_shard(Lines(_lines(tmp_path, ["3.3"])), Limits(), _options(tmp_path), tmp_path / "out", 2, 2)


_SCRIPT = """
import sys
from pathlib import Path
if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    from test_ingest import Lines
    from crystens.ingest.ingest import IngestOptions, open_store
    from crystens.sources.limits import Limits
    open_store(Lines(Path(sys.argv[2]), 0.001), Limits(), IngestOptions(workers=2, cache=sys.argv[3]))
"""


@pytest.mark.slow
def test_ingest_killed_five_times_makes_the_same_store_and_leaves_no_process(tmp_path):
    _lines(tmp_path, [str(3 + k / 10000) if k % 50 else "bad" for k in range(10000)])
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    command = [sys.executable, str(script), str(TESTS), str(tmp_path / "lines.txt")]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)

    def parts() -> int:
        return len(list((tmp_path / "killed").glob("stores/*.partial/*/*.arrow")))

    for _ in range(5):
        before = parts()
        running = subprocess.Popen([*command, str(tmp_path / "killed")], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while parts() < before + 5 and time.monotonic() < deadline:
            time.sleep(0.02)
        running.kill()
        running.wait()
        assert parts() > before
    subprocess.run([*command, str(tmp_path / "killed")], check=True, capture_output=True)
    assert _files(tmp_path / "killed") == _files(tmp_path / "whole")
    deadline = time.monotonic() + 10
    while _processes(str(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not _processes(str(tmp_path))


def _processes(word: str) -> list[str]:
    """Return the command lines that hold a word; only Linux tells."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if word in text:
            found.append(text)
    return found


def test_crystals_come_back_as_they_went_in(tmp_path, nacl, triclinic, sites_52, single_atom):
    crystals: list[Crystal] = [nacl, triclinic, sites_52, single_atom]
    for k, crystal in enumerate(crystals):
        (tmp_path / f"{k}.cif").write_text(write_cif(crystal))
    store = open_store(CifFolder(tmp_path), Limits(), _options(tmp_path))
    for crystal, stored in zip(crystals, store, strict=True):
        ordered = crystal.in_canonical_order()
        assert stored.space_group == crystal.space_group
        assert np.array_equal(stored.numbers, ordered.numbers)
        np.testing.assert_allclose(stored.lengths, crystal.lengths, rtol=1e-6)
        np.testing.assert_allclose(stored.angles, crystal.angles, rtol=1e-6)
        steps = stored.coordinates - ordered.coordinates
        assert np.abs(steps - np.round(steps)).max() < 1e-6
