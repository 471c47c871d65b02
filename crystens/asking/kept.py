"""A known structure of which generated crystals keep parts: cell, all or some sites, space group, elements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crystens.asking.known import Orbits
from crystens.asking.question import Question
from crystens.crystal import Crystal
from crystens.encoding import COORDINATE_ROWS, GROUP_ROW, HEADER
from crystens.errors import CrystensError
from crystens.orbits.batch import OrbitBatch, places_of_letters
from crystens.symmetry.descriptions import describe_sites
from crystens.symmetry.orbit_crystal import OrbitCrystal
from crystens.symmetry.space_groups import crystal_system

_LATTICE = slice(COORDINATE_ROWS.stop, GROUP_ROW)  # rows of the lattice parameters
_FAMILIES = {"trigonal": "hexagonal"}  # crystal systems whose conventional cells have the same shape


@dataclass(frozen=True, eq=False)
class Kept:
    """Parts of a structure.

    Attributes:
        orbits: the structure.
        cell: whether its cell is kept.
        placed: which orbits keep position and coordinates, (K,) bool; any of them keeps the space group too.
        whole: which of these keep their element, (K,) bool.
        image: the structure's image, (4, S, S) in [0, 1].
    """

    orbits: OrbitCrystal
    cell: bool
    placed: np.ndarray
    whole: np.ndarray
    image: Tensor

    @classmethod
    def of(
        cls, structure: Crystal, question: Question, encode: Callable[[OrbitBatch], Tensor], slots: int
    ) -> tuple[Kept, Question]:
        """Return the parts of a structure that a question keeps, and the question with the conditions that follow.

        Args:
            structure: the structure in any cell; `keep` counts its sites in their order.
            question: question with `structure` and `keep`.
            encode: makes images (B, 4, S, S) of orbits.
            slots: largest number of orbits of an image.

        Raises:
            CrystensError: if an image of the model cannot hold the structure, or the parts contradict the question.
        """
        orbits, orbit_of_site = describe_sites(structure)
        if len(orbits) > slots:
            raise CrystensError(
                f"condition.structure has {len(orbits)} orbits; this model draws at most {slots}: ask without it"
            )
        sites = [item for item in question.keep if isinstance(item, int)]
        if sites and max(sites) >= len(structure):
            raise CrystensError(
                f"condition.keep={max(sites)} is no site of condition.structure, whose {len(structure)} sites are "
                f"counted from 0"
            )
        whole = np.zeros(len(orbits), dtype=bool)
        whole[orbit_of_site[sites]] = True
        placed = np.ones(len(orbits), dtype=bool) if "sites" in question.keep else whole.copy()
        derived = question
        if "space_group" in question.keep or placed.any():
            derived = _with(derived, "space_group", orbits.space_group)
        if "formula" in question.keep:
            amounts = tuple(sorted(Counter(structure.numbers.tolist()).items()))
            derived = _with(derived, "formula", question.formula or _reduced(amounts))
        elif "elements" in question.keep and question.formula is None:
            derived = _with(derived, "chemical_system", tuple(sorted(set(structure.numbers.tolist()))))
        derived.check()
        batch = OrbitBatch.from_orbits([orbits], slots)
        kept = cls(orbits, "cell" in question.keep, placed, whole, encode(batch)[0])
        family, asked = _family(orbits.space_group), derived.space_group
        if kept.cell and asked is not None and _family(asked) != family:
            raise CrystensError(
                f"condition.space_group={asked} is {crystal_system(asked)}, and the cell of condition.structure is "
                f"{family}: keep no cell, or ask for another group"
            )
        return kept, derived

    def fits(self, number: int) -> bool:
        """Return whether crystals of a space group can have the cell, if the cell is kept."""
        return not self.cell or _family(number) == _family(self.orbits.space_group)

    @property
    def listed(self) -> Orbits:
        """The orbits of the structure, without cell and coordinates."""
        return Orbits(self.orbits.space_group, self.orbits.numbers, places_of_letters(self.orbits).astype(np.int64))

    def cells(self, count: int, order: np.ndarray) -> Tensor:
        """Return the known cells of an image, (4, S, S) in [0, 1], NaN for unknown ones.

        Args:
            count: number of orbits of the image.
            order: index of the structure's orbit in each slot of the image; used if any orbit is placed.
        """
        known = torch.full_like(self.image, torch.nan)
        if self.cell:
            slots = slice(HEADER, HEADER + count)
            known[:, _LATTICE, slots] = self.image[:, _LATTICE, HEADER : HEADER + 1]
            known[:, slots, _LATTICE] = self.image[:, HEADER : HEADER + 1, _LATTICE]
        for slot, place in enumerate(order.tolist()):
            if self.placed.any() and self.placed[place]:
                known[:, COORDINATE_ROWS, HEADER + slot] = self.image[:, COORDINATE_ROWS, HEADER + place]
                known[:, HEADER + slot, COORDINATE_ROWS] = self.image[:, HEADER + place, COORDINATE_ROWS]
        return known


def _with(question: Question, name: str, value: Any) -> Question:
    """Return a question with one more condition.

    Raises:
        CrystensError: if the question has another value of that condition.
    """
    asked = getattr(question, name)
    if asked is not None and asked != value:
        raise CrystensError(
            f"condition.{name}={asked} is not the one of condition.structure, which condition.keep keeps: leave one out"
        )
    return replace(question, **{name: value})


def _reduced(amounts: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """Return amounts of one formula unit."""
    divisor = int(np.gcd.reduce([amount for _, amount in amounts]))
    return tuple((number, amount // divisor) for number, amount in amounts)


def _family(number: int) -> str:
    """Return the crystal family of a space group."""
    system = crystal_system(number)
    return _FAMILIES.get(system, system)
