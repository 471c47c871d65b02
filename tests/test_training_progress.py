"""Progress of training where there is no terminal."""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar
from test_edm import images, model
from test_progress_bars import Clock
from torch.utils.data import DataLoader

from crystens.callbacks import training_progress
from crystens.callbacks.time_budget import UNPLANNED
from crystens.callbacks.training_progress import TrainingLines, planned_batches
from crystens.processes.progress_bars import PlainLines


class Hour(pl.Callback):
    """Moves a clock by an hour in each batch."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_batch_start(self, *_: Any) -> None:
        self.clock.now += 3600


def train(**options: Any) -> tuple[pl.Trainer, list[str]]:
    """Train on three batches an epoch, an hour each; return the trainer and the lines written."""
    clock, written = Clock(), []
    callbacks = [Hour(clock), TrainingLines(PlainLines(written.append, clock))]
    trainer = pl.Trainer(
        accelerator="cpu",
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(model(), DataLoader(images(12), batch_size=4))
    return trainer, written


def test_lines_say_batches_time_left_epoch_and_losses() -> None:
    trainer, written = train(max_epochs=2)
    assert trainer.progress_bar_callback is not None, "Lightning adds no bar of its own"
    assert len(written) == 7
    assert written[0].startswith("training: 1 of 6 (17 %), 1 h 0 min, about 5 h 0 min left; epoch 1 of 2, train/loss ")
    assert written[4].startswith("training: 5 of 6 (83 %), 5 h 0 min, about 1 h 0 min left; epoch 2 of 2, train/loss ")
    assert written[6] == "training: 6 of 6 in 6 h 0 min"


def test_steps_count_where_they_end_training() -> None:
    _, written = train(max_epochs=-1, max_steps=4)
    assert written[1].startswith("training: 2 of 4 (50 %), 2 h 0 min, about 2 h 0 min left; epoch 1, train/loss ")
    trainer, _ = train(max_epochs=2, max_steps=600)
    assert planned_batches(trainer) == (6, 6)


def test_without_a_plan_no_time_is_left() -> None:
    _, written = train(max_epochs=UNPLANNED, limit_train_batches=1, max_time="00:00:00:01", min_steps=2)
    assert written[0].startswith("training: 1, 1 h 0 min so far; epoch 1, train/loss ")


def test_a_terminal_has_lightning_s_bar_and_all_else_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_progress, "shows_bars", lambda: True)
    assert isinstance(training_progress.training_progress(), RichProgressBar)
    monkeypatch.setattr(training_progress, "shows_bars", lambda: False)
    assert isinstance(training_progress.training_progress(), TrainingLines)


def test_processes_but_the_first_write_nothing() -> None:
    clock, written = Clock(), []
    lines = TrainingLines(PlainLines(written.append, clock))
    lines.disable()
    trainer = pl.Trainer(
        accelerator="cpu",
        callbacks=[Hour(clock), lines],
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(model(), DataLoader(images(12), batch_size=4))
    assert written == []
