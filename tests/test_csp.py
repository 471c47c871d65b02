"""Structure prediction: which references are found, and how far off, as pymatgen's matcher says."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher

from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.protocol.csp import csp_metrics, find_matches_of_references


@pytest.fixture
def wurtzite() -> Crystal:
    coordinates = np.array([[1 / 3, 2 / 3, 0], [2 / 3, 1 / 3, 0.5], [1 / 3, 2 / 3, 0.375], [2 / 3, 1 / 3, 0.875]])
    return Crystal([3.25, 3.25, 5.2], [90, 90, 120], 186, [30, 30, 8, 8], coordinates)


@pytest.fixture
def blende() -> Crystal:
    return Crystal([3.25] * 3, [60] * 3, 216, [30, 8], np.array([[0.0] * 3, [0.25] * 3]))


def shaken(crystal: Crystal, seed: int, by: float) -> Crystal:
    moves = np.random.default_rng(seed).normal(0, by, crystal.coordinates.shape)
    return Crystal(crystal.lengths, crystal.angles, 1, crystal.numbers, crystal.coordinates + moves)


def test_distances_are_those_of_pymatgen(wurtzite: Crystal, nacl: Crystal) -> None:
    samples = [[shaken(wurtzite, 0, 0.02), shaken(wurtzite, 1, 0.005)], [None, shaken(nacl, 2, 0.01)]]
    matches = find_matches_of_references([wurtzite, nacl], samples)
    matcher = StructureMatcher(ltol=0.3, stol=0.5, angle_tol=10)
    for row, (reference, own) in enumerate(zip((wurtzite, nacl), samples, strict=True)):
        for column, sample in enumerate(own):
            if sample is None:
                assert np.isnan(matches.own[row, column])
                continue
            expected = matcher.get_rms_dist(sample.to_structure(), reference.to_structure())[0]
            assert matches.own[row, column] == pytest.approx(expected)
    metrics = {name: entry["value"] for name, entry in csp_metrics(matches).items()}
    assert metrics["match_rate"] == 0.5
    assert metrics["match_rate_at_2"] == 1
    assert metrics["rmse"] == pytest.approx(matches.own[0, 0])
    assert metrics["rmse_at_2"] == pytest.approx(np.mean([matches.own[0].min(), matches.own[1, 1]]))
    assert metrics["metre"] == 1
    assert metrics["pairs_not_compared"] == 0


def test_polymorphs_in_the_other_order_count_for_metre_alone(wurtzite: Crystal, blende: Crystal) -> None:
    metrics = csp_metrics(find_matches_of_references([wurtzite, blende], [[blende], [wurtzite]]))
    assert metrics["match_rate"]["value"] == 0
    assert metrics["rmse"]["value"] is None
    assert metrics["metre"]["value"] == 1
    assert metrics["crmse"]["value"] == pytest.approx(0, abs=1e-6)
    alone = csp_metrics(find_matches_of_references([wurtzite, blende], [[blende], [None]]))
    assert alone["metre"]["value"] == 0.5
    assert alone["crmse"]["value"] == pytest.approx(0.25, abs=1e-6)


def test_samples_that_are_not_valid_do_not_count_as_valid(blende: Crystal) -> None:
    """Three identical polonium atoms 0.4 angstrom apart match themselves."""
    narrow = Crystal([0.4] * 3, [90] * 3, 221, [84], np.zeros((1, 3)))
    metrics = csp_metrics(find_matches_of_references([narrow, blende], [[narrow], [blende]]))
    assert metrics["match_rate"]["value"] == 1
    assert metrics["match_rate_of_valid"]["value"] == 0.5


def test_numbers_that_do_not_fit_are_refused(blende: Crystal) -> None:
    for samples in ([], [[]], [[blende], [blende]]):
        with pytest.raises(CrystensError, match="1 references need equally many samples"):
            find_matches_of_references([blende], samples)
    with pytest.raises(CrystensError, match="2 references need equally many"):
        find_matches_of_references([blende] * 2, [[blende], [blende, blende]])


@pytest.mark.slow
def test_processes_give_the_same(wurtzite: Crystal, nacl: Crystal) -> None:
    samples = [[shaken(wurtzite, seed, 0.02)] for seed in range(20)] + [[shaken(nacl, 9, 0.01)]]
    references = [wurtzite] * 20 + [nacl]
    here, there = (find_matches_of_references(references, samples, workers) for workers in (1, 2))
    np.testing.assert_array_equal(here.own, there.own)
    np.testing.assert_array_equal(here.any, there.any)
