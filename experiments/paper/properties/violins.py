"""Violins of predicted properties, real against generated, as PNG (the paper's Fig. 7).

Half a violin to the left is real, half to the right is generated; each is as wide as the panel at its own peak,
whatever the number of crystals, which stands below. Inside are the median and the quartiles. Figures are drawn without
pyplot, as in `crystens.pictures`.
"""

from __future__ import annotations

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy.stats import gaussian_kde

from crystens.metrics.cgcnn import Predictions, ks_statistics
from crystens.pictures import GENERATED_COLOUR, REAL_COLOUR

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
_WIDTH = 0.92  # of half a violin at its peak, where the panel has 1
_EDGE = 0.5  # per cent of the values at either end that may lie outside of a panel
_FARTHEST = 4  # distances of the quartiles, beyond which values do not widen a panel
_NARROWEST = 0.01  # of the panel: the least bandwidth, for values that are all the same
_SIDES = ((-1, REAL_COLOUR, "#5d6773"), (1, GENERATED_COLOUR, "#7a2a08"))


def property_violins(real: Predictions, generated: Predictions, labels: tuple[str, str], title: str = "") -> bytes:
    """Return one panel for each property and one for the share of metals, as PNG.

    Args:
        real: predictions for real crystals, of the properties in `crystens.metrics.cgcnn.PROPERTIES`.
        generated: predictions for generated crystals.
        labels: what the two are called, such as ("test split", "WGAN").
        title: stands above.
    """
    names = [name for name in _LABELS if name in real.values and name in generated.values]
    statistics = ks_statistics(real, generated)
    metals = "metal" in statistics
    rows = -(-(len(names) + metals) // _COLUMNS)
    figure = Figure(figsize=(12.5, 3.5 * rows + 0.7), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1, w_pad=0.08)
    panels = list(figure.subplots(rows, _COLUMNS, squeeze=False).ravel())
    for name, axes in zip(names, panels, strict=False):
        _violin(axes, name, real, generated, statistics[name])
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    if metals:
        panels[len(names)].set_axis_on()
        _metals(panels[len(names)], real, generated)
    handles = [
        Patch(color=colour, alpha=0.75, linewidth=0, label=f"{label}: {_missing(predictions)}")
        for (_, colour, _), label, predictions in zip(_SIDES, labels, (real, generated), strict=True)
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
    name = next(name for name in predictions.reasons if name != "band_gap")
    reasons = predictions.categories(name)
    told = ", ".join(f"{reason} ({count})" for reason, count in reasons.items())
    return f"{len(predictions):,} crystals; " + (f"without values: {told}" if told else "all have values")


def _violin(axes: Axes, name: str, real: Predictions, generated: Predictions, statistic: float | None) -> None:
    """Draw one panel."""
    label, unit = _LABELS[name]
    sides = [real.known(name), generated.known(name)]
    low, high = _range(sides)
    outside = []
    for values, (sign, colour, dark) in zip(sides, _SIDES, strict=True):
        _half(axes, values, sign, colour, dark, low, high)
        outside.append(int(((values < low) | (values > high)).sum()))
    axes.axvline(0, color="white", linewidth=1.2)
    axes.set_xlim(-1, 1)
    axes.set_ylim(low, high)
    axes.set_xticks([-0.5, 0.5], [_count(predictions, name) for predictions in (real, generated)])
    axes.set_title(label, fontsize=10, loc="left")
    axes.set_title("no K-S" if statistic is None else f"K-S {statistic:.3f}", fontsize=10, loc="right")
    axes.set_ylabel(unit, fontsize=9)
    for x, count, align in zip((0.02, 0.98), outside, ("left", "right"), strict=True):
        if count:
            axes.text(x, 0.98, f"{count} outside", transform=axes.transAxes, ha=align, va="top", fontsize=7.5)
    _plain(axes)


def _half(axes: Axes, values: np.ndarray, sign: int, colour: str, dark: str, low: float, high: float) -> None:
    """Draw half a violin, to the left (sign -1) or right (1), with median and quartiles."""
    if len(values) == 0:
        axes.text(0.5 * sign, (low + high) / 2, "no value", ha="center", va="center", fontsize=9, color=dark)
        return
    inside = values[(values >= low) & (values <= high)]
    levels = np.linspace(inside.min(), inside.max(), 256)
    density = _density(inside, levels, _NARROWEST * (high - low))
    scale = _WIDTH / density.max()
    axes.fill_betweenx(levels, 0, sign * scale * density, color=colour, alpha=0.75, linewidth=0)
    for quantile, width in ((25, 0.9), (50, 2.0), (75, 0.9)):
        level = float(np.percentile(values, quantile))
        reach = scale * float(np.interp(level, levels, density))
        axes.plot([0, sign * reach], [level, level], color=dark, linewidth=width, solid_capstyle="butt")


def _density(values: np.ndarray, levels: np.ndarray, narrowest: float) -> np.ndarray:
    """Return the density of values at levels: Gaussian kernels of Scott's width, but of `narrowest` at least."""
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    width = spread * len(values) ** -0.2
    if width >= narrowest:
        return gaussian_kde(values)(levels)
    return np.exp(-(((levels[:, None] - values) / narrowest) ** 2) / 2).mean(axis=1)


def _range(sides: list[np.ndarray]) -> tuple[float, float]:
    """Return the range of a panel: nearly all values of either side, but no far outliers, and some room."""
    ends = []
    for values in sides:
        if len(values):
            lower, upper = np.percentile(values, (25, 75))
            reach = _FARTHEST * (upper - lower)
            near = values[(values >= lower - reach) & (values <= upper + reach)]
            ends.append(np.percentile(near, (_EDGE, 100 - _EDGE)))
    low, high = (float(min(end[0] for end in ends)), float(max(end[1] for end in ends))) if ends else (0.0, 1.0)
    room = 0.1 * (high - low) or 0.5
    return low - room, high + room


def _metals(axes: Axes, real: Predictions, generated: Predictions) -> None:
    """Draw the share of metals among the crystals with a value."""
    for x, predictions, (_, colour, dark) in zip((-0.5, 0.5), (real, generated), _SIDES, strict=True):
        known = predictions.known("metal")
        share = float((known >= 0.5).mean()) if len(known) else 0.0
        axes.bar(x, share, width=0.6, color=colour, alpha=0.75)
        told = f"{100 * share:.0f} %" if len(known) else "no value"
        axes.text(x, share + 0.02, told, ha="center", fontsize=9, color=dark)
    axes.set_xlim(-1, 1)
    axes.set_ylim(0, 1.12)
    axes.set_yticks([0, 0.5, 1])
    axes.set_xticks([-0.5, 0.5], [_count(predictions, "metal") for predictions in (real, generated)])
    axes.set_title("share of metals (classifier)", fontsize=10, loc="left")
    _plain(axes)


def _count(predictions: Predictions, name: str) -> str:
    """Return the number of values of a property, beside the number of crystals."""
    return f"{len(predictions.known(name)):,} of {len(predictions):,}"


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
