"""Metrics by the number of sites in the cell: samples with large cells may fail where those with small cells do not."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from crystens.metrics.crystal_table import OK, Row
from crystens.metrics.distributions import Reference
from crystens.metrics.symmetry_metrics import symmetry_shares
from crystens.processes.atomic_file import write_csv

# Size classes of the page: cells with more sites than the first number and at most the second.
_SIZES = (0, 1, 2, 4, 8, 12, 16, 20, 52)
SIZE_RANGES: tuple[tuple[int, float, str], ...] = (
    *((low, high, f"{low + 1}-{high}" if high > low + 1 else str(high)) for low, high in itertools.pairwise(_SIZES)),
    (_SIZES[-1], math.inf, f"{_SIZES[-1] + 1} and more"),
)


def rows_by_num_sites(rows: Sequence[Row], sizes: Iterable[int] = ()) -> dict[int | None, list[Row]]:
    """Return the rows of samples by number of sites, ascending; rows of failed samples last, under None.

    Args:
        rows: rows of all samples.
        sizes: further numbers of sites to include, though no sample may have them.
    """
    groups: dict[int | None, list[Row]] = {size: [] for size in sizes}
    for row in rows:
        groups.setdefault(row["num_sites"] if row["status"] == OK else None, []).append(row)
    return dict(sorted(groups.items(), key=lambda item: (item[0] is None, item[0] or 0)))


def by_num_sites(
    rows: Sequence[Row], reference: Reference | None, more: Sequence[Mapping[str, Any]] = ()
) -> list[dict[str, Any]]:
    """Return one row for each number of sites, and one (None) for failed samples; shares refer to samples of that size.

    Args:
        rows: rows of all samples.
        reference: real crystals; their templates count as known.
        more: rows with further columns and `num_sites`, from a protocol; these may have other numbers of sites, of real
            crystals.
    """
    known = {row["num_sites"]: row for row in more}
    found = []
    for size, own in rows_by_num_sites(rows, [size for size in known if size is not None]).items():
        first = {"num_sites": size, "samples": len(own), "structural_validity": _valid_share(own)}
        found.append({**first, **known.get(size, {}), **symmetry_shares(own, reference)})
    return found


def by_size(rows: Sequence[Row], reference: Reference | None) -> list[dict[str, Any]]:
    """Return rows like those of `by_num_sites`, one for each size class (`sites`, a text) that occurs."""
    found = []
    for low, high, sites in SIZE_RANGES:
        own = [row for row in rows if row["status"] == OK and low < row["num_sites"] <= high]
        if own:
            first = {"sites": sites, "samples": len(own), "structural_validity": _valid_share(own)}
            found.append({**first, **symmetry_shares(own, reference)})
    return found


def write_by_num_sites(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the table as CSV; missing values are empty cells."""
    lines = [[f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row.values()] for row in rows]
    write_csv(path, [list(rows[0]), *lines])


def _valid_share(rows: Sequence[Row]) -> float | None:
    """Return the share of samples that are structurally valid, None without samples."""
    return sum(bool(row["structurally_valid"]) for row in rows) / len(rows) if rows else None
