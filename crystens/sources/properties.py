"""Properties: numbers that a record says of its crystal by name, such as a band gap, in the units of the source.

A property is missing, NaN, where a record has no such name, or in its place null, an empty text or a text that says so:
nan, none, null, na, n/a, a dash, a question mark. Anything else that is no finite number (1,5 or 5 eV, true, a list)
makes the record a reject: a number that was read wrongly, or dropped, would be trained on without a word.

`data.properties` are names as they stand in the source. In JSON a name may be a path: `data.band_gap` is the value
`band_gap` of the object `data`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from crystens.sources.record import Unusable, quoted
from crystens.sources.texts import number

_MISSING = ("", "nan", "none", "null", "na", "n/a", "-", "--", "?")


def kept(fields: Any, names: Sequence[str] | None) -> dict[str, float]:
    """Return the properties of a record.

    Args:
        fields: what the record says by name; anything that is no mapping says nothing.
        names: which are wanted; None for every number that there is, those inside of objects by their path.

    Returns:
        A number for each name, NaN where it is missing.

    Raises:
        Unusable: if a wanted value is there and no finite number.
    """
    if names is None:
        return _every(fields)
    return {name: _number(name, _at(fields, name)) for name in names}


def _at(fields: Any, name: str) -> Any:
    """Return the value of a name, or at a path; None where there is none."""
    if not isinstance(fields, Mapping):
        return None
    if name in fields:
        return fields[name]
    first, dot, rest = name.partition(".")
    return _at(fields.get(first), rest) if dot else None


def _number(name: str, value: Any) -> float:
    """Return the number of a property, NaN where it is missing."""
    if value is None or (isinstance(value, str) and value.strip().lower() in _MISSING):
        return math.nan
    found = math.inf
    with contextlib.suppress(ValueError, OverflowError):  # the latter of an integer of hundreds of digits
        if isinstance(value, str):
            found = number(value.strip())
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found = float(value)
    if math.isinf(found):
        raise Unusable(
            f"property not a finite number: {name} is {quoted(value)}",
            f"correct it or leave it empty, or ask for data.properties without {name}",
        )
    return found


def _every(fields: Any, path: str = "") -> dict[str, float]:
    """Return all finite numbers of a record, and of the objects in it."""
    found: dict[str, float] = {}
    for name, value in fields.items() if isinstance(fields, Mapping) else ():
        if isinstance(value, Mapping):
            found |= _every(value, f"{path}{name}.") if path.count(".") < 2 else {}
            continue
        try:
            value = _number(name, value)
        except Unusable:
            continue
        if not math.isnan(value):
            found[f"{path}{name}"] = value
    return found
