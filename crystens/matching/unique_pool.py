"""Search of crystals that are the same as an earlier one, with the exact results of StructureMatcher but fewer calls.

Two crystals are the same if pymatgen's StructureMatcher with its default tolerances says so (`MATCHER`). The earlier or
known crystal is its first argument, because the result can depend on the order. Cheap filters run first; each only
discards pairs that StructureMatcher would reject:

- different reduced formulas; a crystal with a unique formula is not even reduced;
- different numbers of atoms of an element in the primitive cells;
- lattices that differ in every choice of cell. At equal volumes StructureMatcher searches a cell of the first lattice
  whose lengths equal those of the second cell within a factor 1 + ltol. The three vectors of such a cell span the
  lattice. Therefore the i-th successive minimum of the first lattice (the shortest vector, the shortest one not
  parallel to it, the shortest one out of their plane) is at most 1 + ltol times the i-th length of the second cell.

The remaining crystals are compared, the most similar first (`crystens.matching.structure_matching.fingerprint`), until
the first match; the order saves time and does not change the result. Each crystal is reduced to its primitive Niggli
cell once.

A sample is unique if it is the same as no earlier unique sample. Otherwise it belongs to the group of the first unique
sample that it is the same as. These are the groups of `StructureMatcher.group_structures`, which are usual in the
literature, and not the chains of matches of `crystens.matching.structure_matching.group_matches`.

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

# Integer combinations of the vectors of a reduced cell; the shortest vectors of its lattice are among them.
_COMBINATIONS = np.array([step for step in itertools.product(range(-3, 4), repeat=3) if any(step)])
_ROUNDING = 1e-6  # relative tolerance of lengths


@dataclass(frozen=True)
class Found:
    """Result of a search.

    Attributes:
        place: index of the crystal that is the same; None if there is none, or if it is not known.
        reason: why it is not known, `category: details`; None if it is known.
    """

    place: int | None = None
    reason: str | None = None


class Comparable:
    """A crystal that is reduced to its primitive Niggli cell once, at first use."""

    def __init__(self, crystal: Crystal) -> None:
        self._crystal = crystal
        self.formula = crystal.formula

    @cached_property
    def cell(self) -> ReducedCell | str:
        """The reduced cell, or the reason why there is none."""
        return attempted(reduced_cell, self._crystal)


@dataclass(eq=False)
class _Group:
    """Crystals with the same numbers of the same elements in their primitive cells, in the order of their indices."""

    places: list[int] = field(default_factory=list)
    cells: list[ReducedCell] = field(default_factory=list)
    minima: list[np.ndarray] = field(default_factory=list)


class Pool:
    """Crystals to search.

    Attributes:
        counts: number of pairs, and number of pairs left after each step of the search.
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
        """Add a crystal; `place` is its index, which must increase."""
        self._size += 1
        self._waiting[crystal.formula].append((place, crystal))

    def find(self, crystal: Comparable, lowest: bool = False) -> Found:
        """Return the index of a known crystal that is the same as this one.

        Args:
            crystal: the crystal to search for.
            lowest: True returns the lowest index; False returns the most similar crystal.

        The result is unknown if this crystal cannot be reduced to its primitive cell, or if a comparison fails or takes
        too long and no other comparison finds a match.
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
        """Return "no match", or "unknown" if a known crystal of the formula could not be reduced."""
        failures = self._failures.get(formula)
        return Found(None, f"not compared: a known crystal: {failures[0]}") if failures else Found()

    def _first_match(
        self, group: _Group, cell: ReducedCell, order: Iterable[int], tried: dict[int, bool | str]
    ) -> int | None:
        """Return the first member of a group that is the same as a cell, and record results in `tried`."""
        for k in order:
            if k not in tried:
                self.counts["compared"] += 1
                tried[k] = attempted(_fits, (group.cells[k], cell))
            if tried[k] is True:
                return k
        return None

    def _reduce_waiting(self, formula: str) -> None:
        """Reduce the crystals of a formula that were added since the last call."""
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
    """Return the result of StructureMatcher for a known cell and a searched cell."""
    from pymatgen.core.structure_matcher import StructureMatcher

    matcher = StructureMatcher(ltol=LENGTH_TOLERANCE, stol=SITE_TOLERANCE, angle_tol=ANGLE_TOLERANCE)
    known, other = (cell.to_structure() for cell in pair)
    return bool(matcher.fit(known, other, skip_structure_reduction=True))
