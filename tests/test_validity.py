"""Structural validity, with crystals on both sides of each threshold."""

from __future__ import annotations

import numpy as np
import pytest

from crystens.crystal import Crystal
from crystens.metrics.validity import is_structurally_valid, shortest_distance


def pair_at(distance: float, length: float = 10.0) -> Crystal:
    return Crystal([length] * 3, [90] * 3, 1, [29, 29], np.array([[0, 0, 0], [distance / length, 0, 0]]))


def test_shortest_distance_of_rocksalt_is_half_its_cell(nacl: Crystal) -> None:
    assert shortest_distance(nacl) == pytest.approx(2.82)


def test_shortest_distance_goes_over_the_cell_border() -> None:
    assert shortest_distance(pair_at(9.6)) == pytest.approx(0.4)


def test_shortest_distance_in_a_skewed_cell_agrees_with_a_wide_search_over_images() -> None:
    crystal = Crystal(
        [4, 9, 7], [25, 140, 130], 1, [6, 8, 6], np.array([[0, 0, 0], [0.51, 0.37, 0.62], [0.2, 0.9, 0.4]])
    )
    shifts = np.array(np.meshgrid(*[np.arange(-6, 7)] * 3)).reshape(3, -1).T
    steps = [crystal.coordinates[i] - crystal.coordinates[j] for i, j in ((0, 1), (0, 2), (1, 2))]
    nearest = min(np.linalg.norm((step + shifts) @ crystal.lattice.matrix, axis=1).min() for step in steps)
    assert shortest_distance(crystal) == pytest.approx(nearest)


def test_shortest_distance_of_many_sites_agrees_with_the_distance_matrix() -> None:
    coordinates = np.random.default_rng(0).random((300, 3))
    crystal = Crystal([20, 21, 22], [80, 95, 100], 1, [6] * 300, coordinates)
    distances = crystal.to_structure().distance_matrix + 100 * np.eye(300)
    assert shortest_distance(crystal) == pytest.approx(distances.min())


def test_own_images_of_a_site_do_not_count() -> None:
    small = Crystal([0.48] * 3, [90] * 3, 1, [1], np.zeros((1, 3)))
    assert shortest_distance(small) == np.inf
    assert is_structurally_valid(small)


@pytest.mark.parametrize(("distance", "valid"), [(0.499, False), (0.501, True)])
def test_atoms_nearer_than_half_an_angstrom_are_not_valid(distance: float, valid: bool) -> None:
    assert is_structurally_valid(pair_at(distance)) is valid


@pytest.mark.parametrize(("length", "valid"), [(0.46, False), (0.47, True)])
def test_cells_below_a_tenth_of_a_cubic_angstrom_are_not_valid(length: float, valid: bool) -> None:
    assert is_structurally_valid(Crystal([length] * 3, [90] * 3, 1, [1], np.zeros((1, 3)))) is valid
