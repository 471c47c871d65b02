"""Charge neutrality of a composition by smact, and the nearest neutral composition.

A composition passes if one oxidation state can be chosen for each element so that the charges sum to zero and no cation
is more electronegative than an anion (Pauling). Single elements and alloys (metals only) always pass. The result
depends on the list of oxidation states; "smact14" is the default.

In a noisy image an atomic number may be off by one or two. A repair therefore replaces one element, at all of its
sites, by a near neighbour in atomic number. The result must be neutral by ions: an alloy or a single element is no
repair.

Source: Davies et al., "Computational screening of all stoichiometric inorganic materials", Chem 2016, 1, 617,
implemented in smact.
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

_MOST_COMBINATIONS = 200_000  # combinations of oxidation states that are tried, some 10 microseconds each
_LAST_KNOWN = 103  # smact's last element


@dataclass(frozen=True)
class Substitution:
    """Replacement of one element by another, at all of its sites.

    Attributes:
        old: atomic number before.
        new: atomic number after.
        sites: number of these sites.
    """

    old: int
    new: int
    sites: int

    @property
    def total(self) -> int:
        """Sum of the changes in atomic number over the sites."""
        return abs(self.new - self.old) * self.sites

    def apply(self, crystal: Crystal) -> Crystal:
        """Return the crystal with the element replaced; its space group number is unchanged."""
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
        max_shift: largest change in atomic number.
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
    """Return the verdict of smact on a composition."""
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
        # Alloys first, because NaK would also pass as Na- and K+.
        if _only_metals(composition):
            return "alloy"
        neutral = validity(composition, use_pauling_test=True, include_alloys=False, oxidation_states_set=states)
        return "neutral" if neutral else "not neutral"


def _only_metals(composition: Composition) -> bool:
    """Return whether smact counts all elements as metals."""
    import smact

    return all(element.symbol in smact.metals for element in composition)


def _combinations(composition: Composition, states: str) -> int | None:
    """Return the number of combinations of oxidation states; None if there are too many to try."""
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
