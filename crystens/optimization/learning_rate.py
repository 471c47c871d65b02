"""Learning rate schedule: linear warm-up from 0, then optionally a cosine to 0 at the planned end of training."""

from __future__ import annotations

import math

import pytorch_lightning as pl


def planned_rate(trainer: pl.Trainer, step: int, warmup_steps: int, decay: bool) -> float:
    """Return the factor of the learning rate in a step.

    Args:
        trainer: the trainer, for the number of planned steps.
        step: the step, from 0.
        warmup_steps: steps of the warm-up.
        decay: whether the rate then decays.
    """
    risen = min(1.0, (step + 1) / max(1, warmup_steps))
    planned = trainer.estimated_stepping_batches
    if not decay or not math.isfinite(planned):
        return risen
    return risen * 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, planned))))
