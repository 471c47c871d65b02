"""The picture of README.md: distances above hulls against each other, and ROC curves."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score, roc_curve

from crystens.sun.rows import ROUNDING

_COLOURS = ("#1f4e79", "#c2410c", "#5b8c2a")
_SHOWN = 0.3  # eV/atom, limits of the axes


def hull_figure(above: Mapping[str, np.ndarray], file: np.ndarray, within: float) -> bytes:
    """Return the picture as PNG.

    Args:
        above: energies above hull by method, eV/atom (N,), NaN where unknown; DFT comes first.
        file: energies above hull of the file, eV/atom (N,).
        within: threshold of the first ROC curves, eV/atom.
    """
    figure = Figure(figsize=(13, 6.6), layout="constrained")
    grid = figure.subplots(2, 3)
    dft = next(iter(above.values()))
    pairs = [("the file: hull of the whole Materials Project", file, name, values) for name, values in above.items()]
    pairs.insert(2, ("DFT, hull of train", dft, *list(above.items())[1]))
    for axes, (label, truth, name, values) in zip(grid.flat, pairs, strict=False):
        _scatter(axes, truth, values, label, name)
    for axes in list(grid.flat)[len(pairs) : 4]:
        axes.set_axis_off()
    _roc(grid[1, 1], above, file <= within, f"file within {within:g} eV/atom of the hull")
    _roc(grid[1, 2], above, file <= ROUNDING, "file on the hull")
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()


def _scatter(axes: Axes, truth: np.ndarray, values: np.ndarray, label: str, name: str) -> None:
    """Draw the density of pairs; pairs outside of the limits are drawn at the edge."""
    known = ~np.isnan(values)
    pairs = [np.clip(array[known], -_SHOWN, _SHOWN) for array in (truth, values)]
    extent = (-_SHOWN, _SHOWN, -_SHOWN, _SHOWN)
    axes.hexbin(*pairs, gridsize=50, extent=extent, bins="log", cmap="Blues", linewidths=0.1)
    axes.plot(extent[:2], extent[:2], color="black", linewidth=0.6)
    axes.axhline(0, color="grey", linewidth=0.5)
    axes.axvline(0, color="grey", linewidth=0.5)
    axes.set(xlabel=f"{label}, eV/atom", ylabel=f"{name}, eV/atom")


def _roc(axes: Axes, above: Mapping[str, np.ndarray], good: np.ndarray, title: str) -> None:
    """Draw ROC curves of energies above hull: a crystal below a threshold counts as good."""
    for colour, (name, values) in zip(_COLOURS, above.items(), strict=False):
        known = ~np.isnan(values)
        wrong, right, limits = roc_curve(good[known], -values[known])
        area = roc_auc_score(good[known], -values[known])
        axes.plot(wrong, right, color=colour, label=f"{name}: {area:.3f}")
        for threshold, marker in ((0.0, "o"), (0.1, "s")):
            place = np.abs(limits[1:] + threshold).argmin() + 1
            axes.plot(wrong[place], right[place], marker, color=colour, markersize=4)
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.5)
    axes.set(xlabel="wrongly called so, share", ylabel="rightly called so, share", title=title)
    axes.legend(fontsize=8, title="area; circle at 0, square at 0.1 eV/atom", title_fontsize=7)
