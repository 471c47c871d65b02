"""Tables and curves of judged samples, for README.md.

python experiments/frontier/run.py table NAME=DIR,DIR,... ...       # mean and spread over the folders of a name
python experiments/frontier/run.py rows NAME=DIR ...                # a row for each name, a few metrics, for ablations
python experiments/frontier/run.py variances NAME=DIR ...           # a folder of samples each, beside the paper's
python experiments/frontier/run.py curve LABEL OUT.png X=DIR ...    # quality against X
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

_PERCENT = (
    "structural_validity",
    "compositional_validity",
    "validity",
    "cov_recall",
    "cov_precision",
    "cov_recall_strict",
    "cov_precision_strict",
)
_DISTANCES = (
    "wasserstein_density",
    "wasserstein_density_all",
    "wasserstein_num_elements",
    "wasserstein_num_elements_all",
)
_SHORT = {  # heads of the columns of `rows`
    "structural_validity": "structural validity",
    "compositional_validity": "compositional validity",
    "cov_recall": "COV recall",
    "cov_precision": "COV precision",
    "cov_precision_strict": "COV precision, strict",
    "amsd_precision": "mean distance to the nearest real structure",
}
_BY_SITES = "coordinate_agreement / sites"
_PAPER = {  # Alverson et al. 2024, Tables 1 and 2: the diffusion model's
    "cell_length_variance": 0.35,
    "cell_angle_variance": 0.846,
    "space_group_variance": 4.56,
    "coordinate_variance": 4.36e-4,
    "coordinate_agreement": math.nan,  # the paper has it by the number of sites
    _BY_SITES: 5.51e-4,
    "pairwise_agreement": 0.473,
}


def _metrics(folder: Path) -> dict[str, float | None]:
    """Return the values of a folder's metrics.json."""
    return {name: one["value"] for name, one in json.loads((folder / "metrics.json").read_text()).items()}


def _number(metrics: dict[str, float | None], name: str) -> float:
    """Return a metric; NaN if it is missing, which is a gap in a figure."""
    value = metrics.get(name)
    return math.nan if value is None else value


def _cell(values: list[float | None], percent: bool) -> str:
    """Return the mean of values and, if there are several, their standard deviation."""
    found = [100 * value if percent else value for value in values if value is not None]
    if len(found) < len(values) or not found:
        return "none"
    spread = f" ± {statistics.stdev(found):.2g}" if len(found) > 1 else ""
    return (f"{statistics.mean(found):.2f}" if percent else f"{statistics.mean(found):.4f}") + spread


def _table(columns: dict[str, list[Path]]) -> None:
    """Print a table in Markdown."""
    read = {name: [_metrics(folder) for folder in folders] for name, folders in columns.items()}
    print("| | " + " | ".join(read) + " |")
    print("|---" * (len(read) + 1) + "|")
    for metric in _PERCENT + _DISTANCES:
        cells = [_cell([one.get(metric) for one in runs], metric in _PERCENT) for runs in read.values()]
        print(f"| {metric} | " + " | ".join(cells) + " |")


def _rows(rows: dict[str, list[Path]]) -> None:
    """Print a table in Markdown with a row for each name."""
    print("| | " + " | ".join(_SHORT.values()) + " |")
    print("|---" * (len(_SHORT) + 1) + "|")
    for name, folders in rows.items():
        read = [_metrics(folder) for folder in folders]
        cells = [_cell([one.get(metric) for one in read], metric in _PERCENT) for metric in _SHORT]
        print(f"| {name} | " + " | ".join(cells) + " |")


def _variances(columns: dict[str, list[Path]]) -> None:
    """Print the variances of the copies of a value in one image, those of the paper, and their ratio."""
    print("| | paper, diffusion | " + " | ".join(f"{name} | ratio" for name in columns) + " |")
    print("|---" * (2 * len(columns) + 2) + "|")
    for metric, paper in _PAPER.items():
        measure = _agreement_by_sites if metric == _BY_SITES else lambda one, name=metric: _number(_metrics(one), name)
        values = [statistics.mean(measure(one) for one in folders) for folders in columns.values()]
        ratios = ["" if math.isnan(paper) else f"{paper / value if value else math.inf:.3g}" for value in values]
        cells = [f"{value:.3g} | {ratio}" for value, ratio in zip(values, ratios, strict=True)]
        print(f"| {metric} | {'' if math.isnan(paper) else f'{paper:g}'} | " + " | ".join(cells) + " |")


def _agreement_by_sites(folder: Path) -> float:
    """Return the agreement of coordinates, divided once more by the number of sites, averaged over samples."""
    with (folder / "crystals.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["coordinate_agreement"]]
    sites = [int(row["num_sites"]) + int(row["merged_sites"] or 0) for row in rows]  # as before sites were merged
    values = [float(row["coordinate_agreement"]) / of for row, of in zip(rows, sites, strict=True)]
    return statistics.mean(values) if values else math.nan


def _curve(label: str, out: Path, columns: dict[str, list[Path]]) -> None:
    """Draw metrics against the names of the folders, which are numbers."""
    points = [(float(name), _metrics(folder)) for name, folders in columns.items() for folder in folders]
    points.sort(key=lambda point: point[0])
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    places = [x for x, _ in points]
    for metric in ("structural_validity", "compositional_validity", "cov_recall", "cov_precision"):
        left.plot(places, [100 * _number(one, metric) for _, one in points], "o-", label=metric.replace("_", " "))
    left.set_ylabel("percent")
    for metric, unit in (("wasserstein_density_all", "g/cm³"), ("wasserstein_num_elements_all", "elements")):
        right.plot(
            places, [_number(one, metric) for _, one in points], "o-", label=f"{metric.replace('_', ' ')}, {unit}"
        )
    right.set_yscale("log")
    for axes in (left, right):
        axes.set_xlabel(label)
        axes.set_xscale("log")
        axes.legend(fontsize=7)
    figure.savefig(out, dpi=110)


def _columns(arguments: list[str]) -> dict[str, list[Path]]:
    """Return folders by name from arguments NAME=DIR,DIR."""
    named = (argument.partition("=") for argument in arguments)
    return {name: [Path(folder) for folder in folders.split(",")] for name, _, folders in named}


def main() -> None:
    """Print or draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    for name in ("table", "rows", "variances"):
        parts.add_parser(name).add_argument("columns", nargs="+")
    curve = parts.add_parser("curve")
    curve.add_argument("label")
    curve.add_argument("out", type=Path)
    curve.add_argument("columns", nargs="+")
    arguments = parser.parse_args()
    columns = _columns(arguments.columns)
    if arguments.part == "table":
        _table(columns)
    elif arguments.part == "rows":
        _rows(columns)
    elif arguments.part == "variances":
        _variances(columns)
    else:
        _curve(arguments.label, arguments.out, columns)


if __name__ == "__main__":
    main()
