"""One crystal.

A crystal is a cell (lengths a, b, c in angstrom; angles alpha, beta, gamma in degrees), an international space group
number (1-230) and N sites, each an atomic number (1-118) and fractional coordinates in [0, 1). Every site is fully
occupied by one element; disorder is refused where files are read.

`Crystal.from_structure`, `from_file` and `to_cif` use modules of higher layers, which they import when they are called.

`crystens.batch` holds many crystals as arrays. This module and the modules that read files do not import PyTorch, so
that a worker that only parses starts in a second.

Source: Alverson et al., "Generative adversarial networks and diffusion models in material discovery", Digital
Discovery 2024, 3, 62, Sec. 3.1.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from pymatgen.core import DummySpecies, Lattice, Structure

from crystens.chemistry.formulas import reduced_composition, reduced_formula
from crystens.errors import CrystensError

if TYPE_CHECKING:
    from ase import Atoms

MAX_ATOMIC_NUMBER = 118
NUM_SPACE_GROUPS = 230

# Tolerance at which coordinates count as equal when sites are sorted: above the rounding of 1/3 to 0.3333 in files, and
# below real differences.
ORDER_TOLERANCE = 1e-3

_ONE_IN_FLOAT32 = 1 - 2**-25  # the smallest number that float32 rounds to 1


@dataclass(frozen=True, eq=False)
class Crystal:
    """One ordered crystal.

    Args:
        lengths: cell lengths a, b, c, shape (3,), angstrom, positive.
        angles: cell angles alpha, beta, gamma, shape (3,), degrees; they must be able to form a cell.
        space_group: international number, 1-230.
        numbers: atomic numbers, shape (N,), 1-118.
        coordinates: fractional coordinates, shape (N, 3); wrapped into [0, 1).

    Raises:
        CrystensError: if a value is not finite or out of range, or if the angles cannot form a cell.
    """

    lengths: np.ndarray
    angles: np.ndarray
    space_group: int
    numbers: np.ndarray
    coordinates: np.ndarray

    def __post_init__(self) -> None:
        """Check all values once; the rest of the package relies on this."""
        lengths = np.asarray(self.lengths, dtype=np.float64).reshape(3)
        angles = np.asarray(self.angles, dtype=np.float64).reshape(3)
        numbers = np.asarray(self.numbers, dtype=np.int64).reshape(-1)
        coordinates = np.asarray(self.coordinates, dtype=np.float64).reshape(-1, 3)
        cell_vectors(lengths, angles)
        if not 1 <= self.space_group <= NUM_SPACE_GROUPS:
            raise CrystensError(f"space group number must be 1-{NUM_SPACE_GROUPS}, got {self.space_group}")
        if len(numbers) == 0:
            raise CrystensError("a crystal needs at least one site, got none")
        if len(numbers) != len(coordinates):
            raise CrystensError(f"got {len(numbers)} atomic numbers for {len(coordinates)} coordinates")
        if numbers.min() < 1 or numbers.max() > MAX_ATOMIC_NUMBER:
            bad = numbers[(numbers < 1) | (numbers > MAX_ATOMIC_NUMBER)][0]
            raise CrystensError(f"atomic number must be 1-{MAX_ATOMIC_NUMBER}, got {bad}")
        if not np.isfinite(coordinates).all():
            site = int(np.flatnonzero(~np.isfinite(coordinates).all(axis=1))[0])
            raise CrystensError(f"coordinate of site {site} is not a finite number: {coordinates[site].tolist()}")
        object.__setattr__(self, "lengths", lengths)
        object.__setattr__(self, "angles", angles)
        object.__setattr__(self, "space_group", int(self.space_group))
        object.__setattr__(self, "numbers", numbers)
        object.__setattr__(self, "coordinates", wrap(coordinates))

    def __len__(self) -> int:
        """Return the number of sites."""
        return len(self.numbers)

    def in_canonical_order(self) -> Crystal:
        """Return the crystal with its sites in the order of `CrystalBatch.in_canonical_order`."""
        order = canonical_order(self.numbers, self.coordinates)
        return replace(self, numbers=self.numbers[order], coordinates=self.coordinates[order])

    @property
    def formula(self) -> str:
        """The reduced formula, elements in pymatgen's (electronegativity) order."""
        return reduced_formula(reduced_composition(self.numbers))

    @property
    def vectors(self) -> np.ndarray:
        """Cell vectors as rows (3, 3), angstrom; a along x, b in the xy plane, see `cell_vectors`."""
        return cell_vectors(self.lengths, self.angles)

    @property
    def lattice(self) -> Lattice:
        """The cell as a pymatgen lattice (angstrom)."""
        return Lattice.from_parameters(*self.lengths, *self.angles)

    def to_structure(self) -> Structure:
        """Return the crystal as a pymatgen Structure; the space group number is not part of it."""
        return Structure(self.lattice, self.numbers.tolist(), self.coordinates)

    def to_atoms(self) -> Atoms:
        """Return the crystal as periodic ASE Atoms; the space group number is not part of it."""
        from ase import Atoms  # here, because reading files does not need it

        vectors = cell_vectors(self.lengths, self.angles)
        return Atoms(numbers=self.numbers, scaled_positions=self.coordinates, cell=vectors, pbc=True)

    def to_cif(self) -> str:
        """Return the crystal as CIF text with all its sites, see `crystens.cif.write.write_cif`."""
        return str(_door("cif.write").write_cif(self))

    @classmethod
    def from_structure(cls, structure: Structure, space_group: int | None = None) -> Crystal:
        """Make a crystal of an ordered pymatgen Structure.

        Args:
            structure: every site fully occupied by one element (isotopes and oxidation states are dropped). With a
                left-handed lattice the coordinates change sign, so that the crystal does not become its mirror image.
            space_group: international number; None finds it in the sites, with a tolerance of 0.01 angstrom.

        Raises:
            CrystensError: if the structure is disordered, a value is out of range, or no space group is found.
        """
        if not structure.is_ordered:
            raise CrystensError("partial occupancy (disordered structure): only ordered crystals can be encoded")
        dummies = [site.specie for site in structure if isinstance(site.specie, DummySpecies)]
        if dummies:
            raise CrystensError(f"{dummies[0]} is no element; replace the site by an element, or remove it")
        return cls._of_arrays(
            np.array(structure.lattice.abc),
            np.array(structure.lattice.angles),
            space_group,
            np.array([site.specie.Z for site in structure], dtype=np.int64),
            structure.frac_coords * np.sign(np.linalg.det(structure.lattice.matrix)),
        )

    @classmethod
    def from_atoms(cls, atoms: Atoms, space_group: int | None = None) -> Crystal:
        """Make a crystal of ASE Atoms that are periodic in three directions.

        Args:
            atoms: of a left-handed cell the coordinates change their sign, as in `from_structure`.
            space_group: as in `from_structure`.

        Raises:
            CrystensError: if the atoms are not periodic, a value is out of range, or no space group is found.
        """
        if not all(atoms.pbc):
            raise CrystensError(f"a crystal is periodic in three directions, these Atoms have pbc={atoms.pbc.tolist()}")
        cell = atoms.cell.cellpar()
        coordinates = atoms.get_scaled_positions(wrap=False) * np.sign(atoms.cell.handedness)
        return cls._of_arrays(cell[:3], cell[3:], space_group, atoms.numbers, coordinates)

    @classmethod
    def from_file(cls, path: str | Path) -> Crystal:
        """Return the crystal of a file with one crystal: CIF, POSCAR, extended XYZ, or any other format of `data=`.

        Raises:
            CrystensError: if the file cannot be read, with the reason that `rejected.csv` would give, or if it holds
                several crystals.
        """
        crystal: Crystal = _door("ingest.kinds").read_one(path)
        return crystal

    @classmethod
    def _of_arrays(
        cls,
        lengths: np.ndarray,
        angles: np.ndarray,
        space_group: int | None,
        numbers: np.ndarray,
        coordinates: np.ndarray,
    ) -> Crystal:
        """Return the crystal of raw numbers, with its space group found if none is given."""
        crystal = cls(lengths, angles, space_group or 1, numbers, coordinates)
        if space_group is not None:
            return crystal
        find = _door("symmetry.space_groups").space_group_number
        return replace(crystal, space_group=find(lengths, angles, crystal.numbers, crystal.coordinates))


