"""Tables with a crystal in each row: a CSV file, plain or gzipped, as CDVAE and LeMat-GenBench have them.

The crystal is the first non-empty cell in the columns `cif`, `cif_string`, `structure` and `LeMatStructs`: the text of
a CIF, or a structure as a JSON object (`crystens.formats.structure_objects`). A row is named by its first non-empty
column of `IDS`, always as text. Requested other columns become properties (`crystens.sources.properties`); the rest is
ignored.

Source: Xie et al., Crystal Diffusion Variational Autoencoder for Periodic Material Generation, 2022 (arXiv:2110.06197),
and the folder `data` of its public repository; `scripts/run_benchmarks.py` of github.com/LeMaterial/lemat-genbench.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from crystens.errors import CrystensError
from crystens.formats.structure_objects import read_text
from crystens.sources.files import MAX_BYTES
from crystens.sources.limits import Limits
from crystens.sources.properties import kept
from crystens.sources.record import Entry, Record, Reject, shown
from crystens.sources.source import Source, existing

CSV_SUFFIXES = (".csv", ".csv.gz")
_LONGEST_NAME = 200
IDS = ("material_id", "immutable_id", "jid", "id")
_CRYSTALS = ("cif", "cif_string", "structure", "LeMatStructs")
_EXPECTED = "a .csv or .csv.gz file with the columns material_id and cif (or cif_string, or structure)"


class CsvTable(Source):
    """Source: one table.

    Args:
        path: the file; None if the user gave none, which reading reports.
        split: the split that its rows belong to, if that is known.
    """

    gives_properties = True

    def __init__(self, path: str | Path | None, split: str | None = None) -> None:
        """Keep the path; nothing is opened yet."""
        self.path = path
        self.split = split

    def __str__(self) -> str:
        """Return what is read, for messages."""
        return f"table {self.path}"

    def contents(self) -> dict[str, str | Path]:
        """Return the file, see `Source.contents`."""
        path = self._file()
        return {path.name: path}

    def variant(self) -> str:
        """Return the split, see `Source.variant`."""
        return self.split or ""

    def columns(self) -> list[str] | None:
        """Return the columns other than the crystal and its name; None if `records` would raise an error."""
        try:
            with _opened(self._file()) as text:
                names = next((row for row in csv.reader(_Lines(text)) if row), [])
        except (OSError, EOFError, zlib.error, csv.Error):
            return None
        return [name for name in names if name not in ("", *IDS, *_CRYSTALS)]

    def records(self) -> Iterator[Record | Reject]:
        """Yield each row; a row without an id is named by its number, counted from 1.

        Raises:
            CrystensError: if there is no such file or it has no column of crystals.
        """
        path = self._file()
        csv.field_size_limit(MAX_BYTES)
        number = 0
        try:
            with _opened(path) as text:
                # Not DictReader: it makes a dictionary of all columns for each row, and a table may have 100,000.
                lines = _Lines(text)
                rows = (row for row in csv.reader(lines) if row)
                columns = next(rows, [])
                if not set(columns) & set(_CRYSTALS):
                    found = shown(", ".join(columns), 200) or "none"
                    raise CrystensError(
                        f"{path} has no column cif, cif_string or structure (its columns: {found}); give {_EXPECTED}"
                    )
                places = {name: place for place, name in enumerate(columns)}
                waiting = None  # one row late, because only its end shows that a file is truncated
                for number, row in enumerate(rows, start=1):
                    if waiting is not None:
                        yield waiting
                    name = shown(_first(row, places, IDS), _LONGEST_NAME) or f"row {number}"
                    fields = {column: _first(row, places, (column,)) for column in self.properties or ()}
                    waiting = Record(path.name, name, _first(row, places, _CRYSTALS), self.split, fields)
                if waiting is not None and lines.quotes % 2:
                    reason = "table is truncated: it ends inside a quoted field"
                    yield Reject(path.name, waiting.entry, reason, "fetch the file again")
                elif waiting is not None:
                    yield waiting
        except (OSError, EOFError, zlib.error, csv.Error) as error:
            yield Reject(path.name, "", f"cannot read the table: {error} after row {number}", "fetch the file again")

    def parse(self, record: Record, limits: Limits) -> Iterator[Entry | Reject]:
        """Yield the crystals in the cell of one row."""
        properties = kept(record.fields, self.properties)
        for item in read_text(record.content, record.file, record.entry, limits):
            yield replace(item, split=record.split, properties=properties) if isinstance(item, Entry) else item

    def _file(self) -> Path:
        """Return the path, checked."""
        path = existing(self.path, _EXPECTED)
        if not path.is_file():
            raise CrystensError(f"{path} is not a file; give {_EXPECTED}")
        return path


def _first(row: list[str], places: Mapping[str, int], columns: tuple[str, ...]) -> str:
    """Return the first non-empty value of a row in some columns; empty if there is none."""
    found = (row[places[column]] for column in columns if places.get(column, len(row)) < len(row))
    return next((value for value in found if value), "")


class _Lines:
    """The lines of a table. The length of a line is bounded, so that no line fills the memory.

    Attributes:
        quotes: number of quotation marks so far; an odd number inside a quoted field.
    """

    def __init__(self, text: io.TextIOWrapper) -> None:
        self.quotes = 0
        self._text = text

    def __iter__(self) -> Iterator[str]:
        while line := self._text.readline(MAX_BYTES):
            if len(line) == MAX_BYTES and not line.endswith("\n"):
                raise csv.Error(f"line too long: above {MAX_BYTES // 2**20} MiB")
            self.quotes += line.count('"')
            yield line


def _opened(path: Path) -> io.TextIOWrapper:
    """Return the text of a table; a byte order mark is dropped, and bytes that are not UTF-8 are replaced."""
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    return io.TextIOWrapper(opener(path, "rb"), encoding="utf-8-sig", errors="replace", newline="")
