"""Exponential moving average (EMA) of weights, with which diffusion models are sampled."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, steps: Tensor, decay: float) -> None:
    """Move averaged weights towards the trained weights.

    After t steps the decay is at most (1 + t) / (10 + t), so that the initial weights of a short run are forgotten. The
    decay is computed from the counter on the device, because with a Python number XLA would compile every step again.

    Args:
        average: a copy of the network.
        network: the trained network; parameters that are not trained do not change in the average.
        steps: (), number of training steps, this one included.
        decay: share of the average that is kept, after enough steps.
    """
    weight = 1 - ((1 + steps) / (10 + steps)).clamp(max=decay)
    for kept, value in zip(average.parameters(), network.parameters(), strict=True):
        if value.requires_grad:
            kept.lerp_(value.to(kept.dtype), weight.to(kept.dtype))
