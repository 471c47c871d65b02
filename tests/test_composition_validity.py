"""Compositional validity, with compositions on both sides of each rule and smact as an oracle."""

from __future__ import annotations

import itertools
import sys
import time

import numpy as np
import pytest
from pymatgen.core import Composition, Element

from crystens.chemistry.charge_neutrality import can_balance
from crystens.errors import CrystensError
from crystens.protocol import composition_validity
from crystens.protocol.composition_validity import OXIDATION_STATES, PASSED, composition_verdict, states_name

smact = pytest.importorskip("smact", reason="the extra metrics is not installed")


def numbers(formula: str) -> np.ndarray:
    return np.array([element.Z for element, amount in Composition(formula).items() for _ in range(int(amount))])


@pytest.mark.parametrize(
    ("formula", "verdict"),
    [
        ("NaCl", "neutral"),
        ("NaCl2", "not neutral"),  # one state for each element, and sodium has +1 alone
        ("SrTiO3", "neutral"),
        ("Na4Cl", "not neutral"),
        ("LiF2", "not neutral"),
        ("C", "element"),
        ("O8", "element"),
        ("CuZn", "alloy"),
        ("NaK", "alloy"),
        ("Cu5Zn8", "alloy"),
        ("HeO", "not neutral"),  # helium has no oxidation states
        ("RfO2", "not known"),  # beyond smact's last element
        ("PmF3", "not neutral"),  # promethium has no electronegativity
    ],
)
def test_verdict(formula: str, verdict: str) -> None:
    assert composition_verdict(numbers(formula)) == verdict


def test_pauling_decides_where_charges_balance() -> None:
    # Hydrogen and gold have +1 and -1 each: only the one that is more electronegative may be the anion.
    assert can_balance([(2.2, 1, [1]), (2.54, 1, [-1])])
    assert not can_balance([(2.2, 1, [-1]), (2.54, 1, [1])])
    assert not can_balance([(2.2, 1, [-1]), (2.2, 1, [1])])  # a tie is no anion
    # Balanced by cations below and above an anion in electronegativity.
    assert not can_balance([(1.0, 1, [1]), (2.0, 2, [-1]), (3.0, 1, [1])])
    assert composition_verdict(numbers("OF2")) == "neutral"  # O +2, F -1


def test_the_verdict_depends_on_ratios_only() -> None:
    assert composition_verdict(numbers("Al2O3")) == composition_verdict(np.tile(numbers("Al2O3"), 7)) == "neutral"


def brute(formula: str, states: str) -> bool:
    """Every combination of oxidation states, as the original goes through them."""
    composition = Composition(formula).reduced_composition
    elements = [smact.Element(element.symbol) for element in composition]
    if len(elements) == 1 or all(element.symbol in smact.metals for element in elements):
        return True
    charges = [getattr(element, OXIDATION_STATES[states]) or [] for element in elements]
    amounts = [int(amount) for amount in composition.values()]
    negativities = [element.pauling_eneg for element in elements]
    from smact.screening import pauling_test

    return any(
        sum(charge * amount for charge, amount in zip(chosen, amounts, strict=True)) == 0
        and pauling_test(chosen, negativities)
        for chosen in itertools.product(*charges)
    )


@pytest.mark.parametrize("states", sorted(OXIDATION_STATES))
def test_verdicts_agree_with_going_through_all_combinations(states: str) -> None:
    generator = np.random.default_rng(0)
    passed = 0
    for _ in range(400):
        chosen = generator.choice(np.arange(1, 100), size=generator.integers(2, 5), replace=False)
        formula = "".join(f"{Element.from_Z(int(z)).symbol}{generator.integers(1, 5)}" for z in chosen)
        verdict = composition_verdict(numbers(formula), states) in PASSED
        assert verdict == brute(formula, states), formula
        passed += verdict
    assert 20 < passed < 380


def test_verdicts_agree_with_smact_itself() -> None:
    from smact.screening import smact_validity

    for formula in ("SrTiO3", "BaSO4", "Fe3O4", "LiF2", "CuZn", "GaAs", "K2Cr2O7", "OsO4", "CaC2", "ZrN", "Li3Sb"):
        told = smact_validity(
            Composition(formula), use_pauling_test=True, include_alloys=True, oxidation_states_set="smact14"
        )
        assert (composition_verdict(numbers(formula)) in PASSED) == told, formula


def test_eleven_elements_take_no_time() -> None:
    started = time.perf_counter()
    composition_verdict(np.repeat([6, 7, 15, 16, 17, 24, 25, 26, 34, 35, 53], [7, 3, 5, 2, 9, 4, 1, 6, 8, 11, 13]))
    assert time.perf_counter() - started < 1  # 10^10 combinations


def test_unknown_oxidation_states_are_refused_and_known_ones_are_named_with_their_version() -> None:
    with pytest.raises(CrystensError, match=r"'icsd99' are not known; use one of smact14, icsd16"):
        composition_verdict(numbers("NaCl"), "icsd99")
    assert states_name("smact14").startswith("smact14 of smact ")


def test_without_smact_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "smact", None)
    composition_validity._smact.cache_clear()
    with pytest.raises(CrystensError, match=r'pip install "crystens\[metrics\]"'):
        states_name("smact14")
    composition_validity._smact.cache_clear()
