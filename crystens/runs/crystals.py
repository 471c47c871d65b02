"""Rows of crystals for the page of runs: some of each run, out of those in its own report."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from typing import Any

from crystens.cif.read import read_cif
from crystens.crystal import Crystal
from crystens.ingest.generated import JudgingLimits, read_table
from crystens.metrics.crystal_table import OK, Row
from crystens.report.page import chosen_samples
from crystens.report.pictures import crystal_picture
from crystens.runs.run import Run
from crystens.runs.settings import NOTHING, SEEDS
from crystens.runs.table import Table
from crystens.sources.record import Reject

NUM_PICTURES = 8  # for each run
_MOST_PICTURES = 240  # for all runs together; with many runs each has fewer, but at least one


@dataclass
class CrystalRow:
    """Crystals of a run.

    Attributes:
        run: the run.
        label: settings and seeds of the run.
        crystals: each with its `picture` as PNG and `lines` of text.
        note: reason why there are none.
    """

    run: Run
    label: str
    crystals: list[dict[str, Any]] = field(default_factory=list)
    note: str | None = None


def crystals_each(table: Table, pictures: int | None) -> int:
    """Return the largest number of crystals drawn for each run; `pictures=None` takes a few."""
    runs = sum(run.samples is not None for run in table.runs)
    return pictures if pictures is not None else max(1, min(NUM_PICTURES, _MOST_PICTURES // max(runs, 1)))


def crystal_rows(table: Table, pictures: int | None) -> list[CrystalRow]:
    """Return a row of crystals for each run; no rows if no run has crystals, or if none are to be drawn."""
    if pictures == 0 or all(run.samples is None for run in table.runs):
        return []
    labels = {id(run): group.label for group in table.groups for run in group.runs}
    seeds = [name for name in SEEDS if name in table.settings]
    rows = []
    for run in table.runs:
        texts = [labels[id(run)], *(f"{table.settings[name]} {table.setting(run, name)}" for name in seeds)]
        row = CrystalRow(run, ", ".join(texts))
        _fill(row, crystals_each(table, pictures))
        rows.append(row)
    return rows


def _fill(row: CrystalRow, each: int) -> None:
    """Draw crystals of a run, or note the reason why there are none."""
    if row.run.samples is None:
        row.note = row.run.state
        return
    try:
        crystals, total = drawn_crystals(row.run, each)
    except (OSError, KeyError, ValueError, csv.Error) as error:
        row.note = f"crystals.csv cannot be read: {error}"
        return
    if not total:
        row.note = "no sample became a crystal"
    elif not crystals:
        row.note = f"{total} crystals, not drawn: the CIFs are not in this folder"
    for measured, crystal in crystals:
        lines = [measured["formula"], f"SG {measured['space_group'] or NOTHING}, sample {measured['index']}"]
        if measured["structurally_valid"] != "true":
            lines.append("structurally invalid")
        row.crystals.append({"picture": crystal_picture(crystal), "lines": lines})


def drawn_crystals(run: Run, number: int) -> tuple[list[tuple[Row, Crystal]], int]:
    """Return some samples of a run's own report with their crystals, and the number of samples that decoded.

    Args:
        run: a run with a folder of samples.
        number: largest number of crystals; crystals whose CIF is missing are left out.
    """
    assert run.samples is not None
    rows: dict[int, Row] = {int(row["index"]): {**row, "index": int(row["index"])} for row in read_table(run.samples)}
    found = []
    for index in chosen_samples(list(rows.values()), run.seed)[:number]:
        path = run.samples / str(rows[index]["file"])
        if not path.is_file():
            continue
        entry = read_cif(path.read_bytes(), path.name, JudgingLimits())[0]
        if not isinstance(entry, Reject):
            found.append((rows[index], entry.crystal))
    return found, sum(row["status"] == OK for row in rows.values())
