"""Tables 1 and 2: against an independent run, against the definitions spelt out, and on clean images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from crystens.batch import CrystalBatch
from crystens.crystal import Crystal
from crystens.decoding import read_copies
from crystens.encoding import HEADER
from crystens.metrics.statistics import STATISTICS, cell_variances, coordinate_variances, image_statistics
from crystens.scaling import Scaling

NAMES = {"atom": "Z", "sg": "space_group", "dir": "difference", "length": "distance"}


@pytest.fixture
def crystals(
    nacl: Crystal, copper_primitive: Crystal, single_atom: Crystal, triclinic: Crystal, sites_52: Crystal
) -> CrystalBatch:
    return CrystalBatch.from_crystals([nacl, copper_primitive, single_atom, triclinic, sites_52], max_sites=52)


def in_double_precision(crystals: CrystalBatch, coordinates: np.ndarray | None = None) -> CrystalBatch:
    places = crystals.coordinates.double()
    if coordinates is not None:
        places[0, : len(coordinates)] = torch.from_numpy(coordinates)
    return CrystalBatch(
        crystals.lengths.double(),
        crystals.angles.double(),
        crystals.space_groups,
        crystals.counts,
        crystals.numbers,
        places,
    )


def with_noise(images: Tensor, sigma: float) -> Tensor:
    return images + sigma * torch.randn(images.shape, generator=torch.Generator().manual_seed(1), dtype=images.dtype)


def slow_statistics(image: np.ndarray, count: int) -> dict[str, float]:
    """The six statistics of one physical image (4, S, S), loop by loop from their definitions."""
    places = [HEADER + site for site in range(count)]
    copies = [
        [[image[c, k, p] for c in range(4)] + [image[c, p, k] for c in range(4)] for p in places] for k in range(11)
    ]
    cell = [np.var(copies[k]) for k in range(4, 11)]
    own = [[np.mean(copies[1 + axis][site]) for site in range(count)] for axis in range(3)]
    block = image[:, HEADER:, HEADER:]
    vote = [
        [
            np.mean([own[axis][j] + (block[1 + axis, i, j] - block[1 + axis, j, i]) / 2 for j in range(count)])
            for i in range(count)
        ]
        for axis in range(3)
    ]
    pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
    apart = [
        abs(
            (block[0, i, j] + block[0, j, i]) / 2
            - np.sqrt(sum((vote[axis][i] - vote[axis][j]) ** 2 for axis in range(3)))
        )
        for i, j in pairs
    ]
    return {
        "cell_length_variance": float(np.mean(cell[:3])),
        "cell_angle_variance": float(np.mean(cell[3:6])),
        "space_group_variance": float(cell[6]),
        "coordinate_variance": float(
            np.mean([np.var(copies[1 + axis][site]) for axis in range(3) for site in range(count)])
        ),
        "coordinate_agreement": float(np.mean(np.abs(np.array(own) - np.array(vote)))),
        "pairwise_agreement": float(sum(apart) / count),
    }


@pytest.mark.parametrize("kind", ["fitted", "paper"])
def test_clean_images_agree_with_themselves(crystals: CrystalBatch, kind: str) -> None:
    scaling = Scaling.fit(crystals) if kind == "fitted" else Scaling.paper(crystals)
    exact = image_statistics(scaling.encode(in_double_precision(crystals)), scaling)
    rounded = image_statistics(scaling.encode(crystals), scaling)
    for name in STATISTICS:
        assert exact[name].abs().max() < 1e-12, name
        # A float32 image rounds each of a site's 51 distances by some 4e-8, which the pairwise agreement adds up.
        bound = 1e-7 * crystals.counts if name == "pairwise_agreement" else torch.full((5,), 1e-6)
        assert (rounded[name].abs() <= bound).all(), name
    assert (rounded["pairwise_agreement"][:4] < 1e-6).all()


def test_clean_images_with_cartesian_distances_agree_with_themselves(crystals: CrystalBatch) -> None:
    scaling = Scaling.fit(crystals, distance="cartesian")
    images = scaling.encode(in_double_precision(crystals), distance="cartesian")
    assert image_statistics(images, scaling, distance="cartesian")["pairwise_agreement"].max() < 1e-6
    assert image_statistics(images, scaling, distance="fractional")["pairwise_agreement"].max() > 1


@pytest.mark.parametrize("kind", ["fitted", "paper"])
def test_noisy_images_agree_with_a_slow_computation_from_the_definitions(crystals: CrystalBatch, kind: str) -> None:
    scaling = Scaling.fit(crystals) if kind == "fitted" else Scaling.paper(crystals)
    images = with_noise(scaling.encode(crystals), 0.02)
    found = image_statistics(images, scaling, crystals.counts)
    physical = scaling.unscale(images.double()).numpy()
    for place, count in enumerate(crystals.counts.tolist()):
        for name, value in slow_statistics(physical[place], count).items():
            assert float(found[name][place]) == pytest.approx(value, rel=1e-9, abs=1e-12), name


def test_number_of_sites_is_counted_where_it_is_not_given(crystals: CrystalBatch) -> None:
    scaling = Scaling.fit(crystals)
    images = with_noise(scaling.encode(crystals), 0.01)
    counted, given = image_statistics(images, scaling), image_statistics(images, scaling, crystals.counts)
    for name in STATISTICS:
        torch.testing.assert_close(counted[name], given[name], rtol=0, atol=0)


def test_the_z_coordinate_counts_in_the_variance(crystals: CrystalBatch) -> None:
    scaling = Scaling.fit(crystals)
    images = scaling.encode(crystals)
    images[:, 0, 3, HEADER] += 0.1
    assert (image_statistics(images, scaling, crystals.counts)["coordinate_variance"] > 1e-6).all()


def test_images_are_not_changed_and_empty_ones_have_no_statistics(crystals: CrystalBatch) -> None:
    scaling = Scaling.fit(crystals)
    images = with_noise(scaling.encode(crystals), 0.01)
    images[1] = 0
    images[2] = torch.nan
    before = images.clone()
    found = image_statistics(images, scaling)
    torch.testing.assert_close(images, before, rtol=0, atol=0, equal_nan=True)
    for name in STATISTICS:
        assert found[name].isfinite().tolist() == [True, False, False, True, True], name
        assert found[name].dtype == torch.float64


def test_more_images_than_one_chunk_keep_their_order(crystals: CrystalBatch) -> None:
    scaling = Scaling.fit(crystals)
    images = with_noise(scaling.encode(crystals), 0.01)
    many = image_statistics(images.repeat(30, 1, 1, 1), scaling)
    few = image_statistics(images, scaling)
    for name in STATISTICS:
        torch.testing.assert_close(many[name], few[name].repeat(30))
    assert image_statistics(images[:0], scaling)["coordinate_variance"].shape == (0,)


@pytest.fixture
def reference(shared_data: Path) -> dict[str, Any]:
    path = shared_data.parent / "reference_metrics.json"
    if not path.exists():
        pytest.skip(f"no reference values at {path}")
    return json.loads(path.read_text())


def reference_images(reference: dict[str, Any], crystal: dict[str, Any], sigma: float) -> tuple[Tensor, Scaling]:
    """The noisy scaled image of one reference crystal in float64, and the scaling of the reference's constants."""
    ranges = {
        NAMES.get(name, name): (mean - low * std, mean + high * std)
        for name, (mean, std, low, high) in reference["scaling_constants"].items()
    }
    scaling = Scaling(ranges, max_sites=52, gap=0.0, diagonal=False)
    coordinates = np.array(crystal["frac"])
    one = Crystal(crystal["abc"], crystal["angles"], crystal["space_group"], crystal["numbers"], coordinates)
    batch = in_double_precision(CrystalBatch.from_crystals([one], 52), coordinates)
    batch.lengths[0] = torch.tensor(crystal["abc"], dtype=torch.float64)
    batch.angles[0] = torch.tensor(crystal["angles"], dtype=torch.float64)
    generator = np.random.default_rng([reference["noise"]["seed"], crystal["noise_index"]])
    noise = torch.from_numpy(generator.standard_normal((64, 64, 4))).permute(2, 0, 1)
    return scaling.encode(batch) + sigma * noise, scaling


