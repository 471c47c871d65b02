"""`runs.html`: all runs of a folder on one self-contained page.

The page loads nothing (`crystens.report.templates`); its only script sorts the tables, and the page works without it.
Links to the report of each run are relative. The markup is `assets/runs.html.j2`; this module computes the values.
"""

from __future__ import annotations

import os
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

from crystens.metrics.distributions import QUANTITIES
from crystens.metrics.statistics import STATISTICS
from crystens.processes.atomic_file import write_whole
from crystens.report.templates import render, script
from crystens.runs.crystals import crystal_rows, crystals_each
from crystens.runs.figures import cluster_plot, colours, group_plot, loss_plots, metric_name, unit_name
from crystens.runs.run import DONE, Run
from crystens.runs.table import DISTANCES, RATES, Table, large_is_good
from crystens.runs.text import mean_and_spread, number

# A run with a smaller share of valid samples gets no bold value: a decoded rate of 100 % says nothing if few are valid.
_VALID_ENOUGH = 0.5

_SYMBOLS = {"alpha": "α", "beta": "β", "gamma": "γ", "space_group": "space\ngroup"}
_SHORT = {
    "cell_length_variance": "cell\nlengths",
    "cell_angle_variance": "cell\nangles",
    "space_group_variance": "space\ngroup",
    "coordinate_variance": "coor-\ndinates",
    "coordinate_agreement": "coor-\ndinate",
    "pairwise_agreement": "pair-\nwise",
    "decoded_rate": "decoded",
    "structural_validity": "valid",
    "unique_formula_rate": "unique",
    "novel_formula_rate": "novel",
    "mean_ks": "mean",
    **{f"ks_{name}": _SYMBOLS.get(name, name) for name in QUANTITIES},
}
_PARTS = (
    ("variance of copies", STATISTICS[:4]),
    ("agreement", STATISTICS[4:]),
    ("shares of all samples", RATES),
    ("Kolmogorov-Smirnov statistic", DISTANCES),
)


def write_page(path: Path, table: Table, title: str, pictures: int | None = None) -> None:
    """Write the page.

    Args:
        path: file to write; replaced at once.
        table: table of the runs.
        title: title of the page.
        pictures: number of crystals drawn for each run; None draws a few, see `crystens.runs.crystals`.

    Raises:
        CrystensError: if the file cannot be written.
    """
    out = path.absolute().parent
    best = {metric: _best(table, metric) for metric in table.metrics}
    parts = _parts(table)
    page = render(
        "runs.html.j2",
        [script("runs.js")],
        title=title,
        table=table,
        done=DONE,
        judged=sum(bool(run.metrics) for run in table.runs),
        models=sorted(Counter(run.model for run in table.runs).items()),
        colours=colours(table.runs),
        parts=parts,
        columns=_columns(table, {part["metrics"][0] for part in parts}),
        is_best=lambda run, metric: best[metric] is not None and _eligible(run) and run.value(metric) == best[metric],
        bold=_bold(any(value is not None for value in best.values())),
        figures=_figures(table),
        drawn=[
            model
            for model in colours(table.runs)
            if any(run.model == model and (run.metrics or run.curves) for run in table.runs)
        ],
        losses=[
            {"head": model, "text": f"losses of {model}", "picture": picture}
            for model, picture in loss_plots(table).items()
        ],
        without_losses=[run.name for run in table.runs if not run.curves],
        crystals=crystal_rows(table, pictures),
        most_crystals=crystals_each(table, pictures),
        link=lambda report: quote(os.path.relpath(report.absolute(), out).replace(os.sep, "/")),
        exact=lambda value: "" if value is None else f"{value:.10g}",
        number=number,
        mean_and_spread=mean_and_spread,
    )
    write_whole(path, page)


def _columns(table: Table, starts: set[str]) -> list[dict[str, Any]]:
    """Return the columns of metrics; `first` marks the first column of each kind."""
    columns = []
    for metric in table.metrics:
        entry = table.entry(metric)
        columns.append(
            {
                "metric": metric,
                "short": _SHORT.get(metric),
                "name": metric_name(metric).replace("\n", " "),
                "unit": unit_name(entry["unit"]),
                "description": entry["description"],
                "first": metric in starts,
            }
        )
    return columns


def _parts(table: Table) -> list[dict[str, Any]]:
    """Return the kinds of metrics, each with its name and its columns."""
    kinds = {metric: next((part for part, names in _PARTS if metric in names), "") for metric in table.metrics}
    return [{"name": kind, "metrics": list(metrics)} for kind, metrics in groupby(table.metrics, kinds.__getitem__)]


def _eligible(run: Run) -> bool:
    """Return whether a run may have the best value: it is done, and enough of its samples are valid, where known."""
    valid = run.value("structural_validity")
    return run.state == DONE and (valid is None or valid >= _VALID_ENOUGH)


def _best(table: Table, metric: str) -> float | None:
    """Return the best value of a metric; None if all runs have the same value, or used different data sets."""
    values = {value for run in table.runs if _eligible(run) and (value := run.value(metric)) is not None}
    if len(values) < 2 or _several_data_sets(table):
        return None
    return max(values) if large_is_good(metric) else min(values)


def _bold(any_best: bool) -> str:
    """Return the sentence that explains bold numbers, empty if there are none."""
    if not any_best:
        return ""
    return (
        f"Bold: the best value of a column among finished runs with at least {_VALID_ENOUGH:.0%} of their samples "
        "structurally valid. "
    )


def _several_data_sets(table: Table) -> bool:
    """Return whether runs were made on more than one data set."""
    return "data" in table.settings or "data.path" in table.settings


def _figures(table: Table) -> list[dict[str, Any]]:
    """Return the figures of metrics, by model and by K, each with its head and a note."""
    shown = table.metrics
    figures = []
    images = [name for name in shown if name in STATISTICS]
    distances = [name for name in shown if name in DISTANCES]
    others = [name for name in shown if name not in images and name not in distances]
    for head, note, metrics, across in (
        (
            "Image statistics",
            "How far the copies of one value in an image differ, and how well coordinates and distances agree; 0 for "
            "the image of a crystal. Measured on the images as the networks gave them.",
            images,
            6,
        ),
        (
            "Validity and novelty" if set(others) <= set(RATES) else "Further metrics",
            "Shares are of all samples, those that failed included.",
            others,
            6,
        ),
        (
            "Distributions",
            "Kolmogorov-Smirnov statistics against the training data of each run: 0 same, 1 disjoint."
            + (" Values of runs on different data sets cannot be compared." if _several_data_sets(table) else ""),
            distances,
            9,
        ),
    ):
        picture = group_plot(table, metrics, across)
        if picture is not None:
            figures.append({"head": head, "note": note, "text": f"{head} of all runs", "picture": picture})
    clusters = cluster_plot(table, [*images, *others, *distances])
    if clusters is not None:
        figures.append(
            {
                "head": "Number of clusters K",
                "note": "Horizontal axis: K of atomic numbers. One line for each K of coordinates. Values are means "
                "over seeds, bars their standard deviation, of samples that were judged at every K. Image statistics "
                "are measured before clustering, so that K does not change them.",
                "text": "metrics over the number of clusters",
                "picture": clusters,
            }
        )
    return figures
