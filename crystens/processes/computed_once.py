"""Results of many crystals, each computed only once, by whichever run: what energies, fingerprints, properties share.

A process is killed when its crystal takes too long, and dies when it takes too much memory; that costs the crystal
alone. Nothing is dropped: there is one result a crystal, or the reason why there is none.
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
    """How a result of each crystal is computed.

    Attributes:
        workers: processes, one thread each; several do different crystals at once, which on a CPU gains more than a
            batch would. 0 computes in this process, without a limit in time or memory.
        time_limit: longest processor time for one crystal, seconds.
        memory_limit: most memory that one crystal may take, GiB.
        cache: folder of what was computed; None for one in `crystens.processes.cache_folder.cache_folder()`.
        engine: what the workers are, one of `crystens.processes.engines.ENGINES`.

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
        """Time and memory that one crystal may take, seconds and GiB."""
        return (self.time_limit, self.memory_limit) if self.workers else (math.inf, math.inf)


@dataclass(frozen=True)
class Work(Generic[R]):
    """How the result of one crystal is computed.

    Attributes:
        module: that the processes import first.
        begin: called in each process first, with `arguments`; what it raises would start the process again for ever.
        arguments: for `begin`.
        compute: returns the result of a crystal in a process, called with the crystal and `more`; of the top level.
        more: for `compute`.
        here: returns the result of a crystal in the process that asks.
        failed: returns the result of a crystal that broke its process, of a reason such as "takes too long: more than
            60 s" and the seconds since the crystal was given to the process.
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
    """Return a result of each crystal, in order, computing those that the cache lacks.

    A failure is tried again only where the limits are wider than those it met. A failure that a busy
    machine may have caused is not kept.

    Args:
        crystals: any crystals, however bad.
        keys: of each; equal ones have one result.
        cache: where results are looked up and kept.
        options: processes and limits.
        work: how a result is computed.
        progress: called with the number of crystals that are done.
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
    """Yield the result of each crystal as it is ready, and whether it is deterministic, so that it may be kept."""
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
    """Compute on one thread, as a worker does: more take seven times as long on small cells. Keep warnings away."""
    import torch  # not at import time: a worker that asks no network starts without it

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(threads)
