"""Violins of predicted properties, real crystals and those of each model side by side, as PNG (the paper's Fig. 7).

Each violin is as wide as its place at its own peak, whatever the number of crystals. Inside are the median and the
quartiles; above stands the Kolmogorov-Smirnov statistic against the real ones, below the share of crystals that have a
value. Figures are drawn without pyplot, as in `crystens.report.pictures`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from scipy.stats import gaussian_kde

from crystens.properties.properties import Predictions, distances
from crystens.report.pictures import GENERATED_COLOUR, REAL_COLOUR

_LABELS = {
    "formation_energy": ("formation energy", "eV/atom"),
    "final_energy": ("final energy", "eV/atom"),
    "band_gap": ("band gap of non-metals", "eV"),
    "bulk_modulus": ("bulk modulus", "log₁₀ GPa"),
    "shear_modulus": ("shear modulus", "log₁₀ GPa"),
    "fermi_energy": ("Fermi energy", "eV"),
    "poisson_ratio": ("Poisson ratio", ""),
}
_COLUMNS = 4
_WIDTH = 0.42  # of half a violin at its peak, where a violin's place has 0.5
_EDGE = 0.5  # per cent of the values at either end that may lie outside of a panel
_FARTHEST = 4  # distances of the quartiles, beyond which values do not widen a panel
_NARROWEST = 0.01  # of the panel: the least bandwidth, for values that are all the same
_COLOURS = (REAL_COLOUR, "#c59b2d", "#2f7d6b", GENERATED_COLOUR, "#6d5a9e", "#4a7fb5")
_DARK = "#30363d"


def property_violins(sets: Mapping[str, Predictions], title: str = "") -> bytes:
    """Return one panel for each property and one for the share of metals, as PNG.

    Args:
        sets: predictions of the properties in `crystens.properties.cgcnn.PROPERTIES` by name of the set, such as
            "test split" or "WGAN"; the first are the real crystals that the others are compared with.
        title: stands above.
    """
    real, *generated = sets.values()
    statistics = [{name: distances(real, one, name)[0] for name in _LABELS} for one in generated]
    rows = -(-(len(_LABELS) + 1) // _COLUMNS)
    figure = Figure(
        figsize=(12.5, 3.5 * rows + 0.2 * len(sets) + 0.3), layout=ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.08)
    )
    panels = list(figure.subplots(rows, _COLUMNS, squeeze=False).ravel())
    for name, axes in zip(_LABELS, panels, strict=False):
        _violins(axes, name, list(sets.values()), [one[name] for one in statistics])
    _metals(panels[len(_LABELS)], list(sets.values()))
    handles = [
        Patch(color=_colour(place), alpha=0.75, linewidth=0, label=f"{label}: {_missing(predictions)}")
        for place, (label, predictions) in enumerate(sets.items())
    ]
    if title:
        figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    figure.legend(handles=handles, loc="outside lower left", ncols=1, frameon=False, fontsize=9)
    return _png(figure)


def agreement_plot(chgnet: np.ndarray, cgcnn: np.ndarray) -> bytes:
    """Return formation energies (n,) of both, eV/atom, against each other, as PNG."""
    figure = Figure(figsize=(5.2, 5.2), layout="constrained")
    axes = figure.subplots()
    ends = [float(min(chgnet.min(), cgcnn.min())) - 0.2, float(max(chgnet.max(), cgcnn.max())) + 0.2]
    axes.plot(ends, ends, color="#5d6773", linewidth=1)
    axes.scatter(chgnet, cgcnn, s=14, color=GENERATED_COLOUR, alpha=0.55, linewidths=0)
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
    axes.set_aspect("equal")
    axes.set_xlabel("CHGNet (eV/atom)")
    axes.set_ylabel("CGCNN (eV/atom)")
    axes.set_title(f"formation energy, {len(chgnet)} crystals", fontsize=10, loc="left")
    axes.set_title(f"MAD {np.abs(cgcnn - chgnet).mean():.3f} eV/atom", fontsize=10, loc="right")
    axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def _missing(predictions: Predictions) -> str:
    """Return how many crystals there are, and how many of them have no graph and why."""
    reasons = predictions.categories("formation_energy")
    told = ", ".join(f"{reason} ({count})" for reason, count in reasons.items())
    return f"{len(predictions):,} crystals; " + (f"without values: {told}" if told else "all have values")


def _violins(axes: Axes, name: str, sets: Sequence[Predictions], statistics: Sequence[float | None]) -> None:
    """Draw one panel."""
    label, unit = _LABELS[name]
    known = [predictions.known(name) for predictions in sets]
    low, high = _range(known)
    for place, values in enumerate(known):
        _violin(axes, values, place, low, high)
        outside = int(((values < low) | (values > high)).sum())
        if outside:
            axes.text(place, low, f"{outside} outside", ha="center", va="bottom", fontsize=7, color=_DARK)
    for place, statistic in enumerate(statistics, start=1):
        told = "no K-S" if statistic is None else f"K-S {statistic:.2f}"
        axes.text(place, high, told, ha="center", va="top", fontsize=8, color=_DARK)
    axes.set_xlim(-0.55, len(sets) - 0.45)
    axes.set_ylim(low, high)
    axes.set_xticks(range(len(sets)), [_count(predictions, name) for predictions in sets])
    axes.set_title(label, fontsize=10, loc="left")
    axes.set_ylabel(unit, fontsize=9)
    _plain(axes)


def _violin(axes: Axes, values: np.ndarray, place: int, low: float, high: float) -> None:
    """Draw one violin around x = place, with median and quartiles."""
    if len(values) == 0:
        axes.text(place, (low + high) / 2, "no value", ha="center", va="center", fontsize=8, color=_DARK)
        return
    inside = values[(values >= low) & (values <= high)]
    levels = np.linspace(inside.min(), inside.max(), 256)
    density = _density(inside, levels, _NARROWEST * (high - low))
    half = _WIDTH / density.max() * density
    axes.fill_betweenx(levels, place - half, place + half, color=_colour(place), alpha=0.75, linewidth=0)
    for quantile, width in ((25, 0.9), (50, 2.0), (75, 0.9)):
        level = float(np.percentile(values, quantile))
        reach = float(np.interp(level, levels, half))
        axes.plot([place - reach, place + reach], [level, level], color=_DARK, linewidth=width, solid_capstyle="butt")


def _colour(place: int) -> str:
    """Return the colour of a set: grey for the real one."""
    return _COLOURS[place] if place < len(_COLOURS) else _COLOURS[1 + (place - 1) % (len(_COLOURS) - 1)]


def _density(values: np.ndarray, levels: np.ndarray, narrowest: float) -> np.ndarray:
    """Return the density of values at levels: Gaussian kernels of Scott's width, but of `narrowest` at least."""
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    width = spread * len(values) ** -0.2
    if width >= narrowest:
        return gaussian_kde(values)(levels)
    return np.exp(-(((levels[:, None] - values) / narrowest) ** 2) / 2).mean(axis=1)


