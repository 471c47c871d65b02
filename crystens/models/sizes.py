"""Counts of the sizes of training crystals. Training counts them, and sampling draws sizes with these frequencies.

A size has four numbers: sites that the image lists, elements, sites of the primitive cell, and whether the crystal is
charge-neutral (0 if the model has no such fact).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_MOST_ELEMENTS, _MOST_SITES = 15, 128  # larger numbers are counted as these


def no_sizes(slots: int) -> Tensor:
    """Return counts of sizes, all 0, for images with `slots` slots: (slots + 1, 16, 129, 2) int32."""
    return torch.zeros(slots + 1, _MOST_ELEMENTS + 1, _MOST_SITES + 1, 2, dtype=torch.int32)


def count_sizes(counts: Tensor, facts: Mapping[str, Tensor], slots: int) -> Tensor:
    """Return the number of images of each size, in the shape of `no_sizes`.

    Args:
        counts: number of sites that each image lists, (B,).
        facts: facts of the images, see `crystens.networks.facts.counted`.
        slots: number of slots of the images.
    """
    none = torch.zeros_like(counts)
    elements = facts.get("num_elements", none).clamp(max=_MOST_ELEMENTS)
    places = (counts * (_MOST_ELEMENTS + 1) + elements) * (_MOST_SITES + 1)
    places = places + facts.get("num_sites", none).clamp(max=_MOST_SITES)
    places = 2 * places + facts.get("charge_neutral", none)
    sizes = no_sizes(slots).to(counts.device)
    ones = torch.ones_like(places, dtype=sizes.dtype)
    return sizes.flatten().index_add_(0, places, ones).view_as(sizes)


def draw_sizes(sizes: Tensor, counts: Tensor, generators: Sequence[torch.Generator]) -> dict[str, Tensor]:
    """Return drawn numbers by the names of facts, (B,) each on the CPU, with the frequencies of the counted sizes.

    They are NaN if no counted image lists that number of sites.

    Args:
        sizes: counts of sizes, in the shape of `no_sizes`.
        counts: number of sites that each image lists, (B,).
        generators: random generator of each image.
    """
    seen = sizes.cpu()[counts.cpu()].flatten(1).double().cumsum(dim=1)
    drawn = torch.cat([torch.rand(1, dtype=torch.float64, generator=generator) for generator in generators])
    place = torch.searchsorted(seen.contiguous(), (drawn * seen[:, -1])[:, None], right=True)[:, 0]
    size, neutral = place // 2, place % 2
    numbers = {
        "num_elements": size // (_MOST_SITES + 1),
        "num_sites": size % (_MOST_SITES + 1),
        "charge_neutral": neutral,
    }
    return {name: torch.where(seen[:, -1] > 0, number, torch.nan) for name, number in numbers.items()}
