"""A crystal as a list of orbits: one representative site for each set of symmetry-equivalent sites.

The cell is the conventional cell of the group in its standard setting (see `crystens.symmetry.wyckoff`). An orbit is an
element, a Wyckoff letter and the coordinates of one site on the first representative of the position in International
Tables, so that coordinates fixed by the position always have the same values.

A crystal has many such lists, with different origins, axes, representatives and orders.
`crystens.symmetry.descriptions` chooses one of them. A `CrystalWithOrbits` keeps this list in addition to all its
sites.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crystens.crystal import Crystal, cell_vectors, wrap
from crystens.errors import CrystensError
from crystens.symmetry.space_groups import SymmetrisedCrystal, cell_of_metric
from crystens.symmetry.wyckoff import SpaceGroup, space_group

CELLS = ("conventional", "primitive")


@dataclass(frozen=True, eq=False)
class OrbitCrystal:
    """One crystal as K orbits in the conventional cell of its space group.

    Attributes:
        lengths: (3,) angstrom; the group's rotations keep the cell.
        angles: (3,) degrees.
        space_group: international number, 1-230.
        numbers: (K,) int64, atomic numbers.
        letters: K Wyckoff letters as one text.
        coordinates: (K, 3), fractional, in [0, 1), on the first representative of each position.
    """

    lengths: np.ndarray
    angles: np.ndarray
    space_group: int
    numbers: np.ndarray
    letters: str
    coordinates: np.ndarray

    def __len__(self) -> int:
        """Return the number of orbits."""
        return len(self.numbers)

    @property
    def group(self) -> SpaceGroup:
        """The space group with its operations and positions."""
        return space_group(self.space_group)

    @property
    def multiplicities(self) -> np.ndarray:
        """Number of sites of each orbit in the conventional cell, (K,)."""
        return np.array([self.group.position(letter).multiplicity for letter in self.letters])

    def num_sites(self, cell: str = "primitive") -> int:
        """Return the number of sites in one of the `CELLS`."""
        _check_cell_kind(cell)
        return int(self.multiplicities.sum()) // (len(self.group.centring) if cell == "primitive" else 1)

    @property
    def metric(self) -> np.ndarray:
        """The metric tensor of the cell, (3, 3), angstrom squared."""
        vectors = cell_vectors(self.lengths, self.angles)
        return vectors @ vectors.T

    def to_crystal(self, cell: str = "conventional") -> Crystal:
        """Return all sites, in the conventional or a primitive cell, orbit by orbit."""
        return self.symmetrised(cell).crystal

    def symmetrised(self, cell: str = "conventional") -> SymmetrisedCrystal:
        """Return all sites in one of the `CELLS`, with the operations of the group in it, as CIF files need them."""
        _check_cell_kind(cell)
        group = self.group
        orbits = [group.position(z).orbit(x) for z, x in zip(self.letters, self.coordinates, strict=True)]
        rotations, translations = group.rotations, group.translations
        lengths, angles = self.lengths, self.angles
        if cell == "primitive" and len(group.centring) > 1:
            basis = group.primitive
            to_primitive = np.linalg.inv(basis.T)
            lengths, angles = cell_of_metric(basis @ self.metric @ basis.T)
            orbits = [_distinct(orbit @ to_primitive.T) for orbit in orbits]
            rotations = np.rint(to_primitive @ rotations @ basis.T).astype(np.int64)
            first = np.unique(rotations.reshape(-1, 9), axis=0, return_index=True)[1]
            rotations = rotations[np.sort(first)]
            translations = (translations @ to_primitive.T)[np.sort(first)]
            translations = wrap(translations)
        counts = [len(orbit) for orbit in orbits]
        crystal = Crystal(
            lengths, angles, self.space_group, np.repeat(self.numbers, counts), wrap(np.concatenate(orbits))
        )
        starts = np.cumsum([0, *counts[:-1]])
        return SymmetrisedCrystal(crystal, rotations, translations, np.repeat(starts, counts), np.zeros(3))


@dataclass(frozen=True, eq=False)
class CrystalWithOrbits(Crystal):
    """A crystal with all sites of a primitive cell, and its orbits in the conventional cell.

    Args:
        orbits: the same crystal as a list of orbits; for other arguments see `Crystal`.
    """

    orbits: OrbitCrystal

    @classmethod
    def from_orbits(cls, orbits: OrbitCrystal) -> CrystalWithOrbits:
        """Return all sites of a list of orbits, in canonical order."""
        found = orbits.to_crystal("primitive").in_canonical_order()
        return cls(found.lengths, found.angles, found.space_group, found.numbers, found.coordinates, orbits)


def _distinct(points: np.ndarray) -> np.ndarray:
    """Return the points (P, 3) that are distinct modulo lattice translations."""
    kept: list[int] = []
    for place, point in enumerate(points):
        steps = points[kept] - point
        if not kept or (np.abs(steps - np.round(steps)).max(axis=1) > 1e-6).all():
            kept.append(place)
    return points[kept]


def _check_cell_kind(cell: str) -> None:
    """Raise a CrystensError unless `cell` is one of the `CELLS`."""
    if cell not in CELLS:
        raise CrystensError(f"{cell=} is not known; use one of {', '.join(CELLS)}")
