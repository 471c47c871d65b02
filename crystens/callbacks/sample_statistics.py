"""Draws and judges a few samples every few epochs, to show during training whether images become crystals."""

from __future__ import annotations

from typing import cast

import pytorch_lightning as pl
import torch

from crystens.decoding import Decoder, read_images
from crystens.errors import CrystensError
from crystens.generator import Sampler
from crystens.metrics.distributions import ks_statistics, reading_values
from crystens.metrics.statistics import STATISTICS, image_statistics
from crystens.orbits.encodings import ImageDecoder, decoder_for

LOGGED = frozenset(f"val/{name}" for name in (*STATISTICS, "decoded_rate", "mean_ks"))


class SampleStatistics(pl.Callback):
    """Logs the statistics of Tables 1 and 2 and the distance to the training data as `val/...`.

    `val/<statistic>` are means over the samples that hold a site; `val/decoded_rate` counts all samples;
    `val/mean_ks` is the mean of the Kolmogorov-Smirnov statistics of cell lengths, angles, space group and atomic
    number against the training data, 1 where no sample holds a site: the best checkpoint is the one of the lowest.

    Args:
        every_n_epochs: interval; the last epoch is always included.
        num_samples: number of samples each time.
        seed: seed of the samples, always the same, so that changes come from the model.
        decoder: turns samples into crystals; by default `decode=auto`.
    """

    def __init__(
        self,
        every_n_epochs: int = 10,
        num_samples: int = 64,
        seed: int = 0,
        decoder: ImageDecoder | None = None,
    ) -> None:
        """Check and store the numbers."""
        if every_n_epochs < 1 or num_samples < 1:
            raise CrystensError(f"{every_n_epochs=} and {num_samples=} must be at least 1")
        self.every_n_epochs = every_n_epochs
        self.num_samples = num_samples
        self.seed = seed
        self.decoder = decoder or Decoder()

    @torch.no_grad()
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sample, judge and log."""
        epoch = trainer.current_epoch + 1
        if epoch % self.every_n_epochs != 0 and epoch != trainer.max_epochs:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        sample = cast(Sampler, pl_module).sample
        images = sample(self.num_samples, torch.Generator().manual_seed(self.seed)).cpu()
        statistics = image_statistics(images, data.scaling, distance=data.distance)
        found = {f"val/{name}": values[values.isfinite()].mean() for name, values in statistics.items()}
        decoder = decoder_for(self.decoder, data.sites)
        decoded = decoder.decode(images, data.scaling)
        found["val/decoded_rate"] = torch.tensor(sum(item.crystal is not None for item in decoded) / len(decoded))
        distances = ks_statistics(
            reading_values(read_images(images, data.scaling, decoder.periodic)), data.image_reference
        )
        found["val/mean_ks"] = torch.tensor(sum(distances.values()) / len(distances))
        # Not only by `log`, which would write them under the number of batches instead of the number of steps.
        for name, value in found.items():
            pl_module.log(name, value.float(), logger=False, prog_bar=name == "val/mean_ks")
        for logger in trainer.loggers:
            values = {name: float(value) for name, value in found.items()}
            logger.log_metrics({**values, "epoch": trainer.current_epoch}, step=trainer.global_step)
