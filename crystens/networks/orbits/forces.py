"""Learned forces between the atoms of orbits: they move sites and change the lengths of the cell.

The transformer over the rows of an image sees one site of each orbit. To know distances it would have to learn where
each of the 230 groups puts the other sites. Here the operations of the group make all sites, and distances are
computed.

For each pair of orbits a small network gives one coefficient for each shell of distance. It reads the tokens and the
elements of both orbits and the number of neighbours in each shell. A site moves by the sum of the unit vectors from its
neighbours, times these coefficients, as far as its Wyckoff position allows. The coefficients do not depend on
directions, so equivalent descriptions of a crystal move alike. After each round, distances are computed anew and orbits
exchange messages. Shells are in units of the sum of the covalent radii.

The lengths of the cell change in the same manner. Lengths that the crystal family makes equal change by the same share.

Source: Satorras, Hoogeboom, Welling, "E(n) equivariant graph neural networks", ICML 2021; differs: neighbours are those
of orbits, and are summed over shells.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crystens.batch import cell_vectors
from crystens.crystal import MAX_ATOMIC_NUMBER
from crystens.networks.orbits.geometry import (
    ANGLE_LIMITS,
    LENGTH_LIMITS,
    ListedOrbits,
    on_position,
    projections,
    steps_between,
)

_SHELLS = 12
_FIRST, _LAST = 0.3, 1.7  # distances at which shells are centred, in sums of the covalent radii
_DEVIATION = 0.11  # of the Gaussian that a shell is
_REACH = _LAST + 2.5 * _DEVIATION  # up to where neighbours are looked for
_FEATURES = 7  # of a shell
_PARTS = 6  # of a batch, by the cost of a crystal
_LEAST_VOLUME = 1.0  # cubic angstrom
_FALLBACK = 10.0  # angstrom: edge of a cube in place of a cell without volume
_ITSELF = 0.05  # angstrom: nearer images of a site, on its position, are the site
_LONGEST_MOVE = 1.0  # angstrom
_LONGEST_STRAIN = 0.2  # of a cell length
_TETRAGONAL, _CUBIC = 75, 195  # the first groups in which two and three lengths are equal


class Forces(nn.Module):
    """Maps orbits and their tokens to moves of their sites and strains of their cells, in a few rounds.

    Each round reads what stands around the sites where the rounds before have put them, tells each orbit of the others,
    and moves all.

    Args:
        width: features of a token.
        rounds: how many.
        hidden: features of an orbit, and of a pair of orbits.
    """

    def __init__(self, width: int, rounds: int = 3, hidden: int = 64) -> None:
        super().__init__()
        self.of_token = nn.Linear(width, hidden)
        self.of_element = nn.Embedding(MAX_ATOMIC_NUMBER + 1, hidden)
        self.of_noise = nn.Linear(2, hidden, bias=False)
        self.rounds = nn.ModuleList([_Round(hidden) for _ in range(rounds)])
        nn.init.normal_(self.of_element.weight, std=0.3)

    def forward(
        self,
        tokens: Tensor,
        log_noise: Tensor,
        cells: Tensor,
        places: Tensor,
        listed: ListedOrbits,
    ) -> tuple[Tensor, Tensor]:
        """Return the moves of sites, fractional, (B, N, 3), and the changes of the lengths of cells, (B, 3), angstrom.

        No gradient runs to cells and places.

        Args:
            tokens: of the orbits, (B, N, width).
            log_noise: (B,), logarithm of sigma.
            cells: lengths and angles of the conventional cell, (B, 6), angstrom and degrees.
            places: fractional coordinates of a site of each orbit, (B, N, 3), near its position's first representative.
            listed: of which they are.
        """
        with torch.autocast(places.device.type, enabled=False):
            noise = torch.stack([log_noise.float(), log_noise.float().exp()], dim=1)
            orbits = self.of_token(tokens.float()) + self.of_element(listed.numbers) + self.of_noise(noise)[:, None]
            lengths, places = cells[:, :3].float().detach(), places.float().detach()
            all_moves = torch.zeros_like(places)
            # An average of noisy copies can be shorter than any cell, and even negative.
            grown = (LENGTH_LIMITS[0] - lengths).clamp(min=0)
            for one in self.rounds:
                with torch.no_grad():
                    of_cell = torch.cat([lengths + grown, cells[:, 3:].float()], dim=1)
                    vectors, free = _steps_allowed(of_cell, listed)
                    shells = _in_shells(vectors, free, places + all_moves, listed)
                orbits, moves, strains = one(orbits, shells, listed.present)
                moves = ((moves[..., None, :] @ torch.linalg.inv(vectors)[:, None]) @ free.mT)[..., 0, :]
                all_moves = all_moves + moves * listed.present[..., None]
                grown = grown + (lengths + grown.detach()) * _of_family(strains, listed.groups)
            return all_moves, grown


class _Round(nn.Module):
    """One round of messages between orbits, and of moves."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.of_site = nn.Linear(hidden, hidden)
        self.of_other = nn.Linear(hidden, hidden, bias=False)
        self.of_shells = nn.Linear(_SHELLS, hidden, bias=False)
        self.mixed = nn.Linear(hidden, hidden)
        self.told = nn.Linear(hidden, hidden)
        self.coefficients = nn.Linear(hidden, 2 * _SHELLS)
        nn.init.zeros_(self.coefficients.weight)  # a network starts without forces
        nn.init.zeros_(self.coefficients.bias)

    def forward(self, orbits: Tensor, shells: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return orbits (B, N, H) told of the others, moves (B, N, 3), angstrom, and strains of lengths (B, 3).

        Args:
            orbits: (B, N, H).
            shells: what stands around them, (B, N, N, K, 7).
            present: which orbits there are, (B, N).
        """
        normed = self.norm(orbits)
        pairs = self.of_site(normed)[:, :, None] + self.of_other(normed)[:, None]
        pairs = nn.functional.silu(pairs + self.of_shells(torch.log1p(shells[..., 0])))
        pairs = nn.functional.silu(self.mixed(pairs))  # (B, N, N, H)
        number = present.sum(dim=1).clamp(min=1)[:, None]
        heard = (pairs * present[:, None, :, None]).sum(dim=2) / number[..., None]
        moving, straining = self.coefficients(pairs).chunk(2, dim=3)  # (B, N, N, K) each
        moves = (moving[..., None] * shells[..., 1:4]).sum(dim=(2, 3))
        moves = moves * (_LONGEST_MOVE / (_LONGEST_MOVE + moves.norm(dim=2, keepdim=True)))
        strains = (straining[..., None] * shells[..., 4:]).sum(dim=(1, 2, 3)) / number
        return orbits + self.told(heard), moves, _LONGEST_STRAIN * torch.tanh(strains / _LONGEST_STRAIN)


def _steps_allowed(cells: Tensor, orbits: ListedOrbits) -> tuple[Tensor, Tensor]:
    """Return vectors of cells (B, 3, 3) and what takes steps to those that positions allow, (B, N, 3, 3)."""
    vectors = cell_vectors(cells[:, :3].clamp(*LENGTH_LIMITS), cells[:, 3:].clamp(*ANGLE_LIMITS))
    sound = torch.linalg.det(vectors) > _LEAST_VOLUME  # angles that form no cell give one without a volume
    vectors = torch.where(sound[:, None, None], vectors, _FALLBACK * torch.eye(3, device=vectors.device))
    return vectors, projections(orbits.representatives()[0], (vectors @ vectors.mT)[:, None])


def _in_shells(vectors: Tensor, free: Tensor, places: Tensor, orbits: ListedOrbits) -> Tensor:
    """Return `_in_shells_of` of all crystals, worked out in parts, (B, N, N, K, 7)."""
    sites = places.shape[1]
    found = places.new_zeros(len(places), sites, sites, _SHELLS, _FEATURES)
    for part in orbits.parts_by_cost(_PARTS):
        most = int(orbits.present[part].sum(dim=1).max())
        of_part = (vectors[part], free[part, :most], places[part, :most], orbits.of(part, most))
        found[part, :most, :most] = _in_shells_of(*of_part)
    return found


def _in_shells_of(vectors: Tensor, free: Tensor, places: Tensor, orbits: ListedOrbits) -> Tensor:
    """Return what stands around each site by orbit and shell, (B, N, N, K, 7).

    It is how many neighbours there are, the sum of the three components of the unit vectors from them, and the sum of
    the shares that the cell's three lengths have in the squared distance. Images in the 26 cells around are looked at.
    """
    shift = orbits.representatives()[1]
    steps, there = steps_between(on_position(places, shift, free, vectors), orbits)  # (B, N, N, M, 3)
    near = torch.arange(-1.0, 2.0, device=places.device)
    images = torch.cartesian_prod(near, near, near)  # (27, 3)
    apart = (steps.flatten(1, 3) @ vectors).view(steps.shape)  # angstrom
    around = (images @ vectors)[:, None, None, None]  # (B, 1, 1, 1, 27, 3)
    squared = apart.square().sum(dim=-1, keepdim=True) + around.square().sum(dim=-1)
    squared = squared + 2 * (apart[..., None, :] @ around.mT)[..., 0, :]  # (B, N, N, M, 27), without all vectors
    sums = orbits.sums_of_radii()[..., None, None]
    itself = squared.diagonal(dim1=1, dim2=2)  # (B, M, 27, N), of the sites of one orbit
    itself.masked_fill_(itself < _ITSELF**2, torch.inf)
    neighbour = squared < torch.where(there[..., None], (_REACH * sums).square(), 0.0)
    crystal, site, other, copy, image = neighbour.nonzero(as_tuple=True)
    step = steps[crystal, site, other, copy] + images[image]  # (E, 3)
    unit = (step[:, None] @ vectors[crystal])[:, 0]
    distance = unit.norm(dim=1, keepdim=True)
    along = (step * vectors.norm(dim=2)[crystal]).square()
    told = torch.cat(
        [
            torch.ones_like(distance),
            unit / distance.clamp(min=_ITSELF),
            along / along.sum(dim=1, keepdim=True).clamp(min=_ITSELF**2),
        ],
        dim=1,
    )  # (E, 7)
    centres = torch.linspace(_FIRST, _LAST, _SHELLS, device=places.device)
    ratio = distance / sums[crystal, site, other, 0]
    shells = (-0.5 * ((ratio - centres) / _DEVIATION).square()).exp()
    sites = places.shape[1]
    found = places.new_zeros(len(places), sites, sites, _SHELLS, _FEATURES)
    pair = (crystal * sites + site) * sites + other
    found.view(-1, _SHELLS, _FEATURES).index_add_(0, pair, shells[..., None] * told[:, None])
    return found


def _of_family(strains: Tensor, groups: Tensor) -> Tensor:
    """Return strains (B, 3) whose lengths that the crystal families of groups (B,) make equal are equal."""
    two = torch.cat([strains[:, :2].mean(dim=1, keepdim=True).expand(-1, 2), strains[:, 2:]], dim=1)
    strains = torch.where((groups >= _TETRAGONAL)[:, None], two, strains)
    return torch.where((groups >= _CUBIC)[:, None], strains.mean(dim=1, keepdim=True), strains)
