"""Repulsion: atoms that overlap are moved apart, within their Wyckoff positions.

All sites of all orbits are made from the operations of the space group. Each orbit is pushed away from every atom, of
its own or of another orbit, that is nearer than a share of the sum of the covalent radii. A site moves only as its
position allows, so the symmetry stays. Where sites cannot move, the cell grows.

It corrects the estimate of a denoiser, as in guided diffusion. It has no energies and no learned numbers
(`crystens.networks.orbits.forces` has).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crystens.batch import cell_vectors
from crystens.networks.orbits.geometry import (
    ANGLE_LIMITS,
    LENGTH_LIMITS,
    ListedOrbits,
    on_position,
    projections,
    steps_between,
)

_PARTS = 6  # of a batch, by the cost of a crystal
_LEAST_VOLUME = 1.0  # cubic angstrom
_ITSELF = 0.05  # angstrom: nearer images of a site, on its position, are the site
_LONGEST_STEP = 0.3  # angstrom, of one push
_LONGEST_STRAIN = 0.02  # of a cell length, in one round
_FAR = 1e2  # to where a site itself and slots without one are put, angstrom
_SMALL = 1e-6  # angstrom squared


def pushed_apart(
    cells: Tensor, places: Tensor, orbits: ListedOrbits, ratio: float, rounds: int
) -> tuple[Tensor, Tensor]:
    """Return the places of orbits, put onto their positions and pushed apart, and the lengths of their cells.

    The cell grows where sites are too near after half of the rounds, such as two positions without freedom.

    Returns:
        (B, N, 3), fractional, not wrapped; and (B, 3), angstrom.

    Args:
        cells: lengths and angles of the conventional cell, (B, 6), angstrom and degrees.
        places: fractional coordinates of a site of each orbit, (B, N, 3), near its position's first representative.
        orbits: of which they are.
        ratio: share of the sum of the covalent radii below which two sites push each other.
        rounds: how often.
    """
    moved, lengths = places.clone(), cells[:, :3].clone()
    for part in orbits.parts_by_cost(_PARTS):
        moved[part], lengths[part] = _pushed_apart(cells[part], places[part], orbits.of(part), ratio, rounds)
    return moved, lengths


def _pushed_apart(
    cells: Tensor, places: Tensor, orbits: ListedOrbits, ratio: float, rounds: int
) -> tuple[Tensor, Tensor]:
    """Return `pushed_apart` of crystals that are handled together."""
    lengths, angles = cells[:, :3].clamp(*LENGTH_LIMITS), cells[:, 3:].clamp(*ANGLE_LIMITS)
    vectors = cell_vectors(lengths, angles)  # (B, 3, 3)
    linear, shift = orbits.representatives()
    free = projections(linear, (vectors @ vectors.mT)[:, None])
    # Angles that form no cell give one without a volume, in which nothing can be moved.
    sound = torch.linalg.det(vectors) > _LEAST_VOLUME
    places = torch.where(sound[:, None, None], on_position(places, shift, free, vectors), places)
    lengths, rows = cells[:, :3], sound.nonzero()[:, 0]
    for done in range(rounds):
        if not len(rows):
            break
        push, strain = _push(vectors[rows], places[rows], orbits.of(rows), ratio)
        moves = (push[..., None, :] @ torch.linalg.inv(vectors[rows])[:, None]) @ free[rows].mT
        places = places.index_add(0, rows, moves[..., 0, :])
        if done >= rounds // 2:
            lengths = lengths.index_add(0, rows, lengths[rows] * strain)
            vectors = vectors.index_add(0, rows, vectors[rows] * strain[..., None])
        rows = rows[push.flatten(1).any(dim=1)]  # those that are apart stay as they are
    return places, lengths


def _push(vectors: Tensor, places: Tensor, orbits: ListedOrbits, ratio: float) -> tuple[Tensor, Tensor]:
    """Return how far each site is pushed by others, and by how much the cell is too short; 0 where none is too near.

    Args:
        vectors: of the cells, (B, 3, 3).
        places: as in `pushed_apart`, and so are the next two.
        orbits: of which they are.
        ratio: share of the sum of the covalent radii below which two sites push each other.

    Returns:
        (B, N, 3), angstrom; and (B, 3), a share of each cell length, at most `_LONGEST_STRAIN`.
    """
    all_slots, slots = places.shape[1], int(orbits.present.sum(dim=1).max())
    orbits = orbits.of(torch.arange(len(places), device=places.device), slots)
    steps, there = steps_between(places[:, :slots], orbits)  # (B, N, N, M, 3)
    nearest = ratio * orbits.sums_of_radii()[..., None]
    along = (steps * vectors.norm(dim=2)[:, None, None, None]).square()
    steps = (steps.flatten(1, 3) @ vectors).view(steps.shape)  # angstrom
    distances = steps.square().sum(dim=-1).sqrt()
    same = torch.eye(slots, device=places.device, dtype=torch.bool)[:, :, None]
    itself = same & there & (distances < _ITSELF)
    overlap = (nearest - torch.where(there & ~itself, distances, _FAR)).clamp(min=0)
    push = (overlap / distances.clamp(min=_ITSELF))[..., None] * steps / 2
    push = push.sum(dim=(2, 3))
    push = push * (_LONGEST_STEP / push.norm(dim=2, keepdim=True).clamp(min=_LONGEST_STEP))
    short = (
        (overlap / distances.clamp(min=_ITSELF))[..., None] * along / along.sum(dim=-1, keepdim=True).clamp(min=_SMALL)
    )
    strain = short.flatten(1, 3).amax(dim=1).clamp(max=_LONGEST_STRAIN)
    return nn.functional.pad(push, (0, 0, 0, all_slots - slots)), strain
