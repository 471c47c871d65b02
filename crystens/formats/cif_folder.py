"""CIF files: one, a folder of them searched to any depth, or an archive; see `crystens.sources.files`.

Files named .cif and .cif.gz are read; other files are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crystens.cif.read import read_cif
from crystens.errors import CrystensError
from crystens.sources.files import ARCHIVE_SUFFIXES, file_records, find_files, is_archive, read_bytes
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Record, Reject
from crystens.sources.source import Source, existing

CIF_SUFFIXES = (".cif", ".cif.gz")
_EXPECTED = "a folder of .cif or .cif.gz files, one such file, or a .tar.gz or .zip archive of them"


class CifFolder(Source):
    """Source: the CIF files at a path.

    Args:
        path: folder, archive or file. None raises an error on reading.
    """

    def __init__(self, path: str | Path | None) -> None:
        """Keep the path; nothing is opened yet."""
        self.path = path

    def __str__(self) -> str:
        """Return what is read, for messages."""
        return f"CIF files of {self.path}"

    def contents(self) -> dict[str, str | Path]:
        """Return the CIF files and archives, see `Source.contents`."""
        return find_files(self._root(), _is_cif)[0]

    def expected(self) -> int | None:
        """Return the number of files; None if there are archives among them."""
        names = self.contents()
        return None if any(map(is_archive, names)) else len(names)

    def records(self) -> Iterator[Record | Reject]:
        """Yield a record for each CIF file.

        Raises:
            CrystensError: if the path does not exist or there is no CIF file in it.
        """
        path = self._root()
        empty = True
        for item in file_records(path, _is_cif):
            empty = False
            yield item
        if empty:
            raise CrystensError(f"no CIF file in {path}; give {_EXPECTED}")

    def parse(self, record: Record, limits: Limits) -> list[Entry | Reject]:
        """Return the data blocks of one file."""
        return read_cif(read_bytes(record.content), record.file, limits)

    def _root(self) -> Path:
        """Return the path, checked."""
        path = existing(self.path, _EXPECTED)
        if path.is_file() and not path.name.lower().endswith((*CIF_SUFFIXES, *ARCHIVE_SUFFIXES)):
            raise CrystensError(f"{path} is neither a CIF file nor an archive of them; give {_EXPECTED}")
        return path


def _is_cif(name: str) -> bool:
    """Return whether a file of this name is a CIF."""
    return name.lower().endswith(CIF_SUFFIXES)
