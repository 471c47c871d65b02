"""The canonical list of orbits of a crystal, which does not depend on the given cell, origin or axes.

A crystal may be given in any cell, from any origin, with its axes in any order. `describe` converts it to the standard
cell of its space group (moyopy), reads its orbits, and chooses among all equivalent lists, so that similar crystals
get similar lists:

1. In a monoclinic cell, a and c are the shortest vectors that the setting allows, and beta is at least 90 degrees. A
   triclinic cell is moyopy's reduced cell.
2. Among all other origins and axes of the group's normaliser, the list with the alphabetically first letters is chosen:
   first compared as sorted letters without elements, so that all crystals of a structure type agree; then with
   elements.
3. If several axes remain, the shortest lengths come first, then the smallest coordinates.
4. Along a polar axis, where the origin is free, an orbit of the rarest kind (letter and element) is at 0.
5. An orbit is represented by its first site, by x, then y, then z, on the first representative of its position. Orbits
   are sorted by element, letter and coordinates.

Only motions that keep the handedness of a crystal are used, so that mirror images stay distinct.

Source: International Tables for Crystallography, Vol. A (2016), Chapter 3.5 (Euclidean normalisers, and equivalent
descriptions of one structure).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

from crystens.crystal import MAX_ATOMIC_NUMBER, ORDER_TOLERANCE, Crystal, cell_vectors, wrap
from crystens.errors import CrystensError
from crystens.symmetry.normaliser import letters_after, motion, returned
from crystens.symmetry.orbit_crystal import OrbitCrystal
from crystens.symmetry.space_groups import cell_of_metric, equivalent_sites, in_cell
from crystens.symmetry.wyckoff import SpaceGroup, space_group

# Sites of a standardised cell lie on their positions up to rounding; a larger distance, in angstrom, is an error.
_ON_POSITION = 1e-3

# Relative tolerance at which cell lengths and cosines count as equal when descriptions are compared.
_SAME_METRIC = 1e-3

_MONOCLINIC = range(3, 16)

_Item = TypeVar("_Item")


class OrbitError(CrystensError):
    """A crystal cannot be written as orbits; the message says why."""


def describe(crystal: Crystal, symprec: float = 0.01) -> OrbitCrystal:
    """Return the canonical list of orbits of a crystal, under the space group that it has within `symprec`.

    Args:
        crystal: in any cell.
        symprec: distance up to which two sites count as one, angstrom.

    Raises:
        SymmetryError: if no space group is found.
        OrbitError: if the standardised sites are no orbits of the group.
    """
    cell = in_cell(
        "conventional", crystal.lengths, crystal.angles, crystal.numbers, crystal.coordinates, symprec=symprec
    )
    return canonical(read_orbits(cell.space_group, cell.lengths, cell.angles, cell.numbers, cell.coordinates))


def describe_sites(crystal: Crystal, symprec: float = 0.01) -> tuple[OrbitCrystal, np.ndarray]:
    """Return the orbits of a crystal, and the index of each site's orbit in that list, (N,) int64.

    If two descriptions differ only in the order of orbits of the same element, the list may differ from that of
    `describe`. Arguments and errors as for `describe`.
    """
    firsts = equivalent_sites(crystal.lengths, crystal.angles, crystal.numbers, crystal.coordinates, symprec)
    kinds = sorted({(int(crystal.numbers[first]), int(first)) for first in firsts.tolist()})
    if len(kinds) > MAX_ATOMIC_NUMBER:
        raise OrbitError(f"{crystal.formula} has {len(kinds)} orbits, more than {MAX_ATOMIC_NUMBER}")
    # Each orbit gets a different element, by which it is identified afterwards.
    marks = {first: mark for mark, (_, first) in enumerate(kinds, 1)}
    marked = np.array([marks[first] for first in firsts.tolist()])
    found = describe(Crystal(crystal.lengths, crystal.angles, 1, marked, crystal.coordinates), symprec)
    numbers = np.array([kinds[mark - 1][0] for mark in found.numbers.tolist()])
    order = _order(found.group, numbers, found.letters, found.coordinates)
    letters = "".join(found.letters[place] for place in order)
    listed = OrbitCrystal(
        found.lengths, found.angles, found.space_group, numbers[order], letters, found.coordinates[order]
    )
    places = np.zeros(len(kinds) + 1, dtype=np.int64)
    places[found.numbers[order]] = np.arange(len(order))
    return listed, places[marked]


def read_orbits(
    number: int,
    lengths: np.ndarray,
    angles: np.ndarray,
    numbers: np.ndarray,
    coordinates: np.ndarray,
    tolerance: float = _ON_POSITION,
) -> OrbitCrystal:
    """Return the orbits of all sites of a standard conventional cell, in the order of their first sites.

    Args:
        number: space group, 1-230.
        lengths: (3,), angstrom.
        angles: (3,), degrees.
        numbers: (N,) atomic numbers.
        coordinates: (N, 3), fractional.
        tolerance: largest distance of a site from the position that the group implies, angstrom.

    Raises:
        OrbitError: if the sites are not complete orbits of the group.
    """
    vectors = cell_vectors(lengths, angles)
    group, metric = space_group(number), vectors @ vectors.T
    left = np.ones(len(numbers), dtype=bool)
    found: list[tuple[int, str, np.ndarray]] = []
    for first in range(len(numbers)):
        if not left[first]:
            continue
        position, nearest = group.classified(coordinates[first], metric, tolerance)
        orbit = position.orbit(nearest.representatives[0])
        like = np.flatnonzero(left & (numbers == numbers[first]))
        steps = coordinates[like][None] - orbit[:, None]
        steps -= np.round(steps)
        squares = ((steps @ metric) * steps).sum(axis=2)  # (m, sites)
        site = squares.argmin(axis=1)
        if squares.min(axis=1).max() > tolerance**2 or len(np.unique(site)) != len(orbit):
            raise OrbitError(
                f"site {first} (atomic number {numbers[first]}) at {np.round(coordinates[first], 4).tolist()} is on "
                f"position {position.multiplicity}{position.letter} of space group {number}, but not all sites of its "
                "orbit are there; try another symprec"
            )
        left[like[site]] = False
        found.append((int(numbers[first]), position.letter, nearest.representatives[0]))
    return OrbitCrystal(
        np.asarray(lengths, dtype=np.float64),
        np.asarray(angles, dtype=np.float64),
        number,
        np.array([z for z, _, _ in found]),
        "".join(letter for _, letter, _ in found),
        np.array([place for _, _, place in found]),
    )


def canonical(crystal: OrbitCrystal) -> OrbitCrystal:
    """Return the description of a crystal that the rules at the top of this module choose."""
    crystal = _reduced_monoclinic(crystal)
    group, numbers = crystal.group, crystal.numbers
    metric = crystal.metric
    descriptions = [
        (turn, shift, letters_after(group.number, turn, shift, crystal.letters))
        for turn, shift in itertools.product(_kept_turns(group, metric), range(len(group.shifts)))
    ]
    ranks = group.letters.find
    descriptions = _least(descriptions, [tuple(sorted(map(ranks, d[2]))) for d in descriptions])
    descriptions = _least(
        descriptions, [tuple(sorted(zip(map(ranks, d[2]), numbers.tolist(), strict=True))) for d in descriptions]
    )
    lengths = [np.sqrt(np.diag(_turned(metric, group.turns[turn]))).tolist() for turn, _, _ in descriptions]
    descriptions = _least_numbers(descriptions, [np.array(three) for three in lengths], _SAME_METRIC * max(lengths[0]))
    lists = [one for description in descriptions for one in _lists(crystal, metric, *description)]
    return _least_numbers(lists, [one.coordinates.ravel() for one in lists], ORDER_TOLERANCE)[0]


def _lists(crystal: OrbitCrystal, metric: np.ndarray, turn: int, shift: int, letters: str) -> Iterator[OrbitCrystal]:
    """Yield the lists of one description: one list, or with polar axes one for each orbit that may be at 0."""
    group = crystal.group
    linear, step = motion(group, turn, shift)
    moved = crystal.coordinates @ linear.T + step
    back = [returned(group.number, turn, shift, old) for old in crystal.letters]
    moved = np.array([rotation @ x + translation for (_, rotation, translation), x in zip(back, moved, strict=True)])
    lengths, angles = cell_of_metric(_turned(metric, linear))
    polar = list(group.polar)
    for origin in _polar_origins(group, crystal.numbers, letters, moved):
        places = moved.copy()
        places[:, polar] -= origin
        chosen = np.array(
            [_first(group.position(letter).alternatives(x)) for letter, x in zip(letters, places, strict=True)]
        )
        order = _order(group, crystal.numbers, letters, chosen)
        yield OrbitCrystal(
            lengths,
            angles,
            crystal.space_group,
            crystal.numbers[order],
            "".join(letters[place] for place in order),
            wrap(chosen[order]),
        )


def _polar_origins(group: SpaceGroup, numbers: np.ndarray, letters: str, places: np.ndarray) -> list[np.ndarray]:
    """Return the origins along the polar axes that put an orbit of the rarest kind at 0."""
    polar = list(group.polar)
    if not polar:
        return [np.zeros(0)]
    kinds = list(zip(map(group.letters.find, letters), numbers.tolist(), strict=True))
    counts = Counter(kinds)
    rarest = min(counts, key=lambda kind: (counts[kind], kind))
    steps = np.unique(np.round(group.translations[:, polar], 6) % 1, axis=0)
    return [places[i, polar] + step for i, kind in enumerate(kinds) if kind == rarest for step in steps]


def _order(group: SpaceGroup, numbers: np.ndarray, letters: str, coordinates: np.ndarray) -> np.ndarray:
    """Return the order (K,) of orbits: by element, letter, x, y, z."""
    ranks = _ranks(coordinates)
    places = np.array([group.letters.find(letter) for letter in letters])
    return np.lexsort((ranks[:, 2], ranks[:, 1], ranks[:, 0], places, numbers))


def _ranks(coordinates: np.ndarray) -> np.ndarray:
    """Return integer ranks of coordinates, equal within the tolerance, also across the cell's boundary."""
    return np.rint(coordinates / ORDER_TOLERANCE).astype(np.int64) % round(1 / ORDER_TOLERANCE)


