"""Wyckoff positions: the shipped table against International Tables as spglib and pymatgen know them, and geometry."""

from __future__ import annotations

import importlib.util
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import spglib
from pymatgen.symmetry.groups import SpaceGroup as PymatgenGroup

from crystens.errors import CrystensError
from crystens.symmetry.wyckoff import GENERIC, SpaceGroup, affine_map, space_group

pytestmark = pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")  # spglib

REPOSITORY = Path(__file__).parent.parent
TABLE = REPOSITORY / "crystens" / "symmetry" / "wyckoff.json"

# One group or more of each centring, system and kind of origin.
SOME = (1, 2, 5, 14, 15, 19, 33, 43, 62, 63, 70, 122, 136, 141, 152, 154, 166, 186, 194, 205, 216, 221, 225, 227)


def _generator():
    spec = importlib.util.spec_from_file_location("wyckoff_run", REPOSITORY / "experiments" / "wyckoff" / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _metric(group: SpaceGroup) -> np.ndarray:
    """The metric tensor of some cell that the group keeps, angstrom squared."""
    vectors = np.array([[5.0, 0, 0], [0.7, 6.0, 0], [-1.1, 0.4, 7.0]])
    return group.averaged_metric(vectors @ vectors.T)


def _same_points(some: np.ndarray, others: np.ndarray) -> bool:
    """Whether two lists of fractional points are the same set, over lattice translations."""
    steps = some[:, None] - others[None]
    apart = np.abs(steps - np.round(steps)).max(axis=2)
    return len(some) == len(others) and (apart.min(axis=1) < 1e-6).all() and (apart.min(axis=0) < 1e-6).all()


def test_the_table_holds_all_1731_positions_lettered_from_a_on():
    table = json.loads(TABLE.read_text())
    assert list(table) == [str(number) for number in range(1, 231)]
    assert sum(len(row["positions"]) for row in table.values()) == 1731
    alphabet = "abcdefghijklmnopqrstuvwxyzA"
    for row in table.values():
        letters = "".join(position[0] for position in row["positions"])
        assert letters == alphabet[: len(letters)]
        multiplicities = [position[1] for position in row["positions"]]
        assert multiplicities == sorted(multiplicities)


@pytest.mark.parametrize(
    ("number", "letter", "multiplicity", "symmetry", "representative"),
    [
        (2, "h", 1, "-1", "1/2,1/2,1/2"),
        (15, "e", 4, "2", "0,y,1/4"),  # C2/c, unique axis b, cell choice 1
        (47, "A", 8, "1", "x,y,z"),
        (62, "c", 4, ".m.", "x,1/4,z"),
        (136, "f", 4, "m.2m", "x,x,0"),
        (152, "a", 3, ".2.", "x,0,1/3"),
        (154, "a", 3, ".2.", "x,0,2/3"),
        (166, "c", 6, "3m", "0,0,z"),  # hexagonal axes
        (186, "b", 2, "3m.", "1/3,2/3,z"),
        (221, "c", 3, "4/mm.m", "0,1/2,1/2"),
        (225, "c", 8, "-43m", "1/4,1/4,1/4"),
        (227, "a", 8, "-43m", "1/8,1/8,1/8"),  # origin choice 2
        (227, "c", 16, ".-3m", "0,0,0"),
    ],
)
def test_positions_are_those_of_international_tables(number, letter, multiplicity, symmetry, representative):
    position = space_group(number).position(letter)
    linear, shift = affine_map(representative)
    assert (position.multiplicity, position.site_symmetry) == (multiplicity, symmetry)
    assert np.array_equal(position.linear, linear)
    assert np.allclose(position.shift, shift)


@pytest.mark.parametrize("number", SOME)
def test_operations_are_those_of_a_setting_of_spglib_and_orbits_are_closed_under_them(number):
    group = space_group(number)

    def keys(rotations, translations):
        return {
            (*np.ravel(r).tolist(), *(np.rint(np.array(t) * 24).astype(int) % 24).tolist())
            for r, t in zip(rotations, translations, strict=True)
        }

    halls = [hall for hall in range(1, 531) if spglib.get_spacegroup_type(hall).number == number]
    settings = [spglib.get_symmetry_from_database(hall) for hall in halls]
    assert keys(group.rotations, group.translations) in [keys(s["rotations"], s["translations"]) for s in settings]
    for position in group.positions:
        orbit = position.orbit(position.linear @ GENERIC + position.shift)
        assert len(orbit) == position.multiplicity
        for rotation, translation in zip(group.rotations, group.translations, strict=True):
            assert _same_points(orbit @ rotation.T + translation, orbit)


@pytest.mark.parametrize("number", [14, 15, 62, 152, 186])
def test_pymatgen_makes_as_many_sites_of_a_representative(number):
    for position in space_group(number).positions:
        orbit = PymatgenGroup.from_int_number(number).get_orbit(position.linear @ GENERIC + position.shift)
        assert len(orbit) == position.multiplicity


@pytest.mark.parametrize("number", [2, 15, 33, 166, 186, 216])
def test_the_generator_makes_the_shipped_table(number):
    assert json.loads(json.dumps(_generator().group_table(number))) == json.loads(TABLE.read_text())[str(number)]


@pytest.mark.parametrize(("letter", "sheets"), [("a", 1), ("c", 3), ("e", 3), ("g", 4), ("k", 3), ("n", 1)])
def test_sheets_are_the_points_lines_and_planes_of_a_position(letter, sheets):
    # Of Pm-3m: (x,0,0) and (-x,0,0) are one line along a; the four body diagonals; the planes (0,y,z) and its like.
    position = space_group(221).position(letter)
    assert len(np.unique(position.sheets)) == sheets


@pytest.mark.parametrize("number", SOME)
def test_nearest_points_are_no_farther_than_any_point_of_a_fine_search(number):
    group = space_group(number)
    metric = _metric(group)
    rng = np.random.default_rng(number)
    points = rng.random((3, 3)) * 2 - 0.5
    steps = np.array(list(itertools.product(range(-2, 3), repeat=3)))
    grid = np.arange(0, 1, 1 / 40)
    for position in group.positions[:-1]:
        found = position.nearest(points, metric)
        used = np.flatnonzero(position.linear.any(axis=0))
        parameters = np.zeros((len(grid) ** len(used), 3))
        parameters[:, used] = np.array(list(itertools.product(grid, repeat=len(used)))).reshape(len(parameters), -1)
        # All images of the searched points, without lattice translations, then one at a time.
        places = parameters @ position.linear.T + position.shift
        for point, here, near, distance in zip(
            points, found.points, found.representatives, found.distances, strict=True
        ):
            d = here - point
            assert np.isclose(np.sqrt(d @ metric @ d), distance, atol=1e-9)
            orbit = position.orbit(near)
            assert (np.abs((orbit - here) - np.round(orbit - here)).max(axis=1) < 1e-6).any()
            best = np.inf
            for image in range(position.multiplicity):
                d = places @ position.rotations[image].T + position.translations[image] - point
                d = d - np.round(d)
                squares = ((d @ metric) * d).sum(axis=1)
                d = d[squares.argmin()] + steps
                best = min(best, float(((d @ metric) * d).sum(axis=1).min()))
            assert distance <= np.sqrt(best) + 1e-9
            spacing = np.sqrt(np.abs(np.diag(metric)).max()) / 40 * 3
            assert distance >= np.sqrt(best) - (spacing if len(used) else 1e-9)


def test_a_point_across_the_cell_border_is_near():
    group = space_group(225)
    metric = 5.64**2 * np.eye(3)
    found = group.position("a").nearest(np.array([[0.99, 0.01, 0.995]]), metric)
    assert np.allclose(found.points, [[1, 0, 1]])
    assert np.allclose(found.representatives, 0)
    assert np.isclose(found.distances[0], 5.64 * np.sqrt(0.01**2 * 2 + 0.005**2))


def test_a_noisy_point_is_classified_by_the_most_special_position_within_the_tolerance():
    group = space_group(221)
    metric = 16 * np.eye(3)
    for point, letter in (
        ([0.01, 0, 0.99], "a"),
        ([0.5, 0.49, 0], "c"),
        ([0.2, 0, 0.01], "e"),
        ([0.2, 0.2, 0.01], "i"),
        ([0.2, 0.1, 0.01], "k"),
        ([0.2, 0.1, 0.35], "n"),
    ):
        position, nearest = group.classified(np.array(point), metric, 0.1)
        assert position.letter == letter
        assert nearest.distances[0] <= 0.1


@pytest.mark.parametrize("number", SOME)
def test_normaliser_motions_map_the_operations_on_themselves(number):
    group = space_group(number)
    for turn, turn_shift in zip(group.turns, group.turn_shifts, strict=True):
        assert round(np.linalg.det(turn)) == 1
        for shift in group.shifts:
            step = turn_shift + shift
            rotations = turn @ group.rotations @ np.linalg.inv(turn)
            translations = group.translations @ turn.T + step - rotations @ step
            found = set()
            for rotation, translation in zip(np.rint(rotations).astype(int), translations, strict=True):
                same = (group.rotations == rotation).all(axis=(1, 2))
                apart = group.translations - translation
                same &= np.abs(apart - np.round(apart)).max(axis=1) < 1e-9
                assert same.sum() == 1
                found.add(int(np.flatnonzero(same)[0]))
            assert len(found) == len(group.rotations)


@pytest.mark.parametrize(
    # The index of a group in its Euclidean normaliser, without mirror images and polar shifts, for the general metric
    # (International Tables A, Table 3.5.2.3 to 3.5.2.5): Pnma 8, Fm-3m 2, Fd-3m 2, P6_3/mmc 2, P-1 8, P4_2/mnm 4.
    ("number", "index"),
    [(2, 8), (62, 8), (136, 4), (166, 2), (194, 2), (221, 2), (225, 2), (227, 2), (230, 1), (205, 2)],
)
def test_normalisers_have_the_index_that_international_tables_give(number, index):
    group = space_group(number)
    assert len(group.turns) * len(group.shifts) == index


def test_polar_axes_leave_the_origin_free():
    assert [space_group(number).polar for number in (1, 4, 7, 33, 186, 62)] == [(0, 1, 2), (1,), (0, 2), (2,), (2,), ()]


def test_a_group_or_letter_that_is_not_there_is_an_error():
    with pytest.raises(CrystensError, match="must be 1-230, got 231"):
        space_group(231)
    with pytest.raises(CrystensError, match="space group 2 has no Wyckoff position 'j', only abcdefghi"):
        space_group(2).position("j")
