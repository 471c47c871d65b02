"""Ingest on Ray: the same shards as those of an array of jobs, whatever happens to a task."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from crystens.cif.write import write_cif
from crystens.data.__main__ import main
from crystens.errors import CrystensError
from crystens.ingest.ingest import IngestOptions, ingest_shard
from crystens.ingest.on_ray import ingest_on_ray
from crystens.ingest.store import CrystalStore
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Record
from crystens.sources.source import Source

NO_RAY = "Ray is not installed: pip install 'crystens[ray]'"


class Cubes(Source):
    """Source: a text file whose lines are cell lengths. The first processes that read it can be made to die."""

    def __init__(self, path: Path, deaths: int = 0) -> None:
        self.path = path
        self.deaths = deaths

    def __str__(self) -> str:
        return "cubes"

    def contents(self) -> dict[str, Path]:
        return {self.path.name: self.path}

    def records(self) -> Iterator[Record]:
        for death in range(self.deaths):
            try:
                self.path.with_name(f"death_{death}").touch(exist_ok=False)
            except FileExistsError:
                continue
            os.kill(os.getpid(), signal.SIGKILL)
        for number, line in enumerate(self.path.read_text().splitlines()):
            yield Record(self.path.name, str(number), line)

    def parse(self, record: Record, limits: Limits) -> list[Entry]:
        crystal = limits.crystal(np.full(3, float(record.content)), np.full(3, 90.0), np.array([84]), np.zeros((1, 3)))
        return [Entry(record.file, record.entry, crystal)]


class Untold(Cubes):
    """The same, of a source without files to identify its contents by."""

    def contents(self) -> None:
        return None


@pytest.fixture
def cubes(tmp_path) -> Path:
    """A file of 1,000 cells, four chunks, a few of which cannot be used."""
    path = tmp_path / "cubes.txt"
    path.write_text("\n".join("0" if k % 100 == 7 else str(3 + k / 1000) for k in range(1000)))
    return path


@pytest.fixture(scope="module", autouse=True)
def _found_by_tasks() -> Iterator[None]:
    """Let the processes of Ray import this file, and make no report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray with two CPUs, for all tests of this file that do not start one of their own."""
    ray = pytest.importorskip("ray", reason=NO_RAY)
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


def _files(folders: list[Path]) -> list[dict[str, bytes]]:
    return [{path.name: path.read_bytes() for path in sorted(folder.iterdir())} for folder in folders]


def test_without_ray_the_error_says_what_to_install(tmp_path, cubes, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CrystensError, match=r"pip install 'crystens\[ray\]'"):
        ingest_on_ray(Cubes(cubes), Limits(), IngestOptions(), tmp_path / "store", 2)


def test_cluster_that_does_not_answer_is_an_error_at_once(tmp_path, cubes, monkeypatch):
    pytest.importorskip("ray", reason=NO_RAY)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(CrystensError, match=rf"cannot reach Ray at {address}: .*refused.*unset RAY_ADDRESS"):
        ingest_on_ray(Cubes(cubes), Limits(), IngestOptions(), tmp_path / "store", 2)


@pytest.mark.parametrize(
    ("source", "shards", "message"), [(Cubes, 0, "at least 1, got 0"), (Untold, 2, "cannot be split into shards")]
)
def test_what_cannot_be_split_is_an_error_before_ray_starts(tmp_path, cubes, source, shards, message):
    with pytest.raises(CrystensError, match=message):
        ingest_on_ray(source(cubes), Limits(), IngestOptions(), tmp_path / "store", shards)


def test_command_line_tells_how_to_make_all_shards(tmp_path, nacl, capsys):
    (tmp_path / "salt.cif").write_text(write_cif(nacl))
    common = ["ingest", str(tmp_path), "--kind", "cif_folder", "--out", str(tmp_path / "store")]
    assert main([*common, "--shards", "4"]) == 1
    assert "add --engine ray; without an engine, give --shard K/4" in capsys.readouterr().err
    assert main([*common, "--shard", "0/4", "--engine", "ray"]) == 1
    assert "give --shards N instead of --shard K/N" in capsys.readouterr().err


@pytest.mark.slow
def test_shards_are_byte_for_byte_those_of_an_array_of_jobs(tmp_path, cubes, cluster):
    ended: list[int] = []
    options = IngestOptions(workers=1)
    made = ingest_on_ray(Cubes(cubes), Limits(), options, tmp_path / "ray", 3, ended.append)
    array = [ingest_shard(Cubes(cubes), Limits(), options, tmp_path / "array", k, 3) for k in range(3)]
    assert _files(made) == _files(array)
    assert ended == [1, 2, 3]
    store = CrystalStore.open(tmp_path / "ray")
    assert (len(store), store.num_rejects) == (990, 10)


@pytest.mark.slow
def test_task_whose_process_dies_is_run_again(tmp_path, cubes, cluster):
    ingest_on_ray(Cubes(cubes, deaths=2), Limits(), IngestOptions(workers=0), tmp_path / "store", 2)
    assert len(list(tmp_path.glob("death_*"))) == 2
    assert len(CrystalStore.open(tmp_path / "store")) == 990


@pytest.mark.slow
def test_shard_that_fails_for_good_is_named_while_the_others_finish(tmp_path, cubes, cluster):
    in_the_way = tmp_path / "store" / "00001-of-00003"
    in_the_way.mkdir(parents=True)
    with pytest.raises(CrystensError, match=r"1 of 3 shards failed.*shard 1: .*00001-of-00003.*same command again"):
        ingest_on_ray(Cubes(cubes), Limits(), IngestOptions(workers=0), tmp_path / "store", 3)
    assert len(CrystalStore.open(tmp_path / "store" / "00000-of-00003")) > 0
    assert len(CrystalStore.open(tmp_path / "store" / "00002-of-00003")) > 0
    in_the_way.rmdir()
    # Were the others made again, both processes would die.
    ingest_on_ray(Cubes(cubes, deaths=1), Limits(), IngestOptions(workers=0), tmp_path / "store", 3)
    assert len(CrystalStore.open(tmp_path / "store")) == 990


@pytest.mark.slow
def test_process_that_always_dies_is_an_error_with_its_shard(tmp_path, cubes, cluster):
    with pytest.raises(CrystensError, match=r"shard 0: WorkerCrashedError"):
        ingest_on_ray(Cubes(cubes, deaths=1000), Limits(), IngestOptions(workers=0), tmp_path / "store", 1)


@pytest.mark.slow
def test_more_workers_than_a_machine_has_is_an_error_and_no_endless_wait(tmp_path, cubes, cluster):
    with pytest.raises(CrystensError, match=r"needs 3 CPUs of one machine, and the largest of the cluster has 2"):
        ingest_on_ray(Cubes(cubes), Limits(), IngestOptions(workers=3), tmp_path / "store", 1)


@pytest.mark.slow
def test_ray_that_was_started_here_is_shut_down_again(tmp_path, cubes, monkeypatch):
    ray = pytest.importorskip("ray", reason=NO_RAY)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED")
    if ray.is_initialized():
        ray.shutdown()
    ingest_on_ray(Cubes(cubes), Limits(), IngestOptions(workers=1), tmp_path / "store", 2)
    assert not ray.is_initialized()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert len(CrystalStore.open(tmp_path / "store")) == 990