def _door(name: str) -> ModuleType:
    """Import a module of a higher layer, when a method of `Crystal` needs it."""
    return import_module(f"crystens.{name}")


def as_crystal(crystal: Structure | Atoms | Crystal, space_group: int | None = None) -> Crystal:
    """Return the Crystal of a pymatgen Structure or ASE Atoms, see `Crystal.from_structure`; a Crystal is unchanged.

    Raises:
        CrystensError: if it is none of these, or cannot be a crystal.
    """
    if isinstance(crystal, Crystal):
        return crystal
    if isinstance(crystal, Structure):
        return Crystal.from_structure(crystal, space_group)
    from ase import Atoms  # not where files are read

    if isinstance(crystal, Atoms):
        return Crystal.from_atoms(crystal, space_group)
    raise CrystensError(f"a crystal is a pymatgen Structure, ASE Atoms or a Crystal, got {type(crystal).__name__}")


def cell_vectors(lengths: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Return cell vectors as rows (3, 3), angstrom, right-handed: a along x, b in the xy plane.

    Args:
        lengths: a, b, c, shape (3,), angstrom.
        angles: alpha, beta, gamma, shape (3,), degrees.

    Raises:
        CrystensError: if they form no cell with a volume.
    """
    return _vectors(*lengths.tolist(), *angles.tolist()).copy()


@functools.lru_cache(maxsize=64)  # called several times for each crystal
def _vectors(a: float, b: float, c: float, alpha: float, beta: float, gamma: float) -> np.ndarray:
    """Return cell vectors from plain numbers, which is faster than with arrays of three."""
    lengths, angles = [a, b, c], [alpha, beta, gamma]
    if not all(map(math.isfinite, lengths + angles)):
        raise CrystensError(f"cell has values that are not finite: {lengths}, {angles}")
    if min(lengths) <= 0:
        raise CrystensError(f"cell lengths must be > 0 angstrom, got {lengths}")
    if min(angles) <= 0 or max(angles) >= 180:
        raise CrystensError(f"cell angles must lie strictly between 0 and 180 degrees, got {angles}")
    cos_alpha, cos_beta, cos_gamma = map(_cosine, angles)
    relative_volume_squared = (
        1 - cos_alpha * cos_alpha - cos_beta * cos_beta - cos_gamma * cos_gamma + 2 * cos_alpha * cos_beta * cos_gamma
    )  # negative where no such cell exists
    if relative_volume_squared <= 1e-8:
        raise CrystensError(f"the three cell angles cannot form a cell: {angles} degrees")
    sin_gamma = math.sqrt(1 - cos_gamma**2)
    y = (cos_alpha - cos_beta * cos_gamma) / sin_gamma
    z = math.sqrt(max(1 - cos_beta**2 - y**2, 0.0))
    return np.array([[a, 0, 0], [b * cos_gamma, b * sin_gamma, 0], [c * cos_beta, c * y, c * z]])


def _cosine(angle: float) -> float:
    """Return the cosine of an angle in degrees; that of 90 is 0, not 6e-17."""
    return 0.0 if angle == 90 else math.cos(math.radians(angle))


def canonical_order(numbers: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """Return the order (N,) of sites that `CrystalBatch.in_canonical_order` puts them into.

    Args:
        numbers: atomic numbers, shape (N,).
        coordinates: fractional, in [0, 1), shape (N, 3).
    """
    ranks = np.rint(coordinates.astype(np.float32) / np.float32(ORDER_TOLERANCE)) % round(1 / ORDER_TOLERANCE)
    return np.lexsort((ranks[:, 2], ranks[:, 1], ranks[:, 0], numbers))


def wrap(coordinates: np.ndarray) -> np.ndarray:
    """Return fractional coordinates moved into [0, 1).

    Values that float32 rounds to 1 become 0, so that no later conversion leaves the interval.
    """
    wrapped = coordinates - np.floor(coordinates)
    return np.where(wrapped >= _ONE_IN_FLOAT32, 0.0, wrapped)
