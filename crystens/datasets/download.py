"""Download of public files into a cache folder, with verification.

A file is written to `NAME.part` and renamed once size and SHA-256 are verified. An interrupted download resumes from
the part; `NAME.part.etag` holds its version. A verified file needs no request. If several processes need a file, one
downloads it and the others wait (`.NAME.lock`).
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from crystens.errors import CrystensError, first_line
from crystens.processes.cache_folder import CACHE_VARIABLE
from crystens.processes.progress_bars import ProgressBars

log = logging.getLogger(__name__)

_BLOCK = 2**13  # bytes; the largest loss of an interrupted download
_LONGEST_WAIT = 60.0  # seconds between two attempts
_PASSING_STATUS = (408, 425, 429, 500, 502, 503, 504)
_WAYS_OUT = "check the network and start again"


@dataclass(frozen=True)
class RemoteFile:
    """A public file with its size and digest.

    Attributes:
        address: its address, http or https.
        name: its name in the cache folder.
        size: number of bytes.
        sha256: SHA-256 of the bytes, 64 hexadecimal digits.
    """

    address: str
    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Patience:
    """Limits of time of a download.

    Attributes:
        timeout: seconds without a byte after which a server counts as stalled.
        retries: number of further attempts.
        wait: seconds before the second attempt; doubled before each further attempt.
    """

    timeout: float = 30.0
    retries: int = 4
    wait: float = 1.0


def fetch(file: RemoteFile, folder: Path, patience: Patience | None = None, otherwise: str = "") -> Path:
    """Return the path of a file in a folder, downloaded unless it exists.

    Args:
        file: the file.
        folder: folder for the file; created if it does not exist.
        patience: limits of time.
        otherwise: alternative for the user, offered in error messages, such as "give data.path=DIR".

    Raises:
        CrystensError: if the file cannot be downloaded or written, or is not the expected file.
    """
    path = folder / file.name
    if _is_good(path, file):
        return path
    by_hand = f"put the file at {path.absolute()} by hand" + (f", or {otherwise}" if otherwise else "")
    # Takes a moment to import, and a cached file does not need it.
    from filelock import FileLock, Timeout

    with _written(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f".{file.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("waiting for another process that downloads %s", path)
            lock.acquire()
    try:
        if not _is_good(path, file):
            if path.exists():
                log.warning("%s is not the file of %s: downloading it again", path, file.address)
            _Download(file, path, patience or Patience(), by_hand).run()
    finally:
        lock.release()
    return path


class _Download:
    """One download, with several attempts."""

    def __init__(self, file: RemoteFile, path: Path, patience: Patience, by_hand: str) -> None:
        self.file = file
        self.path = path
        self.part = path.with_name(f"{path.name}.part")
        self.etag = path.with_name(f"{path.name}.part.etag")
        self.patience = patience
        self.by_hand = by_hand
        self.joined = False  # whether the part combines several responses

    def run(self) -> None:
        """Download, verify and rename.

        Raises:
            CrystensError: if that is not possible.
        """
        size = self.file.size
        log.info("fetching %s (%.1f MB) to %s", self.file.address, size / 1e6, self.path)
        with requests.Session() as session, _progress(self.path.name, size) as show:
            self._attempts(session, show)
            found = _sha256(self.part)
            if found != self.file.sha256 and self.joined:
                log.warning("the parts of %s do not fit together: downloading all of it again", self.part)
                self._forget()
                self._attempts(session, show)
                found = _sha256(self.part)
        if found != self.file.sha256:
            self._forget()
            raise self._wrong("SHA-256", self.file.sha256, found)
        with _written(self.path.parent):
            with self.part.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(self.part, self.path)
            self.etag.unlink(missing_ok=True)
        log.info("%s: %d bytes, SHA-256 as expected", self.path, size)

    def _attempts(self, session: requests.Session, show: Callable[[int], None]) -> None:
        """Download all bytes into the part, with several attempts."""
        for attempt in range(self.patience.retries + 1):
            try:
                self._attempt(session, show)
                return
            except (_PassingError, requests.RequestException) as error:
                if isinstance(error, ValueError):  # InvalidURL, MissingSchema, InvalidSchema
                    raise CrystensError(f"{self.file.address!r} is no address to fetch from: {error}") from error
                if attempt == self.patience.retries:
                    raise CrystensError(
                        f"cannot fetch {self.file.address}: {_cause(error)} ({attempt + 1} attempts); {_WAYS_OUT} "
                        f"(the download resumes), or {self.by_hand}"
                    ) from error
                asked = error.wait if isinstance(error, _PassingError) else 0.0
                wait = min(_LONGEST_WAIT, max(asked, self.patience.wait * 2**attempt))
                log.info("%s: %s; trying again in %g s", self.path.name, _cause(error), wait)
                time.sleep(wait)

    def _attempt(self, session: requests.Session, show: Callable[[int], None]) -> None:
        """Request the missing bytes, once.

        Raises:
            _PassingError: if another attempt may succeed.
            requests.RequestException: if the connection failed.
            CrystensError: if another attempt would fail too.
        """
        begun = self._begun()
        self.joined |= begun > 0
        if begun == self.file.size:
            return
        headers = {"Accept-Encoding": "identity"}  # ranges of a compressed response could not be combined
        if begun:
            headers["Range"] = f"bytes={begun}-"
            if etag := self._etag():
                headers["If-Range"] = etag
        with session.get(self.file.address, headers=headers, stream=True, timeout=self.patience.timeout) as response:
            if response.status_code == 416 or (response.status_code == 206 and _start(response) != begun):
                self._forget()
                raise _PassingError(f"the server does not continue at byte {begun}")
            if response.status_code in _PASSING_STATUS:
                raise _PassingError(f"status {response.status_code} {response.reason}", _asked_wait(response))
            if response.status_code not in (200, 206):
                raise CrystensError(
                    f"cannot fetch {self.file.address}: status {response.status_code} {response.reason}; check the "
                    f"address, or {self.by_hand}"
                )
            if response.status_code == 200:
                begun = 0
            self._check_stated_size(response, begun)
            self._write(response, begun, show)
        if (got := self._begun()) < self.file.size:
            raise _PassingError(f"the connection ended after {got} of {self.file.size} bytes")

    def _write(self, response: requests.Response, begun: int, show: Callable[[int], None]) -> None:
        """Append the bytes of a response to the first `begun` bytes."""
        got = begun
        with _written(self.part.parent):
            etag = response.headers.get("ETag", "")
            if not etag.startswith('"'):
                self.etag.unlink(missing_ok=True)  # none, or a weak one, which is not allowed with ranges
            elif begun == 0:
                self.part.write_bytes(b"")  # before the ETag, which must match the bytes of the part
                self.etag.write_text(etag, encoding="utf-8")
            # Closing writes the buffered rest, and may fail too.
            with self.part.open("ab" if begun else "wb") as file:
                show(got)
                for block in response.iter_content(_BLOCK):
                    got += len(block)
                    if got > self.file.size:
                        break
                    file.write(block)
                    file.flush()
                    show(got)
        if got > self.file.size:
            self._forget()
            raise self._wrong("size", f"{self.file.size} bytes", f"more than {self.file.size}")

    def _begun(self) -> int:
        """Return the number of bytes in the part; a part that is longer than the file is dropped."""
        try:
            size = self.part.stat().st_size
        except FileNotFoundError:
            return 0
        if size > self.file.size:
            self._forget()
            return 0
        return size

    def _etag(self) -> str:
        """Return the ETag of the part, or an empty text."""
        try:
            return self.etag.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def _forget(self) -> None:
        """Delete the part."""
        with _written(self.part.parent):
            self.etag.unlink(missing_ok=True)
            self.part.unlink(missing_ok=True)

    def _check_stated_size(self, response: requests.Response, begun: int) -> None:
        """Raise a CrystensError if the server announces an unexpected size, before its bytes are read."""
        stated = response.headers.get("Content-Length", "")
        if stated.isdecimal() and "Content-Encoding" not in response.headers:
            total = begun + int(stated)
            if total != self.file.size:
                raise self._wrong("size", f"{self.file.size} bytes", str(total))

    def _wrong(self, what: str, expected: str, got: str) -> CrystensError:
        """Return the error of a file that is not the expected one."""
        return CrystensError(
            f"{self.file.address} is not the file that was expected: its {what} should be {expected}, got {got}; "
            f"nothing of it was kept; {_WAYS_OUT} later, or {self.by_hand}"
        )


class _PassingError(Exception):
    """A temporary error: another attempt may succeed after `wait` seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


