"""Entries of `metrics.json`: values with their meaning, unit and count.

Every entry is an object with `value`, `unit`, `description` and `count`: the number of samples (or of sites, if the
description says so) behind the value. Without samples the value is null and the count 0. Rates refer to all samples: a
failed sample is not valid, not unique and not novel.
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
