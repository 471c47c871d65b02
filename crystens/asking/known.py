"""The orbits of the training crystals: elements on Wyckoff positions of a space group.

Questions are answered with the orbits of real crystals. For a formula, crystals with the same amounts are taken, and
their elements are exchanged for those of the formula. A crystal with similar elements is drawn more often. Similar
elements have close Mendeleev numbers, because elements that replace each other in crystals do.

Source: Pettifor, "A chemical scale for crystal-structure maps", Solid State Communications 51 (1984) 31; numbers as
pymatgen's `Element.mendeleev_no` gives them, from Villars et al., J. Alloys Compd. 367 (2004) 167.
"""

from __future__ import annotations

import functools
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pymatgen.core import Element
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from crystens.chemistry.charge_neutrality import is_charge_neutral
from crystens.crystal import MAX_ATOMIC_NUMBER
from crystens.orbits.batch import OrbitBatch
from crystens.symmetry.wyckoff import primitive_multiplicities, space_group

_ALIKE = 1.0  # mean difference of Mendeleev numbers that makes a crystal e times less likely
_APART = 1e6  # cost of an exchange that changes the formula


@dataclass(frozen=True, eq=False)
class Orbits:
    """The orbits of one crystal without cell and coordinates.

    Attributes:
        space_group: 1-230.
        numbers: (K,) int64, atomic number of each orbit.
        places: (K,) int64, index of its Wyckoff position among those of the group.
    """

    space_group: int
    numbers: np.ndarray
    places: np.ndarray

    @property
    def amounts(self) -> dict[int, int]:
        """Number of sites of each element in the primitive cell, by atomic number."""
        found: dict[int, int] = defaultdict(int)
        multiplicities = primitive_multiplicities(self.space_group)
        for number, place in zip(self.numbers.tolist(), self.places.tolist(), strict=True):
            found[number] += multiplicities[place]
        return dict(found)

    @property
    def is_charge_neutral(self) -> bool:
        """Whether the charges of the crystal can balance, see `crystens.chemistry.charge_neutrality`."""
        amounts = self.amounts
        return is_charge_neutral(np.repeat(list(amounts), list(amounts.values())))


