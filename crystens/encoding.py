"""CrysTens: crystals as images.

The image of a crystal with at most N sites has side S = 12 + N (52 sites: 64 px) and four channels, channels first:

                 0  1  2  3  4  5  6  7    8    9    10  11 | 12 ... 11+N
                 Z  x  y  z  a  b  c  al.  be.  ga.  sg  -  | sites 0 ... N-1
      0- 3       .......................................... | Z, x, y, z of each site
      4-10       .......................................... | a, b, c, alpha, beta, gamma, space group (constant rows)
     11          .......................................... | always empty
     12-11+N     the same eleven attributes as columns      | block: pairs of sites (i, j)

Rows and columns 0-10 hold the same value in all four channels: image[c, k, 12 + i] = image[c, 12 + i, k] = attribute k
of site i. The block holds in channel 0 the distance of sites i and j, and in channels 1-3 the differences x_i - x_j,
y_i - y_j, z_i - z_j. So an image holds each cell value 8A times (A sites) and each value of a site 8 times. The corner
[:12, :12], row and column 11, and everything without a site are empty: 0.

Values here are physical: atomic numbers, fractional coordinates, angstrom, degrees, space group numbers.
`crystens.scaling` maps them to [0, 1]. Instead of the atomic number, row and column 0 may hold a code of the element,
see `crystens.element_codes`.

The distance is by default the Euclidean distance of the fractional coordinates without periodic images, as in the
paper. `distance="cartesian"` gives the shortest distance over periodic images instead, in angstrom.

Source: Alverson et al., Digital Discovery 2024, 3, 62, Sec. 3.1, Figs. 1 and 2.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from crystens.batch import CrystalBatch
from crystens.batch_distances import shortest_pair_distances
from crystens.errors import CrystensError

ATTRIBUTES = ("Z", "x", "y", "z", "a", "b", "c", "alpha", "beta", "gamma", "space_group")
QUANTITIES = (*ATTRIBUTES, "difference", "distance")
NUM_CHANNELS = 4
HEADER = 12  # rows and columns before the pair block: eleven attributes and one of padding
COORDINATE_ROWS = slice(1, 4)  # x, y, z
CELL_ROWS = slice(4, 11)  # a, b, c, alpha, beta, gamma, space group: one value for each crystal
GROUP_ROW = 10  # space group, the last of them
POSITION_ROW = HEADER - 1  # Wyckoff positions, in images of orbits; empty in the paper
DISTANCES = ("fractional", "cartesian")

_CACHED_CRYSTALS = 64


def header_rows(sites: str) -> int:
    """Return the number of rows and columns of an image's header that hold values, for "all" sites or "orbits"."""
    return HEADER if sites == "orbits" else len(ATTRIBUTES)


def image_side(max_sites: int) -> int:
    """Return the side S of an image with `max_sites` site slots."""
    return HEADER + max_sites


def encode(
    crystals: CrystalBatch,
    distance: str = "fractional",
    factors: Tensor | None = None,
    offsets: Tensor | None = None,
    diagonal: bool = True,
    codes: Tensor | None = None,
) -> Tensor:
    """Return the images of crystals: (B, 4, S, S) float32, empty cells 0.

    Values are physical, or factor * value + offset if both are given. `crystens.scaling` uses this to scale quantities
    before they are copied over the image, which is much faster than scaling the image. Runs on the device of the batch,
    with shapes that depend on `max_sites` only.

    Args:
        crystals: the batch.
        distance: "fractional" or "cartesian", see above.
        factors: one factor for each of the `QUANTITIES`, shape (13,).
        offsets: one offset for each of the `QUANTITIES`, shape (13,).
        diagonal: whether the diagonal of the pair block is filled.
        codes: (119, 8), codes of elements by atomic number for the eight cells of a site, not scaled. None writes the
            scaled atomic number.

    Raises:
        CrystensError: if `distance` is not known.
    """
    check_distance(distance)
    coordinates = crystals.coordinates
    if factors is None or offsets is None:
        factors, offsets = coordinates.new_ones(len(QUANTITIES)), coordinates.new_zeros(len(QUANTITIES))
    size, sites = crystals.numbers.shape
    images = coordinates.new_zeros(size, NUM_CHANNELS, image_side(sites), image_side(sites))
    if images.device.type != "cpu":
        _fill(images, crystals, distance, factors, offsets, diagonal, codes)
        return images
    # Memory traffic dominates on a CPU: chunks of crystals of similar size stay in its cache, and only the part of
    # their images that holds values is written.
    for where in crystals.counts.argsort(stable=True).split(_CACHED_CRYSTALS):
        part = crystals[where]
        filled = int(part.counts[-1])
        part = replace(part, numbers=part.numbers[:, :filled], coordinates=part.coordinates[:, :filled])
        corner = image_side(filled)
        small = images.new_zeros(len(where), NUM_CHANNELS, corner, corner)
        _fill(small, part, distance, factors, offsets, diagonal, codes)
        images[:, :, :corner, :corner][where] = small
    return images


