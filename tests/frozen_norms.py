"""A callback for tests, in a module that train.py can import."""

import pytorch_lightning as pl
import torch


class FrozenNorms(pl.Callback):
    """Has batch normalisation use its running averages in training too."""

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        """Freeze."""
        for module in pl_module.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()
