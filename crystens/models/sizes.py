"""How often crystals of each size were trained on, counted as they come and drawn from in sampling.

A size is four numbers: sites that the image lists, elements, sites of the primitive cell, and whether the crystal is
charge-neutral (0 where that is no fact of the model).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_MOST_ELEMENTS, _MOST_SITES = 15, 128  # more are counted as so many


def no_sizes(slots: int) -> Tensor:
    """Return counts of sizes of images with so many slots, all 0: (slots + 1, 16, 129, 2) int32."""
    return torch.zeros(slots + 1, _MOST_ELEMENTS + 1, _MOST_SITES + 1, 2, dtype=torch.int32)


def count_sizes(counts: Tensor, facts: Mapping[str, Tensor], slots: int) -> Tensor:
    """Return how many images have each size, as `no_sizes`.

    Args:
        counts: how many sites each image lists, (B,).
        facts: of the images, see `crystens.networks.facts.counted`.
        slots: of the images.
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
    """Return the numbers of a size, by the names of facts, (B,) each on the CPU, as often as they occur.

    They are NaN where no image that was counted lists so many sites.

    Args:
        sizes: counts, as `no_sizes`.
        counts: how many sites each image lists, (B,).
        generators: of each image.
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
