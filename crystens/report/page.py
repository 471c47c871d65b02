"""`report.html`: the quality of samples, on one self-contained page.

The page loads nothing (`crystens.report.templates`). The scripts that show its crystals in 3D
(`crystens.report.viewer`) add half a megabyte; a page without crystals has none. Everything but the 3D view works
without JavaScript. The page begins with the origin of the samples and the verdict on them, so that a reader sees both
before any number.

The markup is `assets/report.html.j2`; this module computes the values that it shows.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from crystens.crystal import Crystal
from crystens.metrics.by_num_sites import by_size
from crystens.metrics.crystal_table import OK, Row, by_plausibility
from crystens.metrics.distributions import QUANTITIES, Reference
from crystens.metrics.entries import Metrics
from crystens.metrics.metrics_file import generated_values
from crystens.metrics.plausibility import CLOSE_RATIO, MIN_RATIO
from crystens.metrics.result_table import ResultTable
from crystens.metrics.symmetry_metrics import system_shares
from crystens.metrics.verdicts import good
from crystens.processes.atomic_file import write_whole
from crystens.properties.cgcnn import PROPERTIES
from crystens.properties.property_metrics import PropertyMetrics, known
from crystens.report.pictures import (
    Histogram,
    crystal_picture,
    distribution_plot,
    even_edges,
    histograms,
    image_picture,
    ks_title,
)
from crystens.report.templates import render
from crystens.report.viewer import space_group_name, viewer_data, viewer_scripts

NUM_PICTURES = 10
NUM_BEST = 3  # the most plausible of all, shown first
_MOST_LISTED = 20  # rows of the table of samples

# Entries of metrics.json that have a section of their own on the page.
_SECTIONS = ("failures", "provenance", "verdict")


def write_report(
    path: str | Path,
    metrics: Metrics,
    rows: Sequence[Row],
    *,
    title: str,
    statement: Iterable[str] = (),
    reference: Reference | None = None,
    crystals: Mapping[int, Crystal] | None = None,
    best: Iterable[int] = (),
    images: Mapping[int, Tensor] | None = None,
    properties: PropertyMetrics | None = None,
    tables: Sequence[ResultTable] = (),
) -> None:
    """Write the page.

    Args:
        path: file to write; replaced at once.
        metrics: metrics of all samples.
        rows: rows of all samples.
        title: title of the page.
        statement: sentences at the top of the page that say where the samples come from; the verdict follows them.
        reference: the reference of the samples; without one there are no histograms.
        crystals: the crystals that `chosen_samples` and `best_samples` chose, by index.
        best: the indices that `best_samples` chose.
        images: some scaled images (4, S, S), by index.
        properties: predictions of CGCNN, for rows that have its columns.
        tables: further tables of results.

    Raises:
        CrystensError: if the file cannot be written.
    """
    crystals = crystals or {}
    figures = [] if reference is None else [_distributions(metrics, rows, reference)]
    if properties is not None:
        figures.append(_properties(metrics, rows, properties))
    first = set(best) & set(crystals)
    ranked = by_plausibility([row for row in rows if row["index"] in crystals])
    ranked.sort(key=lambda row: row["index"] not in first)
    labels = _labels(ranked, crystals)
    page = render(
        "report.html.j2",
        viewer_scripts() if crystals else (),
        title=title,
        statement=[*statement, *(metrics["verdict"]["sentences"] if "verdict" in metrics else ())],
        total=metrics["num_samples"]["value"],
        failed=metrics["failures"]["value"],
        metrics={name: entry for name, entry in metrics.items() if name not in _SECTIONS},
        tables=tables,
        number=_number,
        good=good,
        real="" if reference is None or reference.held_out is None else reference.held_out_name,
        histograms=figures,
        systems=_systems(metrics, reference),
        sizes=by_size(rows, reference),
        percent=_percent,
        reasons=metrics["failures"]["reasons"],
        crystals=[
            {"index": index, "lines": label.split("\n"), "picture": crystal_picture(crystals[index])}
            for index, label in labels.items()
        ],
        best=len(first),
        ranked=_ranked(rows)[:_MOST_LISTED],
        data=viewer_data({index: crystals[index] for index in labels}, labels),
        images=_images(rows, images or {}),
        provenance=list(_flat(metrics["provenance"]["value"])),
    )
    write_whole(path, page)


def chosen_samples(rows: Sequence[Row], seed: int, number: int = NUM_PICTURES) -> list[int]:
    """Return the indices of the samples to draw, in order: decoded samples, chosen at random by the seed."""
    decoded = sorted(row["index"] for row in rows if row["status"] == OK)
    return sorted(random.Random(seed).sample(decoded, min(number, len(decoded))))


def best_samples(rows: Sequence[Row], number: int = NUM_BEST) -> list[int]:
    """Return the indices of the most plausible samples, the best first; ties go to the lower index."""
    return [row["index"] for row in _ranked(rows)[:number]]


def _ranked(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of samples that decoded, the most plausible first."""
    return by_plausibility(row for row in rows if row["status"] == OK)


