"""Plausibility tells junk from crystals, and known chemistry from unknown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.data import covalent_radii

from crystens.batch import CrystalBatch
from crystens.chemistry.charge_neutrality import can_balance, is_charge_neutral
from crystens.crystal import Crystal
from crystens.metrics.crystal_table import crystal_row
from crystens.metrics.distributions import Reference
from crystens.metrics.plausibility import CLOSE_RATIO, MIN_RATIO, distance_ratio, plausibility
from crystens.report.page import best_samples, by_plausibility
from crystens.samples.references import read_real


def test_the_ratio_is_that_of_the_nearest_two_by_their_radii(nacl: Crystal, single_atom: Crystal) -> None:
    assert distance_ratio(nacl) == pytest.approx(2.82 / (covalent_radii[11] + covalent_radii[17]))
    # A single atom is nearest to its own image.
    assert distance_ratio(single_atom) == pytest.approx(3.345 / (2 * covalent_radii[84]))
    # Not the shortest distance, but the shortest by the radii: H-H 0.74 is farther apart than Cs-Cs 2.
    places = np.array([[0, 0, 0], [0.074, 0, 0], [0.5, 0.5, 0.5], [0.7, 0.5, 0.5]])
    mixed = Crystal([10] * 3, [90] * 3, 1, [1, 1, 55, 55], places)
    assert distance_ratio(mixed) == pytest.approx(2 / (2 * covalent_radii[55]))


@pytest.mark.parametrize(
    ("numbers", "neutral"),
    [
        ([11, 17], True),  # NaCl
        ([22, 8, 8], True),  # TiO2
        ([11, 11, 17], False),  # Na2Cl
        ([29], True),  # a single element
        ([29, 79], True),  # an alloy
        ([10, 18], False),  # noble gases have no electronegativity
        ([11, 38, 3, 70, 7, 9, 18, 2], False),
    ],
)
def test_compositions_are_neutral_by_pymatgens_states(numbers: list[int], neutral: bool) -> None:
    assert is_charge_neutral(np.array(numbers)) == neutral
    assert is_charge_neutral(np.array(numbers * 3)) == neutral


def test_charges_balance_only_with_cations_below_anions() -> None:
    assert can_balance([(0.9, 1, [1]), (3.2, 1, [-1])])
    assert not can_balance([(3.2, 1, [1]), (0.9, 1, [-1])])
    assert not can_balance([(None, 1, [0]), (0.9, 1, [0])])


def test_plausibility_is_the_share_of_what_holds_and_0_for_atoms_in_each_other() -> None:
    assert plausibility(True, 0.9, True, 225, (True, False)) == 1
    assert plausibility(True, 0.9, True, 225, (False, None)) == 3 / 4
    assert plausibility(True, 0.9, False, 1, (False, False)) == 1 / 4
    assert plausibility(True, 0.9, False, None, (None, None)) == 1 / 3
    assert plausibility(True, MIN_RATIO - 0.01, True, 225, (True, True)) == 0
    assert plausibility(False, 0.9, True, 225, (True, True)) == 0


def test_rows_say_what_is_known_and_are_shown_the_most_plausible_first(nacl: Crystal, triclinic: Crystal) -> None:
    reference = Reference.from_crystals(CrystalBatch.from_crystals([nacl], 8), "salt")
    junk = Crystal([5, 6, 7], [80, 85, 95], 1, [3, 54, 9], np.array([[0, 0, 0], [0.12, 0, 0], [0.5, 0.5, 0.5]]))
    fluoride = replace(nacl, numbers=np.repeat([3, 9], 4))
    roomy = replace(triclinic, lengths=1.3 * triclinic.lengths)
    rows = [crystal_row(place, one, reference=reference) for place, one in enumerate([junk, roomy, fluoride, nacl])]
    assert [(row["known_formula"], row["known_template"]) for row in rows] == [
        (False, False),
        (False, False),
        (False, True),
        (True, True),
    ]
    assert [row["plausibility"] for row in rows] == [0, 0.5, 1, 1]
    assert [row["index"] for row in by_plausibility(rows)] == [2, 3, 1, 0]
    assert best_samples(rows) == [2, 3, 1]
    assert crystal_row(0, nacl)["known_formula"] is None
    assert crystal_row(0, nacl, merged=True)["plausibility"] == 0


def test_close_atoms_are_less_plausible(nacl: Crystal) -> None:
    assert plausibility(True, CLOSE_RATIO, True, 225, (True, True)) == 1
    assert plausibility(True, CLOSE_RATIO - 0.01, True, 225, (True, True)) == 0.75
    assert distance_ratio(nacl) > CLOSE_RATIO


def test_no_real_crystal_has_atoms_within_each_other(shared_data: Path) -> None:
    crystals = read_real("mp_3dsc", str(shared_data / "mp_3dsc"), "test")[0]
    assert min(map(distance_ratio, crystals)) > MIN_RATIO
