"""On XLA: execute pending operations between batches."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from crystens.devices.xla import close_graph


class BatchGraphs(pl.Callback):
    """Closes the graph of an XLA device before each training step and at an epoch's end; no effect on other devices.

    Operations after a step (counters, averages, sums of losses; in some batches logging, checks, samples) and the
    encoding of the next images would otherwise join the graph of the next step, and each variant would be compiled with
    the whole step. At an epoch's end this callback runs before others, so that Lightning's averages are one graph, with
    and without sampling in the epoch.
    """

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Close the graph."""
        close_graph(pl_module.device)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the graph."""
        close_graph(pl_module.device)
