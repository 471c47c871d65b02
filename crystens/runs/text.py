"""The table of runs as text for the terminal; columns beyond the width follow below."""

from __future__ import annotations

import re
from collections.abc import Sequence

from crystens.runs.groups import Group
from crystens.runs.run import DONE
from crystens.runs.settings import NOTHING
from crystens.runs.table import Table

_GAP = "  "
_LONGEST_CELL = 44  # letters of a text column

Column = tuple[list[str], list[str], bool]  # lines of the head, cells, whether they are numbers


def table_text(table: Table, width: int = 120) -> str:
    """Return the tables as lines of at most about `width` letters; columns beyond the width follow below."""
    columns = [_text_column("epochs", [number(run.epochs) for run in table.runs])]
    if any(run.state != DONE for run in table.runs):
        columns.insert(0, _text_column("state", [run.state for run in table.runs]))
    columns += [
        _text_column(shown, [table.setting(run, name) for run in table.runs]) for name, shown in table.settings.items()
    ]
    columns += [
        _number_column(_head(table, metric), [number(run.value(metric)) for run in table.runs])
        for metric in table.metrics
    ]
    parts = _wrapped((["run"], [run.name for run in table.runs], False), columns, width)
    long = [f"{run.name}: {run.state}" for run in table.runs if len(run.state) > _LONGEST_CELL]
    if long:
        parts.append("\n".join(long))
    groups = table.summarised()
    if groups:
        counts = [f"{len(group.counted)}" for group in groups]
        columns = [_number_column(["n"], counts)]
        columns += [
            _number_column(_head(table, metric), [mean_and_spread(group, metric) for group in groups])
            for metric in table.metrics
        ]
        parts.append(f"Runs that differ in {table.differ_in} only: mean ± standard deviation over n runs")
        parts += _wrapped((["runs"], [group.label for group in groups], False), columns, width)
        parts += [f"{group.label}: {group.problem}" for group in groups if group.problem]
    return "\n\n".join(parts) + "\n"


def number(value: float | None) -> str:
    """Return a metric with three digits, a dash where there is none."""
    if value is None:
        return NOTHING
    if isinstance(value, int):
        return str(value)
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def mean_and_spread(group: Group, metric: str) -> str:
    """Return mean and standard deviation of a group, "3.1 ± 0.2"."""
    spread = group.spread(metric)
    if group.problem:
        return NOTHING
    if spread is None:
        return number(group.mean(metric))
    return f"{number(group.mean(metric))} ± {f'{spread:.0f}' if spread >= 100 else f'{spread:.2g}'}"


def _head(table: Table, metric: str) -> list[str]:
    """Return the header of a metric in lines: its name in pieces, and its unit."""
    unit = table.entry(metric)["unit"]
    return [*_pieces(metric), *([f"({unit})"] if unit not in ("", "1") else [])]


def _text_column(head: str, cells: Sequence[str]) -> Column:
    """Return a column of texts; long ones are cut."""
    cut = [text if len(text) <= _LONGEST_CELL else f"{text[: _LONGEST_CELL - 1]}…" for text in cells]
    return _pieces(head, "."), cut, False


def _number_column(head: list[str], cells: Sequence[str]) -> Column:
    """Return a column of numbers."""
    return head, list(cells), True


def _pieces(name: str, separator: str = "_") -> list[str]:
    """Return a name cut into short lines, `coordinate_variance` into `coordinate` and `variance`."""
    lines: list[str] = []
    for part in re.split(rf"(?<=[{separator}])", name):
        if lines and len(lines[-1]) + len(part) <= 8:
            lines[-1] += part
        else:
            lines.append(part)
    return lines


def _wrapped(first: Column, columns: Sequence[Column], width: int) -> list[str]:
    """Return tables that all begin with the first column and hold as many other columns as fit."""
    tables, taken = [], [first]
    used = start = _width(first)
    for column in columns:
        if len(taken) > 1 and used + len(_GAP) + _width(column) > width:
            tables.append(taken)
            taken, used = [first], start
        taken.append(column)
        used += len(_GAP) + _width(column)
    return [_lines(table) for table in [*tables, taken]]


def _width(column: Column) -> int:
    """Return the width of a column, letters."""
    return max(map(len, [*column[0], *column[1]]))


def _lines(columns: Sequence[Column]) -> str:
    """Return columns side by side, heads at their bottom."""
    height = max(len(head) for head, _, _ in columns)
    filled = []
    for column in columns:
        head, cells, is_number = column
        width = _width(column)
        texts = [*[""] * (height - len(head)), *head, "-" * width, *cells]
        filled.append([text.rjust(width) if is_number else text.ljust(width) for text in texts])
    return "\n".join(_GAP.join(line).rstrip() for line in zip(*filled, strict=True))
