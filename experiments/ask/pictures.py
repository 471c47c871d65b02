"""Draw answers to formulas that train does not have, and to parts of a real crystal, beside the real crystals.

python experiments/ask/pictures.py mp_52 DIR/mp_52 --out asked.png

Formulas belong to test crystals, which are drawn by seed. No sample is chosen.
"""

from __future__ import annotations

import argparse
import random
import warnings
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

import crystens
from crystens.asking.question import Question
from crystens.chemistry.formulas import reduced_composition
from crystens.crystal import Crystal, as_crystal
from crystens.generator import Generator
from crystens.report.pictures import draw_crystal, figure_png
from crystens.samples.references import read_real

FORMULAS, EACH = 3, 4  # formulas, and samples of each
SITES = range(4, 11)  # of the real crystals' primitive cells
TOLERANCE = 0.01  # angstrom, tolerance of the search for the space group


def main() -> None:
    """Ask, draw and write the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    generator = crystens.load(options.checkpoint, device="cpu")
    known = {reduced_composition(crystal.numbers) for crystal in read_real("mp_52", options.data, "train")[0]}
    new = [
        crystal
        for crystal in read_real("mp_52", options.data, "test")[0]
        if len(crystal) in SITES and reduced_composition(crystal.numbers) not in known
    ]
    chosen = random.Random(options.seed).sample(new, FORMULAS + 1)
    options.out.write_bytes(figure_png(picture(generator, chosen, options.seed), dots=110))


def picture(generator: Generator, real: list[Crystal], seed: int) -> Figure:
    """Return the figure: a row for the formula of each real crystal, and a last row in which parts of one are kept."""
    figure = Figure(figsize=(2.0 * (1 + EACH), 2.6 * len(real)), layout="constrained")
    grid = figure.subplots(len(real), 1 + EACH)
    for row, crystal in zip(grid, real, strict=True):
        questions = [Question.of(formula=crystal.formula)] * EACH
        titles = ["asked for the formula"] * EACH
        if crystal is real[-1]:
            half = list(range(len(crystal) // 2))
            parts = (["cell", *half], ["cell", *half], ["cell", "sites"], ["cell", "sites"])
            questions = [Question.of(structure=crystal, keep=keep) for keep in parts]
            titles = ["half of the sites kept"] * 2 + ["elements drawn anew"] * 2
        _draw(row[0], crystal, "real, not in train")
        for place, (axes, question, title) in enumerate(zip(row[1:], questions, titles, strict=True)):
            conditions = {name: getattr(question, name) for name in ("structure", "keep") if getattr(question, name)}
            sample = generator.decode(generator.sample_images(1, seed + place, **(conditions or question.to_dict())))[0]
            _draw(axes, sample.crystal, title)
    return figure


def _draw(axes: Axes, crystal: Crystal | None, title: str) -> None:
    """Draw a crystal in its conventional cell, with its formula and the space group of its atoms."""
    if crystal is None:
        axes.set_axis_off()
        axes.set_title(f"{title}\nnot decoded", fontsize=8.5)
        return
    found = SpacegroupAnalyzer(crystal.to_structure(), TOLERANCE)
    shown = found.get_conventional_standard_structure()
    draw_crystal(axes, as_crystal(shown, space_group=found.get_space_group_number()))
    axes.set_title(f"{title}\n{crystal.formula}, {found.get_space_group_symbol()}", fontsize=8.5)


if __name__ == "__main__":
    main()