def _range(sides: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the range of a panel: nearly all values of each set, but no far outliers, and some room."""
    ends = []
    for values in sides:
        if len(values):
            lower, upper = np.percentile(values, (25, 75))
            reach = _FARTHEST * (upper - lower)
            near = values[(values >= lower - reach) & (values <= upper + reach)]
            ends.append(np.percentile(near, (_EDGE, 100 - _EDGE)))
    low, high = (float(min(end[0] for end in ends)), float(max(end[1] for end in ends))) if ends else (0.0, 1.0)
    room = 0.1 * (high - low) or 0.5
    return low - room, high + 1.5 * room


def _metals(axes: Axes, sets: Sequence[Predictions]) -> None:
    """Draw the share of metals among the crystals with a value."""
    for place, predictions in enumerate(sets):
        known = predictions.known("metal")
        share = float((known >= 0.5).mean()) if len(known) else 0.0
        axes.bar(place, share, width=2 * _WIDTH, color=_colour(place), alpha=0.75)
        told = f"{100 * share:.0f} %" if len(known) else "no value"
        axes.text(place, share + 0.02, told, ha="center", fontsize=9, color=_DARK)
    axes.set_xlim(-0.55, len(sets) - 0.45)
    axes.set_ylim(0, 1.12)
    axes.set_yticks([0, 0.5, 1])
    axes.set_xticks(range(len(sets)), [_count(predictions, "metal") for predictions in sets])
    axes.set_title("share of metals (classifier)", fontsize=10, loc="left")
    _plain(axes)


def _count(predictions: Predictions, name: str) -> str:
    """Return the number of values of a property, above the number of crystals."""
    return f"{len(predictions.known(name)):,}\nof {len(predictions):,}"


def _plain(axes: Axes) -> None:
    """Leave the frame of a panel at its left and below."""
    axes.tick_params(labelsize=8, bottom=False)
    axes.spines[["top", "right"]].set_visible(False)


def _png(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
