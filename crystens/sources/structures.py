"""Crystals from a matrix of cell vectors and a list of sites, the content of most structure files.

A matrix holds the cell vectors a, b, c as rows, angstrom, in any orientation. A crystal keeps their lengths and angles
and the coordinates along them. Lengths and angles say nothing of handedness, and a crystal's cell counts as
right-handed: coordinates along left-handed vectors change their sign, or the crystal would become its mirror image.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from pymatgen.core import Element

from crystens.crystal import MAX_ATOMIC_NUMBER, Crystal
from crystens.sources.limits import Limits
from crystens.sources.record import Unusable, quoted, shown
from crystens.sources.texts import plain_lines

_NO_CELL = "give the three cell vectors of a crystal"
# An isotope has a label of its own, an oxidation state stands behind the symbol: Fe3+, O2-, Na+, Cl0+.
_SPECIES = re.compile(r"([A-Z][a-z]?)(?:[0-9.]*[+-])?")
_ISOTOPES = {"D": "H", "T": "H"}
_LONGEST_NAME = 200


def crystal_of_sites(
    limits: Limits,
    matrix: np.ndarray,
    numbers: np.ndarray,
    coordinates: np.ndarray,
    occupancies: np.ndarray | None = None,
    cartesian: bool = False,
) -> Crystal:
    """Return the crystal of a matrix of cell vectors and of sites.

    Args:
        limits: bounds on usable crystals, and the treatment of partial occupancy.
        matrix: cell vectors as rows, shape (3, 3), angstrom.
        numbers: atomic number of each pair of a site and an element, shape (n,).
        coordinates: shape (n, 3), fractional along the given vectors, or angstrom if `cartesian`.
        occupancies: shape (n,); None if every site is fully occupied.
        cartesian: whether the coordinates are Cartesian.

    Raises:
        Unusable: with the reason why this is no crystal that can be used.
    """
    lengths, angles = cell_of(matrix)
    limits.check_cell(lengths, angles)
    if occupancies is None:
        limits.check_read_count(len(numbers))
    if cartesian:
        coordinates = np.linalg.solve(matrix.T, coordinates.T).T
    if np.linalg.det(matrix) < 0:
        coordinates = -coordinates
    if occupancies is not None and (occupancies != 1).any():
        if (occupancies < 0).any():
            raise Unusable(f"occupancy below 0: {occupancies.min():g}", "correct the occupancy")
        numbers, coordinates = limits.ordered(numbers, coordinates, occupancies, matrix)
    return limits.crystal(lengths, angles, numbers, coordinates)


def cell_of(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return lengths (3,), angstrom, and angles (3,), degrees, of cell vectors as rows (3, 3), angstrom.

    Raises:
        Unusable: if a vector is zero or not finite; whether the vectors span a cell is for `Limits.check_cell`.
    """
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(matrix, axis=1)
    if not np.isfinite(lengths).all():
        raise Unusable(f"impossible cell: a cell vector is not finite: {matrix.tolist()}", "correct the cell")
    if (lengths == 0).any():
        raise Unusable("no cell: a cell vector is zero", _NO_CELL)
    units = matrix / lengths[:, None]
    cosines = np.array([units[1] @ units[2], units[0] @ units[2], units[0] @ units[1]])
    return lengths, np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))


def check_periodic(periodic: list[bool] | np.ndarray) -> None:
    """Raise `Unusable` unless a structure repeats along all three cell vectors."""
    if len(periodic) != 3 or not all(periodic):
        flags = " ".join("T" if flag else "F" for flag in periodic[:4]) + " ..." * (len(periodic) > 4)
        raise Unusable(f"no cell: not periodic in three directions, pbc is {flags}", "give a crystal, pbc T T T")


def atomic_number(species: Any) -> int:
    """Return the atomic number of a symbol, also one with an oxidation state, or of a number.

    Deuterium (D) and tritium (T) are hydrogen.

    Raises:
        Unusable: if it is no element.
    """
    if isinstance(species, str):
        match = _SPECIES.fullmatch(species.strip())
        symbol = _ISOTOPES.get(match[1], match[1]) if match else ""
        if Element.is_valid_symbol(symbol):
            return Element(symbol).Z
    elif isinstance(species, int | np.integer) and not isinstance(species, bool) and 1 <= species <= MAX_ATOMIC_NUMBER:
        return int(species)
    raise Unusable(f"unknown element: {quoted(species)}", f"give symbols, or atomic numbers 1-{MAX_ATOMIC_NUMBER}")


def finite_array(values: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Return finite numbers of a given shape.

    Args:
        values: nested lists of numbers, or of texts that are numbers.
        shape: the required shape.
        name: their name in the plural, for the message.

    Raises:
        Unusable: if they are not.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise Unusable(f"{name} not numbers: {error}"[:200], f"correct the {name}") from error
    if array.shape != shape:
        raise Unusable(
            f"{name} of the wrong shape: {list(array.shape)} instead of {list(shape)}", f"correct the {name}"
        )
    if not np.isfinite(array).all():
        raise Unusable(f"{name} not finite: a value is not a finite number", f"correct the {name}")
    return array


def text_of(content: bytes) -> str:
    """Return bytes as text whose lines end with LF: UTF-8 with or without a byte order mark, otherwise Latin-1.

    Raises:
        Unusable: if they are no text.
    """
    if b"\0" in content:
        raise Unusable("not a text file: binary data", "give a text file")
    try:
        return plain_lines(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return plain_lines(content.decode("latin-1"))


def own_name(fields: Any, keys: tuple[str, ...] = ("material_id", "id", "name")) -> str | None:
    """Return what a structure calls itself: the first of the keys that holds a text or a number; None without one."""
    if not isinstance(fields, dict):
        return None
    names = (fields.get(key) for key in keys)
    found = (str(name) for name in names if isinstance(name, str | int | float) and str(name).strip())
    return next((shown(name, _LONGEST_NAME) for name in found), None)
