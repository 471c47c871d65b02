"""Figs. 4-6 of the paper from the finished runs of one data set, and a control; see README.md.

python experiments/paper/distributions/run.py RUNS [DATA] --out DIR [--seed 0] [--label TEXT]
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))
sys.path.append(str(Path(__file__).resolve().parents[1] / "tables"))

from distribution_figures import NAMES, STATED, overview, panels
from finished_runs import MODELS, FinishedRun, RunsOfData, data_name, find_runs
from pooling import Spread, spread
from real_crystals import data_of, drawn
from training import read_recipe

from crystens.batch import CrystalBatch
from crystens.errors import CrystensError
from crystens.metrics.crystal_table import OK
from crystens.metrics.distributions import QUANTITIES, Reference, ks_statistics
from crystens.metrics.metrics_file import generated_values

log = logging.getLogger(__name__)

# The paper's figure of each model.
FIGURES = {"gan": "Fig. 4", "wgan": "Fig. 5", "diffusion": "Fig. 6"}
_DRAWS = 20


@dataclass(frozen=True)
class Control:
    """How far real crystals that were not trained on are from those that were: what "as good as real" is.

    Attributes:
        count: crystals of the test split.
        whole: K-S statistics of the whole test split, by name of `NAMES`; a real crystal's stated space group is that
            of its atoms.
        drawn: crystals in a draw: as many as a run has samples, at most `count`.
        draws: K-S statistics of draws from it, by quantity: mean, spread and every value.
    """

    count: int
    whole: dict[str, float]
    drawn: int
    draws: dict[str, Spread]


def control_of(test: CrystalBatch, reference: Reference, number: int, seed: int) -> Control:
    """Return the K-S statistics of a test split against the training split.

    Raises:
        CrystensError: if there is no test split.
    """

    def distances(crystals: CrystalBatch) -> dict[str, float]:
        values = Reference.from_crystals(crystals, reference.name, "test").values
        found = ks_statistics(values, reference)
        return {name: found[f"ks_{name}"] for name in QUANTITIES} | {STATED: found["ks_space_group"]}

    number = min(number, len(test))
    whole = distances(test)
    draws = [distances(drawn(test, number, seed + place)) for place in range(_DRAWS if number < len(test) else 1)]
    spreads = {name: spread({place: draw[name] for place, draw in enumerate(draws)}) for name in NAMES}
    return Control(len(test), whole, number, spreads)


def distances_of(runs: RunsOfData) -> dict[str, dict[str, Spread]]:
    """Return the K-S statistics of every model: by model and name of `NAMES`, a value a seed."""
    return {
        model: {name: spread({run.seed: run.metrics[f"ks_{name}"]["value"] for run in some}) for name in NAMES}
        for model, some in runs.models.items()
    }


def notes(run: FinishedRun, distances: Mapping[str, Spread], control: Control) -> dict[str, str]:
    """Return what stands above each panel: the run's K-S statistic, that of all seeds, and that of real crystals."""
    found = {}
    for name in QUANTITIES:
        cell = distances[name]
        own = cell.values[run.seed]
        text = "no generated value" if own is None else f"K-S {own:.3f}"
        if cell.mean is not None and cell.standard_deviation is not None:
            text += f"; {len(cell.values)} seeds {cell.mean:.3f} ± {cell.standard_deviation:.3f}"
        if name == "space_group":
            text += f"; stated {_cell(distances[STATED])}"
        found[name] = f"{text}\nreal test crystals {control.draws[name].mean:.3f}"
    return found


