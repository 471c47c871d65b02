"""Cache of results: one SQLite file for each kind of result and program that computes it.

Energies, fingerprints and predicted properties are stored as JSON under a digest of the crystal. Each result is written
immediately, so that a killed run resumes, and several runs may share a file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np

from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.processes.cache_folder import cache_folder

log = logging.getLogger(__name__)

_PATIENCE = 60  # seconds to wait for another process that writes


class Result(Protocol):
    """Entry of a cache: a result of one crystal, or the reason why there is none."""

    @property
    def reason(self) -> str | None:
        """Why there is no result; None if there is one."""

    def to_plain(self) -> dict[str, Any]:
        """Return the result in values that JSON holds without loss."""

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Return the result that `to_plain` wrote."""


R = TypeVar("R", bound=Result)


class ResultCache(Generic[R]):
    """Results by the digest of their crystal. A cached failure is valid only for limits that are not wider.

    Args:
        kind: class of the results.
        folder: name of their folder in `crystens.processes.cache_folder.cache_folder()`, such as "energies".
        identity: name and version of the program that computes them; names the file.
        cache: folder instead of the one in the cache folder.

    Raises:
        CrystensError: if the file cannot be read.
    """

    def __init__(self, kind: type[R], folder: str, identity: str, cache: str | Path | None = None) -> None:
        place = cache_folder() / folder if cache is None else Path(cache).expanduser()
        self.path = place / f"{re.sub(r'[^A-Za-z0-9.]+', '-', identity)}.sqlite"
        self._kind = kind
        self._warned = False
        try:
            place.mkdir(parents=True, exist_ok=True)
            # Autocommit: no process blocks others while it computes. No synchronisation: a result does not wait for the
            # disk. A killed process loses nothing.
            self._file = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)
            self._file.execute("PRAGMA synchronous = OFF")
            self._file.execute(
                "CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, result TEXT, seconds REAL, memory REAL)"
            )
        except (OSError, sqlite3.Error) as error:
            raise CrystensError(
                f"cannot use {self.path}: {error}; remove it, or set CRYSTENS_CACHE to another folder"
            ) from error

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()

    def get(self, key: str, limits: tuple[float, float]) -> R | None:
        """Return the cached result, or None; limits are time in seconds and memory in GiB."""
        try:
            found = self._file.execute("SELECT result, seconds, memory FROM results WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise CrystensError(f"cannot read {self.path}: {error}; remove it") from error
        if found is None:
            return None
        text, *met = found
        result = self._kind.from_plain(json.loads(text))
        if result.reason is not None and any(now > then for now, then in zip(limits, met, strict=True)):
            return None
        return result

    def put(self, key: str, result: R, limits: tuple[float, float]) -> None:
        """Store one result."""
        row = (key, json.dumps(result.to_plain()), *limits)
        try:
            self._file.execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)", row)
        except sqlite3.Error as error:
            if not self._warned:
                log.warning("cannot write %s: %s; the next run will compute the results again", self.path, error)
            self._warned = True


def digest_of(crystal: Crystal, asked: Any = None) -> str:
    """Return a digest of the bytes of a crystal, without its space group number, and of options.

    Args:
        crystal: any crystal.
        asked: options that the result depends on, in plain values.
    """
    digest = hashlib.blake2b(json.dumps(asked).encode(), digest_size=16)
    for values in (crystal.lengths, crystal.angles, crystal.numbers, crystal.coordinates):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