@contextmanager
def _written(folder: Path) -> Iterator[None]:
    """Convert errors of writing to a folder into a CrystensError."""
    try:
        yield
    except requests.RequestException:
        raise  # an OSError too, but not of the disk
    except (OSError, NotImplementedError) as error:  # NotImplementedError: a file system without locks
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        advice = "free some space" if full else "make it writable"
        raise CrystensError(
            f"cannot write to {folder}: {reason}; {advice}, or choose another cache folder with {CACHE_VARIABLE}=DIR"
        ) from error


@contextmanager
def _progress(name: str, size: int) -> Iterator[Callable[[int], None]]:
    """Show the progress of a download; yields a function of the number of bytes so far."""
    with ProgressBars() as bars:
        yield lambda got: bars(f"{name} (kB)", got // 1000, size // 1000)


def _is_good(path: Path, file: RemoteFile) -> bool:
    """Return whether a path holds the expected file."""
    try:
        return path.stat().st_size == file.size and _sha256(path) == file.sha256
    except FileNotFoundError:
        return False
    except OSError as error:
        raise CrystensError(f"cannot read {path}: {error.strerror or error}; check its permissions") from error


def _sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _start(response: requests.Response) -> int | None:
    """Return the offset of a partial response; None if it is not stated."""
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _asked_wait(response: requests.Response) -> float:
    """Return the waiting time that a server asks for, seconds; 0 if it states none."""
    asked = response.headers.get("Retry-After", "")
    return float(asked) if asked.isdecimal() else 0.0


def _cause(error: BaseException) -> str:
    """Return the cause of a connection error, in a few words."""
    if isinstance(error, requests.exceptions.Timeout) or "Read timed out" in str(error):
        return "the server does not answer in time"
    reason = getattr(error.args[0], "reason", error) if error.args else error  # requests wraps what urllib3 found
    return first_line(reason).split("): ", maxsplit=1)[-1]
