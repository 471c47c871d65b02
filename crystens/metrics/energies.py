"""Energies of many crystals, computed in processes, one crystal at a time, and each only once.

A process is killed when its crystal takes too long, and dies when it takes too much memory; that costs the crystal
alone. Nothing is dropped: `energies` returns one `Energy` a crystal.
"""

from __future__ import annotations

import contextlib
import logging
import math
import multiprocessing
import os
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, TimeoutError, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pebble
import torch

from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.metrics.energy import Energy, Relaxation, judged
from crystens.metrics.energy_cache import EnergyCache, cache_file, digest_of
from crystens.metrics.potentials import Potential
from crystens.start_method import process_context

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EnergyOptions:
    """How energies are computed.

    Attributes:
        relaxation: how crystals are relaxed first; None takes them as they stand.
        workers: processes, one thread each; several do different crystals at once, which on a CPU gains more than a
            batch would. 0 computes in this process, without a limit in time or memory.
        time_limit: longest time for one crystal, seconds.
        memory_limit: most memory that one crystal may take, GiB.
        cache: folder of what was computed; None for `energies` in `crystens.data.download.cache_folder()`.

    Raises:
        CrystensError: if an option is out of range.
    """

    relaxation: Relaxation | None = None
    workers: int = 1
    time_limit: float = 120.0
    memory_limit: float = 6.0
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


def energies(
    crystals: Sequence[Crystal],
    potential: Potential,
    options: EnergyOptions | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Energy]:
    """Return an energy of each crystal, in order; what was computed before, by whichever run, is not computed again.

    A failure is tried again only where the limits are wider than those it met.

    Args:
        crystals: any crystals, however bad.
        potential: what gives the energies.
        options: how they are computed.
        progress: called with the number of crystals that are done.

    Raises:
        CrystensError: if the potential cannot be loaded.
    """
    options = options or EnergyOptions()
    cache = EnergyCache(cache_file(potential, options.cache))
    keys = [digest_of(crystal, options.relaxation) for crystal in crystals]
    done = {key: known for key in set(keys) if (known := cache.get(key, options.limits)) is not None}
    waiting = {key: crystal for key, crystal in zip(keys, crystals, strict=True) if key not in done}
    ready = sum(key in done for key in keys)
    if progress is not None:
        progress(ready)
    times = Counter(keys)
    for key, energy in _computed(waiting, potential, options):
        cache.put(key, energy, options.limits)
        done[key] = energy
        ready += times[key]
        if progress is not None:
            progress(ready)
    return [done[key] for key in keys]


def _computed(
    waiting: dict[str, Crystal], potential: Potential, options: EnergyOptions
) -> Iterator[tuple[str, Energy]]:
    """Yield the energy of each crystal as it is ready."""
    if not waiting:
        return
    if options.workers == 0:
        with _one_thread():
            for key, crystal in waiting.items():
                yield key, judged(crystal, potential, options.relaxation)
        return
    with _Workers(potential, options) as workers:
        running: dict[Future, tuple[str, float]] = {}
        for key, crystal in waiting.items():
            running[workers.start(crystal)] = key, time.perf_counter()
            # Enough for no worker to wait, few enough that a kill loses little.
            while len(running) > 2 * options.workers:
                yield from _ready(running, workers)
        while running:
            yield from _ready(running, workers)


def _ready(running: dict[Future, tuple[str, float]], workers: _Workers) -> Iterator[tuple[str, Energy]]:
    """Wait for crystals of those that are running, take them out and yield their energies."""
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        key, started = running.pop(future)
        yield key, workers.finish(future, started)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: more take seven times as long on small cells. Keep warnings of the potential away."""
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(threads)


class _Workers:
    """Processes that judge one crystal at a time, each killed and replaced when it takes too long."""

    def __init__(self, potential: Potential, options: EnergyOptions) -> None:
        self._options = options
        self._pool = pebble.ProcessPool(
            options.workers,
            context=process_context(__name__),
            initializer=_begin,
            initargs=(potential, options.memory_limit),
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
        """Begin to judge a crystal."""
        return self._pool.schedule(_work, (crystal, self._options.relaxation), timeout=self._options.time_limit)

    def finish(self, future: Future, started: float) -> Energy:
        """Return the energy of a crystal, however its process ended."""
        try:
            return future.result()
        except TimeoutError:
            reason = f"the potential takes too long: more than {self._options.time_limit:g} s"
        except pebble.ProcessExpired as error:
            reason = f"the potential broke down: its process ended with status {error.exitcode}"
        return Energy(None, reason, time.perf_counter() - started)


# What a worker process has: its potential, and why that could not be loaded.
_own: dict[str, Any] = {}


def _begin(potential: Potential, memory: float) -> None:
    """Load the potential of a worker process."""
    from threadpoolctl import threadpool_limits

    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _own["threads"] = threadpool_limits(1)
    warnings.simplefilter("ignore")
    os.chdir(tempfile.gettempdir())  # CHGNet writes bond_graph_error.cif to where it stands
    _own["potential"] = potential
    try:
        potential.calculator()
    except Exception as error:
        # An initializer that raises would be started again for ever; `_work` tells.
        _own["broken"] = f"{potential.identity} cannot be loaded: {type(error).__name__}: {error}; install it anew"
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


def _work(crystal: Crystal, relaxation: Relaxation | None) -> Energy:
    """Return the energy of a crystal, in a worker process."""
    if "broken" in _own:
        raise CrystensError(_own["broken"])
    return judged(crystal, _own["potential"], relaxation)
