"""Random numbers of a training step if several processes train one model.

All processes have generators in the same state. Each process draws for the images of all processes, and keeps the
numbers of its own images. Process r of W trains on the images r, r + W, r + 2 W, ... of each batch
(`crystens.data.epoch_order`). So W processes with batches of B images draw the same numbers as one process with batches
of W B, no two images share their noise, and the random state in a checkpoint is valid for all processes.
"""

from __future__ import annotations

from collections.abc import Callable

import pytorch_lightning as pl
from torch import Tensor


def draw_rows(module: pl.LightningModule, rows: int, draw: Callable[[int], Tensor]) -> Tensor:
    """Return `rows` random rows for the images of this process.

    Args:
        module: the model; without a trainer there is one process.
        rows: number of images of this process.
        draw: returns a given number of random rows.
    """
    if not is_one_of_several(module):
        return draw(rows)
    trainer = module.trainer
    return draw(rows * trainer.world_size)[trainer.global_rank :: trainer.world_size]


def is_one_of_several(module: pl.LightningModule) -> bool:
    """Return whether other processes train the same model."""
    return module._trainer is not None and module._trainer.world_size > 1
