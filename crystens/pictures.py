"""Pictures for reports, as PNG bytes: distributions, crystals, CrysTens images.

Figures are made without pyplot, so that nothing is left behind in a global state and no display is needed.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from ase import Atoms
from ase.visualize.plot import plot_atoms
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from crystens.crystal import MAX_ATOMIC_NUMBER, NUM_SPACE_GROUPS, Crystal
from crystens.encoding import HEADER
from crystens.metrics.distributions import QUANTITIES, Reference

REAL_COLOUR = "#9aa5b1"
GENERATED_COLOUR = "#c2410c"

_LABELS = {
    "a": "a (Å)",
    "b": "b (Å)",
    "c": "c (Å)",
    "alpha": "α (°)",
    "beta": "β (°)",
    "gamma": "γ (°)",
    "space_group": "space group number",
    "Z": "atomic number (per site)",
}
_CHANNELS = ("distance", "x difference", "y difference", "z difference")
_BINS = 40

# Seen a little from above and from the side, so that no cell edge hides another.
_VIEW = "10x,-15y,2z"
_ATOM_SCALE = 0.55  # of the covalent radius, so that the cell stays visible

# ASE draws cell edges as dots 0.3 angstrom apart: a cell of 10^6 angstrom, which a bad file may hold, would not end.
_LONGEST_CELL = 60.0


def distribution_plot(
    values: Mapping[str, np.ndarray], reference: Reference, distances: Mapping[str, float | None]
) -> bytes:
    """Return histograms of the eight quantities, real and generated, as PNG.

    Args:
        values: generated values of each quantity.
        reference: real values.
        distances: Kolmogorov-Smirnov statistics, "ks_a" to "ks_Z", written into the panels; None where there is none.
    """
    figure = Figure(figsize=(12.5, 5.6), layout="constrained")
    for name, axes in zip(QUANTITIES, figure.subplots(2, 4).ravel(), strict=True):
        _histogram(axes, name, reference.values[name], np.asarray(values[name], dtype=np.float64))
        distance = distances[f"ks_{name}"]
        axes.set_title("no generated value" if distance is None else f"K-S {distance:.3f}", fontsize=10, loc="right")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False, fontsize=10)
    return _png(figure, dots=90)


def _histogram(axes: Axes, name: str, real: np.ndarray, generated: np.ndarray) -> None:
    """Draw one panel; generated values far outside of the real range are counted instead of drawn."""
    generated = generated[np.isfinite(generated)]
    edges = _edges(name, real)
    axes.stairs(_shares(real, edges), edges, fill=True, color=REAL_COLOUR, label="real")
    axes.stairs(_shares(generated, edges), edges, color=GENERATED_COLOUR, linewidth=1.6, label="generated")
    outside = int(((generated < edges[0]) | (generated > edges[-1])).sum())
    if outside:
        axes.text(0.98, 0.94, f"{outside} outside", transform=axes.transAxes, ha="right", va="top", fontsize=8)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xlabel(_LABELS[name])
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylabel("share", fontsize=8)
    axes.set_ylim(bottom=0)


def _shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return which share of all values lies in each bin."""
    return np.histogram(values, edges)[0] / max(len(values), 1)


def _edges(name: str, real: np.ndarray) -> np.ndarray:
    """Return the borders of the bins of a panel: by tens for space groups, by ones for atomic numbers."""
    if name == "space_group":
        return np.arange(0.5, NUM_SPACE_GROUPS + 1, 10)
    if name == "Z":
        return np.arange(0.5, min(max(real.max() + 10, 20), MAX_ATOMIC_NUMBER) + 1)
    low, high = float(real.min()), float(real.max())
    margin = max(0.15 * (high - low), 1.0)
    return np.linspace(max(low - margin, 0.0), high + margin, _BINS + 1)


def crystal_picture(crystal: Crystal) -> bytes:
    """Return a drawing of one cell of a crystal with its borders, as PNG."""
    scale = min(1.0, _LONGEST_CELL / float(crystal.lengths.max()))  # of cell and atoms alike
    cell = [*(scale * crystal.lengths), *crystal.angles]
    atoms = Atoms(numbers=crystal.numbers, scaled_positions=crystal.coordinates, cell=cell, pbc=True)
    figure = Figure(figsize=(2.6, 2.6))
    axes = figure.add_axes((0.02, 0.02, 0.96, 0.96))
    plot_atoms(atoms, axes, rotation=_VIEW, radii=scale * _ATOM_SCALE, show_unit_cell=2)
    return _png(figure, dots=100)


def image_picture(image: Tensor) -> bytes:
    """Return the four channels of a scaled CrysTens image (4, S, S) side by side, as PNG."""
    figure = Figure(figsize=(10, 2.7), layout="constrained")
    panels = figure.subplots(1, 4)
    for channel, axes, label in zip(image.float().numpy(force=True), panels, _CHANNELS, strict=True):
        axes.imshow(channel, vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
        axes.set_title(label, fontsize=9)
        axes.set_xticks([0, HEADER], ["0", str(HEADER)])
        axes.set_yticks([0, HEADER], ["0", str(HEADER)])
        axes.tick_params(labelsize=7)
    figure.colorbar(panels[0].images[0], ax=panels, shrink=0.9).ax.tick_params(labelsize=7)
    return _png(figure, dots=80)


def _png(figure: Figure, dots: int) -> bytes:
    """Return a figure as PNG."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=dots)
    return buffer.getvalue()
