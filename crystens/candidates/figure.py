"""Picture of the candidates, as in the paper's Fig. 13: crystals before and after, and energies of all stages."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from PIL import Image

from crystens.candidates.selection import Candidate
from crystens.crystal import Crystal
from crystens.report.pictures import GENERATED_COLOUR, REAL_COLOUR, crystal_picture

_COLUMNS = 4
_MOST = 20  # candidates with a picture; hundreds would be too small to see


def candidates_figure(candidates: Sequence[Candidate], title: str) -> bytes:
    """Return pictures of the first candidates, as generated and relaxed, and the energies of all, as PNG.

    Args:
        candidates: in their order.
        title: title with the reference of the energies.
    """
    shown = candidates[:_MOST]
    rows = math.ceil(len(shown) / _COLUMNS)
    figure = Figure(figsize=(2.9 * _COLUMNS, 1.75 * rows + 3.4), layout="constrained")
    figure.suptitle(title, fontsize=8)
    grid = figure.add_gridspec(rows + 1, 2 * _COLUMNS, height_ratios=[1.75] * rows + [3.2])
    for place, candidate in enumerate(shown):
        row, column = divmod(place, _COLUMNS)
        before = figure.add_subplot(grid[row, 2 * column])
        after = figure.add_subplot(grid[row, 2 * column + 1])
        _crystal(before, candidate.ranked.crystal, _before(candidate))
        _crystal(after, candidate.final, _after(candidate))
    _energies(figure.add_subplot(grid[rows, :]), candidates)
    return _png(figure)


def _crystal(axes: Axes, crystal: Crystal, label: str) -> None:
    """Draw one crystal."""
    axes.imshow(imread(io.BytesIO(crystal_picture(crystal))), interpolation="antialiased")
    axes.set_title(label, fontsize=6.5, pad=2)
    axes.set_axis_off()


def _before(candidate: Candidate) -> str:
    """Return the title of a generated crystal."""
    return f"{candidate.rank}. {candidate.ranked.crystal.formula}\n{_number(candidate.ranked.value)}"


def _after(candidate: Candidate) -> str:
    """Return the title of a relaxed crystal."""
    if candidate.relaxations.crystal is None:
        return f"{candidate.cleaned.crystal.formula}\nnot relaxed"
    place = candidate.place
    value = place.formation_energy if place.above_hull is None else place.above_hull
    value = candidate.relaxations.energy_after if value is None else value
    return f"{candidate.cleaned.crystal.formula}\n{_number(value)}"


def _number(value: float | None) -> str:
    """Return an energy per atom in words."""
    return "unknown" if value is None else f"{value:.2f} eV/atom"


def _energies(axes: Axes, candidates: Sequence[Candidate]) -> None:
    """Draw the energy of each candidate as generated, cleaned and after each relaxation, relative to the last."""
    lowest = 0.0
    for candidate in candidates:
        last, sites = candidate.relaxations.energy_after, len(candidate.cleaned.crystal)
        if last is None:
            continue
        runs = [run.total / sites - last for run in candidate.relaxations.runs if run.total is not None]
        cleaned = (candidate.relaxations.energy_before or last) - last
        total = candidate.ranked.energy.total
        colour = REAL_COLOUR
        values, places = [cleaned, *runs], list(range(1, len(runs) + 2))
        # The energy as generated belongs to another composition.
        if total is not None and candidate.ranked.crystal.formula == candidate.cleaned.crystal.formula:
            values, places = [total / len(candidate.ranked.crystal) - last, *values], [0, *places]
        if candidate.cleaned.charge == "repaired":
            colour = GENERATED_COLOUR
        axes.plot(places, values, "o-", color=colour, markersize=3, linewidth=1, alpha=0.8)
        lowest = min(lowest, *values)
    axes.set_ylim(bottom=lowest - 5e-4)
    runs_done = max((len(candidate.relaxations.runs) for candidate in candidates), default=0)
    axes.set_xticks(
        range(runs_done + 2), ["generated", "cleaned", *(f"relaxed {run}" for run in range(1, runs_done + 1))]
    )
    axes.set_yscale("symlog", linthresh=0.001)
    axes.set_ylabel("energy relative to the last (eV/atom)", fontsize=8)
    axes.set_title("grey: elements as generated; orange: an element was replaced", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)


def _png(figure: Figure) -> bytes:
    """Return a figure as PNG, in 128 colours: a third of the bytes."""
    drawn, small = io.BytesIO(), io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(drawn, format="png", dpi=90)
    Image.open(drawn).convert("RGB").quantize(128).save(small, format="png", optimize=True)
    return small.getvalue()
