"""Engines for the tasks of a command: processes of this machine, or workers on a Ray cluster."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from crystens.errors import CrystensError
from crystens.processes.pool import GuardedPool, TaskPool
from crystens.processes.ray_cluster import ray_cluster
from crystens.processes.ray_pool import RayPool

PROCESSES, RAY = "processes", "ray"
ENGINES = (PROCESSES, RAY)


def open_pool(
    engine: str,
    workers: int,
    time_limit: float,
    memory_limit: float,
    modules: Sequence[str],
    begin: Callable[..., Any] | None = None,
    arguments: tuple[Any, ...] = (),
) -> TaskPool:
    """Return a pool of an engine, one of `ENGINES`; the other arguments are those of `GuardedPool`."""
    kind = RayPool if check_engine(engine, workers) == RAY else GuardedPool
    return kind(workers, time_limit, memory_limit, modules, begin, arguments)


def check_engine(engine: str, workers: int) -> str:
    """Return the engine, after a check that it is known and has enough workers.

    Raises:
        CrystensError: if it is not known, or is Ray without a worker.
    """
    if engine not in ENGINES:
        raise CrystensError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if engine == RAY and workers < 1:
        raise CrystensError(f"Ray needs at least 1 worker, got workers={workers}")
    return engine


@contextmanager
def engine_running(engine: str) -> Iterator[None]:
    """Context that stays connected to Ray, if that is the engine, so that the stages of a command share it."""
    if engine != RAY:
        yield
        return
    with ray_cluster():
        yield


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add the option --engine to a command."""
    told = "processes of this machine, or Ray, at RAY_ADDRESS or on this machine (pip install 'crystens[ray]')"
    parser.add_argument("--engine", choices=ENGINES, default=PROCESSES, help=told)