def _first(places: np.ndarray) -> np.ndarray:
    """Return the first of points (k, 3) by x, then y, then z; values within the tolerance count as equal."""
    return _least_numbers(list(places), [_circular(place) for place in places], ORDER_TOLERANCE)[0]


def _circular(place: np.ndarray) -> np.ndarray:
    """Return coordinates in which 0.9999 is next to 0."""
    return np.where(place > 1 - ORDER_TOLERANCE, place - 1, place)


def _least(items: list[_Item], keys: Sequence[tuple]) -> list[_Item]:
    """Return the items with the smallest key."""
    least = min(keys)
    return [item for item, key in zip(items, keys, strict=True) if key == least]


def _least_numbers(items: list[_Item], keys: Sequence[np.ndarray], tolerance: float) -> list[_Item]:
    """Return the items with the smallest numbers, compared one by one; within the tolerance they count as equal."""
    if len(items) == 1:
        return items
    table = np.array(keys)
    left = np.arange(len(items))
    for column in table.T:
        left = left[column[left] <= column[left].min() + tolerance]
        if len(left) == 1:
            break
    return [items[place] for place in left]


def _reduced_monoclinic(crystal: OrbitCrystal) -> OrbitCrystal:
    """Return a monoclinic crystal with the shortest a and c that its setting allows, and beta at least 90 degrees."""
    if crystal.space_group not in _MONOCLINIC:
        return crystal
    group = crystal.group
    metric = crystal.metric
    while True:
        metrics = [_turned(metric, turn) for turn in group.turns]
        sums = [np.sqrt(m[0, 0]) + np.sqrt(m[2, 2]) for m in metrics]
        best = int(np.argmin(sums))
        if sums[best] > sums[0] * (1 - 1e-6):
            break
        crystal, metric = _changed(crystal, best, metrics[best]), metrics[best]
    return crystal


