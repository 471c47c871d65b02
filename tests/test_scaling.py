"""Scaling goes both ways by the same numbers."""

import numpy as np
import pytest
import torch

from crystens.batch import CrystalBatch
from crystens.crystal import Crystal
from crystens.encoding import encode, present_cells
from crystens.errors import CrystensError
from crystens.scaling import Scaling


@pytest.fixture
def batch(nacl: Crystal, copper_primitive: Crystal, triclinic: Crystal, sites_52: Crystal) -> CrystalBatch:
    hydrogen = Crystal([4.0, 4.1, 4.2], [60, 70, 80], 1, [1, 1], np.array([[0, 0, 0], [0.5, 0.4, 0.3]]))
    return CrystalBatch.from_crystals([nacl, copper_primitive, triclinic, sites_52, hydrogen], 52)


@pytest.mark.parametrize("make", [Scaling.fit, Scaling.paper])
def test_unscale_inverts_scale_wherever_a_value_stands(batch: CrystalBatch, make) -> None:
    scaling = make(batch)
    images = encode(batch)
    scaled = scaling.scale(images, batch.counts)
    present = present_cells(batch.counts, 64, scaling.diagonal)[:, None].expand_as(images)
    torch.testing.assert_close(scaling.unscale(scaled)[present], images[present], rtol=1e-5, atol=2e-5)
    assert (scaled[~present] == 0).all()


@pytest.mark.parametrize("make", [Scaling.fit, Scaling.paper])
def test_encoding_scaled_values_equals_scaling_the_encoded_image(batch: CrystalBatch, make) -> None:
    scaling = make(batch)
    torch.testing.assert_close(scaling.encode(batch), scaling.scale(encode(batch), batch.counts), rtol=0, atol=1e-6)


def test_fitted_scaling_keeps_a_gap_above_empty_cells(batch: CrystalBatch) -> None:
    scaling = Scaling.fit(batch, gap=0.1)
    scaled = scaling.encode(batch)
    present = present_cells(batch.counts, 64)[:, None].expand_as(scaled)
    assert scaled[present].min() >= 0.1 - 1e-6
    assert scaled.max() <= 1 + 1e-6


def test_papers_scaling_maps_hydrogen_and_p1_to_an_empty_cell(batch: CrystalBatch) -> None:
    scaling = Scaling.paper(batch)
    assert scaling.scaled_value("Z", 1) == pytest.approx(0, abs=1e-6)
    assert scaling.scaled_value("space_group", 1) == pytest.approx(0, abs=1e-6)
    assert scaling.scaled_value("Z", 99) == pytest.approx(1)


def test_papers_scaling_agrees_with_independent_sums(shared_data) -> None:
    import json

    reference = json.loads((shared_data.parent / "reference_metrics.json").read_text())
    for entry in reference["crystals"]:
        crystal = Crystal(entry["abc"], entry["angles"], entry["space_group"], entry["numbers"], entry["frac"])
        batch = CrystalBatch.from_crystals([crystal], 52)
        scaled = Scaling.paper(batch).encode(batch).double()
        assert scaled.sum().item() == pytest.approx(entry["normalised_sum"], rel=1e-6)
        assert scaled.square().sum().item() == pytest.approx(entry["normalised_sum_of_squares"], rel=1e-6)
        assert scaled[0, :, 12, 13].tolist() == pytest.approx(entry["normalised_pair_0_1"], abs=1e-6)


def test_numbers_survive_a_round_trip_through_a_checkpoint(batch: CrystalBatch) -> None:
    scaling = Scaling.fit(batch)
    again = Scaling.from_dict(scaling.to_dict())
    assert torch.equal(again.encode(batch), scaling.encode(batch))


def test_a_quantity_that_never_varies_can_be_fitted(nacl: Crystal) -> None:
    batch = CrystalBatch.from_crystals([nacl, nacl], 20)
    scaled = Scaling.fit(batch).encode(batch)
    assert scaled.isfinite().all()
    assert scaled[0, 0, 4, 12].item() == pytest.approx(0.55)


def test_wrong_numbers_are_refused(batch: CrystalBatch) -> None:
    numbers = Scaling.fit(batch).to_dict()
    with pytest.raises(CrystensError, match=r"range of a is empty: \[3, 3\]"):
        Scaling.from_dict({**numbers, "ranges": {**numbers["ranges"], "a": [3, 3]}})
    with pytest.raises(CrystensError, match=r"gap=1.5 must be at least 0 and below 1"):
        Scaling.fit(batch, gap=1.5)
    with pytest.raises(CrystensError, match="empty training split"):
        Scaling.fit(batch[:0])
    with pytest.raises(CrystensError, match="fractional distances only"):
        Scaling.paper(batch, distance="cartesian")
