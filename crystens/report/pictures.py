"""Pictures for reports, as PNG bytes: distributions, crystals, CrysTens images.

Figures are made without pyplot, so that nothing is left behind in a global state and no display is needed.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
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

# View direction: from before the bc plane, a little to the right and above, c upwards, so that no edge hides another.
_EYE = (1.0, 0.34, 0.26)
_LEGEND = 0.1  # height of the legend, in heights of the picture above it
_ATOM_SCALE = 0.5  # of the covalent radius, so that atoms behind others and the cell stay visible
_LIGHT = np.array([-0.35, 0.55, 0.76])  # from the upper left, towards the eye; right, up, towards the eye
_FOG = 0.35  # share of white in what is farthest away
_EDGE_COLOUR = 0.25  # grey of the cell's edges
_OVERSAMPLING = 2  # pixels drawn for one that is shown, in each direction

# Pairs of the corners 000, 001, 010, ... 111 that an edge of the cell joins: they differ in one coordinate.
_EDGES = [(first, first | bit) for bit in (1, 2, 4) for first in range(8) if not first & bit]

# A site nearer than this to a face of the cell (angstrom along the axis) is drawn at the opposite face as well.
_BORDER = 0.2


@dataclass(frozen=True, eq=False)
class Histogram:
    """One panel of a picture of distributions.

    Attributes:
        label: label of the axis, with the unit.
        edges: edges of the bins, (bins + 1,).
        generated: generated values; values that are not finite are left out.
        real: real values; None draws the generated values alone.
        title: text above the panel, such as its Kolmogorov-Smirnov statistic.
    """

    label: str
    edges: np.ndarray
    generated: np.ndarray
    real: np.ndarray | None = None
    title: str = ""


def distribution_plot(
    values: Mapping[str, np.ndarray], reference: Reference, distances: Mapping[str, Mapping[str, Any]]
) -> bytes:
    """Return histograms of the eight quantities, real and generated, as PNG.

    Args:
        values: generated values of each quantity.
        reference: real values.
        distances: metrics of the Kolmogorov-Smirnov statistics, "ks_a" to "ks_Z", written into the panels.
    """
    return histograms(
        [
            Histogram(
                _LABELS[name],
                _edges(name, reference.values[name]),
                np.asarray(values[name], dtype=np.float64),
                reference.values[name],
                ks_title(distances[f"ks_{name}"]),
            )
            for name in QUANTITIES
        ]
    )


def histograms(panels: Sequence[Histogram]) -> bytes:
    """Return a picture of at most eight panels, as PNG."""
    figure = Figure(figsize=(12.5, 5.6), layout="constrained")
    places = figure.subplots(2, 4).ravel()
    for panel, axes in zip(panels, places, strict=False):
        _histogram(axes, panel)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False, fontsize=10)
    return figure_png(figure, dots=90)


def ks_title(metric: Mapping[str, Any]) -> str:
    """Return the title of a panel: the Kolmogorov-Smirnov statistic, and its critical value if it has one."""
    if metric["value"] is None:
        return "no generated value"
    critical = metric.get("critical_value")
    return f"K-S {metric['value']:.3f}" + ("" if critical is None else f" (critical {critical:.2g})")


def even_edges(values: np.ndarray, least_margin: float = 0.5) -> np.ndarray:
    """Return the edges of bins of equal width over all values, with a margin at both sides."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
    margin = 0.15 * (high - low) or least_margin
    return np.linspace(low - margin, high + margin, _BINS + 1)


def _histogram(axes: Axes, panel: Histogram) -> None:
    """Draw one panel; generated values far outside of the bins are counted instead of drawn."""
    generated, edges = panel.generated[np.isfinite(panel.generated)], panel.edges
    if panel.real is not None:
        axes.stairs(_shares(panel.real, edges), edges, fill=True, color=REAL_COLOUR, label="real")
    axes.stairs(_shares(generated, edges), edges, color=GENERATED_COLOUR, linewidth=1.6, label="generated")
    outside = int(((generated < edges[0]) | (generated > edges[-1])).sum())
    if outside:
        axes.text(0.98, 0.94, f"{outside} outside", transform=axes.transAxes, ha="right", va="top", fontsize=8)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xlabel(panel.label)
    axes.set_title(panel.title, fontsize=10, loc="right")
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylabel("share", fontsize=8)
    axes.set_ylim(bottom=0)


