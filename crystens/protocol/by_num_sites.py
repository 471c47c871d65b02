"""The protocol's metrics by the number of sites in the cell.

Precision and validity are those of samples of one size, against real crystals of any size. Recall is that of real
crystals of one size, by samples of any size. The Wasserstein distances compare all valid samples with all real crystals
of the same size; no subset is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import wasserstein_distance

from crystens.metrics.by_num_sites import rows_by_num_sites
from crystens.metrics.crystal_table import Row
from crystens.protocol.coverage import Nearest


def by_num_sites(
    rows: Sequence[Row], sizes: np.ndarray, real: Mapping[str, np.ndarray], to_samples: Nearest
) -> list[dict[str, Any]]:
    """Return one row for each number of sites of a sample or a real crystal, and one (None) for failed samples.

    Args:
        rows: rows of all samples, with the columns of the protocol.
        sizes: numbers of sites of the real crystals, (m,).
        real: values of the real crystals for each compared column, (m,) each.
        to_samples: distances from the real crystals to the samples.
    """
    found = []
    for size, own in rows_by_num_sites(rows, sizes.tolist()).items():
        same = sizes == size
        valid = [row for row in own if row["valid"]]
        found.append(
            {
                "num_sites": size,
                "samples": len(own),
                "structural_validity": _share(own, "structurally_valid"),
                "compositional_validity": _share(own, "composition_valid"),
                "validity": _share(own, "valid"),
                "cov_precision": _share(own, "covered"),
                "cov_precision_strict": _share(own, "covered_strict"),
                "reference_crystals": int(same.sum()),
                "cov_recall": mean(to_samples.covered[same]),
                "cov_recall_strict": mean(to_samples.both[same]),
                "valid_samples": len(valid),
                **{
                    f"wasserstein_{column}": wasserstein(valid, column, values[same]) for column, values in real.items()
                },
            }
        )
    return found


def wasserstein(rows: Sequence[Row], column: str, real: np.ndarray) -> float | None:
    """Return the Wasserstein distance between a column and real values, None where either is empty."""
    values = [row[column] for row in rows if row[column] is not None]
    return float(wasserstein_distance(values, real)) if values and len(real) else None


def mean(values: np.ndarray) -> float | None:
    """Return the mean of values, None without values."""
    return float(values.mean()) if len(values) else None


def _share(rows: Sequence[Row], name: str) -> float | None:
    """Return the share of rows in which a column is true, None without rows."""
    return sum(bool(row[name]) for row in rows) / len(rows) if rows else None
