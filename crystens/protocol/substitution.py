"""Baseline of crystal structure prediction without a model: a train crystal with its elements exchanged.

The baseline considers train crystals with the same amounts of elements in the cell. It takes the one with the most
similar elements (smallest sum over sites of `crystens.asking.known.unlikeness`, with the best assignment of elements),
exchanges the elements, and scales the cell to a volume predicted from bond lengths (pymatgen's `DLSVolumePredictor`).

Differs from a search for prototypes: cells are compared as given, so that a supercell is a different kind.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from pymatgen.analysis.structure_prediction.volume_predictor import DLSVolumePredictor
from scipy.optimize import linear_sum_assignment

from crystens.asking.known import unlikeness
from crystens.crystal import Crystal, as_crystal

_APART = 1e6  # cost of an exchange that would change the formula
_MOST_ORDERS = 720  # permutations of elements with the same amount that are tried exhaustively: 6!

Amounts = dict[int, int]  # sites of each element in the cell, by atomic number


def substituted(
    train: Sequence[Crystal], references: Sequence[Crystal], each: int, progress: Callable[[int], None] | None = None
) -> list[list[Crystal | None]]:
    """Return the train crystals with the most similar elements for each reference, exchanged and scaled.

    Args:
        train: real crystals to take.
        references: n real crystals; only the amounts of elements in their cells are used.
        each: number k of crystals for each reference, the most similar first; ties keep the order of `train`.
        progress: called with the number of finished references.

    Returns:
        n lists of k; filled with None if train has fewer crystals of that kind.
    """
    kinds: dict[tuple[int, ...], list[Crystal]] = defaultdict(list)
    for crystal in train:
        kinds[_kind(_amounts(crystal))].append(crystal)
    labels = {kind: np.array([_by_amount(_amounts(crystal)) for crystal in own]) for kind, own in kinds.items()}
    volumes = DLSVolumePredictor()
    made: list[list[Crystal | None]] = []
    for done, reference in enumerate(references):
        if progress is not None:
            progress(done)
        amounts = _amounts(reference)
        kind = _kind(amounts)
        own: list[Crystal | None] = []
        if kind in kinds:
            costs = _least_costs(labels[kind], amounts)
            for place in np.argsort(costs, kind="stable")[:each].tolist():
                own.append(_scaled(_exchanged(kinds[kind][place], amounts), volumes))
        made.append([*own, *[None] * (each - len(own))])
    if progress is not None:
        progress(len(references))
    return made


def _amounts(crystal: Crystal) -> Amounts:
    """Return the number of sites of each element."""
    return dict(Counter(crystal.numbers.tolist()))


def _kind(amounts: Amounts) -> tuple[int, ...]:
    """Return the sorted amounts: elements can be exchanged between crystals of one kind."""
    return tuple(sorted(amounts.values()))


def _by_amount(amounts: Amounts) -> list[int]:
    """Return the elements, sorted by amount, the smallest first."""
    return sorted(amounts, key=lambda number: (amounts[number], number))


def _least_costs(labels: np.ndarray, amounts: Amounts) -> np.ndarray:
    """Return the cost of the best exchange of each crystal of a kind, (M,).

    Elements are exchanged only for elements with the same amount, so that the total cost is the sum over amounts. Costs
    are integers, so that this sum is exact.

    Args:
        labels: (M, L) elements of the crystals, sorted by amount, the smallest first.
        amounts: amounts of the elements that are asked for.
    """
    asked = _by_amount(amounts)
    total = np.zeros(len(labels))
    start = 0
    for amount, group in itertools.groupby(asked, key=lambda number: amounts[number]):
        wanted = np.array(list(group))
        steps = unlikeness()[labels[:, start : start + len(wanted), None], wanted] * amount
        total += _least(steps)
        start += len(wanted)
    return total


def _least(steps: np.ndarray) -> np.ndarray:
    """Return the smallest sum of costs (M, g, g) over all permutations of the columns: (M,)."""
    size = steps.shape[1]
    if math.factorial(size) > _MOST_ORDERS:
        return np.array([one[linear_sum_assignment(one)].sum() for one in steps])
    rows = np.arange(size)
    orders = itertools.permutations(range(size))
    return np.min([steps[:, rows, list(order)].sum(axis=1) for order in orders], axis=0)


def _exchanged(crystal: Crystal, amounts: Amounts) -> Crystal:
    """Return a crystal with its elements exchanged for elements of the same amounts, at the least cost."""
    have = _amounts(crystal)
    labels, asked = np.array(sorted(have)), np.array(sorted(amounts))
    counts = np.array([have[number] for number in labels.tolist()])
    wanted = np.array([amounts[number] for number in asked.tolist()])
    costs = np.where(counts[:, None] == wanted, unlikeness()[labels[:, None], asked] * counts[:, None], _APART)
    rows, columns = linear_sum_assignment(costs)
    table = dict(zip(labels[rows].tolist(), asked[columns].tolist(), strict=True))
    numbers = np.array([table[number] for number in crystal.numbers.tolist()])
    return Crystal(crystal.lengths, crystal.angles, crystal.space_group, numbers, crystal.coordinates)


def _scaled(crystal: Crystal, volumes: DLSVolumePredictor) -> Crystal:
    """Return a crystal at the volume predicted from bond lengths; unchanged if the predictor lacks a radius."""
    structure = crystal.to_structure()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pymatgen warns about elements without an electronegativity
            structure.scale_lattice(volumes.predict(structure))
    except (ValueError, KeyError, RuntimeError):
        return crystal
    return as_crystal(structure, space_group=crystal.space_group)
