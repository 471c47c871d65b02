"""Processes that are guarded: what a task whose process ended stands for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from crystens.cif.write import write_cif
from crystens.errors import CrystensError
from crystens.processes import pool as guarded_pool
from crystens.processes.cores import usable_cores
from crystens.processes.pool import Broken, GuardedPool


def die_once(marker: str) -> str:
    """End this process the first time, as the system does when memory is short."""
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def die(_: str) -> str:
    """End this process every time."""
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


def test_a_task_whose_process_was_ended_once_is_done_the_second_time(tmp_path: Path) -> None:
    tasks = {"a": (str(tmp_path / "a"),), "b": (str(tmp_path / "b"),)}
    (tmp_path / "b").touch()
    with GuardedPool(1, 60, 4, [__name__]) as pool:
        assert dict(pool.results(tasks.items(), die_once)) == {"a": "done", "b": "done"}


def test_a_task_that_ends_its_process_twice_broke_down() -> None:
    with GuardedPool(1, 60, 4, [__name__]) as pool:
        ((key, found),) = pool.results([("a", ("",))], die)
    assert key == "a"
    assert isinstance(found, Broken)
    assert found.reason.startswith("broke down: its process ended with status")


def compute(seconds: float) -> float:
    """Compute for so long, in time of the processor."""
    begun = time.process_time()
    while time.process_time() - begun < seconds:
        pass
    return seconds


def test_a_task_is_ended_by_what_it_computes_and_not_by_the_clock() -> None:
    with GuardedPool(1, 0.5, 4, [__name__]) as pool:
        found = dict(pool.results([("a", (0.2,)), ("b", (100.0,)), ("c", (0.3,))], compute))
        assert (found["a"], found["c"]) == (0.2, 0.3)  # each has a time of its own
        assert found["b"].reason == "takes too long: more than 0.5 s"
        assert found["b"].lasting
        assert dict(pool.results([("d", (1.5,))], time.sleep)) == {"d": None}


def test_a_task_that_stands_still_is_ended_and_not_to_blame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded_pool, "_PATIENCE", 2)
    with GuardedPool(1, 0.5, 4, [__name__]) as pool:
        ((_, found),) = pool.results([("a", (100.0,))], time.sleep)
    assert found.reason == "stands still: no result after 1 s"
    assert not found.lasting


def doubled(numbers: list[int]) -> list[int]:
    """Return the doubles; 3 computes for ever, and 5 ends the process."""
    if 3 in numbers:
        compute(1000.0)
    if 5 in numbers:
        os.kill(os.getpid(), signal.SIGKILL)
    return [2 * number for number in numbers]


def test_a_chunk_that_broke_is_done_again_item_by_item() -> None:
    with GuardedPool(2, 0.3, 4, [__name__]) as pool:
        found = dict(pool.chunked([("a", [1, 2]), ("b", [2, 3, 4]), ("c", [5, 6])], doubled))
    assert found["a"] == [([1, 2], [2, 4])]
    (first, slow, last), (dead, alone) = found["b"], found["c"]
    assert (first, last, alone) == (([2], [4]), ([4], [8]), ([6], [12]))
    assert (slow[0], slow[1].reason) == ([3], "takes too long: more than 0.3 s")
    assert (dead[0], dead[1].reason.split(":")[0]) == ([5], "broke down")


def test_few_tasks_are_taken_ahead_of_the_results() -> None:
    taken: list[int] = []
    tasks = ((k, (0.0,)) for k in range(100) if not taken.append(k))
    with GuardedPool(1, 60, 4, [__name__]) as pool:
        results = pool.results(tasks, compute)
        next(results)
        assert len(taken) < 10
        results.close()


def test_what_computes_too_long_without_processes_is_given_up() -> None:
    with pytest.raises(TimeoutError, match=r"given up after 0.1 s"), guarded_pool.time_limit(0.1):
        compute(100.0)
    with guarded_pool.time_limit(0.1):
        time.sleep(0.3)  # takes no time of the processor


def test_of_two_limits_one_inside_the_other_the_shorter_holds() -> None:
    with guarded_pool.time_limit(100.0):
        with pytest.raises(TimeoutError, match=r"given up after 0.1 s"), guarded_pool.time_limit(0.1):
            compute(100.0)
        compute(0.2)
    with (
        pytest.raises(TimeoutError, match=r"given up after 0.3 s"),
        guarded_pool.time_limit(0.3),
        guarded_pool.time_limit(100.0),
    ):
        compute(100.0)


def test_limit_goes_on_after_one_inside_it() -> None:
    with guarded_pool.time_limit(100.0):
        with guarded_pool.time_limit(10.0):
            compute(0.1)
        left, _ = signal.getitimer(signal.ITIMER_PROF)
    assert 90 < left < 100
    assert signal.getitimer(signal.ITIMER_PROF)[0] == 0


def count_processes(_: str) -> str:
    """Return the number of this process."""
    time.sleep(0.05)
    return str(os.getpid())


def test_no_more_processes_are_started_than_there_are_cores() -> None:
    with GuardedPool(1000, 60, 4, [__name__]) as pool:
        found = dict(pool.results(((str(k), ("",)) for k in range(40)), count_processes))
    assert 1 <= len(set(found.values())) <= usable_cores()


def test_processes_that_were_all_ended_from_outside_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    broken: Future = Future()
    broken.set_exception(BrokenProcessPool("All workers expired"))
    with GuardedPool(1, 60, 4, [__name__]) as pool:
        monkeypatch.setattr(pool._pool, "schedule", lambda *_, **__: broken)
        with pytest.raises(CrystensError, match=r"all processes were ended from outside .*run the same again"):
            list(pool.results([("a", (0.1,))], compute))


_SCRIPT = """
import sys
from pymatgen.core import Lattice, Structure
import crystens

print("started")
rocksalt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
metrics = crystens.judge([rocksalt, None], reference=sys.argv[1])
print("judged", metrics["num_samples"]["value"])
"""


def test_script_without_a_main_guard_is_not_started_again_by_its_processes(nacl, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    cifs = tmp_path / "cifs"
    cifs.mkdir()
    (cifs / "nacl.cif").write_text(write_cif(nacl))
    done = subprocess.run(
        [sys.executable, str(script), str(cifs)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["started", "judged", "2"]
