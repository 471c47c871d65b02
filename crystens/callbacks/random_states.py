"""Random states in the checkpoint, so that a resumed run draws the same numbers as an uninterrupted run.

Lightning saves weights, optimizers and loops, but no random states. Checkpoints are written at the ends of epochs, and
the order of the training data depends on seed and epoch only, so that only the states of the global generators are
missing.

A new run begins training with freshly seeded generators, whatever was drawn before (initial weights). Lightning does
the same if it starts several processes, and one process must draw the same numbers as several.

The state of an XLA device's generator cannot be saved (see `crystens.devices.xla.seed_device`). It is seeded in every
epoch from the seed of torch's generator, the epoch and the rank.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from crystens.devices.xla import seed_device


class RandomStates(pl.Callback):
    """Saves the states of Python's, NumPy's and torch's global generators and restores them on resume; seeds XLA's."""

    def __init__(self) -> None:
        """Start without states to restore."""
        self._restored: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the states in types that torch loads with `weights_only`."""
        kind, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002 (libraries use the global one)
        state = {
            "python": random.getstate(),
            "numpy": (kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss),
            "torch": torch.get_rng_state(),
        }
        if torch.cuda.is_available():
            state["cuda"] = torch.cuda.get_rng_state_all()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Store the states until training starts, because setup still draws random numbers."""
        self._restored = state_dict

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the states, or seed the generators, just before the first batch."""
        if self._restored is None:
            seed = torch.initial_seed()
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002 (libraries use the global one)
            torch.manual_seed(seed)
            return
        state, self._restored = self._restored, None
        version, words, gauss = state["python"]
        random.setstate((version, tuple(words), gauss))
        kind, keys, position, has_gauss, cached = state["numpy"]
        np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
        torch.set_rng_state(state["torch"].cpu())
        if "cuda" in state and len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([part.cpu() for part in state["cuda"]])

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed the XLA device; no effect on other devices."""
        seed_device(pl_module.device, [torch.initial_seed() % 2**64, trainer.current_epoch, trainer.global_rank])
