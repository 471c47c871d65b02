"""Tables 1 and 2 of the paper, and the rates beside them, as plain values and in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import floor, log10
from pathlib import Path
from typing import Any

import yaml
from finished_runs import MODELS, RunsOfData, data_name
from pooling import Pooled, Spread, pooled, spread
from real_crystals import RealCrystals, strangers
from reference_values import REDEFINED, reference_statistics

from crystens.decoding import count_sites
from crystens.metrics.crystal_table import OK, Row
from crystens.metrics.entries import Metrics
from crystens.metrics.statistics import image_statistics
from crystens.scaling import Scaling

TABLE_1 = ("cell_length_variance", "cell_angle_variance", "space_group_variance", "coordinate_variance")
TABLE_2 = ("coordinate_agreement", "pairwise_agreement")
RATES = (
    "decoded_rate",
    "structural_validity",
    "structural_validity_after_merging",
    "unique_formula_rate",
    "novel_formula_rate",
    "mean_merged_sites",
)
DISTANCES = (
    "ks_a",
    "ks_b",
    "ks_c",
    "ks_alpha",
    "ks_beta",
    "ks_gamma",
    "ks_space_group",
    "ks_generated_space_group",
    "ks_Z",
)

PAPER = Path(__file__).with_name("paper.yaml")
REAL = "real test crystals"
STRANGERS = "of three real crystals"  # what no agreement at all is


@dataclass(frozen=True)
class Tables:
    """All numbers of a data set.

    Attributes:
        statistics: of Tables 1 and 2, in our definitions: by statistic, then by model, `REAL` or, for the agreements,
            `STRANGERS`.
        redefined: the three that the paper's code counts otherwise, as it does; empty for cartesian distances.
        rates: of each metric that is one number a run: by metric, then by model or `REAL`.
        units: of each name.
        paper: the paper's numbers and their source.
    """

    statistics: dict[str, dict[str, Pooled]]
    redefined: dict[str, dict[str, Pooled]]
    rates: dict[str, dict[str, Spread]]
    units: dict[str, str]
    paper: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        parts = {"statistics": self.statistics, "in_the_paper_s_definition": self.redefined, "rates": self.rates}
        plain: dict[str, Any] = {
            part: {name: {of: asdict(cell) for of, cell in cells.items()} for name, cells in found.items()}
            for part, found in parts.items()
        }
        return plain | {"units": self.units, "paper": self.paper}


def make_tables(runs: RunsOfData, real: RealCrystals) -> Tables:
    """Return the tables of the runs of a data set, real crystals beside them."""
    models = runs.models
    first = runs.finished[0]
    failed = {model: {run.seed: _failed(run.rows) for run in some} for model, some in models.items()}
    failed[REAL] = {0: _failed(real.rows)}
    statistics = {}
    for name in (*TABLE_1, *TABLE_2):
        columns = {model: {run.seed: _column(run.rows, name) for run in some} for model, some in models.items()}
        columns[REAL] = {0: _column(real.rows, name)}
        statistics[name] = {of: pooled(columns[of], failed[of]) for of in columns}
    redefined: dict[str, dict[str, Pooled]] = {}
    if first.samples.distance == "fractional":
        counted = {
            model: {run.seed: _redefined(run.samples.images, run.samples.scaling) for run in some}
            for model, some in models.items()
        }
        counted[REAL] = {0: _redefined(real.images, first.samples.scaling)}
        for name in REDEFINED:
            redefined[name] = {
                of: pooled({seed: found[name] for seed, found in some.items()}, failed[of])
                for of, some in counted.items()
            }
    mixed, counts = strangers(real.images, count_sites(real.images, first.samples.scaling), 0)
    if len(mixed):
        nobody = {0: [False] * len(mixed)}
        apart = image_statistics(mixed, first.samples.scaling, counts, first.samples.distance)
        again = reference_statistics(mixed, first.samples.scaling, counts)
        for name in TABLE_2:
            statistics[name][STRANGERS] = pooled({0: apart[name].tolist()}, nobody)
            if redefined:
                redefined[name][STRANGERS] = pooled({0: again[name].tolist()}, nobody)
    rates = {}
    for name in (*RATES, *DISTANCES):
        values = {model: {run.seed: _value(run.metrics, name) for run in some} for model, some in models.items()}
        values[REAL] = {0: _value(real.metrics, name)}
        rates[name] = {of: spread(values[of]) for of in values}
    units = {name: str(first.metrics[name]["unit"]) for name in (*statistics, *rates)}
    return Tables(statistics, redefined, rates, units, yaml.safe_load(PAPER.read_text(encoding="utf-8")))


def markdown(tables: Tables, runs: RunsOfData, label: str, real: RealCrystals) -> str:
    """Return the page of tables."""
    reference = runs.finished[0].made_with["reference"]
    decode = ", ".join(f"{name} {value}" for name, value in runs.finished[0].made_with["decode"].items())
    models = [*runs.models, REAL]
    numbers = tables.paper["numbers"]
    below: dict[str, dict[str, float | None]] = {
        name: {} for name in tables.redefined
    }  # where the definitions differ, the paper's stand in a table below
    parts = [
        f"## {data_name(runs.finished[0])}: {reference['count']} training crystals",
        f"Size: {label}. Decoding: {decode}.",
        "\n".join(f"- {line}" for line in runs.told)
        + f"\n- {REAL}: {len(real.rows)} of {real.available}, encoded, decoded and judged like the samples",
        "### Tables 1 and 2: mean over crystals",
        "In a cell: mean ± standard deviation over the crystals of all seeds; their median; the standard deviation of "
        "the seeds' means; crystals with a value of all samples, and how many of them were not decoded (their image "
        "holds sites, so that it is measured all the same). Real test crystals agree with themselves; images made of "
        "the rows, distances and differences of three of them show what no agreement at all gives.",
        _table(tables.statistics, [*models, STRANGERS], tables.units, _pooled_cell, {**numbers, **below}),
        f"The paper: {tables.paper['source']}; {tables.paper['trained_on']}. {_sentence(tables.paper['checked'])}.",
    ]
    if tables.redefined:
        parts += [
            "### Counted like the paper's code",
            "As far as that can be told, see the README: variance of x and y only; agreement divided by the number of "
            "sites again; votes and diagonal of `reference_values.py`. The variances of the cell have one definition.",
            _table(tables.redefined, [*models, STRANGERS], tables.units, _pooled_cell, numbers),
        ]
    parts += [
        "### Rates and Kolmogorov-Smirnov statistics",
        f"In a cell: mean over seeds ± standard deviation between them. Rates are of all samples. {REAL.capitalize()} "
        "are as good as it gets with this number of crystals.",
        _table(tables.rates, models, tables.units, _spread_cell),
    ]
    return "\n\n".join(parts) + "\n"


def number(value: float) -> str:
    """Return a number with three digits, in powers of ten where it is very small or large."""
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.{max(0, 2 - floor(log10(abs(value))))}f}"


def _table(
    rows: Mapping[str, Mapping[str, Any]],
    columns: Sequence[str],
    units: Mapping[str, str],
    cell: Callable[[Any], str],
    paper: Mapping[str, Mapping[str, float | None]] | None = None,
) -> str:
    """Return rows by name and columns by model in Markdown, the paper's numbers in a last column."""
    heads = ["", *(MODELS.get(column, column) for column in columns), *(["the paper"] if paper else [])]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, cells in rows.items():
        texts = [f"{name} ({units[name]})", *(cell(cells[column]) if column in cells else "–" for column in columns)]
        if paper:
            stated = [(MODELS[model], value) for model, value in paper[name].items()]
            told = (f"{who} {'not at hand' if value is None else number(value)}" for who, value in stated)
            texts.append("<br>".join(told) if stated else "defined otherwise, see below")
        lines.append(f"| {' | '.join(texts)} |")
    return "\n".join(lines)


