"""One trained network and its averaged weights: the training that `model=edm` and `model=regressor` have in common."""

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
    """Trains `network`; what it learned is used through `average_network`.

    Args:
        network: has `image_side`.
        optimizer: makes the optimizer of the network's named parameters.
        warmup_steps: steps in which the learning rate rises from 0.
        decay: whether the learning rate then falls to 0 at the planned end of training, along a cosine.
        ema_decay: decay of the averaged weights in a step; smaller in the first steps.
        rows: how many rows and columns of an image's header hold values.

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
        """Divide the networks among the devices where the strategy says so."""
        shard(self, [self.network, self.average_network])

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return the optimizer with the plan of its learning rate."""
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
        """Bound the gradient, of fused optimizers under mixed precision too, for which Lightning has no clipping."""
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
        """Take a step of the optimizer, count it and move the averaged weights."""
        super().optimizer_step(*arguments, **options)
        follow(self.average_network, self.network, self.steps.add_(1), self.ema_decay)
