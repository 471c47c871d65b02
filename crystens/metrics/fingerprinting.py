"""Fingerprints of many crystals, computed in processes, one crystal at a time, and each only once.

A process is killed when its crystal takes too long, and dies when it takes too much memory; that costs the crystal
alone. Nothing is dropped: `fingerprints` returns one `Fingerprint` a crystal.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, TimeoutError, wait
from dataclasses import dataclass
from pathlib import Path

import pebble

from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.metrics.fingerprint_cache import FingerprintCache
from crystens.metrics.fingerprints import Fingerprint, digest_of, featurizers, fingerprint
from crystens.start_method import process_context

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FingerprintOptions:
    """How fingerprints are computed.

    Attributes:
        workers: processes, one thread each; 0 computes in this process, without a limit in time or memory.
        time_limit: longest time for one crystal, seconds.
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
        for key, found in _computed(waiting, options):
            cache.put(key, found, options.limits)
            done[key] = found
            ready += times[key]
            if progress is not None:
                progress(ready)
    finally:
        cache.close()
    return [done[key] for key in keys]


def _computed(waiting: dict[str, Crystal], options: FingerprintOptions) -> Iterator[tuple[str, Fingerprint]]:
    """Yield the fingerprint of each crystal as it is ready."""
    if options.workers == 0:
        for key, crystal in waiting.items():
            yield key, fingerprint(crystal)
        return
    if not waiting:
        return
    with _Workers(options) as workers:
        running: dict[Future, str] = {}
        for key, crystal in waiting.items():
            running[workers.start(crystal)] = key
            # Enough for no worker to wait, few enough that a kill loses little.
            while len(running) > 4 * options.workers:
                yield from _ready(running, workers)
        while running:
            yield from _ready(running, workers)


def _ready(running: dict[Future, str], workers: _Workers) -> Iterator[tuple[str, Fingerprint]]:
    """Wait for crystals of those that are running, take them out and yield their fingerprints."""
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        yield running.pop(future), workers.finish(future)


class _Workers:
    """Processes that take one crystal at a time, each killed and replaced when it takes too long."""

    def __init__(self, options: FingerprintOptions) -> None:
        self._options = options
        self._pool = pebble.ProcessPool(
            options.workers,
            context=process_context(__name__),
            initializer=_begin,
            initargs=(options.memory_limit,),
        )

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._pool.close()
        else:
            self._pool.stop()
        self._pool.join()

    def start(self, crystal: Crystal) -> Future:
        """Begin with a crystal."""
        return self._pool.schedule(fingerprint, (crystal,), timeout=self._options.time_limit)

    def finish(self, future: Future) -> Fingerprint:
        """Return the fingerprint of a crystal, however its process ended."""
        try:
            return future.result()
        except TimeoutError:
            reason = f"the fingerprint takes too long: more than {self._options.time_limit:g} s"
        except pebble.ProcessExpired as error:
            reason = f"the fingerprint broke down: its process ended with status {error.exitcode}"
        return Fingerprint(None, None, reason)


def _begin(memory: float) -> None:
    """Make a worker process ready."""
    from threadpoolctl import threadpool_limits

    threading.Thread(target=_end_with_parent, daemon=True).start()
    threadpool_limits(1)
    warnings.simplefilter("ignore")
    featurizers()
    _bound_memory(memory)


def _end_with_parent() -> None:
    """End this process when the run that started it is gone: nobody is left to end it when its time is over."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _bound_memory(memory: float) -> None:
    """Let a crystal that asks for more memory, GiB, fail by itself, before the machine does."""
    try:
        import resource

        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + int(memory * 2**30), resource.RLIM_INFINITY))
    except (ImportError, OSError, ValueError):
        log.debug("no bound on memory here", exc_info=True)
