"""Fingerprints of many crystals, computed in processes, one crystal at a time, and each only once.

A process is killed when its crystal takes too long, and dies when it takes too much memory; that costs the crystal
alone. Nothing is dropped: `fingerprints` returns one `Fingerprint` a crystal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from crystens.crystal import Crystal
from crystens.guarded_pool import Broken, GuardedPool
from crystens.metrics.computed_once import ComputeOptions, computed_once
from crystens.metrics.fingerprint_cache import FingerprintCache
from crystens.metrics.fingerprints import Fingerprint, digest_of, featurizers, fingerprint


@dataclass(frozen=True, kw_only=True)
class FingerprintOptions(ComputeOptions):
    """How fingerprints are computed.

    Attributes:
        cache: folder of what was computed; None for `fingerprints` in `crystens.data.download.cache_folder()`.
    """

    time_limit: float = 60.0
    memory_limit: float = 4.0


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
        return computed_once(
            crystals, keys, cache, options.limits, lambda waiting: _computed(waiting, options), progress
        )
    finally:
        cache.close()


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
