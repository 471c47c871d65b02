"""Shortest distances over periodic images for a batch of crystals, on the device of the batch.

As in `crystens.distances`, each cell is reduced and 27 images are compared. The reduction has a fixed number of steps,
enough for every cell that `Crystal` accepts: shapes and operations must not depend on values, for compilers and XLA.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from crystens.batch import CrystalBatch, cell_vectors

# Each round that changes a cell, except the last ones, shortens its longest vector by a factor of about sqrt(3). The
# product of the lengths of a cell in `crystens.crystal` is at most 10,000 times its volume: 3^(17 / 2).
_ROUNDS = 20

_NEIGHBOURS = tuple(itertools.product((-1, 0, 1), repeat=2))
_AROUND = tuple(itertools.product((-1, 0, 1), repeat=3))


def shortest_pair_distances(crystals: CrystalBatch) -> Tensor:
    """Return the distance of each pair of sites over periodic images: (B, N, N), angstrom.

    The distance of a site to itself is 0. Values of empty slots are undefined.
    """
    basis, change = reduced(cell_vectors(crystals.lengths, crystals.angles))
    columns = (crystals.coordinates[:, :, :, None] * change[:, None]).sum(dim=2).transpose(1, 2)  # (B, 3, N)
    steps = columns[..., :, None] - columns[..., None, :]
    steps = steps - steps.round()
    # No matrix product, which a GPU may round to ten bits.
    along = [steps[:, axis, None] * basis[:, axis, :, None, None] for axis in range(3)]
    vectors = along[0] + along[1] + along[2]  # (B, 3, N, N)
    shortest = None
    for image in _AROUND:
        offset = image[0] * basis[:, 0] + image[1] * basis[:, 1] + image[2] * basis[:, 2]
        squared = (vectors + offset[:, :, None, None]).square().sum(dim=1)
        shortest = squared if shortest is None else torch.minimum(shortest, squared)
    assert shortest is not None
    return shortest.sqrt()


def reduced(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return Minkowski-reduced cell vectors, and the transformation of coordinates into the reduced cell.

    Args:
        matrix: cell vectors as rows, (B, 3, 3), angstrom.

    Returns:
        Reduced cell vectors, (B, 3, 3), the shortest first; and integer matrices (B, 3, 3): a row of fractional
        coordinates times the matrix gives the coordinates of the same point in the reduced cell.
    """
    basis = matrix
    change = torch.eye(3, dtype=matrix.dtype, device=matrix.device).expand_as(matrix)
    for _ in range(_ROUNDS):
        order = basis.square().sum(dim=2).argsort(dim=1, stable=True)[:, :, None].expand_as(basis)
        basis, change = basis.gather(1, order), change.gather(2, order.mT)
        a, b, c = basis.unbind(dim=1)
        first, second, third = change.unbind(dim=2)
        # b is shortened by a, c by both; with b - n a for b, coordinates along a grow by n times those along b.
        n = _times(b, a)
        b, first = b - n * a, first + n * second
        n = _times(c, b)
        c, second = c - n * b, second + n * third
        n = _times(c, a)
        c, first = c - n * a, first + n * third
        combinations = torch.stack([c + p * a + q * b for p, q in _NEIGHBOURS], dim=1)  # (B, 9, 3)
        best = combinations.square().sum(dim=2).argmin(dim=1)
        p, q = torch.tensor(_NEIGHBOURS, dtype=c.dtype, device=c.device)[best].split(1, dim=1)
        c, first, second = c + p * a + q * b, first - p * third, second - q * third
        basis, change = torch.stack([a, b, c], dim=1), torch.stack([first, second, third], dim=2)
    return basis, change


def _times(vector: Tensor, by: Tensor) -> Tensor:
    """Return the integer multiple of a vector (B, 3) to subtract from another to make it shortest: (B, 1)."""
    return ((vector * by).sum(dim=1, keepdim=True) / by.square().sum(dim=1, keepdim=True).clamp(min=1e-12)).round()