def _distributions(metrics: Metrics, rows: Sequence[Row], reference: Reference) -> dict[str, Any]:
    """Return the histograms of the eight quantities, with their head and a note."""
    distances = {f"ks_{name}": metrics[f"ks_{name}"] for name in QUANTITIES}
    return {
        "head": "Distributions, real and generated",
        "picture": distribution_plot(generated_values(rows), reference, distances),
        "note": f"Real: {reference.name}, {reference.split}, {reference.count} crystals. Generated: the samples that "
        "became crystals. K-S: Kolmogorov-Smirnov statistic, 0 for the same distribution and 1 for disjoint ones. "
        "Values up to the critical one (1 %) show no difference for this number of samples.",
    }


def _properties(metrics: Metrics, rows: Sequence[Row], properties: PropertyMetrics) -> dict[str, Any]:
    """Return the histograms of CGCNN's properties, beside those of real crystals where there are some."""
    panels = []
    for name, about in PROPERTIES.items():
        generated = known(rows, name)
        real = None if properties.real is None else properties.real.known(name)
        title = "" if real is None else ks_title(metrics[f"ks_cgcnn_{name}"])
        edges = even_edges(generated if real is None or not len(real) else real)
        label = name.replace("_", " ") + (f" ({about.unit})" if about.unit != "1" else "")
        panels.append(Histogram(label, edges, generated, real, title))
    compared = "" if properties.real is None else f"Real: {properties.name}, {len(properties.real)} crystals. "
    return {
        "head": "Properties predicted by CGCNN",
        "picture": histograms(panels),
        "note": f"{compared}{metrics['cgcnn_failures']['statement']} Band gaps are those of non-metals.",
    }


def _systems(metrics: Metrics, reference: Reference | None) -> list[dict[str, Any]]:
    """Return the shares of the crystal systems, generated and real."""
    shares = metrics["crystal_systems"]["shares"]
    real = {} if reference is None else system_shares(reference.values["space_group"])
    return [{"name": name, "samples": share, "real": real.get(name)} for name, share in shares.items()]


def _labels(rows: Sequence[Row], crystals: Mapping[int, Crystal]) -> dict[int, str]:
    """Return the caption of each crystal, in lines: formula, space group found, number of sites and sample, doubts."""
    labels = {}
    for row in rows:
        index, found = row["index"], row["space_group"]
        crystal = crystals[index]
        group = "no space group found" if found is None else f"space group {space_group_name(found)}"
        sites = "1 site" if len(crystal) == 1 else f"{len(crystal)} sites"
        doubts = _doubts(row)
        lines = [crystal.formula, group, f"{sites}, sample {index}", *([", ".join(doubts)] if doubts else [])]
        labels[index] = "\n".join(lines)
    return labels


def _doubts(row: Row) -> list[str]:
    """Return the faults of a crystal, in words."""
    doubts = [] if row["structurally_valid"] else ["structurally invalid"]
    if row["structurally_valid"] and row["distance_ratio"] < MIN_RATIO:
        doubts.append("atoms overlap")
    elif row["structurally_valid"] and row["distance_ratio"] < CLOSE_RATIO:
        doubts.append("atoms are close")
    if not row["charge_neutral"]:
        doubts.append("not charge neutral")
    return doubts


def _images(rows: Sequence[Row], images: Mapping[int, Tensor]) -> list[dict[str, Any]]:
    """Return pictures of CrysTens images, each with the result of its decoding."""
    by_index = {row["index"]: row for row in rows}
    shown = []
    for index, image in sorted(images.items()):
        row = by_index[index]
        text = row["formula"] if row["status"] == OK else f"failed: {row['reason']}"
        shown.append({"index": index, "picture": image_picture(image), "text": text})
    return shown


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Yield nested values under dotted names."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)


def _number(value: float | int | None) -> str:
    """Return a number with four digits, or a dash where there is none."""
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _percent(value: float | None) -> str:
    """Return a share in percent, or a dash where there is none."""
    return "–" if value is None else f"{100 * value:.1f} %"
