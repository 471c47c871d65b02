"""The items of a data block, by names of any CIF dictionary.

Names are compared without regard to case, and the dot of newer dictionaries counts as an underscore:
`_space_group.name_H-M_alt` and `_space_group_name_H-M_alt` are one item. Values are kept with their quotes, which
`plain` removes.

Source: core CIF dictionary and its DDLm form, International Tables for Crystallography G (2005), ch. 4.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gemmi import cif

from crystens.sources.record import Unusable, quoted, shown

_NULL = ("?", ".")


@dataclass(eq=False)
class Loop:
    """A loop, or a single item as a loop of one row.

    Attributes:
        tags: tags as in the file.
        values: values row by row, with quotes.
    """

    tags: Sequence[str]
    values: Sequence[str]


class Items:
    """The items of a data block.

    Args:
        loops: its loops and single items, in the order of the file.
    """

    def __init__(self, loops: Iterable[Loop | cif.Item]) -> None:
        """Record the place of each item; values are fetched on request."""
        self._places: dict[str, list[tuple[int, int]]] = {}
        self._loops: list[Any] = []  # a Loop, a loop of gemmi whose values are not fetched yet, or (tag, value)
        for loop in loops:
            found: Any = loop
            if isinstance(loop, cif.Item):
                found = loop.pair or loop.loop
                if found is None:
                    continue  # a save frame
            for column, tag in enumerate(found[:1] if isinstance(found, tuple) else found.tags):
                self._places.setdefault(tag.lower().replace(".", "_"), []).append((len(self._loops), column))
            self._loops.append(found)

    @property
    def names(self) -> Iterable[str]:
        """The names of all items, in lower case and with underscores for dots."""
        return self._places.keys()

    def loop_of(self, name: str) -> int | None:
        """Return the number of the loop of an item; None if there is no such item."""
        places = self._places.get(name)
        return None if places is None else places[0][0]

    def column(self, name: str) -> list[str]:
        """Return the values of an item, one for each row of its loop, with quotes; empty if there is none.

        Raises:
            Unusable: if the item is given twice with different values.
        """
        places = self._places.get(name)
        if places is None:
            return []
        first = self._values(*places[0])
        for place in places[1:]:
            if (other := self._values(*place)) != first:
                values = " and ".join(quoted(plain(found[0]) if found else "") for found in (first, other))
                raise Unusable(
                    f"item given twice with different values: {shown(name)} is {values} in {len(first)} and "
                    f"{len(other)} rows",
                    "leave the wrong one out",
                )
        return first

    def value(self, name: str) -> str | None:
        """Return the one value of an item without its quotes; None if there is none, or it is null."""
        values = self.column(name)
        if not values or is_null(values[0]):
            return None
        return plain(values[0]).strip() or None

    def _values(self, loop: int, column: int) -> list[str]:
        """Return a column of a loop."""
        found = self._loops[loop]
        if isinstance(found, tuple):
            return [found[1]]
        if not isinstance(found, Loop):
            found = self._loops[loop] = Loop(found.tags, found.values)
        return list(found.values[column :: len(found.tags)])


def is_null(text: str) -> bool:
    """Return whether a value is null: unknown, not applicable, or left out."""
    return text in _NULL or not text


def plain(text: str) -> str:
    """Return a value without its quotes."""
    return cif.as_string(text) if text[:1] in ("'", '"', ";") else text
