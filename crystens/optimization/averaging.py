"""Averaged weights, by which diffusion models are sampled."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, steps: Tensor, decay: float) -> None:
    """Move averaged weights towards the trained ones.

    After t steps the decay is at most (1 + t) / (10 + t): a short run does not average with its first weights. The
    weight comes from the counter on the device: a Python number would have XLA compile every step anew.

    Args:
        average: a copy of the network.
        network: what is trained; its parameters that are not stay as they are.
        steps: (), how often the network was trained, this step included.
        decay: share of the average that is kept, once there were enough steps.
    """
    weight = 1 - ((1 + steps) / (10 + steps)).clamp(max=decay)
    for kept, value in zip(average.parameters(), network.parameters(), strict=True):
        if value.requires_grad:
            kept.lerp_(value.to(kept.dtype), weight.to(kept.dtype))
