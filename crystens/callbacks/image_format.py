"""Before training, a model is asked whether it knows the images of the data."""

from __future__ import annotations

import pytorch_lightning as pl


class ImageFormat(pl.Callback):
    """Tells models with a method `prepare_for_images` side, scaling and distance of the training images.

    Those that name `learned_properties` are told the scales of properties too.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Call the method, once the data are set up and a checkpoint's scaling is restored."""
        prepare = getattr(pl_module, "prepare_for_images", None)
        if prepare is not None:
            data = trainer.datamodule  # type: ignore[attr-defined]
            told = {"properties": data.property_scales} if getattr(pl_module, "learned_properties", ()) else {}
            prepare(data.image_side, data.scaling, data.distance, **told)
