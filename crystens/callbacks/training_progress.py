"""Progress of training: Lightning's bar on a terminal and in a notebook, plain lines elsewhere."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar, RichProgressBar

from crystens.callbacks.time_budget import UNPLANNED
from crystens.processes.progress_bars import PlainLines, shows_bars


def training_progress() -> ProgressBar:
    """Return the progress callback for the standard error of this process."""
    return RichProgressBar(console_kwargs={"stderr": True}) if shows_bars() else TrainingLines()


class TrainingLines(ProgressBar):
    """Plain lines from time to time: finished batches, time left, epoch, and the model's values for progress bars.

    Args:
        lines: writer of the lines; None writes to standard error.
    """

    def __init__(self, lines: PlainLines | None = None) -> None:
        super().__init__()
        self._lines = lines or PlainLines()
        self._enabled = True

    def enable(self) -> None:
        """Write lines."""
        self._enabled = True

    def disable(self) -> None:
        """Write no lines, as in all processes of a run except the first."""
        self._enabled = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin with the batches that are done already."""
        self._show(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a batch."""
        self._show(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End the lines."""
        self._lines.close(failed=False)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Stop the lines after an error."""
        self._lines.close(failed=True)

    def _show(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the number of finished and planned batches, or steps."""
        if not self._enabled:
            return
        done, total = planned_batches(trainer)

        def detail() -> str:
            shown = self.get_metrics(trainer, pl_module)
            values = (f"{name} {value:.3g}" for name, value in shown.items() if isinstance(value, float))
            epochs = f" of {trainer.max_epochs}" if _plans_epochs(trainer) else ""
            return ", ".join([f"epoch {trainer.current_epoch + 1}{epochs}", *values])

        self._lines.show("training", done, total, detail)


def planned_batches(trainer: pl.Trainer) -> tuple[int, int | None]:
    """Return the number of finished and of planned batches, or of steps if `max_steps` ends training first.

    The second is None if no end is planned.
    """
    done = trainer.fit_loop.epoch_loop.total_batch_idx + 1
    ends: list[tuple[int, int | None]] = []
    if _plans_epochs(trainer) and math.isfinite(trainer.num_training_batches):
        ends.append((done, int(trainer.num_training_batches * (trainer.max_epochs or 0))))
    if trainer.max_steps != -1:
        ends.append((trainer.global_step, trainer.max_steps))
    return max(ends, key=lambda end: end[0] / max(end[1] or 1, 1), default=(done, None))


def _plans_epochs(trainer: pl.Trainer) -> bool:
    """Return whether the number of epochs is limited."""
    return trainer.max_epochs is not None and 0 <= trainer.max_epochs < UNPLANNED
