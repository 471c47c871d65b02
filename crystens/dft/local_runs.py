"""Runs of a density functional code on this machine: the script of each candidate, several at a time.

A script goes on after the last relaxation that ended, so that the same call goes on after an interruption.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from crystens.dft.engines import DftEngine
from crystens.dft.runs import STATUS
from crystens.errors import CrystensError
from crystens.processes.atomic_file import write_whole

Progress = Callable[[int, int], None]

_PAUSE = 0.2  # seconds between two looks at what runs
_GRACE = 5.0  # seconds that a program has to end by itself


@dataclass(frozen=True)
class LocalRun:
    """The end of one candidate's runs.

    Attributes:
        name: of the candidate.
        done: relaxations that ended, with those of earlier calls.
        reason: why not all of them ended, `category: details`; None if all did.
    """

    name: str
    done: int
    reason: str | None


def run_here(
    out: Path,
    names: Sequence[str],
    engine: DftEngine,
    jobs: int = 1,
    time_limit: float = 3600.0,
    progress: Progress | None = None,
) -> list[LocalRun]:
    """Run the scripts of candidates, and return what became of each, in order.

    Args:
        out: folder that select wrote.
        names: of the candidates.
        engine: whose inputs are run.
        jobs: how many candidates at a time; each program has one thread unless OMP_NUM_THREADS says otherwise.
        time_limit: for all relaxations of one candidate that are left, seconds by the clock.
        progress: called with how many relaxations of all have ended, and of how many.

    Raises:
        CrystensError: if there is to be no job, or if the program or any file is missing, before anything runs.
    """
    if jobs < 1 or time_limit <= 0:
        raise CrystensError(f"jobs={jobs} must be at least 1 and time_limit={time_limit:g} above 0 seconds")
    folders = [engine.inputs(out, name) for name in names]
    _check(engine, names, folders)
    variables = {"OMP_NUM_THREADS": "1", **os.environ, **engine.environment()}
    variables.setdefault(engine.variable, engine.command)
    waiting = list(range(len(names)))
    running: dict[int, _Script] = {}
    reasons: dict[int, str | None] = {}
    with _sigterm_raised():
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    place = waiting.pop(0)
                    running[place] = _Script(folders[place], variables, time_limit)
                for place in list(running):
                    if running[place].ended():
                        reasons[place] = running.pop(place).reason
                if progress is not None:
                    progress(sum(_done(folder, engine) for folder in folders), len(folders) * engine.relaxations)
                if running:
                    time.sleep(_PAUSE)
        finally:
            for script in running.values():
                script.end()
    return [
        LocalRun(name, _done(folder, engine), reasons[place])
        for place, (name, folder) in enumerate(zip(names, folders, strict=True))
    ]


class _Script:
    """The script of one candidate, which runs in a session of its own.

    Args:
        folder: it holds run.sh.
        variables: its environment.
        time_limit: seconds by the clock.
    """

    def __init__(self, folder: Path, variables: dict[str, str], time_limit: float) -> None:
        self.reason: str | None = None
        self._folder = folder
        self._limit = time_limit
        self._begun = time.monotonic()
        self._process = subprocess.Popen(
            [str(folder.resolve() / "run.sh")],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )

    def ended(self) -> bool:
        """Return whether the script has ended; end it if its time is over."""
        if self._process.poll() is None:
            if time.monotonic() - self._begun < self._limit:
                return False
            self.end()
            self.reason = f"out of time: not done after {self._limit:g} s"
            for place in self._folder.iterdir():
                if place.is_dir() and not (place / "ended").exists():
                    write_whole(place / STATUS, f"{self.reason}\n")
            return True
        if self._process.returncode != 0:
            told = (self._process.stderr.read() if self._process.stderr else "").strip().splitlines()
            self.reason = told[-1] if told else f"run.sh ended with status {self._process.returncode}"
        return True

    def end(self) -> None:
        """End the script and all that it started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE)
        if self._process.stderr is not None:
            self._process.stderr.close()


@contextlib.contextmanager
def _sigterm_raised() -> Iterator[None]:
    """Let SIGTERM, which batch systems send, raise SystemExit, so that the programs that were started are ended too."""
    if threading.current_thread() is not threading.main_thread():  # no other thread may set a handler
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check(engine: DftEngine, names: Sequence[str], folders: Sequence[Path]) -> None:
    """Raise an error of one line if something is missing."""
    command = shlex.split(os.environ.get(engine.variable) or engine.command)
    if not command or shutil.which(command[0]) is None:
        what = f"no {command[0]} on this machine" if command else f"{engine.variable} is not set"
        raise CrystensError(f"{what}; {engine.advice}")
    lacking = [(name, engine.lacking(folder)) for name, folder in zip(names, folders, strict=True)]
    told = [f"{name}: {reason}" for name, reason in lacking if reason is not None]
    if told:
        more = f" (and {len(told) - 1} more of {len(names)} candidates)" if len(told) > 1 else ""
        raise CrystensError(f"{told[0]}{more}; nothing was run; leave candidates out with --without NAME")


def _done(folder: Path, engine: DftEngine) -> int:
    """Return how many relaxations have ended."""
    return sum((folder / f"run_{run}" / "ended").exists() for run in range(1, engine.relaxations + 1))
