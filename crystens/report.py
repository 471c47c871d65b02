"""`report.html`: what samples are worth, on one page that needs nothing beside itself.

The page loads nothing: pictures are inlined, and so are the scripts that show its crystals in 3D (`crystens.viewer`),
which make it half a megabyte larger; a page without crystals has none. All but the 3D view can be read without
JavaScript. The page begins with where the samples come from and what they can show, so that no number stands there
without it.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from torch import Tensor

from crystens.atomic_file import write_whole
from crystens.crystal import Crystal
from crystens.metrics.distributions import QUANTITIES, Reference
from crystens.metrics.summary import Metrics, generated_values
from crystens.metrics.table import OK, Row
from crystens.pictures import crystal_picture, distribution_plot, image_picture
from crystens.viewer import (
    VIEWER_PANEL,
    VIEWER_STYLE,
    content_policy,
    space_group_name,
    viewer_elements,
    viewer_scripts,
)

NUM_PICTURES = 10

# Entries of metrics.json that have a section of their own on the page.
_SECTIONS = ("failures", "provenance")

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; color: #1f2933; background: #f5f6f8;
  margin: 0; }
main { max-width: 1120px; margin: 0 auto; padding: 1.5rem 2rem 4rem; background: #fff; }
h1 { font-size: 1.7rem; margin: 0.5rem 0 1rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 0.6rem; padding-bottom: 0.25rem; border-bottom: 1px solid #d9dee4; }
.statement { background: #fff7ed; border-left: 4px solid #c2410c; padding: 0.8rem 1.2rem; }
.statement p { margin: 0.3rem 0; }
.note { color: #52606d; font-size: 0.9rem; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; }
th, td { text-align: left; padding: 0.35rem 0.7rem; border-bottom: 1px solid #e4e7eb; vertical-align: top; }
th { color: #52606d; font-weight: 600; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
th.number { text-align: right; }
td.name { font-family: ui-monospace, Menlo, Consolas, monospace; white-space: nowrap; }
td.text { overflow-wrap: anywhere; }
table.narrow { width: auto; }
img { max-width: 100%; }
.crystals { display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 0.8rem; }
figure { margin: 0; padding: 0.4rem; border: 1px solid #e4e7eb; border-radius: 6px; text-align: center; }
figure.wide { margin-bottom: 0.8rem; }
figcaption { font-size: 0.85rem; }
""".strip()


def write_report(
    path: str | Path,
    metrics: Metrics,
    rows: Sequence[Row],
    *,
    title: str,
    statement: Iterable[str] = (),
    reference: Reference | None = None,
    crystals: Mapping[int, Crystal] | None = None,
    images: Mapping[int, Tensor] | None = None,
) -> None:
    """Write the page.

    Args:
        path: file to write; replaced at once.
        metrics: of all samples.
        rows: of all samples.
        title: of the page.
        statement: sentences on where the samples come from and what that is worth, at the top of the page.
        reference: what the samples are compared with; without one there are no histograms.
        crystals: by index, those that `chosen_samples` chose.
        images: by index, some scaled images (4, S, S).

    Raises:
        CrystensError: if the file cannot be written.
    """
    crystals = crystals or {}
    scripts = viewer_scripts() if crystals else []
    parts = [_statement(statement, metrics), _metrics_table(metrics)]
    if reference is not None:
        parts.append(_distributions(metrics, rows, reference))
    parts += [
        _failures(metrics),
        _crystals(rows, crystals),
        _images(rows, images or {}),
        _provenance(metrics),
    ]
    labels = _labels(rows, crystals)
    page = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{content_policy(scripts)}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f"<style>\n{_STYLE}\n{VIEWER_STYLE}\n</style>\n</head>\n<body>\n<main>\n<h1>{escape(title)}</h1>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n"
        + (viewer_elements(crystals, labels, scripts) + "\n" if crystals else "")
        + "</body>\n</html>\n"
    )
    write_whole(path, page)


def chosen_samples(rows: Sequence[Row], seed: int, number: int = NUM_PICTURES) -> list[int]:
    """Return the indices of samples to draw: decoded ones, chosen by seed and not by hand, in order."""
    decoded = [row["index"] for row in rows if row["status"] == OK]
    return sorted(random.Random(seed).sample(decoded, min(number, len(decoded))))


def _statement(sentences: Iterable[str], metrics: Metrics) -> str:
    """Return the block at the top; how many samples there are and decoded is always said."""
    total, failed = metrics["num_samples"]["value"], metrics["failures"]["value"]
    counted = f"{total} samples were judged; {total - failed} of them became crystals and {failed} failed."
    return '<div class="statement">' + "".join(f"<p>{escape(text)}</p>" for text in [*sentences, counted]) + "</div>"


