"""A protocol of the field: a judge of samples beside real crystals, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from crystens.crystal import Crystal
from crystens.metrics.crystal_table import Row
from crystens.metrics.entries import Metrics

Progress = Callable[[int], None]
Stages = Callable[[str, int, int], None]  # what is computed, how many are done, of how many


@dataclass(frozen=True)
class Judgement:
    """Results of a protocol.

    Attributes:
        rows: those that were given, with the protocol's own columns.
        metrics: of all samples.
        by_num_sites: one row for each number of sites, of samples or real crystals; failed samples have none (None).
        about: settings, for `provenance`.
    """

    rows: list[Row]
    metrics: Metrics
    by_num_sites: list[dict[str, Any]]
    about: dict[str, Any]


class Judge(Protocol):
    """Judges samples by a protocol.

    Attributes:
        columns: those that it adds to the rows of samples.
    """

    columns: tuple[str, ...]

    def judge(self, rows: Sequence[Row], crystals: Mapping[int, Crystal], progress: Stages | None = None) -> Judgement:
        """Return what the protocol finds in samples.

        Args:
            rows: of all samples, failed ones too, with the columns of `crystens.metrics.crystal_table`.
            crystals: by the index of their row, those that did not fail.
            progress: called with the name of each stage, and how many of how many are done.
        """


def stage(progress: Stages | None, name: str, total: int) -> Progress:
    """Return what moves the bar of one stage."""
    return (lambda done: None) if progress is None else lambda done: progress(name, done, total)
