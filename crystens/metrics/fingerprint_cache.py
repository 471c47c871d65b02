"""Fingerprints that were computed before: one SQLite file for each set of versions that computes them.

Results are written down every other second, so that a killed run goes on where it stopped.
"""

from __future__ import annotations

import logging
import re
import sqlite3
import time
from pathlib import Path

import numpy as np

from crystens.data.download import cache_folder
from crystens.errors import CrystensError
from crystens.metrics.fingerprints import Fingerprint, made_by

log = logging.getLogger(__name__)

_SECONDS = 2.0  # between two writes to the disk


class FingerprintCache:
    """Fingerprints by the digest of their crystal. A failure holds only for limits no wider than those it met.

    Args:
        folder: where the file is; None for `fingerprints` in `crystens.data.download.cache_folder()`.

    Raises:
        CrystensError: if the file cannot be read.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        folder = cache_folder() / "fingerprints" if folder is None else Path(folder).expanduser()
        self.path = folder / f"{re.sub(r'[^A-Za-z0-9.]+', '-', made_by())}.sqlite"
        self._warned = False
        self._written = time.monotonic()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(self.path, timeout=60)
            self._file.execute(
                "CREATE TABLE IF NOT EXISTS fingerprints"
                " (key TEXT PRIMARY KEY, structure BLOB, composition BLOB, reason TEXT, seconds REAL, memory REAL)"
            )
            self._file.commit()
        except (OSError, sqlite3.Error) as error:
            raise CrystensError(
                f"cannot use {self.path}: {error}; remove it, or set CRYSTENS_CACHE to another folder"
            ) from error

    def get(self, key: str, limits: tuple[float, float]) -> Fingerprint | None:
        """Return what is known; limits are those in time, seconds, and memory, GiB."""
        try:
            query = "SELECT structure, composition, reason, seconds, memory FROM fingerprints WHERE key = ?"
            found = self._file.execute(query, (key,)).fetchone()
        except sqlite3.Error as error:
            raise CrystensError(f"cannot read {self.path}: {error}; remove it") from error
        if found is None:
            return None
        structure, composition, reason, *met = found
        if reason is None:
            return Fingerprint(np.frombuffer(structure), np.frombuffer(composition))
        if any(now > then for now, then in zip(limits, met, strict=True)):
            return None
        return Fingerprint(None, None, reason)

    def put(self, key: str, found: Fingerprint, limits: tuple[float, float]) -> None:
        """Write one result down, soon."""
        blobs = [None if values is None else values.tobytes() for values in (found.structure, found.composition)]
        try:
            self._file.execute(
                "INSERT OR REPLACE INTO fingerprints VALUES (?, ?, ?, ?, ?, ?)", (key, *blobs, found.reason, *limits)
            )
            if time.monotonic() - self._written > _SECONDS:
                self.flush()
        except sqlite3.Error as error:
            self._warn(error)

    def flush(self) -> None:
        """Bring what was put to the disk."""
        try:
            self._file.commit()
        except sqlite3.Error as error:
            self._warn(error)
        self._written = time.monotonic()

    def close(self) -> None:
        """Bring what was put to the disk and close the file."""
        self.flush()
        self._file.close()

    def _warn(self, error: sqlite3.Error) -> None:
        """Say once that results are lost for the next run; they are kept for this one."""
        if not self._warned:
            log.warning("cannot write %s: %s; fingerprints are computed again next time", self.path, error)
        self._warned = True