def _shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the share of all values that lies in each bin."""
    return np.histogram(values, edges)[0] / max(len(values), 1)


def _edges(name: str, real: np.ndarray) -> np.ndarray:
    """Return the edges of the bins of a panel: 10 wide for space groups, 1 wide for atomic numbers."""
    if name == "space_group":
        return np.arange(0.5, NUM_SPACE_GROUPS + 1, 10)
    if name == "Z":
        return np.arange(0.5, min(max(real.max() + 10, 20), MAX_ATOMIC_NUMBER) + 1)
    low, high = float(real.min()), float(real.max())
    margin = max(0.15 * (high - low), 1.0)
    return np.linspace(max(low - margin, 0.0), high + margin, _BINS + 1)


def crystal_picture(crystal: Crystal) -> bytes:
    """Return a drawing of one cell of a crystal, its borders and a legend of its elements, as PNG."""
    figure = Figure(figsize=(2.6, 2.6 * (1 + _LEGEND)))
    draw_crystal(figure.add_axes((0, 0, 1, 1)), crystal)
    return figure_png(figure, dots=100, colours=256)


def gallery(crystals: Sequence[Crystal | None], columns: int = 4) -> bytes:
    """Return drawings of crystals in rows, as PNG; above each its formula, space group and number of sites.

    Args:
        crystals: at least one; None is a sample that failed, whose place says so.
        columns: drawings in a row.
    """
    columns = min(columns, len(crystals))
    rows = math.ceil(len(crystals) / columns)
    figure = Figure(figsize=(2.4 * columns, 2.9 * rows), layout="constrained")
    for axes in (places := figure.subplots(rows, columns, squeeze=False).ravel()):
        axes.set_axis_off()
    for crystal, axes in zip(crystals, places, strict=False):
        if crystal is None:
            axes.text(0.5, 0.5, "failed", ha="center", va="center", fontsize=9)
            continue
        draw_crystal(axes, crystal)
        sites = "1 site" if len(crystal) == 1 else f"{len(crystal)} sites"
        axes.set_title(f"{crystal.formula}, {crystal.space_group}, {sites}", fontsize=9)
    return figure_png(figure, dots=100)


def draw_crystal(axes: Axes, crystal: Crystal) -> None:
    """Draw one cell of a crystal, and below it a legend of its elements, into axes without a frame."""
    axes.imshow(crystal_image(crystal), extent=(0, 1, 0, 1), interpolation="antialiased")
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(-_LEGEND, 1)
    numbers = sorted(set(crystal.numbers.tolist()))
    step = min(0.19, 0.96 / len(numbers))
    for place, number in enumerate(numbers):
        x, y = 0.5 + step * (place - len(numbers) / 2), -0.45 * _LEGEND
        axes.plot(
            x + 0.03, y, "o", color=element_colour(number), markeredgecolor="0.3", markeredgewidth=0.5, markersize=6
        )
        axes.text(x + 0.07, y, chemical_symbols[number], fontsize=7.5, va="center_baseline")


def crystal_image(crystal: Crystal, pixels: int = 260) -> np.ndarray:
    """Return one cell of a crystal as spheres of half the covalent radius, (pixels, pixels, 3) in [0, 1].

    Intersecting spheres are drawn as they intersect, so that overlapping atoms can be seen. Parallel projection.
    """
    side = pixels * _OVERSAMPLING
    vectors = view_vectors(crystal)
    sites, coordinates = bordered_sites(crystal)
    corners = np.array(list(product((0.0, 1.0), repeat=3))) @ vectors
    centres = coordinates @ vectors
    radii = np.array([element_radius(number) for number in crystal.numbers[sites]])
    low = np.minimum((centres - radii[:, None]).min(axis=0), corners.min(axis=0))
    high = np.maximum((centres + radii[:, None]).max(axis=0), corners.max(axis=0))
    scale = 0.94 * side / max(high[0] - low[0], high[1] - low[1])
    middle = (low + high) / 2
    canvas = _Canvas(side, depth=scale * (high[2] - low[2]))
    for site, centre, radius in zip(sites, centres, radii, strict=True):
        canvas.sphere(scale * (centre - middle), scale * radius, _colour(int(crystal.numbers[site])))
    corners = scale * (corners - middle)
    for start, end in _EDGES:
        canvas.line(corners[start], corners[end])
    return canvas.colours.reshape(pixels, _OVERSAMPLING, pixels, _OVERSAMPLING, 3).mean(axis=(1, 3))


def view_vectors(crystal: Crystal) -> np.ndarray:
    """Return the cell vectors as rows (3, 3), angstrom; columns: to the right, upwards, towards the eye."""
    towards = np.array(_EYE) / np.linalg.norm(_EYE)
    right = np.cross([0.0, 0.0, 1.0], towards)
    right /= np.linalg.norm(right)
    return crystal.vectors @ np.stack([right, np.cross(towards, right), towards], axis=1)


def borders(crystal: Crystal) -> np.ndarray:
    """Return the distance from a face below which a site is drawn at the opposite face too, (3,), fractional, < 0.5."""
    return np.minimum(_BORDER / crystal.lengths, 0.25)


def bordered_sites(crystal: Crystal) -> tuple[np.ndarray, np.ndarray]:
    """Return the sites of a cell with their images on its borders, so that the cell looks complete.

    Returns:
        sites: index of the site of each drawn atom, (M,), M >= N.
        coordinates: fractional, (M, 3), a little below 0 or above 1 at most.
    """
    near = borders(crystal)
    sites, coordinates = [], []
    for site, place in enumerate(crystal.coordinates):
        shifts = [
            [0, *([1] if x < margin else []), *([-1] if x > 1 - margin else [])]
            for x, margin in zip(place, near, strict=True)
        ]
        for shift in product(*shifts):
            sites.append(site)
            coordinates.append(place + shift)
    return np.array(sites), np.array(coordinates)


def element_colour(number: int) -> str:
    """Return the colour that Jmol gives to an element, as #rrggbb."""
    return "#" + "".join(f"{round(255 * part):02x}" for part in _colour(number))


