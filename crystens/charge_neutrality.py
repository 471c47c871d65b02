"""Whether the charges of a composition can add up to nothing.

A composition passes if oxidation states of its elements, one for each element, add up to no charge while every cation
is less electronegative than every anion (Pauling). A single element and an alloy, of metals only, pass as they are.

`is_charge_neutral` takes all oxidation states that pymatgen knows of an element, so that it needs no further package.
Of real crystals 84.5 % pass (mp_52, test; smact's 2014 list: 89.3 %), of crystals of 4 to 29 random atoms 13 %. The
field's protocol asks the same question with smact's lists (`crystens.protocol.composition_validity`).

Combinations are not listed, which takes minutes for six elements: to split the elements by electronegativity into those
that may give charge and those that may take it leaves sums of whole numbers, and asks the same question.

Source: Davies et al., "Computational screening of all stoichiometric inorganic materials", Chem 2016, 1, 617.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Sequence

import numpy as np
from pymatgen.core import Element

from crystens.formulas import ReducedComposition, reduced_composition

Ion = tuple[float | None, int, Sequence[int]]  # electronegativity, amount and possible charges of an element


def is_charge_neutral(numbers: np.ndarray) -> bool:
    """Return whether a composition passes by pymatgen's oxidation states: atomic number of each site, (N,)."""
    return is_neutral_composition(reduced_composition(numbers))


def can_balance(ions: Sequence[Ion]) -> bool:
    """Return whether charges add up to 0 with every cation below every anion in electronegativity."""
    negativities = [negativity for negativity, _, _ in ions if negativity is not None]
    if len(negativities) < len(ions):
        return False
    # Below a border nothing takes charge, from it on nothing gives it; the lowest anion is a border.
    for border in {*negativities, math.inf}:
        sums = {0}
        for negativity, (_, amount, charges) in zip(negativities, ions, strict=True):
            allowed = [charge for charge in charges if (charge >= 0 if negativity < border else charge <= 0)]
            sums = {total + amount * charge for total in sums for charge in allowed}
        if 0 in sums:
            return True
    return False


@functools.lru_cache(maxsize=2**16)
def is_neutral_composition(composition: ReducedComposition) -> bool:
    """Return whether a reduced composition passes, as `is_charge_neutral`."""
    elements = [(_element(number), amount) for number, amount in composition]
    if len(elements) == 1 or all(metal for (_, _, metal), _ in elements):
        return True
    return can_balance([(negativity, amount, charges) for (negativity, charges, _), amount in elements])


@functools.cache
def _element(number: int) -> tuple[float | None, tuple[int, ...], bool]:
    """Return the electronegativity of an element (None if it has none), its charges, and whether it is a metal."""
    element = Element.from_Z(number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen warns of each noble gas
        negativity = float(element.X)
    charges = tuple(int(charge) for charge in element.oxidation_states)
    return None if math.isnan(negativity) else negativity, charges, bool(element.is_metal)
