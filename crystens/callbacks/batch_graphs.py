"""On XLA, what a batch leaves to be done is run before the next batch trains."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from crystens.devices.xla import close_graph


class BatchGraphs(pl.Callback):
    """Closes the graph of an XLA device before each training step and at an epoch's end; nothing on any other.

    The work after a step (counts, averages, sums of losses, and what only some batches do: logging, checks, samples)
    and the encoding of the next images would otherwise become part of the next step's graph, and each of its variants
    would have the whole step compiled anew. At an epoch's end it goes before the other callbacks, so that the averages
    that Lightning then makes are one graph, whether an epoch is sampled or not.
    """

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Close the graph."""
        close_graph(pl_module.device)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the graph."""
        close_graph(pl_module.device)
