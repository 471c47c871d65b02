"""A batch of crystals as lists of orbits: `CrystalBatch` with one slot an orbit, and a Wyckoff position for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from crystens.batch import CrystalBatch
from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.orbits.orbit_crystal import OrbitCrystal
from crystens.symmetry.wyckoff import space_group


@dataclass(frozen=True, eq=False)
class OrbitBatch(CrystalBatch):
    """B crystals in the conventional cells of their groups, N orbit slots of which the first `counts[b]` are filled.

    What `CrystalBatch` says of sites holds of the orbits' representatives. Their order is that of the list; it is not
    to be changed by `in_canonical_order`, which knows no positions.

    Attributes:
        positions: (B, N) uint8, place of the Wyckoff letter among those of the group: a is 0.
    """

    positions: Tensor

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
            letters = crystal.group.letters
            positions[row, : len(crystal)] = [letters.index(letter) for letter in crystal.letters]
        return cls(**vars(batch), positions=torch.from_numpy(positions))

    def orbits(self, index: int) -> OrbitCrystal:
        """Return one crystal (float32 precision; `crystens.orbits.projection` makes it exact)."""
        listed = self.crystal(index)
        letters = space_group(listed.space_group).letters
        places = self.positions[index, : len(listed)].tolist()
        return OrbitCrystal(
            listed.lengths,
            listed.angles,
            listed.space_group,
            listed.numbers,
            "".join(letters[place] for place in places),
            listed.coordinates,
        )

    def in_canonical_order(self) -> OrbitBatch:
        """Raise: the list has its order."""
        raise CrystensError("a list of orbits has its own order; it is not sorted again")
