"""Entries of `metrics.json`: values with their meaning, unit and count.

Every entry is an object with `value`, `unit`, `description` and `count`: how many samples (or sites, where the
description says so) the value is made of. A value that has nothing to be made of is null with count 0. Rates are taken
over all samples: a sample that failed is not valid, not unique and not novel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Metrics = dict[str, dict[str, Any]]


def entry(value: Any, unit: str, description: str, count: int, **more: Any) -> dict[str, Any]:
    """Return one metric."""
    return {"value": value, "unit": unit, "description": description, "count": count, **more}


def rate(part: int, total: int, description: str, **more: Any) -> dict[str, Any]:
    """Return a share of all samples."""
    return entry(part / total, "1", description, total, **more)


def average(values: Sequence[float], unit: str, description: str) -> dict[str, Any]:
    """Return a mean with its spread, null if there is nothing to average."""
    count = len(values)
    spread = float(np.std(values, ddof=1)) if count > 1 else None
    return entry(float(np.mean(values)) if count else None, unit, description, count, standard_deviation=spread)
