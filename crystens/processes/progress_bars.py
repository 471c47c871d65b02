"""Progress on standard error: bars on a terminal and in a notebook, plain lines elsewhere.

A plain line (nohup, Slurm, a pipe) states the progress of a stage, the elapsed time and the estimated remaining time.
The first line comes after 5 seconds; pauses double up to a minute, and short stages write no line. A stage that wrote a
line also writes a last line.

    sampling: 350 of 1,000 (35 %), 1 min 20 s, about 2 min 30 s left
    reading: 4,000, 35 s so far; 12 set aside
    sampling: 1,000 of 1,000 in 4 min 2 s
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Detail = Callable[[], str]

_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 60.0  # seconds between two plain lines
_SILENCE = 5.0  # seconds after which an overdue line is written without new progress


class ProgressBars:
    """Context manager that shows the progress of stages by name.

    A bar appears on its first update; a new bar closes open bars of unknown length. Nothing is shown before the first
    update, so that an early error is the only output.
    """

    def __init__(self) -> None:
        self._shown: _Shown = _Bars() if shows_bars() else PlainLines()

    def __enter__(self) -> ProgressBars:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        """Stop the bars, and complete those of unknown length unless an error occurred."""
        self._shown.close(failed=kind is not None)

    def __call__(self, name: str, done: int, total: int | None, detail: Detail | None = None) -> None:
        """Show how much of a stage is done.

        Args:
            name: of the stage.
            done: how much of it is done.
            total: of how much; None where that is not known.
            detail: gives a few words that are shown too; it is called only when they are shown.
        """
        self._shown.show(name, done, total, detail)


def shows_bars() -> bool:
    """Return whether standard error can show bars: on a terminal and in a notebook."""
    console = Console(stderr=True)
    # Asks for colours, and Rich takes it for a terminal. A kernel of Jupyter sets it for the commands of its cells.
    if "FORCE_COLOR" in os.environ:
        return console.is_jupyter or sys.stderr.isatty()
    return console.is_terminal or console.is_jupyter


class _Shown(Protocol):
    """One way to show progress."""

    def show(self, name: str, done: int, total: int | None, detail: Detail | None) -> None:
        """Update the progress of a stage."""

    def close(self, failed: bool) -> None:
        """Show no more."""


class _Bars:
    """Bars by name."""

    def __init__(self) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
        )
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._tasks: dict[str, TaskID] = {}

    def show(self, name: str, done: int, total: int | None, detail: Detail | None) -> None:
        """Update the progress of a stage."""
        self._progress.start()
        if name not in self._tasks:
            self._end()
            self._tasks[name] = self._progress.add_task(name, total=total, completed=done, detail="")
        told: dict[str, Any] = {} if detail is None else {"detail": detail()}
        self._progress.update(self._tasks[name], completed=done, total=total, **told)

    def close(self, failed: bool) -> None:
        """Stop, and end the bars whose total is not known unless something failed."""
        if not failed:
            self._end()
        if self._progress.tasks:
            self._progress.stop()

    def _end(self) -> None:
        """End the bars whose total is not known."""
        for task in self._progress.tasks:
            if task.total is None:
                self._progress.update(task.id, total=task.completed)
                self._tasks.pop(task.description, None)


@dataclass
class _Stage:
    """How much of a stage is done, by the clock, and when its next line is due (seconds of the clock)."""

    name: str
    begun: float
    done_before: int
    done: int
    total: int | None
    due: float
    pause: float = _FIRST_PAUSE
    written: bool = False

    def line(self, now: float, ends: bool = False) -> str:
        """Return the line of this moment."""
        spent = now - self.begun
        amount = f"{self.done:,}" if self.total is None else f"{self.done:,} of {self.total:,}"
        if ends:
            return f"{self.name}: {amount} in {spoken(spent)}"
        if self.total is None:
            return f"{self.name}: {f'{amount}, ' if self.done else ''}{spoken(spent)} so far"
        share = f" ({100 * self.done / self.total:.0f} %)" if self.total else ""
        line = f"{self.name}: {amount}{share}, {spoken(spent)}"
        advanced = self.done - self.done_before
        if advanced > 0 and self.total > self.done:
            line += f", about {spoken(spent / advanced * (self.total - self.done))} left"
        return line


class PlainLines:
    """Lines at growing pauses.

    A thread writes the lines of a stage that reports too rarely. Of several that are open, one within the other, only
    the innermost has its lines written by the thread.

    Args:
        write: takes a line without its end; by default it goes to standard error.
        clock: gives the time in seconds.
    """

    _open: list[PlainLines] = []  # noqa: RUF012 (of all instances)

    def __init__(
        self, write: Callable[[str], object] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write or (lambda line: sys.stderr.write(f"{line}\n"))
        self._clock = clock
        self._stage: _Stage | None = None
        self._lock = threading.RLock()
        self._ended: threading.Event | None = None  # set for the thread to end; None where there is no thread

    def show(self, name: str, done: int, total: int | None, detail: Detail | None = None) -> None:
        """Take down how much of a stage is done, and write a line if one is due."""
        with self._lock:
            now = self._clock()
            if self._stage is None or self._stage.name != name:
                self._end_stage(now)
                self._stage = _Stage(name, now, done, done, total, now + _FIRST_PAUSE)
            stage = self._stage
            stage.done, stage.total = done, total
            if now >= stage.due:
                self._line(stage, now, "" if detail is None else f"; {detail()}")
        if self._ended is None:
            self._ended = threading.Event()
            PlainLines._open.append(self)
            threading.Thread(target=self._watch, args=(self._ended,), daemon=True, name="progress").start()

    def close(self, failed: bool) -> None:
        """Write how the last stage ended, unless something failed, and stop."""
        if self._ended is not None:
            self._ended.set()
            self._ended = None
            PlainLines._open.remove(self)
        with self._lock:
            if not failed:
                self._end_stage(self._clock())
            self._stage = None

    def break_silence(self) -> None:
        """Write the line that is overdue, if there is one."""
        with self._lock:
            now = self._clock()
            if self._stage is not None and now >= self._stage.due + _SILENCE:
                self._line(self._stage, now)

    def _watch(self, ended: threading.Event) -> None:
        """Break the silence of a stage, until this is closed."""
        while not ended.wait(1.0):
            if PlainLines._open[-1:] == [self]:
                self.break_silence()

    def _line(self, stage: _Stage, now: float, detail: str = "") -> None:
        """Write a line of a stage."""
        self._write(stage.line(now) + detail)
        stage.written = True
        stage.pause = min(2 * stage.pause, _LONGEST_PAUSE)
        stage.due = now + stage.pause

    def _end_stage(self, now: float) -> None:
        """Write how a stage ended that had lines before."""
        if self._stage is not None and self._stage.written:
            self._write(self._stage.line(now, ends=True))


def spoken(seconds: float) -> str:
    """Return a length of time in words, such as 45 s, 2 min 10 s or 3 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
