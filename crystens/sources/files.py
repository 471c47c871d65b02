"""Finding files: a single file, a folder searched to any depth, or archives, also nested ones.

Archives are .tar, .tar.gz, .tgz, .tar.bz2, .tar.xz and .zip. Their members are read in memory, one at a time, and never
written to disk, so that a member's name cannot point to another folder. Folders are read in the order of sorted paths.
Links to folders are followed, and each folder is read once. Archives are read in their own order. Files of other kinds,
by their names, and stores of crystens are skipped.

Input is not trusted: sizes are checked before memory is allocated, pipes and devices are not opened, and an archive
that unpacks to far more than any text would is abandoned. Each of these becomes a `Reject`.
"""

from __future__ import annotations

import io
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO

from crystens.sources.record import Record, Reject, Unusable

MAX_BYTES = 64 * 2**20  # the largest file that is parsed, after decompression
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ARCHIVE_SUFFIXES = (*TAR_SUFFIXES, ".zip")

_USUAL_BYTES = 2**16  # most files are smaller
_MAX_DEPTH = 3  # levels of archives in archives
_MAX_INNER_BYTES = 512 * 2**20  # the largest archive inside of an archive; it is unpacked in memory
# Deflate packs 1032 to 1 at best and CIFs 5 to 30 to 1. Archives are given up once they unpack to more than this many
# times their size, but not before the first bytes that do no harm.
_MAX_RATIO = 500
_HARMLESS_BYTES = 2**30
_LONGEST_NAME = 4096  # letters of the name of a member; the longest path that a file has on a disk

# Exceptions of reading a damaged archive. tarfile and zipfile do not check the numbers in headers before use, hence the
# errors of the second line. RuntimeError: encrypted; NotImplementedError, its subclass: unknown compression.
ARCHIVE_DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError),
    *(ValueError, TypeError, ArithmeticError, LookupError, struct.error, RuntimeError),
)

_STORE = {"crystals.arrow", "manifest.json", "rejected.csv"}  # files of a store

Wanted = Callable[[str], bool]


def find_files(root: Path, wanted: Wanted) -> tuple[dict[str, str | Path], list[Reject]]:
    """Return wanted files and archives, by sorted names relative to `root`, and rejects of unreadable folders.

    Args:
        root: a folder, or a single file.
        wanted: whether to read a file of this name.
    """
    if not root.is_dir():
        return {root.name: root}, []
    found: dict[str, str | Path] = {}  # str, because creating 50,000 Paths takes half a second
    rejects: list[Reject] = []
    folders: list[tuple[Path, str]]
    links: list[tuple[Path, str]]
    folders, links = [(root, "")], []  # links are followed last, so that a folder is known by its own name if possible
    seen: set[tuple[int, int]] = set()
    while folders or links:
        folder, name = (folders or links).pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue  # a link to a folder that was read already, or a loop of links
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listed:
                items = list(listed)
                if {item.name for item in items} >= _STORE:
                    continue  # made by `python -m crystens.data ingest`, not given by the user
                for item in items:
                    if _is_folder(item):
                        (links if item.is_symlink() else folders).append((Path(item.path), f"{name}{item.name}/"))
                    elif wanted(item.name) or is_archive(item.name):
                        found[name + item.name] = item.path
        except OSError as error:
            reason = f"cannot read the folder: {error.strerror}"
            rejects.append(Reject(name or str(root), "", reason, "check its permissions"))
        links.sort(reverse=True)  # which of two links names a folder must not depend on the order on disk
    return dict(sorted(found.items())), sorted(rejects, key=lambda reject: reject.file)


def file_records(root: Path, wanted: Wanted) -> Iterator[Record | Reject]:
    """Yield a record for each wanted file below a folder and in its archives; `root` may also be a file or archive.

    The content of a record is the path of a file, which the parsing process reads by `read_bytes`, or the bytes of a
    member of an archive.
    """
    found, rejects = find_files(root, wanted)
    yield from rejects
    for name, path in found.items():
        if not is_archive(name):
            yield Record(name, "", path)
            continue
        try:
            with open_regular(path) as file:
                yield from _members(file, name, wanted, 1, os.fstat(file.fileno()).st_size)
        except Unusable as error:
            yield Reject(name, "", error.reason, error.advice)
        except ARCHIVE_DAMAGE as error:
            yield _damaged(name, error)


def read_bytes(content: str | Path | bytes) -> bytes:
    """Return the bytes of a record of `file_records`, at most one byte more than `MAX_BYTES`.

    Raises:
        Unusable: if the file cannot be read, or is not a regular one.
    """
    if isinstance(content, bytes):
        return content
    try:
        with open_regular(content) as file:
            return _read(file)
    except OSError as error:
        reason = f"cannot read the file: {error.strerror or error}"
        raise Unusable(reason, "check its permissions, or fetch it again") from error


def _read(file: IO[bytes]) -> bytes:
    """Return the bytes of a file, at most one byte more than `MAX_BYTES`.

    In two steps, because `read` allocates the requested number of bytes before it reads.
    """
    content = file.read(_USUAL_BYTES)
    return content if len(content) < _USUAL_BYTES else content + file.read(MAX_BYTES + 1 - _USUAL_BYTES)


def open_regular(path: str | Path) -> BinaryIO:
    """Return a regular file opened for reading; never blocks.

    Raises:
        Unusable: if it is a pipe, a device or a broken link.
        OSError: if it cannot be opened.
    """
    special = Unusable("not a regular file: a device, a pipe or a broken link", "give a regular file")
    try:
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        if os.path.islink(path):
            raise special from None
        raise Unusable("file not found: it vanished while the source was read", "read the source again") from None
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise special
    return os.fdopen(number, "rb")


