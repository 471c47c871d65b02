"""Distributions of real and generated crystals."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from scipy.stats import ks_2samp

from crystens.batch import CrystalBatch
from crystens.crystal import Crystal
from crystens.decoding import read_images
from crystens.errors import CrystensError
from crystens.metrics.distributions import (
    QUANTITIES,
    Reference,
    finite_counts,
    ks_statistic,
    ks_statistics,
    reading_values,
)
from crystens.scaling import Scaling


@pytest.fixture
def crystals(nacl: Crystal, copper_primitive: Crystal, single_atom: Crystal, triclinic: Crystal) -> CrystalBatch:
    return CrystalBatch.from_crystals([nacl, copper_primitive, single_atom, triclinic, nacl], max_sites=20)


@pytest.fixture
def reference(crystals: CrystalBatch) -> Reference:
    return Reference.from_crystals(crystals, "five crystals")


def test_reference_keeps_one_value_a_crystal_and_one_atomic_number_a_site(reference: Reference) -> None:
    assert reference.values["space_group"].tolist() == [225, 225, 221, 2, 225]
    assert reference.values["alpha"].tolist() == pytest.approx([90, 60, 90, 89.99, 90])
    assert sorted(np.unique(reference.values["Z"]).tolist()) == [8, 11, 13, 17, 29, 84]
    assert len(reference.values["Z"]) == 8 + 1 + 1 + 10 + 8
    assert all(values.dtype == np.float32 for values in reference.values.values())
    assert (reference.name, reference.split, reference.count) == ("five crystals", "train", 5)


def test_reference_formulas_are_those_of_the_crystals(reference: Reference, crystals: CrystalBatch) -> None:
    assert set(reference.formulas) == {crystals.crystal(index).formula for index in range(5)}
    hydrogen = Crystal([3, 3, 3], [90, 90, 90], 1, [1], np.zeros((1, 3)))
    single = Reference.from_crystals(CrystalBatch.from_crystals([hydrogen], 1), "hydrogen")
    assert single.formulas == (hydrogen.formula,) == ("H2",)


def test_reference_survives_checkpoint_and_safetensors(reference: Reference) -> None:
    tensors = load(save(reference.to_tensors()))
    for copy in (Reference.from_state_dict(reference.state_dict()), Reference.from_tensors(tensors)):
        assert (copy.formulas, copy.name, copy.split, copy.count) == (
            reference.formulas,
            reference.name,
            reference.split,
            reference.count,
        )
        for name in QUANTITIES:
            np.testing.assert_array_equal(copy.values[name], reference.values[name])


def test_reference_of_nothing_is_refused(crystals: CrystalBatch) -> None:
    with pytest.raises(CrystensError, match="the val split of nothing is empty"):
        Reference.from_crystals(crystals[:0], "nothing", "val")


def test_ks_statistic_is_0_for_itself_and_1_for_disjoint_values(reference: Reference) -> None:
    assert set(ks_statistics(reference.values, reference).values()) == {0.0}
    moved = {name: values + 1000 for name, values in reference.values.items()}
    assert set(ks_statistics(moved, reference).values()) == {1.0}
    assert set(ks_statistics(moved, reference)) == {f"ks_{name}" for name in QUANTITIES}


def test_ks_statistic_is_the_largest_gap_of_the_cumulative_distributions(reference: Reference) -> None:
    values = dict(reference.values, space_group=np.array([225.0, 225.0, 225.0, 1.0]))
    # Real: 2, 221, 225 x 3, so that up to 224 the shares are 2/5 and 1/4; up to 1 they are 0 and 1/4.
    assert ks_statistics(values, reference)["ks_space_group"] == pytest.approx(0.25)


def test_ks_statistic_is_that_of_scipy_and_defined_for_one_value_on_each_side() -> None:
    random = np.random.default_rng(0)
    for first, second in ((1, 40), (7, 30), (50, 50)):
        pair = random.integers(0, 9, first), random.integers(2, 12, second)
        assert ks_statistic(*pair) == pytest.approx(ks_2samp(*pair).statistic, abs=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ks_statistic(np.ones(1), np.ones(1)) == 0
        assert ks_statistic(np.ones(1), np.zeros(1)) == 1
        assert ks_statistic(np.ones(5), np.ones(3)) == 0


def test_ks_statistic_ignores_rounding_of_an_image(reference: Reference, crystals: CrystalBatch) -> None:
    scaling = Scaling.fit(crystals)
    reading = read_images(scaling.encode(crystals), scaling, periodic=True)
    assert set(ks_statistics(reading_values(reading), reference).values()) == {0.0}


def test_values_that_are_not_finite_are_left_out_and_counted(reference: Reference) -> None:
    values = {name: np.append(array, [np.nan, np.inf]) for name, array in reference.values.items()}
    assert finite_counts(values)["ks_a"] == 5
    assert ks_statistics(values, reference)["ks_a"] == 0
    nothing = {name: np.array([np.nan]) for name in QUANTITIES}
    assert set(ks_statistics(nothing, reference).values()) == {1.0}
    assert set(finite_counts(nothing).values()) == {0}


def test_images_without_a_site_give_no_values(crystals: CrystalBatch) -> None:
    scaling = Scaling.fit(crystals)
    images = scaling.encode(crystals)
    images[0] = 0
    images[1] = torch.nan
    values = reading_values(read_images(images, scaling, periodic=True))
    assert len(values["a"]) == 3
    assert len(values["Z"]) == 1 + 10 + 8
