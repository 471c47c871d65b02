"""Runs that differ by seed only, taken together."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crystens.runs.run import Run
from crystens.runs.settings import NOTHING, comparable


@dataclass(frozen=True)
class Group:
    """Runs that differ by seed only.

    Attributes:
        parts: the settings that distinguish it from other groups, as in its label.
        values: text of each setting, seeds apart, in which runs differ.
        runs: all runs of the group.
        counted: runs with metrics; samples that were judged twice are counted once.
        problem: reason why the runs must not be averaged; None if they may be.
    """

    parts: dict[str, str]
    values: dict[str, str]
    runs: list[Run]
    counted: list[Run]
    problem: str | None

    @property
    def label(self) -> str:
        """Settings that distinguish this group from other groups."""
        return self.label_without()

    @property
    def model(self) -> str:
        """The class of the model."""
        return self.runs[0].model

    def label_without(self, *names: str) -> str:
        """Return the settings that distinguish this group, without `names`; the model if none is left."""
        return ", ".join(text for name, text in self.parts.items() if name not in names) or self.model

    def mean(self, metric: str) -> float | None:
        """Return the mean of a metric over the runs that have it."""
        values = self._values(metric)
        return statistics.fmean(values) if values else None

    def spread(self, metric: str) -> float | None:
        """Return the standard deviation of a metric over runs (n - 1), None for less than two."""
        values = self._values(metric)
        return statistics.stdev(values) if len(values) > 1 else None

    def _values(self, metric: str) -> list[float]:
        """Return the values of a metric."""
        return [value for run in self.counted if (value := run.value(metric)) is not None]


def grouped(
    runs: Sequence[Run], over: Sequence[str], texts: Mapping[int, Mapping[str, str]], shown: Mapping[str, str]
) -> list[Group]:
    """Return the groups of runs that differ in some settings only, in the order of the first run of each.

    Args:
        runs: runs to group.
        over: settings in which runs of one group may differ.
        texts: for each run, by its index, the text of each setting that differs among runs.
        shown: the displayed name of each of these settings.
    """
    names = [name for name in shown if name not in over]
    found: dict[tuple[str, ...], list[int]] = {}
    for place, run in enumerate(runs):
        key = tuple(comparable(run.settings.get(name)) for name in names)
        found.setdefault(key, []).append(place)
    groups = []
    for key, places in found.items():
        values = {name: texts[places[0]][name] for name in names}
        parts = {names[place]: _part(names[place], values[names[place]], shown) for place in _telling(key, list(found))}
        members = [runs[place] for place in places]
        counted, problem = _counted(members, over)
        groups.append(Group(parts, values, members, counted, problem))
    return groups


def _part(name: str, value: str, shown: Mapping[str, str]) -> str:
    """Return one setting in a label: its value and the end of its name; for model and data the value alone."""
    if name in ("model", "data"):
        return value
    end = shown[name].split(".")[-1]
    if sum(other.split(".")[-1] == end for other in shown.values()) > 1:
        end = shown[name]
    return f"{end} unknown" if value == NOTHING else f"{end}={value}"


def _telling(key: tuple[str, ...], keys: Sequence[tuple[str, ...]]) -> list[int]:
    """Return the positions of a key that distinguish it from other keys; earlier positions are preferred."""
    needed = []
    for place in range(len(key)):
        if any(other[place] != key[place] for other in keys):
            needed.append(place)
            keys = [other for other in keys if other[place] == key[place]]
    return needed


def _counted(members: Sequence[Run], over: Sequence[str]) -> tuple[list[Run], str | None]:
    """Return the runs of a group that count, and the reason why they must not be averaged, or None.

    Runs with the same weights and the same seed hold the same samples, judged in two folders, and count once. Runs with
    the same seed and different weights differ in an unrecorded setting, so that their mean is not a mean over seeds.
    """
    counted: dict[tuple[str, ...], Run] = {}
    problem = None
    for run in members:
        if not run.metrics:
            continue
        key = tuple(comparable(run.settings.get(name)) for name in over)
        if "sampling_seed" in over:
            key = (*key, str(run.seed))
        same = counted.setdefault(key, run)
        if same is not run and (same.weights is None or same.weights != run.weights):
            problem = f"not averaged: {same.name} and {run.name} have the same {over[0] if over else 'settings'}"
    return list(counted.values()), problem if over else None
