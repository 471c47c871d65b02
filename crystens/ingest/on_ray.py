"""Ingest on Ray: the shards of a store as tasks of a cluster, or of this machine without a cluster.

Each shard is a task that calls `crystens.ingest.ingest.ingest_shard` and takes one CPU for each worker process. If a
task fails, or its process or machine dies, Ray runs it again and it resumes; a finished shard returns at once. All
paths must be absolute, on a file system that all machines share.

`crystens.processes.ray_cluster` chooses the cluster.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from crystens.errors import CrystensError, first_line
from crystens.ingest.ingest import IngestOptions, ingest_shard
from crystens.processes.ray_cluster import ray_cluster
from crystens.sources.limits import Limits
from crystens.sources.source import Source

log = logging.getLogger(__name__)

_RETRIES = 3  # further tries of a failed task
_MOST_NAMED = 5  # failed shards named in an error


def ingest_on_ray(
    source: Source,
    limits: Limits,
    options: IngestOptions,
    out: str | Path,
    shards: int,
    progress: Callable[[int], None] | None = None,
) -> list[Path]:
    """Read a source into a store of `shards` shards, and return their folders in order.

    Args:
        source: the source; its files must be readable on every machine of the cluster.
        limits: bounds on usable crystals, and their form.
        options: options of reading; `workers` is the number for one shard, "auto" the cores of this machine.
        out: folder of the store, on a file system that all machines share.
        shards: number of shards, at least 1.
        progress: called after each shard with the number of finished shards.

    Raises:
        CrystensError: if Ray is not installed or cannot be reached, a task needs more CPUs than any machine has, the
            source cannot be read, or shards failed in all tries; the other shards are finished first.
    """
    if shards < 1:
        raise CrystensError(f"shards must be at least 1, got {shards}")
    if source.contents() is None:
        raise CrystensError(f"{source} has no files to identify its contents by, and cannot be split into shards")
    options = replace(options, workers=options.num_workers)
    cpus = max(options.num_workers, 1)
    done: dict[int, Path] = {}
    failed: dict[int, str] = {}
    with ray_cluster() as ray:
        _check_cpus(ray, cpus)
        task = ray.remote(num_cpus=cpus, max_retries=_RETRIES, retry_exceptions=True, scheduling_strategy="SPREAD")(
            ingest_shard
        )
        what = [ray.put(item) for item in (source, limits, options)]
        waiting = {task.remote(*what, Path(out).absolute(), shard, shards): shard for shard in range(shards)}
        while waiting:
            (ended,), _ = ray.wait(list(waiting), num_returns=1, fetch_local=False)
            shard = waiting.pop(ended)
            try:
                done[shard] = ray.get(ended)
            except ray.exceptions.RayError as error:
                failed[shard] = _cause(error)
                log.warning("shard %d of %d failed: %s", shard, shards, failed[shard])
            if progress is not None:
                progress(len(done) + len(failed))
    if failed:
        named = "; ".join(f"shard {shard}: {failed[shard]}" for shard in sorted(failed)[:_MOST_NAMED])
        more = "; ..." if len(failed) > _MOST_NAMED else ""
        raise CrystensError(
            f"{len(failed)} of {shards} shards failed, each {_RETRIES + 1} times: {named}{more}; the others are done: "
            "remove the cause and run the same command again"
        )
    return [done[shard] for shard in range(shards)]


def _check_cpus(ray: Any, cpus: int) -> None:
    """Raise a CrystensError if no machine has enough CPUs: the task would wait forever."""
    most = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
    if cpus > most:
        raise CrystensError(
            f"a shard of {cpus} workers needs {cpus} CPUs of one machine, and the largest of the cluster has {most:g}; "
            "lower data.ingest.workers (--workers)"
        )


def _cause(error: Exception) -> str:
    """Return why a task failed, in one line."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, CrystensError):
        return str(cause)
    if isinstance(cause, BaseException):
        return f"{type(cause).__name__}: {first_line(cause)}"
    return f"{type(error).__name__}: {first_line(error)}"
