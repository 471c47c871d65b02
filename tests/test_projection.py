"""Noisy orbits become exact crystals of their group, or a reason why not."""

from __future__ import annotations

import numpy as np
import pytest

from crystens.errors import CrystensError
from crystens.symmetry.descriptions import describe
from crystens.symmetry.projection import Projection
from crystens.symmetry.space_groups import space_group_number

NACL = (225, np.full(3, 5.64), np.full(3, 90.0), np.array([11, 17]))
RIGHT = np.full(3, 90.0)


@pytest.mark.parametrize("name", ["nacl", "copper_primitive", "single_atom", "triclinic", "sites_52", "quartz"])
def test_noise_is_projected_away(name, request):
    crystal = request.getfixturevalue(name)
    exact = describe(crystal)
    rng = np.random.default_rng(0)
    noisy = exact.coordinates + rng.normal(scale=0.002, size=(len(exact), 3))
    lengths = exact.lengths * (1 + rng.normal(scale=0.003, size=3))
    angles = exact.angles + rng.normal(scale=0.3, size=3)
    made = Projection()(exact.space_group, lengths, angles, exact.numbers, exact.letters, noisy)
    assert made.reason == ""
    assert made.repairs == {"taken": 0, "collapsed": 0, "merged": 0}
    assert made.moved.max() < 0.1
    assert made.crystal.letters == exact.letters
    assert np.allclose(made.crystal.lengths, exact.lengths, rtol=0.01)
    steps = made.crystal.coordinates - exact.coordinates
    assert np.abs(steps - np.round(steps)).max() < 0.02
    for cell in ("conventional", "primitive"):
        back = made.crystal.to_crystal(cell)
        found = space_group_number(back.lengths, back.angles, back.numbers, back.coordinates, 1e-4)
        assert found == crystal.space_group


def test_any_site_of_an_orbit_stands_for_it():
    exact = describe_rutile()
    for site in exact.group.position("f").orbit(exact.coordinates[0]):
        made = Projection()(
            136, exact.lengths, exact.angles, exact.numbers, "fa", np.array([site, exact.coordinates[1]])
        )
        orbit = made.crystal.to_crystal().coordinates[:4]
        steps = orbit[:, None] - exact.to_crystal().coordinates[None, :4]
        assert np.abs(steps - np.round(steps)).max(axis=2).min(axis=1).max() < 1e-9
        assert made.moved.max() < 1e-9


def describe_rutile():
    made = Projection()(
        136, np.array([4.594, 4.594, 2.959]), RIGHT, np.array([8, 22]), "fa", np.array([[0.3053, 0.3053, 0], [0, 0, 0]])
    )
    return made.crystal


def test_the_cell_is_the_mean_over_the_rotations():
    # Pnma fixes the angles and no length, Fm-3m all: its length is the root of the mean square.
    made = Projection()(
        62, np.array([5.0, 6, 7]), np.array([88.0, 91, 93]), np.array([8]), "c", np.array([[0.1, 0.25, 0.3]])
    )
    assert np.allclose(made.crystal.angles, 90)
    assert np.allclose(made.crystal.lengths, [5, 6, 7])
    made = Projection()(225, np.array([5.0, 6, 7]), RIGHT, np.array([8]), "a", np.zeros((1, 3)))
    assert np.allclose(made.crystal.lengths, np.sqrt((25 + 36 + 49) / 3))


def test_a_position_that_holds_one_orbit_is_given_to_the_nearer():
    letters, places = "aa", np.array([[0.42, 0.45, 0.5], [0.01, 0, 0]])
    made = Projection()(*NACL, letters, places)
    assert made.crystal.letters == "ba"
    assert made.repairs == {"taken": 1, "collapsed": 0, "merged": 0}
    assert np.isclose(made.moved[0], 5.64 * np.hypot(0.08, 0.05))
    refused = Projection(repair=False)(*NACL, letters, places)
    assert refused.crystal is None
    assert refused.reason == "orbits 1 and 0 both stand on position 4a of space group 225, which holds one"


