"""Crystal graphs for CGCNN: sites, and edges to their nearest neighbours.

Each site has 12 edges to its nearest neighbours within 8 angstrom, over periodic images. The distance of an edge is
expanded in 41 Gaussians, centred every 0.2 angstrom from 0 to 8, with a width of 0.2: exp(-(d - c)^2 / 0.2^2).

- A site with fewer than 12 neighbours within 8 angstrom is padded, as in the original, by edges of 9 angstrom, whose
  Gaussians vanish, to the first site of the crystal.
- Differs from the original: there, the neighbour list decides among neighbours at equal distance, and the file decides
  the first site (pymatgen puts the most electropositive element first). Here element and surroundings decide, so that a
  graph does not depend on the choice of cell, origin or site order.

Impossible crystals are rejected before neighbours are counted: a cell of 0.01 angstrom has billions of them.

Source: Xie and Grossman, Crystal Graph Convolutional Neural Networks, Phys. Rev. Lett. 2018, 120, 145301, and its
public code.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import moyopy
import numpy as np
import torch
from pymatgen.core import Element
from pymatgen.optimization.neighbors import find_points_in_spheres
from torch import Tensor

from crystens.crystal import Crystal
from crystens.metrics.validity import MIN_DISTANCE

NEIGHBOURS = 12
RADIUS = 8.0  # angstrom
STEP = 0.2  # angstrom
NUM_GAUSSIANS = 41
NUM_ELEMENTS = 100  # elements 1-100 have features

_FILLED = RADIUS + 1.0  # length of padding edges, angstrom
_TIE = 1e-3  # angstrom; tolerance of equal distances, above the rounding of files
_MOST_PAIRS = 3_000_000  # largest possible number of pairs within the radius, 48 bytes each
_MOST_BOXES = 200_000  # boxes of the neighbour search, 3 microseconds each, as in a cube of 440 angstrom


class NoGraph(Exception):
    """Raised if a crystal has no graph; the message is a reason, `category: details`."""


@dataclass(frozen=True, eq=False)
class CrystalGraph:
    """A crystal with N sites and their nearest neighbours.

    Attributes:
        numbers: atomic numbers, (N,) int64.
        neighbours: index of the site at the end of each edge, (N, 12) int64, from the nearest to the farthest.
        distances: length of each edge, (N, 12) float64, angstrom.
    """

    numbers: np.ndarray
    neighbours: np.ndarray
    distances: np.ndarray

    @property
    def is_filled(self) -> bool:
        """Whether a site has fewer than 12 neighbours within the radius."""
        return bool((self.distances > RADIUS).any())


def crystal_graph(crystal: Crystal, min_distance: float = MIN_DISTANCE) -> CrystalGraph:
    """Return the graph of a crystal.

    Raises:
        NoGraph: if it has an element without features (Z > 100), two atoms nearer than `min_distance` (angstrom), or
            so many neighbours within the radius, or such a large cell, that the search would take seconds or gigabytes.
    """
    if crystal.numbers.max() > NUM_ELEMENTS:
        raise NoGraph(f"element without features: atomic number {crystal.numbers.max()}, known are 1-{NUM_ELEMENTS}")
    centres, others, distances = _pairs(crystal, min_distance)
    if len(distances) and distances.min() < min_distance:
        raise _too_near(float(distances.min()), min_distance)
    counts = np.bincount(centres, minlength=len(crystal))
    surroundings = _surroundings(crystal, centres, others, distances)
    order = np.lexsort((surroundings[others], crystal.numbers[others], np.round(distances / _TIE), centres))
    centres, ranks = centres[order], np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    nearest = ranks < NEIGHBOURS
    first = _first_site(crystal, surroundings) if counts.min() < NEIGHBOURS else 0
    neighbours = np.full((len(crystal), NEIGHBOURS), first)
    neighbours[centres[nearest], ranks[nearest]] = others[order][nearest]
    lengths = np.full((len(crystal), NEIGHBOURS), _FILLED)
    lengths[centres[nearest], ranks[nearest]] = distances[order][nearest]
    return CrystalGraph(crystal.numbers, neighbours, lengths)


def _pairs(crystal: Crystal, min_distance: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return all pairs of sites within the radius over periodic images: first site, second site, distance; (P,) each.

    Raises:
        NoGraph: if the search would take too long, which is estimated beforehand.
    """
    vectors = crystal.vectors
    # In a reduced cell the spacings of lattice planes bound the number of images.
    reduced = np.array(moyopy.minkowski_reduce(vectors.tolist())[0])
    shortest = float(np.linalg.norm(reduced, axis=1).min())
    if shortest < min_distance:
        raise _too_near(shortest, min_distance)
    spacings = 1.0 / np.linalg.norm(np.linalg.inv(reduced), axis=0)
    most = len(crystal) ** 2 * float(np.prod(np.floor(2 * RADIUS / spacings) + 1))
    if most > _MOST_PAIRS:
        raise NoGraph(f"too many neighbours: up to {most:.3g} pairs of atoms within {RADIUS:g} angstrom")
    places = crystal.coordinates @ vectors @ np.linalg.inv(reduced)
    sites = np.ascontiguousarray((places - np.floor(places)) @ reduced)
    # The search sorts sites into boxes as wide as the radius.
    extents = np.ptp(sites, axis=0)
    if np.prod(extents / RADIUS + 3) > _MOST_BOXES:
        raise NoGraph(f"cell too large: its atoms spread over {' x '.join(f'{e:.3g}' for e in extents)} angstrom")
    centres, others, _, distances = find_points_in_spheres(
        sites, sites, r=RADIUS, pbc=np.ones(3, dtype=np.int64), lattice=reduced, tol=1e-8
    )
    # A site is listed as its own neighbour at distance 0; two sites at the same point are neighbours.
    own = (centres == others) & (distances < 1e-8)
    return centres[~own], others[~own], distances[~own]


def _surroundings(crystal: Crystal, centres: np.ndarray, others: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Return an integer for each site, (N,), that distinguishes sites of one element independent of their order.

    Each neighbour adds its atomic number, with a weight that decreases smoothly to zero at the radius, so that rounding
    of distances changes the sum little.
    """
    weights = crystal.numbers[others] * (1 - np.minimum(distances / RADIUS, 1)) ** 3
    sums = np.bincount(centres, weights, minlength=len(crystal))
    return np.round(sums / max(sums.max(), 1e-3) * 1e5)


def _first_site(crystal: Crystal, surroundings: np.ndarray) -> int:
    """Return the site at the end of padding edges: of the most electropositive element, in pymatgen's order."""
    with warnings.catch_warnings(action="ignore"):  # noble gases have no electronegativity, and come last
        first = min(Element.from_Z(int(number)) for number in np.unique(crystal.numbers)).Z
    return int(np.where(crystal.numbers == first, surroundings, np.inf).argmin())


def _too_near(distance: float, bound: float) -> NoGraph:
    """Return the error of two atoms that are too near."""
    return NoGraph(f"two atoms closer than any bond: {distance:.3g} angstrom apart, nearer than {bound:g}")


def expand_distances(distances: Tensor) -> Tensor:
    """Return distances (...), angstrom, expanded in Gaussians (..., 41), values 0-1."""
    centres = torch.linspace(0, RADIUS, NUM_GAUSSIANS, dtype=torch.float64)
    return torch.exp(-((distances[..., None] - centres.to(distances)) ** 2) / STEP**2)
