"""Fetching: whatever a server or a kill does, the file is whole and right, or one error says what to do."""

from __future__ import annotations

import csv
import gzip
import hashlib
import logging
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from crystens.cif.write import write_cif
from crystens.datasets import benchmarks
from crystens.datasets.benchmarks import BENCHMARKS
from crystens.datasets.cdvae import CdvaeSplits
from crystens.datasets.download import Patience, RemoteFile, fetch
from crystens.errors import CrystensError
from crystens.processes.cache_folder import cache_folder
from crystens.sources.limits import Limits

BLOCK = 2**14
CONTENT = random.Random(0).randbytes(36 * BLOCK)
FAST = Patience(timeout=0.5, retries=2, wait=0.01)


class Server(ThreadingHTTPServer):
    """Serves one content at every path, after a plan: how each request is answered; well once the plan is over."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = CONTENT
        self.files: dict[str, bytes] = {}
        self.etag: str | None = '"one"'
        self.plan: list[str] = []
        self.asked: list[dict[str, str | None]] = []
        self.sent: list[int] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def file(self, name: str = "train.csv") -> RemoteFile:
        return RemoteFile(f"{self.address}/{name}", name, len(CONTENT), hashlib.sha256(CONTENT).hexdigest())

    @property
    def ranges(self) -> list[str | None]:
        return [request["Range"] for request in self.asked]


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def handle(self) -> None:
        """Serve; a client that was killed is no error."""
        try:
            super().handle()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def do_GET(self) -> None:
        server = self.server
        how = server.plan.pop(0) if server.plan else "well"
        server.asked.append({name: self.headers.get(name) for name in ("Range", "If-Range")})
        server.sent.append(0)
        turn = len(server.sent) - 1
        if how.isdecimal():
            self.send_error(int(how))
            return
        content = server.files.get(self.path, server.content)
        if how == "wrong":
            content = content[:-1] + b"?"
        elif how == "longer":
            content += b"more"
        start, wanted = 0, self.headers.get("Range")
        if wanted and how != "no range" and self.headers.get("If-Range") in (None, server.etag):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if how == "other range":
            start = max(0, start - 1)
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        if how not in ("no length", "longer"):
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        for place in range(start, len(content), BLOCK):
            block = content[place : place + BLOCK]
            self.wfile.write(block)
            server.sent[turn] += len(block)
            if how in ("cut", "no length") and server.sent[turn] >= len(content) // 3:
                return
            if how == "stall":
                time.sleep(2)
            if how == "slow":
                time.sleep(0.05)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


def _left(folder: Path) -> set[str]:
    """Return the names of the files in a folder, without locks."""
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


# What a server may do


def test_file_is_fetched_once_and_a_cached_one_costs_no_request(server, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        path = fetch(server.file(), tmp_path / "deep" / "er", FAST)
    assert path.read_bytes() == CONTENT
    assert _left(path.parent) == {"train.csv"}
    assert "589824 bytes, SHA-256 as expected" in caplog.text
    assert fetch(server.file(), path.parent, FAST) == path
    assert len(server.asked) == 1


def test_cached_file_is_read_from_a_folder_that_cannot_be_written(server, tmp_path, monkeypatch):
    fetch(server.file(), tmp_path, FAST)
    (tmp_path / ".train.csv.lock").unlink(missing_ok=True)
    # Root may write anywhere, so the test for permissions is that nothing is written.
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: pytest.fail("writes"))
    fetch(server.file(), tmp_path, FAST)
    assert {path.name for path in tmp_path.iterdir()} == {"train.csv"}


def test_connection_that_ends_early_is_continued_with_the_rest_only(server, tmp_path):
    server.plan = ["cut", "cut"]
    assert fetch(server.file(), tmp_path, FAST).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=196608-", "bytes=393216-"]
    assert [request["If-Range"] for request in server.asked] == [None, '"one"', '"one"']
    assert sum(server.sent) == len(CONTENT)


@pytest.mark.parametrize("how", ["no range", "other range", "416"])
def test_server_that_does_not_continue_is_asked_for_the_whole_file(server, tmp_path, how):
    server.plan = ["cut", how]
    assert fetch(server.file(), tmp_path, FAST).read_bytes() == CONTENT
    assert _left(tmp_path) == {"train.csv"}


def test_part_of_another_version_is_not_continued(server, tmp_path):
    server.content, server.plan = CONTENT[::-1], ["cut"]
    with pytest.raises(CrystensError):
        fetch(server.file(), tmp_path, replace(FAST, retries=0))
    server.content, server.etag = CONTENT, '"two"'
    assert fetch(server.file(), tmp_path, FAST).read_bytes() == CONTENT
    assert server.asked[1] == {"Range": "bytes=196608-", "If-Range": '"one"'}
    assert server.sent[1] == len(CONTENT)


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_parts_that_do_not_fit_together_are_fetched_again_as_a_whole(server, tmp_path, etag):
    server.etag = etag
    (tmp_path / "train.csv.part").write_bytes(b"x" * 1000)
    assert fetch(server.file(), tmp_path, FAST).read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-", None]
    assert server.asked[0]["If-Range"] is None


def test_part_longer_than_the_file_is_dropped_and_a_whole_one_is_not_fetched(server, tmp_path):
    (tmp_path / "train.csv.part").write_bytes(CONTENT + b"x")
    fetch(server.file(), tmp_path, FAST)
    assert server.ranges == [None]
    (tmp_path / "other.csv.part").write_bytes(CONTENT)
    assert fetch(server.file("other.csv"), tmp_path, FAST).read_bytes() == CONTENT
    assert server.ranges == [None]


@pytest.mark.parametrize("status", ["500", "503", "429"])
def test_server_error_that_passes_is_tried_again(server, tmp_path, status):
    server.plan = [status, status]
    assert fetch(server.file(), tmp_path, FAST).read_bytes() == CONTENT
    assert len(server.asked) == 3


def test_waits_between_attempts_grow(server, tmp_path, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    server.plan = ["500"] * 9
    with pytest.raises(CrystensError, match=r"status 500 .*\(5 attempts\); check the network"):
        fetch(server.file(), tmp_path, Patience(wait=3))
    assert waits == [3, 6, 12, 24]


def test_file_that_is_not_there_is_an_error_at_once(server, tmp_path):
    server.plan = ["404"]
    with pytest.raises(CrystensError, match=r"cannot fetch http://127.*/train\.csv: status 404 .* put the file at /"):
        fetch(server.file(), tmp_path, FAST)
    assert len(server.asked) == 1
    assert _left(tmp_path) == set()


def test_wrong_bytes_are_an_error_with_both_checksums_and_are_not_kept(server, tmp_path):
    server.plan = ["wrong"]
    wrong = hashlib.sha256(CONTENT[:-1] + b"?").hexdigest()
    with pytest.raises(CrystensError) as caught:
        fetch(server.file(), tmp_path, FAST)
    message = str(caught.value)
    assert all(part in message for part in (server.file().address, server.file().sha256, wrong))
    assert _left(tmp_path) == set()
    assert len(server.asked) == 1


def test_wrong_size_is_an_error_before_the_bytes_are_fetched(server, tmp_path):
    server.content = CONTENT + b"x"
    with pytest.raises(CrystensError, match="its size should be 589824 bytes, got 589825"):
        fetch(server.file(), tmp_path, FAST)
    assert _left(tmp_path) == set()


def test_server_that_says_no_length_is_checked_too(server, tmp_path):
    server.plan = ["longer"]
    with pytest.raises(CrystensError, match="its size should be 589824 bytes, got more than 589824"):
        fetch(server.file(), tmp_path, FAST)
    assert _left(tmp_path) == set()
    server.plan = ["no length"]
    assert fetch(server.file(), tmp_path, FAST).read_bytes() == CONTENT


def test_server_that_stalls_is_given_up_in_time_and_what_came_is_kept(server, tmp_path):
    server.plan = ["stall"] * 2
    start = time.monotonic()
    with pytest.raises(CrystensError, match=r"does not answer in time \(2 attempts\)"):
        fetch(server.file(), tmp_path, replace(FAST, timeout=0.3, retries=1))
    assert time.monotonic() - start < 2
    assert (tmp_path / "train.csv.part").read_bytes() == CONTENT[: 2 * BLOCK]
    assert fetch(server.file(), tmp_path, FAST).read_bytes() == CONTENT
    assert server.ranges[-1] == f"bytes={2 * BLOCK}-"


def test_slow_server_is_waited_for(server, tmp_path):
    server.plan = ["slow"]
    assert fetch(server.file(), tmp_path, replace(FAST, timeout=0.3, retries=0)).read_bytes() == CONTENT


def test_damaged_file_in_the_cache_is_fetched_again(server, tmp_path, caplog):
    (tmp_path / "train.csv").write_bytes(CONTENT[:-1] + b"?")
    assert fetch(server.file(), tmp_path, FAST).read_bytes() == CONTENT
    assert "is not the file of" in caplog.text


def test_no_network_is_one_error_with_the_address_and_the_place_for_the_file(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/train.csv"
    file = RemoteFile(address, "train.csv", 1, "0" * 64)
    with pytest.raises(CrystensError) as caught:
        fetch(file, tmp_path, FAST, otherwise="give data.path=DIR")
    message = str(caught.value)
    assert message.startswith(f"cannot fetch {address}: ")
    assert "Connection refused" in message
    assert f"put the file at {tmp_path / 'train.csv'} by hand, or give data.path=DIR" in message
    assert "\n" not in message


def test_address_that_is_none_is_an_error_at_once(tmp_path):
    with pytest.raises(CrystensError, match=r"'nowhere/train\.csv' is no address to fetch from"):
        fetch(RemoteFile("nowhere/train.csv", "train.csv", 1, "0" * 64), tmp_path, Patience(wait=100))


# The disk


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_full_disk_is_an_error_that_says_so(server, tmp_path):
    server.etag = None
    (tmp_path / "train.csv.part").symlink_to("/dev/full")
    with pytest.raises(CrystensError, match=r"cannot write to .*: No space left on device; free some space, or"):
        fetch(server.file(), tmp_path, FAST)
    assert not (tmp_path / "train.csv").exists()


def test_folder_that_cannot_be_made_is_an_error_that_names_another_way(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CrystensError, match=r"cannot (write to|read) .*file.*: Not a directory.*"):
        fetch(server.file(), tmp_path / "file" / "cache", FAST)
    assert server.asked == []


# Processes

_PROCESS = (
    "import sys; from pathlib import Path; from crystens.datasets.download import RemoteFile, fetch;"
    "fetch(RemoteFile(sys.argv[1], 'train.csv', int(sys.argv[2]), sys.argv[3]), Path(sys.argv[4]))"
)


def _process(file: RemoteFile, folder: Path) -> subprocess.Popen:
    """Return a process that fetches a file."""
    arguments = [file.address, str(file.size), file.sha256, str(folder)]
    return subprocess.Popen([sys.executable, "-c", _PROCESS, *arguments])


def test_killed_download_is_continued_with_the_rest_only(server, tmp_path):
    server.plan = ["slow"]
    part = tmp_path / "train.csv.part"
    with _process(server.file(), tmp_path) as process:
        limit = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size >= 5 * BLOCK) and time.monotonic() < limit:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    begun = part.stat().st_size
    assert 5 * BLOCK <= begun < len(CONTENT)
    assert not (tmp_path / "train.csv").exists()
    assert fetch(server.file(), tmp_path, FAST).read_bytes() == CONTENT
    assert server.asked[1:] == [{"Range": f"bytes={begun}-", "If-Range": '"one"'}]
    assert server.sent[1] == len(CONTENT) - begun


def test_two_processes_at_once_fetch_once(server, tmp_path):
    server.plan = ["slow"]
    with _process(server.file(), tmp_path) as first, _process(server.file(), tmp_path) as second:
        assert (first.wait(60), second.wait(60)) == (0, 0)
    assert (tmp_path / "train.csv").read_bytes() == CONTENT
    assert len(server.asked) == 1


# Where


def test_cache_folder_is_the_variable_then_the_shared_one_then_home(monkeypatch, tmp_path):
    monkeypatch.setenv("CRYSTENS_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("CRYSTENS_CACHE")
    assert cache_folder() == tmp_path / "shared" / "crystens"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / "home" / ".cache" / "crystens"
    assert list(tmp_path.iterdir()) == []


# The benchmarks


@pytest.fixture
def benchmark(server, monkeypatch, nacl, copper_primitive, single_atom) -> Server:
    """A server of perov_5 with one row a table."""
    known = {}
    for split, crystal in (("train", nacl), ("val", copper_primitive), ("test", single_atom)):
        text = write_cif(crystal).replace('"', '""')
        content = f',material_id,cif,formula\n0,7,"{text}",{crystal.formula}\n'.encode()
        server.files[f"/data/perov_5/{split}.csv"] = content
        known[split] = (len(content), hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(benchmarks.BENCHMARKS, "perov_5", known)
    return server


def test_benchmark_without_a_path_is_fetched_and_read_with_its_splits(benchmark, tmp_path):
    source = CdvaeSplits(None, "perov_5", cache=tmp_path, address=f"{benchmark.address}/data/", patience=FAST)
    assert benchmark.asked == []
    items = list(source.read(Limits()))
    assert [(item.split, item.crystal.formula) for item in items] == [("train", "NaCl"), ("val", "Cu"), ("test", "Po")]
    assert len(benchmark.asked) == 3
    assert source.contents() == {f"{split}.csv": tmp_path / "cdvae" / "perov_5" / f"{split}.csv" for split in _splits()}
    assert len(benchmark.asked) == 3
    assert str(source) == f"perov_5 of {benchmark.address}/data/"


def _splits() -> tuple[str, ...]:
    return tuple(BENCHMARKS["perov_5"])


def test_benchmark_goes_into_the_cache_folder_unless_told_otherwise(benchmark, tmp_path, monkeypatch):
    monkeypatch.setenv("CRYSTENS_CACHE", str(tmp_path))
    list(CdvaeSplits(None, "perov_5", address=f"{benchmark.address}/data", patience=FAST).records())
    assert (tmp_path / "cdvae" / "perov_5" / "val.csv").is_file()


def test_benchmark_with_a_path_fetches_nothing(benchmark, tmp_path):
    for split in _splits():
        (tmp_path / f"{split}.csv").write_bytes(benchmark.files[f"/data/perov_5/{split}.csv"])
    source = CdvaeSplits(tmp_path, "perov_5", cache=tmp_path / "cache", address=benchmark.address)
    assert len(list(source.read(Limits()))) == 3
    assert benchmark.asked == []
    assert not (tmp_path / "cache").exists()


def test_error_of_a_benchmark_names_the_folder_to_give_instead(benchmark, tmp_path):
    benchmark.plan = ["404"]
    with pytest.raises(CrystensError, match=r"by hand, or give data\.path=DIR, the folder with train"):
        list(CdvaeSplits(None, "perov_5", cache=tmp_path, address=f"{benchmark.address}/data").records())


@pytest.mark.parametrize(("name", "split"), [(n, s) for n in ("perov_5", "carbon_24") for s in ("val", "test")])
def test_known_size_and_checksum_are_those_of_the_shared_originals(shared_data, tmp_path, name, split):
    content = gzip.decompress((shared_data / name / f"{split}.csv.gz").read_bytes())
    assert BENCHMARKS[name][split] == (len(content), hashlib.sha256(content).hexdigest())


def test_every_benchmark_has_three_tables_with_different_checksums():
    assert list(BENCHMARKS) == ["perov_5", "carbon_24", "mp_20"]
    sums = [sha256 for tables in BENCHMARKS.values() for _, sha256 in tables.values()]
    assert len({value for value in sums if len(value) == 64}) == 9


@pytest.mark.slow
def test_real_benchmark_file_travels_through_a_server_unharmed(shared_data, server, tmp_path):
    for split in ("val", "test"):
        server.content = gzip.decompress((shared_data / "carbon_24" / f"{split}.csv.gz").read_bytes())
        size, sha256 = BENCHMARKS["carbon_24"][split]
        server.plan = ["cut"]
        path = fetch(RemoteFile(f"{server.address}/{split}.csv", f"{split}.csv", size, sha256), tmp_path, FAST)
        with path.open(newline="") as file:
            assert len(list(csv.DictReader(file))) == {"val": 2032, "test": 2030}[split]
