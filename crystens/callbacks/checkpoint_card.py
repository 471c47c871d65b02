"""Adds everything that sampling needs, apart from weights, to every checkpoint."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from crystens.checkpoint import KEY, card


class CheckpointCard(pl.Callback):
    """Writes config, scaling, reference distributions and known orbits into each checkpoint.

    Args:
        config: the resolved config of the run, in plain types.
        pretrained: the checkpoint that training started from, see `crystens.checkpoint`; None for none.
    """

    def __init__(self, config: dict[str, Any], pretrained: dict[str, str] | None = None) -> None:
        """Store the config."""
        self.config = config
        self.pretrained = pretrained

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the entry "crystens" to a checkpoint before it is written."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        checkpoint[KEY] = card(
            self.config, data.representation, data.reference.state_dict(), data.orbits, self.pretrained
        )
