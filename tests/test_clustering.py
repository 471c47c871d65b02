"""K-means in one dimension: optimal for a given K, and K by the data."""

import numpy as np
import pytest
from sklearn.cluster import KMeans

from crystens.clustering import cluster


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
    found = cluster(values, "auto", 0.001, cost=np.log(1 / 0.001))
    assert len(np.unique(found)) == 4
    np.testing.assert_allclose(found, centres, atol=0.0015)
