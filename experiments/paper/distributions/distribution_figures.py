"""The figures: real and generated distributions of one run, and all Kolmogorov-Smirnov statistics at a glance."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from crystens.crystal import MAX_ATOMIC_NUMBER, NUM_SPACE_GROUPS
from crystens.metrics.distributions import QUANTITIES, Reference
from crystens.report.pictures import GENERATED_COLOUR, REAL_COLOUR

STATED = "generated_space_group"  # what the image states, which its atoms need not have
NAMES = (*QUANTITIES[:-1], STATED, "Z")
LABELS = {
    "a": "a (Å)",
    "b": "b (Å)",
    "c": "c (Å)",
    "alpha": "α (°)",
    "beta": "β (°)",
    "gamma": "γ (°)",
    "space_group": "space group",
    "Z": "atomic number (per site)",
}
_SHORT = {"space_group": "space group\n(atoms)", STATED: "space group\n(stated)", "Z": "atomic\nnumber"}
_COLOURS = ("#1d4ed8", "#15803d", GENERATED_COLOUR, "#7e22ce", "#0e7490")
_MARKERS = "osD^v"
_BINS = 41  # odd: a data set whose angles are all 90 has them in the middle of a bin
_SHOWN = (0.002, 0.998)  # quantiles of the real values: a few cells of 76 angstrom would leave no room for the others
_DOTS = 80


def panels(
    values: Mapping[str, np.ndarray],
    reference: Reference,
    notes: Mapping[str, str],
    title: str,
    size: str,
) -> bytes:
    """Return histograms of the eight quantities, real and generated, as PNG.

    Args:
        values: generated values of each of the `NAMES`; the stated space groups are drawn, dashed, into the panel of
            those found in the atoms.
        reference: real values.
        notes: what is written above the panel of each of the `QUANTITIES`.
        title: of the figure.
        size: what the models are, written on the picture.
    """
    figure = Figure(figsize=(13, 6.2), layout="constrained")
    for name, axes in zip(QUANTITIES, figure.subplots(2, 4).ravel(), strict=True):
        _histogram(axes, name, reference.values[name], np.asarray(values[name], dtype=np.float64))
        axes.set_title(notes[name], fontsize=9)
        if name == "space_group":
            edges = _edges(name, reference.values[name])
            shares = _shares(np.asarray(values[STATED], dtype=np.float64), edges)
            axes.stairs(
                shares, edges, color=GENERATED_COLOUR, linewidth=1.2, linestyle="--", label="stated by the image"
            )
            axes.legend(handles=axes.patches[2:], frameon=False, fontsize=8)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False, fontsize=10)
    figure.suptitle(f"{title}\n{size}", fontsize=10, x=0.01, ha="left")
    return _png(figure)


def overview(
    distances: Mapping[str, Mapping[str, Mapping[int, float | None]]], control: Mapping[str, float], size: str
) -> bytes:
    """Return the Kolmogorov-Smirnov statistics of all quantities as PNG: a point a seed, models side by side.

    Args:
        distances: by model, name of `NAMES` and seed.
        control: of the real test split against the training split, by name.
        size: what the models are, written on the picture.
    """
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axes = figure.subplots()
    for place, (model, found) in enumerate(distances.items()):
        shift = 0.18 * (place - (len(distances) - 1) / 2)
        points = [
            (column + shift, value)
            for column, name in enumerate(NAMES)
            for value in found[name].values()
            if value is not None
        ]
        across, up = zip(*points, strict=True) if points else ((), ())
        colour, marker = _COLOURS[place % len(_COLOURS)], _MARKERS[place % len(_MARKERS)]
        axes.plot(across, up, marker, color=colour, alpha=0.75, markersize=5, label=model)
    for column, name in enumerate(NAMES):
        axes.hlines(
            control[name],
            column - 0.38,
            column + 0.38,
            color=REAL_COLOUR,
            linewidth=3,
            label="real test crystals" if column == 0 else "_",
        )
    axes.set_xticks(range(len(NAMES)), [_SHORT.get(name) or LABELS[name].split(" (")[0] for name in NAMES], fontsize=9)
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("K-S statistic against the training split")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=len(distances) + 1, frameon=False, fontsize=9)
    axes.set_title(size, fontsize=9, loc="left")
    return _png(figure)


def _histogram(axes: Axes, name: str, real: np.ndarray, generated: np.ndarray) -> None:
    """Draw one panel; values outside of its axis are counted in its corner."""
    generated = generated[np.isfinite(generated)]
    edges = _edges(name, real)
    axes.stairs(_shares(real, edges), edges, fill=True, color=REAL_COLOUR, label="real (training split)")
    axes.stairs(_shares(generated, edges), edges, color=GENERATED_COLOUR, linewidth=1.5, label="generated")
    outside = [_outside(real, edges), _outside(generated, edges)]
    if any(outside):
        text = f"outside: {outside[0]} real, {outside[1]} generated"
        axes.text(0.98, 0.98, text, transform=axes.transAxes, ha="right", va="top", fontsize=7)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(bottom=0)
    axes.set_xlabel(LABELS[name], fontsize=9)
    axes.set_ylabel("share", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return which share of all values lies in each bin."""
    return np.histogram(values, edges)[0] / max(len(values), 1)


def _outside(values: np.ndarray, edges: np.ndarray) -> int:
    """Return how many values lie in no bin."""
    return int(((values < edges[0]) | (values > edges[-1])).sum())


def _edges(name: str, real: np.ndarray) -> np.ndarray:
    """Return the borders of a panel's bins, which follow the real values: by tens for space groups, by ones for Z."""
    if name == "space_group":
        return np.arange(0.5, NUM_SPACE_GROUPS + 1, 10)
    if name == "Z":
        return np.arange(0.5, min(float(real.max()) + 10, MAX_ATOMIC_NUMBER) + 1)
    low, high = np.quantile(real.astype(np.float64), _SHOWN)
    margin = max(0.15 * (high - low), 1.0)
    return np.linspace(max(low - margin, 0.0), high + margin, _BINS + 1)


def _png(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=_DOTS)
    return buffer.getvalue()
