"""Exact fractions for coordinates that symmetry fixes.

Some operations map a site on a special position onto itself. The mean P (3, 3) of their rotations projects onto the
directions in which the site may move on its position. If row k of P is zero, coordinate k is fixed. Relative to the
group's origin a fixed coordinate is a multiple of 1/24 (of 1/2, 1/3, 1/4, 1/6 or 1/8) in every conventional and
primitive cell. A free coordinate near such a fraction is not changed.

Source: International Tables for Crystallography A (2016), ch. 1.4, on site symmetry.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from crystens.distances import shortest_lengths
from crystens.symmetry.space_groups import SymmetrisedCrystal

_DENOMINATOR = 24
_ORIGIN_STEPS = 4  # equivalent origins are multiples of 1/4 apart, of which the nearest is taken
_SAME = 1e-3  # angstrom: tolerance for a symmetrised site and its image under an operation


@dataclass(frozen=True, eq=False)
class OnSpecialPositions:
    """A symmetrised crystal whose fixed coordinates are exact fractions.

    Attributes:
        symmetry: the crystal, and its operations from its new origin.
        shift: (3,) float, fractional: subtracted from all coordinates.
        fixed: (N, 3) bool: whether symmetry fixes a coordinate.
    """

    symmetry: SymmetrisedCrystal
    shift: np.ndarray
    fixed: np.ndarray


def on_special_positions(symmetry: SymmetrisedCrystal) -> OnSpecialPositions:
    """Return a symmetrised crystal with the origin of the group and exact fixed coordinates.

    The function takes the nearest of the origins at multiples of 1/4. Along polar directions nothing is moved.
    """
    crystal, rotations = symmetry.crystal, symmetry.rotations
    free = rotations.mean(axis=0)  # projection onto the vectors that all rotations keep
    offset = symmetry.origin - np.round(symmetry.origin * _ORIGIN_STEPS) / _ORIGIN_STEPS
    shift = offset - free @ offset
    if np.abs(shift * crystal.lengths).max() < 1e-6:
        shift = np.zeros(3)
    coordinates = crystal.coordinates - shift
    translations = symmetry.translations + rotations @ shift - shift
    fixed = np.zeros(coordinates.shape, dtype=bool)
    for site, place in enumerate(coordinates):
        stays = shortest_lengths(crystal.vectors, rotations @ place + translations - place, _SAME) < _SAME
        fixed[site] = (np.abs(rotations[stays].mean(axis=0)) < 1e-9).all(axis=1)
    fractions = np.round(coordinates * _DENOMINATOR) / _DENOMINATOR
    # In a supercell or a skewed cell a fixed coordinate may be another fraction; it is not changed.
    near = np.abs(coordinates - fractions) * crystal.lengths < _SAME
    exact = replace(crystal, coordinates=np.where(fixed & near, fractions, coordinates))
    moved = SymmetrisedCrystal(
        exact, rotations, translations - np.floor(translations), symmetry.orbits, symmetry.origin - shift
    )
    return OnSpecialPositions(moved, shift, fixed & near)
