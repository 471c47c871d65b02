"""Whether a composition can be one at all: the compositional validity of the field's shared protocol.

A composition passes if oxidation states of its elements, one for each element, add up to no charge while every cation
is less electronegative than every anion (Pauling). A single element and an alloy, of metals only, pass as they are. The
tables of oxidation states, electronegativities and metals are smact's; the answer depends on which oxidation states are
taken. "smact14" is the list that the original protocol had as smact's only one. The sums are those of
`crystens.charge_neutrality`.

Differs from the original: an element without an electronegativity (Pm, Rn, Lr) fails the Pauling test, as in smact 4,
where the original let some of its combinations pass. Elements that smact has no oxidation states of, or does not know,
do not pass, where the original broke off. Another version of smact's list has Ir -2 in place of 4.0.2's Ir -3, and no
Pu +2; which of them the original met is not known.

Source: Davies et al., "Computational screening of all stoichiometric inorganic materials", Chem 2016, 1, 617; Xie et
al., "Crystal Diffusion Variational Autoencoder for Periodic Material Generation", ICLR 2022, Sec. 5.2.
"""

from __future__ import annotations

import functools
import importlib
from importlib.metadata import version
from typing import Any

import numpy as np
from pymatgen.core import Element

from crystens.charge_neutrality import can_balance
from crystens.errors import CrystensError, first_line

# By name: the attribute of smact's elements that holds them.
OXIDATION_STATES = {
    "smact14": "oxidation_states_smact14",
    "icsd16": "oxidation_states_icsd16",
    "icsd24": "oxidation_states_icsd24",
    "pymatgen_sp": "oxidation_states_sp",
}
PASSED = ("element", "alloy", "neutral")

_LAST_KNOWN = 103  # smact's last element


def composition_verdict(numbers: np.ndarray, states: str = "smact14") -> str:
    """Return "element", "alloy" or "neutral" of a composition that passes, otherwise "not neutral" or "not known".

    Args:
        numbers: atomic number of each site, (N,), in any order.
        states: oxidation states that are taken, one of `OXIDATION_STATES`.

    Raises:
        CrystensError: if smact is not installed, or the oxidation states are not known.
    """
    elements, counts = np.unique(numbers, return_counts=True)
    counts //= np.gcd.reduce(counts)
    return _verdict(tuple(zip(elements.tolist(), counts.tolist(), strict=True)), states)


def states_name(states: str) -> str:
    """Return the name of oxidation states with the version that they come from, for people."""
    _smact()
    return f"{states} of smact {version('smact')}"


@functools.lru_cache(maxsize=2**18)
def _verdict(composition: tuple[tuple[int, int], ...], states: str) -> str:
    """Return the verdict on a reduced composition: atomic numbers and amounts."""
    if states not in OXIDATION_STATES:
        raise CrystensError(f"oxidation states {states!r} are not known; use one of {', '.join(OXIDATION_STATES)}")
    smact = _smact()
    if len(composition) == 1:
        return "element"
    if max(number for number, _ in composition) > _LAST_KNOWN:
        return "not known"
    known = {number: _element(number) for number, _ in composition}
    if all(element.symbol in smact.metals for element in known.values()):
        return "alloy"
    ions = [
        (known[number].pauling_eneg, amount, getattr(known[number], OXIDATION_STATES[states]) or [])
        for number, amount in composition
    ]
    return "neutral" if can_balance(ions) else "not neutral"


@functools.cache
def _element(number: int) -> Any:
    """Return smact's data of an element."""
    return _smact().Element(Element.from_Z(number).symbol)


@functools.cache
def _smact() -> Any:
    """Return smact; it takes a second to import."""
    try:
        return importlib.import_module("smact")
    except ImportError as error:
        raise CrystensError(
            f'smact cannot be imported ({first_line(error)}); run pip install "crystens[metrics]"'
        ) from error
