"""One list of orbits for all descriptions of a crystal, and like lists for like crystals."""

from __future__ import annotations

import numpy as np
import pytest

from crystens.crystal import Crystal, cell_vectors
from crystens.symmetry.descriptions import canonical, describe, read_orbits
from crystens.symmetry.orbit_crystal import OrbitCrystal
from crystens.symmetry.space_groups import cell_of_metric

# Orbits of crystals whose groups have much freedom of description: origin shifts, polar axes, exchanged axes, cells.
CRYSTALS = {
    "P1": OrbitCrystal(
        np.array([4.1, 5.3, 6.7]), np.array([81.0, 83.0, 76.0]), 1, np.array([6, 8, 8]), "aaa",
        np.array([[0.2, 0.1, 0.3], [0.55, 0.82, 0.91], [0.13, 0.64, 0.47]]),
    ),
    "P2_1": OrbitCrystal(
        np.array([5.1, 6.2, 7.3]), np.array([90, 108.0, 90]), 4, np.array([7, 11]), "aa",
        np.array([[0.21, 0.14, 0.33], [0.62, 0.45, 0.81]]),
    ),
    "P2_1/c": OrbitCrystal(
        np.array([5.1, 6.2, 7.3]), np.array([90, 101.0, 90]), 14, np.array([8, 8, 26]), "eea",
        np.array([[0.21, 0.14, 0.33], [0.72, 0.35, 0.41], [0, 0, 0]]),
    ),
    "C2/c": OrbitCrystal(
        np.array([9.8, 8.2, 5.6]), np.array([90, 106.0, 90]), 15, np.array([8, 14, 20]), "ffe",
        np.array([[0.11, 0.09, 0.14], [0.29, 0.41, 0.23], [0, 0.31, 0.25]]),
    ),
    "P2_12_12_1": OrbitCrystal(
        np.array([6.1, 8.2, 7.3]), np.array([90.0, 90, 90]), 19, np.array([6, 9]), "aa",
        np.array([[0.11, 0.24, 0.33], [0.42, 0.05, 0.61]]),
    ),
    "Pna2_1": OrbitCrystal(
        np.array([8.1, 5.2, 7.3]), np.array([90.0, 90, 90]), 33, np.array([8, 13, 13]), "aaa",
        np.array([[0.11, 0.24, 0.33], [0.42, 0.05, 0.61], [0.28, 0.67, 0.07]]),
    ),
    "Fdd2": OrbitCrystal(
        np.array([8.1, 11.2, 7.3]), np.array([90.0, 90, 90]), 43, np.array([8, 30]), "ba",
        np.array([[0.11, 0.24, 0.33], [0, 0, 0.61]]),
    ),
    "Pmmm": OrbitCrystal(
        np.array([3.8, 3.9, 11.7]), np.array([90.0, 90, 90]), 47, np.array([8, 8, 29, 39, 56]), "qsaht",
        np.array([[0, 0, 0.16], [0.5, 0, 0.38], [0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.18]]),
    ),
    "P4_2/mnm": OrbitCrystal(
        np.array([4.6, 4.6, 2.96]), np.array([90.0, 90, 90]), 136, np.array([8, 22]), "ga",
        np.array([[0.305, 0.695, 0], [0, 0, 0]]),
    ),
    "P6_3mc": OrbitCrystal(
        np.array([3.25, 3.25, 5.2]), np.array([90.0, 90, 120]), 186, np.array([8, 30]), "bb",
        np.array([[1 / 3, 2 / 3, 0.382], [1 / 3, 2 / 3, 0]]),
    ),
    "P3_221": OrbitCrystal(
        np.array([4.9, 4.9, 5.4]), np.array([90.0, 90, 120]), 154, np.array([8, 14]), "ca",
        np.array([[0.41, 0.27, 0.55], [0.47, 0, 2 / 3]]),
    ),
    "F-43m": OrbitCrystal(
        np.array([5.4, 5.4, 5.4]), np.array([90.0, 90, 90]), 216, np.array([16, 30, 3]), "acd",
        np.array([[0, 0, 0], [0.25, 0.25, 0.25], [0.75, 0.75, 0.75]]),
    ),
}  # fmt: skip


