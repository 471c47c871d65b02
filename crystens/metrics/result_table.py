"""Tables of results, for the terminal and for a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ResultTable:
    """A table.

    Attributes:
        head: title of the table.
        columns: names of the columns; the first column names the rows.
        rows: cells of each row, as text.
        note: explanation for the reader.
    """

    head: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def __str__(self) -> str:
        """Return the table as lines of text."""
        cells = [list(self.columns), *map(list, self.rows)]
        widths = [max(len(row[place]) for row in cells) for place in range(len(self.columns))]
        lines = ["  ".join([row[0].ljust(widths[0]), *(map(str.rjust, row[1:], widths[1:]))]).rstrip() for row in cells]
        return "\n".join([f"{self.head}:", *lines, *([self.note] if self.note else [])])


def percent(value: float | None) -> str:
    """Return a share in percent, or a dash where there is none."""
    return "–" if value is None else f"{100 * value:.2f} %"


def distance(value: float | None) -> str:
    """Return a distance with four digits, or a dash where there is none."""
    return "–" if value is None else f"{value:.4f}"
