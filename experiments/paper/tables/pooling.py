"""Pooling over several seeds: the value over all crystals, and the spread of the seeds.

Two spreads are kept apart, because they answer different questions: the standard deviation over crystals says how
unlike the samples of one model are; the standard deviation of the seeds' means says what training once more would
change. Both have n - 1 in the denominator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pooled:
    """A value of each crystal, pooled over the seeds of a model.

    Attributes:
        mean: over all crystals of all seeds; None if there is none.
        standard_deviation: over the same crystals; None for fewer than two.
        median: over the same crystals.
        seed_standard_deviation: of the means of the seeds; None for fewer than two seeds with a value.
        seed_means: mean of each seed that has a value.
        count: crystals with a value.
        samples: all samples, those without a value too.
        failed: how many of `count` were not decoded: their image holds sites all the same.
    """

    mean: float | None
    standard_deviation: float | None
    median: float | None
    seed_standard_deviation: float | None
    seed_means: dict[int, float]
    count: int
    samples: int
    failed: int


@dataclass(frozen=True)
class Spread:
    """A number of each seed, such as a rate.

    Attributes:
        mean: over the seeds that have one; None if none has.
        standard_deviation: over the same seeds; None for fewer than two.
        values: of each seed; None where the run could not give one.
    """

    mean: float | None
    standard_deviation: float | None
    values: dict[int, float | None]


def pooled(values: Mapping[int, Sequence[float | None]], failed: Mapping[int, Sequence[bool]]) -> Pooled:
    """Return a statistic pooled over seeds.

    Args:
        values: by seed, of every sample; None or NaN where the sample has none.
        failed: by seed, which samples were not decoded.
    """
    arrays = {seed: np.array([np.nan if v is None else v for v in some], dtype=float) for seed, some in values.items()}
    known = {seed: np.isfinite(array) for seed, array in arrays.items()}
    every = np.concatenate([np.zeros(0), *(arrays[seed][known[seed]] for seed in arrays)])
    means = {seed: float(arrays[seed][known[seed]].mean()) for seed in arrays if known[seed].any()}
    return Pooled(
        mean=float(every.mean()) if len(every) else None,
        standard_deviation=_deviation(every),
        median=float(np.median(every)) if len(every) else None,
        seed_standard_deviation=_deviation(list(means.values())),
        seed_means=means,
        count=len(every),
        samples=sum(len(array) for array in arrays.values()),
        failed=sum(int((known[seed] & np.asarray(failed[seed], dtype=bool)).sum()) for seed in arrays),
    )


def spread(values: Mapping[int, float | None]) -> Spread:
    """Return a number of each seed with its mean and spread over the seeds."""
    known = [value for value in values.values() if value is not None]
    return Spread(float(np.mean(known)) if known else None, _deviation(known), dict(values))


def _deviation(values: Sequence[float] | np.ndarray) -> float | None:
    """Return the sample standard deviation, None for fewer than two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
