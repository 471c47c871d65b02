"""Time budget of training: plans the number of epochs that fit, so that the learning rate decays within the budget.

The plan sets Lightning's `max_epochs` and `max_steps`, from which models get the planned steps
(`trainer.estimated_stepping_batches`). It is made after the first few batches and updated at growing intervals, at
least ten times in a run: if the machine becomes slower or faster, the number of epochs changes and not the time. All
processes plan after the same batch, and use the plan of the first process.

Time counts from the first batch to the end of training, including checkpoints and samples during training, without
setup and final samples. The checkpoint holds the plan and the time spent: a resumed run has the rest of the budget.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl

from crystens.errors import CrystensError
from crystens.processes.progress_bars import spoken

log = logging.getLogger(__name__)

UNPLANNED = 10**6  # epochs: more than any budget allows, used before the first plan
_NOT_TIMED = 3  # first batches, which are slow
_INTERVAL = 0.1  # longest time between two plans, as a share of the budget
_MARGIN = 0.02  # reserve, as a share of the remaining time
_OVERRUN = 0.01  # share of the budget by which training may be longer, to end with a complete epoch
_UNUSED = 0.1  # share of the plan by which training may be shorter, to end with a complete epoch
_NEWS = 0.05  # relative change of the plan that is logged
_SURE = 0.01  # share of the budget that must be timed before a plan is logged


@dataclass
class _Plan:
    """Time spent and epochs planned, in plain numbers, for the checkpoint.

    Attributes:
        budget: the budget, seconds.
        seconds: seconds spent so far.
        mark_seconds: seconds spent when timing began; timing restarts after each tenth of the budget.
        mark_batches: number of batches when timing began; -1 before.
        next_batches: number of batches at the next plan; -1 before training starts.
        seconds_per_batch: last measurement, including all work between batches; 0 before.
        epochs: planned epochs of the whole run.
        steps: planned steps of the whole run; -1 if the epochs decide.
        told: planned batches in the last log message.
    """

    budget: float
    seconds: float = 0.0
    mark_seconds: float = 0.0
    mark_batches: int = -1
    next_batches: int = -1
    seconds_per_batch: float = 0.0
    epochs: int = UNPLANNED
    steps: int = -1
    told: int = 0


class TimeBudget(pl.Callback):
    """Plans the epochs that fit into a time budget, and ends training within it.

    Training ends with a complete epoch, unless that would use less than nine tenths of the budget.

    Args:
        seconds: the budget, seconds.
        replaces_epochs: whether the plan replaces the trainer's `max_epochs`, which is an upper limit otherwise.
            `max_steps` always is an upper limit.
        clock: returns the time in seconds.

    Raises:
        CrystensError: if the budget is not positive and finite.
    """

    def __init__(
        self, seconds: float, replaces_epochs: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if not 0 < seconds < math.inf:
            raise CrystensError(f"a budget of {seconds!r} seconds must be above 0 and finite")
        self.seconds = float(seconds)
        self.replaces_epochs = replaces_epochs
        self._clock = clock
        self._plan = _Plan(self.seconds)
        self._now: float | None = None  # by the clock, when seconds were last counted; None while none are
        self._most_epochs, self._most_steps = -1, -1
        self._trainer: pl.Trainer | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Store the trainer's limits."""
        self._trainer = trainer
        if not self.replaces_epochs and trainer.max_epochs is not None:
            self._most_epochs = trainer.max_epochs
        self._most_steps = trainer.max_steps
        self._follow(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the time spent so far, and the plan."""
        self._count_seconds()
        return asdict(self._plan)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the time spent, and the plan if the budget is the same."""
        self._plan = _Plan(**state_dict)
        if self._trainer is not None and self._plan.budget == self.seconds:
            self._follow(self._trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock, and make a new plan if the budget has changed."""
        self._now = self._clock()
        done = trainer.current_epoch * int(trainer.num_training_batches)
        if self._plan.next_batches == -1:
            self._plan.next_batches = done + _NOT_TIMED
        elif self._plan.budget != self.seconds and self._plan.seconds_per_batch > 0:
            self._make_plan(trainer, done, says_so=True)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Time batches, and update the plan when it is due."""
        done = trainer.current_epoch * int(trainer.num_training_batches) + batch_idx + 1
        if done < self._plan.next_batches:
            return
        self._count_seconds()
        found: dict[str, Any] = trainer.strategy.broadcast(asdict(self._plan))
        self._plan = plan = _Plan(**found)
        begins = plan.mark_batches == -1
        timed, seconds = done - plan.mark_batches, plan.seconds - plan.mark_seconds
        if not begins and seconds > 0:
            plan.seconds_per_batch = seconds / timed
            self._make_plan(trainer, done, says_so=seconds > _SURE * self.seconds)
            until = min(_INTERVAL * self.seconds, (self.seconds - plan.seconds) / 2) / plan.seconds_per_batch
            plan.next_batches = done + max(1, min(int(until), timed))
        else:
            plan.next_batches = done + 1
        if begins or seconds >= _INTERVAL * self.seconds:
            plan.mark_seconds, plan.mark_batches = plan.seconds, done

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock."""
        self._count_seconds()
        self._now = None

    def _count_seconds(self) -> None:
        """Add the seconds since the last call."""
        if self._now is not None:
            before, self._now = self._now, self._clock()
            self._plan.seconds += self._now - before

    def _make_plan(self, trainer: pl.Trainer, done: int, says_so: bool) -> None:
        """Plan the end of training from the time of a batch.

        Args:
            trainer: the trainer.
            done: number of batches so far, in the whole run.
            says_so: whether to log the plan if it has changed.
        """
        plan = self._plan
        plan.budget = self.seconds
        length = int(trainer.num_training_batches)
        left = max(0.0, self.seconds - plan.seconds)
        batches = done + int((1 - _MARGIN) * left / plan.seconds_per_batch)
        # Of the budget and not of what is planned now: plan after plan, short epochs would be added without end.
        over = max(0.0, (1 + _OVERRUN) * self.seconds - max(self.seconds, plan.seconds))
        plan.epochs, plan.steps = (batches + int(over / plan.seconds_per_batch)) // length, -1
        if plan.epochs <= trainer.current_epoch or batches - plan.epochs * length > _UNUSED * batches:
            plan.epochs = max(math.ceil(batches / length), trainer.current_epoch + 1)
            plan.steps = trainer.global_step + round((batches - done) * trainer.global_step / max(done, 1))
        self._follow(trainer)
        if says_so and abs(batches - plan.told) > _NEWS * plan.told:
            plan.told = batches
            by_steps = trainer.max_steps != -1 and trainer.estimated_stepping_batches == trainer.max_steps
            log.info(
                "planned %s in all: %s of %s are left, and a batch takes %.3g s",
                f"{trainer.max_steps} steps" if by_steps else f"{trainer.max_epochs} epochs",
                spoken(left),
                spoken(self.seconds),
                plan.seconds_per_batch,
            )

    def _follow(self, trainer: pl.Trainer) -> None:
        """Set the trainer's limits to the plan, or to the user's limits if these are lower."""
        trainer.fit_loop.max_epochs = _less(self._plan.epochs, self._most_epochs)
        trainer.fit_loop.epoch_loop.max_steps = _less(self._plan.steps, self._most_steps)


def _less(one: int, other: int) -> int:
    """Return the smaller of two limits; -1 is no limit."""
    return max(one, other) if -1 in (one, other) else min(one, other)


def budget_seconds(minutes: float | None, max_time: Any) -> float | None:
    """Return the seconds of `minutes` or of Lightning's `trainer.max_time`; None if neither is given.

    Args:
        minutes: a positive number or None.
        max_time: days, hours, minutes and seconds as in 00:00:05:00; a mapping such as {minutes: 5}; a timedelta; None.

    Raises:
        CrystensError: if both are given, or one is no duration.
    """
    if minutes is not None and max_time is not None:
        raise CrystensError(f"minutes={minutes} and trainer.max_time={max_time} are two budgets; give one of them")
    if minutes is not None:
        if not 0 < minutes < math.inf:
            raise CrystensError(f"minutes must be a positive number of minutes of training, got {minutes!r}")
        return 60.0 * minutes
    if max_time is None:
        return None
    seconds = _seconds(max_time)
    if seconds is None or seconds <= 0:
        raise CrystensError(
            f"trainer.max_time={max_time!r} is no duration; write DD:HH:MM:SS, such as 00:00:05:00, or minutes=5"
        )
    return seconds


def _seconds(max_time: Any) -> float | None:
    """Return the seconds of a duration in Lightning's formats, None if it is no duration."""
    if isinstance(max_time, timedelta):
        return max_time.total_seconds()
    if isinstance(max_time, Mapping):
        try:
            return timedelta(**max_time).total_seconds()
        except TypeError:
            return None
    found = re.fullmatch(r"(\d+):(\d\d):(\d\d):(\d\d)", str(max_time).strip())
    if found is None:
        return None
    days, hours, minutes, seconds = map(int, found.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()
