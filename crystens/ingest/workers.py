"""Parsing of records in worker processes, each record with limits of time and memory.

This module imports only modules that a worker needs, so that workers start quickly.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Iterable, Iterator, Sequence

from crystens.processes.pool import Broken, GuardedPool
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Record, Reject
from crystens.sources.source import Source, formed

WORKER_MEMORY = 4.0  # GiB: memory limit of parsing, beyond that of a fresh worker


def parse(source: Source, limits: Limits, chunk: Sequence[Record | Reject]) -> list[Entry | Reject]:
    """Return the entries and rejects of a chunk.

    Symmetry is searched after all records are parsed. Alternating between the two takes an eighth longer, because they
    displace each other from the processor's caches.
    """
    unformed = limits.unformed()
    items: list[Entry | Reject] = []
    for record in chunk:
        items += [record] if isinstance(record, Reject) else source.parsed(record, unformed)
    return [formed(item, limits) if isinstance(item, Entry) else item for item in items]


def parsed_in_processes(
    source: Source,
    limits: Limits,
    chunks: Iterable[tuple[int, Sequence[Record | Reject]]],
    workers: int,
    time_limit: float,
) -> Iterator[tuple[int, list[Entry | Reject]]]:
    """Yield the number and the items of each chunk as soon as it is ready.

    Args:
        source: the source of the records.
        limits: bounds on usable crystals.
        chunks: number and records of each chunk.
        workers: number of processes.
        time_limit: limit of processor time for one record, seconds.
    """
    modules = (__name__, type(source).__module__)
    of_script = b"__main__" in pickle.dumps((source, limits))  # true for a source defined in a user's script
    with GuardedPool(workers, time_limit, WORKER_MEMORY, modules, of_script=of_script) as pool:
        for number, parts in pool.chunked(chunks, functools.partial(parse, source, limits)):
            items: list[Entry | Reject] = []
            for records, found in parts:
                items += [_reject(records[0], found)] if isinstance(found, Broken) else found
            yield number, items


def _reject(record: Record | Reject, broken: Broken) -> Reject:
    """Return the reject of a record that took too long or ended its process."""
    broke_down = broken.reason.startswith("broke down")
    advice = "report the file if it is sound" if broke_down else "look at the file, or raise data.ingest.time_limit"
    return Reject(record.file, record.entry, f"reading {broken.reason}", advice)