def _metrics_table(metrics: Metrics) -> str:
    """Return all metrics with their meaning."""
    lines = [
        f'<tr><td class="name">{escape(name)}</td><td class="number">{_number(entry["value"])}</td>'
        f'<td class="number">{_number(entry.get("standard_deviation"))}</td><td>{escape(entry["unit"])}</td>'
        f'<td class="number">{entry["count"]}</td><td>{escape(entry["description"])}</td></tr>'
        for name, entry in metrics.items()
        if name not in _SECTIONS
    ]
    head = (
        '<tr><th>metric</th><th class="number">value</th><th class="number">spread</th><th>unit</th>'
        '<th class="number">count</th><th>meaning</th></tr>'
    )
    return (
        f"<h2>Metrics</h2>\n<table>\n{head}\n" + "\n".join(lines) + "\n</table>\n"
        '<p class="note">Spread: standard deviation over samples. Count: how many samples (or sites) a value is made '
        "of. A unit of 1 means a pure number.</p>"
    )


def _distributions(metrics: Metrics, rows: Sequence[Row], reference: Reference) -> str:
    """Return the histograms."""
    distances = {f"ks_{name}": metrics[f"ks_{name}"]["value"] for name in QUANTITIES}
    picture = _inline(distribution_plot(generated_values(rows), reference, distances), "histograms, real and generated")
    return (
        f"<h2>Distributions, real and generated</h2>\n{picture}\n"
        f'<p class="note">Real: {escape(reference.name)}, {escape(reference.split)}, {reference.count} crystals. '
        "Generated: the samples that became crystals. K-S: Kolmogorov-Smirnov statistic, 0 for the same distribution "
        "and 1 for disjoint ones.</p>"
    )


def _failures(metrics: Metrics) -> str:
    """Return how many samples failed for which reasons."""
    reasons = metrics["failures"]["reasons"]
    if not reasons:
        return "<h2>Failures</h2>\n<p>No sample failed.</p>"
    lines = [f'<tr><td class="number">{count}</td><td>{escape(reason)}</td></tr>' for reason, count in reasons.items()]
    return (
        '<h2>Failures</h2>\n<table class="narrow">\n<tr><th class="number">samples</th><th>reason</th></tr>\n'
        + "\n".join(lines)
        + "\n</table>"
    )


def _crystals(rows: Sequence[Row], crystals: Mapping[int, Crystal]) -> str:
    """Return drawings of crystals, and the place of their 3D view."""
    if not crystals:
        return ""
    decoded = sum(row["status"] == OK for row in rows)
    figures = []
    for index, label in _labels(rows, crystals).items():
        formula, *rest = label.split("\n")
        caption = "<br>".join([f"<b>{escape(formula)}</b>", *map(escape, rest)])
        picture = _inline(crystal_picture(crystals[index]), formula)
        figures.append(f'<figure data-crystal="{index}">{picture}<figcaption>{caption}</figcaption></figure>')
    return (
        f'<h2>Crystals</h2>\n<p class="note">{len(figures)} of the {decoded} crystals, chosen by seed and not by hand; '
        "space groups are those found in the atoms.</p>\n"
        f'{VIEWER_PANEL}\n<div class="crystals">\n' + "\n".join(figures) + "\n</div>"
    )


def _labels(rows: Sequence[Row], crystals: Mapping[int, Crystal]) -> dict[int, str]:
    """Return what is said of each crystal, in lines: formula, space group found, number of sites and sample."""
    by_index = {row["index"]: row for row in rows}
    labels = {}
    for index, crystal in sorted(crystals.items()):
        found = by_index[index]["space_group"]
        group = "no space group found" if found is None else f"space group {space_group_name(found)}"
        invalid = "" if by_index[index]["structurally_valid"] else ", structurally invalid"
        sites = "1 site" if len(crystal) == 1 else f"{len(crystal)} sites"
        labels[index] = f"{crystal.formula}\n{group}\n{sites}, sample {index}{invalid}"
    return labels


def _images(rows: Sequence[Row], images: Mapping[int, Tensor]) -> str:
    """Return CrysTens images as the network gave them."""
    if not images:
        return ""
    by_index = {row["index"]: row for row in rows}
    figures = []
    for index, image in sorted(images.items()):
        row = by_index[index]
        became = row["formula"] if row["status"] == OK else f"failed: {row['reason']}"
        figures.append(
            f'<figure class="wide">{_inline(image_picture(image), "four channels")}'
            f"<figcaption>sample {index}: {escape(became)}</figcaption></figure>"
        )
    return (
        '<h2>CrysTens images</h2>\n<p class="note">As the network gave them, scaled to 0-1; rows and columns 0-10 hold '
        "the attributes of the sites, the block from 12 on the pairs of sites.</p>\n" + "\n".join(figures)
    )


def _provenance(metrics: Metrics) -> str:
    """Return versions, seed and settings."""
    lines = [
        f'<tr><td class="name">{escape(name)}</td><td class="text">{escape(value)}</td></tr>'
        for name, value in _flat(metrics["provenance"]["value"])
    ]
    return "<h2>Made with</h2>\n<table>\n" + "\n".join(lines) + "\n</table>"


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


def _inline(png: bytes, text: str) -> str:
    """Return an image element that holds its picture."""
    return f'<img alt="{escape(text)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
