"""A data set of three tables with splits, train, val and test, in one folder."""

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
        path: the folder of the tables; None if `tables` downloads them.
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
        """Return the columns of any of the tables, except the crystal and its name."""
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
        """Yield the entries of the CIF text of one row."""
        return CsvTable(self.path).keeping(self.properties).parse(record, limits)


def tables_in(path: str | Path | None, expected: str) -> dict[str, Path]:
    """Return the table of each split in a folder, `train.csv` or `train.csv.gz` and so on.

    Args:
        path: the folder; None if the user gave none.
        expected: description of the expected folder, for the message.

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
