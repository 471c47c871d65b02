"""A stated space group imposed on noisy crystals: found in any cell, and refused where it is not there."""

from dataclasses import replace

import numpy as np
import pytest

from crystens.crystal import Crystal
from crystens.distances import nearest_distances
from crystens.symmetry.orbit_crystal import OrbitCrystal
from crystens.symmetry.space_groups import cell_of_metric, imposed, space_group_number
from crystens.symmetry.stated_group import stated_group
from crystens.symmetry.wyckoff import space_group

NOISE = 0.1  # angstrom, of each Cartesian component; moyopy finds the group of next to none of these
# Of each kind: polar and centred axes, screws and glides, choices of cell and origin, handedness, both cells of R.
GROUPS = [
    2,
    5,
    9,
    14,
    15,
    19,
    33,
    62,
    70,
    88,
    122,
    141,
    146,
    152,
    161,
    166,
    176,
    186,
    194,
    198,
    205,
    216,
    220,
    225,
    227,
]


def number_of(crystal: Crystal, symprec: float = 0.01) -> int:
    return space_group_number(crystal.lengths, crystal.angles, crystal.numbers, crystal.coordinates, symprec)


def made(number: int, rng: np.random.Generator) -> Crystal:
    """Return a crystal of a group in its primitive cell: two orbits of unlike elements, its sites apart."""
    group = space_group(number)
    lengths, angles = cell_of_metric(group.averaged_metric(np.diag(rng.uniform(6.5, 9.5, 3) ** 2)))
    few = [p for p in group.positions if p.multiplicity <= 24 * len(group.centring)]
    for _ in range(2000):
        chosen = [few[-1], few[int(rng.integers(len(few)))]]
        places = np.array([p.linear @ rng.random(3) + p.shift for p in chosen])
        letters = "".join(p.letter for p in chosen)
        orbits = OrbitCrystal(lengths, angles, number, np.array([14, 8]), letters, places)
        crystal = orbits.symmetrised("primitive").crystal
        if nearest_distances(crystal.vectors, crystal.coordinates).min() > 1.3 and number_of(crystal) == number:
            return crystal
    raise AssertionError(f"no crystal of group {number} was made")


def shaken(crystal: Crystal, rng: np.random.Generator, noise: float = NOISE) -> Crystal:
    """Return a crystal in another cell of its lattice, from another origin, its sites and cell out of place."""
    change = np.zeros((3, 3))
    while round(np.linalg.det(change)) != 1:
        change = rng.integers(-1, 2, (3, 3))
    vectors = change @ (crystal.vectors @ (np.eye(3) + rng.normal(0, noise / 10, (3, 3))))
    lengths, angles = cell_of_metric(vectors @ vectors.T)
    places = crystal.coordinates @ np.linalg.inv(change) + rng.random(3)
    places = places + rng.normal(0, noise, places.shape) @ np.linalg.inv(vectors)
    order = rng.permutation(len(places))
    return Crystal(lengths, angles, 1, crystal.numbers[order], places[order] % 1)


@pytest.mark.parametrize("number", GROUPS)
def test_a_group_is_found_in_a_noisy_crystal_in_any_cell(number: int) -> None:
    rng = np.random.default_rng(number)
    noisy = shaken(made(number, rng), rng)
    found = stated_group(noisy, number, 0.5)
    assert found is not None
    crystal = found.symmetry.crystal
    assert number_of(crystal, 1e-4) == number
    # Sites stay in their order and move by as much as they were moved; a common shift does not count.
    np.testing.assert_array_equal(crystal.numbers, noisy.numbers)
    steps = crystal.coordinates - noisy.coordinates
    moved = np.linalg.norm((steps - np.rint(steps)) @ noisy.vectors, axis=1)
    np.testing.assert_allclose(moved, found.displacements, atol=0.1)
    assert 0.03 < found.displacements.max() <= 0.5


@pytest.mark.parametrize("number", [14, 166, 225])
def test_the_operations_are_those_of_the_crystal(number: int) -> None:
    rng = np.random.default_rng(number)
    found = stated_group(shaken(made(number, rng), rng), number, 0.5)
    assert found is not None
    symmetry = found.symmetry
    sites = symmetry.crystal.coordinates
    for rotation, translation in zip(symmetry.rotations, symmetry.translations, strict=True):
        steps = (sites @ rotation.T + translation)[:, None] - sites
        onto = np.abs(steps - np.rint(steps)).max(axis=2)
        assert onto.min(axis=1).max() < 1e-9
        reached = onto.argmin(axis=1)
        np.testing.assert_array_equal(symmetry.orbits[reached], symmetry.orbits)
        np.testing.assert_array_equal(symmetry.crystal.numbers[reached], symmetry.crystal.numbers)


def test_a_conventional_cell_of_a_centred_group_is_recognised() -> None:
    salt = OrbitCrystal(
        np.full(3, 5.64), np.full(3, 90.0), 225, np.array([11, 17]), "ab", np.array([[0.0] * 3, [0.5] * 3])
    )
    rng = np.random.default_rng(0)
    cell = salt.symmetrised("conventional").crystal
    places = cell.coordinates + rng.normal(0, 0.1, cell.coordinates.shape) / 5.64
    found = stated_group(replace(cell, coordinates=places, space_group=1), 225, 0.5)
    assert found is not None
    assert len(found.symmetry.rotations) == 192
    assert number_of(found.symmetry.crystal) == 225


def test_a_group_that_is_too_far_is_not_imposed() -> None:
    rng = np.random.default_rng(1)
    noisy = shaken(made(62, rng), rng)
    assert stated_group(noisy, 62, 0.05) is None  # atoms are off by more
    assert stated_group(noisy, 225, 0.5) is None  # no cubic cell
    assert stated_group(noisy, 62, 0.5, strain=1e-4) is None
    assert imposed(noisy, 62, 0.3, 0.01)[0].crystal.space_group == 1
    unlike = replace(noisy, numbers=np.arange(1, len(noisy) + 1))  # each site its own element
    assert stated_group(unlike, 62, 0.5) is None
