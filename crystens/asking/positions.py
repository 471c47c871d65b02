"""All ways to put a formula on the Wyckoff positions of a space group.

Each element needs so many sites; each position gives as many as its multiplicity, as often as one likes if it has a
free parameter, and once in all if it has none. How many ways there are grows fast, so they are counted and drawn, not
listed: a way has the weight of the product of the weights of its positions, and the sums of weights of what is left,
element by element and position by position, follow from each other and are kept.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np

from crystens.asking.known import Orbits
from crystens.symmetry.wyckoff import primitive_multiplicities, space_group


class Assignments:
    """The ways to put a formula on the positions of a space group.

    Args:
        number: space group, 1-230.
        amounts: sites of each element in the primitive cell, by atomic number.
        weights: of each position, (P,), all above 0; None for 1.
        most_orbits: more are no way.
    """

    def __init__(
        self, number: int, amounts: Mapping[int, int], weights: np.ndarray | None = None, most_orbits: int = 255
    ) -> None:
        self.number = number
        self.elements = sorted(amounts)
        self.amounts = [amounts[element] for element in self.elements]
        self.multiplicities = primitive_multiplicities(number)
        self.weights = np.ones(len(self.multiplicities)) if weights is None else np.asarray(weights, dtype=float)
        self.most_orbits = most_orbits
        fixed = [place for place, position in enumerate(space_group(number).positions) if position.freedom == 0]
        self.bits = {place: 1 << bit for bit, place in enumerate(fixed)}
        self._sum = functools.lru_cache(maxsize=None)(self._sum_of)

    @property
    def total(self) -> float:
        """The sum of the weights of all ways; 0 where there is none."""
        return self._sum(0, self.amounts[0], 0, 0, self.most_orbits) if self.elements else 0.0

    def draw(self, random: np.random.Generator) -> Orbits:
        """Return a way, drawn by its weight.

        Raises:
            ValueError: if there is none.
        """
        if self.total <= 0:
            raise ValueError("there is no way to draw")
        numbers: list[int] = []
        places: list[int] = []
        element, left, place, used, orbits = 0, self.amounts[0], 0, 0, self.most_orbits
        while element < len(self.elements):
            steps = self._steps(element, left, place, used, orbits)
            sums = np.array([weight * self._sum(*state) for weight, state, _ in steps])
            _, state, taken = steps[int(random.choice(len(steps), p=sums / sums.sum()))]
            if taken:
                numbers.append(self.elements[element])
                places.append(place)
            element, left, place, used, orbits = state
        return Orbits(self.number, np.array(numbers, dtype=np.int64), np.array(places, dtype=np.int64))

    def _sum_of(self, element: int, left: int, place: int, used: int, orbits: int) -> float:
        """Return the sum of the weights of all ways to go on from here.

        Args:
            element: the place of the element that is being put.
            left: how many sites it still needs.
            place: the first position that may be taken.
            used: bits of the positions without freedom that are taken.
            orbits: how many orbits may still be taken.
        """
        if element == len(self.elements):
            return 1.0
        return sum(weight * self._sum(*state) for weight, state, _ in self._steps(element, left, place, used, orbits))

    def _steps(
        self, element: int, left: int, place: int, used: int, orbits: int
    ) -> list[tuple[float, tuple[int, int, int, int, int], bool]]:
        """Return what may be done next: its weight, where it leads, and whether the position is taken."""
        if place == len(self.multiplicities):
            return []
        steps = [(1.0, (element, left, place + 1, used, orbits), False)]
        bit = self.bits.get(place, 0)
        rest = left - self.multiplicities[place]
        if rest >= 0 and orbits > 0 and not used & bit:
            weight = float(self.weights[place])
            if rest > 0:
                steps.append((weight, (element, rest, place + (bit > 0), used | bit, orbits - 1), True))
            else:
                following = self.amounts[element + 1] if element + 1 < len(self.elements) else 0
                steps.append((weight, (element + 1, following, 0, used | bit, orbits - 1), True))
        return steps
