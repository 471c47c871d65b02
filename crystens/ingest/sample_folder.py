"""A folder of sample.py as a source: its crystals in their order, and its failed samples as rejects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crystens.ingest.generated import read_generated, read_table
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Record, Reject
from crystens.sources.source import Source


class SampleFolder(Source):
    """Source of samples, read by `crystens.ingest.generated.read_generated`.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | Path) -> None:
        """Keep the path; nothing is opened yet."""
        self.path = path

    def __str__(self) -> str:
        """Return the name of the source, for messages."""
        return f"samples in {self.path}"

    def merged(self) -> frozenset[int]:
        """Return the indices of samples in which decoding merged sites, which their CIFs cannot show."""
        rows = read_table(Path(self.path))
        return frozenset(place for place, row in enumerate(rows) if int(row.get("merged_sites") or 0) > 0)

    def table(self) -> list[dict[str, str]]:
        """Return the rows of its table, as text, in the order of the samples."""
        return read_table(Path(self.path))

    def records(self) -> Iterator[Record | Reject]:
        """Yield each sample.

        Raises:
            CrystensError: if the folder holds no sample, or its table names a missing CIF.
        """
        for item in read_generated(self.path):
            yield item if isinstance(item, Reject) else Record(item.file, item.entry, item)

    def parse(self, record: Record, limits: Limits) -> Iterator[Entry | Reject]:
        """Yield the entry, which has been read already."""
        yield record.content
