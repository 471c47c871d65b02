"""Space groups found and imposed, in the cell as given."""

from __future__ import annotations

import numpy as np
import pytest

from crystens.crystal import Crystal
from crystens.symmetry.space_groups import SymmetryError, space_group_number, symmetrised


def _disturbed(crystal: Crystal, size: float, seed: int = 0) -> Crystal:
    """Return a crystal with noise of `size` angstrom on positions and lengths, and a shifted origin."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(scale=size, size=(len(crystal), 3)) @ np.linalg.inv(crystal.lattice.matrix)
    lengths = crystal.lengths + rng.normal(scale=size / 2, size=3)
    coordinates = crystal.coordinates + steps + [0.137, 0.211, 0.4012]
    return Crystal(lengths, crystal.angles, 1, crystal.numbers, coordinates)


@pytest.mark.parametrize("name", ["nacl", "copper_primitive", "single_atom", "triclinic", "sites_52"])
def test_space_group_number_finds_the_group_of_a_fixture(name, request):
    crystal = request.getfixturevalue(name)
    found = space_group_number(crystal.lengths, crystal.angles, crystal.numbers, crystal.coordinates)
    assert found == crystal.space_group


def test_sites_on_top_of_each_other_raise_a_symmetry_error():
    with pytest.raises(SymmetryError, match=r"no space group found at a tolerance of 0\.01 angstrom"):
        space_group_number(np.full(3, 4.0), np.full(3, 90.0), np.array([1, 1]), np.zeros((2, 3)))


def test_no_sites_raise_a_symmetry_error():
    with pytest.raises(SymmetryError, match="without sites"):
        space_group_number(np.full(3, 4.0), np.full(3, 90.0), np.array([], dtype=int), np.zeros((0, 3)))


@pytest.mark.parametrize("name", ["nacl", "copper_primitive", "single_atom", "triclinic", "sites_52"])
def test_symmetrised_restores_the_group_of_a_disturbed_crystal(name, request):
    crystal = request.getfixturevalue(name)
    disturbed = _disturbed(crystal, 0.01)
    result = symmetrised(disturbed, 0.1)
    assert result.crystal.space_group == crystal.space_group
    assert result.crystal.numbers.tolist() == crystal.numbers.tolist()
    moved = result.crystal.coordinates - disturbed.coordinates
    moved = (moved - np.round(moved)) @ disturbed.lattice.matrix
    assert np.linalg.norm(moved, axis=1).max() < 0.1
    assert np.abs(result.crystal.lengths - disturbed.lengths).max() < 0.05


@pytest.mark.parametrize("name", ["nacl", "copper_primitive", "triclinic", "sites_52"])
def test_operations_map_cell_and_sites_on_themselves(name, request):
    result = symmetrised(_disturbed(request.getfixturevalue(name), 0.01), 0.1)
    metric = result.crystal.lattice.matrix @ result.crystal.lattice.matrix.T
    for rotation, translation in zip(result.rotations, result.translations, strict=True):
        assert np.allclose(rotation.T @ metric @ rotation, metric, atol=1e-9 * metric.max())
        images = result.crystal.coordinates @ rotation.T + translation
        steps = result.crystal.coordinates[None] - images[:, None]
        misses = np.abs(steps - np.round(steps)).max(axis=2)
        target = misses.argmin(axis=1)
        assert misses.min(axis=1).max() < 1e-7
        assert (result.orbits[target] == result.orbits).all()
        assert (result.crystal.numbers[target] == result.crystal.numbers).all()


def test_orbits_of_a_supercell_are_those_of_its_own_operations():
    # Five cubic cells in a row keep 16 of 48 rotations; moyopy's own orbits are those of the primitive cell.
    numbers = np.array([26] * 5)
    crystal = Crystal([14.5, 2.9, 2.9], [90] * 3, 221, numbers, np.array([[k / 5, 0, 0] for k in range(5)]))
    result = symmetrised(crystal, 0.01)
    assert len(result.rotations) == 80
    assert np.allclose(result.crystal.coordinates, crystal.coordinates, atol=1e-9)
    assert result.orbits.tolist() == [0] * 5


def test_supercell_out_of_shape_that_cannot_be_made_cubic_is_an_error():
    crystal = Crystal([14.51, 2.9, 2.9], [90] * 3, 1, [26] * 5, np.array([[k / 5, 0, 0] for k in range(5)]))
    with pytest.raises(SymmetryError, match=r"has space group 221 within 0\.1 angstrom, but 123 once"):
        symmetrised(crystal, 0.1)


def test_symmetrised_leaves_a_structure_without_symmetry_alone():
    rng = np.random.default_rng(3)
    crystal = Crystal([4.0, 5.0, 6.0], [77, 85, 101], 1, [11, 17, 19], rng.random((3, 3)))
    result = symmetrised(crystal, 0.01)
    assert result.crystal.space_group == 1
    assert np.allclose(result.crystal.coordinates, crystal.coordinates)
    assert np.allclose(result.crystal.lengths, crystal.lengths)
    assert np.allclose(result.crystal.angles, crystal.angles)


def test_a_cell_that_repeats_within_an_angstrom_is_refused_and_not_searched_for_ever():
    """A generated cell like this one took moyopy all memory."""
    places = np.random.default_rng(0).uniform(0, 1, (6, 3))
    for angle in (74.0, 90.0):
        with pytest.raises(SymmetryError, match=r"repeats after 0\.45 angstrom"):
            space_group_number(np.array([3.86, 5.92, 0.45]), np.full(3, angle), np.full(6, 8), places, symprec=0.1)
