"""Shortest distances over periodic images, correct in every cell.

The distance of two sites is the smallest distance between their periodic images. Rounding the difference of fractional
coordinates into [-1/2, 1/2] finds it if lattice planes are far apart, but not in acute cells. Therefore the cell is
reduced first (Minkowski): then the nearest image is the rounded one or one of its 26 neighbours.

If only distances below a bound matter (`within`), there are two short cuts. A difference whose component on an axis is
at least n - 1/2 spans at least n - 1/2 spacings of the lattice planes, so that

- if the spacing exceeds twice the bound, only the rounded image matters, in any cell;
- otherwise the reduced cell is searched, with those of the 27 images that the bound does not exclude.

`crystens.batch_distances` does the same for a batch of crystals in PyTorch.

Source for Minkowski reduction: Nguyen and Stehle, "Low-dimensional lattice basis reduction revisited", ACM Transactions
on Algorithms 2009, 5, 46. That 27 images are enough is shown by `tests/test_distances.py`, which compares with a search
wide enough for the cell, over thousands of acute and obtuse cells.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence

import moyopy
import numpy as np

_PAIRS_AT_ONCE = 2**15  # pairs measured at a time: with 27 images each they take some 30 MB


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

    The distance is infinite for a single site. Distances of `within` angstrom or more may be overestimated.
    """
    cell, change, images = _search(matrix, within)
    places = coordinates if change is None else coordinates @ change
    best = (math.inf, 0, 0)
    for first, second in _pairs(len(places)):
        steps = places.take(first, axis=0) - places.take(second, axis=0)
        lengths = _lengths(cell, steps, images)
        nearest = int(lengths.argmin())
        if lengths[nearest] < best[0]:
            best = (float(lengths[nearest]), int(first[nearest]), int(second[nearest]))
    return best


