"""The contract of a source of crystals, and reading one to its end.

A source is any object with `read(limits)`, which yields an `Entry` for each crystal and a `Reject` for each input that
cannot be used, in an order that is the same each time. One bad input never ends the reading. What concerns the source
as a whole (a path that does not exist, a table without the columns) is raised as a `CrystensError`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from crystens.data.entries import Entry, Reject
from crystens.data.limits import Limits
from crystens.data.rejects import describe, write_rejected
from crystens.errors import CrystensError

log = logging.getLogger(__name__)


class Source(Protocol):
    """Where crystals come from."""

    def read(self, limits: Limits) -> Iterator[Entry | Reject]:
        """Yield every entry and every reject, in a fixed order."""
        ...


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
        raise CrystensError(f"nothing usable in {source}: {describe(0, rejects)}{first}{where}")
    log.info("%s: %s%s", source, describe(len(entries), rejects), where if rejects else "")
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
