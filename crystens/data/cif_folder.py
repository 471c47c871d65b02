"""CIF files: one, a folder of them searched to any depth, or an archive.

Read are .cif and .cif.gz, in folders, in .tar, .tar.gz, .tgz, .tar.bz2, .tar.xz and .zip, and such archives inside a
folder. Files with other names are passed over. Members of archives are read in memory, one at a time, and never
written to disk, so that their names cannot lead anywhere. Folders are read in the order of their sorted paths,
archives in their own order. Links to folders are not followed.
"""

from __future__ import annotations

import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from crystens.data.cif import MAX_BYTES, read_cif
from crystens.data.entries import Entry, Reject
from crystens.data.limits import Limits
from crystens.data.sources import existing
from crystens.errors import CrystensError

CIF_SUFFIXES = (".cif", ".cif.gz")
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ARCHIVE_SUFFIXES = (*TAR_SUFFIXES, ".zip")
_EXPECTED = "a folder of .cif or .cif.gz files, one such file, or a .tar.gz or .zip archive of them"
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError)


class CifFolder:
    """Source: the CIF files at a path.

    Args:
        path: folder, archive or file; None if the user gave none, which `read` reports.
    """

    def __init__(self, path: str | Path | None) -> None:
        """Keep the path; nothing is opened before `read`."""
        self.path = path

    def __str__(self) -> str:
        """Return what is read, for messages."""
        return f"CIF files of {self.path}"

    def read(self, limits: Limits) -> Iterator[Entry | Reject]:
        """Yield the data blocks of all files.

        Raises:
            CrystensError: if the path does not exist or there is no CIF file in it.
        """
        path = existing(self.path, _EXPECTED)
        if path.is_file() and not path.name.lower().endswith((*CIF_SUFFIXES, *ARCHIVE_SUFFIXES)):
            raise CrystensError(f"{path} is neither a CIF file nor an archive of them; give {_EXPECTED}")
        empty = True
        for item in self._folder(path, limits) if path.is_dir() else self._file(path, path.name, limits):
            empty = False
            yield item
        if empty:
            raise CrystensError(f"no CIF file in {path}; give {_EXPECTED}")

    def _folder(self, folder: Path, limits: Limits) -> Iterator[Entry | Reject]:
        """Yield what the files of a folder hold."""
        unreadable: list[OSError] = []
        found: list[Path] = []
        for parent, _, names in os.walk(folder, onerror=unreadable.append):
            found += [Path(parent, name) for name in names if name.lower().endswith((*CIF_SUFFIXES, *ARCHIVE_SUFFIXES))]
        for error in unreadable:
            yield Reject(str(error.filename), "", f"cannot read the folder: {error.strerror}", "check its permissions")
        for path in sorted(found):
            yield from self._file(path, path.relative_to(folder).as_posix(), limits)

    def _file(self, path: Path, name: str, limits: Limits) -> Iterator[Entry | Reject]:
        """Yield what a CIF file or an archive holds; `name` is what to call it."""
        if not path.is_file():
            yield Reject(name, "", "not a regular file: a device, a pipe or a broken link", "give a regular file")
            return
        lower = path.name.lower()
        try:
            if lower.endswith(TAR_SUFFIXES):
                yield from _tar(path, name, limits)
            elif lower.endswith(".zip"):
                yield from _zip(path, name, limits)
            else:
                with path.open("rb") as file:
                    yield from read_cif(file.read(MAX_BYTES + 1), name, limits)
        except _DAMAGE as error:
            kind = "archive" if lower.endswith(ARCHIVE_SUFFIXES) else "file"
            yield Reject(name, "", f"cannot read the {kind}: {error}", "check its permissions, or fetch it again")


def _tar(path: Path, name: str, limits: Limits) -> Iterator[Entry | Reject]:
    """Yield what the members of a tar archive hold."""
    with tarfile.open(path, "r|*") as archive:
        for member in archive:
            if not member.name.lower().endswith(CIF_SUFFIXES):
                continue
            content = archive.extractfile(member) if member.isfile() else None
            if content is None:
                yield Reject(
                    f"{name}/{member.name}", "", "not a regular file: a link or device", "pack the file itself"
                )
            else:
                yield from read_cif(content.read(MAX_BYTES + 1), f"{name}/{member.name}", limits)


def _zip(path: Path, name: str, limits: Limits) -> Iterator[Entry | Reject]:
    """Yield what the members of a zip archive hold."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.filename.lower().endswith(CIF_SUFFIXES):
                continue
            file = f"{name}/{member.filename}"
            try:
                with archive.open(member) as content:
                    text = content.read(MAX_BYTES + 1)
            except (*_DAMAGE, RuntimeError, NotImplementedError) as error:
                # RuntimeError: encrypted; NotImplementedError: an unknown compression.
                yield Reject(file, "", f"cannot read the archive member: {error}", "pack the file again, unencrypted")
                continue
            yield from read_cif(text, file, limits)
