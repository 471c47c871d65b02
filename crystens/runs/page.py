"""`runs.html`: all runs of a folder on one page that needs nothing beside itself.

Pictures are inlined and nothing is loaded; a few lines of script, which may be left out, sort the tables. Links go to
the report of each run, relative to the page.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path

from crystens.atomic_file import write_whole
from crystens.metrics.distributions import QUANTITIES
from crystens.metrics.statistics import STATISTICS
from crystens.runs.crystals import crystal_rows
from crystens.runs.figures import cluster_plot, colours, group_plot, loss_plots, metric_name, unit_name
from crystens.runs.markup import inline_image, model_dot, named_run
from crystens.runs.run import DONE
from crystens.runs.table import DISTANCES, RATES, Table, large_is_good
from crystens.runs.text import mean_and_spread, number

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; color: #1f2933; background: #f5f6f8;
  margin: 0; }
main { max-width: 1800px; margin: 0 auto; padding: 1.5rem 2rem 4rem; background: #fff; }
h1 { font-size: 1.7rem; margin: 0.5rem 0 1rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 0.6rem; padding-bottom: 0.25rem; border-bottom: 1px solid #d9dee4; }
h3 { font-size: 0.95rem; margin: 1.2rem 0 0.3rem; }
h3 span { font-weight: 400; color: #52606d; }
a { color: #0b5cad; }
.note { color: #52606d; font-size: 0.9rem; max-width: 75em; }
.statement { background: #eef4fa; border-left: 4px solid #0b5cad; padding: 0.6rem 1.2rem; }
.statement p { margin: 0.2rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.8rem; }
th, td { text-align: left; padding: 0.3rem 0.45rem; border-bottom: 1px solid #e4e7eb; vertical-align: top; }
th { color: #52606d; font-weight: 600; vertical-align: bottom; line-height: 1.25; }
th.part { text-align: left; color: #1f2933; border-left: 1px solid #d9dee4; }
th small { font-weight: 400; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.name { white-space: nowrap; }
.state { color: #9a3412; padding-left: 1.15em; overflow-wrap: anywhere; }
td.first, th.first { border-left: 1px solid #d9dee4; }
.wide td:first-child, .wide thead th:first-child { position: sticky; left: 0; background: #fff; }
td.best { font-weight: 700; }
.wide tr.unfinished td { background: #fff7ed; }
th[data-sort] { cursor: pointer; }
.model { display: inline-block; width: 0.75em; height: 0.75em; border-radius: 50%; margin-right: 0.4em; }
img { max-width: 100%; }
.crystals { display: grid; grid-template-columns: repeat(auto-fill, minmax(155px, 1fr)); gap: 0.6rem; }
figure { margin: 0; padding: 0.3rem; border: 1px solid #e4e7eb; border-radius: 6px; text-align: center; }
figcaption { font-size: 0.78rem; line-height: 1.3; overflow-wrap: anywhere; }
""".strip()

# Sorts the rows of a table by the column whose head is clicked; the second click turns the order around.
_SCRIPT = """
for (const head of document.querySelectorAll("th[data-sort]")) {
  head.addEventListener("click", () => {
    const body = head.closest("table").tBodies[0];
    const place = Number(head.dataset.sort);
    const sign = head.dataset.sign === "1" ? -1 : 1;
    head.dataset.sign = String(sign);
    const value = (row) => row.cells[place].dataset.value ?? row.cells[place].textContent;
    const order = (first, second) => {
      const [a, b] = [value(first), value(second)];
      if (a === "" || b === "") return (a === "") - (b === "");
      return sign * (isNaN(a) || isNaN(b) ? a.localeCompare(b, undefined, {numeric: true}) : a - b);
    };
    body.append(...[...body.rows].sort(order));
  });
}
""".strip()

