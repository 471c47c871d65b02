"""A data set of three tables, train, val and test, in one folder, whose rows keep their split."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path

from crystens.errors import CrystensError
from crystens.formats.csv_table import CSV_SUFFIXES, CsvTable
from crystens.sources.limits import Limits
from crystens.sources.record import SPLITS, Entry, Record, Reject
from crystens.sources.source import Source, existing


class SplitTables(Source):
    """Source: three tables, whose rows are read by `crystens.formats.csv_table`.

    Args:
        path: the folder they are in; None where `tables` fetches them.
    """

    gives_properties = True

    def __init__(self, path: str | Path | None) -> None:
        """Keep the path; nothing is opened yet."""
        self.path = path

    @abstractmethod
    def tables(self) -> dict[str, Path]:
        """Return the table of each split.

        Raises:
            CrystensError: if one of them is not there, or cannot be fetched.
        """

    def contents(self) -> dict[str, str | Path]:
        """Return the three tables, see `Source.contents`."""
        return {path.name: path for path in self.tables().values()}

    def columns(self) -> list[str] | None:
        """Return the columns that at least one of the tables has beside the crystal and its name."""
        found = [CsvTable(path).columns() for path in self.tables().values()]
        return None if None in found else list(dict.fromkeys(name for names in found for name in names or ()))

    def records(self) -> Iterator[Record | Reject]:
        """Yield the rows of the three tables.

        Raises:
            CrystensError: if one of the tables is not there, or cannot be fetched.
        """
        for split, path in self.tables().items():
            yield from CsvTable(path, split).keeping(self.properties).records()

    def parse(self, record: Record, limits: Limits) -> Iterator[Entry | Reject]:
        """Yield what the CIF text of one row holds."""
        return CsvTable(self.path).keeping(self.properties).parse(record, limits)


def tables_in(path: str | Path | None, expected: str) -> dict[str, Path]:
    """Return the table of each split in a folder, `train.csv` or `train.csv.gz` and so on.

    Args:
        path: the folder; None if the user gave none.
        expected: what should be there, for the message.

    Raises:
        CrystensError: if one of the tables is not there.
    """
    folder = existing(path, expected)
    tables = {}
    for split in SPLITS:
        found = [folder / f"{split}{suffix}" for suffix in CSV_SUFFIXES if (folder / f"{split}{suffix}").is_file()]
        if not found:
            raise CrystensError(f"no {split}.csv or {split}.csv.gz in {folder}; give {expected}")
        tables[split] = found[0]
    return tables
