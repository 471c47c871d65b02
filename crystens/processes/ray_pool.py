"""The guarded pool on Ray: workers on the machines of a cluster.

A worker is an actor with one CPU and a `GuardedPool` of one process, so that limits and ended processes are handled as
on one machine. If an actor or its machine ends, a new actor replaces it. Its task is tried once more, and fails if the
second actor ends too.

Every machine needs crystens and the packages of the task, in the same versions.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from crystens.errors import CrystensError, first_line
from crystens.processes.pool import Broken, GuardedPool, Key, ProcessesEnded, Result, TaskPool
from crystens.processes.ray_cluster import ray_cluster

log = logging.getLogger(__name__)

_STARTS = 3  # workers in a row that may fail to start


class RayPool(TaskPool):
    """Workers of one process each on a cluster of Ray.

    Args:
        workers: number of workers, at most the CPUs of the cluster.
        time_limit: as for `GuardedPool`, like all further arguments.
        memory_limit: GiB.
        modules: names of the modules that the processes import first.
        begin: called in each process first.
        arguments: for `begin`.
    """

    def __init__(
        self,
        workers: int,
        time_limit: float,
        memory_limit: float,
        modules: Sequence[str],
        begin: Callable[..., Any] | None = None,
        arguments: tuple[Any, ...] = (),
    ) -> None:
        self._number = workers
        self._how = time_limit, memory_limit, tuple(modules), begin, arguments
        self._open = contextlib.ExitStack()
        self._workers: list[_Place] = []
        self._ended = 0

    def __enter__(self) -> Self:
        """Connect, and start the workers.

        Raises:
            CrystensError: if Ray is not installed or cannot be reached, or its workers cannot start.
        """
        self._ray = self._open.enter_context(ray_cluster())
        with contextlib.ExitStack() as failing:
            failing.callback(self._open.close)
            cpus = int(self._ray.cluster_resources().get("CPU", 0))
            if cpus < 1:
                raise CrystensError("no machine of the cluster of Ray has a CPU for a worker")
            self._actor = self._ray.remote(num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD")(_Worker)
            self._shared = self._ray.put(self._how)
            self._workers = [_Place(self._actor.remote(self._shared)) for _ in range(min(self._number, cpus))]
            failing.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the workers, and log the number of replaced workers."""
        for place in self._workers:
            self._ray.kill(place.worker)
        self._open.close()
        if self._ended:
            log.warning("%d workers of Ray ended and were replaced", self._ended)

    def results(
        self, tasks: Iterable[tuple[Key, tuple[Any, ...]]], function: Callable[..., Result], once: bool = False
    ) -> Iterator[tuple[Key, Result | Broken]]:
        """Yield the result of each task, see `TaskPool.results`.

        Raises:
            CrystensError: if a worker cannot start.
        """
        ray = self._ray
        waiting: dict[Any, _Waiting] = {}
        todo = ((key, arguments, once) for key, arguments in tasks)
        again: list[tuple[Key, tuple[Any, ...], bool]] = []
        failed_starts = 0

        def give(place: _Place) -> None:
            task = again.pop() if again else next(todo, None)
            if task is not None:
                reference = place.worker.run.remote(function, task[1], once)
                waiting[reference] = _Waiting(place, place.worker, task)

        def greet(place: _Place) -> None:
            waiting[place.worker.greet.remote()] = _Waiting(place, place.worker)

        for place in self._workers:
            greet(place)
        while waiting:
            (ready,), _ = ray.wait(list(waiting), num_returns=1)
            asked = waiting.pop(ready)
            place, task = asked.place, asked.task
            try:
                found = ray.get(ready)
            except ray.exceptions.RayError as error:
                cause = getattr(error, "cause", None)
                if isinstance(error, ray.exceptions.RayTaskError) and not isinstance(cause, ProcessesEnded):
                    raise (cause if isinstance(cause, Exception) else error) from None
                failed_starts += asked.worker is place.worker and not place.started
                if failed_starts == _STARTS:
                    raise CrystensError(
                        f"{_STARTS} workers of Ray in a row could not start: {first_line(error)}; install crystens on "
                        "every machine of the cluster"
                    ) from error
                self._replace(asked)
                if task is not None and not task[2]:
                    again.append((*task[:2], True))
                elif task is not None:
                    reason = f"broke down: its worker ended ({type(error).__name__})"
                    yield task[0], Broken(reason, time.perf_counter() - asked.since)
                greet(place)
                continue
            place.started, failed_starts = True, 0
            if task is not None:
                yield task[0], found
            give(place)

    def _replace(self, asked: _Waiting) -> None:
        """Replace a worker that ended, unless another lost call has already done so."""
        if asked.place.worker is asked.worker:
            self._ended += 1
            self._ray.kill(asked.worker)  # it may be alive but unreachable
            asked.place.worker, asked.place.started = self._actor.remote(self._shared), False


@dataclass
class _Place:
    """A place for a worker: the present worker, and whether it has answered."""

    worker: Any
    started: bool = False


class _Waiting:
    """A pending call of a worker: a task (key, arguments, whether it is the last try) or a greeting."""

    def __init__(self, place: _Place, worker: Any, task: tuple[Any, tuple[Any, ...], bool] | None = None) -> None:
        self.place, self.worker, self.task = place, worker, task
        self.since = time.perf_counter()


class _Worker:
    """An actor with a process for its tasks."""

    def __init__(self, how: tuple[Any, ...]) -> None:
        time_limit, memory_limit, modules, begin, arguments = how
        self._pool = GuardedPool(1, time_limit, memory_limit, modules, begin, arguments)

    def greet(self) -> None:
        """Return as soon as the actor is ready."""

    def run(self, function: Callable[..., Result], arguments: tuple[Any, ...], once: bool) -> Result | Broken:
        """Return the result of one task."""
        ((_, found),) = self._pool.results([(None, arguments)], function, once)
        return found
