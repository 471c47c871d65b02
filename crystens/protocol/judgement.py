"""Interface of a protocol: a judge that compares samples with real crystals, and its results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from crystens.crystal import Crystal
from crystens.metrics.crystal_table import Row
from crystens.metrics.entries import Metrics

Progress = Callable[[int], None]
Stages = Callable[[str, int, int], None]  # name of the stage, number done, total


@dataclass(frozen=True)
class Judgement:
    """Results of a protocol.

    Attributes:
        rows: the rows of samples, with the protocol's columns added.
        metrics: metrics of all samples.
        by_num_sites: one row for each number of sites of samples or real crystals, and one (None) for failed samples.
        about: settings of the protocol, for `provenance`.
    """

    rows: list[Row]
    metrics: Metrics
    by_num_sites: list[dict[str, Any]]
    about: dict[str, Any]


class Judge(Protocol):
    """Judges samples by a protocol.

    Attributes:
        columns: columns that it adds to the rows of samples.
    """

    columns: tuple[str, ...]

    def judge(self, rows: Sequence[Row], crystals: Mapping[int, Crystal], progress: Stages | None = None) -> Judgement:
        """Return the results of the protocol for samples.

        Args:
            rows: rows of all samples, failed samples included, with the columns of `crystens.metrics.crystal_table`.
            crystals: the decoded crystals, by the index of their row.
            progress: called with the name of the stage, the number done and the total.
        """


def stage(progress: Stages | None, name: str, total: int) -> Progress:
    """Return the progress callback of one stage."""
    return (lambda done: None) if progress is None else lambda done: progress(name, done, total)
