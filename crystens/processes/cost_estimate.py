"""Estimate of the duration of a stage, printed once, after its first crystals.

The time for a fingerprint, an energy or a property depends on crystals and machine, so that some must be computed
before an estimate. Cached results count as done at the start.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

_FIRST = 5  # least number of crystals behind the estimate
_SECONDS = 3.0  # least time behind the estimate, seconds
_WORTH = 60.0  # seconds; shorter stages get no estimate

Show = Callable[[str, int, int | None], None]  # name of a stage, number done, total


@dataclass
class _Start:
    """Time of the first result of a stage, in seconds of the clock, and the number done then."""

    known: int
    clock: float | None = None
    done: int = 0
    said: bool = False


class CostEstimate:
    """Progress callback that passes progress on, and prints an estimate for stages of crystals.

    Args:
        show: the progress bars.
        advice: advice on how to shorten a stage, by its name.
        say: prints a line; by default on standard error.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        show: Show,
        advice: dict[str, str],
        say: Callable[[str], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._show = show
        self._advice = advice
        self._say = say or (lambda line: sys.stderr.write(f"{line}\n"))
        self._clock = clock
        self._starts: dict[str, _Start] = {}

    def __call__(self, name: str, done: int, total: int | None) -> None:
        """Show the progress of a stage."""
        self._show(name, done, total)
        if name not in self._advice or total is None:
            return
        start = self._starts.setdefault(name, _Start(known=done))
        if start.clock is None:
            if done > start.known:  # workers have started, and the first result is ready
                start.clock, start.done = self._clock(), done
            return
        measured, seconds = done - start.done, self._clock() - start.clock
        if start.said or measured < _FIRST or seconds < _SECONDS:
            return
        start.said = True
        left = seconds / measured * (total - done)
        if left >= _WORTH:
            cached = f", {start.known:,} of them known already" if start.known else ""
            advice = f"; {self._advice[name]}" if self._advice[name] else ""
            self._say(
                f"{name} of {total:,} crystals{cached}: about {_spoken(left)} more, measured on the first "
                f"{measured + 1}{advice}"
            )


def _spoken(seconds: float) -> str:
    """Return a duration in minutes or hours."""
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < 120 else f"{seconds / 3600:.1f} hours"
