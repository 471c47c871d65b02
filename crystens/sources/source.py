"""The interface of a source of crystals, and reading a source completely in this process.

A source has two tasks. `records` lists its inputs, quickly and always in the same order. `parse` turns one record into
crystals; it may run in another process, be stopped by a time limit, or be skipped because its result is stored
(`crystens.ingest.ingest`). One bad input never ends the reading. A fault of the whole source (a path that does not
exist, a table without the columns) is raised as a `CrystensError`.
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
    """Base class of sources. Instances are small and can be pickled.

    Attributes:
        gives_properties: whether its records have properties; such a source gives each `Entry` the result of
            `crystens.sources.properties.kept`.
        properties: names of the properties that crystals keep, see `keeping`; None for all.
    """

    gives_properties = False
    properties: tuple[str, ...] | None = ()

    @abstractmethod
    def records(self) -> Iterator[Record | Reject]:
        """Yield every input in a fixed order, and a reject for each input that cannot be opened.

        Raises:
            CrystensError: if the source as a whole cannot be read.
        """

    @abstractmethod
    def parse(self, record: Record, limits: Limits) -> Iterable[Entry | Reject]:
        """Return the entries of one record; for an unusable input return a `Reject` or raise `Unusable`.

        The result depends on the record and the limits only.
        """

    def contents(self) -> dict[str, str | Path] | None:
        """Return the files that the records depend on, by the name to report.

        Default None: the source has no files to hash, so that it is never cached.

        Raises:
            CrystensError: if the source as a whole cannot be read.
        """
        return None

    def variant(self) -> str:
        """Return what else the records depend on: options of the source, the version of a library."""
        return ""

    def columns(self) -> list[str] | None:
        """Return the names of all properties if they are known before reading; otherwise None."""
        return None

    def keeping(self, properties: Sequence[str] | None) -> Self:
        """Return this source with the properties that crystals keep.

        Args:
            properties: their names; None for all numbers.

        Raises:
            CrystensError: if the source gives no properties, or the names are no list of different names.
        """
        if properties is not None:
            # A str is a sequence too, of its letters.
            good = not isinstance(properties, str) and all(isinstance(name, str) and name for name in properties)
            if not good or len(set(properties)) < len(properties):
                raise CrystensError(
                    f"data.properties must be a list of different names, such as [band_gap], got {properties!r}"
                )
            if properties and not self.gives_properties:
                raise CrystensError(
                    f"data.properties=[{','.join(properties)}], but {self} has no properties; use a table (csv), "
                    "extended XYZ, an ASE database, JSON, a store or the Materials Project"
                )
        source = copy.copy(self)
        source.properties = None if properties is None else tuple(properties)
        return source

    def expected(self) -> int | None:
        """Return the number of records, for a progress bar, if it is known without reading."""
        return None

    def read(self, limits: Limits) -> Iterator[Entry | Reject]:
        """Yield every entry and every reject, in order, parsed in this process and without a limit in time."""
        for record in self.records():
            if isinstance(record, Reject):
                yield record
            else:
                yield from self.parsed(record, limits)

    def parsed(self, record: Record, limits: Limits) -> list[Entry | Reject]:
        """Return the entries of one record; never raises.

        Any exception in the parser rejects the record, with the exception's name as reason.
        """
        return _guarded(record.file, record.entry, lambda: self.parse(record, limits))


def formed(entry: Entry, limits: Limits) -> Entry | Reject:
    """Return an entry with its crystal in the requested form (`Limits.formed`), or a reject; never raises."""
    return _guarded(entry.file, entry.entry, lambda: [replace(entry, crystal=limits.formed(entry.crystal))])[0]


def _guarded(file: str, entry: str, work: Callable[[], Iterable[Entry | Reject]]) -> list[Entry | Reject]:
    """Return the results of `work`, or a reject with the error."""
    try:
        return list(work())
    except Unusable as error:
        return [Reject(file, entry, error.reason, error.advice)]
    except BaseException as error:
        # A panic in a Rust library arrives as a class that `except Exception` does not catch.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        log.debug("defect in reading %s %s", file, entry, exc_info=True)
        reason = f"the reader failed: {type(error).__name__}: {shown(str(error))}"
        return [Reject(file, entry, reason, "a defect of the reader: please report it with the file")]


def read_all(
    source: Source, limits: Limits, rejected_path: str | Path | None = None
) -> tuple[list[Entry], list[Reject]]:
    """Return all entries and rejects of a source, and log their numbers.

    Args:
        source: the source to read.
        limits: bounds on what is usable.
        rejected_path: path for `rejected.csv`; None writes no file.

    Raises:
        CrystensError: if the source has no usable entry; `rejected.csv` is written anyway.
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
        path: the path that the user gave, or None.
        expected: description of the expected path, for the message.

    Raises:
        CrystensError: if no path was given, or it does not exist.
    """
    if path is None:
        raise CrystensError(f"no path to the data: give data.path=PATH, {expected}")
    found = Path(path).expanduser()
    if not found.exists():
        raise CrystensError(f"{found.absolute()} does not exist; give {expected}")
    return found
