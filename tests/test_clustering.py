"""K-means in one dimension: optimal for a given K, and K by the data."""

import math

import numpy as np
import pytest
from sklearn.cluster import KMeans

from crystens.clustering import cluster

EVEN = np.full(118, 1 / 118)


@pytest.mark.parametrize("clusters", [1, 2, 3, 6])
def test_one_dimensional_kmeans_is_at_least_as_good_as_scikit_learn(clusters: int) -> None:
    values = np.random.default_rng(clusters).uniform(0, 1, 52)
    exact = ((cluster(values, clusters, 1.0, 1.0) - values) ** 2).sum()
    lloyd = KMeans(clusters, n_init=10, random_state=0).fit(values[:, None])
    assert exact <= lloyd.inertia_ + 1e-12
    assert exact == pytest.approx(lloyd.inertia_, rel=0.05)


def test_more_clusters_than_distinct_values_leave_values_as_they_are() -> None:
    values = np.array([0.5, 0.25, 0.5, 0.25])
    assert cluster(values, 12, 1.0, 1.0).tolist() == values.tolist()


def test_auto_clusters_values_that_agree_within_their_spread() -> None:
    generator = np.random.default_rng(3)
    centres = np.repeat([0.0, 0.1, 0.25, 0.5], 10)
    values = centres + 0.001 * generator.standard_normal(40)
    found = cluster(values, "auto", 0.001, centres=1.0)
    assert len(np.unique(found)) == 4
    np.testing.assert_allclose(found, centres, atol=0.0015)


def test_auto_takes_the_most_probable_of_all_partitions() -> None:
    generator = np.random.default_rng(4)
    for whole, spread in ((False, 0.05), (True, 0.4)):
        centres = generator.dirichlet(np.ones(118)) if whole else 1.0
        for _ in range(20):
            values = generator.uniform(0, 0.5, 6) if not whole else generator.integers(20, 25, 6) + 0.0
            values = np.sort(values + spread * generator.standard_normal(6))
            found = cluster(values, "auto", spread, centres)
            borders = [np.flatnonzero(np.diff(found)) + 1]
            borders += [np.flatnonzero([bits >> place & 1 for place in range(5)]) + 1 for bits in range(32)]
            costs = [-_log_probability(np.split(values, border), spread, centres) for border in borders]
            assert costs[0] == pytest.approx(min(costs), abs=1e-9)


def _log_probability(parts: list[np.ndarray], spread: float, centres: float | np.ndarray) -> float:
    """Return log(likelihood of the parts * (n - 1)! of each), the centre integrated over or the best whole number."""
    total = 0.0
    for part in parts:
        whole = isinstance(centres, np.ndarray)
        grid = np.arange(1, 119) if whole else np.linspace(-2, 3, 20_001)
        squares = ((part[:, None] - grid) ** 2).sum(axis=0) / (2 * spread**2)
        likelihood = np.exp(-squares) / (spread * np.sqrt(2 * np.pi)) ** len(part)
        evidence = (likelihood * centres).max() if whole else likelihood.sum() * (grid[1] - grid[0]) / centres
        total += math.log(evidence) + math.lgamma(len(part))
    return total


def test_whole_centres_split_what_their_mean_would_hide() -> None:
    # A nitrogen and an oxygen, 3.3 standard errors apart: no whole number lies between them.
    values = np.array([7.0, 7.0, 8.0, 8.0])
    assert len(np.unique(cluster(values, "auto", 0.3, centres=118.0))) == 1
    assert len(np.unique(cluster(values, "auto", 0.3, EVEN))) == 2


def test_a_likely_whole_number_wins_over_a_near_one_that_is_not() -> None:
    likely = np.full(118, 1e-4)
    likely[7] = 1 - 117e-4
    assert cluster(np.array([8.6]), "auto", 0.4, EVEN).tolist() == [9.0]
    assert cluster(np.array([8.6]), "auto", 0.4, likely).tolist() == [8.0]


def test_a_mean_beyond_the_whole_numbers_stays() -> None:
    assert cluster(np.array([-3.25]), "auto", 0.2, EVEN).tolist() == [-3.25]
