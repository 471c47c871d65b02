"""Space groups: found by moyopy, and imposed on a crystal in its given cell.

An operation is a rotation R (3, 3) of integers and a translation t (3,), both in the basis of the crystal's own cell:
a site at fractional x (a column) moves to R x + t. A cell with metric tensor G = A A^T (rows of A are the cell vectors)
has the rotation as a symmetry when R^T G R = G.

Only `in_cell` changes the cell; no other function here moves the origin or changes the order of sites.

Source for averaging a metric tensor and positions over a group: Grosse-Kunstleve and Adams, Acta Cryst. A 58 (2002) 60
(projection on the invariant part).
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import moyopy
import numpy as np

from crystens.crystal import Crystal, cell_vectors
from crystens.distances import nearest_distances, nearest_steps, shortest_translation
from crystens.errors import CrystensError

# Kinds of cells, see `in_cell`.
CELLS = ("given", "primitive", "niggli", "conventional")

# First space group number of each crystal system; International Tables for Crystallography A.
CRYSTAL_SYSTEMS = {
    "triclinic": 1,
    "monoclinic": 3,
    "orthorhombic": 16,
    "tetragonal": 75,
    "trigonal": 143,
    "hexagonal": 168,
    "cubic": 195,
}

# Tolerance at which a symmetrised crystal must have its space group, angstrom: far below tolerances for noisy cells,
# far above rounding in double precision.
_VERIFY_SYMPREC = 1e-4

# Tolerances at which `imposed` looks for space groups, angstrom.
TOLERANCES = (0.01, 0.03, 0.1, 0.2, 0.3)

# A tolerance that confuses neighbouring sites finds no symmetry, and the search may never end: in noisy ReIr3, with
# sites 2.6 angstrom apart, 0.3 angstrom does so. Tolerances are at most this share of the shortest distance.
LARGEST_SHARE = 0.1

# Shortest lattice translation of a crystal, angstrom (above 2 in all real crystals). In smaller cells moyopy's search
# can exhaust time and memory, as in generated cells of 0.45 and 1.14 angstrom.
_MIN_TRANSLATION = 1.8


class SymmetryError(CrystensError):
    """No space group could be found or imposed; the message says why."""


@dataclass(frozen=True, eq=False)
class SymmetrisedCrystal:
    """A crystal that has its space group exactly, with the operations.

    Attributes:
        crystal: the crystal, with unchanged cell, site order and origin; `crystal.space_group` is the group found.
        rotations: (M, 3, 3) int, in the basis of the crystal's cell, centring included.
        translations: (M, 3) float in [0, 1), fractional.
        orbits: (N,) int: for each site the first site of its orbit.
        origin: (3,) float, fractional: the group's conventional origin, relative to which translations are simple
            fractions.
    """

    crystal: Crystal
    rotations: np.ndarray
    translations: np.ndarray
    orbits: np.ndarray
    origin: np.ndarray


def space_group_number(
    lengths: np.ndarray, angles: np.ndarray, numbers: np.ndarray, coordinates: np.ndarray, symprec: float = 0.01
) -> int:
    """Return the international space group number (1-230) of a crystal.

    Args:
        lengths: a, b, c, shape (3,), angstrom.
        angles: alpha, beta, gamma, shape (3,), degrees.
        numbers: atomic numbers, shape (N,).
        coordinates: fractional, shape (N, 3).
        symprec: distance up to which two sites count as one, angstrom.

    Raises:
        SymmetryError: if the search fails, as for overlapping sites.
    """
    return int(_dataset(cell_vectors(lengths, angles), numbers, coordinates, symprec).number)


def group_within(crystal: Crystal, symprec: float) -> int | None:
    """Return the space group number of the atoms at a tolerance, angstrom; None if none is found."""
    try:
        return space_group_number(crystal.lengths, crystal.angles, crystal.numbers, crystal.coordinates, symprec)
    except SymmetryError:
        return None


def equivalent_sites(
    lengths: np.ndarray, angles: np.ndarray, numbers: np.ndarray, coordinates: np.ndarray, symprec: float = 0.01
) -> np.ndarray:
    """Return the first equivalent site of each site, (N,) int64. Arguments as above.

    Raises:
        SymmetryError: if the search fails.
    """
    return np.array(_dataset(cell_vectors(lengths, angles), numbers, coordinates, symprec).orbits, dtype=np.int64)


def occupied_positions(
    lengths: np.ndarray, angles: np.ndarray, numbers: np.ndarray, coordinates: np.ndarray, symprec: float = 0.01
) -> tuple[int, str, np.ndarray]:
    """Return the space group number of a crystal, and the Wyckoff letter and atomic number of each of its K orbits.

    Letters are those of moyopy's description, one of several (`crystens.symmetry.normaliser`). Arguments as in
    `space_group_number`.

    Returns:
        Number, letters as one text of K, atomic numbers (K,).

    Raises:
        SymmetryError: if the search fails.
    """
    found = _dataset(cell_vectors(lengths, angles), numbers, coordinates, symprec)
    firsts = np.flatnonzero(np.array(found.orbits) == np.arange(len(numbers)))
    return int(found.number), "".join(found.wyckoffs[site] for site in firsts), np.asarray(numbers)[firsts]


def standard_vectors(crystal: Crystal, symprec: float) -> np.ndarray:
    """Return the cell vectors as rows (3, 3), angstrom, in the orientation of the conventional cell.

    The cell is only rotated, so that its conventional cell has a along x and b in the xy plane. In this orientation
    codes with a fixed list of rotations find all symmetry.

    Raises:
        SymmetryError: if the search for the space group fails.
    """
    found = _dataset(crystal.vectors, crystal.numbers, crystal.coordinates, symprec)
    return crystal.vectors @ np.array(found.std_rotation_matrix).T


def crystal_system(number: int) -> str:
    """Return the crystal system of a space group, one of `CRYSTAL_SYSTEMS`."""
    return [name for name, first in CRYSTAL_SYSTEMS.items() if first <= number][-1]


@dataclass(frozen=True, eq=False)
class Cell:
    """A crystal in a cell of another kind.

    Attributes:
        lengths: a, b, c, shape (3,), angstrom.
        angles: alpha, beta, gamma, shape (3,), degrees.
        numbers: atomic numbers, shape (N,).
        coordinates: fractional, shape (N, 3).
        space_group: international number.
    """

    lengths: np.ndarray
    angles: np.ndarray
    numbers: np.ndarray
    coordinates: np.ndarray
    space_group: int


def in_cell(
    kind: str,
    lengths: np.ndarray,
    angles: np.ndarray,
    numbers: np.ndarray,
    coordinates: np.ndarray,
    symprec: float = 0.01,
) -> Cell:
    """Return a crystal in the cell of one of the `CELLS`, and its space group; arguments as in `space_group_number`.

    - "given": unchanged.
    - "niggli": the Niggli-reduced cell of the given lattice; number and order of sites do not change.
    - "primitive", "conventional": the standardised cell of the group found, with setting, origin and axes of
      International Tables; positions and cell are symmetrised within `symprec`.

    Raises:
        SymmetryError: if the search fails, or there is no such kind of cell.
    """
    if kind not in CELLS:
        raise SymmetryError(f"cell={kind} is not known; use one of {', '.join(CELLS)}")
    matrix = cell_vectors(lengths, angles)
    found = _dataset(matrix, numbers, coordinates, symprec)
    if kind == "given":
        return Cell(lengths, angles, numbers, coordinates, int(found.number))
    if kind == "niggli":
        basis, transform = moyopy.niggli_reduce(matrix.tolist())
        coordinates = coordinates @ np.linalg.inv(np.array(transform, dtype=np.float64)).T
    else:
        cell = found.prim_std_cell if kind == "primitive" else found.std_cell
        basis, numbers, coordinates = cell.basis, np.array(cell.numbers), np.array(cell.positions)
    lengths, angles = cell_of_metric(np.array(basis) @ np.array(basis).T)
    return Cell(lengths, angles, numbers, coordinates, int(found.number))


def symmetrised(crystal: Crystal, symprec: float) -> SymmetrisedCrystal:
    """Return the crystal, made exactly symmetric under the space group that it has within `symprec` (angstrom).

    The metric tensor is averaged over the rotations, and each position over the operations. Cell, origin and site order
    do not change.

    Raises:
        SymmetryError: if no group is found, if its operations do not permute the sites, or if the result does not have
            the group at a tight tolerance. The last happens for a slightly distorted supercell with a lower symmetry
            than its structure: six of the 4,372 structures of mp_3dsc with at most 52 sites, at a tolerance of 0.01.
    """
    return _symmetrised(crystal, _dataset(crystal.vectors, crystal.numbers, crystal.coordinates, symprec), symprec)


def imposed(
    crystal: Crystal,
    stated: int | None,
    stated_within: float,
    found_within: float,
    tolerances: Sequence[float] = TOLERANCES,
    nearest: float | None = None,
) -> tuple[SymmetrisedCrystal, float] | None:
    """Return the symmetrised crystal, and the tolerance at which it had the group, angstrom; None on failure.

    The stated group is imposed if the atoms have it at a tolerance up to `stated_within`. Otherwise it is the group
    with the most operations at tolerances up to `found_within`. The smallest such tolerance is used. Tolerances are at
    most a tenth of the shortest distance.

    Args:
        crystal: the crystal; if sites coincide, no tolerance is small enough.
        stated: space group number that the crystal should have, if any.
        stated_within: largest tolerance for the stated group, angstrom.
        found_within: largest tolerance for any other group, angstrom.
        tolerances: tolerances to try, angstrom, ascending.
        nearest: shortest distance of two sites or of a site and its own image, angstrom, if known.
    """
    if nearest is None:
        nearest = float(nearest_distances(crystal.vectors, crystal.coordinates).min())
    others: list[tuple[int, float, moyopy.MoyoDataset]] = []
    for tolerance in tolerances:
        if tolerance > min(nearest * LARGEST_SHARE, max(stated_within, found_within)):
            break
        try:
            found = _dataset(crystal.vectors, crystal.numbers, crystal.coordinates, tolerance)
            if found.number == stated and tolerance <= stated_within:
                return _symmetrised(crystal, found, tolerance), tolerance
        except SymmetryError:
            continue
        if tolerance <= found_within:
            others.append((-len(found.operations), tolerance, found))
    for _, tolerance, found in sorted(others, key=lambda other: other[:2]):
        with contextlib.suppress(SymmetryError):
            return _symmetrised(crystal, found, tolerance), tolerance
    return None


def _symmetrised(crystal: Crystal, found: moyopy.MoyoDataset, symprec: float) -> SymmetrisedCrystal:
    """Return the crystal, made exactly symmetric under the space group that moyopy found, see `symmetrised`."""
    matrix = crystal.vectors
    rotations = np.array(found.operations.rotations, dtype=np.int64).reshape(-1, 3, 3)
    translations = np.array(found.operations.translations, dtype=np.float64).reshape(-1, 3)
    metric = matrix @ matrix.T
    metric = np.einsum("mki,kl,mlj->ij", rotations, metric, rotations, optimize=_averaging_path(len(rotations)))
    metric /= len(rotations)
    lengths, angles = cell_of_metric(metric)
    coordinates, orbits = _averaged(crystal, rotations, translations, metric, symprec)
    result = Crystal(lengths, angles, int(found.number), crystal.numbers, coordinates)
    again = space_group_number(lengths, angles, result.numbers, result.coordinates, _VERIFY_SYMPREC)
    if again != result.space_group:
        raise SymmetryError(
            f"{crystal.formula} has space group {result.space_group} within {symprec} angstrom, but {again} once it is "
            "symmetrised: its cell may be a supercell that does not have all rotations of the group"
        )
    origin = np.array(found.std_origin_shift, dtype=np.float64)
    return SymmetrisedCrystal(result, rotations, translations - np.floor(translations), orbits, origin)


def _dataset(matrix: np.ndarray, numbers: np.ndarray, coordinates: np.ndarray, symprec: float) -> moyopy.MoyoDataset:
    """Return moyopy's result for cell vectors as rows (3, 3)."""
    if not len(numbers):
        raise SymmetryError("no space group of a cell without sites")
    least = max(_MIN_TRANSLATION, 4 * symprec)
    if (shortest := shortest_translation(matrix, least)) < least:
        raise SymmetryError(
            f"the cell repeats after {shortest:.3g} angstrom, too little to look for symmetry at {symprec} angstrom"
        )
    _silence_moyopy()
    cell = moyopy.Cell(basis=matrix.tolist(), positions=coordinates.tolist(), numbers=numbers.tolist())
    try:
        return moyopy.MoyoDataset(cell, symprec=symprec)
    except ValueError as error:
        raise SymmetryError(f"no space group found at a tolerance of {symprec} angstrom: {error}") from error
    except BaseException as error:
        # A panic in moyopy arrives as a class that cannot be imported and that `except Exception` does not catch.
        if type(error).__name__ != "PanicException":
            raise
        raise SymmetryError(f"the search for a space group failed: {error}") from error


