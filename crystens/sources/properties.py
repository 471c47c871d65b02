"""Properties: named numbers of a crystal in its record, such as a band gap, in the units of the source.

A property is missing (NaN) if the record lacks the name, or if its value is null, an empty text, nan, none, na, n/a, a
dash or a question mark. Any other value that is no finite number (1,5 or 5 eV, true, a list) makes the record a reject,
because a misread number would enter the training unnoticed.

`data.properties` are names as in the source. In JSON a name may be a path: `data.band_gap` is the value
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
        fields: the values of the record by name; anything but a mapping counts as empty.
        names: names of the wanted properties; None for all numbers, those in nested objects by their path.

    Returns:
        A number for each name, NaN where it is missing.

    Raises:
        Unusable: if a wanted value exists and is no finite number.
    """
    if names is None:
        return _every(fields)
    return {name: _number(name, _at(fields, name)) for name in names}


def _at(fields: Any, name: str) -> Any:
    """Return the value of a name or at a path; None if there is none."""
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
    with contextlib.suppress(ValueError, OverflowError):  # OverflowError: an integer of hundreds of digits
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
    """Return all finite numbers of a record and of its nested objects."""
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
