"""Charge neutrality of a composition by smact, and the nearest composition that has it.

A composition passes if oxidation states of its elements, one for each element, add up to no charge, and no cation is
more electronegative than an anion (Pauling). A single element and an alloy, of metals only, pass as they are: no charge
is looked for in them. The answer depends on the list of oxidation states; "smact14" is the default.

A generated atomic number is off by one or two where the image is noisy. A repair therefore replaces one element, at all
of its sites, by a near neighbour in atomic number. It has to end with ions that balance: to become an alloy or a single
element is no repair.

Source: Davies et al., "Computational screening of all stoichiometric inorganic materials", Chem 2016, 1, 617, which is
what smact implements.
Differs from the paper: Alverson et al., Digital Discovery 2024, 3, 62, Sec. 6 chose elements by hand.
"""

from __future__ import annotations

import functools
import math
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pymatgen.core import Composition, Element

from crystens.crystal import MAX_ATOMIC_NUMBER, Crystal
from crystens.errors import CrystensError

OXIDATION_STATES = ("smact14", "icsd16", "icsd24", "pymatgen_sp")

_MOST_COMBINATIONS = 200_000  # of oxidation states; each takes some 10 microseconds
_LAST_KNOWN = 103  # smact's last element


@dataclass(frozen=True)
class Substitution:
    """One element in place of another, at all of its sites.

    Attributes:
        old: atomic number that is replaced.
        new: atomic number that is put there.
        sites: how many sites it is.
    """

    old: int
    new: int
    sites: int

    @property
    def total(self) -> int:
        """Sum of the changes in atomic number over the sites."""
        return abs(self.new - self.old) * self.sites

    def apply(self, crystal: Crystal) -> Crystal:
        """Return the crystal with the element replaced; its space group number stays as it was."""
        return replace(crystal, numbers=np.where(crystal.numbers == self.old, self.new, crystal.numbers))


def charge_verdict(crystal: Crystal, states: str = "smact14") -> str:
    """Return "neutral", "element", "alloy", "not neutral" or "not tested" (too many combinations, unknown elements).

    Raises:
        CrystensError: if smact is not installed, or does not have these oxidation states.
    """
    return _verdict(crystal.formula, states)


def repairs(crystal: Crystal, states: str = "smact14", max_shift: int = 2) -> list[Substitution]:
    """Return the substitutions that make a crystal neutral with the smallest total change; several if they tie.

    Args:
        crystal: a crystal that is not neutral.
        states: list of oxidation states, one of `OXIDATION_STATES`.
        max_shift: farthest neighbour that is tried, in atomic numbers.
    """
    found: list[Substitution] = []
    for old, sites in zip(*np.unique(crystal.numbers, return_counts=True), strict=True):
        for shift in range(-max_shift, max_shift + 1):
            tried = Substitution(int(old), int(old) + shift, int(sites))
            if shift == 0 or not 1 <= tried.new <= min(MAX_ATOMIC_NUMBER, _LAST_KNOWN):
                continue
            if found and tried.total > found[0].total:
                continue
            if _verdict(tried.apply(crystal).formula, states) == "neutral":
                found = [tried] if not found or tried.total < found[0].total else [*found, tried]
    return sorted(found, key=lambda item: (item.old, item.new))


@functools.lru_cache(maxsize=65536)
def _verdict(formula: str, states: str) -> str:
    """Return what smact says of a composition."""
    validity = _smact()
    if states not in OXIDATION_STATES:
        raise CrystensError(f"oxidation states {states!r} are not known; use one of {', '.join(OXIDATION_STATES)}")
    composition = Composition(formula)
    if len(composition) == 1:
        return "element"
    if max(element.Z for element in composition) > _LAST_KNOWN or _combinations(composition, states) is None:
        return "not tested"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # First, for NaK would pass as Na- and K+ too.
        if _only_metals(composition):
            return "alloy"
        neutral = validity(composition, use_pauling_test=True, include_alloys=False, oxidation_states_set=states)
        return "neutral" if neutral else "not neutral"


def _only_metals(composition: Composition) -> bool:
    """Return whether smact counts all elements as metals."""
    import smact

    return all(element.symbol in smact.metals for element in composition)


def _combinations(composition: Composition, states: str) -> int | None:
    """Return how many combinations of oxidation states there are; None if they are too many to try."""
    import smact

    name = f"oxidation_states_{'sp' if states == 'pymatgen_sp' else states}"
    known = [getattr(smact.Element(element.symbol), name) for element in composition]
    number = math.prod(len(item or ()) for item in known)
    return number if number <= _MOST_COMBINATIONS else None


@functools.cache
def _smact() -> Any:
    """Return smact's test of a composition."""
    try:
        # Takes a second to import.
        from smact.screening import smact_validity
    except ImportError as error:
        raise CrystensError("smact is not installed; run pip install 'crystens[candidates]'") from error
    return smact_validity


def symbol(number: int) -> str:
    """Return the symbol of an element."""
    return Element.from_Z(number).symbol
