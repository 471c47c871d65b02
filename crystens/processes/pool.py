"""Pool of worker processes; a worker is killed and replaced if its task exceeds a limit of time or memory.

Reading, matching, energies, fingerprints and properties all use this pool.

- The time limit is processor time, so that a busy machine does not change results. Ten times the limit in wall time
  ends a task too.
- The address space of a worker is limited, so that a large task raises MemoryError instead of exhausting the machine.
- A worker may also be killed for other reasons, for example by the system when memory is short. Therefore a task whose
  worker ended is tried once more, and fails if the second worker ends too.
- Small tasks are sent in chunks (`GuardedPool.chunked`). A failed chunk is repeated item by item, so that only the
  faulty item fails.
- Workers are started by forkserver if available, otherwise by spawn. They do not import the running script, unless a
  task is defined in it: a script without `if __name__ == "__main__"` would start itself again in each worker.
"""

from __future__ import annotations

import copy
import logging
import math
import multiprocessing
import multiprocessing.context
import os
import signal
import sys
import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, TimeoutError, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from types import ModuleType, TracebackType
from typing import Any, Generic, Self, TypeVar

import pebble
from threadpoolctl import threadpool_limits

from crystens.errors import CrystensError
from crystens.processes.cores import usable_cores

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Key = TypeVar("Key")
Item = TypeVar("Item")

_HAS_TIMER = hasattr(signal, "setitimer")  # not on Windows, where the limit is wall time
_PATIENCE = 10 if _HAS_TIMER else 1  # limit of wall time, in time limits
_AHEAD = 4  # tasks sent ahead for each worker: none waits, and a kill loses few


@dataclass(frozen=True)
class Broken:
    """Result of a failed task.

    Attributes:
        reason: the reason, such as "takes too long: more than 60 s".
        seconds: seconds since the task was last given to a worker.
        lasting: whether the failure is known to be deterministic.
    """

    reason: str
    seconds: float
    lasting: bool = False


class ProcessesEnded(CrystensError):
    """All workers were ended from outside, for no reason in a known task."""


