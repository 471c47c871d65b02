"""Fingerprints of many crystals, computed in processes, one crystal at a time, and each only once.

A process is killed when its crystal takes too long, and dies when it takes too much memory; that costs the crystal
alone. Nothing is dropped: `fingerprints` returns one `Fingerprint` a crystal.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.guarded_pool import Broken, GuardedPool
from crystens.metrics.fingerprint_cache import FingerprintCache
from crystens.metrics.fingerprints import Fingerprint, digest_of, featurizers, fingerprint


@dataclass(frozen=True)
class FingerprintOptions:
    """How fingerprints are computed.

    Attributes:
        workers: processes, one thread each; 0 computes in this process, without a limit in time or memory.
        time_limit: longest processor time for one crystal, seconds.
        memory_limit: most memory that one crystal may take, GiB.
        cache: folder of what was computed; None for `fingerprints` in `crystens.data.download.cache_folder()`.

    Raises:
        CrystensError: if an option is out of range.
    """

    workers: int = 1
    time_limit: float = 60.0
    memory_limit: float = 4.0
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


def fingerprints(
    crystals: Sequence[Crystal],
    options: FingerprintOptions | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Fingerprint]:
    """Return a fingerprint of each crystal, in order; what was computed before, by whichever run, is not again.

    Args:
        crystals: any crystals, however bad.
        options: how they are computed.
        progress: called with the number of crystals that are done.

    Raises:
        CrystensError: if matminer is not installed, or the cache cannot be read.
    """
    options = options or FingerprintOptions()
    featurizers()  # what is missing is told here, and not by every process
    cache = FingerprintCache(options.cache)
    try:
        keys = [digest_of(crystal) for crystal in crystals]
        done = {key: known for key in set(keys) if (known := cache.get(key, options.limits)) is not None}
        waiting = {key: crystal for key, crystal in zip(keys, crystals, strict=True) if key not in done}
        ready = sum(key in done for key in keys)
        if progress is not None:
            progress(ready)
        times = Counter(keys)
        for key, found, lasting in _computed(waiting, options):
            if lasting:
                cache.put(key, found, options.limits)
            done[key] = found
            ready += times[key]
            if progress is not None:
                progress(ready)
    finally:
        cache.close()
    return [done[key] for key in keys]


def _computed(waiting: dict[str, Crystal], options: FingerprintOptions) -> Iterator[tuple[str, Fingerprint, bool]]:
    """Yield the fingerprint of each crystal as it is ready, and whether it would be the same on another day."""
    if options.workers == 0:
        for key, crystal in waiting.items():
            yield key, fingerprint(crystal), True
        return
    if not waiting:
        return
    tasks = {key: (crystal,) for key, crystal in waiting.items()}
    limits = options.time_limit, options.memory_limit
    with GuardedPool(min(options.workers, len(tasks)), *limits, __name__, featurizers) as pool:
        for key, found in pool.results(tasks, fingerprint):
            if isinstance(found, Broken):
                yield key, Fingerprint(None, None, f"the fingerprint {found.reason}"), found.lasting
            else:
                yield key, found, True
