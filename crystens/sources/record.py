"""Items of a source: unparsed records, usable entries, and rejects.

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
    """One unparsed input of a source, sent to the process that parses it.

    Attributes:
        file: the file that it is read from; members of an archive as `archive/member`.
        entry: its name in that file, such as the id in a table or the line number; empty for a file with one input.
        content: the data to parse: the path of a file that the parser reads, or bytes, a text, a structure.
        split: "train", "val" or "test" if the source gives splits, otherwise None.
        fields: values of the wanted columns of a table, by name.
    """

    file: str
    entry: str
    content: Any
    split: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Entry:
    """One usable crystal.

    Attributes:
        file: as in `Record`.
        entry: as in `Record`; for a CIF the name of the data block.
        crystal: the crystal.
        split: as in `Record`.
        hydrogens_left_out: number of hydrogens of the cell without coordinates in the file, left out by
            `Limits.groups`.
        properties: properties of the crystal by name, in the units of the source; NaN where missing.
        stated_space_group: international number that a CIF states; it may differ from the group of the atoms. None if
            the file states none, or states P1 and lists all atoms, as programs do that do not search for a group.
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
        entry: as in `Record`; empty for the file as a whole.
        reason: the problem, as `category: details`.
        advice: the remedy.
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
    """Raised when an input is unusable, and caught where its file and entry are known.

    Callers never see it: it becomes a `Reject`.
    """

    def __init__(self, reason: str, advice: str) -> None:
        """Keep the reason (`category: details`) and the advice."""
        super().__init__(reason)
        self.reason = reason
        self.advice = advice

    def __reduce__(self) -> tuple[type[Unusable], tuple[str, str]]:
        """Make it picklable: exceptions with two arguments are not."""
        return Unusable, (self.reason, self.advice)


def shown(text: str, most: int = 60) -> str:
    """Return a text of a file in a form for reasons and names: printable, on one line, of bounded length.

    Args:
        text: any text.
        most: number of characters kept, before unprintable ones are replaced by longer escapes.
    """
    line = text[: most + 1]
    line = line if line.isprintable() else repr(line)[1:-1]
    return line if len(line) <= most else line[:most] + "..."


def quoted(value: Any) -> str:
    """Return a value of a file in a form for reasons; lists and objects are only named by their kind."""
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:40] + "...")
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return shown(repr(value))
