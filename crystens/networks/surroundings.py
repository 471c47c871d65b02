"""Neighbours of each site of a periodic crystal, as numbers that a network can read.

A network sees fractional coordinates and a cell. To tell from them that two sites are too near, it would have to learn
the metric of every cell, and that a site leaves through one face and comes in by the other. Here both are worked out:
how many neighbours a site has at each distance, and to which side of it they stand.
"""

from __future__ import annotations

import torch
from torch import Tensor

from crystens.batch import cell_vectors
from crystens.networks.orbits.geometry import ANGLE_LIMITS, LENGTH_LIMITS

NUM_SHELLS = 8
NUM_FEATURES = 4 * NUM_SHELLS

_FIRST, _LAST = 0.25, 3.75  # distances at which shells are centred, angstrom
_DEVIATION = 0.35  # of the Gaussian that a shell is, angstrom
_BLURRED = 0.5  # uncertainty of a place at which features are halved, angstrom
_PLACES = (-1.0, 2.0)  # to which coordinates are cut
_FAR = 1e2  # to where a site itself and slots without one are put, angstrom


def surroundings(cells: Tensor, places: Tensor, present: Tensor, deviation: Tensor) -> Tensor:
    """Return for each site how many neighbours it has in each shell, and to which side: (B, N, 4 K), of K shells.

    The first K are numbers of neighbours, periodic images counted, in Gaussian shells of distance. The others are the
    sums of the vectors to the site from those neighbours along a, b and c, times three, in units of the cell's edges.
    All of them fade as places become uncertain. Images in the 26 cells around are looked at. Of narrow or oblique
    cells, such as diamond's primitive one, this misses neighbours in the outer shells; of very oblique ones, near ones.

    Args:
        cells: lengths and angles, (B, 6), angstrom and degrees.
        places: fractional coordinates, (B, N, 3).
        present: which sites there are, (B, N).
        deviation: standard deviation of the fractional coordinates, (B,).
    """
    with torch.autocast(places.device.type, enabled=False):
        cells, places = cells.float(), places.float().clamp(*_PLACES)
        lengths, angles = cells[:, :3].clamp(*LENGTH_LIMITS), cells[:, 3:].clamp(*ANGLE_LIMITS)
        steps = places[:, :, None] - places[:, None]
        near = torch.arange(-1.0, 2.0, device=places.device)
        images = torch.cartesian_prod(near, near, near)
        steps = (steps - steps.round())[:, :, :, None] + images  # (B, N, N, 27, 3)
        distances = (steps.flatten(1, 3) @ cell_vectors(lengths, angles)).square().sum(dim=2).sqrt()
        distances = distances.view(steps.shape[:-1])
        itself = torch.eye(places.shape[1], device=places.device)[:, :, None].bool() & (images == 0).all(dim=1)
        pairs = (present[:, :, None] & present[:, None])[..., None]
        distances = torch.where(pairs & ~itself, distances, _FAR)
        return _features(distances, steps, lengths, deviation)


def _features(distances: Tensor, steps: Tensor, lengths: Tensor, deviation: Tensor) -> Tensor:
    """Return what neighbours come to: (B, N, 4 K).

    Args:
        distances: of each site to images of each site, (B, N, N, I), angstrom.
        steps: from them to the site, fractional, (B, N, N, I, 3).
        lengths: of the cells, (B, 3), angstrom.
        deviation: standard deviation of the fractional coordinates, (B,).
    """
    centres = torch.linspace(_FIRST, _LAST, NUM_SHELLS, device=distances.device)
    shells = (-0.5 * ((distances[..., None] - centres) / _DEVIATION).square()).exp()
    shells = shells.flatten(2, 3)  # (B, N, N I, K)
    sides = shells.mT @ steps.flatten(2, 3)  # (B, N, K, 3)
    blur = deviation.float() * lengths.mean(dim=1) / _BLURRED
    found = torch.cat([shells.sum(dim=2), 3 * sides.flatten(2)], dim=2)
    return found / (1 + blur.square())[:, None, None]
