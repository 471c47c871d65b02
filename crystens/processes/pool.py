"""Processes that do one task at a time, each killed and replaced when its task takes too long or too much memory.

All processes of a command are these: reading, matching, energies, fingerprints and properties share one policy.

- Time is that of the processor, so that a busy machine changes no result. A task that takes ten times its limit by the
  clock is ended too.
- Memory is bounded, so that a task that asks for more fails before the machine does.
- A process may also be ended by something that its task is not to blame for, such as the system when memory is short.
  So a task whose process ended is given out once more, and broke down if that one ends too.
- Small tasks go out in chunks (`GuardedPool.chunked`). A chunk that broke is done again item by item, so that the item
  at fault stands alone.
- Processes are started by a server that forks, where there is one, otherwise anew. They do not import the script that
  runs, unless a task is defined in it: one without `if __name__ == "__main__"` would start itself again in each.
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

_HAS_TIMER = hasattr(signal, "setitimer")  # not on Windows, where a time limit is one of the clock
_PATIENCE = 10 if _HAS_TIMER else 1  # time limits by the clock after which a task stands still
_AHEAD = 4  # tasks a process that are given out: enough for none to wait, few enough that a kill loses little


@dataclass(frozen=True)
class Broken:
    """Takes the place of a result.

    Attributes:
        reason: such as "takes too long: more than 60 s".
        seconds: since the task was given to the processes, the last time.
        lasting: whether the task itself is known to be the reason, so that another try would end the same way.
    """

    reason: str
    seconds: float
    lasting: bool = False


class ProcessesEnded(CrystensError):
    """Told where all processes were ended by something that no task is known to be the reason of."""


class TaskPool(ABC):
    """Something that does tasks, each under limits in time and memory."""

    @abstractmethod
    def __enter__(self) -> Self:
        """Return itself."""

    @abstractmethod
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Wait for what was started to end, or end it if something went wrong."""

    @abstractmethod
    def results(
        self, tasks: Iterable[tuple[Key, tuple[Any, ...]]], function: Callable[..., Result], once: bool = False
    ) -> Iterator[tuple[Key, Result | Broken]]:
        """Yield the result of each task, with its key, as it is ready.

        Args:
            tasks: key of each task and arguments of `function`; few are taken ahead of the results.
            function: of the top level of a module; what it raises is raised here.
            once: do not give out a task again whose process ended, as for a chunk, which is done again by its items.

        Raises:
            ProcessesEnded: if something else ended all processes.
        """

    def chunked(
        self, chunks: Iterable[tuple[Key, Sequence[Item]]], function: Callable[[Sequence[Item]], Result]
    ) -> Iterator[tuple[Key, list[tuple[Sequence[Item], Result | Broken]]]]:
        """Yield what becomes of each chunk of items, with its key, as it is ready.

        The time limit is that of one item. Sound items take far less, so that a chunk of them ends within it as well.

        Args:
            chunks: key of each chunk, and its items.
            function: as in `results`, called with the items of a chunk.

        Returns:
            For each chunk the items and their result: one pair for the whole chunk, or one an item if the chunk broke.
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
        workers: how many; no more are started than there are cores.
        time_limit: longest processor time for one task, seconds; one that takes ten times that by the clock is ended
            too.
        memory_limit: most memory that a task may take beyond what the process holds at its start, GiB.
        modules: names of the modules that the processes import first.
        begin: called in each process first, with `arguments`. An exception in it would start it again for ever.
        arguments: for `begin`.
        of_script: whether tasks are of the script that runs, which processes then import.
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
        """Return itself; the processes start with the first task."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Wait for the processes to end, or end them if something went wrong."""
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
    """Raise a TimeoutError in what computes longer in this process, where signals can do that.

    This is for the main thread, on Unix. The time is that of the processor, as in the processes. Of the limit of a task
    and one inside it the shorter holds. A library that swallows the first error meets a second one.
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
    """A task that was given to the processes, the last time or not, at a time in seconds."""

    key: Key
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


def bound_memory(memory: float) -> None:
    """Let a task of this process that asks for more memory, GiB, fail by itself, before the machine does."""
    try:
        import resource

        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + int(memory * 2**30), resource.RLIM_INFINITY))
    except (ImportError, OSError, ValueError):
        log.debug("no bound on memory here", exc_info=True)


def _context(preload: Sequence[str]) -> BaseContext:
    """Return the context that starts processes. Not by fork: a fork copies the locks of threads (torch's) closed.

    Python tells each new process its own default start method. In a worker of joblib, such as a job of a sweep, this is
    "loky", which only a process that has imported joblib knows. There it is replaced by a method of Python's own.

    Args:
        preload: modules that the server of forks imports once.
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
    """Return a context whose processes do not import the script that runs."""
    alone = copy.copy(context)
    alone.Process = _ProcessAlone  # type: ignore[attr-defined]
    return alone


_Process: Any = getattr(multiprocessing.context, "ForkServerProcess", multiprocessing.context.SpawnProcess)
_starting = threading.Lock()


class _ProcessAlone(_Process):
    """A process that does not import the script that runs."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        """Start it while the script has neither a name nor a file, which is all that a new process is told of it."""
        with _starting:
            script = sys.modules["__main__"]
            sys.modules["__main__"] = ModuleType("__main__")
            try:
                return _Process._Popen(process_obj)
            finally:
                sys.modules["__main__"] = script


def _begin(memory: float, begin: Callable[..., Any] | None, arguments: tuple[Any, ...]) -> None:
    """Make a worker process ready."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threadpool_limits(1)
    warnings.simplefilter("ignore")
    if begin is not None:
        begin(*arguments)
    bound_memory(memory)


def _end_with_parent() -> None:
    """End this process when the run that started it is gone: nobody is left to end it when its time is over."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
