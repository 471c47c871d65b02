"""One run, read from its folder: settings, state, metrics, losses. Missing and broken parts are reported in `state`.

The metrics are the entries of metrics.json, and `mean_ks`, the mean of the eight Kolmogorov-Smirnov statistics if all
of them exist.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from crystens.errors import first_line
from crystens.metrics.distributions import QUANTITIES
from crystens.runs.finding import CONFIG, IMAGES, METRICS, SAMPLES, TABLE, find_runs
from crystens.runs.settings import NO_MODEL, Settings, about_settings, config_settings

DONE = "done"

Curve = dict[int, float]

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, where libyaml is installed
_LARGEST = 1e300  # larger numbers do not count as finite
_JUDGED_WHILE_TRAINING = "val/mean_ks"


@dataclass
class Run:
    """A run.

    Attributes:
        folder: the folder of the run.
        name: short name, unique among the runs read together.
        state: "done", or the missing or broken part.
        settings: see `crystens.runs.settings`.
        whole: whether all settings are known, from config.yaml.
        metrics: entries of metrics.json with a number or null as `value`.
        epochs: number of epochs that the model was trained for; None if unknown.
        curves: losses, and mean K-S during training, by name and by epoch counted from 1.
        weights: digest of the model's weights; None if unknown.
        seed: seed of the samples, which also chooses the samples to be drawn as pictures.
        samples: folder with crystals.csv and cifs/, if it exists.
        report: report.html, if it exists.
    """

    folder: Path
    name: str = ""
    state: str = DONE
    settings: Settings = field(default_factory=dict)
    whole: bool = False
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    epochs: int | None = None
    curves: dict[str, Curve] = field(default_factory=dict)
    weights: str | None = None
    seed: int = 0
    samples: Path | None = None
    report: Path | None = None

    @property
    def model(self) -> str:
        """The class of the model, without its module."""
        return str(self.settings.get("model", NO_MODEL)).rsplit(".", maxsplit=1)[-1]

    def value(self, metric: str) -> float | None:
        """Return a metric, None where there is none."""
        entry = self.metrics.get(metric)
        return None if entry is None else entry["value"]


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Return all runs at and below folders.

    Raises:
        CrystensError: if there are none.
    """
    found = find_runs(folders)
    runs = [
        read_run(folder) if reason is None else Run(folder, folder.name, reason) for folder, reason in found.items()
    ]
    paths = [os.path.abspath(run.folder) for run in runs]
    top = os.path.commonpath(paths) if len(set(paths)) > 1 else os.path.dirname(paths[0])
    if any(os.path.relpath(path, top).isdecimal() for path in paths):  # jobs of a sweep: add the sweep to their numbers
        top = os.path.dirname(top)
    for run, path in zip(runs, paths, strict=True):
        relative = os.path.relpath(path, top)
        run.name = os.path.basename(top) if relative == "." else relative
    _name_classes(runs)
    return runs


def read_run(folder: Path) -> Run:
    """Return the run of a folder; any problem becomes its state."""
    run = Run(folder)
    config, config_problem = _read_config(folder / CONFIG)
    is_training = (folder / CONFIG).exists()
    samples = folder / SAMPLES if is_training and not (folder / METRICS).exists() else folder  # a regressor has none
    metrics, about, metrics_problem = _read_metrics(samples / METRICS)
    run.metrics = metrics
    curves_problem = None
    if is_training:
        run.curves, epoch, curves_problem = _read_curves(folder)
        run.epochs = epoch
        run.settings = {"checkpoint": "last"} | config_settings(config or {})
        if about:
            run.settings = about_settings(about) | run.settings
        run.whole = config is not None
    elif about:
        run.settings, run.whole = _sample_settings(about)
    trained = re.match(r"(\d+) epochs", str(about.get("trained", "")))
    outdated = None
    if trained:
        if run.epochs is not None and run.epochs > int(trained.group(1)):
            outdated = f"metrics of epoch {trained.group(1)}, training went on to epoch {run.epochs}"
        run.epochs = int(trained.group(1))
    run.weights = about["weights"] if isinstance(about.get("weights"), str) else None
    run.seed = about["seed"] if isinstance(about.get("seed"), int) else 0
    run.samples = samples if (samples / TABLE).is_file() else None
    run.report = samples / "report.html" if (samples / "report.html").is_file() else None
    state = metrics_problem or outdated
    if state is None and not metrics:
        state = _unfinished(folder, samples, run, config, is_training)
    problems = [problem for problem in (config_problem, state, None if metrics else curves_problem) if problem]
    run.state = "; ".join(problems) or DONE
    return run


