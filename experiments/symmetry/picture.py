"""Draw crystals of a model, taken by seed and not chosen, and one image: the picture of the README.

python experiments/symmetry/picture.py mp_52 docs/pictures/crystals.png --asked formula=SrTiO3 space_group=221
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

import crystens
from crystens.crystal import Crystal, as_crystal
from crystens.decoding import DecodedCrystal
from crystens.encoding import HEADER
from crystens.generator import Generator
from crystens.report.pictures import draw_crystal, figure_png

ROWS, COLUMNS = 2, 6
TOLERANCE = 0.01  # angstrom, tolerance of the search for the space group
CHANNELS = ("distances", "differences of x", "differences of y", "differences of z")


def main() -> None:
    """Sample, draw and write the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", help="a released model, a checkpoint file or a run folder")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--asked", nargs="*", default=[], metavar="CONDITION=VALUE", help="of the last two crystals")
    arguments = parser.parse_args()
    generator = crystens.load(arguments.checkpoint, device="cpu")
    asked = dict(one.split("=", 1) for one in arguments.asked)
    arguments.out.write_bytes(figure_png(picture(generator, arguments.seed, asked), dots=110))


def picture(generator: Generator, seed: int, asked: dict[str, Any]) -> Figure:
    """Return the figure: crystals in their conventional cells, and below them the image of the one with most orbits."""
    number = ROWS * COLUMNS - (2 if asked else 0)
    decoded = generator.decode(generator.sample_images(number, seed))
    titles = [""] * number
    if asked:
        decoded += generator.decode(generator.sample_images(2, seed, **asked))
        titles += [f"asked: {', '.join(map(str, asked.values()))}"] * 2
    figure = Figure(figsize=(2.0 * COLUMNS, 2.55 * ROWS + 3.1), layout="constrained")
    (crystals,), (image,) = figure.subfigures(2, 1, squeeze=False, height_ratios=[2.55 * ROWS, 3.1])
    for axes, one, title in zip(crystals.subplots(ROWS, COLUMNS).flat, decoded, titles, strict=True):
        _draw(axes, one, title)
    images = generator.sample_images(number, seed).float().numpy(force=True)
    slots = [int(one[:, HEADER:, :HEADER].any(axis=(0, 2)).sum()) for one in images]
    largest = max(range(number), key=slots.__getitem__)
    side = HEADER + slots[largest]
    of = decoded[largest].crystal
    image.suptitle(f"The image of {'no crystal' if of is None else of.formula}: four channels", fontsize=9)
    for axes, channel, label in zip(image.subplots(1, 4), images[largest, :, :side, :side], CHANNELS, strict=True):
        axes.imshow(channel, vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
        axes.set_title(label, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.axhline(HEADER - 0.5, color="white", linewidth=0.6)
        axes.axvline(HEADER - 0.5, color="white", linewidth=0.6)
    return figure


def _draw(axes: Axes, decoded: DecodedCrystal, title: str) -> None:
    """Draw one sample with its formula and the space group of its atoms, or the reason of its failure."""
    if decoded.crystal is None:
        axes.set_axis_off()
        axes.text(0.5, 0.5, f"not decoded:\n{decoded.reason}", ha="center", va="center", fontsize=7, wrap=True)
        return
    found = SpacegroupAnalyzer(decoded.crystal.to_structure(), TOLERANCE)
    draw_crystal(axes, conventional(found))
    name = f"{decoded.crystal.formula}, {found.get_space_group_symbol()}"
    axes.set_title(f"{title}\n{name}" if title else name, fontsize=8.5)


def conventional(found: SpacegroupAnalyzer) -> Crystal:
    """Return the crystal in its conventional standard cell."""
    return as_crystal(found.get_conventional_standard_structure(), space_group=found.get_space_group_number())


if __name__ == "__main__":
    main()