def test_a_full_position_without_another_of_its_multiplicity_is_a_failure():
    # Of four sites Fm-3m has 4a and 4b only.
    places = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.25, 0.3, 0.25]])
    made = Projection()(225, np.full(3, 5.64), RIGHT, np.array([8, 11, 17]), "aba", places)
    assert made.crystal is None
    assert made.reason == "orbits 0 and 2 both stand on position 4a of space group 225, which holds one"


def test_an_orbit_closer_to_itself_than_half_an_angstrom_collapses_on_the_point_between():
    # 24e (x,0,0) of Fm-3m with x = 0.02: six sites 0.16 angstrom apart around 4a.
    places = np.array([[0.02, 0, 0], [0.5, 0.5, 0.5]])
    made = Projection()(*NACL, "eb", places)
    assert made.crystal.letters == "ab"
    assert made.repairs == {"taken": 0, "collapsed": 1, "merged": 0}
    refused = Projection(repair=False)(*NACL, "eb", places)
    assert refused.reason == "sites of orbit 0 on position 24e of space group 225 are 0.16 angstrom apart"


def test_an_orbit_that_collapses_on_another_one_is_left_out():
    made = Projection()(*NACL, "ea", np.array([[0.02, 0, 0], [0, 0, 0]]))
    assert made.crystal.letters == "a"
    assert made.crystal.numbers.tolist() == [17]
    assert made.repairs == {"taken": 0, "collapsed": 1, "merged": 1}


def test_an_orbit_drawn_twice_is_left_out_once():
    numbers = np.array([8, 11, 17])
    made = Projection()(225, np.full(3, 5.64), RIGHT, numbers, "aab", np.array([[0, 0, 0], [0.02, 0, 0], [0.5] * 3]))
    assert made.crystal.letters == "ab"
    assert made.crystal.numbers.tolist() == [8, 17]
    assert made.repairs == {"taken": 0, "collapsed": 0, "merged": 1}


def test_orbits_on_one_place_are_merged_into_the_earlier():
    # Two general orbits of P-1, 0.2 angstrom apart across the cell border.
    places = np.array([[0.3, 0.2, 0.98], [0.31, 0.2, 0.01]])
    made = Projection()(2, np.array([5.0, 6, 7]), RIGHT, np.array([8, 14]), "ii", places)
    assert made.crystal.numbers.tolist() == [8]
    assert made.repairs == {"taken": 0, "collapsed": 0, "merged": 1}
    assert (
        Projection(repair=False)(2, np.array([5.0, 6, 7]), RIGHT, np.array([8, 14]), "ii", places).reason
        == "orbits 0 and 1 are 0.22 angstrom apart"
    )


def test_too_many_sites_are_a_failure():
    made = Projection(max_sites=20)(225, np.full(3, 20.0), RIGHT, np.array([6]), "l", np.array([[0.1, 0.21, 0.33]]))
    assert made.crystal is None
    assert made.reason == "48 sites in the primitive cell, more than 20"


@pytest.mark.parametrize(
    ("lengths", "angles", "places", "reason"),
    [
        ([5, 5, 5], [150, 150, 150], [0, 0, 0], "the three cell angles cannot form a cell"),
        ([5, 5, float("nan")], [90, 90, 90], [0, 0, 0], "cell has values that are not finite"),
        ([5, 5, 5], [90, 90, 90], [0, float("nan"), 0], "coordinates that are not finite"),
        ([0.1, 0.1, 0.1], [90, 90, 90], [0, 0, 0], "the cell repeats after 0.1 angstrom"),
    ],
)
def test_values_that_make_no_cell_are_a_failure_with_the_reason(lengths, angles, places, reason):
    made = Projection()(221, np.array(lengths), np.array(angles), np.array([6]), "a", np.array([places]))
    assert made.crystal is None
    assert reason in made.reason


def test_options_and_letters_that_do_not_exist_are_errors():
    with pytest.raises(CrystensError, match="min_distance must be a distance in angstrom, got -1"):
        Projection(min_distance=-1)
    with pytest.raises(CrystensError, match="max_sites must be at least 1, or None, got 0"):
        Projection(max_sites=0)
    with pytest.raises(CrystensError, match="has no Wyckoff position 'z'"):
        Projection()(*NACL, "az", np.zeros((2, 3)))