def unpacked(content: bytes) -> bytes:
    """Return bytes, unpacked if they are gzipped, of at most `MAX_BYTES`.

    Raises:
        Unusable: if there are more, or the compression is damaged.
    """
    if content.startswith(b"\x1f\x8b"):
        unpacker = zlib.decompressobj(wbits=31)
        try:
            content = unpacker.decompress(content, MAX_BYTES + 1)
        except zlib.error as error:
            raise Unusable(f"damaged gzip file: {error}", "fetch or compress the file again") from error
        if len(content) <= MAX_BYTES and not unpacker.eof:
            raise Unusable("damaged gzip file: it ends too early", "fetch or compress the file again")
    if len(content) > MAX_BYTES:
        raise Unusable(f"file too large: above {MAX_BYTES // 2**20} MiB of text", "split the file")
    return content


def is_archive(name: str) -> bool:
    """Return whether a file of this name is an archive."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


def _is_folder(item: os.DirEntry[str]) -> bool:
    """Return whether an item is a folder or a link to one; a loop of links is neither."""
    try:
        return item.is_dir()
    except OSError:
        return False


def _members(file: BinaryIO, name: str, wanted: Wanted, depth: int, size: int) -> Iterator[Record | Reject]:
    """Yield the wanted members of an archive of `size` bytes, and those of the archives in it."""
    members = _zip_members if name.lower().endswith(".zip") else _tar_members
    for member, content in members(file, name, wanted, size):
        if len(member) > _LONGEST_NAME:
            reason = f"name of an archive member too long: {len(member)} letters"
            yield Reject(f"{member[:200]}...", "", reason, "pack it under a shorter name")
        elif isinstance(content, Reject):
            yield content
        elif not is_archive(member):
            yield Record(member, "", content)
        elif depth == _MAX_DEPTH:
            yield Reject(member, "", f"archives nested too deep: more than {_MAX_DEPTH}", "unpack the outer archives")
        else:
            try:
                yield from _members(io.BytesIO(content), member, wanted, depth + 1, len(content))
            except Unusable as error:
                yield Reject(member, "", error.reason, error.advice)
            except ARCHIVE_DAMAGE as error:
                yield _damaged(member, error)


def _tar_members(file: BinaryIO, name: str, wanted: Wanted, size: int) -> Iterator[tuple[str, bytes | Reject]]:
    """Yield the names of the wanted members of a tar archive, each with its bytes or its reject."""
    with tarfile.open(fileobj=file, mode="r|*") as archive:
        for member in archive:
            _check_bomb(member.offset_data + member.size, size)
            if not (wanted(member.name) or is_archive(member.name)):
                continue
            inner = f"{name}/{member.name}"
            content = archive.extractfile(member) if member.isfile() else None
            if content is None:
                if not member.isdir():
                    reason = "not a regular file: a link or device"
                    yield inner, Reject(inner, "", reason, "pack the file itself")
            else:
                yield inner, _bounded(content, inner, member.size)


def _zip_members(file: BinaryIO, name: str, wanted: Wanted, size: int) -> Iterator[tuple[str, bytes | Reject]]:
    """Yield the names of the wanted members of a zip archive, each with its bytes or its reject."""
    total = 0
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if member.is_dir() or not (wanted(member.filename) or is_archive(member.filename)):
                continue
            inner = f"{name}/{member.filename}"
            try:
                with archive.open(member) as content:
                    yielded = _bounded(content, inner, member.file_size)
            except ARCHIVE_DAMAGE as error:
                reason = f"cannot read the archive member: {_told(error)}"
                yielded = Reject(inner, "", reason, "pack the file again, unencrypted")
            total += len(yielded) if isinstance(yielded, bytes) else 0
            _check_bomb(total, size)
            yield inner, yielded


def _bounded(content: IO[bytes], name: str, size: int) -> bytes | Reject:
    """Return the bytes of a member, at most one more than `MAX_BYTES`, or the reject of a too large inner archive."""
    if not is_archive(name):
        return _read(content)
    read: bytes = b"" if size > _MAX_INNER_BYTES else content.read(_MAX_INNER_BYTES + 1)
    if max(size, len(read)) > _MAX_INNER_BYTES:
        reason = f"archive in an archive too large: above {_MAX_INNER_BYTES // 2**20} MiB"
        return Reject(name, "", reason, "unpack the outer archive")
    return read


def _check_bomb(unpacked_bytes: int, packed_bytes: int) -> None:
    """Raise `Unusable` if an archive has unpacked to more than an archive of texts could."""
    if unpacked_bytes > max(_HARMLESS_BYTES, _MAX_RATIO * packed_bytes):
        raise Unusable(
            f"archive unpacks to too much: {unpacked_bytes / 2**30:.1f} GiB and more from "
            f"{packed_bytes / 2**20:.1f} MiB",
            "an archive of crystals does not do this; if this one is sound, unpack it and give the folder",
        )


def _damaged(name: str, error: BaseException) -> Reject:
    """Return the reject of an archive that cannot be read completely."""
    return Reject(name, "", f"cannot read the archive: {_told(error)}", "check its permissions, or fetch it again")


def _told(error: BaseException) -> str:
    """Return the message of an error as one printable line of bounded length, because it may quote the archive."""
    text = str(error)[:200] or type(error).__name__
    return text if text.isprintable() else repr(text)[1:-1]
