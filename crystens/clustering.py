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

    With a number, that many clusters, or as many as there are distinct values if these are fewer. With "auto", the
    most probable partition into intervals, where

    - the values of a cluster scatter by `spread` around its centre (a normal distribution);
    - a centre has the probability that `centres` says;
    - partitions have the probability of Ewens' sampling formula (Theor. Popul. Biol. 1972, 3, 87) with parameter 1,
      which is the product of (n - 1)! over clusters of n values, up to a factor. N values then fall into
      1 + 1/2 + ... + 1/N clusters on average: 2.3 of 5, 3.1 of 12, 4.5 of 52, about the elements in a crystal.

    Args:
        values: numbers to cluster, (N,).
        clusters: K or "auto".
        spread: standard error of one value, positive; used by "auto" only.
        centres: where centres lie; used by "auto" only. A number is the width of a range in which they lie anywhere;
            an array (M,) holds the probabilities, all positive, of the whole numbers 1 to M. With the latter, the most
            probable whole number is returned, or the mean of a cluster where that is not within 0.5 to M + 0.5.
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

    A centre that can be any number is integrated over: the price of a cluster of n values, in nats, is then
    log(range / (spread sqrt(2 pi / n))), how much of the range the cluster rules out.

    Optimal partitioning (Jackson et al., "An algorithm for optimal partitioning of data on an interval", IEEE Signal
    Processing Letters 2005): the optimal K-means clusters in one dimension are intervals, so the best cost of the
    first n values follows from the best costs of all shorter beginnings.
    """
    size = len(ordered)
    origin = ordered.mean()
    centred = ordered - origin
    sums = np.concatenate([[0.0], np.cumsum(centred)])
    squares = np.concatenate([[0.0], np.cumsum(centred**2)])
    # All intervals at once, those that end together side by side: few calls of NumPy in place of many.
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
    centre = np.zeros(size + 1)  # of the last cluster of the best partition of the first n values
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
    """Return all intervals of sorted values, by their ends: first, end (not part of it), length n, and ln (n - 1)!."""
    end, first = np.tril_indices(size)
    end += 1
    return first, end, end - first, gammaln(end - first)


def _whole_centres(
    means: np.ndarray, sizes: np.ndarray, spread: float, probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the price in nats of the best whole number for each mean, and that number; a mean out of range stays."""
    numbers = np.arange(1, len(probabilities) + 1)
    misfit = sizes[:, None] * (means[:, None] - numbers) ** 2 / (2 * spread**2) - np.log(probabilities)
    best = misfit.argmin(axis=1)
    inside = (means >= 0.5) & (means < len(numbers) + 0.5)
    return misfit[np.arange(len(means)), best], np.where(inside, numbers[best], means)
