"""Results that were computed before, of one kind: one SQLite file for each thing that computes them.

Energies, fingerprints and predicted properties are kept alike: by a digest of the crystal, as JSON. Each result is
written down at once, so that a killed run goes on where it stopped, and several runs share a file.
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
        """Why there is no result; None where there is one."""

    def to_plain(self) -> dict[str, Any]:
        """Return the result in values that JSON holds without loss."""

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Return the result that `to_plain` wrote."""


R = TypeVar("R", bound=Result)


class ResultCache(Generic[R]):
    """Results by the digest of their crystal. A failure holds only for limits no wider than those it met.

    Args:
        kind: class of the results.
        folder: name of their folder in `crystens.processes.cache_folder.cache_folder()`, such as "energies".
        identity: what computes them, with its version; names the file.
        cache: folder to use in place of the one in the cache folder.

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
            # Without a transaction around several results no process makes others wait while it computes; without
            # synchronisation a result costs no wait for the disk. A killed process loses nothing by either.
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
        """Return what is known; limits are those in time, seconds, and memory, GiB."""
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
        """Write one result down."""
        row = (key, json.dumps(result.to_plain()), *limits)
        try:
            self._file.execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)", row)
        except sqlite3.Error as error:
            if not self._warned:
                log.warning("cannot write %s: %s; results are computed again next time", self.path, error)
            self._warned = True


def digest_of(crystal: Crystal, asked: Any = None) -> str:
    """Return a digest of a crystal, bit for bit and without its space group number, and of what is asked of it.

    Args:
        crystal: any.
        asked: options that a result depends on, in plain values.
    """
    digest = hashlib.blake2b(json.dumps(asked).encode(), digest_size=16)
    for values in (crystal.lengths, crystal.angles, crystal.numbers, crystal.coordinates):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
