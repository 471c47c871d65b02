"""All ways to put a formula on the Wyckoff positions of a space group.

The multiplicities of the positions of an element add up to its number of sites. A position with a free parameter may be
used any number of times, and a position without one only once. There are too many ways to list them. Therefore a
recursion over elements and positions sums their weights, and ways are drawn by these sums. The weight of a way is the
product of the weights of its positions.
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
        weights: weight of each position, (P,), all above 0; None for 1.
        most_orbits: largest number of orbits of a way.
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
        """The sum of the weights of all ways; 0 if there is none."""
        return self._sum(0, self.amounts[0], 0, 0, self.most_orbits) if self.elements else 0.0

    def draw(self, random: np.random.Generator) -> Orbits:
        """Return a way, drawn by its weight.

        Raises:
            ValueError: if there is no way.
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
        """Return the sum of the weights of all ways that begin with the given choices.

        Args:
            element: index of the current element.
            left: sites that this element still needs.
            place: index of the first position that may be taken.
            used: bits of the taken positions without a free parameter.
            orbits: number of orbits that may still be taken.
        """
        if element == len(self.elements):
            return 1.0
        return sum(weight * self._sum(*state) for weight, state, _ in self._steps(element, left, place, used, orbits))

    def _steps(
        self, element: int, left: int, place: int, used: int, orbits: int
    ) -> list[tuple[float, tuple[int, int, int, int, int], bool]]:
        """Return the next choices: weight, following state, and whether the position is taken."""
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
