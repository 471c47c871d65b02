"""Cached results of many crystals: the common part of energies, fingerprints and properties.

A worker process is killed if its crystal takes too long or too much memory; only this crystal fails. Nothing is
dropped: each crystal has a result, or the reason why it has none.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from threadpoolctl import threadpool_limits

from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.processes.engines import PROCESSES, check_engine, open_pool
from crystens.processes.pool import Broken
from crystens.processes.result_cache import R, ResultCache


@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """Options of the computation of results.

    Attributes:
        workers: number of processes with one thread each, for different crystals; on a CPU this is faster than batches.
            0 computes in this process, without limits of time and memory.
        time_limit: limit of processor time for one crystal, seconds.
        memory_limit: limit of memory for one crystal, GiB.
        cache: folder of the cache; None for one in `crystens.processes.cache_folder.cache_folder()`.
        engine: kind of workers, one of `crystens.processes.engines.ENGINES`.

    Raises:
        CrystensError: if an option is out of range.
    """

    workers: int = 1
    time_limit: float
    memory_limit: float
    cache: str | Path | None = None
    engine: str = PROCESSES

    def __post_init__(self) -> None:
        """Check the options."""
        if self.workers < 0:
            raise CrystensError(f"workers must be at least 0, got {self.workers}")
        if not self.time_limit > 0:
            raise CrystensError(f"time_limit must be above 0 seconds, got {self.time_limit}")
        if not self.memory_limit > 0:
            raise CrystensError(f"memory_limit must be above 0 GiB, got {self.memory_limit}")
        check_engine(self.engine, self.workers)

    @property
    def limits(self) -> tuple[float, float]:
        """Limits of time and memory for one crystal, seconds and GiB."""
        return (self.time_limit, self.memory_limit) if self.workers else (math.inf, math.inf)


@dataclass(frozen=True)
class Work(Generic[R]):
    """Computation of the result of one crystal.

    Attributes:
        module: module that workers import first.
        begin: initialises a worker, with `arguments`; it must not raise, because the worker would be restarted forever.
        arguments: arguments of `begin`.
        compute: function of a crystal and `more` that returns its result in a worker; defined at top level.
        more: further arguments of `compute`.
        here: function of a crystal that returns its result in this process.
        failed: returns the result of a crystal that broke its worker, from a reason such as "takes too long: more than
            60 s" and the seconds since the crystal was given to the worker.
    """

    module: str
    begin: Callable[..., Any]
    compute: Callable[..., R]
    here: Callable[[Crystal], R]
    failed: Callable[[str, float], R]
    arguments: tuple[Any, ...] = ()
    more: tuple[Any, ...] = ()


def computed_once(
    crystals: Sequence[Crystal],
    keys: Sequence[str],
    cache: ResultCache[R],
    options: ComputeOptions,
    work: Work[R],
    progress: Callable[[int], None] | None = None,
) -> list[R]:
    """Return a result of each crystal, in order; results that the cache lacks are computed.

    A failure is tried again only with wider limits. A failure that a busy machine may have caused is not cached.

    Args:
        crystals: any crystals, however bad.
        keys: key of each crystal; crystals with equal keys share a result.
        cache: the cache.
        options: workers and limits.
        work: the computation.
        progress: called with the number of finished crystals.
    """
    limits = options.limits
    done = {key: known for key in set(keys) if (known := cache.get(key, limits)) is not None}
    waiting = {key: crystal for key, crystal in zip(keys, crystals, strict=True) if key not in done}
    ready = sum(key in done for key in keys)
    if progress is not None:
        progress(ready)
    times = Counter(keys)
    for key, result, lasting in _computed(waiting, options, work):
        if lasting:
            cache.put(key, result, limits)
        done[key] = result
        ready += times[key]
        if progress is not None:
            progress(ready)
    return [done[key] for key in keys]


def _computed(waiting: dict[str, Crystal], options: ComputeOptions, work: Work[R]) -> Iterator[tuple[str, R, bool]]:
    """Yield the result of each crystal as soon as it is ready, and whether it is deterministic, so may be cached."""
    if not waiting:
        return
    if options.workers == 0:
        with _one_thread():
            for key, crystal in waiting.items():
                yield key, work.here(crystal), True
        return
    tasks = ((key, (crystal, *work.more)) for key, crystal in waiting.items())
    processes = min(options.workers, len(waiting))
    limits = options.time_limit, options.memory_limit
    with open_pool(options.engine, processes, *limits, [work.module], work.begin, work.arguments) as pool:
        for key, found in pool.results(tasks, work.compute):
            if isinstance(found, Broken):
                yield key, work.failed(found.reason, found.seconds), found.lasting
            else:
                yield key, found, True


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread, as a worker does, and without warnings; several threads are slower on small cells."""
    import torch  # here, so that workers without a network start without it

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(threads)
