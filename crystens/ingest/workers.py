"""Processes that parse records, each under a limit in time and memory.

Inputs go to the processes in chunks. A chunk that takes longer than one input may, or in which a process dies, is
parsed again with each of its inputs in a task of its own, so that the one at fault is set aside by itself. What is
imported here is what such a process needs; it starts the sooner for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, TimeoutError

import pebble

from crystens.processes.pool import bound_memory, end
from crystens.processes.start_method import process_context
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Record, Reject
from crystens.sources.source import Source

WORKER_MEMORY = 4.0  # GiB that parsing may take beyond what a fresh worker has


def parse(source: Source, limits: Limits, chunk: Sequence[Record | Reject]) -> list[Entry | Reject]:
    """Return what the records of a chunk hold."""
    items: list[Entry | Reject] = []
    for record in chunk:
        items += [record] if isinstance(record, Reject) else source.parsed(record, limits)
    return items


class Workers:
    """Processes that parse chunks, each killed and replaced when it takes too long.

    Args:
        source: whose records are parsed.
        limits: what is usable.
        count: number of processes.
        time_limit: longest time for one input, seconds.
    """

    def __init__(self, source: Source, limits: Limits, count: int, time_limit: float) -> None:
        self._source = source
        self._limits = limits
        self._time_limit = time_limit
        context = process_context(__name__, type(source).__module__)
        self._pool = pebble.ProcessPool(count, context=context, initializer=bound_memory, initargs=(WORKER_MEMORY,))

    def __enter__(self) -> Workers:
        """Return itself; the processes start with the first chunk."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for the processes to end, or end them if something went wrong."""
        end(self._pool, failed=kind is not None)

    def start(self, chunk: list[Record | Reject]) -> Future:
        """Begin to parse a chunk."""
        # A chunk of sound inputs takes far less than the limit of one; one that takes longer is looked at in `finish`.
        return self._pool.schedule(parse, (self._source, self._limits, chunk), timeout=self._time_limit)

    def finish(self, chunk: list[Record | Reject], future: Future) -> list[Entry | Reject]:
        """Return what a chunk holds, however its process ended."""
        try:
            return future.result()
        except (TimeoutError, pebble.ProcessExpired):
            alone = [(record, self.start([record])) for record in chunk]
            return [item for record, parsing in alone for item in self._finish_alone(record, parsing)]

    def _finish_alone(self, record: Record | Reject, future: Future) -> list[Entry | Reject]:
        """Return what one record holds, or the reject of one that took too long or killed its process."""
        try:
            return future.result()
        except TimeoutError:
            reason = f"reading takes too long: more than {self._time_limit:g} s"
            return [Reject(record.file, record.entry, reason, "look at the file, or raise data.ingest.time_limit")]
        except pebble.ProcessExpired as error:
            reason = f"reading broke down: its process ended with status {error.exitcode}"
            return [Reject(record.file, record.entry, reason, "look at the file; report it if it is sound")]
