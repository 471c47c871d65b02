"""`rejected.csv`: every input that was set aside, with its reason and what to do about it."""

from __future__ import annotations

import csv
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, fields
from pathlib import Path

from crystens.processes.atomic_file import write_csv
from crystens.sources.record import Reject

_SHOWN = 5  # reasons named in a one-line summary


def write_rejected(rejects: Iterable[Reject], path: str | Path) -> Path:
    """Write rejects to a CSV file with the columns file, entry, reason, advice; return its path.

    The header is written even if nothing was set aside.

    Raises:
        CrystensError: if the file cannot be written.
    """
    header = tuple(field.name for field in fields(Reject))
    write_csv(path, itertools.chain([header], map(astuple, rejects)))
    return Path(path)


def read_rejected(path: str | Path) -> Iterator[Reject]:
    """Yield the rejects that `write_rejected` wrote."""
    csv.field_size_limit(2**26)  # the default is shorter than file names may be
    with Path(path).open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        next(rows, None)
        for row in rows:
            yield Reject(*row)


def count_categories(rejects: Iterable[Reject]) -> list[tuple[str, int]]:
    """Return the number of rejects in each category of reasons, the most frequent first."""
    return Counter(reject.category for reject in rejects).most_common()


def describe(used: int, rejects: Mapping[str, int]) -> str:
    """Return one line: the numbers of entries read, used, and set aside, the latter by category of reasons."""
    set_aside = sum(rejects.values())
    line = f"{used + set_aside} entries read, {used} used, {set_aside} set aside"
    categories = Counter(rejects).most_common()
    reasons = [f"{count} x {category}" for category, count in categories[:_SHOWN]]
    if len(categories) > _SHOWN:
        reasons.append(f"{len(categories) - _SHOWN} other reasons")
    return f"{line} ({', '.join(reasons)})" if reasons else line
