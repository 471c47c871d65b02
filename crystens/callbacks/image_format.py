"""Checks before training that a model fits the images of the data."""

from __future__ import annotations

import pytorch_lightning as pl


class ImageFormat(pl.Callback):
    """Calls `prepare_for_images` of models that have it, with side, scaling and distance of the training images.

    Models with `learned_properties` also get the scales of properties.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Call the method after the data are set up and a checkpoint's scaling is restored."""
        prepare = getattr(pl_module, "prepare_for_images", None)
        if prepare is not None:
            data = trainer.datamodule  # type: ignore[attr-defined]
            told = {"properties": data.property_scales} if getattr(pl_module, "learned_properties", ()) else {}
            prepare(data.image_side, data.scaling, data.distance, **told)
