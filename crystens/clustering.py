"""One-dimensional K-means: with a given K solved exactly (`kmeans1d`), or with K chosen from the data.

The paper clusters atomic numbers (K_atom) and coordinates (K_coord) of a decoded image and takes the centroids
(Alverson et al., Digital Discovery 2024, 3, 62, Sec. 3.2), with a K that is the same for every crystal.
"""

from __future__ import annotations

from typing import Literal

import kmeans1d
import numpy as np

Clusters = int | Literal["auto"]


def cluster(values: np.ndarray, clusters: Clusters, spread: float, cost: float) -> np.ndarray:
    """Return the centroid of each value under one-dimensional K-means: (N,) to (N,).

    With a number, that many clusters, or as many as there are distinct values if these are fewer. With "auto", the
    K-means partition of shortest description: a value off its centroid by r costs r^2 / (2 spread^2), and each
    cluster costs `cost` (how many nats it takes to state its centroid) plus log N to place its border.

    Args:
        values: numbers to cluster, (N,).
        clusters: K or "auto".
        spread: standard error of one value, positive; used by "auto" only.
        cost: price of a cluster in nats; used by "auto" only.
    """
    if clusters == "auto":
        order = np.argsort(values, kind="stable")
        ordered = values[order]
        labels = np.empty(len(values), dtype=np.int64)
        labels[order] = _partition(ordered, spread, cost + np.log(len(values)))
    else:
        distinct = len(np.unique(values))
        labels = np.array(kmeans1d.cluster(values, min(clusters, distinct)).clusters)
    sums = np.bincount(labels, weights=values)
    sizes = np.bincount(labels)
    return sums[labels] / sizes[labels]


def _partition(ordered: np.ndarray, spread: float, price: float) -> np.ndarray:
    """Return cluster labels of sorted values that minimise squares / (2 spread^2) + price * clusters.

    Optimal partitioning (Jackson et al., "An algorithm for optimal partitioning of data on an interval", IEEE Signal
    Processing Letters 2005): the optimal K-means clusters in one dimension are intervals, so the best cost of the
    first n values follows from the best costs of all shorter beginnings.
    """
    size = len(ordered)
    centred = ordered - ordered.mean()
    sums = np.concatenate([[0.0], np.cumsum(centred)])
    squares = np.concatenate([[0.0], np.cumsum(centred**2)])
    best = np.zeros(size + 1)
    begin = np.zeros(size + 1, dtype=np.int64)
    starts = np.arange(size)
    for end in range(1, size + 1):
        first = starts[:end]
        within = squares[end] - squares[first] - (sums[end] - sums[first]) ** 2 / (end - first)
        costs = best[first] + np.maximum(within, 0.0) / (2 * spread**2) + price
        begin[end] = costs.argmin()
        best[end] = costs[begin[end]]
    labels = np.empty(size, dtype=np.int64)
    end, label = size, 0
    while end > 0:
        labels[begin[end] : end] = label
        end, label = int(begin[end]), label + 1
    return labels
