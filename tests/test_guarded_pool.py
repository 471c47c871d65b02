"""Processes that are guarded: what a task whose process ended stands for."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from crystens.guarded_pool import Broken, GuardedPool


def begin() -> None:
    """Nothing has to be made ready."""


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
    with GuardedPool(1, 60, 4, __name__, begin) as pool:
        assert dict(pool.results(tasks, die_once)) == {"a": "done", "b": "done"}


def test_a_task_that_ends_its_process_twice_broke_down() -> None:
    with GuardedPool(1, 60, 4, __name__, begin) as pool:
        ((key, found),) = pool.results({"a": ("",)}, die)
    assert key == "a"
    assert isinstance(found, Broken)
    assert found.reason.startswith("broke down: its process ended with status")
