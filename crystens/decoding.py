"""Decoding of CrysTens images into crystals.

Decoding averages the copies of each value, in the steps of the paper's Sec. 3.2:

1. `count_sites`: the number A of sites in the image.
2. `read_images`: the 8A copies of each cell value and the 8 copies of each site value are averaged. Each site j votes
   for the position of each site i by x_j + d_ij, where d is the difference block, antisymmetrised as (d - d^T) / 2. The
   position of i is the mean of the A votes, among them its own coordinate.
3. `Decoder.decode`: atomic numbers and the coordinates on each axis are clustered by one-dimensional K-means and
   replaced by the centroids. Then atomic numbers are rounded, and sites that coincide are merged.

`decode=paper` does exactly this, with K_atom = 3 and K_coord = 6. `decode=auto` differs:

- means of coordinates are periodic (circular), and votes take the shortest way around the cell;
- K is chosen from the data, by the disagreement of copies, and clusters that would bring sites together are not used;
- sites nearer than 0.5 angstrom are merged;
- the space group is found again, and the crystal is symmetrised in its generated cell.

Differs from the paper: the number of sites is the A that fits the whole image best by least squares, instead of being
read from one row, which fails for acute angles under noise. K-means in one dimension is solved exactly (`kmeans1d`),
instead of by Lloyd's algorithm from random seeds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from crystens.clustering import Clusters, cluster
from crystens.crystal import MAX_ATOMIC_NUMBER, NUM_SPACE_GROUPS, Crystal
from crystens.distances import pair_distances
from crystens.encoding import ATTRIBUTES, CELL_ROWS, COORDINATE_ROWS, GROUP_ROW, HEADER, NUM_CHANNELS
from crystens.errors import CrystensError
from crystens.scaling import Scaling
from crystens.symmetry.space_groups import SymmetrisedCrystal, imposed
from crystens.symmetry.stated_group import stated_group

# Smaller spreads of copies are float32 rounding, not disagreement.
_NUMBER_RESOLUTION = 0.1  # in atomic numbers: neighbours in the periodic table stay distinct
_COORDINATE_RESOLUTION = 1e-5  # fractional

# An image holds no site if the root mean square of its cell rows over one site is below this.
_EMPTY = 0.01

# Sites nearer than this, in angstrom, coincide: programs reject a file that lists two elements there.
_COINCIDENT = 0.01

# Images read at a time: in float64 an image of side 64 takes 128 KB, and its intermediates several times that.
CACHED_IMAGES = 16

# Largest tolerance for the space group that the image states, angstrom; and the smallest for any other group.
_STATED_WITHIN, _FOUND_WITHIN = 0.3, 0.01

# Probabilities of the elements without further knowledge.
_ALL_ELEMENTS = np.full(MAX_ATOMIC_NUMBER, 1 / MAX_ATOMIC_NUMBER)


@dataclass(frozen=True, eq=False)
class ImageCopies:
    """All copies of each value of a batch of images, in physical units, before anything is averaged.

    Attributes:
        counts: (B,) int64, number of sites; 0 for an empty image.
        values: (B, 4, S, S) float64, physical values.
        copies: (B, 11, 8, N) float64, the 8 copies of each attribute of each site.
        mask: (B, N) bool, whether a slot holds a site.
        scaling: the scaling of the images.
    """

    counts: Tensor
    values: Tensor
    copies: Tensor
    mask: Tensor
    scaling: Scaling


@dataclass(frozen=True, eq=False)
class ImageReading:
    """Values of a batch of images, averaged over their copies, before any clustering.

    Attributes:
        counts: (B,) int64, number of sites; 0 where the image holds none.
        cells: (B, 7) float64: a, b, c (angstrom), alpha, beta, gamma (degree), space group, not rounded.
        numbers: (B, N) float64, atomic numbers, not rounded.
        coordinates: (B, N, 3) float64, fractional, in [0, 1) if read periodically; zero in empty slots.
        number_spread: (B,) float64, standard error of an atomic number, from the spread of its copies.
        coordinate_spread: (B,) float64, standard error of a coordinate, fractional, from the spread of the votes.
    """

    counts: Tensor
    cells: Tensor
    numbers: Tensor
    coordinates: Tensor
    number_spread: Tensor
    coordinate_spread: Tensor


@dataclass(frozen=True, eq=False)
class DecodedCrystal:
    """One decoded image: a crystal, or the reason why there is none.

    Attributes:
        crystal: the decoded crystal in its generated cell; None if decoding failed. Its space group is the one found if
            it was symmetrised, else the generated one, which its atoms need not have.
        reason: why decoding failed; empty if it succeeded.
        num_sites: number of sites in the image.
        generated_space_group: the mean of the image's space group cells, rounded and limited to 1-230; None if it was
            not a number.
        merged_sites: number of sites that were merged into others.
        symmetry: the symmetry of the symmetrised crystal; None if it was not symmetrised.
        moved: displacement of each site, or each orbit, onto its position in the stated group, angstrom; empty if that
            group was not imposed.
    """

    crystal: Crystal | None
    reason: str
    num_sites: int
    generated_space_group: int | None
    merged_sites: int = 0
    symmetry: SymmetrisedCrystal | None = None
    moved: np.ndarray = field(default_factory=lambda: np.zeros(0))


def count_sites(images: Tensor, scaling: Scaling) -> Tensor:
    """Return the number of sites of scaled images: (B, 4, S, S) to (B,) int64; 0 for an empty image.

    The number A minimises the sum of squares, over all channels, to an image with A sites: rows of the cell are
    constant over A sites and 0 beyond; the three difference channels scatter around a difference of 0 in the block of A
    sites and are 0 beyond. No single cell decides, so that this works under noise, and with the paper's scaling, in
    which hydrogen, x = 0 and P1 scale to 0.
    """
    images = scaling.evened(images.double())
    sites = images.shape[-1] - HEADER
    cells = torch.stack([images[:, :, CELL_ROWS, HEADER:], images[:, :, HEADER:, CELL_ROWS].transpose(2, 3)], dim=1)
    # Fitting a constant to the first A cells of a row lowers the sum of squares by (sum over them)^2 / A.
    sums = cells.cumsum(dim=-1).sum(dim=(1, 2))  # (B, 7, N), over both orientations and four channels
    copies = 2 * NUM_CHANNELS * torch.arange(1, sites + 1, device=images.device)
    gain = (sums.square() / copies).sum(dim=1)
    # A present pair lowers the sum of squares by v^2 - (v - m)^2 = 2 m v - m^2 with m the scaled difference 0.
    middle = scaling.scaled_value("difference", 0.0)
    block = images[:, 1:, HEADER:, HEADER:]
    gained = (2 * middle * block - middle**2).sum(dim=1)
    if not scaling.diagonal:
        gained = gained - torch.diag_embed(gained.diagonal(dim1=1, dim2=2))
    # Sum over the leading A x A squares, for all A at once.
    gain = gain + gained.cumsum(dim=1).cumsum(dim=2).diagonal(dim1=1, dim2=2)
    best, where = gain.max(dim=1)
    empty = ~(best > _EMPTY**2 * cells.shape[3] * 2 * NUM_CHANNELS)  # also true where the image has a NaN
    return torch.where(empty, 0, where + 1)


def read_copies(images: Tensor, scaling: Scaling, counts: Tensor | None = None) -> ImageCopies:
    """Return the copies of each value of scaled images (B, 4, S, S); the images are not changed.

    Args:
        images: scaled images.
        scaling: the scaling they were made with.
        counts: (B,) numbers of sites, where they are known; counted otherwise.
    """
    images = images.double()
    counts = count_sites(images, scaling) if counts is None else counts.to(torch.int64)
    values = scaling.unscale(images)
    mask = torch.arange(values.shape[-1] - HEADER, device=values.device) < counts[:, None]
    copies = attribute_copies(values)
    copies[:, GROUP_ROW] = scaling.group_copies(copies[:, GROUP_ROW])
    return ImageCopies(counts, values, copies, mask, scaling)


def read_images(images: Tensor, scaling: Scaling, periodic: bool, counts: Tensor | None = None) -> ImageReading:
    """Return the averaged values of scaled images (B, 4, S, S), see `read_copies` and `average_copies`."""
    return average_copies(read_copies(images, scaling, counts), periodic)


def average_copies(images: ImageCopies, periodic: bool) -> ImageReading:
    """Return the averaged values of images.

    Args:
        images: the copies of their values.
        periodic: circular means of coordinates, and votes by the shortest way around the cell.
    """
    counts, copies, mask = images.counts, images.copies, images.mask
    filled = counts.clamp(min=1).double()

    means = copies.mean(dim=2)  # (B, 11, N)
    cells = _mean_cells(means, images)
    numbers, spread = (value * mask for value in images.scaling.read_numbers(copies[:, 0]))
    number_spread = (spread.sum(dim=1) / filled / copies.shape[2]).sqrt()

    own = _circular_mean(copies[:, COORDINATE_ROWS], dim=2) if periodic else means[:, COORDINATE_ROWS]  # (B, 3, N)
    votes = coordinate_votes(images.values, own)  # (B, 3, N, N), vote of j on i
    pairs = (mask[:, :, None] & mask[:, None, :])[:, None]
    if periodic:
        # Average of the shortest ways from the own coordinate to each vote: as good as a circular mean if votes nearly
        # agree, and exact if they agree.
        centre = _circular_mean(votes, dim=3, weights=pairs)
        step = votes - centre[..., None]
        step = (step - step.round()) * pairs
        places = centre + step.sum(dim=3) / filled[:, None, None]
        places = (places - places.floor()) * mask[:, None]
        step = step - step.sum(dim=3, keepdim=True) / filled[:, None, None, None]
    else:
        places = (votes * pairs).sum(dim=3) / filled[:, None, None]
        step = (votes - places[..., None]) * pairs
    scatter = (step * pairs).square().sum(dim=(1, 2, 3)) / (3 * filled * (filled - 1).clamp(min=1))
    # The votes for a site share errors only through the common origin, so that their mean is sharper by sqrt(A).
    coordinate_spread = (scatter / filled).sqrt()
    return ImageReading(counts, cells, numbers, places.transpose(1, 2), number_spread, coordinate_spread)


def cell_means(images: ImageCopies) -> Tensor:
    """Return the mean over all copies of each cell value: (B, 7) float64, units as in `ImageReading`."""
    return _mean_cells(images.copies.mean(dim=2), images)


def _mean_cells(means: Tensor, images: ImageCopies) -> Tensor:
    """Return the cell values (B, 7) of the means of attributes (B, 11, N)."""
    return (means[:, CELL_ROWS] * images.mask[:, None]).sum(dim=2) / images.counts.clamp(min=1).double()[:, None]


def attribute_copies(values: Tensor) -> Tensor:
    """Return the 8 copies of each attribute of each site: (B, 4, S, S) to (B, 11, 8, N)."""
    rows = len(ATTRIBUTES)
    horizontal = values[:, :, :rows, HEADER:]
    vertical = values[:, :, HEADER:, :rows].transpose(2, 3)
    return torch.cat([horizontal, vertical], dim=1).transpose(1, 2)


def coordinate_votes(values: Tensor, own: Tensor) -> Tensor:
    """Return the votes of sites j for sites i: physical images (B, 4, S, S), own (B, 3, N) to (B, 3, N, N) [i, j]."""
    differences = values[:, 1:, HEADER:, HEADER:]
    differences = (differences - differences.transpose(2, 3)) / 2
    return own[:, :, None, :] + differences


def _circular_mean(coordinates: Tensor, dim: int, weights: Tensor | None = None) -> Tensor:
    """Return the mean of fractional coordinates on the circle, in [0, 1)."""
    angle = 2 * torch.pi * coordinates
    sine, cosine = angle.sin(), angle.cos()
    if weights is not None:
        sine, cosine = sine * weights, cosine * weights
    turn = torch.atan2(sine.sum(dim=dim), cosine.sum(dim=dim)) / (2 * torch.pi)
    return turn - turn.floor()


def element_probabilities(numbers: np.ndarray) -> np.ndarray:
    """Return the probability of each element, from its share of sites: (sites,) atomic numbers to (118,).

    Each element gets one additional site, so that none is impossible.
    """
    counted = np.bincount(numbers.astype(np.int64), minlength=MAX_ATOMIC_NUMBER + 1)[1:] + 1
    return counted / counted.sum()


@dataclass(frozen=True)
class Decoder:
    """Turns scaled images into crystals; all arguments are config values of the group `decode`.

    Args:
        atom_clusters: K of the atomic numbers (the paper: 3), or "auto".
        coordinate_clusters: K of the coordinates on each axis (the paper: 6), or "auto".
        periodic: circular means of coordinates and shortest-way votes.
        merge_distance: sites nearer than this, over periodic images, become one, in angstrom.
        merge_unlike: whether sites of different elements are merged too, and keep the element of the lower site index
            (in canonical order the lighter one); if not, coinciding sites of different elements are a failure.
        symmetrise: whether to find the space group of the atoms again and symmetrise the crystal. "project" first tries
            to impose the stated space group, if no site moves by more than `most_move`.
        most_move: largest displacement of a site, angstrom.

    Raises:
        CrystensError: if a K is neither a positive number nor "auto", or another value is out of range.
    """

    atom_clusters: Clusters = "auto"
    coordinate_clusters: Clusters = "auto"
    periodic: bool = True
    merge_distance: float = 0.5
    merge_unlike: bool = True
    symmetrise: bool | Literal["project"] = True
    most_move: float = 0.5

    def __post_init__(self) -> None:
        """Check the numbers of clusters."""
        for name in ("atom_clusters", "coordinate_clusters"):
            value = getattr(self, name)
            if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise CrystensError(f"decode.{name} must be a positive whole number or auto, got {value!r}")
        if not isinstance(self.merge_distance, int | float) or not self.merge_distance >= 0:
            raise CrystensError(f"decode.merge_distance must be a distance in angstrom, got {self.merge_distance!r}")
        if not isinstance(self.most_move, int | float) or not self.most_move > 0:
            raise CrystensError(f"decode.most_move must be a distance in angstrom, got {self.most_move!r}")
        if self.symmetrise not in (True, False, "project"):
            raise CrystensError(f"decode.symmetrise must be true, false or project, got {self.symmetrise!r}")

    def decode(
        self,
        images: Tensor,
        scaling: Scaling,
        counts: Tensor | None = None,
        elements: np.ndarray | None = None,
    ) -> list[DecodedCrystal]:
        """Return one crystal for each scaled image (B, 4, S, S), or a failure with its reason.

        Args:
            images: scaled images, of any device; not changed.
            scaling: the scaling they were made with.
            counts: (B,) numbers of sites, where they are known; counted otherwise.
            elements: (118,) probabilities of the elements, see `element_probabilities`, for an "auto" K_atom; all the
                same if left out.
        """
        decoded: list[DecodedCrystal] = []
        # Memory traffic dominates on a CPU: a few images at a time stay in its cache.
        at_once = CACHED_IMAGES if images.device.type == "cpu" else max(len(images), 1)
        for start in range(0, len(images), at_once):
            part = slice(start, start + at_once)
            known = None if counts is None else counts[part]
            decoded += self.decode_copies(read_copies(images[part], scaling, known), elements)
        return decoded

    def decode_copies(self, images: ImageCopies, elements: np.ndarray | None = None) -> list[DecodedCrystal]:
        """Return the crystals of a batch whose copies are already read, see `decode`."""
        return self.decode_reading(average_copies(images, self.periodic), elements)

    def decode_reading(self, reading: ImageReading, elements: np.ndarray | None = None) -> list[DecodedCrystal]:
        """Return the crystals of a batch that is already read, see `decode`.

        For several decoders on the same images: reading them takes most of the time, and depends only on `periodic`,
        which must be the same.
        """
        elements = _ALL_ELEMENTS if elements is None else elements
        rows = zip(
            reading.counts.tolist(),
            reading.cells.numpy(force=True),
            reading.numbers.numpy(force=True),
            reading.coordinates.numpy(force=True),
            reading.number_spread.tolist(),
            reading.coordinate_spread.tolist(),
            [elements] * len(reading.counts),
            strict=True,
        )
        return [self._decode_one(*row) for row in rows]

    def _decode_one(
        self,
        count: int,
        cell: np.ndarray,
        numbers: np.ndarray,
        coordinates: np.ndarray,
        number_spread: float,
        coordinate_spread: float,
        elements: np.ndarray,
    ) -> DecodedCrystal:
        """Cluster, merge and symmetrise the reading of one image."""
        if count == 0:
            return DecodedCrystal(None, "the image holds no site", 0, None)
        numbers, coordinates = numbers[:count], coordinates[:count]
        finite = np.isfinite(cell).all() and np.isfinite(numbers).all() and np.isfinite(coordinates).all()
        if not finite:
            return DecodedCrystal(None, "the image has values that are not finite", count, None)
        group = int(np.clip(np.rint(cell[6]), 1, NUM_SPACE_GROUPS))
        spread = max(number_spread, _NUMBER_RESOLUTION)
        centroids = cluster(numbers, self.atom_clusters, spread, elements)
        atoms = np.rint(centroids).astype(np.int64)
        if atoms.min() < 1 or atoms.max() > MAX_ATOMIC_NUMBER:
            bad = atoms[(atoms < 1) | (atoms > MAX_ATOMIC_NUMBER)][0]
            return DecodedCrystal(None, f"atomic number must be 1-{MAX_ATOMIC_NUMBER}, got {bad}", count, group)
        spread = max(coordinate_spread, _COORDINATE_RESOLUTION)
        places = np.stack([self._cluster_axis(axis, spread) for axis in coordinates.T], axis=1)
        try:
            crystal = Crystal(cell[:3], cell[3:6], group, atoms, places)
        except CrystensError as error:
            return DecodedCrystal(None, str(error), count, group)
        distances = _distances(crystal)
        if self.coordinate_clusters == "auto":
            # No crystal has two atoms at one point: clusters that move separate sites together are wrong.
            apart = replace(crystal, coordinates=coordinates)
            unclustered = _distances(apart)
            if self._distinct_places(atoms, unclustered) > self._distinct_places(atoms, distances):
                crystal, distances = apart, unclustered
        kept = _kept_sites(crystal.numbers, distances, self.merge_distance, self.merge_unlike)
        if not kept.all():
            crystal = _selected(crystal, kept)
            distances = distances[np.ix_(kept, kept)]
        nearest = float(distances.min())
        if len(crystal) > 1 and nearest < _COINCIDENT:
            return DecodedCrystal(None, f"sites of different elements coincide: {nearest:.2g} angstrom", count, group)
        merged = count - len(crystal)
        if self.symmetrise == "project" and group > 1:
            # A site that moves by half the shortest distance may be confused with its neighbour.
            stated = stated_group(crystal, group, min(self.most_move, nearest / 2))
            if stated is not None:
                symmetry = stated.symmetry
                return DecodedCrystal(symmetry.crystal, "", count, group, merged, symmetry, stated.displacements)
        if self.symmetrise:
            # If the atoms do not have the stated group, the tolerance follows the spread of the coordinate votes, so
            # that a clean image keeps its small distortions.
            limit = max(3.0 * coordinate_spread * float(crystal.lengths.max()), _FOUND_WITHIN)
            found = imposed(crystal, group, _STATED_WITHIN, limit, nearest=nearest)
            if found is not None:
                return DecodedCrystal(found[0].crystal, "", count, group, merged, found[0])
        return DecodedCrystal(crystal, "", count, group, merged)

    def _distinct_places(self, numbers: np.ndarray, distances: np.ndarray) -> int:
        """Return the number of sites after merging coinciding sites of any elements."""
        near = max(self.merge_distance, _COINCIDENT)
        return int(_kept_sites(numbers, distances, near, unlike=True).sum())

    def _cluster_axis(self, values: np.ndarray, spread: float) -> np.ndarray:
        """Return the centroids of coordinates on one axis; periodic coordinates are cut at the widest gap."""
        start = _widest_gap(values) if self.periodic else 0.0
        opened = (values - start) % 1.0 if self.periodic else values
        return cluster(opened, self.coordinate_clusters, spread, centres=1.0) + start


def _widest_gap(values: np.ndarray) -> float:
    """Return the point at which to cut the circle [0, 1): the middle of the widest empty arc."""
    ordered = np.sort(values % 1.0)
    gaps = np.diff(ordered, append=ordered[0] + 1.0)
    widest = int(gaps.argmax())
    return float(ordered[widest] + gaps[widest] / 2)


def merge_sites(crystal: Crystal, distance: float, unlike: bool) -> Crystal:
    """Return the crystal with sites nearer than `distance` (angstrom, over periodic images) merged.

    The site of the lower index is kept, so that merging never moves an atom. Sites of different elements are merged
    only if `unlike`.
    """
    kept = _kept_sites(crystal.numbers, _distances(crystal), distance, unlike)
    return crystal if kept.all() else _selected(crystal, kept)


def _kept_sites(numbers: np.ndarray, distances: np.ndarray, distance: float, unlike: bool) -> np.ndarray:
    """Return whether each site is kept if sites nearer than `distance` are merged: (N,) bool; distances (N, N)."""
    near = np.tril(distances < distance, -1)
    if not unlike:
        near &= numbers[:, None] == numbers
    kept = np.ones(len(near), dtype=bool)
    for site in np.flatnonzero(near.any(axis=1)):
        kept[site] = not (near[site] & kept).any()
    return kept


def _selected(crystal: Crystal, kept: np.ndarray) -> Crystal:
    """Return a crystal with some of its sites."""
    return replace(crystal, numbers=crystal.numbers[kept], coordinates=crystal.coordinates[kept])


def _distances(crystal: Crystal) -> np.ndarray:
    """Return the distance of each pair of sites over periodic images, of a site to its own image: (N, N), angstrom."""
    return pair_distances(crystal.vectors, crystal.coordinates)
