"""Atoms that stand within each other are moved apart, on the Wyckoff positions that they have.

A network that sees one site an orbit has to work out where the group puts the others, and does so badly at first. Here
the sites that the group makes are made, and each orbit is pushed by those that come nearer than a share of the sum of
the covalent radii: other orbits' and its own. A site moves only as its position lets it, so that what is pushed keeps
its symmetry, and a position without freedom stays where it is.

It is a correction of what a denoiser estimates, as in guided diffusion, and knows no energies: only that no real
crystal has atoms so near. Where sites cannot move, the cell grows.

Source of the radii: Cordero et al., Dalton Trans. 2008, 2832, as ASE gives them.
"""

from __future__ import annotations

import functools
import itertools

import torch
from ase.data import covalent_radii
from torch import Tensor, nn

from crystens.batch import cell_vectors
from crystens.crystal import MAX_ATOMIC_NUMBER, NUM_SPACE_GROUPS
from crystens.networks.surroundings import operations
from crystens.symmetry.wyckoff import MAX_POSITIONS, space_group

_LENGTHS, _ANGLES = (2.0, 30.0), (40.0, 140.0)  # to which the cell is cut, angstrom and degrees
_PARTS = 6  # of a batch, by the cost of a crystal
_LEAST_VOLUME = 1.0  # cubic angstrom
_ITSELF = 0.05  # angstrom: nearer images of a site, on its position, are the site
_LONGEST_STEP = 0.3  # angstrom, of one push
_LONGEST_STRAIN = 0.02  # of a cell length, in one round
_FAR = 1e2  # to where a site itself and slots without one are put, angstrom
_SMALL = 1e-6  # added to a metric, angstrom squared, so that a position without freedom has an inverse


def pushed_apart(
    cells: Tensor,
    places: Tensor,
    present: Tensor,
    groups: Tensor,
    letters: Tensor,
    numbers: Tensor,
    ratio: float,
    rounds: int,
) -> tuple[Tensor, Tensor]:
    """Return the places of orbits, put onto their positions and pushed apart, and the lengths of their cells.

    The cell grows where sites are too near after half of the rounds, such as two positions without freedom.

    Returns:
        (B, N, 3), fractional, not wrapped; and (B, 3), angstrom.

    Args:
        cells: lengths and angles of the conventional cell, (B, 6), angstrom and degrees.
        places: fractional coordinates of a site of each orbit, (B, N, 3), near its position's first representative.
        present: which orbits there are, (B, N).
        groups: space group numbers, (B,) int64.
        letters: place of the Wyckoff letter of each orbit among those of the group, (B, N) int64.
        numbers: atomic numbers, (B, N) int64.
        ratio: share of the sum of the covalent radii below which two sites push each other.
        rounds: how often.
    """
    moved, lengths = places.clone(), cells[:, :3].clone()
    # Pairs of orbits times operations differ a hundredfold, and a part costs as much as its largest crystal.
    costs = operations()[2].sum(dim=1).to(places.device)[groups] * present.sum(dim=1).square()
    for part in costs.argsort().chunk(_PARTS):
        told = (present[part], groups[part], letters[part], numbers[part])
        moved[part], lengths[part] = _pushed_apart(cells[part], places[part], *told, ratio, rounds)
    return moved, lengths


def _pushed_apart(
    cells: Tensor,
    places: Tensor,
    present: Tensor,
    groups: Tensor,
    letters: Tensor,
    numbers: Tensor,
    ratio: float,
    rounds: int,
) -> tuple[Tensor, Tensor]:
    """Return `pushed_apart` of crystals that are handled together."""
    lengths, angles = cells[:, :3].clamp(*_LENGTHS), cells[:, 3:].clamp(*_ANGLES)
    vectors = cell_vectors(lengths, angles)  # (B, 3, 3)
    linear, shift = (table.to(places.device)[groups[:, None], letters] for table in representatives())
    free = _projections(linear, (vectors @ vectors.mT)[:, None])
    # Angles that form no cell give one without a volume, in which nothing can be moved.
    sound = torch.linalg.det(vectors) > _LEAST_VOLUME
    places = torch.where(sound[:, None, None], _on_position(places, shift, free, vectors), places)
    radii = _radii().to(places)[numbers]
    nearest = ratio * (radii[:, :, None] + radii[:, None])  # (B, N, N)
    lengths, rows = cells[:, :3], sound.nonzero()[:, 0]
    for done in range(rounds):
        if not len(rows):
            break
        push, strain = _push(vectors[rows], places[rows], present[rows], groups[rows], nearest[rows])
        moves = (push[..., None, :] @ torch.linalg.inv(vectors[rows])[:, None]) @ free[rows].mT
        places = places.index_add(0, rows, moves[..., 0, :])
        if done >= rounds // 2:
            lengths = lengths.index_add(0, rows, lengths[rows] * strain)
            vectors = vectors.index_add(0, rows, vectors[rows] * strain[..., None])
        rows = rows[push.flatten(1).any(dim=1)]  # those that are apart stay as they are
    return places, lengths


