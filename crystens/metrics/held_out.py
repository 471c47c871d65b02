"""The measure of good: real crystals that a model was not trained on, judged as if they were samples.

No generator can be asked for more than they have. They are at most `MOST` of a split, evenly spread, so that judging
them takes three seconds. The values of their metrics travel with the `Reference`, also in a checkpoint, and stand
beside those of samples (`held_out` of each entry of `metrics.json`).
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

# Metrics that grow with the number of samples, or are it, which say nothing of samples of another number.
_COUNTS = ("num_samples", "failures", "num_space_groups", "crystal_systems", "num_wyckoff_templates")


def spread(rows: np.ndarray) -> np.ndarray:
    """Return at most `MOST` of some rows (n,), evenly spread."""
    return rows if len(rows) <= MOST else rows[np.linspace(0, len(rows) - 1, MOST).astype(np.int64)]


def with_held_out(reference: Reference, crystals: Iterable[Crystal], name: str) -> Reference:
    """Return the reference with the metrics of held-out crystals.

    Args:
        reference: real crystals that the held-out ones are compared with.
        crystals: held-out ones, at least one.
        name: what they are, for people, such as "test".
    """
    rows = [crystal_row(index, crystal, reference=reference) for index, crystal in enumerate(crystals)]
    values = {
        metric: float(entry["value"])
        for metric, entry in summarise(rows, reference).items()
        if metric not in _COUNTS and isinstance(entry["value"], int | float)
    }
    return replace(reference, held_out=values, held_out_name=f"{name}, {len(rows)} crystals")
