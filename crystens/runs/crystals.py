"""Rows of crystals for the page of runs, of each run some that its own report shows."""

from __future__ import annotations

import csv
from html import escape
from pathlib import Path

from crystens.crystal import Crystal
from crystens.data.cif import read_cif
from crystens.data.entries import Reject
from crystens.data.generated import JudgingLimits
from crystens.metrics.table import OK, Row
from crystens.pictures import crystal_picture
from crystens.report import chosen_samples
from crystens.runs.figures import colours
from crystens.runs.markup import inline_image, named_run
from crystens.runs.run import Run
from crystens.runs.settings import NOTHING, SEEDS
from crystens.runs.table import Table

NUM_PICTURES = 8  # of a run
_MOST_PICTURES = 240  # of all runs; with more runs each has fewer, but none is left out


def crystal_rows(table: Table, out: Path, pictures: int | None) -> str:
    """Return a row of crystals of each run."""
    runs = [run for run in table.runs if run.samples is not None]
    if not runs or pictures == 0:
        return ""
    each = pictures if pictures is not None else max(1, min(NUM_PICTURES, _MOST_PICTURES // len(runs)))
    own = colours(table.runs)
    labels = {id(run): group.label for group in table.groups for run in group.runs}
    seeds = [name for name in SEEDS if name in table.settings]
    rows = []
    for run in table.runs:
        told = ", ".join([labels[id(run)], *(f"{table.settings[name]} {table.setting(run, name)}" for name in seeds)])
        rows.append(
            f"<h3>{named_run(run, own[run.model], out)} <span>{escape(told)}</span></h3>\n{_row_of_crystals(run, each)}"
        )
    return (
        f'<h2>Crystals</h2>\n<p class="note">Up to {each} of each run, chosen by seed and not by hand, among those of '
        "its own report; SG: number of the space group found in the atoms.</p>\n" + "\n".join(rows)
    )


def _row_of_crystals(run: Run, each: int) -> str:
    """Return pictures of crystals of a run, or why there are none."""
    if run.samples is None:
        return f'<p class="note">{escape(run.state)}</p>'
    try:
        crystals, total = drawn_crystals(run, each)
    except (OSError, KeyError, ValueError, csv.Error) as error:
        return f'<p class="note">crystals.csv cannot be read: {escape(str(error))}</p>'
    if not total:
        return '<p class="note">no sample became a crystal</p>'
    if not crystals:
        return f'<p class="note">{total} crystals, not drawn: the CIFs are not in this folder</p>'
    figures = []
    for row, crystal in crystals:
        invalid = "" if row["structurally_valid"] == "true" else "<br>structurally invalid"
        caption = (
            f"<b>{escape(row['formula'])}</b><br>SG {row['space_group'] or NOTHING}, sample {row['index']}{invalid}"
        )
        picture = inline_image(crystal_picture(crystal), row["formula"])
        figures.append(f"<figure>{picture}<figcaption>{caption}</figcaption></figure>")
    return '<div class="crystals">' + "\n".join(figures) + "</div>"


def drawn_crystals(run: Run, number: int) -> tuple[list[tuple[Row, Crystal]], int]:
    """Return some samples of a run with their crystals, among those that its own report shows, and how many decoded.

    Args:
        run: with a folder of samples.
        number: of crystals at most; one whose CIF is not there is left out.
    """
    assert run.samples is not None
    with (run.samples / "crystals.csv").open(encoding="utf-8", newline="") as file:
        rows: dict[int, Row] = {int(row["index"]): {**row, "index": int(row["index"])} for row in csv.DictReader(file)}
    found = []
    for index in chosen_samples(list(rows.values()), run.seed)[:number]:
        path = run.samples / str(rows[index]["file"])
        if not path.is_file():
            continue
        entry = read_cif(path.read_bytes(), path.name, JudgingLimits())[0]
        if not isinstance(entry, Reject):
            found.append((rows[index], entry.crystal))
    return found, sum(row["status"] == OK for row in rows.values())
