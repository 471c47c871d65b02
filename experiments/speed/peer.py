"""The paper's public code, called through its own functions in a clone of the user; no part of it is copied here.

It calls `CrysTens` of `crys_tens.py`, and `unnormalize_crys_tens` and `get_cif` of `generated_crystal_statistics.py`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from crystens.crystal import Crystal
from crystens.errors import CrystensError

_MODULES = ("crys_tens", "generated_crystal_statistics")


class Peer:
    """The peer's encoder and decoder.

    Args:
        folder: a clone of the paper's public repository.

    Raises:
        CrystensError: if the two modules are missing.
    """

    def __init__(self, folder: Path) -> None:
        missing = [name for name in _MODULES if not (folder / f"{name}.py").is_file()]
        if missing:
            raise CrystensError(f"--peer {folder} has no {', '.join(f'{name}.py' for name in missing)}")
        sys.path.insert(0, str(folder.resolve()))
        self._encoder, self._decoder = map(importlib.import_module, _MODULES)

    def encode(self, crystals: list[Crystal]) -> list[np.ndarray]:
        """Return the scaled image of each crystal, (64, 64, 4)."""
        return [self._encode(crystal) for crystal in crystals]

    def _encode(self, crystal: Crystal) -> np.ndarray:
        """Return the scaled image of a crystal."""
        cell: list[Any] = [*crystal.lengths.tolist(), *crystal.angles.tolist(), crystal.space_group]
        image = self._encoder.CrysTens(*cell, crystal.numbers.tolist(), crystal.coordinates.tolist())
        return np.asarray(image.get_crys_tens(True, "avg_std"))

    def read(self, path: Path) -> bool:
        """Read a CIF file to an image; return whether it succeeded. It fails for more than 52 sites."""
        try:
            self._encoder.CrysTens(str(path))
        except Exception:  # any exception is counted
            return False
        return True

    def to_cifs(self, images: list[np.ndarray]) -> int:
        """Decode scaled images to CIF files, 6 clusters of coordinates and 3 of elements; return how many it wrote."""
        made = 0
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            for image in images:
                with contextlib.suppress(Exception):  # it raises for images that it cannot read; they are not counted
                    physical = self._decoder.unnormalize_crys_tens(image.copy())
                    self._decoder.get_cif(physical, os.path.join(folder, "one.cif"), 0.2, None, 6, 3, dir_diff_avg=[])
                    made += 1
        return made