def reference_votes(scaled: Tensor, values: Tensor, own: Tensor) -> Tensor:
    """The coordinates (3, N) that the reference decodes.

    Where our definition departs from it (found by comparing numbers; its description does not say so):
    - of a pair whose two stated differences are both positive it keeps their mean, positive for the earlier site and
      negative for the later, instead of the antisymmetric part; this happens to noisy differences around 0;
    - the diagonal is not unscaled, so that positive noise on it counts as a difference of a site to itself;
    - the site's own coordinate is mixed in once more, with weight 1 / (12 + N).
    """
    count = own.shape[1]
    block = values[1:, HEADER : HEADER + count, HEADER : HEADER + count].clone()
    raw = scaled[1:, HEADER : HEADER + count, HEADER : HEADER + count]
    block.diagonal(dim1=1, dim2=2).copy_(raw.diagonal(dim1=1, dim2=2))
    mirrored = block.transpose(1, 2)
    earlier = torch.ones(count, count, dtype=torch.bool).triu()
    mean = (block + mirrored) / 2
    block = torch.where((block > 0) & (mirrored > 0), torch.where(earlier, mean, -mean), (block - mirrored) / 2)
    weight = 1 / (HEADER + count)
    return weight * own + (1 - weight) * (own[:, None] + block).mean(dim=2)