class TaskPool(ABC):
    """Interface of pools that run tasks with limits of time and memory."""

    @abstractmethod
    def __enter__(self) -> Self:
        """Return itself."""

    @abstractmethod
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Wait for workers to end, or kill them after an error."""

    @abstractmethod
    def results(
        self, tasks: Iterable[tuple[Key, tuple[Any, ...]]], function: Callable[..., Result], once: bool = False
    ) -> Iterator[tuple[Key, Result | Broken]]:
        """Yield the key and result of each task as soon as it is ready.

        Args:
            tasks: key and arguments of `function` for each task; only a few are consumed ahead of the results.
            function: function at the top level of a module; its exceptions are raised here.
            once: do not retry a task whose worker ended; used for chunks, which are repeated item by item.

        Raises:
            ProcessesEnded: if all workers were ended from outside.
        """

    def chunked(
        self, chunks: Iterable[tuple[Key, Sequence[Item]]], function: Callable[[Sequence[Item]], Result]
    ) -> Iterator[tuple[Key, list[tuple[Sequence[Item], Result | Broken]]]]:
        """Yield the key and results of each chunk of items as soon as they are ready.

        The time limit is that of one item. Normal items take far less, so that a chunk of them stays within it.

        Args:
            chunks: key and items of each chunk.
            function: as in `results`, called with the items of a chunk.

        Returns:
            For each chunk pairs of items and result: one pair for the whole chunk, or one for each item if it failed.
        """
        given: dict[Key, Sequence[Item]] = {}

        def tasks() -> Iterator[tuple[Key, tuple[Sequence[Item]]]]:
            for key, items in chunks:
                given[key] = items
                yield key, (items,)

        for key, found in self.results(tasks(), function, once=True):
            items = given.pop(key)
            if isinstance(found, Broken):
                alone = dict(self.results(((place, ([item],)) for place, item in enumerate(items)), function))
                yield key, [([item], alone[place]) for place, item in enumerate(items)]
            else:
                yield key, [(items, found)]


class GuardedPool(TaskPool):
    """Processes of one thread each.

    Args:
        workers: number of processes, at most the number of cores.
        time_limit: limit of processor time for one task, seconds; ten times that in wall time.
        memory_limit: limit of memory for a task, beyond that of the process at its start, GiB.
        modules: names of modules that workers import first.
        begin: initialises a worker, with `arguments`; it must not raise, because the worker would be restarted forever.
        arguments: arguments of `begin`.
        of_script: whether tasks are defined in the running script, which workers then import.
    """

    def __init__(
        self,
        workers: int,
        time_limit: float,
        memory_limit: float,
        modules: Sequence[str],
        begin: Callable[..., Any] | None = None,
        arguments: tuple[Any, ...] = (),
        of_script: bool = False,
    ) -> None:
        self._workers = min(workers, usable_cores())
        self._time_limit = time_limit
        self._pool = pebble.ProcessPool(
            self._workers,
            context=_context(modules) if of_script else _without_script(_context(modules)),
            initializer=_begin,
            initargs=(memory_limit, begin, arguments),
        )

    def __enter__(self) -> Self:
        """Return the pool; workers start with the first task."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Wait for workers to end, or kill them after an error."""
        if kind is None:
            self._pool.close()
        else:
            self._pool.stop()
        self._pool.join()

    def results(
        self, tasks: Iterable[tuple[Key, tuple[Any, ...]]], function: Callable[..., Result], once: bool = False
    ) -> Iterator[tuple[Key, Result | Broken]]:
        """Yield the result of each task, see `TaskPool.results`."""
        running: dict[Future, _Given[Key]] = {}

        def give(key: Key, arguments: tuple[Any, ...], again: bool) -> None:
            limited = self._time_limit, function, arguments
            future = self._pool.schedule(_limited, limited, timeout=_PATIENCE * self._time_limit)
            running[future] = _Given(key, arguments, again, time.perf_counter())

        def ready() -> Iterator[tuple[Key, Any]]:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task = running.pop(future)
                try:
                    yield task.key, future.result()
                except TimeoutError:
                    yield task.key, task.broken(f"stands still: no result after {_PATIENCE * self._time_limit:g} s")
                except BrokenProcessPool as error:
                    raise ProcessesEnded(
                        f"all processes were ended from outside ({error}); what is done is kept, run the same again"
                    ) from error
                except pebble.ProcessExpired as error:
                    if _HAS_TIMER and error.exitcode == -signal.SIGPROF:
                        yield task.key, task.broken(f"takes too long: more than {self._time_limit:g} s", lasting=True)
                    elif task.again:
                        yield task.key, task.broken(f"broke down: its process ended with status {error.exitcode}")
                    else:
                        give(task.key, task.arguments, again=True)

        for key, arguments in tasks:
            give(key, arguments, again=once)
            while len(running) > _AHEAD * self._workers:
                yield from ready()
        while running:
            yield from ready()


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Context that raises a TimeoutError after a time limit in this process, where signals allow it.

    It works in the main thread, on Unix, with processor time. Of nested limits the shorter one holds. The error is
    raised again if a library swallows it.
    """
    if not _HAS_TIMER or threading.current_thread() is not threading.main_thread():
        yield
        return
    left, _ = signal.getitimer(signal.ITIMER_PROF)
    if 0 < left <= seconds:
        yield
        return

    def give_up(number: int, frame: object) -> None:
        raise TimeoutError(f"given up after {seconds:g} s")

    begun = time.process_time()
    handler = signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
        if left > 0:
            signal.setitimer(signal.ITIMER_PROF, max(left - (time.process_time() - begun), 1e-6))


@dataclass(frozen=True)
class _Given(Generic[Key]):
    """A task given to a worker: its time in seconds, and whether it is the last try."""

    key: Key
    arguments: tuple[Any, ...]
    again: bool
    started: float

    def broken(self, reason: str, lasting: bool = False) -> Broken:
        """Return the failure of this task."""
        return Broken(reason, time.perf_counter() - self.started, lasting)


def _limited(seconds: float, function: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
    """Return the result of a function; a signal ends this process after a limit of processor time."""
    if not _HAS_TIMER or not math.isfinite(seconds):
        return function(*arguments)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        return function(*arguments)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def bound_memory(memory: float) -> None:
    """Cap this process's address space (GiB), so that one task raises MemoryError instead of exhausting the machine."""
    try:
        import resource

        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + int(memory * 2**30), resource.RLIM_INFINITY))
    except (ImportError, OSError, ValueError):
        log.debug("memory cannot be limited here", exc_info=True)


def _context(preload: Sequence[str]) -> BaseContext:
    """Return the context that starts processes; not fork, which copies locked locks of threads (torch's).

    Python passes its default start method to each new process. In joblib workers, such as jobs of a sweep, this is
    "loky", which is unknown without joblib. There we replace loky by forkserver or spawn.

    Args:
        preload: modules that the forkserver imports once.
    """
    known = multiprocessing.get_all_start_methods()
    method = "forkserver" if "forkserver" in known else "spawn"
    if multiprocessing.get_start_method(allow_none=True) not in (None, *known):
        multiprocessing.set_start_method(method, force=True)
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(list(preload))
    return context


def _without_script(context: BaseContext) -> BaseContext:
    """Return a context whose processes do not import the running script."""
    alone = copy.copy(context)
    alone.Process = _ProcessAlone  # type: ignore[attr-defined]
    return alone


_Process: Any = getattr(multiprocessing.context, "ForkServerProcess", multiprocessing.context.SpawnProcess)
_starting = threading.Lock()


class _ProcessAlone(_Process):
    """A process that does not import the running script."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        """Start the process while `__main__` has no name and no file, by which the new process would import it."""
        with _starting:
            script = sys.modules["__main__"]
            sys.modules["__main__"] = ModuleType("__main__")
            try:
                return _Process._Popen(process_obj)
            finally:
                sys.modules["__main__"] = script


def _begin(memory: float, begin: Callable[..., Any] | None, arguments: tuple[Any, ...]) -> None:
    """Initialise a worker process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threadpool_limits(1)
    warnings.simplefilter("ignore")
    if begin is not None:
        begin(*arguments)
    bound_memory(memory)


def _end_with_parent() -> None:
    """End this process when its parent has ended: nobody would enforce its time limit."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