def _kept_turns(group: SpaceGroup, metric: np.ndarray) -> list[int]:
    """Return the turns to compare by letters: all turns, for a monoclinic cell only those that keep it reduced."""
    if group.number not in _MONOCLINIC:
        return list(range(len(group.turns)))
    metrics = [_turned(metric, turn) for turn in group.turns]
    size = np.sqrt(metric[0, 0] * metric[2, 2])
    sums = [np.sqrt(m[0, 0]) + np.sqrt(m[2, 2]) for m in metrics]
    good = [i for i, m in enumerate(metrics) if sums[i] <= min(sums) * (1 + _SAME_METRIC)]
    return [i for i in good if metrics[i][0, 2] <= _SAME_METRIC * size]


def _changed(crystal: OrbitCrystal, turn: int, metric: np.ndarray) -> OrbitCrystal:
    """Return a crystal after one turn of its group's normaliser; metric is the new cell's."""
    group = crystal.group
    linear, step = motion(group, turn, 0)
    moved, letters = [], []
    for letter, place in zip(crystal.letters, crystal.coordinates, strict=True):
        new, rotation, translation = returned(group.number, turn, 0, letter)
        moved.append(rotation @ (linear @ place + step) + translation)
        letters.append(new)
    lengths, angles = cell_of_metric(metric)
    return OrbitCrystal(lengths, angles, crystal.space_group, crystal.numbers, "".join(letters), wrap(np.array(moved)))


def _turned(metric: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Return the metric tensor of the cell in which coordinates are W x."""
    inverse = np.linalg.inv(turn)
    return inverse.T @ metric @ inverse
