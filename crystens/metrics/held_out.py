"""Metrics of held-out real crystals, which a model was not trained on: the values that good samples should reach.

At most `MOST` crystals of a split, evenly spread, are judged like samples, which takes three seconds. The `Reference`
keeps their metrics, also in a checkpoint, and `metrics.json` has them beside those of samples (`held_out` of each
entry).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from crystens.crystal import Crystal
from crystens.metrics.crystal_table import crystal_row
from crystens.metrics.distributions import Reference
from crystens.metrics.metrics_file import summarise

MOST = 1000

# Metrics that depend on the number of samples: their values cannot be compared.
_COUNTS = ("num_samples", "failures", "num_space_groups", "crystal_systems", "num_wyckoff_templates")


def spread(rows: np.ndarray) -> np.ndarray:
    """Return at most `MOST` of the rows (n,), evenly spread."""
    return rows if len(rows) <= MOST else rows[np.linspace(0, len(rows) - 1, MOST).astype(np.int64)]


def with_held_out(reference: Reference, crystals: Iterable[Crystal], name: str) -> Reference:
    """Return the reference with the metrics of held-out crystals.

    Args:
        reference: real crystals to compare the held-out crystals with.
        crystals: held-out crystals, at least one.
        name: name of the held-out crystals, for messages, such as "test".
    """
    rows = [crystal_row(index, crystal, reference=reference) for index, crystal in enumerate(crystals)]
    values = {
        metric: float(entry["value"])
        for metric, entry in summarise(rows, reference).items()
        if metric not in _COUNTS and isinstance(entry["value"], int | float)
    }
    return replace(reference, held_out=values, held_out_name=f"{name}, {len(rows)} crystals")
