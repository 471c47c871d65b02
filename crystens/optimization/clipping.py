"""Gradient clipping by norm, for all precisions."""

from __future__ import annotations

import pytorch_lightning as pl
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer


def clip_gradients(module: pl.LightningModule, optimizer: Optimizer, largest: float) -> None:
    """Scale the gradient of an optimizer's parameters down to the norm `largest` if it is larger.

    Under 16-mixed, Lightning scales losses so that no gradient vanishes in float16, and unscales gradients in the
    optimizer step. Under manual optimization that comes after clipping, so that the bound is scaled here too.
    Lightning's own clipping ignores this, and does not support fused optimizers under mixed precision.
    """
    scaler = None if module._trainer is None else getattr(module.trainer.precision_plugin, "scaler", None)
    if scaler is not None:
        largest *= scaler.get_scale()
    clip_grad_norm_([parameter for group in optimizer.param_groups for parameter in group["params"]], largest)