def _push(vectors: Tensor, places: Tensor, present: Tensor, groups: Tensor, nearest: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far each site is pushed by others, and by how much the cell is too short; 0 where none is too near.

    Args:
        vectors: of the cells, (B, 3, 3).
        places: as in `pushed_apart`, and so are the next two.
        present: (B, N).
        groups: (B,).
        nearest: how near sites of two orbits may come, (B, N, N), angstrom.

    Returns:
        (B, N, 3), angstrom; and (B, 3), a share of each cell length, at most `_LONGEST_STRAIN`.
    """
    all_slots, slots = present.shape[1], int(present.sum(dim=1).max())
    places, present, nearest = places[:, :slots], present[:, :slots], nearest[:, :slots, :slots, None]
    rotations, translations, exists = (table.to(places.device)[groups] for table in operations())
    most = int(exists.sum(dim=1).max())
    rotations, translations, exists = rotations[:, :most], translations[:, :most], exists[:, :most]
    made = torch.einsum("bkxy,bny->bnkx", rotations, places) + translations[:, None]
    steps = places[:, :, None, None] - made[:, None]  # (B, N, N, O, 3)
    steps = steps - steps.round()
    along = (steps * vectors.norm(dim=2)[:, None, None, None]).square()
    steps = (steps.flatten(1, 3) @ vectors).view(steps.shape)  # angstrom
    distances = steps.square().sum(dim=-1).sqrt()
    there = (present[:, :, None] & present[:, None])[..., None] & exists[:, None, None]
    same = torch.eye(slots, device=places.device, dtype=torch.bool)[:, :, None]
    itself = same & there & (distances < _ITSELF)
    times = itself.sum(dim=3).amax(dim=2).clamp(min=1)  # each site of an orbit is made
    overlap = (nearest - torch.where(there & ~itself, distances, _FAR)).clamp(min=0)
    push = (overlap / distances.clamp(min=_ITSELF) / times[:, None, :, None])[..., None] * steps / 2
    push = push.sum(dim=(2, 3))
    push = push * (_LONGEST_STEP / push.norm(dim=2, keepdim=True).clamp(min=_LONGEST_STEP))
    short = (
        (overlap / distances.clamp(min=_ITSELF))[..., None] * along / along.sum(dim=-1, keepdim=True).clamp(min=_SMALL)
    )
    strain = short.flatten(1, 3).amax(dim=1).clamp(max=_LONGEST_STRAIN)
    return nn.functional.pad(push, (0, 0, 0, all_slots - slots)), strain


def _projections(linear: Tensor, metric: Tensor) -> Tensor:
    """Return what takes a fractional step to the nearest one that a position allows, (B, N, 3, 3).

    Args:
        linear: linear parts of the positions, (B, N, 3, 3).
        metric: (B, 1, 3, 3), angstrom squared.
    """
    inner = linear.mT @ metric @ linear + _SMALL * torch.eye(3, device=linear.device)
    return linear @ torch.linalg.solve(inner, linear.mT @ metric)


def _on_position(places: Tensor, shift: Tensor, free: Tensor, vectors: Tensor) -> Tensor:
    """Return the nearest points of the first representatives of positions, over all lattice translations, (B, N, 3)."""
    near = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=3)), device=places.device)
    steps = (places - shift)[:, :, None] - near  # (B, N, 27, 3)
    misses = steps - steps @ free.mT
    lengths = (misses.flatten(1, 2) @ vectors).view(misses.shape).square().sum(dim=3)
    best = lengths.argmin(dim=2)[..., None, None].expand(-1, -1, 1, 3)
    return places - misses.gather(2, best)[:, :, 0]


@functools.cache
def representatives() -> tuple[Tensor, Tensor]:
    """Return linear part (231, 27, 3, 3) and shift (231, 27, 3) of the first representative of each position.

    By space group and place of the letter; float32, 0 where there is no such position.
    """
    linear = torch.zeros(NUM_SPACE_GROUPS + 1, MAX_POSITIONS, 3, 3)
    shift = torch.zeros(NUM_SPACE_GROUPS + 1, MAX_POSITIONS, 3)
    for number in range(1, NUM_SPACE_GROUPS + 1):
        for place, position in enumerate(space_group(number).positions):
            linear[number, place] = torch.from_numpy(position.linear)
            shift[number, place] = torch.from_numpy(position.shift)
    return linear, shift


@functools.cache
def _radii() -> Tensor:
    """Return covalent radii by atomic number, (119,), angstrom."""
    return torch.tensor(covalent_radii[: MAX_ATOMIC_NUMBER + 1], dtype=torch.float32)
