"""A budget of time: the epochs that fit, the learning rate at the end, and the plan in the checkpoint."""

from __future__ import annotations

import functools
import itertools
import logging
import math
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from pytorch_lightning.strategies import SingleDeviceStrategy
from test_diffusion import _model as diffusion_model
from test_edm import images, model, quiet_trainer
from test_train import MODELS, config
from torch.utils.data import DataLoader

from crystens.callbacks.time_budget import TimeBudget, budget_seconds
from crystens.errors import CrystensError
from crystens.training import tasks

BATCHES = 5  # an epoch
RATE = 1e-3
START = 1000.0  # by the clock


class Clock:
    """A clock that batches and ends of epochs move."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


class Work(pl.Callback):
    """Moves a clock, and takes the learning rates down."""

    def __init__(self, clock: Clock, batch: Callable[[int], float] = lambda done: 1.0, epoch: float = 0.0) -> None:
        self.clock, self.batch, self.epoch = clock, batch, epoch
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.clock.now += self.batch(len(self.rates))

    def on_train_epoch_end(self, *_: Any) -> None:
        self.clock.now += self.epoch


def train(
    seconds: float,
    batch: Callable[[int], float] = lambda done: 1.0,
    epoch: float = 0.0,
    replaces_epochs: bool = True,
    resume: Path | None = None,
    callbacks: tuple[pl.Callback, ...] = (),
    **options: Any,
) -> tuple[pl.Trainer, Work, Clock]:
    """Train an EDM on five batches an epoch with a budget."""
    clock = Clock()
    work = Work(clock, batch, epoch)
    budget = TimeBudget(seconds, replaces_epochs, clock)
    trainer = quiet_trainer(callbacks=[work, budget, *callbacks], **{"max_epochs": 2} | options)
    edm = model(warmup_steps=2, optimizer=functools.partial(torch.optim.AdamW, lr=RATE))
    trainer.fit(edm, DataLoader(images(4 * BATCHES), batch_size=4), ckpt_path=resume, weights_only=True)
    return trainer, work, clock


class Save(pl.Callback):
    """Saves a checkpoint at the end of an epoch, where the callbacks of the config save theirs."""

    def __init__(self, path: Path, epoch: int) -> None:
        self.path, self.epoch = path, epoch

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.current_epoch == self.epoch:
            trainer.save_checkpoint(self.path)


def slower(done: int) -> float:
    """Return the seconds of a batch on a machine that others come to use."""
    return 1.0 if done <= 100 else 3.0


def fallen(rates: list[float]) -> bool:
    """Return whether a learning rate has come down to the end of its cosine."""
    last = 0.5 * (1 + math.cos(math.pi * (len(rates) - 1) / len(rates)))
    return rates[-1] <= 1.1 * last * RATE and max(rates) > 0.95 * RATE


def test_training_takes_the_budget_and_ends_with_a_whole_epoch_and_no_learning_rate_left() -> None:
    trainer, work, clock = train(200.0)
    assert trainer.global_step == len(work.rates) == trainer.current_epoch * BATCHES
    assert 190 <= clock.now - START <= 202
    assert fallen(work.rates)


@pytest.mark.parametrize("batch", [slower, lambda done: 3.0 if done <= 40 else 1.0, lambda done: 0.5 + done % 2])
def test_a_machine_that_changes_moves_the_epochs_and_not_the_time(batch: Callable[[int], float]) -> None:
    _, work, clock = train(200.0, batch, epoch=2.0)
    assert 180 <= clock.now - START <= 202
    assert fallen(work.rates)


def test_many_short_epochs_end_with_the_budget() -> None:
    # A hundredth of the batches is more than an epoch: added to each plan, it would put the end off for ever.
    _, _, clock = train(600.0, lambda done: 1.0 if done <= 400 else 2.0, max_steps=1000)
    assert 590 <= clock.now - START <= 608


def test_without_the_correction_the_learning_rate_would_not_have_fallen() -> None:
    _, work, _ = train(200.0, slower)
    unchanged = 0.5 * (1 + math.cos(math.pi * len(work.rates) / 196))  # as planned from the first batches
    assert work.rates[-1] < 0.01 * unchanged * RATE


def test_a_budget_of_few_epochs_ends_within_one() -> None:
    trainer, work, clock = train(17.5)
    assert (len(work.rates), trainer.current_epoch, clock.now - START) == (17, 4, 17)
    trainer, work, clock = train(3.5)
    assert (len(work.rates), clock.now - START) == (4, 4)


def test_max_epochs_limit_max_time_and_not_minutes_and_max_steps_limit_both() -> None:
    assert train(200.0, replaces_epochs=False, max_epochs=7)[0].current_epoch == 7
    assert train(200.0, replaces_epochs=True, max_epochs=7)[0].current_epoch > 35
    trainer, work, _ = train(200.0, replaces_epochs=True, max_steps=33)
    assert trainer.global_step == 33
    assert fallen(work.rates)
    assert train(50.0, replaces_epochs=False, max_epochs=-1)[0].current_epoch >= 9


def test_a_resumed_run_goes_on_with_the_rest_of_its_budget_and_its_plan(tmp_path: Path) -> None:
    path = tmp_path / "half.ckpt"
    whole, all_rates, clock = train(200.0, slower, callbacks=(Save(path, 15),))
    rest, rates, other = train(200.0, lambda done: slower(done + 16 * BATCHES), resume=path)
    assert rates.rates == all_rates.rates[16 * BATCHES :]
    assert (rest.current_epoch, rest.global_step) == (whole.current_epoch, whole.global_step)
    assert other.now - START == clock.now - START - 16 * BATCHES


def test_a_run_that_is_over_goes_on_with_a_longer_budget_and_not_with_its_own(tmp_path: Path) -> None:
    path = tmp_path / "end.ckpt"
    before = train(50.0)[0]
    before.save_checkpoint(path)
    assert train(50.0, resume=path)[0].global_step == before.global_step
    assert train(40.0, resume=path)[0].global_step == before.global_step
    longer, work, clock = train(100.0, resume=path)
    assert 90 <= longer.global_step <= 101
    assert 40 <= clock.now - START <= 56  # with the 45 seconds of before a hundred and a hundredth at most
    assert work.rates[-1] < 0.01 * RATE


def test_a_run_without_a_budget_goes_on_with_one_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "plain.ckpt"
    quiet_trainer(max_epochs=3, callbacks=[Save(path, 2)]).fit(
        model(optimizer=functools.partial(torch.optim.AdamW, lr=RATE)), DataLoader(images(4 * BATCHES), batch_size=4)
    )
    trainer, work, clock = train(100.0, resume=path)
    assert 95 <= clock.now - START <= 101
    assert trainer.global_step == 3 * BATCHES + len(work.rates)


def test_all_processes_have_the_plan_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[dict[str, Any]] = []

    def give(self: SingleDeviceStrategy, plan: Any) -> Any:
        plans.extend([dict(plan)] if isinstance(plan, dict) else [])
        return plan

    def take(self: SingleDeviceStrategy, plan: Any) -> Any:
        return next(waiting) if isinstance(plan, dict) else plan

    monkeypatch.setattr(SingleDeviceStrategy, "broadcast", give)
    first, rates, _ = train(100.0, slower)
    waiting = iter(plans)
    monkeypatch.setattr(SingleDeviceStrategy, "broadcast", take)
    second, other, _ = train(100.0, lambda done: 0.2)  # by its own clock it would train for longer
    assert rates.rates == other.rates
    assert first.global_step == second.global_step
    assert next(waiting, None) is None  # both asked as often, or they would wait for each other


def test_the_log_says_what_is_planned_and_when_that_changes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="crystens")
    train(200.0, slower)
    first, *_, last = (record.message for record in caplog.records if record.name.startswith("crystens"))
    assert first == "planned 39 epochs in all: 3 min 13 s of 3 min 20 s are left, and a batch takes 1 s"
    assert last.startswith("planned 27 epochs in all: ")


@pytest.mark.parametrize("name", MODELS)
def test_every_model_trains_for_the_minutes_of_a_run(tmp_path: Path, monkeypatch, caplog, name: str) -> None:
    caplog.set_level(logging.INFO, logger="crystens")
    ticks = itertools.count(step=30.0)  # a minute and a half for the first three batches, then half of one for each
    monkeypatch.setattr(tasks, "TimeBudget", functools.partial(TimeBudget, clock=lambda: next(ticks)))
    folder = tasks.train(config(tmp_path, name, "minutes=4", "callbacks.last_checkpoint.every_n_epochs=1000"))
    assert any(record.message.startswith("planned ") for record in caplog.records)
    assert OmegaConf.load(folder / "config.yaml").minutes == 4


def test_both_stages_of_the_cascade_train_in_a_budget() -> None:
    clock = Clock()
    cascade = diffusion_model()
    work = Work(clock, lambda done: 1.0 if cascade._steps[1] == 0 else 3.0)
    trainer = quiet_trainer(callbacks=[work, TimeBudget(60.0, clock=clock)])
    trainer.fit(cascade, DataLoader(torch.rand(20, 4, 32, 32), batch_size=4))
    assert 50 <= clock.now - START <= 65
    first, second = cascade._steps
    assert 20 <= first <= 32
    assert 8 <= second <= 12  # of as much time


@pytest.mark.parametrize(
    ("minutes", "max_time", "seconds"),
    [
        (None, None, None),
        (2, None, 120),
        (0.5, None, 30),
        (None, "00:00:05:00", 300),
        (None, "01:02:03:04", 93784),
        (None, {"hours": 1, "minutes": 1}, 3660),
        (None, timedelta(minutes=5), 300),
    ],
)
def test_a_budget_is_minutes_or_max_time(minutes: float | None, max_time: Any, seconds: float | None) -> None:
    assert budget_seconds(minutes, max_time) == seconds


@pytest.mark.parametrize(
    ("minutes", "max_time", "message"),
    [
        (0, None, "minutes must be a positive number of minutes of training, got 0"),
        (-1, None, "got -1"),
        (math.inf, None, "got inf"),
        (5, "00:00:05:00", "minutes=5 and trainer.max_time=00:00:05:00 are two budgets"),
        (None, "5 minutes", "trainer.max_time='5 minutes' is no duration; write DD:HH:MM:SS"),
        (None, "00:00:00:00", "is no duration"),
        (None, {"fortnights": 1}, "is no duration"),
        (None, 5, "trainer.max_time=5 is no duration"),
    ],
)
def test_what_is_no_budget_is_refused(minutes: float | None, max_time: Any, message: str) -> None:
    with pytest.raises(CrystensError, match=re.escape(message)):
        budget_seconds(minutes, max_time)