_SYMBOLS = {"alpha": "α", "beta": "β", "gamma": "γ", "space_group": "space<br>group"}
_SHORT = {
    "cell_length_variance": "cell<br>lengths",
    "cell_angle_variance": "cell<br>angles",
    "space_group_variance": "space<br>group",
    "coordinate_variance": "coor-<br>dinates",
    "coordinate_agreement": "coor-<br>dinate",
    "pairwise_agreement": "pair-<br>wise",
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
        table: of the runs.
        title: of the page.
        pictures: crystals drawn of each run; None draws a few, see `crystens.runs.crystals`.

    Raises:
        CrystensError: if the file cannot be written.
    """
    out = path.absolute().parent
    parts = [
        _statement(table),
        _runs_table(table, out),
        _groups_table(table),
        _metrics_figures(table),
        _losses(table),
        crystal_rows(table, out, pictures),
        _meanings(table),
    ]
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        f"style-src 'unsafe-inline'; script-src 'sha256-{digest}'\">\n"
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f"<style>\n{_STYLE}\n</style>\n</head>\n<body>\n<main>\n<h1>{escape(title)}</h1>\n"
        + "\n".join(part for part in parts if part)
        + f"\n</main>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )
    write_whole(path, page)


def _statement(table: Table) -> str:
    """Return how many runs there are and what becomes of those that are not done."""
    judged = sum(bool(run.metrics) for run in table.runs)
    models = Counter(run.model for run in table.runs)
    told = ", ".join(f"{count} {escape(model)}" for model, count in sorted(models.items()))
    lines = [f"{_counted(len(table.runs), 'run')} ({told}); {judged} with metrics."]
    if judged < len(table.runs):
        lines.append(f"{len(table.runs) - judged} without: the reason stands below the name.")
    return '<div class="statement">' + "".join(f"<p>{line}</p>" for line in lines) + "</div>"


def _counted(count: int, noun: str) -> str:
    """Return a number of things."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _runs_table(table: Table, out: Path) -> str:
    """Return one line a run."""
    own = colours(table.runs)
    names = list(table.settings)
    heads = ["run", "epochs", *(_breakable(table.settings[name]) for name in names)]
    lines = []
    best = {metric: _best(table, metric) for metric in table.metrics}
    bold = "Bold: the best value of a column. " if any(value is not None for value in best.values()) else ""
    for run in table.runs:
        state = "" if run.state == DONE else f'<div class="state">{escape(run.state)}</div>'
        name = f'<span class="name">{named_run(run, own[run.model], out)}</span>'
        cells = [f'<td data-value="{escape(run.name)}">{name}{state}</td>']
        cells.append(_cell(run.epochs))
        cells += [f"<td>{escape(table.setting(run, name))}</td>" for name in names]
        for metric in table.metrics:
            value = run.value(metric)
            cells.append(_cell(value, metric in _starts(table), value is not None and value == best[metric]))
        row = "<tr>" if run.state == DONE else '<tr class="unfinished">'
        lines.append(f"{row}{''.join(cells)}</tr>")
    return (
        "<h2>Runs</h2>\n"
        '<p class="note">The name of a run leads to its own report. Settings are those in which runs differ. Click on '
        f"a head to sort. {bold}What the columns mean stands at the end.</p>\n"
        f'<div class="wide"><table>\n{_heads(table, heads)}\n<tbody>\n' + "\n".join(lines) + "\n</tbody></table></div>"
    )


def _groups_table(table: Table) -> str:
    """Return one line a group of runs that differ by seed only."""
    groups = table.summarised()
    if not groups:
        return ""
    own = colours(table.runs)
    lines = []
    for group in groups:
        name = model_dot(own[group.model]) + escape(group.label)
        cells = [f'<td class="name" data-value="{escape(group.label)}">{name}</td>']
        cells.append(f'<td class="number">{len(group.counted)}</td>')
        if group.problem:
            cells.append(f'<td class="first" colspan="{len(table.metrics)}">{escape(group.problem)}</td>')
        else:
            for metric in table.metrics:
                first = " first" if metric in _starts(table) else ""
                mean = group.mean(metric)
                value = "" if mean is None else f"{mean:.10g}"
                text = mean_and_spread(group, metric).replace(" ± ", "<br>± ")
                cells.append(f'<td class="number{first}" data-value="{value}">{text}</td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<h2>Runs together</h2>\n<p class="note">Runs that differ in {escape(table.differ_in)} only: mean ± standard '
        "deviation over n runs; runs without metrics do not count.</p>\n"
        f'<div class="wide"><table>\n{_heads(table, ["runs", "n"])}\n<tbody>\n'
        + "\n".join(lines)
        + "\n</tbody></table></div>"
    )


def _heads(table: Table, heads: Sequence[str]) -> str:
    """Return the two lines of heads: what metrics have in common, and each column with its unit."""
    above = f'<th colspan="{len(heads)}"></th>'
    for start, stop, part in _spans(table):
        above += f'<th class="part" colspan="{stop - start}">{escape(part)}</th>'
    below = [f'<th data-sort="{place}">{head}</th>' for place, head in enumerate(heads)]
    for place, metric in enumerate(table.metrics, len(heads)):
        entry = table.entry(metric)
        unit = unit_name(entry["unit"])
        first = " first" if metric in _starts(table) else ""
        name = _SHORT.get(metric) or _breakable(metric)
        below.append(
            f'<th class="number{first}" data-sort="{place}" title="{escape(entry["description"])}">{name}'
            + (f"<br><small>{escape(unit)}</small>" if unit else "")
            + "</th>"
        )
    return f"<thead><tr>{above}</tr><tr>{''.join(below)}</tr></thead>"


def _spans(table: Table) -> list[tuple[int, int, str]]:
    """Return the runs of metrics of one kind, as (start, stop, name)."""
    kinds = [next((part for part, names in _PARTS if metric in names), "") for metric in table.metrics]
    spans: list[tuple[int, int, str]] = []
    for place, kind in enumerate(kinds):
        if spans and spans[-1][2] == kind:
            spans[-1] = (spans[-1][0], place + 1, kind)
        else:
            spans.append((place, place + 1, kind))
    return spans


def _starts(table: Table) -> set[str]:
    """Return the metrics that a new kind begins with."""
    return {table.metrics[start] for start, _, _ in _spans(table)}


def _best(table: Table, metric: str) -> float | None:
    """Return the best value of a metric; None where runs have all the same, or were made on several data sets."""
    values = {value for run in table.runs if (value := run.value(metric)) is not None}
    if len(values) < 2 or _several_data_sets(table):
        return None
    return max(values) if large_is_good(metric) else min(values)


def _several_data_sets(table: Table) -> bool:
    """Return whether runs were made on more than one data set."""
    return "data" in table.settings or "data.path" in table.settings


def _metrics_figures(table: Table) -> str:
    """Return the figures of metrics, by model and by K."""
    shown = table.metrics
    parts = []
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
            + (" Those against different data sets are not to be compared." if _several_data_sets(table) else ""),
            distances,
            9,
        ),
    ):
        picture = group_plot(table, metrics, across)
        if picture is not None:
            parts.append(f'<h2>{head}</h2>\n<p class="note">{note}</p>\n{inline_image(picture, f"{head} of all runs")}')
    clusters = cluster_plot(table, [*images, *others, *distances])
    if clusters is not None:
        parts.append(
            '<h2>Number of clusters K</h2>\n<p class="note">K of the atomic numbers to the right, one line for each K '
            "of the coordinates; a value is the mean of seeds and its bar their standard deviation, of samples that "
            "were judged at every K. Image statistics are measured before clusters are made: K does not change them."
            "</p>\n" + inline_image(clusters, "metrics over the number of clusters")
        )
    if parts:
        legend = " ".join(
            f"{model_dot(colour)}{escape(model)}&emsp;"
            for model, colour in colours(table.runs).items()
            if any(run.model == model and (run.metrics or run.curves) for run in table.runs)
        )
        parts.insert(
            0,
            f'<p class="note">In all figures: {legend} A dot is a run; of several seeds the mark is the mean and the '
            "bar one standard deviation to each side.</p>",
        )
    return "\n".join(parts)


