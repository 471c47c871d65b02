"""Reduced formulas: the composition of a crystal, independent of its cell."""

from __future__ import annotations

import functools
import math
from collections import Counter

import numpy as np
from pymatgen.core import Composition, Element

# Pairs of atomic number and amount, by atomic number; the amounts have no common divisor.
ReducedComposition = tuple[tuple[int, int], ...]


def reduced_composition(numbers: np.ndarray) -> ReducedComposition:
    """Return the reduced composition of a cell with atomic numbers (N,)."""
    amounts = Counter(numbers.tolist())
    units = math.gcd(*amounts.values())
    return tuple((number, amount // units) for number, amount in sorted(amounts.items()))


@functools.lru_cache(maxsize=4096)
def reduced_formula(composition: ReducedComposition) -> str:
    """Return the formula of a reduced composition, elements in pymatgen's (electronegativity) order."""
    return _composition(composition).reduced_formula


@functools.lru_cache(maxsize=4096)
def formula_sum(composition: ReducedComposition) -> str:
    """Return the formula of a reduced composition with blanks and all amounts, as CIF has it: `Na1 Cl1`."""
    return _composition(composition).formula


def _composition(composition: ReducedComposition) -> Composition:
    """Return pymatgen's Composition."""
    return Composition({Element.from_Z(number).symbol: amount for number, amount in composition})
