"""Which crystals are the same as an earlier one: StructureMatcher's own answer, without asking it about every pair.

Two crystals are the same if pymatgen's StructureMatcher with its default tolerances says so (`MATCHER`), the earlier or
known crystal given first: its answer can depend on the order. Cheap filters come first, and
discard only pairs that it would not match:

- another reduced formula; such a crystal is not looked at further, nor is a crystal that is alone with its formula;
- other numbers of atoms of each element in the primitive cell;
- lattices that no choice of cell brings within the tolerance. At equal volumes StructureMatcher wants a cell of the
  first lattice whose lengths are those of the second one's cell within a factor 1 + ltol. These are three vectors that
  span the lattice, so that the i-th of its successive minima (the shortest vector, the shortest one that is not
  parallel to it, the shortest one out of their plane) is at most 1 + ltol times the i-th length of that cell.

The remaining crystals are compared, most similar first (`crystens.matching.structure_matching.fingerprint`), and the
first match ends the search, which changes the price and not the answer. Each crystal is brought to its primitive Niggli
cell once.

A sample is unique if it is the same as no unique one before it, and belongs to the group of the first unique one that
it is the same as. These are the groups of `StructureMatcher.group_structures`, as the field counts them, and not the
chains of matches of `crystens.matching.structure_matching.group_matches`.

Source: Ong et al., Python Materials Genomics (pymatgen), Comput. Mater. Sci. 68, 314 (2013), and the code of its
StructureMatcher.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from pymatgen.core import Lattice

from crystens.crystal import Crystal
from crystens.matching.structure_matching import ReducedCell, attempted, reduced_cell

LENGTH_TOLERANCE, SITE_TOLERANCE, ANGLE_TOLERANCE = 0.2, 0.3, 5.0
MATCHER = (
    f"pymatgen's StructureMatcher, default tolerances (ltol {LENGTH_TOLERANCE}, stol {SITE_TOLERANCE}, angle_tol "
    f"{ANGLE_TOLERANCE:g} degrees, primitive cells, volumes scaled to each other)"
)

# Whole-number combinations of a reduced cell's vectors, among which its lattice's shortest vectors are.
_COMBINATIONS = np.array([step for step in itertools.product(range(-3, 4), repeat=3) if any(step)])
_ROUNDING = 1e-6  # relative, of lengths


@dataclass(frozen=True)
class Found:
    """Result of a search.

    Attributes:
        place: of the crystal that is the same; None if there is none, or if it is not known.
        reason: why it is not known whether there is one, `category: details`; None if it is known.
    """

    place: int | None = None
    reason: str | None = None


class Comparable:
    """A crystal that is brought to its primitive Niggli cell when that is first needed, and once."""

    def __init__(self, crystal: Crystal) -> None:
        self._crystal = crystal
        self.formula = crystal.formula

    @cached_property
    def cell(self) -> ReducedCell | str:
        """The cell, or why there is none."""
        return attempted(reduced_cell, self._crystal)


@dataclass(eq=False)
class _Group:
    """Crystals with the same numbers of the same elements in their primitive cells, in the order of their places."""

    places: list[int] = field(default_factory=list)
    cells: list[ReducedCell] = field(default_factory=list)
    minima: list[np.ndarray] = field(default_factory=list)


class Pool:
    """Crystals among which others are looked for.

    Attributes:
        counts: how many pairs there were, and how many of them were left behind each step of the search.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._size = 0
        self._waiting: dict[str, list[tuple[int, Comparable]]] = defaultdict(list)
        self._groups: dict[str, dict[bytes, _Group]] = defaultdict(dict)
        self._failures: dict[str, list[str]] = defaultdict(list)

    def __len__(self) -> int:
        """Return the number of crystals."""
        return self._size

    def add(self, place: int, crystal: Comparable) -> None:
        """Add a crystal; places are given in rising order."""
        self._size += 1
        self._waiting[crystal.formula].append((place, crystal))

    def find(self, crystal: Comparable, lowest: bool = False) -> Found:
        """Return the place of a known crystal that is the same as this one.

        Args:
            crystal: what is looked for.
            lowest: whether the lowest such place is wanted; otherwise the most similar is taken.

        It is not known if this crystal cannot be reduced to its primitive cell, or if a comparison fails or takes too
        long and no other one finds a match.
        """
        self.counts["pairs"] += self._size
        formula = crystal.formula
        if not self._waiting[formula] and not self._groups[formula]:
            return self._without_match(formula)
        cell = crystal.cell
        if isinstance(cell, str):
            return Found(None, f"not compared: {cell}")
        self._reduce_waiting(formula)
        self.counts["same formula"] += sum(len(group.places) for group in self._groups[formula].values())
        group = self._groups[formula].get(cell.content)
        if group is None:
            return self._without_match(formula)
        self.counts["same content"] += len(group.places)
        bounds = (1 + LENGTH_TOLERANCE) * (1 + _ROUNDING) * np.sort(np.linalg.norm(_at_unit_volume(cell), axis=1))
        possible = np.flatnonzero((np.array(group.minima) <= bounds).all(axis=1))
        self.counts["lattices could match"] += len(possible)
        if len(possible) > 1:
            distances = np.array([group.cells[k].fingerprint for k in possible]) - cell.fingerprint
            order = possible[np.argsort(np.square(distances).sum(axis=1), kind="stable")]
        else:
            order = possible
        tried: dict[int, bool | str] = {}
        match = self._first_match(group, cell, order.tolist(), tried)
        if match is not None and lowest:
            lower = self._first_match(group, cell, [k for k in possible.tolist() if k < match], tried)
            match = match if lower is None else lower
        if match is not None:
            return Found(group.places[match])
        failed = next((answer for answer in tried.values() if isinstance(answer, str)), None)
        return self._without_match(formula) if failed is None else Found(None, f"not compared: {failed}")

    def _without_match(self, formula: str) -> Found:
        """Return that there is no match, unless a known crystal of the formula could not be reduced."""
        failures = self._failures.get(formula)
        return Found(None, f"not compared: a known crystal: {failures[0]}") if failures else Found()

    def _first_match(
        self, group: _Group, cell: ReducedCell, order: Iterable[int], tried: dict[int, bool | str]
    ) -> int | None:
        """Return the first of the members of a group that is the same as a cell; remember the answers."""
        for k in order:
            if k not in tried:
                self.counts["compared"] += 1
                tried[k] = attempted(_fits, (group.cells[k], cell))
            if tried[k] is True:
                return k
        return None

    def _reduce_waiting(self, formula: str) -> None:
        """Reduce the crystals of a formula that were added since the last time."""
        for place, crystal in self._waiting.pop(formula, ()):
            cell = crystal.cell
            if isinstance(cell, str):
                self._failures[formula].append(cell)
                continue
            group = self._groups[formula].setdefault(cell.content, _Group())
            group.places.append(place)
            group.cells.append(cell)
            group.minima.append(successive_minima(_at_unit_volume(cell)))