def _losses(table: Table) -> str:
    """Return the losses of all runs, a figure for each model."""
    plots = loss_plots(table)
    if not plots:
        return ""
    without = [run.name for run in table.runs if not run.curves]
    note = "Averages over epochs, as csv/version_*/metrics.csv of the runs holds them."
    if without:
        note += f" Without losses of their own: {', '.join(without)}."
    figures = [
        f"<h3>{escape(model)}</h3>\n{inline_image(picture, f'losses of {model}')}" for model, picture in plots.items()
    ]
    return f'<h2>Losses</h2>\n<p class="note">{escape(note)}</p>\n' + "\n".join(figures)


def _meanings(table: Table) -> str:
    """Return what the columns mean."""
    lines = []
    for metric in table.metrics:
        entry = table.entry(metric)
        name = metric_name(metric).replace("\n", " ")
        lines.append(
            f"<tr><td>{escape(name)}</td><td><code>{escape(metric)}</code></td><td>{escape(unit_name(entry['unit']))}</td>"
            f"<td>{escape(entry['description'])}</td></tr>"
        )
    if not lines:
        return ""
    return (
        "<h2>What the columns mean</h2>\n"
        '<p class="note">runs.csv holds all metrics of all runs, by their names in metrics.json.</p>\n'
        "<table><thead><tr><th>column</th><th>name</th><th>unit</th><th>meaning</th></tr></thead>\n<tbody>"
        + "\n".join(lines)
        + "</tbody></table>"
    )


def _cell(value: float | None, first: bool = False, best: bool = False) -> str:
    """Return a cell with a number."""
    classes = "number" + " first" * first + " best" * best
    exact = "" if value is None else f"{value:.10g}"
    return f'<td class="{classes}" data-value="{exact}">{number(value)}</td>'


def _breakable(name: str) -> str:
    """Return a name that a browser may break at its dots and underscores."""
    return escape(name).replace(".", ".<wbr>").replace("_", "_<wbr>")
