"""What CDVAE and DiffCSP write when they generate: one `.pt` file of arrays, crystals one behind the other.

A dictionary saved by torch: `num_atoms` (n,), `lengths` (n, 3) in angstrom, `angles` (n, 3) in degrees, `frac_coords`
(N, 3) and `atom_types` (N,), N the sum of `num_atoms`. Types are atomic numbers, or (N, 100) weights of the elements
from hydrogen on. CDVAE's arrays have an axis of evaluations before these; DiffCSP's have it or not. Of several
evaluations the first is read, as CDVAE's own judge does. A list of tensors in place of one is that of batches, which
are read one behind the other.

The file is read without running anything that it holds: tensors, plain values and the settings of a command line.

Source: Xie et al., Crystal Diffusion Variational Autoencoder for Periodic Material Generation, 2022 (arXiv:2110.06197);
Jiao et al., Crystal Structure Prediction by Joint Equivariant Diffusion, 2023 (arXiv:2309.04475); the scripts of both.
"""

from __future__ import annotations

import argparse
import logging
import pickle
import re
import struct
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from crystens.errors import CrystensError, first_line
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Record, Reject
from crystens.sources.source import Source, existing

log = logging.getLogger(__name__)

RESULT_SUFFIXES = (".pt",)
KEYS = ("frac_coords", "num_atoms", "atom_types", "lengths", "angles")

_ELEMENTS = 100  # that have a weight in a row of atom_types
_EXPECTED = f"a .pt file that CDVAE or DiffCSP wrote, a dictionary with {', '.join(KEYS)}"


class CdvaeResult(Source):
    """Source: one result file.

    Args:
        path: the file; None if the user gave none, which reading reports.
    """

    def __init__(self, path: str | Path | None) -> None:
        """Keep the path; nothing is opened yet."""
        self.path = path

    def __str__(self) -> str:
        """Return what is read, for messages."""
        return f"result file {self.path}"

    def contents(self) -> dict[str, str | Path]:
        """Return the file, see `Source.contents`."""
        path = self._file()
        return {path.name: path}

    def records(self) -> Iterator[Record | Reject]:
        """Yield each crystal, called by its number in the file, counted from 0.

        Raises:
            CrystensError: if there is no such file, or it does not hold such arrays.
        """
        path = self._file()
        arrays = _arrays(path)
        ends = np.cumsum(arrays["num_atoms"])
        for index, (end, count) in enumerate(zip(ends.tolist(), arrays["num_atoms"].tolist(), strict=True)):
            sites = slice(end - count, end)
            content = (
                arrays["lengths"][index],
                arrays["angles"][index],
                arrays["atom_types"][sites],
                arrays["frac_coords"][sites],
            )
            yield Record(path.name, str(index), content)

    def parse(self, record: Record, limits: Limits) -> Iterator[Entry | Reject]:
        """Yield the crystal of one record."""
        lengths, angles, numbers, coordinates = record.content
        yield Entry(record.file, record.entry, limits.crystal(lengths, angles, numbers, coordinates), record.split)

    def _file(self) -> Path:
        """Return the path, checked."""
        path = existing(self.path, _EXPECTED)
        if not path.is_file():
            raise CrystensError(f"{path} is not a file; give {_EXPECTED}")
        return path


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the five arrays of a file, of the first evaluation; numbers (N,) in place of weights of elements."""
    found = _loaded(path)
    missing = [key for key in KEYS if key not in found] if isinstance(found, dict) else list(KEYS)
    if missing:
        raise CrystensError(f"{path} has no {', '.join(missing)}; give {_EXPECTED}")
    first = found["frac_coords"][:1] if isinstance(found["frac_coords"], list) else []
    axis = 1 if any(getattr(batch, "ndim", 2) == 3 for batch in first) else 0  # of crystals, behind evaluations
    arrays = {key: np.asarray(_plain(path, key, found[key], axis)) for key in KEYS}
    if arrays["frac_coords"].ndim == 3:
        evaluations = len(arrays["frac_coords"])
        if evaluations > 1:
            log.warning("%s holds %d evaluations; the first is read, as CDVAE's own judge does", path, evaluations)
        if any(len(array) != evaluations for array in arrays.values()) or evaluations == 0:
            raise CrystensError(f"{path}: {_shapes(arrays)} do not share an axis of evaluations; give {_EXPECTED}")
        arrays = {key: array[0] for key, array in arrays.items()}
    types_ = arrays["atom_types"]
    if types_.ndim == 2 and types_.shape[1] == _ELEMENTS:
        arrays["atom_types"] = types_ = types_.argmax(axis=1) + 1
    crystals, sites = arrays["num_atoms"].shape[:1], types_.shape
    shapes = {"num_atoms": (*crystals,), "lengths": (*crystals, 3), "angles": (*crystals, 3), "atom_types": (*sites,)}
    shapes["frac_coords"] = (*sites, 3)
    for key in ("num_atoms", "atom_types"):
        if not np.array_equal(arrays[key], np.round(arrays[key])):
            raise CrystensError(f"{path}: {key} has a value that is no whole number; give {_EXPECTED}")
    total = int(arrays["num_atoms"].sum())
    if not crystals or any(arrays[key].shape != shape for key, shape in shapes.items()) or len(types_) != total:
        raise CrystensError(f"{path}: {_shapes(arrays)} do not fit each other, with {total} atoms; give {_EXPECTED}")
    if (arrays["num_atoms"] < 0).any():
        raise CrystensError(f"{path}: num_atoms has a number below 0; give {_EXPECTED}")
    doubles = {key: arrays[key].astype(np.float64) for key in ("lengths", "angles", "frac_coords")}
    return arrays | doubles | {"num_atoms": arrays["num_atoms"].astype(np.int64), "atom_types": types_.astype(np.int64)}


def _loaded(path: Path) -> Any:
    """Return what a file holds; nothing of it is run."""
    import torch  # here, so that processes that read CIFs need not load it

    try:
        with torch.serialization.safe_globals([argparse.Namespace, types.SimpleNamespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CrystensError(
            f"{path} holds more than tensors and plain values ({_plain_text(error)}); save the entries "
            f"{', '.join(KEYS)} alone to a new file"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, IndexError, struct.error) as error:
        raise CrystensError(f"cannot read {path}: {first_line(error)[:200]}; give {_EXPECTED}") from error


def _plain_text(error: Exception) -> str:
    """Return the beginning of a message without the codes by which torch sets it in bold."""
    return re.sub(r"\x1b\[[0-9;]*m", "", first_line(error))[:200]


def _plain(path: Path, key: str, value: Any, axis: int) -> Any:
    """Return a value as an array can be made of it: a tensor leaves its device and its gradient, batches are joined."""
    import torch

    if isinstance(value, list) and all(isinstance(item, torch.Tensor) for item in value) and value:
        try:
            value = torch.cat([item if item.ndim else item[None] for item in value], dim=axis)
        except (RuntimeError, IndexError) as error:
            raise CrystensError(
                f"{path}: the tensors of {key} do not fit each other: {first_line(error)[:200]}; give {_EXPECTED}"
            ) from error
    if not isinstance(value, torch.Tensor):
        raise CrystensError(f"{path}: {key} is {type(value).__name__}, not a tensor; give {_EXPECTED}")
    return value.detach().to(torch.float64 if value.is_floating_point() else torch.int64).cpu().numpy()


def _shapes(arrays: dict[str, np.ndarray]) -> str:
    """Return the shapes of arrays, for messages."""
    return ", ".join(f"{key} {array.shape}" for key, array in arrays.items())
