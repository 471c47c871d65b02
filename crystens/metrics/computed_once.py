"""Results of many crystals, each computed only once, by whichever run: what energies and fingerprints share."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from crystens.crystal import Crystal
from crystens.errors import CrystensError

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """How a result of each crystal is computed.

    Attributes:
        workers: processes, one thread each; several do different crystals at once, which on a CPU gains more than a
            batch would. 0 computes in this process, without a limit in time or memory.
        time_limit: longest processor time for one crystal, seconds.
        memory_limit: most memory that one crystal may take, GiB.
        cache: folder of what was computed; None for one in `crystens.data.download.cache_folder()`.

    Raises:
        CrystensError: if an option is out of range.
    """

    workers: int = 1
    time_limit: float
    memory_limit: float
    cache: str | Path | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        if self.workers < 0:
            raise CrystensError(f"workers must be at least 0, got {self.workers}")
        if not self.time_limit > 0:
            raise CrystensError(f"time_limit must be above 0 seconds, got {self.time_limit}")
        if not self.memory_limit > 0:
            raise CrystensError(f"memory_limit must be above 0 GiB, got {self.memory_limit}")

    @property
    def limits(self) -> tuple[float, float]:
        """Time and memory that one crystal may take, seconds and GiB."""
        return (self.time_limit, self.memory_limit) if self.workers else (math.inf, math.inf)


class Cache(Protocol[Result]):
    """Results that were computed before, by key. A failure holds only for limits no wider than those it met."""

    def get(self, key: str, limits: tuple[float, float]) -> Result | None:
        """Return what is known."""

    def put(self, key: str, result: Result, limits: tuple[float, float], /) -> None:
        """Keep one result."""


def computed_once(
    crystals: Sequence[Crystal],
    keys: Sequence[str],
    cache: Cache[Result],
    limits: tuple[float, float],
    compute: Callable[[dict[str, Crystal]], Iterable[tuple[str, Result, bool]]],
    progress: Callable[[int], None] | None = None,
) -> list[Result]:
    """Return a result of each crystal, in order, computing those that the cache lacks.

    Args:
        crystals: any crystals.
        keys: of each; equal ones have one result.
        cache: where results are looked up and kept.
        limits: time and memory that one crystal may take, seconds and GiB.
        compute: yields key and result of each crystal given, and whether it would be the same on another day; only
            then is it kept.
        progress: called with the number of crystals that are done.
    """
    done = {key: known for key in set(keys) if (known := cache.get(key, limits)) is not None}
    waiting = {key: crystal for key, crystal in zip(keys, crystals, strict=True) if key not in done}
    ready = sum(key in done for key in keys)
    if progress is not None:
        progress(ready)
    times = Counter(keys)
    for key, result, lasting in compute(waiting):
        if lasting:
            cache.put(key, result, limits)
        done[key] = result
        ready += times[key]
        if progress is not None:
            progress(ready)
    return [done[key] for key in keys]
