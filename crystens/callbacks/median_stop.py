"""Early stopping of runs of a sweep by a median rule.

A run stops if its metric at an epoch is worse than the median of the other runs at the same epoch. Runs exchange values
through a file in each run folder, so that the rule works with every sweeper and launcher whose jobs share a folder. The
sweeper is NOT informed: a stopped run is sampled and judged, and its value counts as the value of the trial.
"""

from __future__ import annotations

import logging
import math
import statistics
from pathlib import Path

import pytorch_lightning as pl

from crystens.errors import CrystensError

log = logging.getLogger(__name__)

VALUES = "median_stop.csv"


class MedianStop(pl.Callback):
    """Stops a run whose metric is worse than the median of the neighbours, or than a bound.

    Args:
        folder: folder of the run; the neighbours are the other folders in its parent.
        monitor: a metric that an earlier callback logged in the same epoch.
        mode: "min" if less is better, "max" if more is.
        every_n_epochs: interval of the check, the same as that of the metric.
        runs: number of neighbours that must have reached the epoch before a run is stopped.
        bound: runs worse than this are always stopped; None for no bound.

    A value that is not finite is worse than all others.

    Raises:
        CrystensError: if an option is wrong, or the metric was not logged.
    """

    def __init__(
        self,
        folder: str,
        monitor: str,
        mode: str = "min",
        every_n_epochs: int = 10,
        runs: int = 4,
        bound: float | None = None,
    ) -> None:
        """Check and store the options."""
        if mode not in ("min", "max"):
            raise CrystensError(f"{mode=} must be min or max")
        if every_n_epochs < 1 or runs < 1:
            raise CrystensError(f"{every_n_epochs=} and {runs=} must be at least 1")
        self.folder = Path(folder).resolve()
        self.monitor = monitor
        self.mode = mode
        self.every_n_epochs = every_n_epochs
        self.runs = runs
        self.bound = bound

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Publish the value of this run, compare it with the neighbours, and stop if it is worse."""
        epoch = trainer.current_epoch + 1
        if epoch % self.every_n_epochs != 0:
            return
        if self.monitor not in trainer.callback_metrics:
            found = ", ".join(sorted(name for name in trainer.callback_metrics if name.startswith("val/")))
            raise CrystensError(f"median_stop has no metric {self.monitor} at epoch {epoch}; logged are {found}")
        reason = None
        if trainer.is_global_zero:
            value = float(trainer.callback_metrics[self.monitor])
            with (self.folder / VALUES).open("a") as file:
                file.write(f"{epoch},{value!r}\n")
            reason = self._reason(value, epoch)
        reason = trainer.strategy.broadcast(reason)  # other ranks may read newer values of the neighbours
        if reason is not None:
            log.info("stopped after epoch %d: %s", epoch, reason)
            trainer.should_stop = True

    def _reason(self, value: float, epoch: int) -> str | None:
        """Return the reason to stop a run with this value, or None."""
        if self.bound is not None and self._cost(value) > self._cost(self.bound):
            return f"{self.monitor} {value:.4g} is worse than the bound {self.bound:.4g}"
        others = [self._cost(values[epoch]) for values in self._neighbours() if epoch in values]
        if len(others) < self.runs or self._cost(value) <= statistics.median(others):
            return None
        return f"{self.monitor} {value:.4g} is worse than the median of {len(others)} other runs"

    def _cost(self, value: float) -> float:
        """Return a number that is smaller for better values."""
        if not math.isfinite(value):
            return math.inf
        return value if self.mode == "min" else -value

    def _neighbours(self) -> list[dict[int, float]]:
        """Return the values by epoch of each other run."""
        return [_values(path) for path in sorted(self.folder.parent.glob(f"*/{VALUES}")) if path.parent != self.folder]


def _values(path: Path) -> dict[int, float]:
    """Return the values of a file; an incomplete last line, which is being written, is ignored."""
    lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return {int(epoch): float(value) for epoch, value in (line.split(",") for line in lines)}