def _pooled_cell(cell: Pooled) -> str:
    """Return the text of a statistic."""
    if cell.mean is None:
        return f"none<br>0 of {cell.samples} crystals"
    assert cell.median is not None
    deviation = "" if cell.standard_deviation is None else f" ± {number(cell.standard_deviation)}"
    lines = [f"**{number(cell.mean)}**{deviation}", f"median {number(cell.median)}"]
    if cell.seed_standard_deviation is not None:
        lines.append(f"{len(cell.seed_means)} seeds ± {number(cell.seed_standard_deviation)}")
    else:
        lines.append("one seed")
    lines.append(f"{cell.count} of {cell.samples}, {cell.failed} not decoded")
    return "<br>".join(lines)


def _spread_cell(cell: Spread) -> str:
    """Return the text of a rate."""
    if cell.mean is None:
        return "none"
    missing = sum(value is None for value in cell.values.values())
    text = (
        number(cell.mean)
        if cell.standard_deviation is None
        else (f"{number(cell.mean)} ± {number(cell.standard_deviation)}")
    )
    return text + (f" ({missing} seeds without)" if missing else "")


def _column(rows: Sequence[Row], name: str) -> list[float | None]:
    """Return a column of crystals.csv."""
    return [row[name] for row in rows]


def _failed(rows: Sequence[Row]) -> list[bool]:
    """Return which samples were not decoded."""
    return [row["status"] != OK for row in rows]


def _redefined(images: Any, scaling: Scaling) -> dict[str, list[float | None]]:
    """Return the statistics of images as the paper's code counts them, of every sample."""
    found = reference_statistics(images, scaling, count_sites(images, scaling))
    return {name: values.tolist() for name, values in found.items()}


def _value(metrics: Metrics | Mapping[str, Any], name: str) -> float | None:
    """Return the value of a metric."""
    value: float | None = metrics[name]["value"]
    return value


def _sentence(text: str) -> str:
    """Return a text with a capital at its beginning."""
    return text[:1].upper() + text[1:]
