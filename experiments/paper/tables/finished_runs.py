"""The runs of one data set: which of them are finished, and whether their numbers are comparable.

A run is RUNS/MODEL/seed_K, as `experiments/paper/run.py train` makes them; it is finished when samples/report.html is
there, which is written last. Nothing is left out in silence: unfinished runs and models without a run are named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from crystens.errors import CrystensError
from crystens.metrics.crystal_table import OK, CrystalTable, Row
from crystens.samples.folder import IMAGES, Samples, read_samples

# The paper's models in its order; other models come after them.
MODELS = {"gan": "GAN", "wgan": "WGAN-GP", "diffusion": "diffusion"}


@dataclass(frozen=True)
class FinishedRun:
    """A model trained at a seed, sampled and judged.

    Attributes:
        model: the name of its folder.
        seed: of its training.
        folder: the run folder.
        metrics: its metrics.json.
    """

    model: str
    seed: int
    folder: Path
    metrics: dict[str, Any]

    @property
    def name(self) -> str:
        """MODEL/seed_K."""
        return f"{self.model}/seed_{self.seed}"

    @property
    def made_with(self) -> dict[str, Any]:
        """What its metrics.json says of model, data and decoding."""
        made_with: dict[str, Any] = self.metrics["provenance"]["value"]
        return made_with

    @property
    def num_samples(self) -> int:
        """Number of all samples, failed ones too."""
        return int(self.metrics["num_samples"]["value"])

    @cached_property
    def rows(self) -> list[Row]:
        """The rows of its crystals.csv, one a sample."""
        path = self.folder / "samples" / "crystals.csv"
        rows = CrystalTable(path).rows()
        if len(rows) != self.num_samples:
            raise CrystensError(
                f"{path} has {len(rows)} rows and metrics.json beside it says {self.num_samples} samples; judge them "
                f"again with `python sample.py images={path.parent / IMAGES} out={path.parent}`"
            )
        return rows

    @cached_property
    def samples(self) -> Samples:
        """Its images, with scaling and reference."""
        return read_samples(self.folder / "samples" / IMAGES)

    @property
    def failed(self) -> int:
        """Number of samples that were not decoded."""
        return sum(row["status"] != OK for row in self.rows)


@dataclass(frozen=True)
class RunsOfData:
    """All runs of one data set.

    Attributes:
        finished: in the paper's order of models, then by seed.
        unfinished: names of runs whose samples are not judged yet.
        missing: models of the paper that have no run at all.
    """

    finished: tuple[FinishedRun, ...]
    unfinished: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def models(self) -> dict[str, list[FinishedRun]]:
        """The finished runs by model."""
        models: dict[str, list[FinishedRun]] = {}
        for run in self.finished:
            models.setdefault(run.model, []).append(run)
        return models

    @property
    def told(self) -> list[str]:
        """One line for each model: the seeds that are here; and one for what is not finished or not there."""
        lines = [
            f"{MODELS.get(model, model)}: seed{'s' * (len(runs) > 1)} {', '.join(str(run.seed) for run in runs)}, "
            f"{runs[0].num_samples} samples each, trained for {' / '.join(trained(runs))}"
            for model, runs in self.models.items()
        ]
        if self.unfinished:
            lines.append(f"NOT FINISHED, not in these numbers: {len(self.unfinished)} ({', '.join(self.unfinished)})")
        if self.missing:
            lines.append(f"NO RUN of: {', '.join(MODELS[model] for model in self.missing)}")
        return lines


def trained(runs: Sequence[FinishedRun]) -> list[str]:
    """Return the different lengths of training of runs, in words."""
    return sorted({str(run.made_with["trained"]) for run in runs})


def data_name(run: FinishedRun) -> str:
    """Return what a run's data is, without where it lay."""
    return str(run.made_with["reference"]["name"]).split(" of ")[0]


def find_runs(folder: Path) -> RunsOfData:
    """Return the runs of a data set that belong together.

    Raises:
        CrystensError: if there is no finished run, or two that do not belong together.
    """
    found = []
    for path in folder.glob("*/seed_*"):
        if (match := re.fullmatch(r"seed_(\d+)", path.name)) and path.is_dir():
            found.append((path.parent.name, int(match[1]), path))
    order = [*MODELS, *sorted({model for model, _, _ in found} - set(MODELS))]
    found.sort(key=lambda item: (order.index(item[0]), item[1]))
    finished, unfinished = [], []
    for model, seed, path in found:
        samples = path / "samples"
        if (samples / "report.html").exists():
            finished.append(FinishedRun(model, seed, path, _read_metrics(samples / "metrics.json")))
        else:
            unfinished.append(f"{model}/seed_{seed}")
    if not finished:
        raise CrystensError(
            f"no finished run in {folder} ({len(unfinished)} unfinished); it should hold MODEL/seed_K/samples/report."
            "html, which `python experiments/paper/run.py train` makes"
        )
    check_together(finished)
    missing = tuple(model for model in MODELS if model not in {model for model, _, _ in found})
    return RunsOfData(tuple(finished), tuple(unfinished), missing)


def check_together(runs: Sequence[FinishedRun]) -> None:
    """Check that runs differ in model and seed only, and that none is counted twice.

    Raises:
        CrystensError: names the two runs and what differs.
    """
    first = runs[0]
    for run in runs[1:]:
        for what, value in _what_must_agree(run).items():
            expected = _what_must_agree(first)[what]
            if value != expected:
                raise CrystensError(
                    f"{first.name} and {run.name} do not belong in one table: {what} is {expected} and {value}; "
                    "move one of them elsewhere, or train or judge it again like the other"
                )
    weights: dict[str, FinishedRun] = {}
    for run in runs:
        other = weights.setdefault(str(run.made_with["weights"]), run)
        if other is not run:
            raise CrystensError(
                f"{other.name} and {run.name} are one model (same weights): it would count twice; delete one of them"
            )


def _what_must_agree(run: FinishedRun) -> dict[str, Any]:
    """Return what must be the same in all runs of a table; where the data lay does not matter."""
    made_with = run.made_with
    return {
        "data": {key: value for key, value in made_with["data"].items() if key not in ("path", "cache")},
        "training split": {**made_with["reference"], "name": data_name(run)},
        "max_sites": made_with["max_sites"],
        "decode": made_with["decode"],
        "number of samples": run.num_samples,
        "unit of the pairwise agreement": run.metrics["pairwise_agreement"]["unit"],
    }


def _read_metrics(path: Path) -> dict[str, Any]:
    """Return a metrics.json."""
    try:
        metrics: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise CrystensError(f"{path} cannot be read ({error}); judge its samples again with sample.py") from error
    return metrics
