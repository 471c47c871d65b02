"""Where a space group puts the sites of orbits, and how far they are from each other, of batches of crystals.

Crystals are given as one site of each orbit, in the conventional cell. All functions work on fractional coordinates and
vectors of cells, and gradients run through them.

Source of the radii: Cordero et al., Dalton Trans. 2008, 2832, as ASE gives them.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np
import torch
from ase.data import covalent_radii
from torch import Tensor

from crystens.crystal import MAX_ATOMIC_NUMBER, NUM_SPACE_GROUPS
from crystens.symmetry.wyckoff import GENERIC, MAX_POSITIONS, space_group

LENGTH_LIMITS, ANGLE_LIMITS = (2.0, 30.0), (40.0, 140.0)  # to which cells are cut, angstrom and degrees

_MOST_OPERATIONS = 192  # of a space group, centring included
_DIVISIONS = 10_000  # of a cell's edge, in telling sites apart
_SMALL = 1e-6  # added to a metric, angstrom squared, so that a position without freedom has an inverse


@dataclass(frozen=True, eq=False)
class ListedOrbits:
    """Orbits of B crystals without their places.

    Attributes:
        present: which orbits there are, (B, N) bool.
        groups: space group numbers, (B,) int64.
        letters: place of the Wyckoff letter of each orbit among those of the group, (B, N) int64.
        numbers: atomic numbers, (B, N) int64.
    """

    present: Tensor
    groups: Tensor
    letters: Tensor
    numbers: Tensor

    def of(self, crystals: Tensor, most: int | None = None) -> ListedOrbits:
        """Return some of the crystals, and of each the first orbits."""
        of_sites = (one[crystals, :most] for one in (self.present, self.letters, self.numbers))
        present, letters, numbers = of_sites
        return ListedOrbits(present, self.groups[crystals], letters, numbers)

    def representatives(self) -> tuple[Tensor, Tensor]:
        """Return linear part (B, N, 3, 3) and shift (B, N, 3) of the first representative of each position."""
        linear, shift = (table.to(self.letters.device) for table in representatives())
        return linear[self.groups[:, None], self.letters], shift[self.groups[:, None], self.letters]

    def sums_of_radii(self) -> Tensor:
        """Return the sums of the covalent radii of each two orbits, (B, N, N), angstrom."""
        of_each = radii().to(self.numbers.device)[self.numbers]
        return of_each[:, :, None] + of_each[:, None]

    def parts_by_cost(self, parts: int) -> list[Tensor]:
        """Return the crystals in at most so many parts, in each of which the steps between orbits cost alike.

        Pairs of orbits times their sites differ a hundredfold, and a part costs as much as its largest crystal.
        """
        sites = site_operations()[1].sum(dim=2).to(self.groups.device)[self.groups[:, None], self.letters]
        costs = (sites * self.present).amax(dim=1) * self.present.sum(dim=1).square()
        return list(costs.argsort().chunk(parts))


def steps_between(places: Tensor, orbits: ListedOrbits) -> tuple[Tensor, Tensor]:
    """Return the steps to each orbit's site from all sites of all orbits, and which of these there are.

    Of each site the image that is the next one by fractional coordinates is taken, which misses further images in
    short cells.

    Args:
        places: fractional coordinates of a site of each orbit, on its position's first representative, (B, N, 3).
        orbits: of which they are.

    Returns:
        Fractional steps (B, N, N, M, 3), M being the sites of the largest orbit, the one that is given first; and
        which there are, (B, N, N, M) bool.
    """
    groups, letters, present = orbits.groups, orbits.letters, orbits.present
    which, exists = (table.to(places.device)[groups[:, None], letters] for table in site_operations())
    most = int(exists.sum(dim=2).max())
    which, exists = which[..., :most].long(), exists[..., :most]
    rotations, translations = (table.to(places.device)[groups[:, None, None], which] for table in operations()[:2])
    made = (rotations @ places[:, :, None, :, None])[..., 0] + translations  # (B, N, M, 3)
    steps = places[:, :, None, None] - made[:, None]
    return steps - steps.round(), (present[:, :, None] & present[:, None])[..., None] & exists[:, None]


def projections(linear: Tensor, metric: Tensor) -> Tensor:
    """Return what takes a fractional step to the nearest one that a position allows, (B, N, 3, 3).

    Args:
        linear: linear parts of the positions, (B, N, 3, 3).
        metric: (B, 1, 3, 3), angstrom squared.
    """
    inner = linear.mT @ metric @ linear + _SMALL * torch.eye(3, device=linear.device)
    return linear @ torch.linalg.solve(inner, linear.mT @ metric)


def on_position(places: Tensor, shift: Tensor, free: Tensor, vectors: Tensor) -> Tensor:
    """Return the nearest points of the first representatives of positions, over all lattice translations, (B, N, 3)."""
    near = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=3)), device=places.device)
    steps = (places - shift)[:, :, None] - near  # (B, N, 27, 3)
    misses = steps - steps @ free.mT
    lengths = (misses.flatten(1, 2) @ vectors).view(misses.shape).square().sum(dim=3)
    best = lengths.argmin(dim=2)[..., None, None].expand(-1, -1, 1, 3)
    return places - misses.gather(2, best)[:, :, 0]


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


@functools.cache
def site_operations() -> tuple[Tensor, Tensor]:
    """Return the operations that make each site of each position once, from one on the first representative.

    Returns:
        Places of the operations among those of the group, (231, 27, 192) int16, the identity first; and which there
        are, (231, 27, 192) bool: as many as the multiplicity of the position.
    """
    which = torch.zeros(NUM_SPACE_GROUPS + 1, MAX_POSITIONS, _MOST_OPERATIONS, dtype=torch.int16)
    exists = torch.zeros(which.shape, dtype=torch.bool)
    for number in range(1, NUM_SPACE_GROUPS + 1):
        group = space_group(number)
        for place, position in enumerate(group.positions):
            site = position.linear @ GENERIC + position.shift
            made = np.asarray(group.rotations) @ site + np.asarray(group.translations)
            rounded = np.rint(made * _DIVISIONS).astype(np.int64) % _DIVISIONS
            first = np.sort(np.unique(rounded, axis=0, return_index=True)[1])
            which[number, place, : len(first)] = torch.from_numpy(first.astype(np.int16))
            exists[number, place, : len(first)] = True
    return which, exists


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
def radii() -> Tensor:
    """Return covalent radii by atomic number, (119,), angstrom."""
    return torch.tensor(covalent_radii[: MAX_ATOMIC_NUMBER + 1], dtype=torch.float32)
