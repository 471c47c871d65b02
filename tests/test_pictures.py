"""Pictures show whole cells, hide what is behind, and are made for every crystal, however bad."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from crystens.crystal import Crystal
from crystens.report.pictures import (
    bordered_sites,
    crystal_image,
    crystal_picture,
    element_colour,
    gallery,
    view_vectors,
)

RED, BLUE = 8, 7  # oxygen and nitrogen are red and blue


def _one(numbers: list[int], coordinates: list[list[float]], length: float = 4.0) -> Crystal:
    return Crystal([length] * 3, [90] * 3, 1, numbers, np.array(coordinates))


def _pixels(image: np.ndarray, number: int) -> int:
    """Count pixels of an element's hue: near its colour once brightness is taken out."""
    colour = np.array([int(element_colour(number)[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    grey = image.max(axis=-1) - image.min(axis=-1) < 0.15
    hue = image / np.maximum(image.max(axis=-1, keepdims=True), 1e-6) - colour / colour.max()
    return int(((np.abs(hue).max(axis=-1) < 0.3) & ~grey).sum())


def test_atoms_on_corners_edges_and_faces_are_drawn_on_all_of_them(nacl: Crystal) -> None:
    sites, coordinates = bordered_sites(nacl)
    assert len(sites) == 27  # of rocksalt: 8 corners, 12 edges, 6 faces and the middle
    assert (nacl.numbers[sites] == 11).sum() == 14
    assert len(np.unique(coordinates, axis=0)) == 27
    assert np.isin(coordinates, [0, 0.5, 1]).all()


def test_an_atom_just_inside_a_face_is_repeated_just_outside_of_the_opposite_one() -> None:
    _, coordinates = bordered_sites(_one([8], [[0.98, 0.5, 0.5]]))
    assert sorted(coordinates[:, 0].round(6)) == [-0.02, 0.98]
    _, coordinates = bordered_sites(_one([8], [[0.9, 0.5, 0.5]]))
    assert len(coordinates) == 1


def test_a_cell_smaller_than_the_border_does_not_fill_with_images() -> None:
    sites, _ = bordered_sites(_one([8], [[0.5, 0.5, 0.5]], length=0.1))
    assert len(sites) == 1


def test_the_view_turns_the_cell_and_keeps_its_lengths_angles_and_hand(triclinic: Crystal) -> None:
    seen = view_vectors(triclinic)
    matrix = triclinic.lattice.matrix
    np.testing.assert_allclose(seen @ seen.T, matrix @ matrix.T, atol=1e-9)
    assert np.linalg.det(seen) > 0
    assert seen[2, 1] > 0  # c upwards


def test_what_is_nearer_to_the_eye_hides_what_is_behind() -> None:
    # The eye is on the side of +a: of two atoms in its line of sight it sees the one that is farther along a.
    behind = np.array([0.5, 0.5, 0.5]) - 0.3 * np.array([1.0, 0.34, 0.26])
    places = [[0.5, 0.5, 0.5], behind.tolist()]
    image = crystal_image(_one([RED, BLUE], places, length=8))
    assert _pixels(image, RED) > 100
    assert _pixels(image, BLUE) == 0
    image = crystal_image(_one([BLUE, RED], places, length=8))
    assert _pixels(image, BLUE) > 100
    assert _pixels(image, RED) == 0


def test_a_picture_is_not_cut_at_its_border(triclinic: Crystal, nacl: Crystal) -> None:
    for crystal in (triclinic, nacl):
        image = crystal_image(crystal)
        assert image.shape == (260, 260, 3)
        frame = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        assert (frame == 1).all()
        assert image.min() >= 0
        assert image.max() <= 1


@pytest.mark.parametrize("length", [1e-3, 1e6])
def test_cells_of_any_size_are_drawn(nacl: Crystal, length: float) -> None:
    crystal = Crystal([length, 5, 5], nacl.angles, 1, nacl.numbers, nacl.coordinates)
    assert Image.open(io.BytesIO(crystal_picture(crystal))).size == (260, 286)


def test_every_element_has_a_colour_and_a_picture_of_many_elements_is_drawn() -> None:
    assert all(len(element_colour(number)) == 7 for number in range(1, 119))
    assert element_colour(8) == "#ff0d0d"  # Jmol's oxygen
    places = np.random.default_rng(0).random((20, 3)).tolist()
    assert crystal_picture(_one(list(range(99, 119)), places, length=9)).startswith(b"\x89PNG")


def test_a_picture_is_small_enough_for_pages_that_hold_many(sites_52: Crystal) -> None:
    assert len(crystal_picture(sites_52)) < 40_000


def test_a_gallery_has_a_place_for_each_crystal_and_for_each_that_failed(nacl: Crystal) -> None:
    one, row, two_rows = (Image.open(io.BytesIO(gallery([nacl] * n))) for n in (1, 4, 5))
    assert (row.width, row.height) == (4 * one.width, one.height)
    assert (two_rows.width, two_rows.height) == (row.width, 2 * row.height)
    drawn = np.asarray(Image.open(io.BytesIO(gallery([nacl, None]))).convert("RGB"), dtype=float)
    grey = np.ptp(drawn, axis=2) < 10
    half = drawn.shape[1] // 2
    assert not grey[:, :half].all()
    assert grey[:, half:].all()
