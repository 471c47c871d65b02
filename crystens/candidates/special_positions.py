"""Coordinates that symmetry fixes, written as the simple fractions that they are.

A site on a special position is left where it is by some operations. The mean P (3, 3) of their rotations is the
projection onto the directions in which the site may move without leaving its position; a row k of zeros in P says that
its k-th coordinate is fixed. Seen from the group's origin such a coordinate is a multiple of 1/24 (of 1/2, 1/3, 1/4,
1/6 or 1/8) in every conventional and primitive cell. A coordinate that is only near to such a fraction is left alone.

Source: International Tables for Crystallography A (2016), ch. 1.4, on site symmetry.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from crystens.distances import shortest_lengths
from crystens.symmetry.space_groups import SymmetrisedCrystal

_DENOMINATOR = 24
_ORIGIN_STEPS = 4  # the origin may be any of those that are multiples of 1/4 apart: the nearest one is taken
_SAME = 1e-3  # angstrom, up to which a symmetrised site is where an operation puts it


@dataclass(frozen=True, eq=False)
class OnSpecialPositions:
    """A symmetrised crystal whose fixed coordinates are exact fractions.

    Attributes:
        symmetry: the crystal, and its operations from its new origin.
        shift: (3,) float, fractional: what was taken off all coordinates.
        fixed: (N, 3) bool: coordinates that symmetry fixes.
    """

    symmetry: SymmetrisedCrystal
    shift: np.ndarray
    fixed: np.ndarray


def on_special_positions(symmetry: SymmetrisedCrystal) -> OnSpecialPositions:
    """Return a symmetrised crystal with its origin on that of the group and its fixed coordinates exact.

    The nearest of the origins that are multiples of 1/4 apart is taken; along directions in which the group has no
    origin nothing is moved.
    """
    crystal, rotations = symmetry.crystal, symmetry.rotations
    free = rotations.mean(axis=0)  # projects onto what all rotations leave alone
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
    # In a supercell or a skewed cell a fixed coordinate may be another fraction; it stays as it is.
    near = np.abs(coordinates - fractions) * crystal.lengths < _SAME
    exact = replace(crystal, coordinates=np.where(fixed & near, fractions, coordinates))
    moved = SymmetrisedCrystal(
        exact, rotations, translations - np.floor(translations), symmetry.orbits, symmetry.origin - shift
    )
    return OnSpecialPositions(moved, shift, fixed & near)
