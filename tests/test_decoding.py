"""Decoding inverts encoding, exactly for clean images and closely for noisy ones."""

import multiprocessing
from dataclasses import replace

import numpy as np
import pytest
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher

from crystens.batch import CrystalBatch
from crystens.crystal import Crystal
from crystens.decoding import Decoder, count_sites, merge_sites, read_images
from crystens.errors import CrystensError
from crystens.scaling import Scaling

PAPER = Decoder(
    atom_clusters=3, coordinate_clusters=6, periodic=False, merge_distance=0.01, merge_unlike=False, symmetrise=False
)
PAPER_AUTO_K = Decoder(periodic=False, merge_distance=0.01, merge_unlike=False, symmetrise=False)
AUTO = Decoder()
SCALINGS = [Scaling.fit, Scaling.paper]


@pytest.fixture
def border() -> Crystal:
    """Sites at 0.99 and 0.01, on either side of the cell border, and 1.2 angstrom apart across it."""
    return Crystal([60.0, 5, 5], [90, 90, 90], 1, [6, 8], np.array([[0.99, 0.5, 0.5], [0.01, 0.5, 0.5]]))


@pytest.fixture
def batch(
    nacl: Crystal,
    copper_primitive: Crystal,
    single_atom: Crystal,
    triclinic: Crystal,
    sites_52: Crystal,
    border: Crystal,
) -> CrystalBatch:
    hydrogen = Crystal([1.9, 2.0, 2.4], [60, 60, 60], 1, [1, 1], np.array([[0, 0, 0], [0.4, 0.5, 0.5]]))
    crystals = [nacl, copper_primitive, single_atom, triclinic, sites_52, border, hydrogen]
    return CrystalBatch.from_crystals(crystals, 52)


def _noisy(images: torch.Tensor, sigma: float) -> torch.Tensor:
    return images + sigma * torch.randn(images.shape, generator=torch.Generator().manual_seed(5))


def _matches(one: Crystal, other: Crystal | None) -> bool:
    return other is not None and StructureMatcher().fit(one.to_structure(), other.to_structure())


@pytest.mark.parametrize("make", SCALINGS)
@pytest.mark.parametrize("decoder", [AUTO, PAPER_AUTO_K])
def test_decode_inverts_encode(batch: CrystalBatch, make, decoder: Decoder) -> None:
    scaling = make(batch)
    for index, decoded in enumerate(decoder.decode(scaling.encode(batch), scaling)):
        original = batch.crystal(index)
        assert decoded.crystal is not None, decoded.reason
        assert decoded.crystal.numbers.tolist() == original.numbers.tolist()
        np.testing.assert_allclose(decoded.crystal.lengths, original.lengths, rtol=2e-4)
        np.testing.assert_allclose(decoded.crystal.angles, original.angles, rtol=2e-4)
        gap = decoded.crystal.coordinates - original.coordinates
        np.testing.assert_allclose(gap - np.rint(gap), 0, atol=1e-3)
        assert decoded.generated_space_group == original.space_group
        assert _matches(original, decoded.crystal)


# 0.003 of the paper's range of c is a third of an angstrom, too much for the 8 copies of a crystal of one site.
@pytest.mark.parametrize(("make", "sigma"), [(Scaling.fit, 0.001), (Scaling.fit, 0.003), (Scaling.paper, 0.001)])
def test_decode_inverts_encode_under_small_noise(batch: CrystalBatch, make, sigma: float) -> None:
    scaling = make(batch)
    for index, decoded in enumerate(AUTO.decode(_noisy(scaling.encode(batch), sigma), scaling)):
        assert _matches(batch.crystal(index), decoded.crystal), batch.crystal(index).formula


@pytest.mark.parametrize("make", SCALINGS)
@pytest.mark.parametrize("sigma", [0.0, 0.01, 0.05])
def test_sites_are_counted_at_angles_of_60_degrees_with_hydrogen_and_noise(batch, make, sigma: float) -> None:
    scaling = make(batch)
    counted = count_sites(_noisy(scaling.encode(batch), sigma), scaling)
    assert counted.tolist() == batch.counts.tolist()


def test_an_image_without_sites_is_a_failure_with_a_reason(batch: CrystalBatch) -> None:
    scaling = Scaling.fit(batch)
    empty = torch.zeros(1, 4, 64, 64)
    for image in (empty, _noisy(empty, 0.005)):
        (decoded,) = AUTO.decode(image, scaling)
        assert decoded.crystal is None
        assert decoded.reason == "the image holds no site"


def test_an_image_with_nan_is_a_failure_with_a_reason(batch: CrystalBatch) -> None:
    scaling = Scaling.fit(batch)
    images = scaling.encode(batch[:2])
    images[0, 0, 0, 12] = float("nan")
    first, second = AUTO.decode(images, scaling, counts=batch.counts[:2])
    assert first.crystal is None
    assert first.reason == "the image has values that are not finite"
    assert second.crystal is not None