def table(distances: Mapping[str, Mapping[str, Spread]], control: Control) -> str:
    """Return all K-S statistics in Markdown."""
    heads = ["quantity", *(MODELS.get(model, model) for model in distances)]
    apart = control.drawn < control.count
    heads += [f"real test, {control.drawn} at a time"] * apart + [f"real test, all {control.count}"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in NAMES:
        cells = [_cell(found[name]) for found in distances.values()]
        cells += [_cell(control.draws[name])] * apart + [f"{control.whole[name]:.3f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_figures(folder: Path, out: Path, seed: int, data: Path | None, label: str | None) -> str:
    """Write a figure of each model, the overview, distributions.json and distributions.md; return the last.

    Args:
        folder: the runs of one data set.
        out: where the figures go.
        seed: of the runs that are drawn; all seeds are in the numbers.
        data: where the data is; None for where the runs found it.
        label: what is said of the size of the models; None for what recipes.yaml says of the folder's name.

    Raises:
        CrystensError: if runs are missing or do not belong together.
    """
    runs = find_runs(folder)
    shown = [run for run in runs.finished if run.seed == seed]
    if not shown:
        raise CrystensError(f"no finished run of seed {seed} in {folder}; there are {_names(runs)}")
    label = read_recipe(folder.resolve().name)["label"] if label is None else label
    first = runs.finished[0]
    reference = first.samples.reference
    control = control_of(data_of(first, data).test_crystals, reference, first.num_samples, seed)
    distances = distances_of(runs)
    out.mkdir(parents=True, exist_ok=True)
    size = f"{label}, {data_name(first)}, {first.num_samples} samples"
    told = list(runs.told)
    for run in shown:
        title = (
            f"{MODELS.get(run.model, run.model)} (the paper's {FIGURES[run.model]})"
            if run.model in FIGURES
            else (run.model)
        )
        picture = panels(
            generated_values(run.rows) | {STATED: _stated(run)},
            reference,
            notes(run, distances[run.model], control),
            title,
            f"{size}, {run.failed} of them not decoded; seed {seed}",
        )
        (out / f"{run.model}.png").write_bytes(picture)
    absent = [model for model in runs.models if model not in {run.model for run in shown}]
    if absent:
        told.append(f"NO FIGURE of {', '.join(MODELS.get(model, model) for model in absent)}: no run of seed {seed}")
    values = {
        MODELS.get(model, model): {name: cell.values for name, cell in found.items()}
        for model, found in distances.items()
    }
    means = {name: float(np.mean(list(control.draws[name].values.values()))) for name in NAMES}
    (out / "overview.png").write_bytes(overview(values, means, f"{size}; a point is a seed"))
    page = "\n\n".join(
        [
            f"## {data_name(first)}: {reference.count} training crystals",
            f"Size: {label}. Kolmogorov-Smirnov statistics against the training split, 0 the same and 1 disjoint; mean "
            "over seeds ± standard deviation between them. space_group is found in the decoded atoms, "
            f"{STATED} is what the image states. {_told(control)}",
            "\n".join(f"- {line}" for line in told),
            table(distances, control),
            *(f"![{MODELS.get(run.model, run.model)}]({run.model}.png)" for run in shown),
            "![all K-S statistics](overview.png)",
        ]
    )
    about = {"label": label, "unfinished": list(runs.unfinished), "models_without_a_run": list(runs.missing)}
    plain = {model: {name: asdict(cell) for name, cell in found.items()} for model, found in distances.items()}
    text = json.dumps({"about": about, "ks": plain, "real_test": asdict(control)}, indent=1, allow_nan=False)
    (out / "distributions.json").write_text(text + "\n", encoding="utf-8")
    (out / "distributions.md").write_text(page + "\n", encoding="utf-8")
    return page + "\n"


def _stated(run: FinishedRun) -> np.ndarray:
    """Return the space groups that the images of decoded samples state."""
    found = [row["generated_space_group"] for row in run.rows if row["status"] == OK]
    return np.array([np.nan if group is None else group for group in found], dtype=np.float64)


def _told(control: Control) -> str:
    """Return which real crystals the control is made of."""
    if control.drawn == control.count:
        return f"The real test split has {control.count} crystals: all of them are compared."
    return (
        f"Of {control.count} real test crystals {control.drawn}, as many as a run has samples, are drawn "
        f"{len(control.draws['a'].values)} times (mean ± standard deviation), and all of them compared."
    )


def _cell(cell: Spread) -> str:
    """Return the text of a mean and spread."""
    if cell.mean is None:
        return "none"
    return f"{cell.mean:.3f}" + ("" if cell.standard_deviation is None else f" ± {cell.standard_deviation:.3f}")


def _names(runs: RunsOfData) -> str:
    """Return the names of all finished runs."""
    return ", ".join(run.name for run in runs.finished)


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, help="folder of one data set's runs, MODEL/seed_K")
    parser.add_argument("data", type=Path, nargs="?", help="where the data is; by default where the runs found it")
    parser.add_argument("--out", type=Path, required=True, help="folder of the figures")
    parser.add_argument("--seed", type=int, default=0, help="the runs that are drawn, and which real crystals")
    parser.add_argument("--label", help="what the models are; by default what recipes.yaml says of the folder's name")
    return parser.parse_intermixed_args()


def main() -> int:
    """Run the command line and return its exit status."""
    options = _parsed()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    try:
        sys.stdout.write(write_figures(options.runs, options.out, options.seed, options.data, options.label))
    except CrystensError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
