"""How long a stage will take, said once, as soon as its first crystals are done.

Seconds that a fingerprint, an energy or a property takes depend on the crystals and the machine, so that nothing is
known before some are computed. Crystals that are read from the cache of an earlier run count as done at the start.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

_FIRST = 5  # crystals that the estimate is measured on, at least
_SECONDS = 3.0  # that they take, at least
_WORTH = 60.0  # seconds; what takes less is not announced

Show = Callable[[str, int, int | None], None]  # name of a stage, how much is done, of how much


@dataclass
class _Start:
    """When the first result of a stage came, in seconds of the clock, and how many were done then."""

    known: int
    clock: float | None = None
    done: int = 0
    said: bool = False


class CostEstimate:
    """Passes on how much of each stage is done, and says what those of crystals will take; called as progress bars are.

    Args:
        show: shows how much is done.
        advice: what can be done about it, by the name of a stage.
        say: says a line; by default on standard error.
        clock: seconds of the clock.
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
        """Show that so much of a stage is done."""
        self._show(name, done, total)
        if name not in self._advice or total is None:
            return
        start = self._starts.setdefault(name, _Start(known=done))
        if start.clock is None:
            if done > start.known:  # processes have started, and their first result is there
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
