"""Histograms of formation energy and energy above hull, as the paper's Figs. 8 and 12 show them.

Shares are of all crystals of a series: one whose energy is unknown is neither on the hull nor near it, and is counted
in the title. Values beyond the axes are counted in the corner of a panel.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from crystens.energies.hull import HullDistance
from crystens.report.pictures import GENERATED_COLOUR, REAL_COLOUR

NEAR_HULL = 0.1  # eV/atom, the paper's bound for what may be made
ON_HULL = 1e-6  # eV/atom, below which a distance is rounding

_COLOURS = (REAL_COLOUR, "#30363d", "#c59b2d", "#2f7d6b", GENERATED_COLOUR, "#6d5a9e", "#4a7fb5")  # train, test, models
_BINS = 60
_RANGES = {"formation_energy": (-5.0, 3.0), "above_hull": (-1.5, 1.5)}
_HIGHEST = 15.0
_LABELS = {"formation_energy": "formation energy (eV/atom)", "above_hull": "energy above hull (eV/atom)"}


def shares(found: Sequence[HullDistance]) -> dict[str, float]:
    """Return shares of all crystals: energies of formation below 0, at most 0 and 0.1 above the hull, and so on."""
    formation, above = values(found, "formation_energy"), values(found, "above_hull")
    total = max(len(found), 1)
    return {
        "formation energy below 0": float((formation < 0).sum()) / total,
        "on or below hull": float((above <= ON_HULL).sum()) / total,
        "within 0.1 eV/atom": float((above <= NEAR_HULL).sum()) / total,
        "only elements compete": sum(item.only_elements for item in found) / total,
        "unknown": sum(item.reason is not None for item in found) / total,
    }


def values(found: Sequence[HullDistance], name: str) -> np.ndarray:
    """Return the known values of a quantity, eV/atom."""
    return np.array([getattr(item, name) for item in found if getattr(item, name) is not None], dtype=np.float64)


def energy_figure(series: Mapping[str, Sequence[HullDistance]], reference: str, title: str = "") -> bytes:
    """Return both histograms as PNG.

    Args:
        series: name to where its crystals stand; the first one is filled.
        reference: what the hull is made of, for the title.
        title: stands above, such as what the models are.
    """
    figure = Figure(figsize=(12.5, 5.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    _panel(left, "formation_energy", series, lambda share: f"{share['formation energy below 0']:.0%} below 0")
    _panel(
        right,
        "above_hull",
        series,
        lambda share: (
            f"{share['on or below hull']:.0%} at most 0, {share['within 0.1 eV/atom']:.0%} at most 0.1, "
            f"{share['only elements compete']:.0%} against elements alone"
        ),
    )
    right.axvline(NEAR_HULL, color="black", linewidth=0.9, linestyle="--")
    unknown = (
        f"{sum(item.reason is not None for item in found)} of {len(found)} {name}" for name, found in series.items()
    )
    above = [title] if title else []
    figure.suptitle("\n".join([*above, f"Hull of {reference}", f"unknown: {', '.join(unknown)}"]), fontsize=10)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()


def _panel(
    axes: Axes,
    name: str,
    series: Mapping[str, Sequence[HullDistance]],
    told: Callable[[dict[str, float]], str],
) -> None:
    """Draw one quantity of all series."""
    low, high = _RANGES[name]
    # Far enough for most of the worst series, but not for every wild crystal.
    worst = [np.quantile(known, 0.95) for found in series.values() if len(known := values(found, name))]
    high = float(np.clip(max(worst, default=high), high, _HIGHEST))
    width = (high - low) / _BINS
    edges = width * np.arange(np.floor(low / width), np.ceil(high / width) + 1)  # 0 is an edge
    low, high = edges[0], edges[-1]
    outside = []
    for place, (label, found) in enumerate(series.items()):
        known = values(found, name)
        known = np.where(np.abs(known) <= ON_HULL, 0, known)
        heights = np.histogram(known, edges)[0] / max(len(found), 1)
        colour = _COLOURS[place % len(_COLOURS)]
        style = {"fill": True} if place == 0 else {"linewidth": 1.6}
        axes.stairs(heights, edges, color=colour, label=f"{label}: {told(shares(found))}", **style)
        outside.append(f"{int(((known < low) | (known > high)).sum())}")
    axes.axvline(0, color="black", linewidth=0.9)
    axes.text(0.99, 0.55, f"outside, as listed: {', '.join(outside)}", transform=axes.transAxes, ha="right", fontsize=8)
    axes.set_xlim(low, high)
    axes.set_xlabel(_LABELS[name])
    axes.set_ylabel("share of all crystals")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1))
