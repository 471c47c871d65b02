"""Consistency of an image: the statistics of the paper's Tables 1 and 2.

A CrysTens image holds every value several times: each cell value 8A times (A sites), each value of a site 8 times, each
coordinate once more in its difference to every other site, each distance twice. In a perfect image all copies agree and
every statistic is 0. The statistics are measured on the scaled image as the network gave it, before clustering:

- variances: population variance of the copies of one value;
- coordinate agreement: |own coordinate - mean of the votes|, where the own coordinate is the mean of its 8 copies, and
  site j votes for site i by x_j + d_ij with the antisymmetrised difference block d (the vote of i on itself is its own
  coordinate and counts once among A). Fractional; mean over sites and axes;
- pairwise agreement: sum over ordered pairs i != j of |distance block, made symmetric, - distance of the decoded
  coordinates|, divided by A. The decoded coordinates are the mean votes.

Differences are not periodic: coordinates of 0.99 and 0.01 differ by 0.98, as in the paper.

Source: Alverson et al., "Generative adversarial networks and diffusion models in material discovery", Digital
Discovery 2024, 3, 62, Sec. 4, Tables 1 and 2. Differs from the paper: all three coordinates count in the variance (the
public code leaves z out); each vote counts once in the agreement, which is a mean over sites and not that mean divided
by A again.
"""

from __future__ import annotations

import torch
from torch import Tensor

from crystens.batch import CrystalBatch
from crystens.decoding import ImageCopies, ImageReading, average_copies, read_copies
from crystens.encoding import CELL_ROWS, COORDINATE_ROWS, HEADER, pair_distances
from crystens.scaling import Scaling

STATISTICS = (
    "cell_length_variance",
    "cell_angle_variance",
    "space_group_variance",
    "coordinate_variance",
    "coordinate_agreement",
    "pairwise_agreement",
)

# Images measured at a time: in float64 with intermediates, 64 images of side 64 take some 50 MB.
_CHUNK = 64


def image_statistics(
    images: Tensor, scaling: Scaling, counts: Tensor | None = None, distance: str = "fractional"
) -> dict[str, Tensor]:
    """Return the six `STATISTICS` of each image: name to (B,) float64, NaN where the image holds no site.

    With a single site both agreements are 0.

    Args:
        images: scaled images (B, 4, S, S) as the network gave them; not changed.
        scaling: the scaling of the images.
        counts: (B,) numbers of sites, if they are known; otherwise they are counted.
        distance: kind of distance in the distance block, "fractional" or "cartesian"; the pairwise agreement is
            unitless or in angstrom.

    Units: angstrom^2, degree^2, space group numbers squared, fractional^2, fractional, unit of the distance.
    """
    counts = None if counts is None else counts.to(images.device)
    parts = []
    for start in range(0, len(images), _CHUNK):
        part = slice(start, start + _CHUNK)
        known = None if counts is None else counts[part]
        parts.append(copies_statistics(read_copies(images[part], scaling, known), distance))
    if not parts:
        return {name: torch.zeros(0, dtype=torch.float64, device=images.device) for name in STATISTICS}
    return {name: torch.cat([part[name] for part in parts]) for name in STATISTICS}


def copies_statistics(images: ImageCopies, distance: str = "fractional") -> dict[str, Tensor]:
    """Return the six `STATISTICS` of images whose copies are already read, see `image_statistics`."""
    reading = average_copies(images, periodic=False)
    cells = cell_variances(images)
    found = {
        "cell_length_variance": cells[:, :3].mean(dim=1),
        "cell_angle_variance": cells[:, 3:6].mean(dim=1),
        "space_group_variance": cells[:, 6],
        "coordinate_variance": coordinate_variances(images).mean(dim=1),
        "coordinate_agreement": _coordinate_agreement(images, reading),
        "pairwise_agreement": _pairwise_agreement(images, reading, distance),
    }
    empty = images.counts == 0
    return {name: value.masked_fill(empty, torch.nan) for name, value in found.items()}


def cell_variances(images: ImageCopies) -> Tensor:
    """Return the population variance of the 8A copies of each cell value.

    Returns:
        (B, 7): a, b, c in angstrom^2, alpha, beta, gamma in degree^2, space group; 0 where there is no site.
    """
    copies = images.copies[:, CELL_ROWS]  # (B, 7, 8, N)
    mask = images.mask[:, None, None]
    number = (copies.shape[2] * images.counts.clamp(min=1))[:, None]
    mean = (copies * mask).sum(dim=(2, 3)) / number
    deviation = (copies - mean[:, :, None, None]) * mask
    return deviation.square().sum(dim=(2, 3)) / number


def coordinate_variances(images: ImageCopies) -> Tensor:
    """Return the population variance of the 8 copies of each coordinate, mean over sites, for each of x, y, z.

    Returns:
        (B, 3), fractional^2; 0 where there is no site.
    """
    variances = images.copies[:, COORDINATE_ROWS].var(dim=2, correction=0) * images.mask[:, None]
    return variances.sum(dim=2) / images.counts.clamp(min=1)[:, None]


def _coordinate_agreement(images: ImageCopies, reading: ImageReading) -> Tensor:
    """Return the mean over sites and axes of |own coordinate - mean of the votes|: (B,), fractional."""
    own = images.copies[:, COORDINATE_ROWS].mean(dim=2)  # (B, 3, N)
    apart = (own - reading.coordinates.transpose(1, 2)).abs() * images.mask[:, None]
    return apart.sum(dim=(1, 2)) / (3 * images.counts.clamp(min=1))


def _pairwise_agreement(images: ImageCopies, reading: ImageReading, distance: str) -> Tensor:
    """Return the sum over ordered pairs of |distance block - decoded distances|, divided by A: (B,)."""
    stated = images.values[:, 0, HEADER:, HEADER:]
    stated = (stated + stated.transpose(1, 2)) / 2
    decoded = CrystalBatch(
        lengths=reading.cells[:, :3],
        angles=reading.cells[:, 3:6],
        space_groups=reading.cells[:, 6],
        counts=reading.counts,
        numbers=reading.numbers,
        coordinates=reading.coordinates,
    )
    mask = images.mask
    pairs = mask[:, :, None] & mask[:, None, :] & ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    apart = (stated - pair_distances(decoded, distance)).abs() * pairs
    return apart.sum(dim=(1, 2)) / images.counts.clamp(min=1)
