"""The census of a source as one picture: periodic table, cells, densities, space groups, rejects.

Drawn without pyplot, which has global state and needs a display. Long tails are cut: a histogram shows at least the
middle 98 %, and states the number of crystals beyond.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from pymatgen.core import Element

from crystens.crystal import MAX_ATOMIC_NUMBER, NUM_SPACE_GROUPS
from crystens.errors import CrystensError
from crystens.sources.record import SPLITS
from crystens.sources.rejects import count_categories
from crystens.survey.columns import Census
from crystens.symmetry.space_groups import CRYSTAL_SYSTEMS

_DOTS = 150  # per inch
_INK, _GREY, _PALE = "#1f2933", "#52606d", "#eef1f4"
_MAIN, _LENGTH, _ANGLE, _REJECT = "#2f6690", "#3a7d6b", "#8a5a99", "#c2410c"
_SHADES = ("#e3eff6", "#9cc7df", "#3f8fbf", "#1c5a8d", "#0b2f55")  # few to many
# One colour for each crystal system, from the Okabe-Ito palette, which colour-blind readers can distinguish.
_SYSTEM_COLOURS = ("#7a7a7a", "#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#d55e00", "#0072b2")

_BINS = 40
_TAIL = 0.01  # share of crystals that may be cut off on each side
_REASONS = 12  # categories that are drawn
_LINE = 62  # characters of a reason on one line
_LANTHANIDES, _ACTINIDES = range(57, 72), range(89, 104)


def draw(census: Census, path: str | Path) -> Path:
    """Draw a census, write it as PNG and return its path.

    Raises:
        CrystensError: if the file cannot be written.
    """
    figure = _figure(census)
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", dpi=_DOTS)
    except OSError as error:
        raise CrystensError(f"cannot write {path}: {error.strerror}; choose another folder") from error
    return path


def _figure(census: Census) -> Figure:
    """Return the figure of a census."""
    figure = Figure(figsize=(16, 14.8))
    FigureCanvasAgg(figure)
    figure.text(0.045, 0.982, _short(census.name), fontsize=17, fontweight="bold", color=_INK, va="top")
    top = GridSpec(2, 12, figure, 0.045, 0.605, 0.985, 0.93, hspace=0.12, wspace=0.5, height_ratios=(1, 3.7))
    _draw_elements(figure.add_subplot(top[:, :8]), census.element_counts)
    _draw_facts(figure.add_subplot(top[0, 8:]), census)
    _draw_rejects(figure.add_subplot(top[1, 8:]), census)
    rows = GridSpec(3, 12, figure, 0.045, 0.04, 0.985, 0.57, hspace=0.46, wspace=1.1)
    _draw_whole_numbers(figure.add_subplot(rows[0, :3]), census.counts, "sites in a cell")
    _draw_whole_numbers(figure.add_subplot(rows[0, 3:6]), census.elements_per_crystal, "elements in a crystal")
    _draw_values(figure.add_subplot(rows[0, 6:9]), census.volumes_per_site, "volume per site (Å³)", _MAIN)
    _draw_values(figure.add_subplot(rows[0, 9:]), census.densities, "density (g/cm³)", _MAIN)
    cell = rows[1, :].subgridspec(1, 6, wspace=0.36)
    edges, spread = _edges(census.lengths), _edges(census.angles)
    for k, (length, angle) in enumerate(zip("abc", "αβγ", strict=True)):
        _draw_values(figure.add_subplot(cell[k]), census.lengths[:, k], f"{length} (Å)", _LENGTH, edges)
        _draw_values(figure.add_subplot(cell[3 + k]), census.angles[:, k], f"{angle} (°)", _ANGLE, spread, log=True)
    _draw_space_groups(figure.add_subplot(rows[2, :]), census)
    return figure


def _draw_elements(axes: Axes, counts: np.ndarray) -> None:
    """Draw the periodic table, each element coloured by the number of crystals with it."""
    norm, colours = LogNorm(1, max(int(counts.max()), 10)), _colours()
    for number in range(1, MAX_ATOMIC_NUMBER + 1):
        column, row = _place(number)
        count = int(counts[number])
        shade = colours(norm(count)) if count else _PALE
        axes.add_patch(Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, facecolor=shade, linewidth=0))
        ink = "#a9b3bd" if not count else "white" if norm(count) > 0.5 else _INK
        axes.text(column - 0.4, row - 0.4, str(number), fontsize=5.5, color=ink, va="top")
        axes.text(column, row + 0.02, Element.from_Z(number).symbol, fontsize=12, color=ink, ha="center", va="center")
        if count:
            axes.text(column, row + 0.42, _compact(count), fontsize=6.5, color=ink, ha="center", va="bottom")
    for row, numbers in ((6, _LANTHANIDES), (7, _ACTINIDES)):
        label = f"{numbers[0]}–{numbers[-1]}"
        axes.text(3, row, label, fontsize=8, color=_GREY, ha="center", va="center")
    axes.set(xlim=(0.5, 18.6), ylim=(9.9, 0.4), aspect="equal", anchor="NW")
    axes.axis("off")
    axes.set_title("crystals with each element", fontsize=12, color=_INK, loc="left")
    bar = axes.inset_axes((3.0, 1.55, 8.6, 0.32), transform=axes.transData)
    axes.figure.colorbar(ScalarMappable(norm, colours), cax=bar, orientation="horizontal")
    bar.xaxis.set_major_formatter(_plain())
    bar.xaxis.set_minor_formatter(NullFormatter())
    bar.tick_params(labelsize=8, color=_GREY, labelcolor=_GREY)
    bar.set_title("number of crystals", fontsize=9, color=_GREY)


def _place(number: int) -> tuple[float, float]:
    """Return column and row of an element in the table; the f block is below it."""
    for row, numbers in ((8.35, _LANTHANIDES), (9.35, _ACTINIDES)):
        if number in numbers:
            return 4.0 + number - numbers[0], row
    element = Element.from_Z(number)
    return float(element.group), float(element.row)


def _draw_facts(axes: Axes, census: Census) -> None:
    """Write the most important numbers."""
    splits = Counter(census.splits)
    given = {split: splits[split] for split in SPLITS if splits[split]}
    facts = [
        (f"{len(census):,}", "crystals"),
        (f"{len(np.unique(census.formulas)):,}", "formulas"),
        (f"{np.count_nonzero(census.element_counts)}", "elements"),
        (f"{len(np.unique(census.space_groups))}", "space groups"),
        (" / ".join(_compact(count) for count in given.values()) or "no", " / ".join(given) or "splits"),
        (f"{len(census.rejects):,}", "set aside"),
    ]
    for k, (number, label) in enumerate(facts):
        x, y = (0, 0.34, 0.63)[k // 2], (0.86, 0.26)[k % 2]
        size = 19 if len(number) < 9 else 11
        axes.text(x, y, number, fontsize=size, color=_MAIN, fontweight="bold", transform=axes.transAxes)
        axes.text(x, y - 0.06, label, fontsize=10, color=_GREY, va="top", transform=axes.transAxes)
    axes.axis("off")


def _draw_rejects(axes: Axes, census: Census) -> None:
    """Draw the number of rejects for each reason, with the reason above its bar."""
    axes.axis("off")
    categories = count_categories(census.rejects)
    if not categories:
        return
    axes.set_title("set aside, by reason", fontsize=12, color=_INK, loc="left")
    if len(categories) > _REASONS:
        rest = categories[_REASONS - 1 :]
        categories = [*categories[: _REASONS - 1], (f"{len(rest)} other reasons", sum(count for _, count in rest))]
    most = max(count for _, count in categories)
    for row, (category, count) in enumerate(categories):
        named = row + 1 < _REASONS or not category.endswith(" other reasons")
        axes.barh(row + 0.2, count, height=0.3, color=_REJECT if named else _GREY)
        axes.text(0, row, _short(category, _LINE), fontsize=8.5, color=_INK, va="bottom")
        axes.text(count + 0.015 * most, row + 0.2, f"{count:,}", fontsize=8.5, color=_GREY, va="center")
    axes.set(xlim=(0, 1.12 * most), ylim=(max(len(categories), 8) - 0.4, -0.6))


def _draw_whole_numbers(axes: Axes, values: np.ndarray, label: str) -> None:
    """Draw a bar for each positive integer, or for ranges of integers if there are many."""
    high = max(int(np.quantile(values, 1 - _TAIL, method="higher")), 5)
    step = -(-high // 60)
    edges = np.arange(1, high + 2 * step, step) - 0.5
    counts, _ = np.histogram(values, edges)
    axes.bar(edges[:-1] + step / 2, counts, width=0.86 * step, color=_MAIN)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    _finish(axes, values, edges, counts, label)


def _draw_values(
    axes: Axes, values: np.ndarray, label: str, colour: str, edges: np.ndarray | None = None, log: bool = False
) -> None:
    """Draw a histogram of real numbers."""
    edges = _edges(values) if edges is None else edges
    counts, _ = np.histogram(values, edges)
    axes.stairs(counts, edges, fill=True, color=colour, baseline=0.5 if log else 0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    _finish(axes, values, edges, counts, label, log)


def _edges(values: np.ndarray) -> np.ndarray:
    """Return the edges of bins around the middle of values, with a margin if all values are equal."""
    low, high = np.quantile(values, (_TAIL, 1 - _TAIL), method="inverted_cdf")
    room = max(0.04 * (high - low), 0.5)
    return np.linspace(max(low - room, 0), high + room, _BINS + 1)


def _finish(
    axes: Axes, values: np.ndarray, edges: np.ndarray, counts: np.ndarray, label: str, log: bool = False
) -> None:
    """Set the axes and labels of a histogram, and state the number of values beyond its range."""
    if log:
        _count_in_decades(axes, int(counts.max()))
    else:
        axes.set_ylim(0, 1.18 * max(int(counts.max()), 1))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axes.yaxis.set_major_formatter(_plain())
    axes.set_xlim(edges[0], edges[-1])
    below, above = int((values < edges[0]).sum()), int((values > edges[-1]).sum())
    notes = [f"{_compact(below)} below"] * bool(below) + [f"{_compact(above)} above"] * bool(above)
    axes.text(0.985, 0.97, ", ".join(notes), fontsize=8, color=_GREY, ha="right", va="top", transform=axes.transAxes)
    _dress(axes, label)


def _count_in_decades(axes: Axes, most: int) -> None:
    """Set a logarithmic axis of counts, on which a count of 1 is still visible."""
    axes.set_yscale("log")
    axes.set_ylim(0.5, 3 * max(most, 10))
    axes.yaxis.set_major_formatter(_plain())
    axes.yaxis.set_minor_formatter(NullFormatter())


def _draw_space_groups(axes: Axes, census: Census) -> None:
    """Draw a bar for each space group, coloured by crystal system."""
    counts = np.bincount(census.space_groups, minlength=NUM_SPACE_GROUPS + 1)
    systems = np.bincount(census.crystal_systems, minlength=len(CRYSTAL_SYSTEMS))
    ends = [*list(CRYSTAL_SYSTEMS.values())[1:], NUM_SPACE_GROUPS + 1]
    for (name, first), end, colour, total in zip(CRYSTAL_SYSTEMS.items(), ends, _SYSTEM_COLOURS, systems, strict=True):
        groups = np.arange(first, end)
        label = f"{name} {100 * total / len(census):.1f} %"
        axes.bar(groups, np.maximum(counts[groups] - 0.5, 0), bottom=0.5, width=0.85, color=colour, label=label)
    _count_in_decades(axes, int(counts.max()))
    axes.set_xlim(0, NUM_SPACE_GROUPS + 1)
    axes.set_xticks([1, *list(CRYSTAL_SYSTEMS.values())[1:], NUM_SPACE_GROUPS])
    _dress(axes, "space group number")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(CRYSTAL_SYSTEMS), frameon=False, fontsize=10)


def _dress(axes: Axes, label: str) -> None:
    """Set the labels and the plain frame of a histogram."""
    axes.set_xlabel(label, fontsize=10, color=_INK)
    axes.set_ylabel("crystals", fontsize=9, color=_GREY)
    axes.tick_params(labelsize=8, color=_GREY, labelcolor=_GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GREY)


def _colours() -> Colormap:
    """Return the colours from few to many."""
    return LinearSegmentedColormap.from_list("few to many", _SHADES)


def _plain() -> FuncFormatter:
    """Return the formatter of counts on an axis."""
    return FuncFormatter(lambda value, _: _compact(round(value)))


def _compact(count: int) -> str:
    """Return a number in at most five characters."""
    if count < 10_000:
        return str(count)
    return f"{count / 1000:.0f}k" if count < 1_000_000 else f"{count / 1e6:.3g}M"


def _short(text: str, width: int = 90) -> str:
    """Return text on one line, without its middle if it is too wide, and with dollar signs escaped."""
    line = "".join(c if c.isprintable() else "?" for c in text)
    if len(line) > width:
        line = f"{line[: width // 2]}…{line[-(width // 2 - 1) :]}"
    return line.replace("$", r"\$")
