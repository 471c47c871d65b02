"""A batch of crystals as lists of orbits: `CrystalBatch` with one slot for each orbit, and its Wyckoff position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from crystens.batch import CrystalBatch
from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.symmetry.orbit_crystal import CrystalWithOrbits, OrbitCrystal
from crystens.symmetry.wyckoff import space_group


@dataclass(frozen=True, eq=False)
class OrbitBatch(CrystalBatch):
    """B crystals in conventional cells, with N orbit slots, of which the first `counts[b]` are filled.

    The arrays for sites in `CrystalBatch` hold the representatives of orbits. They keep the order of the list;
    `in_canonical_order` must not be used, because it would not sort the positions.

    Attributes:
        positions: (B, N) uint8, index of the Wyckoff letter in the group: a is 0.
    """

    positions: Tensor

    @classmethod
    def from_crystals(cls, crystals: Sequence[Crystal], max_sites: int) -> OrbitBatch:
        """Stack the orbits of crystals that keep them, see `from_orbits`; `max_sites` is the number of orbit slots.

        Raises:
            CrystensError: if a crystal keeps no orbits, or too many.
        """
        return cls.from_orbits([_orbits(crystal) for crystal in crystals], max_sites)

    @classmethod
    def from_orbits(cls, crystals: Sequence[OrbitCrystal], max_orbits: int) -> OrbitBatch:
        """Stack crystals, in the order and with the order of orbits given.

        Raises:
            CrystensError: if a crystal has more than `max_orbits` orbits.
        """
        for crystal in crystals:
            if len(crystal) > max_orbits:
                formula = crystal.to_crystal().formula
                raise CrystensError(f"{formula} has {len(crystal)} orbits, more than {max_orbits=}")
        listed = [Crystal(c.lengths, c.angles, c.space_group, c.numbers, c.coordinates) for c in crystals]
        batch = CrystalBatch.from_crystals(listed, max_orbits)
        positions = np.zeros((len(crystals), max_orbits), dtype=np.uint8)
        for row, crystal in enumerate(crystals):
            positions[row, : len(crystal)] = places_of_letters(crystal)
        return cls(**vars(batch), positions=torch.from_numpy(positions))

    def orbits(self, index: int) -> OrbitCrystal:
        """Return one crystal (float32 precision; `crystens.symmetry.projection` makes it exact)."""
        listed = self.crystal(index)
        return listed_orbits(
            listed.lengths,
            listed.angles,
            listed.space_group,
            listed.numbers,
            self.positions[index, : len(listed)].numpy(force=True),
            listed.coordinates,
        )

    def in_canonical_order(self) -> OrbitBatch:
        """Raise: lists of orbits are not sorted."""
        raise CrystensError("a list of orbits has a fixed order and must not be sorted")


def _orbits(crystal: Crystal) -> OrbitCrystal:
    """Return the orbits that a crystal keeps."""
    if not isinstance(crystal, CrystalWithOrbits):
        raise CrystensError(f"{crystal.formula} keeps no orbits; read it with data.limits.sites=orbits")
    return crystal.orbits


def places_of_letters(crystal: OrbitCrystal) -> np.ndarray:
    """Return the index of each orbit's Wyckoff letter in the group, (K,) uint8: a is 0."""
    letters = crystal.group.letters
    return np.array([letters.index(letter) for letter in crystal.letters], dtype=np.uint8)


def listed_orbits(
    lengths: np.ndarray,
    angles: np.ndarray,
    number: int,
    numbers: np.ndarray,
    places: np.ndarray,
    coordinates: np.ndarray,
) -> OrbitCrystal:
    """Return orbits of space group `number`, with Wyckoff letters from their `places_of_letters`."""
    letters = space_group(number).letters
    return OrbitCrystal(
        np.asarray(lengths, dtype=np.float64),
        np.asarray(angles, dtype=np.float64),
        number,
        np.asarray(numbers, dtype=np.int64),
        "".join(letters[place] for place in places.tolist()),
        np.asarray(coordinates, dtype=np.float64),
    )
