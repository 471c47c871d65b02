"""Crystal dictionaries: JSON lines with one crystal for each line, the format of the paper's data set; gzipped or not.

The paper does not state the names of the keys. Therefore several names are accepted, and the first key present is used.
Case, blanks, hyphens and underscores in keys do not matter.

    cell      lengths, cell_lengths: [a, b, c]; angles, cell_angles: [alpha, beta, gamma]
              or the six keys a, b, c, alpha, beta, gamma
              or one of these inside the key cell or lattice; or a list of all six numbers there
    elements  numbers, atomic_numbers, z; or elements, species, symbols, atoms: a list of atomic numbers or symbols
    sites     coordinates, fractional_coordinates, frac_coords, coords, positions: [[x, y, z], ...], fractional
              or the three lists x, y, z
              or sites: [[element, x, y, z], ...], in place of elements and coordinates
    id        id, material_id, name; otherwise the number of the line

Other keys can be kept as properties, by their exact names (`crystens.sources.properties`).

Lengths are in angstrom, angles in degrees. A space group in the file is ignored, because it may belong to another
setting of the cell; crystens finds the group itself. Example of a line: `{"id": "salt", "lengths": [3.99, 3.99, 3.99],
"angles": [60, 60, 60], "elements": ["Na", "Cl"], "coordinates": [[0, 0, 0], [0.5, 0.5, 0.5]]}`
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Element

from crystens.errors import CrystensError
from crystens.sources.json_stream import DAMAGE, lines, opened
from crystens.sources.limits import Limits
from crystens.sources.properties import kept
from crystens.sources.record import Entry, Record, Reject, Unusable, quoted
from crystens.sources.source import Source, existing
from crystens.sources.structures import own_name

_EXPECTED = "a .jsonl or .jsonl.gz file with one crystal a line"
_ADVICE = "see the keys in the documentation of crystens.formats.crystal_dictionary"

_PARAMETERS = ("a", "b", "c", "alpha", "beta", "gamma")
_LENGTHS = ("lengths", "celllengths")
_ANGLES = ("angles", "cellangles")
_CELLS = ("cell", "lattice")
_ELEMENTS = ("numbers", "atomicnumbers", "elements", "species", "symbols", "atoms")
_COORDINATES = ("coordinates", "fractionalcoordinates", "fraccoords", "coords", "positions")
_IDS = ("id", "materialid", "name")


class CrystalDictionary(Source):
    """Source: one file of JSON lines.

    Args:
        path: the file. None raises an error on reading.
    """

    gives_properties = True

    def __init__(self, path: str | Path | None) -> None:
        """Keep the path; nothing is opened yet."""
        self.path = path

    def __str__(self) -> str:
        """Return what is read, for messages."""
        return f"crystal dictionary {self.path}"

    def contents(self) -> dict[str, str | Path]:
        """Return the file, see `Source.contents`."""
        path = self._file()
        return {path.name: path}

    def records(self) -> Iterator[Record | Reject]:
        """Yield each line that is not blank.

        Raises:
            CrystensError: if there is no such file.
        """
        path = self._file()
        number = 0
        try:
            with opened(path) as file:
                for number, line in enumerate(lines(file), start=1):
                    if isinstance(line, Unusable):
                        yield Reject(path.name, f"line {number}", line.reason, line.advice)
                    elif line.strip():
                        yield Record(path.name, f"line {number}", line)
        except Unusable as error:
            yield Reject(path.name, "", error.reason, error.advice)
        except DAMAGE as error:
            yield Reject(path.name, "", f"cannot read the file: {error} after line {number}", "fetch the file again")

    def parse(self, record: Record, limits: Limits) -> list[Entry | Reject]:
        """Return the crystal of one line."""
        return [_item(record.content, record.file, record.entry, limits, self.properties)]

    def _file(self) -> Path:
        """Return the path, checked."""
        path = existing(self.path, _EXPECTED)
        if not path.is_file():
            raise CrystensError(f"{path} is not a file; give {_EXPECTED}")
        return path


def _item(line: bytes, file: str, name: str, limits: Limits, properties: Sequence[str] | None) -> Entry | Reject:
    """Return the entry or reject of one line."""
    try:
        value = _object(line)
        fields = _plain_keys(value)
        name = own_name(fields, _IDS) or name
        lengths, angles = _cell(fields)
        limits.check_cell(lengths, angles)
        numbers, coordinates = _sites(fields)
        crystal = limits.crystal(lengths, angles, numbers, coordinates)
        return Entry(file, name, crystal, properties=kept(value, properties))
    except Unusable as error:
        return Reject(file, name, error.reason, error.advice)


def _object(line: bytes) -> dict[str, Any]:
    """Return the object of a line."""
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise Unusable(f"not JSON: {error}"[:200], "write one JSON object a line") from error
    if not isinstance(value, dict):
        raise Unusable(f"not a JSON object: {type(value).__name__}", "write one JSON object a line")
    return value


def _plain_keys(value: dict[str, Any]) -> dict[str, Any]:
    """Return a dictionary with keys in lower case, without blanks, hyphens and underscores."""
    return {re.sub(r"[\s_-]", "", key.lower()): item for key, item in value.items()}


def _first(fields: dict[str, Any], keys: tuple[str, ...]) -> Any:
    """Return the value of the first key that is present, or None."""
    return next((fields[key] for key in keys if key in fields), None)


def _cell(fields: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return lengths (3,), angstrom, and angles (3,), degrees."""
    cell = next((fields[key] for key in _CELLS if key in fields), fields)
    if isinstance(cell, dict):
        cell = _plain_keys(cell)
        lengths, angles = (_first(cell, keys) for keys in (_LENGTHS, _ANGLES))
        if lengths is not None and angles is not None:
            return _array(lengths, (3,), "cell lengths"), _array(angles, (3,), "cell angles")
        missing = [name for name in _PARAMETERS if name not in cell]
        if missing:
            raise Unusable(f"cell missing: {', '.join(missing)}", _ADVICE)
        cell = [cell[name] for name in _PARAMETERS]
    values = _array(cell, (6,), "cell")
    return values[:3], values[3:]


