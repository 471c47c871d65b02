"""An existing store (`python -m crystens.data ingest`) as a source: nothing is parsed again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crystens.ingest.store import MANIFEST, CrystalStore
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Record, Reject
from crystens.sources.source import Source, existing

_EXPECTED = f"the folder of a store: with {MANIFEST}, or with its shards"


class StoredCrystals(Source):
    """Source of the crystals of a store, in their stored form.

    Args:
        path: the folder; None if the user gave none, which reading reports.
    """

    gives_properties = True

    def __init__(self, path: str | Path | None) -> None:
        """Keep the path; nothing is opened yet."""
        self.path = path

    def __str__(self) -> str:
        """Return the name of the source, for messages."""
        return f"store {self.path}"

    def store(self) -> CrystalStore:
        """Return the store.

        Raises:
            CrystensError: if there is no store, or a shard is missing.
        """
        return CrystalStore.open(existing(self.path, _EXPECTED))

    def columns(self) -> list[str]:
        """Return the names of the properties in the store."""
        return list(self.store().property_names)

    def records(self) -> Iterator[Record | Reject]:
        """Yield the crystals and the rejects of the store."""
        store = self.store()
        names = store.property_names if self.properties is None else self.properties
        columns = (store.column(name) for name in ("file", "entry", "split"))
        values = store.properties(names).tolist()
        for crystal, file, entry, split, row in zip(store, *columns, values, strict=True):
            yield Record(file, entry, crystal, split, dict(zip(names, row, strict=True)))
        yield from store.rejects()

    def parse(self, record: Record, limits: Limits) -> list[Entry]:
        """Return the crystal, checked again."""
        crystal = record.content
        checked = limits.crystal(crystal.lengths, crystal.angles, crystal.numbers, crystal.coordinates)
        return [Entry(record.file, record.entry, checked, record.split, properties=record.fields)]


def is_store(path: Path) -> bool:
    """Return whether a folder holds a store or shards of one."""
    return (path / MANIFEST).is_file() or any(path.glob(f"*-of-*/{MANIFEST}"))