def test_impossible_cells_and_elements_fail_with_the_value(batch: CrystalBatch) -> None:
    scaling = Scaling.fit(batch)
    images = scaling.encode(batch[:1]).repeat(2, 1, 1, 1)
    images[0, :, 7, 12:20] = images[0, :, 12:20, 7] = 5.0
    images[1, :, 0, 12:20] = images[1, :, 12:20, 0] = 0.0
    angle, element = AUTO.decode(images, scaling, counts=torch.tensor([8, 8]))
    assert "180 degrees" in angle.reason
    assert element.reason.startswith("atomic number must be 1-118, got -")


def test_the_image_is_not_edited(batch: CrystalBatch) -> None:
    scaling = Scaling.fit(batch)
    images = _noisy(scaling.encode(batch), 0.01)
    before = images.clone()
    AUTO.decode(images, scaling)
    PAPER.decode(images, scaling)
    assert torch.equal(images, before)


def test_each_vote_counts_once(triclinic: Crystal) -> None:
    batch = CrystalBatch.from_crystals([triclinic], 20)
    scaling = Scaling.fit(batch)
    images = _noisy(scaling.encode(batch), 0.01).double()
    values, count = scaling.unscale(images)[0], len(triclinic)
    own = torch.stack([values[:, 1:4, 12 : 12 + count], values[:, 12 : 12 + count, 1:4].transpose(1, 2)]).mean(
        dim=(0, 1)
    )
    for i in range(count):
        votes = [own[:, j] + (values[1:, 12 + i, 12 + j] - values[1:, 12 + j, 12 + i]) / 2 for j in range(count)]
        expected = torch.stack(votes).mean(dim=0)
        found = read_images(images, scaling, periodic=False).coordinates[0, i]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_forced_cluster_counts_limit_the_elements_and_auto_does_not() -> None:
    places = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0, 0, 0.5]])
    perovskite = Crystal([4, 4, 4], [90] * 3, 99, [3, 26, 57, 8], places)
    batch = CrystalBatch.from_crystals([perovskite], 52)
    scaling = Scaling.fit(batch)
    (paper,) = PAPER.decode(scaling.encode(batch), scaling)
    (auto,) = AUTO.decode(scaling.encode(batch), scaling)
    assert len(set(paper.crystal.numbers)) == 3
    assert auto.crystal.numbers.tolist() == [3, 26, 57, 8]


def test_neighbouring_elements_stay_apart() -> None:
    numbers = [26] * 25 + [27] + [28] * 26
    crystal = Crystal([12, 12, 12], [90] * 3, 1, numbers, np.random.default_rng(0).uniform(0, 1, (52, 3)))
    batch = CrystalBatch.from_crystals([crystal], 52)
    scaling = Scaling.fit(batch)
    (decoded,) = Decoder(merge_distance=0).decode(_noisy(scaling.encode(batch), 0.001), scaling)
    assert decoded.crystal.numbers.tolist() == numbers


def test_symmetry_is_found_again_under_noise_without_leaving_the_generated_cell(copper_primitive, nacl) -> None:
    batch = CrystalBatch.from_crystals([copper_primitive, nacl], 20)
    scaling = Scaling.paper(batch)
    for original, decoded in zip(
        (copper_primitive, nacl), AUTO.decode(_noisy(scaling.encode(batch), 0.001), scaling), strict=True
    ):
        assert decoded.crystal.space_group == 225
        assert len(decoded.crystal) == len(original)
        np.testing.assert_allclose(decoded.crystal.angles, original.angles, atol=1e-6)
        assert np.ptp(decoded.crystal.lengths) < 1e-9


def test_sites_that_coincide_across_the_border_are_merged() -> None:
    places = np.array([[0.9999, 0, 0], [0.0001, 0, 0], [0.5, 0.5, 0.5]])
    crystal = Crystal([5, 5, 5], [90] * 3, 1, [11, 11, 17], places)
    merged = merge_sites(crystal, 0.01, unlike=False)
    assert merged.numbers.tolist() == [11, 17]
    unlike = Crystal([5, 5, 5], [90] * 3, 1, [11, 12, 17], places)
    assert len(merge_sites(unlike, 0.01, unlike=False)) == 3
    assert merge_sites(unlike, 0.01, unlike=True).numbers.tolist() == [11, 17]


def test_different_elements_on_one_place_are_a_failure_where_they_are_not_merged() -> None:
    places = np.array([[0, 0, 0], [0, 0, 0], [0.5, 0.5, 0.5]])
    crystal = Crystal([5, 5, 5], [90] * 3, 1, [3, 17, 17], places)
    batch = CrystalBatch.from_crystals([crystal], 20)
    scaling = Scaling.fit(batch)
    (decoded,) = PAPER.decode(scaling.encode(batch), scaling)
    assert decoded.crystal is None
    assert decoded.reason.startswith("sites of different elements coincide")


