"""Coverage counts as the original does, and strictly."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from crystens.protocol import coverage
from crystens.protocol.coverage import nearest


def points(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)[:, None]


def test_distances_at_a_cutoff_are_covered_and_beyond_it_are_not() -> None:
    samples, real = (points(0.25, 0.0), points(0.0, 4.5)), (points(0.0), points(0.0))
    to_real, to_samples = nearest(samples, real, (0.25, 4.0))
    assert to_real.structure.tolist() == [0.25, 0.0]
    assert to_real.covered.tolist() == [True, False]
    assert to_samples.covered.tolist() == [True]
    assert not nearest(samples, real, (0.2499, 4.0))[0].covered.any()


def test_two_samples_that_are_near_in_one_thing_each_cover_only_loosely() -> None:
    # One has the structure, another has the composition: the original counts it, the strict variant does not.
    samples, real = (points(0.0, 9.0), points(99.0, 0.0)), (points(0.0), points(0.0))
    to_real, to_samples = nearest(samples, real, (0.2, 4.0))
    assert to_samples.covered.tolist() == [True]
    assert to_samples.both.tolist() == [False]
    assert not to_real.covered.any()


def test_a_set_covers_itself_at_distance_0() -> None:
    generator = np.random.default_rng(0)
    own = generator.random((50, 61)), generator.random((50, 132))
    for side in nearest(own, own, (1e-9, 1e-9)):
        assert side.covered.all()
        assert side.both.all()
        assert set(side.structure) == set(side.composition) == {0.0}


def test_what_has_no_fingerprint_is_not_covered_and_covers_nothing() -> None:
    samples, real = (points(0.0, np.nan), points(0.0, np.nan)), (points(np.nan, 0.0), points(np.nan, 0.0))
    to_real, to_samples = nearest(samples, real, (0.2, 4.0))
    assert to_real.covered.tolist() == to_real.both.tolist() == [True, False]
    assert to_samples.covered.tolist() == to_samples.both.tolist() == [False, True]
    assert np.isinf(to_real.structure[1])
    none = points(np.nan), points(np.nan)
    for side in nearest(none, none, (0.2, 4.0)):
        assert not side.covered.any()


def test_blocks_give_what_all_pairs_at_once_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage, "_ROWS_AT_ONCE", 7)
    generator = np.random.default_rng(1)
    samples = generator.random((33, 4)), generator.random((33, 5)) * 10
    real = generator.random((20, 4)), generator.random((20, 5)) * 10
    structure, composition = (cdist(a, b) for a, b in zip(samples, real, strict=True))
    both = (structure <= 0.4) & (composition <= 7)
    for side, axis in zip(nearest(samples, real, (0.4, 7)), (1, 0), strict=True):
        assert np.array_equal(side.structure, structure.min(axis=axis))
        assert np.array_equal(side.composition, composition.min(axis=axis))
        assert np.array_equal(side.both, both.any(axis=axis))
        assert 0 < side.both.sum() < len(side.both)
