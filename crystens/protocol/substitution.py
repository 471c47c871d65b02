"""The baseline of crystal structure prediction that needs no model: a train crystal with its elements exchanged.

The baseline takes the train crystal with the same amounts of elements in its cell whose elements are the most alike
(`crystens.asking.known.unlikeness`, summed over the sites, in the exchange that makes it least). It exchanges the
elements, and scales the volume to what bond lengths predict (pymatgen's `DLSVolumePredictor`).

Differs from a search for prototypes: cells are compared as they stand, so that a supercell is another kind.
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

_APART = 1e6  # cost of an exchange that changes the formula
_MOST_ORDERS = 720  # orders of elements of one amount that are all tried: 6!

Amounts = dict[int, int]  # sites of each element in the cell, by atomic number


def substituted(
    train: Sequence[Crystal], references: Sequence[Crystal], each: int, progress: Callable[[int], None] | None = None
) -> list[list[Crystal | None]]:
    """Return for each reference the train crystals of its kind with the most alike elements, exchanged and scaled.

    Args:
        train: real crystals to take.
        references: n real crystals, of which nothing but the amounts of elements in the cell is looked at.
        each: k crystals for each reference, the most alike first; of equally alike ones the first.
        progress: called with the number of references that are done.

    Returns:
        n lists of k; None where train has no more crystals of that kind.
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
    """Return how many sites each element has."""
    return dict(Counter(crystal.numbers.tolist()))


def _kind(amounts: Amounts) -> tuple[int, ...]:
    """Return the amounts alone, sorted: crystals of one kind can be exchanged for each other."""
    return tuple(sorted(amounts.values()))


def _by_amount(amounts: Amounts) -> list[int]:
    """Return the elements, those of the smallest amount first."""
    return sorted(amounts, key=lambda number: (amounts[number], number))


def _least_costs(labels: np.ndarray, amounts: Amounts) -> np.ndarray:
    """Return the cost of the best exchange of each crystal of a kind, (M,).

    Costs are whole numbers, and elements are exchanged among those of the same amount, so that the sum over amounts is
    exactly the cost of the whole.

    Args:
        labels: (M, L) elements of the crystals, those of the smallest amount first.
        amounts: of the elements that are asked for.
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
    """Return the least sum over an order of the columns, of costs (M, g, g): (M,)."""
    size = steps.shape[1]
    if math.factorial(size) > _MOST_ORDERS:
        return np.array([one[linear_sum_assignment(one)].sum() for one in steps])
    rows = np.arange(size)
    orders = itertools.permutations(range(size))
    return np.min([steps[:, rows, list(order)].sum(axis=1) for order in orders], axis=0)


def _exchanged(crystal: Crystal, amounts: Amounts) -> Crystal:
    """Return a crystal with its elements exchanged for those of the same amounts at the least cost."""
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
    """Return a crystal at the volume that its bond lengths predict; as it is where the predictor knows no radius."""
    structure = crystal.to_structure()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of elements without an electronegativity
            structure.scale_lattice(volumes.predict(structure))
    except (ValueError, KeyError, RuntimeError):
        return crystal
    return as_crystal(structure, space_group=crystal.space_group)
