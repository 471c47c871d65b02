"""Stops a run whose loss is not finite, with advice."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from crystens.errors import CrystensError


class FiniteLosses(pl.Callback):
    """Stops training when a loss that a training step returned is NaN or infinite.

    Reading a loss makes the host wait for the device. Therefore losses are summed on the device, and the sum is read
    every `every_n_batches`: a NaN or infinity stays in the sum.

    Args:
        every_n_batches: how often the sum is read.

    Raises:
        CrystensError: at the batch where a sum is not finite.
    """

    def __init__(self, every_n_batches: int = 20) -> None:
        """Check and store the interval."""
        if every_n_batches < 1:
            raise CrystensError(f"{every_n_batches=} must be at least 1")
        self.every_n_batches = every_n_batches
        self._sums: dict[str, Tensor] = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the losses of a batch, and check the sums at the interval."""
        for name, value in (outputs or {}).items():
            if isinstance(value, Tensor):
                self._sums[name] = value.detach().sum() + self._sums.get(name, 0.0)
        if (batch_idx + 1) % self.every_n_batches == 0 or trainer.is_last_batch:
            self._look(trainer)

    def _look(self, trainer: pl.Trainer) -> None:
        """Read the sums, raise if one is not finite, and reset them."""
        sums, self._sums = self._sums, {}
        bad = [name for name, value in sums.items() if not bool(torch.isfinite(value))]
        if bad:
            raise CrystensError(
                f"{' and '.join(bad)} became NaN or infinite by step {trainer.global_step} (epoch "
                f"{trainer.current_epoch}). Check the curve of that loss before it; common causes are a learning "
                "rate that is too high (model.*_optimizer.lr), 16-bit precision (trainer.precision) and gradients "
                "without clipping. The checkpoints written before this step are intact"
            )
