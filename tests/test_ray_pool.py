"""The guarded pool on Ray: the same results as that of this machine, and a worker that dies costs its task alone."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ase.calculators.lj import LennardJones

from crystens import evaluate
from crystens.cif.write import write_cif
from crystens.crystal import Crystal
from crystens.energies.potentials import Potential
from crystens.errors import CrystensError
from crystens.processes.engines import RAY, check_engine, engine_running, open_pool
from crystens.processes.pool import Broken
from crystens.sun.__main__ import main as sun

NO_RAY = "Ray is not installed: pip install 'crystens[ray]'"


def _begin(value: int) -> None:
    """Keep a value in the process."""
    _own["value"] = value


_own: dict[str, int] = {}


def _more(number: int) -> int:
    return number + _own["value"]


def _all_more(numbers: Sequence[int]) -> list[int]:
    if 17 in numbers:
        os.kill(_worker(), signal.SIGKILL)
    if {7, 17} & set(numbers):
        os.kill(os.getpid(), signal.SIGKILL)
    return [_more(number) for number in numbers]


def _dies(folder: str, times: int) -> str:
    """Kill this process and the worker that holds it, so many times."""
    for death in range(times):
        try:
            Path(folder, str(death)).touch(exist_ok=False)
        except FileExistsError:
            continue
        os.kill(os.getppid() if death % 2 else _worker(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def _worker() -> int:
    """Return the process of the actor that holds this one: the parent of the server that forks."""
    return int(Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[1])


def _fails(number: int) -> int:
    raise CrystensError(f"number {number} is wrong")


def _spins(number: int) -> int:
    while number == 1:
        pass
    return number


class Soft(Potential):
    """Lennard-Jones, the same for all elements."""

    identity = "soft 2"
    scales = (identity,)

    def calculator(self) -> Any:
        return LennardJones(sigma=2.4, epsilon=0.1, rc=6.0, smooth=True)


@pytest.fixture
def cifs(tmp_path: Path, nacl: Crystal, copper_primitive: Crystal, triclinic: Crystal) -> Path:
    """A folder of three crystals, the first of them twice."""
    folder = tmp_path / "cifs"
    folder.mkdir()
    for number, crystal in enumerate([nacl, copper_primitive, nacl, triclinic]):
        (folder / f"{number}.cif").write_text(write_cif(crystal))
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray with two CPUs, whose processes can import this file."""
    ray = pytest.importorskip("ray", reason=NO_RAY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
        yield
        ray.shutdown()


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(CrystensError, match=r"pip install 'crystens\[ray\]'"),
        open_pool(RAY, 2, 60.0, 4.0, [__name__]),
    ):
        pass


def test_engine_must_be_known_and_ray_needs_a_worker():
    with pytest.raises(CrystensError, match="engine must be one of processes, ray, got 'dask'"):
        check_engine("dask", 1)
    with pytest.raises(CrystensError, match="Ray needs at least 1 worker, got workers=0"):
        check_engine(RAY, 0)


@pytest.mark.slow
def test_results_are_those_of_processes_here(cluster):
    found = {}
    for engine in ("processes", RAY):
        with open_pool(engine, 2, 60.0, 4.0, [__name__], _begin, (10,)) as pool:
            found[engine] = dict(pool.results(((k, (k,)) for k in range(20)), _more))
    assert found["processes"] == found[RAY] == {k: k + 10 for k in range(20)}


@pytest.mark.slow
def test_task_whose_worker_dies_is_given_out_once_more(cluster, tmp_path):
    with open_pool(RAY, 2, 60.0, 4.0, [__name__], _begin, (10,)) as pool:
        once, twice = tmp_path / "once", tmp_path / "twice"
        once.mkdir()
        twice.mkdir()
        tasks = [("once", (str(once), 1)), ("twice", (str(twice), 3)), ("never", (str(tmp_path), 0))]
        found = dict(pool.results(tasks, _dies))
    assert found["once"] == found["never"] == "done"
    assert isinstance(found["twice"], Broken)
    assert found["twice"].reason.startswith("broke down: its worker ended")


@pytest.mark.slow
def test_item_at_fault_stands_alone(cluster):
    with open_pool(RAY, 2, 60.0, 4.0, [__name__], _begin, (10,)) as pool:
        chunks = [(0, [6, 7, 8]), (1, [16, 17, 18]), (2, [1])]
        found = {key: [made for _, made in parts] for key, parts in pool.chunked(chunks, _all_more)}
    assert (found[0][0], found[0][2], found[1][0], found[1][2], found[2]) == ([16], [18], [26], [28], [[11]])
    assert found[0][1].reason == "broke down: its process ended with status -9"
    assert found[1][1].reason.startswith("broke down: its worker ended")


@pytest.mark.slow
def test_what_a_task_raises_is_raised_here_and_time_is_limited(cluster):
    with open_pool(RAY, 2, 1.0, 4.0, [__name__]) as pool:
        with pytest.raises(CrystensError, match="number 3 is wrong"):
            dict(pool.results([(0, (3,))], _fails))
        found = dict(pool.results([(k, (k,)) for k in range(3)], _spins))
    assert (found[0], found[2]) == (0, 2)
    assert found[1].reason == "takes too long: more than 1 s"
    assert found[1].lasting


@pytest.mark.slow
def test_stages_of_a_command_share_one_cluster(cluster):
    ray = pytest.importorskip("ray", reason=NO_RAY)
    with engine_running(RAY), open_pool(RAY, 1, 60.0, 4.0, [__name__], _begin, (1,)) as pool:
        assert dict(pool.results([(0, (1,))], _more)) == {0: 2}
    assert ray.is_initialized()  # it was there before


@pytest.mark.slow
def test_rows_of_sun_are_those_of_one_process(cluster, cifs, tmp_path):
    (tmp_path / "hull.csv").write_text("formula,energy_per_atom\nNa,0.0\nCl,0.0\nCu,-5.0\nNaCl,-0.05\n")
    given = [str(cifs), "--novel-against", str(cifs), "--hull-entries", str(tmp_path / "hull.csv"), "--scale", "soft 2"]
    tables = []
    for how in (["--workers", "1"], ["--workers", "2", "--engine", "ray"]):
        out = tmp_path / str(len(tables))
        assert sun([*given, "--out", str(out), "--cache", f"{out}_cache", *how], Soft()) == 0
        tables.append((out / "crystals.csv").read_bytes())
    assert tables[0] == tables[1]
    assert len(tables[0].splitlines()) == 5


@pytest.mark.slow
def test_rows_of_the_protocol_are_those_of_one_process(cluster, cifs, tmp_path, monkeypatch):
    pytest.importorskip("matminer", reason="the extra metrics is not installed")
    pytest.importorskip("smact", reason="the extra metrics is not installed")
    given = [str(cifs), "--reference", str(cifs), "--protocol", "cdvae", "--cutoffs", "0.2", "4"]
    tables = []
    for how in (["--workers", "1"], ["--workers", "2", "--engine", "ray"]):
        out = tmp_path / str(len(tables))
        monkeypatch.setenv("CRYSTENS_CACHE", f"{out}_cache")
        assert evaluate.main([*given, "--out", str(out), *how]) == 0
        tables.append((out / "crystals.csv").read_bytes())
    assert tables[0] == tables[1]
    assert len(tables[0].splitlines()) == 5