@pytest.mark.parametrize("sigma", ["0.0", "0.01", "0.05"])
def test_statistics_agree_with_the_independent_run(reference: dict[str, Any], sigma: str) -> None:
    for crystal in reference["crystals"]:
        expected, count = crystal[f"sigma_{sigma}"], len(crystal["numbers"])
        images, scaling = reference_images(reference, crystal, float(sigma))
        counts = torch.tensor([count])
        values = scaling.unscale(images)
        ours = {name: float(value) for name, value in image_statistics(images, scaling, counts).items()}

        # The variances have one definition: they agree one by one and as the means that the tables print.
        copies = read_copies(images, scaling, counts)
        cells = cell_variances(copies)[0].tolist()
        theirs = [*expected["variance_a_b_c"], *expected["variance_alpha_beta_gamma"], expected["variance_space_group"]]
        assert cells == pytest.approx(theirs, rel=1e-6, abs=1e-12)
        assert ours["cell_length_variance"] == pytest.approx(np.mean(theirs[:3]), rel=1e-6, abs=1e-12)
        assert ours["cell_angle_variance"] == pytest.approx(np.mean(theirs[3:6]), rel=1e-6, abs=1e-12)
        axes = coordinate_variances(copies)[0]
        assert float(axes[:2].mean()) == pytest.approx(expected["variance_coord_mean_xy_only"], rel=1e-6, abs=1e-12)
        assert ours["coordinate_variance"] == pytest.approx(expected["variance_coord_mean_xyz"], rel=1e-6, abs=1e-12)

        # The agreements follow the votes, which the reference weighs differently: with its votes, its numbers.
        own = values[0, 1:, 1:4, HEADER : HEADER + count]
        own = torch.cat([values[0, :, 1:4, HEADER:], values[0, :, HEADER:, 1:4].transpose(1, 2)]).mean(dim=0)[:, :count]
        votes = reference_votes(images[0], values[0], own)
        decoded = np.array(expected["coords_before_clustering"])
        assert votes.T.numpy() == pytest.approx(decoded, abs=2e-7)
        relative = float((own - votes).abs().mean() / count)
        assert relative == pytest.approx(expected["relative_difference_mean"], rel=1e-5, abs=1e-12)
        stated = values[0, 0, HEADER : HEADER + count, HEADER : HEADER + count]
        apart = (
            (stated + stated.T) / 2 - torch.cdist(votes.T, votes.T, compute_mode="donot_use_mm_for_euclid_dist")
        ).abs()
        # The reference adds the noise on the diagonal, the distance of a site to itself, without unscaling it.
        apart.diagonal().copy_(images[0, 0].diagonal()[HEADER : HEADER + count].abs())
        assert float(apart.sum() / count) == pytest.approx(expected["pairwise_sum_over_atoms"], rel=1e-5, abs=1e-12)

        # Ours are the same in kind: without noise both are 0, with it they lie near each other.
        if float(sigma):
            rescaled = ours["coordinate_agreement"] * (1 - 1 / (HEADER + count)) / count
            assert rescaled == pytest.approx(expected["relative_difference_mean"], rel=0.35)
            assert ours["pairwise_agreement"] == pytest.approx(expected["pairwise_sum_over_atoms"], rel=0.35)
        else:
            assert max(ours.values()) < 1e-12
