"""The contract of a source of crystals, and reading one to its end in this process.

A source does two things. `records` finds what is there, in an order that is the same each time, and costs little;
`parse` turns one record into crystals, and may run in another process, be given up after a time limit, or be skipped
because its result is stored already (`crystens.ingest.ingest`). One bad input never ends the reading. A fault of
the source as a whole (a path that does not exist, a table without the columns) is raised as a `CrystensError`.
"""

from __future__ import annotations

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from crystens.errors import CrystensError
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Record, Reject, Unusable, shown
from crystens.sources.rejects import count_categories, describe, write_rejected

log = logging.getLogger(__name__)


class Source(ABC):
    """Where crystals come from. Small, and able to travel to another process.

    Attributes:
        gives_properties: whether its records say more of a crystal than its atoms; such a source gives each `Entry` the
            properties that `crystens.sources.properties.kept` finds.
        properties: names of the properties that crystals keep, see `keeping`; None for all that there are.
    """

    gives_properties = False
    properties: tuple[str, ...] | None = ()

    @abstractmethod
    def records(self) -> Iterator[Record | Reject]:
        """Yield every input in a fixed order, and a reject for each that cannot even be opened.

        Raises:
            CrystensError: if the source as a whole cannot be read.
        """

    @abstractmethod
    def parse(self, record: Record, limits: Limits) -> Iterable[Entry | Reject]:
        """Return what one record holds; an input that is no use is a `Reject` or an `Unusable` that is raised.

        The result depends on the record, the limits and nothing else.
        """

    def contents(self) -> dict[str, str | Path] | None:
        """Return the files on whose names and bytes the records depend, by the name to report.

        None by default: the source has no files to hash, so that it is never cached.

        Raises:
            CrystensError: if the source as a whole cannot be read.
        """
        return None

    def variant(self) -> str:
        """Return what decides the records beside the files: options of the source, the version of a library."""
        return ""

    def columns(self) -> list[str] | None:
        """Return the names of all properties there can be, where they are known before reading; otherwise None."""
        return None

    def keeping(self, properties: Sequence[str] | None) -> Self:
        """Return this source with the properties that crystals keep.

        Args:
            properties: their names; None for every number that there is.

        Raises:
            CrystensError: if the source gives none, or they are no list of different names.
        """
        if properties is not None:
            # A single text is a sequence as well, of its letters.
            good = not isinstance(properties, str) and all(isinstance(name, str) and name for name in properties)
            if not good or len(set(properties)) < len(properties):
                raise CrystensError(
                    f"data.properties must be a list of different names, such as [band_gap], got {properties!r}"
                )
            if properties and not self.gives_properties:
                raise CrystensError(
                    f"data.properties=[{','.join(properties)}], but {self} gives nothing but crystals; properties come "
                    "with a table (csv), extended XYZ, an ASE database, JSON, a store or the Materials Project"
                )
        source = copy.copy(self)
        source.properties = None if properties is None else tuple(properties)
        return source

    def expected(self) -> int | None:
        """Return the number of records, for a progress bar, where it is known without reading."""
        return None

    def read(self, limits: Limits) -> Iterator[Entry | Reject]:
        """Yield every entry and every reject, in order, parsed in this process and without a limit in time."""
        for record in self.records():
            if isinstance(record, Reject):
                yield record
            else:
                yield from self.parsed(record, limits)

    def parsed(self, record: Record, limits: Limits) -> list[Entry | Reject]:
        """Return what one record holds, whatever goes wrong in parsing it.

        A defect of the parser, ours or a library's, costs its record and is told by its name; it does not cost the
        thousands of records beside it.
        """
        return _guarded(record.file, record.entry, lambda: self.parse(record, limits))


def formed(entry: Entry, limits: Limits) -> Entry | Reject:
    """Return an entry whose crystal is in the form that is asked for (`Limits.formed`), whatever goes wrong in that."""
    return _guarded(entry.file, entry.entry, lambda: [replace(entry, crystal=limits.formed(entry.crystal))])[0]


def _guarded(file: str, entry: str, work: Callable[[], Iterable[Entry | Reject]]) -> list[Entry | Reject]:
    """Return the results of some work, or a reject with what went wrong."""
    try:
        return list(work())
    except Unusable as error:
        return [Reject(file, entry, error.reason, error.advice)]
    except BaseException as error:
        # A panic inside of a library written in Rust arrives as a class that `except Exception` does not catch.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        log.debug("defect in reading %s %s", file, entry, exc_info=True)
        reason = f"the reader failed: {type(error).__name__}: {shown(str(error))}"
        return [Reject(file, entry, reason, "a defect of the reader: please report it with the file")]


def read_all(
    source: Source, limits: Limits, rejected_path: str | Path | None = None
) -> tuple[list[Entry], list[Reject]]:
    """Return all entries and all rejects of a source, and log one line that counts them.

    Args:
        source: what to read.
        limits: bounds on what is usable.
        rejected_path: where to write `rejected.csv`; None writes none.

    Raises:
        CrystensError: if there is nothing usable in the source. `rejected.csv` is written before.
    """
    entries: list[Entry] = []
    rejects: list[Reject] = []
    for item in source.read(limits):
        if isinstance(item, Entry):
            entries.append(item)
        else:
            rejects.append(item)
    where = "" if rejected_path is None else f"; see {write_rejected(rejects, rejected_path)}"
    if not entries:
        first = f"; the first: {rejects[0].file}: {rejects[0].reason}; {rejects[0].advice}" if rejects else ""
        raise CrystensError(f"nothing usable in {source}: {describe(0, dict(count_categories(rejects)))}{first}{where}")
    log.info("%s: %s%s", source, describe(len(entries), dict(count_categories(rejects))), where if rejects else "")
    return entries, rejects


def existing(path: str | Path | None, expected: str) -> Path:
    """Return a path that exists.

    Args:
        path: what the user gave, or None.
        expected: what should be there, for the message.

    Raises:
        CrystensError: if no path was given, or nothing is there.
    """
    if path is None:
        raise CrystensError(f"no path to the data: give data.path=PATH, {expected}")
    found = Path(path).expanduser()
    if not found.exists():
        raise CrystensError(f"{found.absolute()} does not exist; give {expected}")
    return found
