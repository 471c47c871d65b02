"""How many samples meet the conditions that were asked for."""

from __future__ import annotations

from collections.abc import Sequence

from crystens.metrics.crystal_table import ASKED, Row
from crystens.metrics.entries import Metrics, rate

_TEXTS = {
    "formula": "the formula, any multiple of it",
    "chemical_system": "exactly the elements",
    "elements": "no other elements than those",
    "num_elements": "the number of elements",
    "num_sites": "the number of sites in the primitive cell",
    "charge_neutral": "charges that add up to none, or do not, as",
    "space_group": "the space group, found in its atoms at 0.01 angstrom,",
    "crystal_system": "the crystal system, found in its atoms at 0.01 angstrom,",
}


def adherence_metrics(rows: Sequence[Row]) -> Metrics:
    """Return the share of samples that meet each condition, of all samples asked for it; failed samples meet none.

    Args:
        rows: rows of samples, with `MET_COLUMNS` where a condition was asked for.
    """
    metrics: Metrics = {}
    for name in ASKED:
        met = [row[f"{name}_met"] for row in rows if row.get(f"{name}_met") is not None]
        if met:
            meaning = f"of the samples asked for it, those that have {_TEXTS[name]} that was asked for"
            metrics[f"{name}_met_rate"] = rate(sum(met), len(met), meaning)
    return metrics
