"""Result files of CDVAE and DiffCSP: one `.pt` file of arrays, with all crystals concatenated.

A dictionary saved by torch: `num_atoms` (n,), `lengths` (n, 3) in angstrom, `angles` (n, 3) in degrees, `frac_coords`
(N, 3) and `atom_types` (N,), N the sum of `num_atoms`. Types are atomic numbers, or (N, 100) weights of the elements
from hydrogen on. CDVAE's arrays have a leading axis of evaluations; DiffCSP's may have it. By default the first
evaluation is read, as in CDVAE's own evaluation, or on request all of them in order. A list of tensors instead of a
tensor is a list of batches, which are concatenated.

Nothing in the file is executed: it may hold tensors, plain values and the settings of a command line.

Source: Xie et al., Crystal Diffusion Variational Autoencoder for Periodic Material Generation, 2022 (arXiv:2110.06197);
Jiao et al., Crystal Structure Prediction by Joint Equivariant Diffusion, 2023 (arXiv:2309.04475); the scripts of both.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from crystens.crystal import MAX_ATOMIC_NUMBER
from crystens.errors import CrystensError, first_line
from crystens.formats.pt_file import load_pt
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Record, Reject, Unusable
from crystens.sources.source import Source, existing

log = logging.getLogger(__name__)

RESULT_SUFFIXES = (".pt",)
KEYS = ("frac_coords", "num_atoms", "atom_types", "lengths", "angles")

_ELEMENTS = 100  # weights in a row of atom_types
_EXPECTED = f"a .pt file that CDVAE or DiffCSP wrote, a dictionary with {', '.join(KEYS)}, or the folder of its run"
_LARGEST = 1e9  # limit of a number of atoms
_IN_RUN = "eval_*.pt"


class CdvaeResult(Source):
    """Source: one result file.

    Args:
        path: the file, or the folder of a run. None raises an error on reading.
        every: whether all evaluations are read; False reads the first one.
    """

    def __init__(self, path: str | Path | None, every: bool = False) -> None:
        """Keep the path; nothing is opened yet."""
        self.path = path
        self.every = every

    def __str__(self) -> str:
        """Return what is read, for messages."""
        return f"result file {self.path}"

    def variant(self) -> str:
        """Return which evaluations are read, see `Source.variant`."""
        return "every evaluation" if self.every else ""

    def num_evaluations(self) -> int:
        """Return how many evaluations the file holds.

        Raises:
            CrystensError: as `records`.
        """
        return _arrays(self._file(), True)[1]

    def contents(self) -> dict[str, str | Path]:
        """Return the file, see `Source.contents`."""
        path = self._file()
        return {path.name: path}

    def records(self) -> Iterator[Record | Reject]:
        """Yield each crystal, named by its number in the file, counted from 0.

        Raises:
            CrystensError: if there is no such file, or it does not hold these arrays.
        """
        path = self._file()
        arrays, _ = _arrays(path, self.every)
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
        odd = numbers[(numbers < 1) | (numbers > MAX_ATOMIC_NUMBER)]
        if len(odd):
            raise Unusable(f"unknown element: atomic number {odd[0]}", f"atomic numbers are 1-{MAX_ATOMIC_NUMBER}")
        yield Entry(record.file, record.entry, limits.crystal(lengths, angles, numbers, coordinates), record.split)

    def _file(self) -> Path:
        """Return the path, checked."""
        path = existing(self.path, _EXPECTED)
        if path.is_dir():
            files = results_in(path)
            if len(files) != 1:
                held = f"several files {_IN_RUN} ({', '.join(file.name for file in files[:5])}): give one of them"
                raise CrystensError(f"{path} holds {held if files else f'no file {_IN_RUN}; give {_EXPECTED}'}")
            return files[0]
        if not path.is_file():
            raise CrystensError(f"{path} is not a file; give {_EXPECTED}")
        return path


def results_in(folder: Path) -> list[Path]:
    """Return the result files of the folder of a run, sorted."""
    return sorted(path for path in folder.glob(_IN_RUN) if path.is_file())


def _arrays(path: Path, every: bool) -> tuple[dict[str, np.ndarray], int]:
    """Return the five arrays of the first or of all evaluations of a file, and the number of evaluations.

    Weights of elements are replaced by atomic numbers (N,).
    """
    found = load_pt(path, KEYS, _EXPECTED)
    missing = [key for key in KEYS if key not in found] if isinstance(found, dict) else list(KEYS)
    if missing:
        raise CrystensError(f"{path} has no {', '.join(missing)}; give {_EXPECTED}")
    first = found["frac_coords"][:1] if isinstance(found["frac_coords"], list) else []
    axis = (
        1 if any(getattr(batch, "ndim", 2) == 3 for batch in first) else 0
    )  # axis of crystals, after that of evaluations
    arrays = {key: _array(path, key, found[key], axis) for key in KEYS}
    evaluations = 1
    if arrays["frac_coords"].ndim == 3:
        evaluations = len(arrays["frac_coords"])
        if evaluations > 1 and not every:
            log.warning("%s holds %d evaluations; the first is read, as CDVAE's own judge does", path, evaluations)
        if any(array.ndim == 0 or len(array) != evaluations for array in arrays.values()) or evaluations == 0:
            raise CrystensError(f"{path}: {_shapes(arrays)} do not share an axis of evaluations; give {_EXPECTED}")
        arrays = {
            key: np.concatenate(list(array)) if every and array.ndim > 1 else array[0] for key, array in arrays.items()
        }
    types_ = arrays["atom_types"]
    if types_.ndim == 2 and types_.shape[1] == _ELEMENTS:
        arrays["atom_types"] = types_ = types_.argmax(axis=1) + 1
    crystals, sites = arrays["num_atoms"].shape[:1], types_.shape
    shapes = {"num_atoms": (*crystals,), "lengths": (*crystals, 3), "angles": (*crystals, 3), "atom_types": (*sites,)}
    shapes["frac_coords"] = (*sites, 3)
    # An element that is not finite rejects its crystal only. Without a number of atoms, all later crystals are lost.
    arrays["atom_types"] = np.where(np.abs(types_) < _LARGEST, types_, 0)
    for key in ("num_atoms", "atom_types"):
        if not (np.array_equal(arrays[key], np.round(arrays[key])) and (np.abs(arrays[key]) < _LARGEST).all()):
            raise CrystensError(f"{path}: {key} has a value that is no whole number; give {_EXPECTED}")
    total = int(arrays["num_atoms"].sum())
    if not crystals or any(arrays[key].shape != shape for key, shape in shapes.items()) or len(types_) != total:
        raise CrystensError(f"{path}: {_shapes(arrays)} do not fit each other, with {total} atoms; give {_EXPECTED}")
    if (arrays["num_atoms"] < 0).any():
        raise CrystensError(f"{path}: num_atoms has a number below 0; give {_EXPECTED}")
    doubles = {key: arrays[key].astype(np.float64) for key in ("lengths", "angles", "frac_coords")}
    doubles["angles"] = _degrees(path, doubles["angles"])
    whole = {key: arrays[key].astype(np.int64) for key in ("num_atoms", "atom_types")}
    return arrays | doubles | whole, evaluations


def _array(path: Path, key: str, value: Any, axis: int) -> np.ndarray:
    """Return a tensor or an array as whole numbers or doubles; a list of batches is concatenated."""
    import torch

    if isinstance(value, list) and value and all(isinstance(item, torch.Tensor | np.ndarray) for item in value):
        try:
            return np.concatenate([np.atleast_1d(_array(path, key, item, axis)) for item in value], axis)
        except ValueError as error:
            raise CrystensError(
                f"{path}: the batches of {key} do not fit each other: {first_line(error)[:200]}; give {_EXPECTED}"
            ) from error
    if isinstance(value, torch.Tensor):
        value = value.detach().to(torch.float64 if value.is_floating_point() else torch.int64).cpu().numpy()
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        found = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
        raise CrystensError(f"{path}: {key} is {found}, not a tensor; save it as one of numbers, or give {_EXPECTED}")
    return value.astype(np.float64 if value.dtype.kind == "f" else np.int64)


def _degrees(path: Path, angles: np.ndarray) -> np.ndarray:
    """Return angles in degrees; if no angle of a file is above pi, all are radians."""
    largest = np.abs(angles[np.isfinite(angles)]).max(initial=0.0)
    if not 0 < largest <= np.pi:
        return angles
    log.warning("%s: no angle is above pi (the largest: %.4g), so they are read as radians", path, largest)
    return np.degrees(angles)


def _shapes(arrays: dict[str, np.ndarray]) -> str:
    """Return the shapes of arrays, for messages."""
    return ", ".join(f"{key} {array.shape}" for key, array in arrays.items())