def test_a_batch_that_was_read_decodes_as_its_images_do(batch: CrystalBatch) -> None:
    scaling = Scaling.fit(batch)
    images = _noisy(scaling.encode(batch), 0.003)
    for decoder in (AUTO, PAPER):
        reading = read_images(images, scaling, decoder.periodic)
        for one, other in zip(decoder.decode(images, scaling), decoder.decode_reading(reading), strict=True):
            assert one.reason == other.reason
            if one.crystal is not None and other.crystal is not None:
                np.testing.assert_array_equal(one.crystal.coordinates, other.crystal.coordinates)


def test_nitrogen_and_oxygen_stay_apart_where_a_mean_would_lie_between_them() -> None:
    places = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0, 0.5, 0.5], [0.5, 0, 0.5]])
    oxynitride = Crystal([4, 4, 4], [90] * 3, 99, [22, 57, 7, 8, 8], places)
    batch = CrystalBatch.from_crystals([oxynitride] * 64, 20)
    scaling = Scaling.fit(batch)
    decoded = AUTO.decode(_noisy(scaling.encode(batch), 0.004), scaling)
    right = sum(item.crystal.numbers.tolist() == oxynitride.numbers.tolist() for item in decoded)
    assert right >= 58


def test_clusters_of_coordinates_that_hardly_agree_do_not_bring_sites_together(nacl: Crystal) -> None:
    batch = CrystalBatch.from_crystals([nacl], 20)
    scaling = Scaling.fit(batch)
    images = scaling.encode(batch)
    noise = torch.randn(images[:, 1:, 12:20, 12:20].shape, generator=torch.Generator().manual_seed(0))
    images[:, 1:, 12:20, 12:20] += 0.1 * noise
    (auto,) = AUTO.decode(images, scaling)
    assert auto.merged_sites == 0


def test_the_search_for_symmetry_ends_in_a_skewed_cell_under_noise() -> None:
    # ReIr3, whose sites are 2.6 angstrom apart: moyopy did not come back at a tolerance of 0.3 angstrom.
    places = [[0.0051, 0.9989, 0.9972], [0.2480, 0.2528, 0.2484], [0.4987, 0.5079, 0.5004], [0.7445, 0.7469, 0.7533]]
    crystal = Crystal(
        [9.18253381, 9.03155639, 9.08262248],
        [17.13596707, 17.72695324, 17.24495859],
        166,
        [75, 77, 77, 77],
        np.array(places),
    )
    batch = CrystalBatch.from_crystals([crystal], 20)
    search = multiprocessing.get_context("fork").Process(target=_decode, args=(batch,), daemon=True)
    search.start()
    search.join(60)
    ended = search.exitcode == 0
    search.kill()
    assert ended


def _decode(batch: CrystalBatch) -> None:
    scaling = Scaling.fit(batch)
    AUTO.decode(scaling.encode(batch), scaling)


@pytest.mark.parametrize("value", [0, -1, 2.5, "many", True])
def test_a_wrong_number_of_clusters_is_refused(value) -> None:
    with pytest.raises(CrystensError, match=r"decode.atom_clusters must be a positive whole number or auto"):
        Decoder(atom_clusters=value)


def test_the_stated_group_is_imposed_where_it_is_asked_for() -> None:
    oxygen = [[0.305, 0.305, 0], [0.695, 0.695, 0], [0.195, 0.805, 0.5], [0.805, 0.195, 0.5]]
    places = np.array([[0, 0, 0], [0.5, 0.5, 0.5], *oxygen])
    rutile = Crystal([4.6, 4.6, 2.96], [90] * 3, 136, [22, 22, 8, 8, 8, 8], places)
    batch = CrystalBatch.from_crystals([rutile], 20)
    noise = torch.randn(batch.coordinates.shape, generator=torch.Generator().manual_seed(1))
    off = batch.coordinates + 0.12 / 4.6 * noise
    scaling = Scaling.fit(batch)
    images = scaling.encode(replace(batch, coordinates=off % 1))
    (found,), (projected,) = (replace(AUTO, symmetrise=how).decode(images, scaling) for how in (True, "project"))
    assert found.generated_space_group == projected.generated_space_group == 136
    assert found.crystal.space_group == 1
    assert found.moved.size == 0
    assert projected.crystal.space_group == 136
    assert 0.05 < projected.moved.max() < 0.5
    assert len(projected.symmetry.rotations) == 16
    (refused,) = replace(AUTO, symmetrise="project", most_move=0.01).decode(images, scaling)
    assert refused.crystal.space_group == 1
    with pytest.raises(CrystensError, match="project"):
        replace(AUTO, symmetrise="projected")