def element_radius(number: int) -> float:
    """Return the radius of an element in pictures, angstrom."""
    return float(_ATOM_SCALE * covalent_radii[number])


def _colour(number: int) -> np.ndarray:
    """Return Jmol's colour of an element, (3,) in [0, 1]; elements beyond its table have the colour of meitnerium."""
    return jmol_colors[min(number, len(jmol_colors) - 1)]


class _Canvas:
    """Spheres and lines in a square of pixels; nearer objects hide farther ones.

    Places are (right, up, towards the eye) in pixels from the middle.

    Args:
        side: width and height, pixels.
        depth: depth of the drawing, pixels; its far end is in the fog.
    """

    def __init__(self, side: int, depth: float) -> None:
        self.colours = np.ones((side, side, 3), dtype=np.float32)
        self._heights = np.full((side, side), -np.inf)
        self._side = side
        self._depth = max(depth, 1.0)

    def sphere(self, centre: np.ndarray, radius: float, colour: np.ndarray) -> None:
        """Draw a sphere, darker at its outline; one smaller than a pixel is one pixel wide."""
        radius = max(radius, _OVERSAMPLING)
        column, row = self._side / 2 + centre[0], self._side / 2 - centre[1]
        rows = slice(max(int(row - radius), 0), int(row + radius) + 2)
        columns = slice(max(int(column - radius), 0), int(column + radius) + 2)
        y = (row - np.arange(self._side)[rows, None]) / radius
        x = (np.arange(self._side)[None, columns] - column) / radius
        z = np.sqrt(np.maximum(1 - x**2 - y**2, 0))
        heights = centre[2] + radius * z
        seen = (x**2 + y**2 <= 1) & (heights > self._heights[rows, columns])
        light = x * _LIGHT[0] + y * _LIGHT[1] + z * _LIGHT[2]
        shade = (0.62 + 0.38 * np.maximum(light, 0)) * np.where(z < 0.3, 0.6, 1.0)
        shine = 0.45 * np.maximum(light, 0) ** 24
        drawn = np.minimum(colour * shade[..., None] + shine[..., None], 1)
        fog = self._fog(centre[2])
        self.colours[rows, columns][seen] = (drawn * (1 - fog) + fog)[seen]
        self._heights[rows, columns][seen] = heights[seen]

    def line(self, start: np.ndarray, end: np.ndarray) -> None:
        """Draw a line of one shown pixel's width where nothing is nearer."""
        steps = int(np.abs(end - start)[:2].max()) + 2
        points = start + np.linspace(0, 1, steps)[:, None] * (end - start)
        fog = self._fog(points[:, 2])
        for right, down in product(range(_OVERSAMPLING), repeat=2):
            columns = np.clip(self._side / 2 + points[:, 0] + right, 0, self._side - 1).astype(int)
            rows = np.clip(self._side / 2 - points[:, 1] + down, 0, self._side - 1).astype(int)
            seen = points[:, 2] > self._heights[rows, columns]
            self.colours[rows[seen], columns[seen]] = (_EDGE_COLOUR * (1 - fog) + fog)[seen, None]

    def _fog(self, height: np.ndarray) -> np.ndarray:
        """Return the share of white at heights, 0 at the front."""
        return np.clip(_FOG * (0.5 - height / self._depth), 0, _FOG)


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
    return figure_png(figure, dots=80)


def figure_png(figure: Figure, dots: int, colours: int | None = None) -> bytes:
    """Return a figure as PNG.

    Args:
        figure: what to draw.
        dots: dots per inch.
        colours: number of different colours in the file, at most 256; None keeps all. With 256 the file has a quarter
            of the size, and the shading of spheres shows steps.
    """
    buffer = io.BytesIO()
    canvas = FigureCanvasAgg(figure)
    if colours is None:
        figure.savefig(buffer, format="png", dpi=dots)
    else:
        figure.set_dpi(dots)
        canvas.draw()
        picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
        picture.quantize(colours, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
            buffer, format="png", optimize=True
        )
    return buffer.getvalue()
