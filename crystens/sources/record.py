"""Items of a source: records that are not parsed yet, entries that can be used, and rejects that cannot.

Reasons have the form of `crystens.sources.reasons`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crystens.crystal import Crystal
from crystens.sources.reasons import category

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Record:
    """One input as it stands in a source, not parsed yet; it travels to the process that parses it.

    Attributes:
        file: the file it is read from, as a person would look for it; members of an archive as `archive/member`.
        entry: which one in that file: id in a table, number of a line; empty if the file tells itself.
        content: what is parsed: a path whose file is read by the parser, or bytes, a text, a structure.
        split: "train", "val" or "test" where the source gives splits, otherwise None.
        fields: what a table says of the input beside its content, by the names of the wanted columns.
    """

    file: str
    entry: str
    content: Any
    split: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Entry:
    """One crystal that can be used.

    Attributes:
        file: as in `Record`.
        entry: as in `Record`; for a CIF the name of the data block.
        crystal: the crystal.
        split: as in `Record`.
        hydrogens_left_out: hydrogens of the cell that have no place in the file, and are left out on demand
            (`Limits.groups`).
        properties: numbers that the source says of the crystal, by name and in its units; NaN where one is missing.
        stated_space_group: international number that a CIF gives its crystal, whatever its atoms have; None where it
            gives none, or P1 with all atoms listed, as programs write that look for no group.
    """

    file: str
    entry: str
    crystal: Crystal
    split: str | None = None
    hydrogens_left_out: int = 0
    properties: Mapping[str, float] = field(default_factory=dict)
    stated_space_group: int | None = None


@dataclass(frozen=True)
class Reject:
    """One input that is set aside.

    Attributes:
        file: as in `Record`.
        entry: as in `Record`; empty if the file as a whole is meant.
        reason: what is wrong, `category: details`.
        advice: what a person can do about it.
    """

    file: str
    entry: str
    reason: str
    advice: str

    @property
    def category(self) -> str:
        """The part of the reason that does not depend on the entry."""
        return category(self.reason)


class Unusable(Exception):
    """Raised where an input turns out to be unusable, caught where its file and entry are known.

    Never leaves `crystens.data`: it becomes a `Reject`.
    """

    def __init__(self, reason: str, advice: str) -> None:
        """Keep the reason (`category: details`) and the advice."""
        super().__init__(reason)
        self.reason = reason
        self.advice = advice

    def __reduce__(self) -> tuple[type[Unusable], tuple[str, str]]:
        """Survive the way between two processes, which an exception with two arguments does not by itself."""
        return Unusable, (self.reason, self.advice)


def shown(text: str, most: int = 60) -> str:
    """Return a text of a file as it can stand in a reason or a name: printable, on one line, of a bounded length.

    Args:
        text: any text.
        most: how many of its letters are kept; one that cannot be printed becomes an escape of several.
    """
    line = text[: most + 1]
    line = line if line.isprintable() else repr(line)[1:-1]
    return line if len(line) <= most else line[:most] + "..."


def quoted(value: Any) -> str:
    """Return a value of a file as it can stand in a reason; lists and objects, however deep, by their kind alone."""
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:40] + "...")
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return shown(repr(value))
