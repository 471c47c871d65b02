"""One-dimensional K-means: with a given K solved exactly (`kmeans1d`), or with K chosen from the data.

The paper clusters atomic numbers (K_atom) and coordinates (K_coord) of a decoded image and takes the centroids
(Alverson et al., Digital Discovery 2024, 3, 62, Sec. 3.2), with a K that is the same for every crystal.
"""

from __future__ import annotations

import functools
from typing import Literal

import kmeans1d
import numpy as np
from scipy.special import gammaln

Clusters = int | Literal["auto"]


def cluster(values: np.ndarray, clusters: Clusters, spread: float, centres: float | np.ndarray) -> np.ndarray:
    """Return the centroid of each value under one-dimensional K-means: (N,) to (N,).

    A number gives that many clusters, at most the number of distinct values. "auto" gives the most probable partition
    into intervals, under these assumptions:

    - the values of a cluster are normally distributed around its centre, with standard deviation `spread`;
    - centres have the probabilities in `centres`;
    - partitions have the probability of Ewens' sampling formula (Theor. Popul. Biol. 1972, 3, 87) with parameter 1: the
      product of (n - 1)! over clusters of n values, up to a factor. On average N values then form 1 + 1/2 + ... + 1/N
      clusters: 2.3 of 5, 3.1 of 12, 4.5 of 52, about the number of elements in a crystal.

    Args:
        values: numbers to cluster, (N,).
        clusters: K or "auto".
        spread: standard error of one value, positive; used by "auto" only.
        centres: distribution of centres; used by "auto" only. A number is the width of a uniform range; an array (M,)
            holds the probabilities, all positive, of the integers 1 to M. With an array, the most probable integer is
            returned, or the mean of a cluster if it is outside of 0.5 to M + 0.5.
    """
    if clusters != "auto":
        labels = np.array(kmeans1d.cluster(values, min(clusters, len(np.unique(values)))).clusters)
        return (np.bincount(labels, weights=values) / np.bincount(labels))[labels]
    order = np.argsort(values, kind="stable")
    found = np.empty(len(values))
    found[order] = _most_probable(values[order], spread, centres)
    return found


def _most_probable(ordered: np.ndarray, spread: float, centres: float | np.ndarray) -> np.ndarray:
    """Return the centroids of sorted values under the most probable partition, see `cluster`.

    A continuous centre is integrated over: the cost of a cluster of n values, in nats, is then
    log(range / (spread sqrt(2 pi / n))).

    Optimal partitioning (Jackson et al., "An algorithm for optimal partitioning of data on an interval", IEEE Signal
    Processing Letters 2005): the optimal K-means clusters in one dimension are intervals, so the best cost of the
    first n values follows from the best costs of all shorter beginnings.
    """
    size = len(ordered)
    origin = ordered.mean()
    centred = ordered - origin
    sums = np.concatenate([[0.0], np.cumsum(centred)])
    squares = np.concatenate([[0.0], np.cumsum(centred**2)])
    # All intervals at once, grouped by their ends: few calls of NumPy instead of many.
    first, end, sizes, likelihoods = _intervals(size)
    means = (sums[end] - sums[first]) / sizes
    within = np.maximum(squares[end] - squares[first] - sizes * means**2, 0.0) / (2 * spread**2)
    means += origin
    if isinstance(centres, np.ndarray):
        prices, means = _whole_centres(means, sizes, spread, centres)
    else:
        prices = np.log(centres / spread * np.sqrt(sizes / (2 * np.pi)))
    best = np.zeros(size + 1)
    begin = np.zeros(size + 1, dtype=np.int64)
    centre = np.zeros(size + 1)  # centre of the last cluster in the best partition of the first n values
    for last in range(1, size + 1):
        here = slice(last * (last - 1) // 2, last * (last + 1) // 2)
        costs = best[:last] + within[here] + prices[here] - likelihoods[here]
        begin[last] = costs.argmin()
        best[last] = costs[begin[last]]
        centre[last] = means[here][begin[last]]
    found = np.empty(size)
    last = size
    while last > 0:
        found[begin[last] : last] = centre[last]
        last = int(begin[last])
    return found


@functools.lru_cache(maxsize=256)
def _intervals(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return all intervals of sorted values, by their ends: first, end (exclusive), length n, and ln (n - 1)!."""
    end, first = np.tril_indices(size)
    end += 1
    return first, end, end - first, gammaln(end - first)


def _whole_centres(
    means: np.ndarray, sizes: np.ndarray, spread: float, probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the best integer for each mean, and its cost in nats; a mean out of range is kept."""
    numbers = np.arange(1, len(probabilities) + 1)
    misfit = sizes[:, None] * (means[:, None] - numbers) ** 2 / (2 * spread**2) - np.log(probabilities)
    best = misfit.argmin(axis=1)
    inside = (means >= 0.5) & (means < len(numbers) + 0.5)
    return misfit[np.arange(len(means)), best], np.where(inside, numbers[best], means)
