"""Energies that were computed before: one file for each potential, only ever appended to.

Every result is written down at once, by a digest of the crystal and what is computed, so that a killed run goes on
where it stopped; a line that a kill cut short is passed over.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from crystens.crystal import Crystal
from crystens.data.download import cache_folder
from crystens.errors import CrystensError
from crystens.metrics.energy import Energy, Relaxation, Relaxed
from crystens.metrics.potentials import Potential

log = logging.getLogger(__name__)

_FORMAT = 1  # part of every digest; raise it when the same options come to compute something else


class EnergyCache:
    """What one potential computed, by digest: a file of JSON lines, of which the last one of a digest counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, dict[str, Any]] = {}
        self._warned = False
        try:
            with path.open("rb") as file:
                for line in file:
                    self._take(line)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise CrystensError(f"cannot read {path}: {error.strerror}; mend it, or give another cache") from error

    def _take(self, line: bytes) -> None:
        """Remember a line, unless it is empty or cut short."""
        try:
            found = json.loads(line)
            self._known[found["key"]] = found
        except (ValueError, KeyError, TypeError):
            return

    def get(self, key: str, limits: tuple[float, float]) -> Energy | None:
        """Return what is known; a failure holds only for limits no wider than its own."""
        found = self._known.get(key)
        if found is None:
            return None
        if found["reason"] is not None:
            if any(now > then for now, then in zip(limits, found["limits"] or limits, strict=True)):
                return None
            return Energy(None, found["reason"], found["seconds"])
        relaxed = found["relaxed"]
        if relaxed is not None:
            relaxed = Relaxed(**(relaxed | {"crystal": Crystal(**relaxed["crystal"])}))
        return Energy(found["total"], None, found["seconds"], relaxed)

    def put(self, key: str, energy: Energy, limits: tuple[float, float]) -> None:
        """Write one result down."""
        record: dict[str, Any] = {"key": key, "total": energy.total, "reason": energy.reason}
        record["seconds"] = round(energy.seconds, 4)
        record["limits"] = None if math.inf in limits else limits
        record["relaxed"] = None if energy.relaxed is None else _plain(energy.relaxed)
        # A new line comes first: whatever a kill left of the line before, this one stands alone. One write, which is
        # not mixed with that of another process.
        text = b"\n" + json.dumps(record).encode()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                os.write(descriptor, text)
            finally:
                os.close(descriptor)
        except OSError as error:
            if not self._warned:
                log.warning("cannot write %s: %s; energies are computed again next time", self._path, error.strerror)
            self._warned = True


def _plain(relaxed: Relaxed) -> dict[str, Any]:
    """Return what a relaxation did in values that JSON holds, without loss."""
    told = {name: getattr(relaxed, name) for name in Relaxed.__dataclass_fields__}
    crystal = {name: getattr(relaxed.crystal, name) for name in Crystal.__dataclass_fields__}
    plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in crystal.items()}
    return told | {"crystal": plain}


def cache_file(potential: Potential, cache: str | Path | None) -> Path:
    """Return the file of a potential."""
    folder = cache_folder() / "energies" if cache is None else Path(cache).expanduser()
    return folder / f"{re.sub(r'[^A-Za-z0-9.]+', '-', potential.identity)}.jsonl"


def digest_of(crystal: Crystal, relaxation: Relaxation | None) -> str:
    """Return a digest of a crystal, bit for bit and without its space group number, and of what is computed."""
    asked = None if relaxation is None else {**asdict(relaxation), "ase": version("ase")}
    digest = hashlib.blake2b(json.dumps([_FORMAT, asked]).encode(), digest_size=16)
    for values in (crystal.lengths, crystal.angles, crystal.numbers, crystal.coordinates):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
