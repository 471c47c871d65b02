"""The statistics in the definitions of the reference, and their differences from those of crystens.

The reference is a file of numbers that an independent run made, for ten crystals at three levels of noise, in the
definitions of the paper's public code as far as they can be told. Variances have one definition, except that the
paper's code leaves z out. The other two depend on how the places of the sites are voted. There the reference

- keeps, of a pair whose two stated differences are both positive, their mean (positive for the earlier site, negative
  for the later), where ours takes half their difference, the antisymmetric part;
- does not unscale the diagonal, where the scaling leaves it empty: noise on it is a difference, or a distance, of a
  site to itself;
- mixes the site's own coordinate in once more, with weight 1 / (12 + A), A the number of sites;
- divides the mean over sites and axes by A again.

`reference_statistics` counts like that, so that the paper's numbers have something of their kind beside them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crystens.batch import CrystalBatch
from crystens.crystal import Crystal
from crystens.decoding import read_copies
from crystens.encoding import HEADER
from crystens.errors import CrystensError
from crystens.metrics.statistics import STATISTICS, coordinate_variances, image_statistics
from crystens.scaling import Scaling

# Those that the reference counts otherwise than we do; the variances of the cell are the same.
REDEFINED = ("coordinate_variance", "coordinate_agreement", "pairwise_agreement")

SIGMAS = ("0.0", "0.01", "0.05")
_SITES = 52
_QUANTITIES = {"atom": "Z", "sg": "space_group", "dir": "difference", "length": "distance"}
_XYZ = "coordinate_variance of x, y and z"
_KEYS = {
    _XYZ: "variance_coord_mean_xyz",
    "coordinate_variance": "variance_coord_mean_xy_only",
    "coordinate_agreement": "relative_difference_mean",
    "pairwise_agreement": "pairwise_sum_over_atoms",
}


@dataclass(frozen=True)
class Difference:
    """The largest differences of one statistic from the reference, over its crystals at one level of noise.

    Attributes:
        statistic: its name.
        sigma: standard deviation of the noise on the scaled image.
        ours: largest relative difference of `image_statistics`, after division by A where the reference divides; None
            without noise, where both are 0 up to rounding.
        ours_absolute: the largest difference itself, in the statistic's unit.
        theirs: largest relative difference of `reference_statistics`; None as above.
        theirs_absolute: the largest difference itself.
    """

    statistic: str
    sigma: str
    ours: float | None
    ours_absolute: float
    theirs: float | None
    theirs_absolute: float


def reference_statistics(images: Tensor, scaling: Scaling, counts: Tensor) -> dict[str, np.ndarray]:
    """Return the `REDEFINED` statistics as the reference counts them: (B,) float64 each, NaN where there is no site.

    Args:
        images: scaled images (B, 4, S, S) with fractional distances.
        scaling: the scaling they were made with.
        counts: (B,) numbers of sites.
    """
    found = {name: np.full(len(images), np.nan) for name in REDEFINED}
    for place, count in enumerate(counts.tolist()):
        if count == 0:
            continue
        scaled = images[place].double()
        copies = read_copies(scaled[None], scaling, counts[place : place + 1])
        values = copies.values
        axes = coordinate_variances(copies)[0]
        found["coordinate_variance"][place] = float(axes[:2].mean())
        own = copies.copies[0, 1:4].mean(dim=1)[:, :count]
        votes = _votes(scaled, values[0], own, scaling.diagonal)
        found["coordinate_agreement"][place] = float((own - votes).abs().mean() / count)
        stated = values[0, 0, HEADER : HEADER + count, HEADER : HEADER + count]
        between = (votes[:, :, None] - votes[:, None, :]).square().sum(dim=0).sqrt()
        apart = ((stated + stated.T) / 2 - between).abs()
        if not scaling.diagonal:
            apart.diagonal().copy_(scaled[0].diagonal()[HEADER : HEADER + count].abs())
        found["pairwise_agreement"][place] = float(apart.sum() / count)
    return found


def largest_differences(file: Path) -> list[Difference]:
    """Return how far our statistics, and `reference_statistics`, are from a file of reference values.

    Raises:
        CrystensError: if the file cannot be read as one.
    """
    try:
        reference = json.loads(file.read_text(encoding="utf-8"))
        crystals = reference["crystals"]
        ranges = {
            _QUANTITIES.get(name, name): (mean - low * deviation, mean + high * deviation)
            for name, (mean, deviation, low, high) in reference["scaling_constants"].items()
        }
        seed = reference["noise"]["seed"]
    except (OSError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise CrystensError(f"{file} is no file of reference statistics: {error!r}; see the README beside") from error
    scaling = Scaling(ranges, max_sites=_SITES, gap=0.0, diagonal=False)
    found = []
    for sigma in SIGMAS:
        ours, theirs, stated = [], [], []
        for crystal in crystals:
            images = _noisy_image(crystal, scaling, float(sigma), seed)
            counts = torch.tensor([len(crystal["numbers"])])
            ours.append(_ours(images, scaling, counts))
            theirs.append(
                ours[-1]
                | {name: float(value[0]) for name, value in reference_statistics(images, scaling, counts).items()}
            )
            stated.append(_stated(crystal[f"sigma_{sigma}"]))
        found += [_difference(name, sigma, ours, theirs, stated) for name in (*STATISTICS, _XYZ)]
    return found


def difference_table(differences: list[Difference]) -> str:
    """Return the differences in Markdown."""
    lines = [
        "| statistic | noise | ours: largest difference | relative | in the reference's definition | relative |",
        "|---|---|---|---|---|---|",
    ]
    for item in differences:
        first, second = ("0 stated" if value is None else f"{value:.1e}" for value in (item.ours, item.theirs))
        lines.append(
            f"| {item.statistic} | {item.sigma} | {item.ours_absolute:.1e} | {first} | {item.theirs_absolute:.1e} "
            f"| {second} |"
        )
    return "\n".join(lines) + "\n"


def _votes(scaled: Tensor, values: Tensor, own: Tensor, diagonal: bool) -> Tensor:
    """Return the places (3, A) that the reference decodes: scaled and physical images (4, S, S), own (3, A)."""
    count = own.shape[1]
    block = values[1:, HEADER : HEADER + count, HEADER : HEADER + count].clone()
    if not diagonal:
        raw = scaled[1:, HEADER : HEADER + count, HEADER : HEADER + count]
        block.diagonal(dim1=1, dim2=2).copy_(raw.diagonal(dim1=1, dim2=2))
    mirrored = block.transpose(1, 2)
    earlier = torch.ones(count, count, dtype=torch.bool).triu()
    mean = (block + mirrored) / 2
    signed = torch.where(earlier, mean, -mean)
    differences = torch.where((block > 0) & (mirrored > 0), signed, (block - mirrored) / 2)
    weight = 1 / (HEADER + count)
    return weight * own + (1 - weight) * (own[:, None] + differences).mean(dim=2)


def _noisy_image(crystal: dict[str, Any], scaling: Scaling, sigma: float, seed: int) -> Tensor:
    """Return the scaled image (1, 4, 64, 64) of a reference crystal in float64, with its noise."""
    places = np.array(crystal["frac"])
    lengths, angles = crystal["abc"], crystal["angles"]
    one = CrystalBatch.from_crystals(
        [Crystal(lengths, angles, crystal["space_group"], crystal["numbers"], places)], _SITES
    )
    coordinates = torch.zeros(1, _SITES, 3, dtype=torch.float64)
    coordinates[0, : len(places)] = torch.from_numpy(places)
    exact = CrystalBatch(
        torch.tensor([lengths], dtype=torch.float64),
        torch.tensor([angles], dtype=torch.float64),
        one.space_groups,
        one.counts,
        one.numbers,
        coordinates,
    )
    generator = np.random.default_rng([seed, crystal["noise_index"]])
    noise = torch.from_numpy(generator.standard_normal((64, 64, 4))).permute(2, 0, 1)
    return scaling.encode(exact) + sigma * noise


def _ours(images: Tensor, scaling: Scaling, counts: Tensor) -> dict[str, float]:
    """Return our statistics of one image, the coordinate agreement divided by A to be of the reference's kind."""
    found = {name: float(value[0]) for name, value in image_statistics(images, scaling, counts).items()}
    found["coordinate_agreement"] /= int(counts[0])
    return found | {_XYZ: found["coordinate_variance"]}


def _stated(entry: dict[str, Any]) -> dict[str, float]:
    """Return what the reference states for one crystal at one level of noise, by our names."""
    return {
        "cell_length_variance": float(np.mean(entry["variance_a_b_c"])),
        "cell_angle_variance": float(np.mean(entry["variance_alpha_beta_gamma"])),
        "space_group_variance": float(entry["variance_space_group"]),
        **{name: float(entry[key]) for name, key in _KEYS.items()},
    }


def _difference(
    name: str,
    sigma: str,
    ours: list[dict[str, float]],
    theirs: list[dict[str, float]],
    stated: list[dict[str, float]],
) -> Difference:
    """Return the largest differences of one statistic."""
    expected = np.array([entry[name] for entry in stated])
    largest: list[float] = []
    relative: list[float | None] = []
    for found in (ours, theirs):
        apart = np.abs(np.array([entry[name] for entry in found]) - expected)
        largest.append(float(apart.max()))
        relative.append(float((apart / np.abs(expected)).max()) if float(sigma) else None)
    return Difference(name, sigma, relative[0], largest[0], relative[1], largest[1])