def _fill(
    images: Tensor,
    crystals: CrystalBatch,
    distance: str,
    factors: Tensor,
    offsets: Tensor,
    diagonal: bool,
    codes: Tensor | None,
) -> None:
    """Write the values of crystals into empty images (B, 4, S, S)."""
    size, sites = crystals.numbers.shape
    rows = len(ATTRIBUTES)
    mask = crystals.site_mask
    columns = crystals.coordinates.transpose(1, 2).contiguous()
    cell = torch.cat([crystals.lengths, crystals.angles, crystals.space_groups[:, None].float()], dim=1)
    cell = cell[:, :, None].expand(size, cell.shape[1], sites)
    attributes = torch.cat([crystals.numbers[:, None].float(), columns, cell], dim=1)
    attributes = (attributes * factors[:rows, None] + offsets[:rows, None]) * mask[:, None]
    images[:, :, :rows, HEADER:] = attributes[:, None]
    images[:, :, HEADER:, :rows] = attributes.transpose(1, 2)[:, None]
    if codes is not None:
        cells = codes[crystals.numbers.long()] * mask[..., None]  # (B, N, 8)
        images[:, :, 0, HEADER:] = cells[..., :NUM_CHANNELS].transpose(1, 2)
        images[:, :, HEADER:, 0] = cells[..., NUM_CHANNELS:].transpose(1, 2)

    block = images[:, :, HEADER:, HEADER:]
    block[:, 0] = pair_distances(crystals, distance) * factors[-1] + offsets[-1]
    block[:, 1:] = (columns * factors[-2] + offsets[-2])[..., :, None]
    block[:, 1:] -= (columns * factors[-2])[..., None, :]
    filled = mask.to(block)
    block *= (filled[:, :, None] * filled[:, None, :])[:, None]
    if not diagonal:
        block.diagonal(dim1=2, dim2=3).zero_()


def pair_distances(crystals: CrystalBatch, distance: str = "fractional") -> Tensor:
    """Return the distance of each pair of sites: (B, N, N); values of empty slots are undefined.

    "fractional": Euclidean distance of fractional coordinates, unitless. "cartesian": shortest over periodic images,
    angstrom.
    """
    if distance == "cartesian":
        return shortest_pair_distances(crystals)
    columns = crystals.coordinates.transpose(1, 2).contiguous()
    dx, dy, dz = (_pair_differences(axis) for axis in columns.unbind(dim=1))
    return (dx * dx).addcmul_(dy, dy).addcmul_(dz, dz).sqrt_()


def _pair_differences(columns: Tensor) -> Tensor:
    """Return x_i - x_j, without periodic images: (..., N) to (..., N, N)."""
    return columns[..., :, None] - columns[..., None, :]


def check_distance(distance: str) -> None:
    """Raise a CrystensError unless `distance` names a distance of the pair block."""
    if distance not in DISTANCES:
        raise CrystensError(f"{distance=} is not known; use one of {', '.join(DISTANCES)}")


def average_mirror_images(images: Tensor) -> Tensor:
    """Return images (B, 4, S, S) with attributes (except atoms) and distances averaged with their mirror images.

    Row and column 0 do not change, because they may hold two halves of a code; differences do not change either.
    """
    line = torch.arange(images.shape[-1], device=images.device)
    block = (line[:, None] >= HEADER) & (line >= HEADER)
    distance = (torch.arange(NUM_CHANNELS, device=images.device) == 0)[:, None, None]
    mirrored = (line[:, None] > 0) & (line > 0) & (distance | ~block)
    return torch.where(mirrored, (images + images.mT) / 2, images)


def present_cells(counts: Tensor, side: int, diagonal: bool = True, rows: int = len(ATTRIBUTES)) -> Tensor:
    """Return whether each cell of an image holds a value: (B,) counts to (B, S, S) bool, the same in all channels.

    Args:
        counts: number of sites of each crystal.
        side: image side S.
        diagonal: whether the pair block's diagonal (a site with itself) counts as holding a value.
        rows: number of the header's rows that hold values: the eleven attributes, and perhaps one more.
    """
    line = torch.arange(side, device=counts.device)
    site = (line >= HEADER) & (line < HEADER + counts[:, None])
    attribute = (line < rows).expand_as(site)
    present = (attribute[:, :, None] & site[:, None, :]) | (site[:, :, None] & attribute[:, None, :])
    pairs = site[:, :, None] & site[:, None, :]
    if not diagonal:
        pairs = pairs & (line[:, None] != line[None, :])
    return present | pairs
