"""One sorted table of runs, with the settings in which they differ and their metrics; written as CSV files.

A run without metrics is a row too, with its state. A second table summarises runs that differ by seed only, as mean and
standard deviation.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from crystens.errors import CrystensError
from crystens.metrics.distributions import QUANTITIES
from crystens.metrics.statistics import STATISTICS
from crystens.processes.atomic_file import write_csv
from crystens.runs.groups import Group, grouped
from crystens.runs.run import Run
from crystens.runs.settings import NOTHING, SEEDS, differing, short_names, shown_values

RATES = ("decoded_rate", "structural_validity", "unique_formula_rate", "novel_formula_rate")
DISTANCES = ("mean_ks", *(f"ks_{name}" for name in QUANTITIES))
METRICS = (*STATISTICS, *RATES, *DISTANCES)

_DEFAULT_ORDER = "mean_ks"
_LARGE_IS_GOOD = re.compile(r"_rate$|^structural_validity|^compositional_validity|^num_samples$")


class Table:
    """Runs as rows.

    Args:
        runs: all runs.
        sort: metric or setting to sort by, the best first; None takes mean K-S if there is one.
        metrics: metrics to show; None takes those of `METRICS` that occur.
        group: settings in which the runs of one group may differ.

    Attributes:
        runs: the sorted runs.
        settings: columns of settings: name in the config to displayed name.
        metrics: columns of metrics.
        all_metrics: names of the metrics of any run.
        groups: groups of runs with equal settings.
        differ_in: the settings in which the runs of a group differ, in words.

    Raises:
        CrystensError: if `sort`, `metrics` or `group` names an unknown metric or setting.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        sort: str | None = None,
        metrics: Sequence[str] | None = None,
        group: Sequence[str] = SEEDS,
    ) -> None:
        all_settings = [run.settings for run in runs]
        names = differing(all_settings, [run.whole for run in runs])
        self.all_metrics = _all_metrics(runs)
        taken = [*self.all_metrics, "run", "state", "epochs", "folder", "n"]
        self.settings = short_names(names, [name for settings in all_settings for name in settings], taken)
        self._texts = {name: shown_values([s[name] for s in all_settings if name in s]) for name in names}
        for metric in metrics or ():
            _check(metric, self.all_metrics, "metric")
        self.metrics = list(metrics) if metrics is not None else [name for name in METRICS if name in self.all_metrics]
        self.runs = self._sorted(runs, sort)
        self.groups = self._grouped(runs, group)

    def setting(self, run: Run, name: str) -> str:
        """Return the text of a setting of a run, a dash where it is unknown."""
        return self._texts[name].get(str(run.settings[name]), "") if name in run.settings else NOTHING

    def entry(self, metric: str) -> Mapping[str, str]:
        """Return the unit and the description of a metric; all units if runs have different ones."""
        entries = [run.metrics[metric] for run in self.runs if metric in run.metrics]
        units = list(dict.fromkeys(str(entry.get("unit", "")) for entry in entries))
        return {"unit": " or ".join(units), "description": str(entries[0].get("description", "")) if entries else ""}

    def _sorted(self, runs: Sequence[Run], sort: str | None) -> list[Run]:
        """Return the sorted runs; runs without a value come last, in the order in which they were found."""
        settings = {shown: name for name, shown in self.settings.items()} | {name: name for name in self.settings}
        if sort is None:
            sort = _DEFAULT_ORDER
            if sort not in self.all_metrics:
                return list(runs)
        else:
            _check(sort, [*self.all_metrics, *settings], "metric or setting that differs")
        if sort in self.all_metrics:
            sign = -1 if large_is_good(sort) else 1
            key = {id(run): (value is None, sign * (value or 0)) for run in runs for value in [run.value(sort)]}
            return sorted(runs, key=lambda run: key[id(run)])
        return sorted(runs, key=lambda run: _in_order(self.setting(run, settings[sort])))

    def _grouped(self, runs: Sequence[Run], over: Sequence[str]) -> list[Group]:
        """Return the groups of runs, in the order of their settings."""
        known = {shown: name for name, shown in self.settings.items()} | {name: name for name in self.settings}
        for name in over:
            if name not in SEEDS:
                _check(name, list(known), "setting that differs")
        over = [known.get(name, name) for name in over]
        self.differ_in = "seed" if over == list(SEEDS) else " and ".join(self.settings.get(n, n) for n in over)
        texts = {place: {name: self.setting(run, name) for name in self.settings} for place, run in enumerate(runs)}
        groups = grouped(runs, over, texts, self.settings)
        return sorted(groups, key=lambda group: [_in_order(value) for value in group.values.values()])

    def summarised(self) -> list[Group]:
        """Return the groups that have several runs to summarise."""
        return [group for group in self.groups if len(group.counted) > 1 or (group.problem and len(group.runs) > 1)]

    def write_runs(self, path: Path) -> None:
        """Write runs.csv: one line for each run, all metrics of all runs; missing values are empty cells."""
        head = ["run", "state", "epochs", *self.settings.values(), *self.all_metrics, "folder"]
        lines = [
            [
                run.name,
                run.state,
                _cell(run.epochs),
                *(self.setting(run, name) if name in run.settings else "" for name in self.settings),
                *(_cell(run.value(metric)) for metric in self.all_metrics),
                str(run.folder),
            ]
            for run in self.runs
        ]
        write_csv(path, [head, *lines])

    def write_groups(self, path: Path) -> None:
        """Write groups.csv: one line for each group of several runs, mean and spread of all metrics."""
        names = [name for name in self.settings if name in (self.groups[0].values if self.groups else ())]
        head = [*(self.settings[name] for name in names), "n", "num_runs", "problem"]
        head += [column for metric in self.all_metrics for column in (metric, f"{metric}_spread")]
        lines = []
        for group in self.summarised():
            numbers = [number for metric in self.all_metrics for number in (group.mean(metric), group.spread(metric))]
            lines.append(
                [
                    *(group.values[name] for name in names),
                    str(len(group.counted)),
                    str(len(group.runs)),
                    group.problem or "",
                    *("" if group.problem else _cell(number) for number in numbers),
                ]
            )
        write_csv(path, [head, *lines])


def large_is_good(metric: str) -> bool:
    """Return whether larger values of a metric are better: true for rates, false for distances and variances."""
    return bool(_LARGE_IS_GOOD.search(metric))


def _all_metrics(runs: Iterable[Run]) -> list[str]:
    """Return the names of all metrics: those of `METRICS` first, then the others in the order of the runs."""
    found = dict.fromkeys(name for run in runs for name in run.metrics)
    return [name for name in METRICS if name in found] + [name for name in found if name not in METRICS]


def _check(name: str, known: Sequence[str], what: str) -> None:
    """Raise a CrystensError unless a name is known."""
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise CrystensError(f"no run has a {what} {name!r}{hint}; use one of: {', '.join(known) or 'none'}")


def _in_order(text: str) -> tuple[int, float, str]:
    """Return a sort key: numbers first, then words, then "auto" and dashes."""
    try:
        return 0, float(text), ""
    except ValueError:
        return (2 if text in ("auto", NOTHING) else 1), 0.0, text


def _cell(value: float | None) -> str:
    """Return a number for a file."""
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.10g}"
