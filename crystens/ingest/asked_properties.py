"""Checks that requested properties exist: the error lists the available names, and no column is empty."""

from __future__ import annotations

from itertools import islice

from crystens.errors import CrystensError
from crystens.ingest.store import CrystalStore
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Record, shown
from crystens.sources.source import Source

_LOOKED_AT = 256  # records searched for names of numbers if there is no header
_LONGEST_LIST = 500  # letters in the list of names


def check_columns(source: Source) -> None:
    """Check the requested properties of a source against its columns, if these are known before reading.

    Raises:
        CrystensError: if it has no such column.
    """
    columns = source.columns() if source.properties else None
    missing = [name for name in source.properties or () if columns is not None and name not in columns]
    if missing:
        told = f"{source} has no column {', '.join(missing)} for data.properties"
        raise CrystensError(f"{told}; {_listed(columns or [])}")


def check_found(source: Source, store: CrystalStore) -> None:
    """Check that at least one crystal has each requested property.

    Raises:
        CrystensError: if no crystal has one of them.
    """
    missing = [name for name in source.properties or () if not store.has_values(name)]
    if not missing:
        return
    found = source.columns()
    if found is None:
        found = _numbers_in_first(source)
    raise CrystensError(f"no crystal of {source} has {', '.join(missing)} of data.properties; {_listed(found)}")


def _numbers_in_first(source: Source) -> list[str]:
    """Return the names of all numbers that the first records of a source give."""
    every = source.keeping(None)
    names: dict[str, None] = {}
    for record in islice(every.records(), _LOOKED_AT):
        if isinstance(record, Record):
            for item in every.parsed(record, Limits()):
                names |= dict.fromkeys(item.properties) if isinstance(item, Entry) else {}
    return list(names)


def _listed(names: list[str]) -> str:
    """Return the available names, for a message."""
    return f"there are: {shown(', '.join(names), _LONGEST_LIST)}" if names else "there is no other"
