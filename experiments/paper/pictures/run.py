"""Pages of pictures of crystals, one for each model and one of real crystals, chosen by seed; see README.md.

python experiments/paper/pictures/run.py RUNS/NAME DATA --out DIR [--number 20] [--seed 0] [--training-seed 0]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from pymatgen.core import Composition

from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.evaluate import JudgingLimits
from crystens.ingest.ingest import open_store
from crystens.ingest.kinds import open_source
from crystens.metrics.crystal_table import OK, CrystalTable, Row, crystal_row
from crystens.report.pictures import draw_crystal, figure_png
from crystens.report.viewer import space_group_name
from crystens.sources.limits import Limits
from crystens.sources.record import Entry

RECIPES = Path(__file__).parents[1] / "recipes.yaml"

_COLUMNS = 5
_TILE, _CAPTION, _HEAD = 1.75, 0.62, 0.8  # inches
_DOTS = 120


@dataclass(frozen=True)
class Page:
    """One page: all rows of a set, and the crystals of those that are shown."""

    name: str
    title: str
    size: str
    rows: list[Row]
    shown: list[int]
    crystals: dict[int, Crystal]


def chosen(count: int, number: int, seed: int) -> list[int]:
    """Return places of all samples, those that failed too, chosen by seed, in order."""
    return sorted(random.Random(seed).sample(range(count), min(number, count)))


def generated_page(run: Path, recipe: str, label: str, number: int, seed: int) -> Page:
    """Return the page of a finished run."""
    folder = run / "samples"
    rows = CrystalTable(folder / "crystals.csv").rows()
    shown = chosen(len(rows), number, seed)
    made = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["provenance"]["value"]
    crystals = {}
    for item in open_source(str(folder / "cifs")).read(JudgingLimits()):
        if not isinstance(item, Entry):
            raise CrystensError(f"{folder / 'cifs'}: {item.file} cannot be read: {item.reason}")
        crystals[int(Path(item.file).stem)] = item.crystal
    trained = f"{made['trained']} on {made['reference']['count']} crystals, training seed {made['training_seed']}"
    return Page(
        f"{recipe}_{run.parent.name}",
        f"{made['model']}, {recipe}: {len(shown)} of all {len(rows)} samples, chosen by seed {seed}",
        f"{label}; {trained}\n{_counted(rows)}",
        rows,
        shown,
        {index: crystals[index] for index in shown if rows[index]["status"] == OK},
    )


def real_page(data: str, recipe: str, max_sites: int, number: int, seed: int) -> Page:
    """Return the page of crystals of the test split that are no larger than the models' crystals."""
    store = open_store(open_source(data), Limits(max_sites=max_sites))
    places = [place for place, split in enumerate(store.column("split")) if split == "test"]
    if not places:
        raise CrystensError(f"{data} has no test split")
    rows = [crystal_row(index, store[place]) for index, place in enumerate(places)]
    shown = chosen(len(places), number, seed)
    return Page(
        f"{recipe}_real",
        f"Real crystals, {recipe}: {len(shown)} of all {len(rows)} of the test split, chosen by seed {seed}",
        f"crystals of at most {max_sites} sites",
        rows,
        shown,
        {index: store[places[index]] for index in shown},
    )


def _counted(rows: Sequence[Row]) -> str:
    """Return in words how many samples became crystals, and valid ones."""
    decoded = [row for row in rows if row["status"] == OK]
    valid = sum(bool(row["structurally_valid"]) for row in decoded)
    return f"{len(decoded)} of {len(rows)} decoded, {valid} structurally valid"


