"""Changes that cleaning made to a crystal: each with its kind, values before and after, size and reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Change:
    """One change.

    Attributes:
        what: "merged sites", "element", "space group", "cell", "origin" or "coordinates".
        where: the changed sites; empty for the whole crystal.
        before: value before; fractional coordinates, angstrom and degree, a symbol of an element, a space group.
        after: value after.
        size: how large the change is.
        unit: unit of the size.
        why: reason, in words.
    """

    what: str
    where: str
    before: Any
    after: Any
    size: float
    unit: str
    why: str

    def to_dict(self) -> dict[str, Any]:
        """Return the change in plain values, for JSON."""
        told = {"what": self.what, "where": self.where, "from": self.before, "to": self.after}
        return told | {"size": self.size, "unit": self.unit, "why": self.why}


def largest(changes: tuple[Change, ...], what: str) -> float:
    """Return the largest change of a kind, in its unit; 0 if there is none."""
    return max((change.size for change in changes if change.what == what), default=0.0)
