"""Training of one network with averaged weights, shared by `model=edm` and `model=regressor`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from crystens.devices.sharding import shard
from crystens.errors import CrystensError
from crystens.optimization.averaging import follow
from crystens.optimization.clipping import clip_gradients
from crystens.optimization.learning_rate import planned_rate
from crystens.scaling import Scaling


class AveragedModule(pl.LightningModule):
    """Trains `network` and keeps its averaged weights in `average_network`, which is used after training.

    Args:
        network: the network, with an attribute `image_side`.
        optimizer: function from named parameters to the optimizer.
        warmup_steps: steps in which the learning rate rises from 0.
        decay: whether the learning rate then decays to 0 at the planned end of training, along a cosine.
        ema_decay: decay of the averaged weights in a step; smaller in the first steps.
        rows: number of rows and columns of an image's header that hold values.

    Raises:
        CrystensError: if a number is out of range.
    """

    training_only = ("network",)  # the averaged weights are used

    steps: Tensor

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[[Iterable[tuple[str, Parameter]]], Optimizer],
        warmup_steps: int,
        decay: bool,
        ema_decay: float,
        rows: int,
    ) -> None:
        super().__init__()
        if not 0 <= ema_decay < 1 or warmup_steps < 0:
            raise CrystensError(f"{ema_decay=} must be at least 0 and less than 1, and {warmup_steps=} not negative")
        self.image_side = cast(int, network.image_side)
        self.network = network
        self.average_network = copy.deepcopy(network).requires_grad_(False)
        self.warmup_steps = warmup_steps
        self.decay = decay
        self.ema_decay = ema_decay
        self.rows = rows
        self._optimizer = optimizer
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def check_images(self, image_side: int, scaling: Scaling) -> None:
        """Raise a CrystensError if images have another side or header than the model expects."""
        if image_side != self.image_side:
            raise CrystensError(
                f"the data's images are {image_side} px and the network's {self.image_side}: leave image_side to "
                "max_sites"
            )
        if scaling.rows != self.rows:
            raise CrystensError(
                f"the data's images hold values in {scaling.rows} rows of the header, the model expects {self.rows}: "
                "leave model.rows to encoding.sites"
            )

    def configure_model(self) -> None:
        """Shard the networks if the strategy does so."""
        shard(self, [self.network, self.average_network])

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return the optimizer with its learning rate schedule."""
        optimizer = self._optimizer(self.network.named_parameters())
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, self._rate), "interval": "step"},
        }

    def _rate(self, step: int) -> float:
        """Return the share of the learning rate in a step."""
        return planned_rate(self.trainer, step, self.warmup_steps, self.decay)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient, also for fused optimizers under mixed precision, which Lightning does not support."""
        mixed = isinstance(self.trainer.precision_plugin, MixedPrecision)
        if (
            mixed
            and optimizer.defaults.get("fused")
            and gradient_clip_val
            and gradient_clip_algorithm in (None, "norm")
        ):
            clip_gradients(self, optimizer, gradient_clip_val)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """Make an optimizer step, count it, and update the averaged weights."""
        super().optimizer_step(*arguments, **options)
        follow(self.average_network, self.network, self.steps.add_(1), self.ema_decay)