def successive_minima(matrix: np.ndarray) -> np.ndarray:
    """Return the lengths of the three shortest vectors of a lattice that do not lie in a plane, (3,), ascending.

    Args:
        matrix: cell vectors as rows, (3, 3).
    """
    vectors = _COMBINATIONS @ Lattice(matrix).get_lll_reduced_lattice().matrix
    lengths = np.linalg.norm(vectors, axis=1)
    order = np.argsort(lengths, kind="stable")
    vectors, lengths = vectors[order], lengths[order]
    units = vectors / lengths[:, None]
    second = int(np.flatnonzero(np.linalg.norm(np.cross(units, units[0]), axis=1) > _ROUNDING)[0])
    normal = np.cross(units[0], units[second])
    third = int(np.flatnonzero(np.abs(units @ (normal / np.linalg.norm(normal))) > _ROUNDING)[0])
    return lengths[[0, second, third]]


def _at_unit_volume(cell: ReducedCell) -> np.ndarray:
    """Return the vectors of a cell scaled to a volume of 1: (3, 3)."""
    return cell.matrix / abs(np.linalg.det(cell.matrix)) ** (1 / 3)


def _fits(pair: tuple[ReducedCell, ReducedCell]) -> bool:
    """Return StructureMatcher's answer for a known cell and one that is looked for."""
    from pymatgen.core.structure_matcher import StructureMatcher

    matcher = StructureMatcher(ltol=LENGTH_TOLERANCE, stol=SITE_TOLERANCE, angle_tol=ANGLE_TOLERANCE)
    known, other = (cell.to_structure() for cell in pair)
    return bool(matcher.fit(known, other, skip_structure_reduction=True))
