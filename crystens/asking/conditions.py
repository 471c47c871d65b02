"""From a question to the conditions of samples: the number of orbits of each sample, and its given codes.

Lists of orbits come from training crystals (`crystens.asking.known`). If no training crystal has a formula of the same
kind, they are drawn from all ways to put the formula on Wyckoff positions (`crystens.asking.positions`). If sites of a
structure are kept (`crystens.asking.kept`), the list is that of the structure.

A formula fixes element and position of each orbit, a chemical system the elements, and a space group or a crystal
system the group. The model draws the rest, the cell and the coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from crystens.asking.kept import Kept
from crystens.asking.known import KnownOrbits, Orbits
from crystens.asking.positions import Assignments
from crystens.asking.question import Question
from crystens.errors import CrystensError
from crystens.networks.codes.stated import Allowed
from crystens.networks.told import Told

_NEGLIGIBLE = 1e-3  # a list of orbits is dropped if its weight is below this share of the largest weight
_SELDOM = 0.5  # count of a position that no training crystal of the group has


@dataclass(frozen=True, eq=False)
class Conditions:
    """Conditions of n samples.

    Attributes:
        counts: (n,) int64, number of orbits of each sample.
        told: all other conditions of the network; cells in [0, 1].
    """

    counts: Tensor
    told: Told

    @classmethod
    def cat(cls, parts: Sequence[Conditions]) -> Conditions:
        """Return the conditions of all samples, one part after the other."""
        return cls(torch.cat([part.counts for part in parts]), Told.cat([part.told for part in parts]))


class Answers:
    """Lists of orbits that answer a question; `draw` takes samples from them.

    Args:
        question: the question.
        known: orbits of the training crystals.
        slots: largest number of orbits of an image.
        facts: names of the facts that the network takes, see `crystens.networks.facts`.
        kept: parts of a structure that samples keep.

    Raises:
        CrystensError: if the model cannot answer, with the reason.
    """

    def __init__(
        self,
        question: Question,
        known: KnownOrbits,
        slots: int,
        facts: Sequence[str] = (),
        kept: Kept | None = None,
    ) -> None:
        self.question, self.known, self.slots = question, known, slots
        self.facts, self.kept = tuple(facts), kept
        self.has_sites = kept is not None and bool(kept.placed.any())
        self.groups = [number for number in question.groups() if number in known.group_counts]
        if kept is not None:
            self.groups = [number for number in self.groups if kept.fits(number)]
        if not self.groups:
            asked = question.space_group or question.crystal_system or "of the cell that is kept"
            raise CrystensError(f"no training crystal of this model has space group {asked}; ask for another")
        strange = sorted(set(_elements(question)) - known.elements)
        if strange:
            raise CrystensError(
                f"{Question(elements=tuple(strange)).symbols} occurs in no training crystal of this model; ask for "
                "other elements"
            )
        self.ways: list[Assignments] = []
        lists, weights = self._sized(*self._lists())
        taken = np.flatnonzero(weights > _NEGLIGIBLE * weights.max(initial=0))  # of the thousands for a system
        self.lists = [lists[place] for place in taken.tolist()]
        self.weights = weights[taken] / weights[taken].sum() if len(taken) else weights[taken]

    def _sized(self, lists: list[Orbits], weights: np.ndarray) -> tuple[list[Orbits], np.ndarray]:
        """Return the lists, and their weights, with the size and the charge neutrality of the question."""
        elements, sites = self.question.num_elements, self.question.num_sites
        neutral = self.question.charge_neutral
        if (elements is None and sites is None and neutral is None) or self.ways:
            return lists, weights
        fits = [
            elements in (None, len(one.amounts))
            and sites in (None, sum(one.amounts.values()))
            and (neutral is None or neutral == one.is_charge_neutral)
            for one in lists
        ]
        if not any(fits):
            asked = ", ".join(f"{name}={value}" for name, value in self.question.to_dict().items())
            raise CrystensError(f"no training crystal of this model answers to {asked}; ask for fewer conditions")
        return [one for one, fit in zip(lists, fits, strict=True) if fit], weights[fits]

    def _lists(self) -> tuple[list[Orbits], np.ndarray]:
        """Return known lists of orbits and their weights; find the ways if no list is known."""
        if self.has_sites:
            return self._lists_of_structure()
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

    def _lists_of_structure(self) -> tuple[list[Orbits], np.ndarray]:
        """Return the orbits of the structure whose sites are kept, with other elements if the question names them."""
        assert self.kept is not None
        own, question = self.kept.listed, self.question
        structure = KnownOrbits([own])
        if structure.most_sites > self.known.most_sites:
            raise CrystensError(
                f"condition.structure has {structure.most_sites} sites in its primitive cell, and condition.keep keeps "
                f"some; this model draws at most {self.known.most_sites}: keep no sites, or give a smaller structure"
            )
        if question.formula is not None:
            parts = [structure.of_formula(amounts, self.groups) for amounts in self._amounts()]
            lists = [one for found, _ in parts for one in found]
        elif question.chemical_system is not None:
            lists = structure.of_system(question.chemical_system, self.groups)[0]
        else:
            return [own], np.ones(1)
        lists = [one for one in lists if (one.numbers == own.numbers)[self.kept.whole].all()]
        if not lists:
            raise CrystensError(
                f"the elements {question.symbols} do not fit the kept sites of condition.structure: keep fewer sites, "
                "or ask for other elements"
            )
        return lists, np.ones(len(lists))

    def _amounts(self) -> list[dict[int, int]]:
        """Return the amounts of the formula for each number of formula units that the model can draw."""
        formula = dict(self.question.formula or ())
        size = sum(formula.values())
        most = self.known.most_sites // size
        sites = self.question.num_sites
        if sites is not None:
            if sites % size or self.question.z not in (None, sites // size):
                raise CrystensError(
                    f"condition.num_sites={sites} does not fit the formula unit of {size} sites or condition.z: give "
                    "condition.z alone"
                )
            if sites <= self.known.most_sites:
                return [{number: sites // size * amount for number, amount in formula.items()}]
            most = 0
        if self.question.z is not None:
            most, least = (self.question.z, self.question.z) if self.question.z <= most else (0, 1)
        else:
            least = 1
        if most < least:
            asked = sites or size * (self.question.z or 1)
            raise CrystensError(
                f"condition.formula={self.question.to_dict()['formula']} has {asked} sites in the smallest cell that "
                f"is asked for; this model draws at most {self.known.most_sites}"
            )
        return [{number: z * amount for number, amount in formula.items()} for z in range(least, most + 1)]

    def _find_ways(self) -> None:
        """Find all ways to put the formula on positions of the groups, if no known crystal has a similar formula."""
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
        drawn, orders = zip(*(_ordered(self._draw_one(random)) for _ in range(n)), strict=True)
        counts = torch.tensor([len(one.numbers) for one in drawn])
        allowed = Allowed.everything(n, self.slots)
        question = self.question
        of_cell = self.kept is not None and self.kept.cell
        of_groups = question.space_group is not None or question.crystal_system is not None or of_cell
        if question.elements is not None:
            allowed.elements[:] = False
            allowed.elements[:, :, list(question.elements)] = True
        each = question.formula is not None or question.chemical_system is not None
        for row, one in enumerate(drawn):
            slots = torch.arange(len(one.numbers))
            given = slots if each else torch.tensor([], dtype=torch.int64)
            placed = slots if question.formula is not None else torch.tensor([], dtype=torch.int64)
            if self.has_sites:
                assert self.kept is not None
                given = slots if each else torch.from_numpy(np.flatnonzero(self.kept.whole[orders[row]]))
                placed = torch.from_numpy(np.flatnonzero(self.kept.placed[orders[row]]))
            allowed.elements[row, given] = False
            allowed.elements[row, given, torch.from_numpy(one.numbers)[given]] = True
            if len(placed) or of_groups:
                allowed.groups[row] = False
                allowed.groups[row, one.space_group] = True
            if len(placed):
                allowed.positions[row, placed] = False
                allowed.positions[row, placed, torch.from_numpy(one.places)[placed]] = True
        return Conditions(counts, Told(allowed, self._facts(drawn), self._cells(drawn, orders)))

    def _facts(self, drawn: Sequence[Orbits]) -> Tensor | None:
        """Return the facts of samples, (n, F), NaN if not asked for; None if the network takes no facts."""
        if not self.facts:
            return None
        question = self.question
        asked = dict(question.properties)
        if question.charge_neutral is not None:
            asked["charge_neutral"] = question.charge_neutral
        # Other lists have elements or amounts that may change.
        is_final = question.formula is not None or (
            question.chemical_system is None and question.elements is None and self.kept is None
        )
        most = len(self.question.elements) if self.question.elements is not None else np.inf
        rows = []
        for one in drawn:
            amounts = one.amounts
            counted = {"num_elements": min(len(amounts), most), "num_sites": sum(amounts.values())}
            if is_final:
                counted["charge_neutral"] = one.is_charge_neutral
            rows.append([float((counted | asked).get(name, np.nan)) for name in self.facts])
        return torch.tensor(rows)

    def _cells(self, drawn: Sequence[Orbits], orders: Sequence[np.ndarray]) -> Tensor | None:
        """Return the known cells of samples, (n, 4, S, S), NaN for unknown ones; None if nothing is kept."""
        if self.kept is None or not (self.kept.cell or self.has_sites):
            return None
        cells = [self.kept.cells(len(one.numbers), order) for one, order in zip(drawn, orders, strict=True)]
        return torch.stack(cells)

    def _draw_one(self, random: np.random.Generator) -> Orbits:
        """Return one list of orbits."""
        if self.ways:
            return self.ways[int(random.choice(len(self.ways), p=self.way_weights))].draw(random)
        return self.lists[int(random.choice(len(self.lists), p=self.weights))]


def _ordered(one: Orbits) -> tuple[Orbits, np.ndarray]:
    """Return a list of orbits in the order of images, and the index of the orbit in each slot, (K,)."""
    order = np.lexsort((one.places, one.numbers))
    return Orbits(one.space_group, one.numbers[order], one.places[order]), order


def _elements(question: Question) -> list[int]:
    """Return all elements that a question names."""
    of_formula = [number for number, _ in question.formula or ()]
    return [*of_formula, *(question.chemical_system or ()), *(question.elements or ())]
