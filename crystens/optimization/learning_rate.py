"""The plan of a learning rate: it rises from 0, and may fall along a cosine to 0 at the planned end of training."""

from __future__ import annotations

import math

import pytorch_lightning as pl


def planned_rate(trainer: pl.Trainer, step: int, warmup_steps: int, decay: bool) -> float:
    """Return the share of the learning rate in a step.

    Args:
        trainer: knows how many steps are planned.
        step: from 0.
        warmup_steps: in which the rate rises.
        decay: whether it falls then.
    """
    risen = min(1.0, (step + 1) / max(1, warmup_steps))
    planned = trainer.estimated_stepping_batches
    if not decay or not math.isfinite(planned):
        return risen
    return risen * 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, planned))))
