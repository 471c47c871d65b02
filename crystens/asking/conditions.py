"""From a question to what a model may draw: how many orbits an answer lists, and which codes.

The lists of orbits are those of training crystals (`crystens.asking.known`) or, of a formula of which train has none
of the kind, drawn among all ways to put it on Wyckoff positions (`crystens.asking.positions`). Of a formula element and
position of each orbit are given, of a chemical system the elements, of a space group the group; the rest, the cell and
the coordinates are the model's to draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from crystens.asking.known import KnownOrbits, Orbits
from crystens.asking.positions import Assignments
from crystens.asking.question import Question
from crystens.errors import CrystensError
from crystens.networks.code_heads import Allowed

_NEGLIGIBLE = 1e-3  # weight of a list of orbits, beside that of the most alike one, below which it is left out
_SELDOM = 0.5  # how often a position is taken to occur that no training crystal of the group has


@dataclass(frozen=True, eq=False)
class Conditions:
    """Conditions of n samples.

    Attributes:
        counts: (n,) int64, how many orbits each lists.
        allowed: which codes each may state.
    """

    counts: Tensor
    allowed: Allowed

    @classmethod
    def cat(cls, parts: Sequence[Conditions]) -> Conditions:
        """Return the conditions of all samples, one part after the other."""
        return cls(torch.cat([part.counts for part in parts]), Allowed.cat([part.allowed for part in parts]))


class Answers:
    """Lists of orbits that answer a question, to be drawn from.

    Args:
        question: what is asked.
        known: the training crystals' orbits.
        slots: how many orbits an image has room for.

    Raises:
        CrystensError: if nothing can answer, with the reason.
    """

    def __init__(self, question: Question, known: KnownOrbits, slots: int) -> None:
        self.question, self.known, self.slots = question, known, slots
        self.groups = [number for number in question.groups() if number in known.group_counts]
        if not self.groups:
            asked = question.space_group or question.crystal_system
            raise CrystensError(f"no training crystal of this model has space group {asked}; ask for another")
        strange = sorted(set(_elements(question)) - known.elements)
        if strange:
            raise CrystensError(
                f"{Question(elements=tuple(strange)).symbols} occurs in no training crystal of this model; ask for "
                "other elements"
            )
        self.ways: list[Assignments] = []
        lists, weights = self._lists()
        kept = np.flatnonzero(weights > _NEGLIGIBLE * weights.max(initial=0))  # thousands would be held for a system
        self.lists = [lists[place] for place in kept.tolist()]
        self.weights = weights[kept] / weights[kept].sum() if len(kept) else weights[kept]

    def _lists(self) -> tuple[list[Orbits], np.ndarray]:
        """Return known lists of orbits and their weights, and find the ways where there are none."""
        question = self.question
        if question.formula is not None:
            lists: list[Orbits] = []
            weights: list[np.ndarray] = []
            for amounts in self._amounts():
                found, alike = self.known.of_formula(amounts, self.groups)
                lists += found
                weights.append(alike)
            if not lists:
                self._find_ways()
            return lists, np.concatenate(weights) if weights else np.zeros(0)
        if question.chemical_system is not None:
            lists, alike = self.known.of_system(question.chemical_system, self.groups)
            if not lists:
                raise CrystensError(
                    f"no training crystal of this model has {len(question.chemical_system)} elements"
                    f"{self._in_groups()}; ask for a formula, or for fewer conditions"
                )
            return lists, alike
        lists = [one for one in self.known.crystals if one.space_group in set(self.groups)]
        return lists, np.ones(len(lists))

    def _amounts(self) -> list[dict[int, int]]:
        """Return the amounts of the formula for each number of formula units that the model can draw."""
        formula = dict(self.question.formula or ())
        size = sum(formula.values())
        most = self.known.most_sites // size
        if self.question.z is not None:
            most, least = (self.question.z, self.question.z) if self.question.z <= most else (0, 1)
        else:
            least = 1
        if most < least:
            raise CrystensError(
                f"condition.formula={self.question.to_dict()['formula']} has {size * (self.question.z or 1)} sites in "
                f"the smallest cell that is asked for; this model draws at most {self.known.most_sites}"
            )
        return [{number: z * amount for number, amount in formula.items()} for z in range(least, most + 1)]

    def _find_ways(self) -> None:
        """Find all ways to put the formula on positions of the groups, where no known crystal is of its kind."""
        self.ways, weights = [], []
        for number in self.groups:
            seen = self.known.place_counts[number] + _SELDOM
            for amounts in self._amounts():
                way = Assignments(number, amounts, seen / seen.sum(), self.slots)
                if way.total > 0:
                    self.ways.append(way)
                    weights.append(self.known.group_counts[number] * way.total)
        if not self.ways:
            raise CrystensError(
                f"condition.formula={self.question.to_dict()['formula']} can stand on no Wyckoff positions"
                f"{self._in_groups()}: their multiplicities do not add up to it"
            )
        self.way_weights = np.array(weights) / sum(weights)

    def _in_groups(self) -> str:
        """Return the groups that are asked for, for messages."""
        if self.question.space_group is not None:
            return f" in space group {self.question.space_group}"
        return f" in a {self.question.crystal_system} group" if self.question.crystal_system else ""

    def draw(self, n: int, random: np.random.Generator) -> Conditions:
        """Return what n samples may be."""
        drawn = [self._draw_one(random) for _ in range(n)]
        counts = torch.tensor([len(one.numbers) for one in drawn])
        allowed = Allowed.everything(n, self.slots)
        question = self.question
        if question.space_group is not None or question.crystal_system is not None:
            allowed.groups[:] = False
            allowed.groups[:, self.groups] = True
        if question.elements is not None:
            allowed.elements[:] = False
            allowed.elements[:, :, list(question.elements)] = True
        each = question.formula is not None or question.chemical_system is not None
        for row, one in enumerate(drawn):
            slots = torch.arange(len(one.numbers))
            if each:
                allowed.elements[row, slots] = False
                allowed.elements[row, slots, torch.from_numpy(one.numbers)] = True
            if question.formula is not None:
                allowed.groups[row] = False
                allowed.groups[row, one.space_group] = True
                allowed.positions[row, slots] = False
                allowed.positions[row, slots, torch.from_numpy(one.places)] = True
        return Conditions(counts, allowed)

    def _draw_one(self, random: np.random.Generator) -> Orbits:
        """Return one list of orbits, in the order that images have."""
        if self.ways:
            one = self.ways[int(random.choice(len(self.ways), p=self.way_weights))].draw(random)
        else:
            one = self.lists[int(random.choice(len(self.lists), p=self.weights))]
        order = np.lexsort((one.places, one.numbers))
        return Orbits(one.space_group, one.numbers[order], one.places[order])


def _elements(question: Question) -> list[int]:
    """Return all elements that a question names."""
    of_formula = [number for number, _ in question.formula or ()]
    return [*of_formula, *(question.chemical_system or ()), *(question.elements or ())]