def _read_config(path: Path) -> tuple[dict[str, Any] | None, str | None]:
    """Return a config, or the problem with it."""
    if not path.exists():
        return None, None
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        return None, f"{CONFIG} cannot be read: {_reason(error)}"
    if not isinstance(config, dict):
        return None, f"{CONFIG} holds no settings"
    try:
        config_settings(config)
    except RecursionError:  # an anchor within itself
        return None, f"{CONFIG} holds itself"
    return config, None


def _read_metrics(path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, Any], str | None]:
    """Return the metrics, their provenance, and the problem with the file, or None."""
    if not path.exists():
        return {}, {}, None
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        return {}, {}, f"{METRICS} cannot be read: {_reason(error)}"
    about = told.get("provenance") if isinstance(told, dict) else None
    if not isinstance(about, dict) or not isinstance(about.get("value"), dict):
        return {}, {}, f"{METRICS} was not written by crystens: it has no provenance"
    metrics = {name: entry for name, entry in told.items() if _is_number(entry)}
    if not metrics:
        return {}, about["value"], f"{METRICS} holds no metric"
    distances = [metrics.get(f"ks_{name}", {}).get("value") for name in QUANTITIES]
    known = [distance for distance in distances if distance is not None]
    if len(known) == len(QUANTITIES):
        metrics["mean_ks"] = {
            "value": sum(known) / len(known),
            "unit": "1",
            "description": f"mean of the Kolmogorov-Smirnov statistics of {', '.join(QUANTITIES)}",
            "count": metrics["ks_a"].get("count"),
        }
    return metrics, about["value"], None


def _is_number(entry: Any) -> bool:
    """Return whether an entry of metrics.json holds a finite number or null."""
    if not isinstance(entry, dict) or "value" not in entry:
        return False
    value = entry["value"]
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST)


def _sample_settings(about: Mapping[str, Any]) -> tuple[Settings, bool]:
    """Return the settings of samples in a folder of their own, and whether all settings of the model are known.

    metrics.json holds some of them; the run that the samples came from has all, if it is still in its place.
    """
    own = about_settings(about)
    origin, checkpoint = _origin(about.get("source"))
    if checkpoint is not None:
        own["checkpoint"] = checkpoint
    if origin is None:
        return own, False
    config, _ = _read_config(origin / CONFIG)
    settings = config_settings(config or {})
    same = config is not None and all(
        str(settings.get(name)).rsplit(".", maxsplit=1)[-1] == str(own[name]).rsplit(".", maxsplit=1)[-1]
        for name in ("model", "seed", "max_sites")
        if name in own
    )
    if not same:
        return own, False
    told_by_config = {name: value for name, value in settings.items() if name not in ("num_samples", "decode")}
    return own | {name: value for name, value in told_by_config.items() if not name.startswith("decode.")} | {
        name: value for name, value in own.items() if name.startswith(("decode.", "model.")) or name == "checkpoint"
    }, True


def _origin(source: Any) -> tuple[Path | None, str | None]:
    """Return the run folder that samples came from and the name of the checkpoint; None where unknown."""
    for _ in range(3):  # samples may name an image file, which names another one or the checkpoint
        if not isinstance(source, str):
            return None, None
        path = Path(source)
        if path.suffix == ".ckpt":
            folder = path.parents[1] if len(path.parents) > 1 else None
            return (folder if folder and (folder / CONFIG).is_file() else None), path.stem
        if path.name not in IMAGES:
            return None, None
        above = path.parent.parent
        if path.parent.name == SAMPLES and (above / CONFIG).is_file():
            return above, "last"
        source = _read_metrics(path.parent / METRICS)[1].get("source")
    return None, None


