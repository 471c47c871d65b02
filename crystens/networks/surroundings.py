"""Neighbours of each site of a periodic crystal, as numbers that a network can read.

A network sees fractional coordinates and a cell. To tell from them that two sites are too near, it would have to learn
the metric of every cell, and that a site leaves through one face and comes in by the other. Here both are worked out:
how many neighbours a site has at each distance, and to which side of it they stand. Of crystals as orbits all sites of
each orbit are neighbours, which the network would have to make of the space group.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from crystens.batch import cell_vectors
from crystens.crystal import NUM_SPACE_GROUPS
from crystens.symmetry.wyckoff import space_group

NUM_SHELLS = 8
NUM_FEATURES = 4 * NUM_SHELLS

_FIRST, _LAST = 0.25, 3.75  # distances at which shells are centred, angstrom
_DEVIATION = 0.35  # of the Gaussian that a shell is, angstrom
_BLURRED = 0.5  # uncertainty of a place at which features are halved, angstrom
_LENGTHS, _ANGLES = (2.0, 30.0), (40.0, 140.0)  # to which the cell is cut, angstrom and degrees, for noise spoils it
_PLACES = (-1.0, 2.0)  # to which coordinates are cut
_MOST_OPERATIONS = 192  # of a space group, centring included
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
        lengths, angles = cells[:, :3].clamp(*_LENGTHS), cells[:, 3:].clamp(*_ANGLES)
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


def orbit_surroundings(cells: Tensor, places: Tensor, present: Tensor, deviation: Tensor, groups: Tensor) -> Tensor:
    """Return the same for one site of each orbit, with all sites of all orbits as neighbours: (B, N, 4 K).

    Of each site the image that is the next one by fractional coordinates is looked at, which misses further images in
    short cells. A site on a special position is made several times by the operations; it counts once, and not as a
    neighbour of itself.

    Args:
        cells: lengths and angles of the conventional cell, (B, 6), angstrom and degrees.
        places: fractional coordinates of a site of each orbit, (B, N, 3).
        present: which orbits there are, (B, N).
        deviation: standard deviation of the fractional coordinates, (B,).
        groups: space group numbers, (B,) int64.
    """
    with torch.autocast(places.device.type, enabled=False):
        cells, places = cells.float(), places.float().clamp(*_PLACES)
        lengths, angles = cells[:, :3].clamp(*_LENGTHS), cells[:, 3:].clamp(*_ANGLES)
        rotations, translations, exists = (table.to(places.device)[groups] for table in operations())
        most = int(exists.sum(dim=1).max())
        rotations, translations, exists = rotations[:, :most], translations[:, :most], exists[:, :most]
        made = torch.einsum("bkxy,bny->bnkx", rotations, places) + translations[:, None]  # (B, N, O, 3)
        steps = places[:, :, None, None] - made[:, None]  # (B, N, N, O, 3)
        steps = steps - steps.round()
        distances = (steps.flatten(1, 3) @ cell_vectors(lengths, angles)).square().sum(dim=2).sqrt()
        distances = distances.view(steps.shape[:-1])
        there = (present[:, :, None] & present[:, None])[..., None] & exists[:, None, None]
        same = torch.eye(places.shape[1], device=places.device, dtype=torch.bool)
        own = torch.where(there, distances, _FAR)[:, same]  # (B, N, O): of each site to the sites of its orbit
        times = (-0.5 * (own / _DEVIATION).square()).exp().sum(dim=2).clamp(min=1)  # each site of an orbit is made
        # Sites of one orbit that are on top of each other are one site, not neighbours.
        apart = 1 - (-0.5 * (distances / _DEVIATION).square()).exp() * same[:, :, None]
        weights = apart / times[:, None, :, None]
        return _features(torch.where(there, distances, _FAR), steps, lengths, deviation, weights)


@functools.cache
def operations() -> tuple[Tensor, Tensor, Tensor]:
    """Return the operations of each space group by number, the identity first.

    Returns:
        Rotations (231, 192, 3, 3) and translations (231, 192, 3), float32, and which there are, (231, 192) bool.
        Number 0 has none.
    """
    rotations = torch.zeros(NUM_SPACE_GROUPS + 1, _MOST_OPERATIONS, 3, 3)
    translations = torch.zeros(NUM_SPACE_GROUPS + 1, _MOST_OPERATIONS, 3)
    exists = torch.zeros(NUM_SPACE_GROUPS + 1, _MOST_OPERATIONS, dtype=torch.bool)
    for number in range(1, NUM_SPACE_GROUPS + 1):
        group = space_group(number)
        count = len(group.rotations)
        rotations[number, :count] = torch.from_numpy(np.asarray(group.rotations, dtype=np.float32))
        translations[number, :count] = torch.from_numpy(np.asarray(group.translations, dtype=np.float32))
        exists[number, :count] = True
    return rotations, translations, exists


def _features(
    distances: Tensor, steps: Tensor, lengths: Tensor, deviation: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Return what neighbours come to: (B, N, 4 K).

    Args:
        distances: of each site to images of each site, (B, N, N, I), angstrom.
        steps: from them to the site, fractional, (B, N, N, I, 3).
        lengths: of the cells, (B, 3), angstrom.
        deviation: standard deviation of the fractional coordinates, (B,).
        weights: how much each of these counts, (B, N, N, I); None for 1.
    """
    centres = torch.linspace(_FIRST, _LAST, NUM_SHELLS, device=distances.device)
    shells = (-0.5 * ((distances[..., None] - centres) / _DEVIATION).square()).exp()
    if weights is not None:
        shells = shells * weights[..., None]
    shells = shells.flatten(2, 3)  # (B, N, N I, K)
    sides = shells.mT @ steps.flatten(2, 3)  # (B, N, K, 3)
    blur = deviation.float() * lengths.mean(dim=1) / _BLURRED
    found = torch.cat([shells.sum(dim=2), 3 * sides.flatten(2)], dim=2)
    return found / (1 + blur.square())[:, None, None]
