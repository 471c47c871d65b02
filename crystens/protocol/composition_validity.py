"""Compositional validity by the CDVAE protocol.

The rule is that of `crystens.chemistry.charge_neutrality`, with smact's tables of oxidation states, electronegativities
and metals. The result depends on the list of oxidation states. "smact14" is the list of the original protocol, at that
time the only one in smact.

Differs from the original: an element without an electronegativity (Pm, Rn, Lr) fails the Pauling test, as in smact 4;
the original let some of its combinations pass. Elements without oxidation states in smact fail; the original stopped
with an error. Versions of smact's list differ (Ir -2 or Ir -3, with or without Pu +2), and the version behind the
original is not known.

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

from crystens.chemistry.charge_neutrality import can_balance
from crystens.errors import CrystensError, first_line

# Attribute of smact's elements that holds each list.
OXIDATION_STATES = {
    "smact14": "oxidation_states_smact14",
    "icsd16": "oxidation_states_icsd16",
    "icsd24": "oxidation_states_icsd24",
    "pymatgen_sp": "oxidation_states_sp",
}
PASSED = ("element", "alloy", "neutral")

_LAST_KNOWN = 103  # smact's last element


def composition_verdict(numbers: np.ndarray, states: str = "smact14") -> str:
    """Return "element", "alloy" or "neutral" if a composition passes, otherwise "not neutral" or "not known".

    Args:
        numbers: atomic number of each site, (N,), in any order.
        states: list of oxidation states, one of `OXIDATION_STATES`.

    Raises:
        CrystensError: if smact is not installed, or the oxidation states are not known.
    """
    elements, counts = np.unique(numbers, return_counts=True)
    counts //= np.gcd.reduce(counts)
    return _verdict(tuple(zip(elements.tolist(), counts.tolist(), strict=True)), states)


def states_name(states: str) -> str:
    """Return the name of a list of oxidation states with the version of smact, for messages."""
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
