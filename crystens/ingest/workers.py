"""Records parsed in processes, each under a limit in time and memory.

The module imports only the modules that such a process needs, so that it starts quickly.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Iterable, Iterator, Sequence

from crystens.processes.pool import Broken, GuardedPool
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Record, Reject
from crystens.sources.source import Source, formed

WORKER_MEMORY = 4.0  # GiB that parsing may take beyond what a fresh worker has


def parse(source: Source, limits: Limits, chunk: Sequence[Record | Reject]) -> list[Entry | Reject]:
    """Return what the records of a chunk hold.

    Their symmetry is looked for when all are parsed: parsing and searching by turns, each would find the processor's
    caches full of the other, which takes an eighth longer.
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
    """Yield the number of each chunk and what it holds, as it is ready.

    Args:
        source: whose records are parsed.
        limits: what is usable.
        chunks: number of each chunk, and its records.
        workers: number of processes.
        time_limit: longest processor time for one record, seconds.
    """
    modules = (__name__, type(source).__module__)
    of_script = b"__main__" in pickle.dumps((source, limits))  # such as a source that a user's script defines
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
