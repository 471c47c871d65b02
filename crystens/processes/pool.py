"""Processes that do one task at a time, each killed and replaced when its task takes too long or too much memory.

Time is that of the processor, so that a busy machine changes no result. A process may also be ended by something that
its task is not to blame for, such as the system when memory is short. So a task whose process ended is given out once
more, and broke down if that one ends too.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, TimeoutError, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, TypeVar

import pebble

from crystens.errors import CrystensError
from crystens.processes.cores import usable_cores
from crystens.processes.start_method import process_context

log = logging.getLogger(__name__)

Result = TypeVar("Result")

_HAS_TIMER = hasattr(signal, "setitimer")  # not on Windows, where a time limit is one of the clock
_PATIENCE = 10 if _HAS_TIMER else 1  # time limits by the clock after which a task stands still
_AHEAD = 4  # tasks a process that are given out: enough for none to wait, few enough that a kill loses little


@dataclass(frozen=True)
class Broken:
    """What stands in the place of a result.

    Attributes:
        reason: such as "takes too long: more than 60 s".
        seconds: since the task was given to the processes, the last time.
        lasting: whether the task itself is known to be the reason, so that another try would end the same way.
    """

    reason: str
    seconds: float
    lasting: bool = False


class GuardedPool:
    """Processes of one thread each.

    Args:
        workers: how many; no more are started than there are cores.
        time_limit: longest processor time for one task, seconds; one that takes ten times that by the clock is ended
            too.
        memory_limit: most memory that a task may take beyond what the process holds at its start, GiB.
        module: name of the module that the processes import first.
        begin: called in each process first, with `arguments`. What it raises would start it again for ever.
        arguments: for `begin`.
    """

    def __init__(
        self,
        workers: int,
        time_limit: float,
        memory_limit: float,
        module: str,
        begin: Callable[..., Any],
        arguments: tuple[Any, ...] = (),
    ) -> None:
        self._workers = min(workers, usable_cores())
        self._time_limit = time_limit
        self._pool = pebble.ProcessPool(
            self._workers,
            context=process_context(module),
            initializer=_begin,
            initargs=(memory_limit, begin, arguments),
        )

    def __enter__(self) -> GuardedPool:
        """Return itself; the processes start with the first task."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for the processes to end, or end them if something went wrong."""
        end(self._pool, failed=kind is not None)

    def results(
        self, tasks: Mapping[str, tuple[Any, ...]], function: Callable[..., Result]
    ) -> Iterator[tuple[str, Result | Broken]]:
        """Yield the result of each task, with its key, as it is ready.

        Args:
            tasks: arguments of `function`, by key.
            function: of the top level of a module; what it raises is raised here.

        Raises:
            CrystensError: if something else ended all processes.
        """
        running: dict[Future, _Given] = {}

        def give(key: str, arguments: tuple[Any, ...], again: bool) -> None:
            limited = self._time_limit, function, arguments
            future = self._pool.schedule(_limited, limited, timeout=_PATIENCE * self._time_limit)
            running[future] = _Given(key, arguments, again, time.perf_counter())

        def ready() -> Iterator[tuple[str, Any]]:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task = running.pop(future)
                try:
                    yield task.key, future.result()
                except TimeoutError:
                    yield task.key, task.broken(f"stands still: no result after {_PATIENCE * self._time_limit:g} s")
                except BrokenProcessPool as error:
                    raise CrystensError(
                        f"all processes were ended from outside ({error}); what is done is kept, run the same again"
                    ) from error
                except pebble.ProcessExpired as error:
                    if _HAS_TIMER and error.exitcode == -signal.SIGPROF:
                        yield task.key, task.broken(f"takes too long: more than {self._time_limit:g} s", lasting=True)
                    elif task.again:
                        yield task.key, task.broken(f"broke down: its process ended with status {error.exitcode}")
                    else:
                        give(task.key, task.arguments, again=True)

        for key, arguments in tasks.items():
            give(key, arguments, again=False)
            while len(running) > _AHEAD * self._workers:
                yield from ready()
        while running:
            yield from ready()


@dataclass(frozen=True)
class _Given:
    """A task that was given to the processes, for the second time or not, at a time in seconds."""

    key: str
    arguments: tuple[Any, ...]
    again: bool
    started: float

    def broken(self, reason: str, lasting: bool = False) -> Broken:
        """Return what stands in the place of its result."""
        return Broken(reason, time.perf_counter() - self.started, lasting)


def _limited(seconds: float, function: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
    """Return what a function returns; a signal ends this process when it has computed for so many seconds."""
    if not _HAS_TIMER or not math.isfinite(seconds):
        return function(*arguments)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        return function(*arguments)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def end(pool: pebble.ProcessPool, failed: bool) -> None:
    """Wait for the processes of a pool to end, or end them if something failed."""
    if failed:
        pool.stop()
    else:
        pool.close()
    pool.join()


def bound_memory(memory: float) -> None:
    """Let a task of this process that asks for more memory, GiB, fail by itself, before the machine does."""
    try:
        import resource

        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + int(memory * 2**30), resource.RLIM_INFINITY))
    except (ImportError, OSError, ValueError):
        log.debug("no bound on memory here", exc_info=True)


def _begin(memory: float, begin: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Make a worker process ready."""
    from threadpoolctl import threadpool_limits

    threading.Thread(target=_end_with_parent, daemon=True).start()
    threadpool_limits(1)
    warnings.simplefilter("ignore")
    begin(*arguments)
    bound_memory(memory)


def _end_with_parent() -> None:
    """End this process when the run that started it is gone: nobody is left to end it when its time is over."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
