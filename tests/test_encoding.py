"""The CrysTens image, cell by cell."""

import numpy as np
import pytest
import torch

from crystens.batch import CrystalBatch, cell_vectors
from crystens.crystal import Crystal
from crystens.encoding import ATTRIBUTES, HEADER, encode, pair_distances, present_cells
from crystens.errors import CrystensError


def _slow_image(crystal: Crystal, max_sites: int) -> np.ndarray:
    """Return the image of one crystal, channels first, cell by cell from the definition."""
    image = np.zeros((4, 12 + max_sites, 12 + max_sites))
    for i, (number, place) in enumerate(zip(crystal.numbers, crystal.coordinates, strict=True)):
        values = [number, *place, *crystal.lengths, *crystal.angles, crystal.space_group]
        for row, value in enumerate(values):
            image[:, row, 12 + i] = image[:, 12 + i, row] = value
        for j, other in enumerate(crystal.coordinates):
            image[0, 12 + i, 12 + j] = np.sqrt(((place - other) ** 2).sum())
            image[1:, 12 + i, 12 + j] = place - other
    return image


@pytest.mark.parametrize("max_sites", [52, 60])
def test_image_equals_its_definition_cell_by_cell(
    nacl: Crystal, triclinic: Crystal, sites_52: Crystal, single_atom: Crystal, max_sites: int
) -> None:
    crystals = [nacl, triclinic, sites_52, single_atom]
    images = encode(CrystalBatch.from_crystals(crystals, max_sites))
    for image, crystal in zip(images, crystals, strict=True):
        np.testing.assert_allclose(image.numpy(), _slow_image(crystal, max_sites), atol=1e-5)


def test_image_of_52_sites_is_64_pixels_wide_and_of_20_sites_32(nacl: Crystal) -> None:
    assert encode(CrystalBatch.from_crystals([nacl], 52)).shape == (1, 4, 64, 64)
    assert encode(CrystalBatch.from_crystals([nacl], 20)).shape == (1, 4, 32, 32)


def test_symmetry_of_the_image(sites_52: Crystal) -> None:
    image = encode(CrystalBatch.from_crystals([sites_52], 52))[0]
    block = image[:, HEADER:, HEADER:]
    assert torch.equal(image[0], image[0].T)
    assert torch.equal(block[1:], -block[1:].transpose(1, 2))
    assert (image[:, :HEADER, :HEADER] == 0).all()
    assert (image[:, 11] == 0).all()
    assert (image[:, :, 11] == 0).all()


def test_present_cells_are_those_that_hold_values(triclinic: Crystal) -> None:
    # Random coordinates, so that no value that is present is 0 by chance.
    places = np.random.default_rng(1).uniform(0.01, 0.99, (10, 3))
    crystal = Crystal(triclinic.lengths, triclinic.angles, 2, triclinic.numbers, places)
    batch = CrystalBatch.from_crystals([crystal], 20)
    image = encode(batch)
    present = present_cells(batch.counts, 32, diagonal=False)
    assert torch.equal(present[0], (image[0] != 0).all(dim=0))
    assert present_cells(batch.counts, 32).sum() == 2 * len(ATTRIBUTES) * 10 + 100


def test_cartesian_distance_is_the_shortest_over_periodic_images(triclinic: Crystal, sites_52: Crystal) -> None:
    batch = CrystalBatch.from_crystals([triclinic, sites_52], 52)
    distances = pair_distances(batch, "cartesian")
    for index, crystal in enumerate((triclinic, sites_52)):
        expected = crystal.to_structure().distance_matrix
        np.testing.assert_allclose(distances[index, : len(crystal), : len(crystal)], expected, atol=1e-4)


def test_cell_vectors_of_a_batch_have_the_lengths_and_angles_asked_for(triclinic: Crystal) -> None:
    batch = CrystalBatch.from_crystals([triclinic], 20)
    matrix = cell_vectors(batch.lengths, batch.angles)[0].double().numpy()
    np.testing.assert_allclose(matrix, triclinic.vectors, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(matrix, axis=1), triclinic.lengths, rtol=1e-6)
    assert np.linalg.det(matrix) == pytest.approx(triclinic.lattice.volume, rel=1e-5)


def test_unknown_distance_is_refused(nacl: Crystal) -> None:
    with pytest.raises(CrystensError, match="distance='manhattan' is not known; use one of fractional, cartesian"):
        encode(CrystalBatch.from_crystals([nacl], 20), distance="manhattan")
