"""Noisy images, which `model=edm` and regressors take.

Images in [0, 1] are shifted and scaled to mean 0 and a variance of about 1. Then some cells are multiplied by a scale,
and noise of level sigma is added to cells that hold values: x = scales * (image - 0.5) / 0.25 + sigma * noise.

Source: Karras, Aittala, Aila, Laine, "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS 2022,
Table 1 (normal logarithm of sigma in training). Differs from the source: cells have scales.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from crystens.encoding import CELL_ROWS, HEADER
from crystens.errors import CrystensError
from crystens.models.draws import draw_rows
from crystens.networks.codes.heads import CODED_ROWS
from crystens.scaling import Scaling

MIDDLE, WIDTH = 0.5, 0.25  # image values in [0, 1] become (value - 0.5) / 0.25, of a variance of about 1


def noised(
    module: pl.LightningModule, clean: Tensor, mask: Tensor, mean: float, deviation: float
) -> tuple[Tensor, Tensor]:
    """Return clean images (B, 4, S, S) with noise, and its level sigma in each, (B, 1, 1, 1).

    Args:
        module: the model that is trained, see `draw_rows`.
        clean: scaled images, of a variance of about 1.
        mask: which cells hold values, (B, 1, S, S).
        mean: mean of the logarithm of sigma.
        deviation: standard deviation of the logarithm of sigma.
    """
    level = draw_rows(module, len(clean), lambda rows: torch.randn(rows, 1, 1, 1, device=clean.device))
    sigma = (mean + deviation * level).exp()
    noise = draw_rows(module, len(clean), lambda rows: torch.randn(rows, *clean.shape[1:], device=clean.device))
    return clean + sigma * noise * mask, sigma


def cell_scales(side: int, scales: Sequence[float], device: torch.device) -> Tensor:
    """Return the factor of each cell before noise is added, (S, S).

    Args:
        side: S.
        scales: factors of the rows and columns of elements, of space groups and of Wyckoff positions; others have 1.
        device: device of the factors.
    """
    cells = torch.ones(side, side, device=device)
    for row, scale in zip(CODED_ROWS, scales, strict=True):
        cells[row] = cells[:, row] = scale
    return cells


def coded_rows(network: nn.Module) -> tuple[int, ...]:
    """Return the rows and columns that a network reads as codes."""
    return CODED_ROWS if cast(Any, network).orbits else CODED_ROWS[:1]


def tell_codes(networks: Sequence[nn.Module], scaling: Scaling, scales: Sequence[float]) -> None:
    """Give networks the codes of images, and the scales of their cells.

    Args:
        networks: networks of one kind, with `tell_codes`.
        scaling: scaling of the images.
        scales: scales as in `cell_scales`.

    Raises:
        CrystensError: if the images state numbers, and the networks need codes.
    """
    tables = {row: (codes - MIDDLE) / WIDTH for row, codes in scaling.code_tables().items()}
    if any(row not in tables for row in coded_rows(networks[0])):
        raise CrystensError(
            "this network takes elements and groups as codes, and these images state numbers: give "
            "encoding.atoms=bits and encoding.space_group=bits, or model.network.codes=false"
        )
    for network in networks:
        cast(Any, network).tell_codes(tables, dict(zip(CODED_ROWS, scales, strict=True)))


def count_sites(images: Tensor) -> Tensor:
    """Return the number of sites of clean images (B, 4, S, S), (B,) int64. A site has a value in a row of the cell."""
    return (images[:, 0, CELL_ROWS, HEADER:] > 0).any(dim=1).sum(dim=1)