def _other_description(crystal: Crystal, rng: np.random.Generator, doubled: bool) -> Crystal:
    """The same crystal in another basis, from another origin, its sites in another order, of its hand."""
    vectors = cell_vectors(crystal.lengths, crystal.angles)
    places, numbers = crystal.coordinates, crystal.numbers
    basis = np.eye(3)[rng.permutation(3)]
    if doubled:
        basis[0] *= 2
        places = np.concatenate([places, places + basis[0] / 2])
        numbers = np.concatenate([numbers, numbers])
    for _ in range(2):
        one, other = rng.choice(3, 2, replace=False)
        step = np.eye(3)
        step[one, other] = rng.choice([-1, 1])
        basis = step @ basis
    if np.linalg.det(basis) < 0:
        basis = -basis
    vectors, places = basis @ vectors, places @ np.linalg.inv(basis) + rng.random(3)
    order = rng.permutation(len(numbers))
    lengths, angles = cell_of_metric(vectors @ vectors.T)
    return Crystal(lengths, angles, 1, numbers[order], places[order])


def _assert_same(one: OrbitCrystal, other: OrbitCrystal) -> None:
    assert one.space_group == other.space_group
    assert one.letters == other.letters
    assert one.numbers.tolist() == other.numbers.tolist()
    assert np.allclose(one.lengths, other.lengths, atol=1e-3)
    assert np.allclose(one.angles, other.angles, atol=1e-2)
    steps = one.coordinates - other.coordinates
    assert np.abs(steps - np.round(steps)).max() < 2e-3


@pytest.mark.parametrize("name", CRYSTALS)
def test_every_description_leads_to_the_same_list(name):
    expected = canonical(CRYSTALS[name])
    rng = np.random.default_rng(0)
    for doubled in (False, True, False, True):
        _assert_same(describe(_other_description(CRYSTALS[name].to_crystal(), rng, doubled)), expected)


@pytest.mark.parametrize("name", CRYSTALS)
def test_every_origin_and_axes_of_the_normaliser_lead_to_the_same_list(name):
    crystal = CRYSTALS[name]
    group, expected = crystal.group, canonical(crystal)
    sites = crystal.to_crystal()
    rng = np.random.default_rng(1)
    for turn, turn_shift in zip(group.turns[:12], group.turn_shifts, strict=False):
        step = turn_shift + group.shifts[rng.integers(len(group.shifts))]
        step[list(group.polar)] += rng.random(len(group.polar))
        inverse = np.linalg.inv(turn)
        lengths, angles = cell_of_metric(inverse.T @ crystal.metric @ inverse)
        moved = sites.coordinates @ turn.T + step
        _assert_same(canonical(read_orbits(group.number, lengths, angles, sites.numbers, moved)), expected)


def test_the_list_is_its_own_description():
    for crystal in CRYSTALS.values():
        once = canonical(crystal)
        _assert_same(canonical(once), once)
        _assert_same(describe(once.to_crystal("primitive")), once)


def test_perovskites_stand_alike_whatever_their_elements():
    # O and F are lighter than both metals, I is heavier than one: the anion is on 3c all the same.
    for a, b, x in ((38, 22, 8), (19, 12, 9), (55, 32, 53)):
        orbits = OrbitCrystal(
            np.full(3, 4.0), np.full(3, 90.0), 221, np.array([a, b, x]), "bad",
            np.array([[0.5, 0.5, 0.5], [0, 0, 0], [0.5, 0, 0]]),
        )  # fmt: skip
        found = canonical(orbits)
        assert dict(zip(found.numbers.tolist(), found.letters, strict=True)) == {a: "a", b: "b", x: "c"}


def test_quartz_keeps_its_hand(quartz):
    assert describe(quartz).space_group == 152
    mirrored = Crystal(quartz.lengths, quartz.angles, 154, quartz.numbers, -quartz.coordinates)
    assert describe(mirrored).space_group == 154
    # Of a group that has both hands in one number, too: P2_12_12_1.
    crystal = CRYSTALS["P2_12_12_1"].to_crystal()
    other = Crystal(crystal.lengths, crystal.angles, 19, crystal.numbers, -crystal.coordinates)
    steps = describe(crystal).coordinates - describe(other).coordinates
    assert np.abs(steps - np.round(steps)).max() > 0.01


def test_monoclinic_cells_are_the_shortest_and_obtuse():
    crystal = CRYSTALS["P2_1/c"]
    turn = np.array([[1, 0, 0], [0, 1, 0], [-1, 0, 1]])  # a becomes a + c
    inverse = np.linalg.inv(turn)
    lengths, angles = cell_of_metric(inverse.T @ crystal.metric @ inverse)
    sites = crystal.to_crystal()
    long = read_orbits(14, lengths, angles, sites.numbers, sites.coordinates @ turn.T)
    assert long.lengths[0] > 7
    assert np.allclose(canonical(long).lengths, [5.1, 6.2, 7.3])
    assert np.allclose(canonical(long).angles, [90, 101, 90])