def cell_of_metric(metric: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return lengths (3,), angstrom, and angles (3,), degrees, of a metric tensor (3, 3)."""
    lengths = np.sqrt(np.diag(metric))
    cosines = (metric / np.outer(lengths, lengths))[[1, 0, 0], [2, 2, 1]]
    angles = np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))
    # Angles that symmetry fixes become 90, 120 or 60 instead of 90.00000000000001.
    fixed = np.round(angles)
    return lengths, np.where(np.abs(angles - fixed) < 1e-9, fixed, angles)


def _averaged(
    crystal: Crystal, rotations: np.ndarray, translations: np.ndarray, metric: np.ndarray, symprec: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates (N, 3) that the operations map on each other exactly, and the orbit (N,) of each site.

    The first site of an orbit is averaged over all operations; the other sites are its images. The orbits come from the
    operations, because moyopy's orbits are those of the primitive cell, which are larger in a supercell.
    """
    inverses = np.round(np.linalg.inv(rotations))
    exact = np.empty_like(crystal.coordinates)
    matrix = crystal.vectors
    orbits = np.full(len(crystal), -1)
    for first in range(len(crystal)):
        if orbits[first] >= 0:
            continue
        like = np.flatnonzero((crystal.numbers == crystal.numbers[first]) & (orbits < 0))
        site = crystal.coordinates[first]
        steps = crystal.coordinates[like] - (rotations @ site + translations)[:, None]  # (M, sites, 3): image to site
        steps = nearest_steps(matrix, steps, symprec)
        nearest = (steps @ metric * steps).sum(axis=2).argmin(axis=1)
        missed = steps[np.arange(len(steps)), nearest]
        site = site + (inverses @ missed[:, :, None])[:, :, 0].mean(axis=0)
        # Any operation that reaches a site can be used: they agree, because the averaged site is invariant.
        members, operation = np.unique(nearest, return_index=True)
        if len(rotations) % len(members):
            raise SymmetryError("the operations found do not map the sites on each other; try a smaller tolerance")
        exact[like[members]] = rotations[operation] @ site + translations[operation]
        orbits[like[members]] = first
    return exact, orbits


@functools.cache
def _averaging_path(operations: int) -> list[str | tuple[int, int]]:
    """Return NumPy's contraction order for averaging a metric tensor; cached, because finding it is slow."""
    rotations = np.zeros((operations, 3, 3), dtype=np.int64)
    path: list[str | tuple[int, int]] = np.einsum_path(
        "mki,kl,mlj->ij", rotations, np.eye(3), rotations, optimize=True
    )[0]
    return path


@functools.cache
def _silence_moyopy() -> None:
    """Silence moyopy's warning about supercells, in which operations are missing and orbits differ."""
    logging.getLogger("moyo").setLevel(logging.ERROR)
