"""Shortest distances over periodic images, right in every cell.

The distance of two sites is that of the nearest two of their periodic images. Rounding the difference of fractional
coordinates into [-1/2, 1/2] finds them in a cell whose lattice planes lie far apart, and not in an acute one. So a cell
is reduced first (Minkowski): then the nearest image is the rounded one or one of the 26 around it.

Where only distances below a bound matter (`within`), one of two short cuts holds. A difference whose component on an
axis is n - 1/2 or more spans at least n - 1/2 spacings of the lattice planes, so that

- planes that lie further apart than twice the bound leave only the rounded image to look at, in any cell;
- otherwise the reduced cell is searched, and those of the 27 images that no bound rules out.

`crystens.batch_distances` does the same for a batch of crystals in PyTorch, which nothing here needs.

Source for Minkowski reduction: Nguyen and Stehle, "Low-dimensional lattice basis reduction revisited", ACM Transactions
on Algorithms 2009, 5, 46. That 27 images are enough is shown by `tests/test_distances.py`, which compares with a search
wide enough for the cell, over thousands of acute and obtuse cells.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import moyopy
import numpy as np

_PAIRS_AT_ONCE = 2**15  # pairs measured at a time: with 27 images each they take some 20 MB


def pair_distances(matrix: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """Return the distance of each pair of sites, and of each site to its own nearest image: (N, N), angstrom.

    Args:
        matrix: cell vectors as rows, (3, 3), angstrom.
        coordinates: fractional, (N, 3).
    """
    return np.concatenate([rows for _, rows in distance_rows(matrix, coordinates)])


def nearest_distances(matrix: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """Return the distance of each site to the nearest other site or own image: (N,), angstrom."""
    return np.concatenate([rows.min(axis=1) for _, rows in distance_rows(matrix, coordinates)])


def nearest_pair(matrix: np.ndarray, coordinates: np.ndarray, within: float = math.inf) -> tuple[float, int, int]:
    """Return the distance of the two nearest sites, angstrom, and which they are; own images do not count.

    The distance is infinite for a single site. Pairs that are `within` angstrom or more apart may be stated further
    apart than they are.
    """
    best = (math.inf, 0, 0)
    for start, rows in distance_rows(matrix, coordinates, within):
        own = np.arange(len(rows))
        rows[own, start + own] = math.inf
        first, second = divmod(int(rows.argmin()), rows.shape[1])
        if rows[first, second] < best[0]:
            best = (float(rows[first, second]), start + first, second)
    return best


def distance_rows(
    matrix: np.ndarray, coordinates: np.ndarray, within: float = math.inf
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield rows of the matrix of distances, in blocks that do not fill the memory: first row, (rows, N), angstrom.

    The distance of a site to itself is that to its own nearest image. Arguments as in `nearest_pair`.
    """
    cell, change = _cell_for(matrix, within)
    images = _images(cell, within)
    own = shortest_translation(matrix)
    places = coordinates if change is None else coordinates @ change
    sites = len(places)
    at_once = max(_PAIRS_AT_ONCE // sites, 1)
    if sites <= at_once:
        # One block: each pair is measured once.
        first, second = np.triu_indices(sites, 1)
        rows = np.empty((sites, sites))
        rows[first, second] = rows[second, first] = _lengths(cell, places[first] - places[second], images)
        np.fill_diagonal(rows, own)
        yield 0, rows
        return
    for start in range(0, sites, at_once):
        steps = places[start : start + at_once, None] - places
        rows = _lengths(cell, steps.reshape(-1, 3), images).reshape(steps.shape[:2])
        line = np.arange(len(rows))
        rows[line, start + line] = own
        yield start, rows


def shortest_lengths(matrix: np.ndarray, steps: np.ndarray, within: float = math.inf) -> np.ndarray:
    """Return the lengths of differences of coordinates over periodic images: (..., 3) to (...), angstrom.

    Lengths of `within` angstrom or more may be stated longer than they are.
    """
    cell, change = _cell_for(matrix, within)
    flat = steps.reshape(-1, 3)
    images = _images(cell, within)
    found = [
        _lengths(cell, part if change is None else part @ change, images)
        for part in (flat[start : start + _PAIRS_AT_ONCE] for start in range(0, len(flat), _PAIRS_AT_ONCE))
    ]
    return np.concatenate(found or [np.zeros(0)]).reshape(steps.shape[:-1])


def nearest_steps(matrix: np.ndarray, steps: np.ndarray, within: float) -> np.ndarray:
    """Return differences of coordinates (..., 3) by the shortest way around the cell, fractional.

    A way is the shortest if it is shorter than `within`, angstrom, which must be less than 0.35 of the lattice's
    shortest translation. Others may be longer than need be.
    """
    cell, change = _cell_for(matrix, within)
    if change is None:
        return steps - np.round(steps)
    steps = steps @ change
    return (steps - np.round(steps)) @ (cell @ np.linalg.inv(matrix))


def shortest_translation(matrix: np.ndarray) -> float:
    """Return the length of the shortest translation of a lattice: cell vectors as rows (3, 3), angstrom."""
    basis: list[list[float]] = moyopy.minkowski_reduce(matrix.tolist())[0]
    return min(math.hypot(*vector) for vector in basis)


def plane_spacings(matrix: np.ndarray) -> list[float]:
    """Return the distances of the lattice planes along a, b, c of cell vectors as rows (3, 3), angstrom."""
    a, b, c = matrix.tolist()
    normals = [_cross(b, c), _cross(c, a), _cross(a, b)]
    volume = abs(sum(x * y for x, y in zip(a, normals[0], strict=True)))
    return [volume / math.hypot(*normal) for normal in normals]


def _cell_for(matrix: np.ndarray, within: float) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the cell in which distances are looked for, and what turns coordinates (N, 3) into its own from the right.

    It is the cell as it is, and None, where that is enough for distances below the bound.
    """
    if min(plane_spacings(matrix)) > 2 * within:
        return matrix, None
    basis, transform = moyopy.minkowski_reduce(matrix.tolist())
    # The inverse of a matrix of whole numbers whose determinant is 1 or -1 has whole numbers.
    return np.array(basis), np.rint(np.linalg.inv(np.array(transform, dtype=np.float64))).T


def _images(cell: np.ndarray, within: float) -> np.ndarray:
    """Return the vectors to the cells that a rounded difference may have to be moved to: (images, 3), angstrom."""
    if math.isinf(within):
        return _AROUND @ cell
    reach = [min(math.ceil(within / spacing + 0.5) - 1, 1) for spacing in plane_spacings(cell)]
    return np.array(list(itertools.product(*(range(-n, n + 1) for n in reach)))) @ cell


def _lengths(cell: np.ndarray, steps: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Return the least lengths of differences (P, 3) over images (I, 3), angstrom: (P,)."""
    vectors = (steps - np.round(steps)) @ cell
    # Axis by axis: NumPy is slow at sums over an axis of three.
    squared = (images[:, :1] + vectors[:, 0]) ** 2
    for axis in (1, 2):
        squared += (images[:, axis : axis + 1] + vectors[:, axis]) ** 2
    return np.sqrt(squared.min(axis=0))


def _cross(u: list[float], v: list[float]) -> list[float]:
    """Return the vector product; NumPy's takes a hundred times as long for one."""
    return [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]]


_AROUND = np.array(list(itertools.product((-1.0, 0.0, 1.0), repeat=3)))