def _sites(fields: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return atomic numbers (N,) and fractional coordinates (N, 3)."""
    if isinstance(fields.get("sites"), list):
        rows = fields["sites"]
        if not all(isinstance(row, list) and len(row) == 4 for row in rows):
            raise Unusable("sites not understood: each is [element, x, y, z]", _ADVICE)
        elements, coordinates = [row[0] for row in rows], [row[1:] for row in rows]
    else:
        elements, coordinates = _first(fields, _ELEMENTS), _first(fields, _COORDINATES)
        if coordinates is None and all(isinstance(fields.get(axis), list) for axis in "xyz"):
            coordinates = [list(site) for site in zip(fields["x"], fields["y"], fields["z"], strict=False)]
        if elements is None and isinstance(fields.get("z"), list) and "x" not in fields:
            elements = fields["z"]
    if not isinstance(elements, list) or not isinstance(coordinates, list):
        raise Unusable("elements or coordinates missing", _ADVICE)
    numbers = np.array([_atomic_number(element) for element in elements], dtype=np.int64)
    return numbers, _array(coordinates, (len(numbers), 3), "coordinates")


def _atomic_number(element: Any) -> int:
    """Return the atomic number of a symbol or a number."""
    if isinstance(element, str):
        symbol = {"D": "H", "T": "H"}.get(element.strip(), element.strip())
        if Element.is_valid_symbol(symbol):
            return Element(symbol).Z
    elif isinstance(element, int | float) and not isinstance(element, bool) and element in range(1, 119):
        return int(element)
    raise Unusable(f"unknown element: {quoted(element)}", "give symbols, or atomic numbers 1-118")


def _array(values: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Return finite numbers of a given shape."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise Unusable(f"{name} not a table of numbers: {error}"[:200], _ADVICE) from error
    if array.shape != shape and (array.size or 0 not in shape):
        raise Unusable(f"{name} of the wrong shape: {list(array.shape)} instead of {list(shape)}", _ADVICE)
    if not np.isfinite(array).all():
        raise Unusable(f"{name} not finite: a value is not a finite number", "correct the value")
    return array.reshape(shape)