def distance_rows(matrix: np.ndarray, coordinates: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield rows of the matrix of distances, in blocks of bounded size: first row, (rows, N), angstrom.

    The distance of a site to itself is that to its own nearest image. Arguments as in `pair_distances`.
    """
    cell, change, images = _search(matrix, math.inf)
    own = shortest_translation(matrix)
    places = coordinates if change is None else coordinates @ change
    sites = len(places)
    at_once = max(_PAIRS_AT_ONCE // sites, 1)
    if sites <= at_once:
        # One block: each pair is measured once.
        rows = np.empty((sites, sites))
        for first, second in _pairs(sites):
            steps = places.take(first, axis=0) - places.take(second, axis=0)
            rows[first, second] = rows[second, first] = _lengths(cell, steps, images)
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

    Lengths of `within` angstrom or more may be overestimated.
    """
    cell, change, images = _search(matrix, within)
    flat = steps.reshape(-1, 3)
    found = [
        _lengths(cell, part if change is None else part @ change, images)
        for part in (flat[start : start + _PAIRS_AT_ONCE] for start in range(0, len(flat), _PAIRS_AT_ONCE))
    ]
    return np.concatenate(found or [np.zeros(0)]).reshape(steps.shape[:-1])


def nearest_steps(matrix: np.ndarray, steps: np.ndarray, within: float) -> np.ndarray:
    """Return differences of coordinates (..., 3) by the shortest way around the cell, fractional.

    The result is the shortest way if it is shorter than `within`, angstrom, which must be less than 0.35 of the
    lattice's shortest translation. Other ways may not be the shortest.
    """
    cell, change, _ = _search(matrix, within)
    if change is None:
        return steps - np.rint(steps)
    steps = steps @ change
    return (steps - np.rint(steps)) @ (cell @ np.linalg.inv(matrix))


def shortest_translation(matrix: np.ndarray, within: float = math.inf) -> float:
    """Return the length of the shortest translation of a lattice: cell vectors as rows (3, 3), angstrom.

    A length of `within` angstrom or more may be underestimated, but not below `within`.
    """
    vectors = tuple(matrix.ravel().tolist())
    if (spacing := min(_spacings(vectors))) >= within:
        return spacing  # no translation is shorter than the spacing of lattice planes
    return min(math.hypot(*vector) for vector in _reduced(vectors)[0])


def plane_spacings(matrix: np.ndarray) -> list[float]:
    """Return the distances of the lattice planes along a, b, c of cell vectors as rows (3, 3), angstrom."""
    return list(_spacings(tuple(matrix.ravel().tolist())))


def _search(matrix: np.ndarray, within: float) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Return the cell and the images for the search of nearest images.

    Returns:
        The cell (3, 3), angstrom: the given cell if it is enough for distances below the bound, else the reduced one;
        the matrix (3, 3) that transforms coordinates (N, 3), from the right, into the reduced cell, or None; the
        translations to try for a rounded difference, (3, images), angstrom, or None for none.
    """
    given = tuple(matrix.ravel().tolist())
    if min(_spacings(given)) > 2 * within:
        return matrix, None, None
    vectors, transform = _reduced(given)
    cell = np.array(vectors)
    # The inverse of an integer matrix with determinant 1 or -1 is an integer matrix.
    change = np.rint(np.linalg.inv(np.array(transform, dtype=np.float64))).T
    farthest = [1.0 if math.isinf(within) else within / spacing - 0.5 for spacing in plane_spacings(cell)]
    return cell, change, (_around(*(min(math.ceil(far), 1) for far in farthest)) @ cell).T


@functools.cache
def _around(a: int, b: int, c: int) -> np.ndarray:
    """Return the cells up to a number of steps away along each axis, (cells, 3)."""
    return np.array(list(itertools.product(*(range(-n, n + 1) for n in (a, b, c)))), dtype=np.float64)


# Both are cached, because they are called several times for each crystal.
@functools.lru_cache(maxsize=64)
def _spacings(matrix: tuple[float, ...]) -> list[float]:
    """Return the distances of lattice planes; see `plane_spacings`."""
    a, b, c = matrix[:3], matrix[3:6], matrix[6:]
    normals = [_cross(b, c), _cross(c, a), _cross(a, b)]
    volume = abs(sum(x * y for x, y in zip(a, normals[0], strict=True)))
    return [volume / math.hypot(*normal) for normal in normals]


@functools.lru_cache(maxsize=64)
def _reduced(matrix: tuple[float, ...]) -> tuple[list[list[float]], list[list[int]]]:
    """Return the Minkowski-reduced vectors of a cell, and their integer coefficients."""
    vectors = [list(matrix[row : row + 3]) for row in (0, 3, 6)]
    found: tuple[list[list[float]], list[list[int]]] = moyopy.minkowski_reduce(vectors)
    return found


def _pairs(sites: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the first and the second site of every pair, in order, in blocks of bounded size."""
    at_once = max(_PAIRS_AT_ONCE // sites, 1)
    for start in range(0, sites - 1, at_once):
        yield _pairs_of_rows(start, min(start + at_once, sites - 1), sites)


@functools.lru_cache(maxsize=64)  # many crystals have the same number of sites
def _pairs_of_rows(start: int, stop: int, sites: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs whose first site is in a range."""
    first, second = np.nonzero(np.arange(start, stop)[:, None] < np.arange(sites))
    return first + start, second


def _lengths(cell: np.ndarray, steps: np.ndarray, images: np.ndarray | None) -> np.ndarray:
    """Return the smallest lengths of differences (P, 3) over images (3, I), angstrom: (P,)."""
    # Axis by axis: NumPy is slow at sums over an axis of three.
    vectors = ((steps - np.rint(steps)) @ cell).T
    if images is not None:
        vectors = images[:, :, None] + vectors[:, None]
    vectors *= vectors
    x, y, z = vectors
    squared = x + y + z
    return np.sqrt(squared if images is None else squared.min(axis=0))


def _cross(u: Sequence[float], v: Sequence[float]) -> list[float]:
    """Return the vector product, a hundred times faster than NumPy's for a single one."""
    return [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]]
