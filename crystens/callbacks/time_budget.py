"""A budget of time is a plan: as many epochs as fit, so that the learning rate has fallen when the time is over.

The plan is Lightning's own `max_epochs` and `max_steps`, which models ask for the planned steps
(`trainer.estimated_stepping_batches`). It is made when the first few batches were timed, and made anew after more and
more batches, at least ten times in a run: a machine that becomes slower or faster changes the number of epochs and not
the time. All processes plan after the same batch, and take the plan of the first process.

Time counts from the first batch to the end of training, with the checkpoints and the samples judged on the way, and
without the setup before and the samples after. It is kept in the checkpoint: a run that goes on has what was left of
the budget at its last checkpoint, and its plan.
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

UNPLANNED = 10**6  # epochs: more than fit into any budget, until the first batches were timed
_NOT_TIMED = 3  # first batches, which are slow
_INTERVAL = 0.1  # of the budget, the longest time between two plans
_MARGIN = 0.02  # of the time that is left, kept for what is not foreseen
_OVERRUN = 0.01  # of the plan, that training may be longer to end with a whole epoch
_UNUSED = 0.1  # of the plan, that training may be shorter to end with a whole epoch
_NEWS = 0.05  # change of the plan that is worth a line in the log
_SURE = 0.01  # of the budget, timed for a plan that is worth a line in the log


@dataclass
class _Plan:
    """Time spent and epochs planned, in plain numbers, for the checkpoint.

    Attributes:
        budget: seconds that the plan is for.
        seconds: spent so far.
        mark_seconds: spent when timing began; it begins anew when it has lasted for a tenth of the budget.
        mark_batches: trained on when timing began; -1 before.
        next_batches: number of batches after which the next plan is made; -1 before training starts.
        seconds_per_batch: as last measured, with all that happens between batches; 0 before.
        epochs: planned, of the whole run.
        steps: planned, of the whole run; -1 where the epochs are the end.
        told: planned batches, as the log last said.
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
    """Plans the epochs that fit into a budget of time, and ends training with it.

    Training ends with a whole epoch, unless less than nine tenths of the budget would be used: then within an epoch.

    Args:
        seconds: of the budget.
        replaces_epochs: whether the plan takes the place of the trainer's `max_epochs`; otherwise these stay an upper
            limit. `max_steps` is one always.
        clock: gives the time in seconds.

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
        """Take over the trainer's limits."""
        self._trainer = trainer
        if not self.replaces_epochs and trainer.max_epochs is not None:
            self._most_epochs = trainer.max_epochs
        self._most_steps = trainer.max_steps
        self._follow(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return what was spent, up to now, and the plan."""
        self._count_seconds()
        return asdict(self._plan)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with what is left of the budget, by the plan of before if that is for the same budget."""
        self._plan = _Plan(**state_dict)
        if self._trainer is not None and self._plan.budget == self.seconds:
            self._follow(self._trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock; where the run had another budget before, plan anew."""
        self._now = self._clock()
        done = trainer.current_epoch * int(trainer.num_training_batches)
        if self._plan.next_batches == -1:
            self._plan.next_batches = done + _NOT_TIMED
        elif self._plan.budget != self.seconds and self._plan.seconds_per_batch > 0:
            self._make_plan(trainer, done, says_so=True)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Time batches, and make a new plan when it is time to."""
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
        """Count the seconds since they were last counted."""
        if self._now is not None:
            before, self._now = self._now, self._clock()
            self._plan.seconds += self._now - before

    def _make_plan(self, trainer: pl.Trainer, done: int, says_so: bool) -> None:
        """Plan the end of training from the seconds that a batch takes.

        Args:
            trainer: whose training it is.
            done: batches trained on so far, of the whole run.
            says_so: whether the log says so, if the plan is news.
        """
        plan = self._plan
        plan.budget = self.seconds
        length = int(trainer.num_training_batches)
        left = max(0.0, self.seconds - plan.seconds)
        batches = done + int((1 - _MARGIN) * left / plan.seconds_per_batch)
        plan.epochs, plan.steps = int(batches * (1 + _OVERRUN)) // length, -1
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
        """Have training end as planned, or earlier by limits of its own."""
        trainer.fit_loop.max_epochs = _less(self._plan.epochs, self._most_epochs)
        trainer.fit_loop.epoch_loop.max_steps = _less(self._plan.steps, self._most_steps)


def _less(one: int, other: int) -> int:
    """Return the lesser of two limits, of which -1 is none."""
    return max(one, other) if -1 in (one, other) else min(one, other)


def budget_seconds(minutes: float | None, max_time: Any) -> float | None:
    """Return the seconds of `minutes` or of Lightning's `trainer.max_time`; None where neither is given.

    Args:
        minutes: a positive number or None.
        max_time: days, hours, minutes and seconds as in 00:00:05:00; a mapping such as {minutes: 5}; a timedelta; None.

    Raises:
        CrystensError: if both are given, or one is not a length of time.
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
            f"trainer.max_time={max_time!r} is no length of time; write DD:HH:MM:SS, such as 00:00:05:00, or minutes=5"
        )
    return seconds


def _seconds(max_time: Any) -> float | None:
    """Return the seconds of a length of time as Lightning takes it, None if it is none."""
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
