"""Ingest on Ray: the shards of a store as tasks of a cluster, or of this machine where there is none.

Each shard is one task that calls `crystens.ingest.ingest.ingest_shard` and takes as many CPUs as it has worker
processes. A task whose process or machine dies, or that fails, is run again by Ray and goes on where it stopped; a
shard that is done returns at once. All paths must mean the same on every machine: absolute, on a file system that they
share.

Which cluster that is: `crystens.processes.ray_cluster`.
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

_RETRIES = 3  # of a task, after the first try
_MOST_NAMED = 5  # failed shards that an error names


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
        source: what to read; its files must be there on every machine of the cluster.
        limits: what is usable, and in which form it is kept.
        options: how to read. The number of workers is that of one shard, "auto" the cores of this machine.
        out: folder of the store, on a file system that all machines share.
        shards: number of shards, at least 1.
        progress: called with the number of shards that have ended, after each.

    Raises:
        CrystensError: if Ray is not installed or cannot be reached, a task needs more CPUs than any machine has, the
            source cannot be read, or shards failed for good, which ends after all others are done.
    """
    if shards < 1:
        raise CrystensError(f"shards must be at least 1, got {shards}")
    if source.contents() is None:
        raise CrystensError(f"{source} cannot tell what its contents depend on, and cannot be split into shards")
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
            "mend the cause and give the same command again"
        )
    return [done[shard] for shard in range(shards)]


def _check_cpus(ray: Any, cpus: int) -> None:
    """Raise a CrystensError if a task would wait for ever, because no machine has so many CPUs."""
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