class KnownOrbits:
    """The orbits of many crystals.

    Args:
        crystals: lists of orbits.
    """

    def __init__(self, crystals: Iterable[Orbits]) -> None:
        self.crystals = list(crystals)

    def __len__(self) -> int:
        """Return the number of crystals."""
        return len(self.crystals)

    @classmethod
    def of(cls, batch: OrbitBatch) -> KnownOrbits:
        """Return the orbits of a batch of crystals."""
        parts = (batch.space_groups, batch.counts, batch.numbers, batch.positions)
        groups, counts, numbers, places = (part.numpy(force=True).astype(np.int64) for part in parts)
        return cls(
            Orbits(int(group), listed[:count], positions[:count])
            for group, count, listed, positions in zip(groups, counts, numbers, places, strict=True)
        )

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the orbits as tensors, for a checkpoint: one byte for the element of an orbit, one for its place."""
        numbers = np.concatenate([one.numbers for one in self.crystals] or [np.zeros(0)])
        places = np.concatenate([one.places for one in self.crystals] or [np.zeros(0)])
        return {
            "groups": torch.tensor([one.space_group for one in self.crystals], dtype=torch.uint8),
            "counts": torch.tensor([len(one.numbers) for one in self.crystals], dtype=torch.uint8),
            "numbers": torch.tensor(numbers, dtype=torch.uint8),
            "places": torch.tensor(places, dtype=torch.uint8),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> KnownOrbits:
        """Return the orbits in the tensors of `to_tensors`."""
        groups, counts = tensors["groups"].tolist(), tensors["counts"].tolist()
        numbers, places = (tensors[name].long().split(counts) for name in ("numbers", "places"))
        listed = zip(groups, numbers, places, strict=True)
        return cls(Orbits(group, elements.numpy(), positions.numpy()) for group, elements, positions in listed)

    @functools.cached_property
    def elements(self) -> frozenset[int]:
        """The elements that occur, by atomic number."""
        return frozenset(number for one in self.crystals for number in one.numbers.tolist())

    @functools.cached_property
    def group_counts(self) -> dict[int, int]:
        """Number of crystals of each space group that occurs."""
        found: dict[int, int] = defaultdict(int)
        for one in self.crystals:
            found[one.space_group] += 1
        return dict(found)

    @functools.cached_property
    def place_counts(self) -> dict[int, np.ndarray]:
        """Number of orbits on each position, (P,), of each space group that occurs."""
        found: dict[int, np.ndarray] = {}
        for one in self.crystals:
            counts = found.setdefault(one.space_group, np.zeros(len(space_group(one.space_group).positions)))
            np.add.at(counts, one.places, 1)
        return found

    @functools.cached_property
    def most_sites(self) -> int:
        """Largest number of sites in a primitive cell."""
        return max((sum(one.amounts.values()) for one in self.crystals), default=0)

    @functools.cached_property
    def _by_amounts(self) -> dict[tuple[int, ...], list[int]]:
        """Indices of crystals by the sorted amounts of their elements in the primitive cell."""
        found: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for place, one in enumerate(self.crystals):
            found[tuple(sorted(one.amounts.values()))].append(place)
        return dict(found)

    def of_formula(self, amounts: Mapping[int, int], groups: Sequence[int]) -> tuple[list[Orbits], np.ndarray]:
        """Return known crystals with elements exchanged to give certain amounts, and their weights.

        Args:
            amounts: sites of each element in the primitive cell, by atomic number.
            groups: allowed space groups.

        Returns:
            K lists of orbits, and their weights (K,), 1 if no element was exchanged.
        """
        asked, wanted = np.array(sorted(amounts)), set(groups)
        found, weights = [], []
        for place in self._by_amounts.get(tuple(sorted(amounts.values())), []):
            one = self.crystals[place]
            if one.space_group not in wanted:
                continue
            own = one.amounts
            labels = np.array(sorted(own))
            have = np.array([own[number] for number in labels.tolist()])
            want = np.array([amounts[number] for number in asked.tolist()])
            steps = unlikeness()[labels[:, None], asked] * have[:, None]
            exchanged, distance = _exchanged(one, labels, asked, np.where(have[:, None] == want, steps, _APART))
            found.append(exchanged)
            weights.append(np.exp(-distance / have.sum() / _ALIKE))
        return found, np.array(weights)

    def of_system(self, elements: Sequence[int], groups: Sequence[int]) -> tuple[list[Orbits], np.ndarray]:
        """Return known crystals with elements exchanged for `elements`, and their weights, see `of_formula`."""
        asked, wanted = np.array(sorted(elements)), set(groups)
        found, weights = [], []
        for one in self.crystals:
            labels, amounts = np.unique(one.numbers, return_counts=True)
            if len(labels) != len(asked) or one.space_group not in wanted:
                continue
            steps = unlikeness()[labels[:, None], asked] * amounts[:, None]
            exchanged, distance = _exchanged(one, labels, asked, steps)
            found.append(exchanged)
            weights.append(np.exp(-distance / amounts.sum() / _ALIKE))
        return found, np.array(weights)


def _exchanged(one: Orbits, labels: np.ndarray, asked: np.ndarray, costs: np.ndarray) -> tuple[Orbits, float]:
    """Return orbits with elements `labels` exchanged for `asked` at the least of the costs (L, L), and that cost."""
    rows, columns = linear_sum_assignment(costs)
    table = np.zeros(MAX_ATOMIC_NUMBER + 1, dtype=np.int64)
    table[labels[rows]] = asked[columns]
    return Orbits(one.space_group, table[one.numbers], one.places), float(costs[rows, columns].sum())


@functools.cache
def unlikeness() -> np.ndarray:
    """Return differences of the Mendeleev numbers of elements, (119, 119), by atomic number.

    Elements without a number, 104 and above, get the largest difference from all others.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen warns of elements without a number
        numbers = [Element.from_Z(number).mendeleev_no for number in range(1, MAX_ATOMIC_NUMBER + 1)]
    places = np.array([np.nan, *(np.nan if number is None else number for number in numbers)], dtype=float)
    apart = np.abs(places[:, None] - places)
    apart = np.nan_to_num(apart, nan=np.nanmax(apart))
    np.fill_diagonal(apart, 0)
    return apart