def _unfinished(folder: Path, samples: Path, run: Run, config: Mapping[str, Any] | None, is_training: bool) -> str:
    """Return the state of a run without metrics: how far it got."""
    if (samples / IMAGES[0]).exists() or (samples / TABLE).exists():
        return f"sampled, not judged: no {METRICS}"
    if (samples / IMAGES[1]).exists():
        return "no samples yet, sampling"
    if not is_training:
        return f"no metrics: it ended early and wrote only {', '.join(sorted(os.listdir(folder))) or 'nothing'}"
    trainer = (config or {}).get("trainer")
    last = trainer.get("max_epochs") if isinstance(trainer, Mapping) else None
    of = f" of {last}" if isinstance(last, int) and last > 0 else ""
    broken = sorted(name for name, curve in run.curves.items() if curve and not math.isfinite(curve[max(curve)]))
    if broken:
        return f"no samples: {broken[0]} was not finite at epoch {max(run.curves[broken[0]])}{of}"
    if run.epochs is None:
        return "no samples yet, no epoch recorded"
    if (config or {}).get("num_samples") == 0 and run.epochs == last:
        return f"no samples asked for, trained {run.epochs} epochs"
    return f"no samples yet, at epoch {run.epochs}{of}"


def _read_curves(folder: Path) -> tuple[dict[str, Curve], int | None, str | None]:
    """Return the averages of losses over epochs, the number of epochs that ended, and the problem with a file, or None.

    A resumed run has several files. It repeats the interrupted epoch, for which the later file counts.
    """
    curves: dict[str, Curve] = {}
    epochs: int | None = None
    files = sorted(folder.glob("csv/version_*/metrics.csv"), key=lambda path: (len(path.parent.name), path.parent.name))
    for path in files:
        try:
            with path.open(encoding="utf-8", newline="") as file:
                epochs = 0 if epochs is None else epochs
                for name, epoch, value in _logged(csv.reader(file)):
                    if name:
                        curves.setdefault(name, {})[epoch + 1] = value
                    epochs = max(epochs, epoch + bool(name))
        except (OSError, UnicodeDecodeError, ValueError, csv.Error) as error:
            return curves, epochs, f"{path.relative_to(folder)} cannot be read: {_reason(error)}"
    return {name: dict(sorted(curve.items())) for name, curve in curves.items()}, epochs, None


def _logged(rows: Iterator[list[str]]) -> Iterator[tuple[str, int, float]]:
    """Yield the rows of a CSVLogger: the curve (or "" for a step), the epoch counted from 0, and the value."""
    head = next(rows, [])
    if "epoch" not in head:
        return
    place = head.index("epoch")
    columns = [
        (column, name.removesuffix("_epoch").removeprefix("train/"))
        for column, name in enumerate(head)
        if name.endswith("_epoch") or name == _JUDGED_WHILE_TRAINING
    ]
    for row in rows:
        if len(row) != len(head) or not row[place]:
            continue  # a line torn by a kill, or being written now
        epoch = int(float(row[place]))
        yield "", epoch, 0.0
        for column, name in columns:
            if row[column]:
                yield name, epoch, float(row[column])


def _name_classes(runs: Sequence[Run]) -> None:
    """Complete the names of models that are known without their module, from runs that have the full name."""
    names = {str(run.settings["model"]) for run in runs if "model" in run.settings}
    for run in runs:
        model = str(run.settings.get("model", "."))
        full = [name for name in names if name.endswith(f".{model}")]
        if "." not in model and len(full) == 1:
            run.settings["model"] = full[0]


def _reason(error: Exception) -> str:
    """Return the message of an error, in one line."""
    mark = getattr(error, "problem_mark", None)
    where = f" in line {mark.line + 1}" if mark is not None else ""
    text = getattr(error, "problem", None) or getattr(error, "strerror", None) or first_line(error)
    return f"{text}{where}"
