"""Random numbers of a training step where several processes train one model.

Every process draws from a generator in the same state, that of the run's seed, for the images of all processes, and
keeps those that belong to its own: of W processes the r-th trains on images r, r + W, r + 2 W, ... of each batch of all
(`crystens.data.epoch_order`). So W processes with batches of B images draw what one draws for batches of W B, no two
images share their noise, and a checkpoint's random state is that of all processes.
"""

from __future__ import annotations

from collections.abc import Callable

import pytorch_lightning as pl
from torch import Tensor


def draw_rows(module: pl.LightningModule, rows: int, draw: Callable[[int], Tensor]) -> Tensor:
    """Return `rows` random rows for the images of this process.

    Args:
        module: the model; one without a trainer is alone.
        rows: how many images this process has.
        draw: gives so many rows as it is asked for.
    """
    if not is_one_of_several(module):
        return draw(rows)
    trainer = module.trainer
    return draw(rows * trainer.world_size)[trainer.global_rank :: trainer.world_size]


def is_one_of_several(module: pl.LightningModule) -> bool:
    """Return whether other processes train the same model."""
    return module._trainer is not None and module._trainer.world_size > 1
