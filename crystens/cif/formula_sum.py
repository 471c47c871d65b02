"""The stated composition of a file, compared with the atoms that were read.

`_chemical_formula_sum` lists elements and amounts. With `_cell_formula_units_Z` it gives the number of atoms in the
cell. The composition must agree. The number of units is only used to choose between two readings of the symmetry,
because it is often wrong or counts other units.

Integer amounts must agree exactly. Other amounts are rounded, or belong to a disordered crystal: an atomic fraction may
then differ by `_DISORDER` plus the rounding of the last digit. A formula with unknown symbols, brackets, '?' or
variables is ignored. D and T count as H.

Source: core CIF dictionary, `_chemical_formula.sum`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pymatgen.core import Element

from crystens.cif.items import Items
from crystens.sources.record import Unusable, quoted, shown

_NUMBERS = {element.symbol: element.Z for element in Element} | {"D": 1, "T": 1}
_SYMBOLS = {number: symbol for symbol, number in _NUMBERS.items() if symbol not in ("D", "T")}
_WORD = re.compile(r"([A-Z][a-z]?)(\d*\.?\d*)")
_EXACT = 1e-3  # tolerance of an atomic fraction: losing one of 52 atoms changes it by more
_DISORDER = 0.05
_LONGEST = 2000  # letters
_MOST_UNITS = 10_000


@dataclass(frozen=True, eq=False)
class FormulaSum:
    """A formula.

    Attributes:
        text: text in the file.
        amounts: amount of each atomic number.
        open: rounding of the last digit of each amount.
    """

    text: str
    amounts: Mapping[int, float]
    open: Mapping[int, float]

    @functools.cached_property
    def elements(self) -> frozenset[str]:
        """Symbols of its elements."""
        return frozenset(_SYMBOLS[number] for number in self.amounts)

    @property
    def total(self) -> float:
        """Number of atoms."""
        return sum(self.amounts.values())

    def agrees(self, found: Mapping[int, float]) -> bool:
        """Return whether numbers of atoms, by atomic number, are in the proportions of the formula."""
        total, read = self.total, sum(found.values())
        for number in self.amounts.keys() | found.keys():
            allowed = _DISORDER + self.open.get(number, 0.0) / total if self.open else _EXACT
            if abs(self.amounts.get(number, 0.0) / total - found.get(number, 0.0) / read) > allowed:
                return False
        return True

    def counts(self, found: Mapping[int, float], units: int) -> bool:
        """Return whether numbers of atoms are `units` times the formula, up to rounding."""
        return all(
            abs(units * self.amounts.get(k, 0.0) - found.get(k, 0.0)) <= units * (self.open.get(k, 0.0) + 0.02)
            for k in self.amounts.keys() | found.keys()
        )


def formula_sum(items: Items) -> FormulaSum | None:
    """Return the formula of a data block; None if there is none to compare."""
    text = items.value("_chemical_formula_sum")
    return None if text is None or len(text) > _LONGEST else _parsed(text)


def formula_units(items: Items) -> int | None:
    """Return the number of formula units in the cell; None if it is not given."""
    text = items.value("_cell_formula_units_z")
    return (
        int(text)
        if text is not None and text.isascii() and text.isdigit() and 0 < int(text[:9]) < _MOST_UNITS
        else None
    )


def check_composition(formula: FormulaSum | None, found: Mapping[int, float], hydrogens_left_out: bool) -> None:
    """Raise `Unusable` if the atoms in a cell are not in the proportions of a formula.

    Args:
        formula: formula of the file.
        found: number of atoms by atomic number.
        hydrogens_left_out: whether hydrogens were left out on purpose; then hydrogen is not compared.
    """
    if formula is None:
        return
    compared = formula
    if hydrogens_left_out:
        heavy = {number: value for number, value in formula.amounts.items() if number != 1}
        compared = FormulaSum(formula.text, heavy, formula.open)
        found = {number: value for number, value in found.items() if number != 1}
    if not found or not compared.amounts or compared.agrees(found):
        return
    read = " ".join(f"{_SYMBOLS[number]}{amount:.4g}" for number, amount in sorted(found.items()))
    raise Unusable(
        f"atoms disagree with _chemical_formula_sum: read are {shown(read)} in the cell, the file says "
        f"{quoted(formula.text)}",
        "complete the atoms (a row, or operations, may be missing), or correct the formula",
    )


def _parsed(text: str) -> FormulaSum | None:
    """Return a formula; None if it is no list of elements and numbers."""
    amounts: dict[int, float] = {}
    still_open: dict[int, float] = {}
    words = text.replace(",", " ").split()
    for word in words:
        found = _WORD.findall(word)
        if "".join(symbol + amount for symbol, amount in found) != word or (len(found) > 1 and len(words) > 1):
            return None
        if len(found) > 1 and word.isupper() and word.isalpha():
            return None  # CO may be cobalt in capitals
        for symbol, amount in found:
            if symbol not in _NUMBERS or amount == ".":
                return None
            number, value = _NUMBERS[symbol], float(amount or 1)
            amounts[number] = amounts.get(number, 0.0) + value
            places = len(amount.partition(".")[2])
            if places and value != round(value):
                still_open[number] = still_open.get(number, 0.0) + 0.5 * 10.0**-places
    amounts = {number: value for number, value in amounts.items() if value > 0}
    return FormulaSum(text, amounts, still_open) if amounts else None