def draw(page: Page) -> bytes:
    """Return a page as PNG."""
    lines = -(-len(page.shown) // _COLUMNS)
    width, height = _COLUMNS * _TILE + 0.2, _HEAD + lines * (_TILE * 1.1 + _CAPTION)
    figure = Figure(figsize=(width, height))
    figure.text(0.1 / width, 1 - 0.2 / height, page.title, fontsize=10, weight="bold", va="center")
    figure.text(0.1 / width, 1 - 0.32 / height, page.size, fontsize=7, va="top", linespacing=1.35)
    for place, index in enumerate(page.shown):
        line, column = divmod(place, _COLUMNS)
        left, top = 0.1 + column * _TILE, height - _HEAD - line * (_TILE * 1.1 + _CAPTION)
        tile = figure.add_axes(
            ((left + 0.05) / width, (top - _TILE * 1.1) / height, (_TILE - 0.1) / width, _TILE * 1.1 / height)
        )
        row = page.rows[index]
        if index in page.crystals:
            draw_crystal(tile, page.crystals[index])
        else:
            _blank(tile, row["reason"] or "no reason")
        caption, invalid = _caption(row)
        x, y = (left + _TILE / 2) / width, (top - _TILE * 1.1) / height
        first, *rest = caption
        figure.text(x, y, first, fontsize=7.5, weight="bold", ha="center", va="top")
        figure.text(x, y - 0.14 / height, "\n".join(rest), fontsize=6.5, ha="center", va="top", linespacing=1.25)
        if invalid:
            figure.text(
                x, top / height, invalid, fontsize=7, color="white", weight="bold", ha="center", va="top",
                bbox={"facecolor": "#b91c1c", "edgecolor": "none", "pad": 1.5},
            )  # fmt: skip
    return figure_png(figure, dots=_DOTS, colours=256)


def _blank(tile: Axes, reason: str) -> None:
    """Write into a tile why it holds no crystal."""
    tile.set_xticks([])
    tile.set_yticks([])
    tile.spines[:].set_color("0.8")
    told = "\n".join(textwrap.wrap(f"not decoded: {reason}", 26, max_lines=9))
    tile.text(0.5, 0.5, told, transform=tile.transAxes, fontsize=6.5, color="0.35", ha="center", va="center")


def _caption(row: Row) -> tuple[list[str], str]:
    """Return the lines below a tile, and the mark of an invalid crystal."""
    if row["status"] != OK:
        return [f"sample {row['index']}"], ""
    found = "none" if row["space_group"] is None else space_group_name(row["space_group"])
    generated = row.get("generated_space_group")
    groups = f"found {found}" + ("" if generated is None else f", generated {generated}")
    nearest = "–" if row["shortest_distance"] is None else f"{row['shortest_distance']:.2f} Å"
    merged = row.get("merged_sites")
    invalid = "" if row["structurally_valid"] else ("invalid: sites merged" if merged else "invalid")
    sites = "1 site" if row["num_sites"] == 1 else f"{row['num_sites']} sites"
    return [row["formula"], groups, f"{sites}, shortest distance {nearest}"], invalid


def summary(pages: Sequence[Page]) -> str:
    """Return numbers of all decoded samples, and of all real crystals, as a Markdown table."""
    lines = [
        "| | samples | decoded | valid | formulas | sites | 1, 2, 3, 4 or more elements (%) | with a noble gas | "
        "shortest distance (Å) | below 1 Å | P1 found | found = generated | most frequent groups found |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for page in pages:
        rows = [row for row in page.rows if row["status"] == OK]
        near = np.array([row["shortest_distance"] for row in rows if row["shortest_distance"] is not None])
        groups = Counter(row["space_group"] for row in rows)
        often = ", ".join(
            f"{space_group_name(group)} {count / len(rows):.0%}" for group, count in groups.most_common(4) if group
        )
        elements = [Composition(row["formula"]).elements for row in rows]
        kinds = np.bincount([min(len(some), 4) for some in elements], minlength=5)[1:] / len(rows)
        noble = np.mean([any(element.is_noble_gas for element in some) for some in elements])
        asked = [row["generated_space_group"] == row["space_group"] for row in rows if "generated_space_group" in row]
        lines.append(
            f"| {page.name} | {len(page.rows)} | {len(rows)} | "
            f"{sum(bool(row['structurally_valid']) for row in rows) / len(page.rows):.0%} | "
            f"{len({row['formula'] for row in rows})} | "
            f"{np.median([row['num_sites'] for row in rows]):.0f} | "
            f"{', '.join(f'{100 * share:.0f}' for share in kinds)} | "
            f"{noble:.0%} | {np.median(near):.2f} | {np.mean(near < 1):.0%} | {groups[1] / len(rows):.0%} | "
            f"{f'{np.mean(asked):.1%}' if asked else '–'} | {often} |"
        )
    return "\n".join(lines) + (
        "\n\nValid: of all samples; all that follows: of the decoded. Formulas: different ones. Sites and shortest "
        "distance: medians.\n"
    )


def pages(options: argparse.Namespace) -> list[Page]:
    """Return all pages that can be made; a model without a finished run is told and left out."""
    recipe = options.runs.resolve().name
    recipes: Any = OmegaConf.to_container(OmegaConf.load(RECIPES))
    if recipe not in recipes:
        raise CrystensError(f"{options.runs}: no recipe {recipe!r} in {RECIPES}; there are {', '.join(recipes)}")
    made, sides = [], set()
    for model in recipes[recipe]["models"]:
        run = options.runs / model / f"seed_{options.training_seed}"
        if not (run / "samples" / "report.html").exists():
            sys.stderr.write(f"left out: {run} has no judged samples\n")
            continue
        made.append(generated_page(run, recipe, recipes[recipe]["label"], options.number, options.seed))
        sides.add(int(OmegaConf.load(run / "config.yaml").max_sites))
    if not made:
        raise CrystensError(f"no finished run of training seed {options.training_seed} in {options.runs}")
    return [real_page(options.data, recipe, max(sides), options.number, options.seed), *made]


def main() -> int:
    """Write NAME_MODEL.png for every model, NAME_real.png and NAME.md."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, help="folder of the runs of one recipe, as experiments/paper/run.py made it")
    parser.add_argument("data", help="where the recipe's data is")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--number", type=int, default=20, help="of crystals on a page")
    parser.add_argument("--seed", type=int, default=0, help="chooses the crystals")
    parser.add_argument("--training-seed", type=int, default=0, help="whose run is drawn")
    options = parser.parse_args()
    try:
        drawn = pages(options)
        options.out.mkdir(parents=True, exist_ok=True)
        for page in drawn:
            (options.out / f"{page.name}.png").write_bytes(draw(page))
        table = summary(drawn)
        (options.out / f"{options.runs.resolve().name}.md").write_text(table, encoding="utf-8")
    except (CrystensError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
