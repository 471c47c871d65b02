"""Elements from type symbols and site labels of a CIF.

A type symbol is the symbol of an element, optionally with a charge, which must have a sign: Fe, Fe3+, O-2, D (core CIF
dictionary, `_atom_type.symbol`). Any other symbol is never read as the element of its first letters: NH4 is no
nihonium, NO3 no nobelium, CO3 no cobalt, and 'Nb,Zr' no niobium.

- OH, OH2, NH4+ and the like are groups: one heavy atom with hydrogens that have no coordinates in the file.
- CO may be cobalt in capitals, or a group. The formula of the file decides, then the style of its other symbols.
- Without a type symbol (missing, or '?') the first letters of the label decide, if only one element is possible.

Deuterium (D) and tritium (T) are hydrogen.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pymatgen.core import Element

from crystens.cif.formula_sum import FormulaSum
from crystens.cif.items import is_null, plain
from crystens.sources.record import Unusable, quoted

_NUMBERS = {element.symbol: element.Z for element in Element} | {"D": 1, "T": 1}
_ELEMENT = "|".join(sorted(_NUMBERS, key=len, reverse=True))
# A symbol may be followed by a charge, 3+, +3, 2.5-, +; pymatgen writes a spin behind it; a note in brackets, H(SDS).
_CHARGE = r"(?:(?:\d(?:\.\d+)?)?[+-]|[+-]\d(?:\.\d+)?)?"
_SYMBOL = re.compile(rf"([A-Za-z]{{1,2}}){_CHARGE}(?:,spin=-?[\d.]+)?(?:\([A-Za-z]+\))?")
_HEAVY_FIRST = re.compile(rf"({_ELEMENT})[HDT](\d*){_CHARGE}")
_HYDROGEN_FIRST = re.compile(rf"[HDT](\d*)({_ELEMENT}){_CHARGE}")
_SEVERAL = re.compile(rf"(?:[\s,;:/&+|()0-9.x-]|{_ELEMENT})*")
_LABEL = re.compile(r"[A-Za-z]+[\w'*#+/()-]*")
_GROUP_LABEL = re.compile(rf"(?:{_ELEMENT})H\d*|H\d*(?:{_ELEMENT})")
_REPEATED_LABEL = re.compile(r"[A-Za-z]{1,2}\d{1,4}[a-z]?")  # a label in place of a type symbol
_SHARES = re.compile(r"[,;:/&|]|\d\.\d|\.\d|\+ ")
_LAST_KNOWN = 99  # no crystal of a heavier element is known: NO, NH, CN in capitals are groups
_SYMBOL_ADVICE = "write an element and its charge, such as Fe or Fe3+, in _atom_site_type_symbol"
_LABEL_ADVICE = "add _atom_site_type_symbol to the file"
_GROUP_WORDS = ("CO", "NO", "PO", "HO", "CN", "NH", "BH", "HS", "ND")  # capitals that are groups in real files


@dataclass(frozen=True)
class Kind:
    """Meaning of a type symbol or a label.

    Attributes:
        number: atomic number.
        hydrogens: number of hydrogens at the site that have no place of their own.
        doubtful: whether the two capitals may also be two elements.
    """

    number: int
    hydrogens: int = 0
    doubtful: bool = False


def kinds(symbols: Sequence[str], labels: Sequence[str], formula_sum: FormulaSum | None) -> list[Kind]:
    """Return the element, and the hydrogens without coordinates, of each site.

    Args:
        symbols: type symbols, with quotes; empty if the file has no such column.
        labels: labels, with quotes; empty if the file has no such column.
        formula_sum: formula of the file; None if it has no readable one.

    Raises:
        Unusable: if an element is unknown, or a site has several.
    """
    if symbols and "".join(symbols).isalpha():  # most files: no charges, nothing unknown
        known = {text: _of_symbol(text) for text in set(symbols)}
        if not any(kind.doubtful for kind in known.values()):
            return [known[text] for text in symbols]
    if symbols:
        found = [
            None if is_null(text) or _repeats(text, labels[row : row + 1]) else _of_symbol(text)
            for row, text in enumerate(symbols)
        ]
        if None not in found and not any(kind.doubtful for kind in found if kind is not None):
            return found  # type: ignore[return-value]
    else:
        found = [None] * len(labels)
    formula = formula_sum.elements if formula_sum is not None else ()
    texts = [plain(text) for text in (symbols or labels)]
    mixed_case = any(re.match(rf"(?:{_ELEMENT})(?![a-z])", text) and text[1:2].islower() for text in texts)
    result = []
    for row, kind in enumerate(found):
        label = plain(labels[row]) if row < len(labels) else ""
        if kind is None:
            if not label:
                raise Unusable("unknown element: a site has neither a type symbol nor a label", _SYMBOL_ADVICE)
            kind = _of_label(label, formula, mixed_case)
        elif kind.doubtful:
            _check_capitals(texts[row], label, formula, mixed_case, texts)
        result.append(kind)
    return result


@functools.lru_cache(maxsize=4096)
def _of_symbol(text: str) -> Kind:
    """Return the meaning of a type symbol.

    Raises:
        Unusable: if it is no element, or several elements.
    """
    text = plain(text).strip()
    if len(text) > 60:
        raise Unusable(f"unknown element: {quoted(text)}", _SYMBOL_ADVICE)
    match = _SYMBOL.fullmatch(text)
    letters = match[1] if match else ""
    usual = letters in (letters.capitalize(), letters.upper(), letters.lower())
    number = _NUMBERS.get(letters.capitalize()) if usual else None
    capitals = len(letters) == 2 and letters.isupper()
    if number is not None and not (capitals and number > _LAST_KNOWN):
        return Kind(number, doubtful=capitals and letters[0] in _NUMBERS and letters[1] in _NUMBERS)
    group = _HEAVY_FIRST.fullmatch(text)
    heavy, count = (group[1], group[2]) if group else ("", "")
    if group is None and (group := _HYDROGEN_FIRST.fullmatch(text)):
        count, heavy = group[1], group[2]
    if group is not None and _NUMBERS[heavy] != 1 and len(count) < 3:
        return Kind(_NUMBERS[heavy], hydrogens=int(count or 1))
    if _SEVERAL.fullmatch(text):
        elements = re.findall(_ELEMENT, text)
        if len(elements) > 1 and _SHARES.search(text):
            raise Unusable(f"mixed site: {quoted(text)} is not one element", "give an ordered model of the structure")
        if len(elements) > 1:
            reason = f"group of atoms as one site: {quoted(text)} stands for several atoms"
            raise Unusable(reason, "give each atom a place, or an element as the type symbol")
        if elements and re.search(r"\d", text):
            reason = f"unknown element: {quoted(text)} has a number without a sign, which is no charge"
            raise Unusable(reason, _SYMBOL_ADVICE)
    raise Unusable(f"unknown element: {quoted(text)}", _SYMBOL_ADVICE)


def _repeats(symbol: str, label: Sequence[str]) -> bool:
    """Return whether the type symbol is a copy of the label, such as Fe1."""
    if symbol.isalpha() or not label:
        return False
    symbol = plain(symbol)
    return symbol == plain(label[0]) and _REPEATED_LABEL.fullmatch(symbol) is not None


def _check_capitals(text: str, label: str, formula: Collection[str], mixed_case: bool, texts: list[str]) -> None:
    """Raise `Unusable` unless two capitals, such as CO, are certainly one element."""
    letters = text[:2]
    symbol = letters.capitalize()
    if formula:
        known = symbol in formula or not {_plain_hydrogen(letters[0]), _plain_hydrogen(letters[1])} <= set(formula)
    elif label.startswith(symbol):
        known = True
    elif mixed_case:
        known = False
    else:
        others = (other[:2] for other in texts if other[:2] != letters)
        known = letters not in _GROUP_WORDS or any(
            other.isalpha() and other.isupper() and len(other) == 2 and other.capitalize() in _NUMBERS
            for other in others
        )
    if not known:
        reason = f"element in doubt: {quoted(text)} may be {symbol}, or {letters[0]} with {letters[1]}"
        raise Unusable(reason, f"write {symbol} if that is meant, or give _chemical_formula_sum")


def _of_label(label: str, formula: Collection[str], mixed_case: bool) -> Kind:
    """Return the element of a label: Fe1, FE2A, O1W.

    Raises:
        Unusable: if the label names no element, or several are possible.
    """
    letters = re.match(r"[A-Za-z]*", label)[0]  # type: ignore[index]
    two, one = letters.capitalize(), letters[:1].upper()
    if not _LABEL.fullmatch(label) or (not formula and _GROUP_LABEL.fullmatch(label)):
        candidates = []
    elif len(letters) == 1:
        candidates = [] if one == "T" and not formula else [one]  # T1 is a tetrahedral site, not tritium
    elif len(letters) > 2:
        candidates = []  # Wat1 is water, not tungsten
    elif not letters.isupper() or one not in _NUMBERS:
        candidates = [two]
    elif formula:
        candidates = [two, one]  # FE1 is iron, and OW1 the oxygen of water
    else:
        # In a file with Na1, CA1 may be carbon or calcium, but CL1 is chlorine.
        doubtful = letters in _GROUP_WORDS or (mixed_case and letters[1] in "ABDEGHOW")
        candidates = [] if doubtful else [two]
    candidates = [symbol for symbol in candidates if symbol in _NUMBERS]
    if formula:
        candidates = [symbol for symbol in candidates if _plain_hydrogen(symbol) in formula] or candidates[:1]
    if len(candidates) != 1:
        raise Unusable(f"unknown element: label {quoted(label)} names {_listed(candidates)}", _LABEL_ADVICE)
    return Kind(_NUMBERS[candidates[0]])


def _plain_hydrogen(symbol: str) -> str:
    """Return H for D and T."""
    return "H" if symbol in ("D", "T") else symbol


def _listed(candidates: list[str]) -> str:
    """Return the possible elements of a label, for a message."""
    return f"{' or '.join(candidates)}" if candidates else "no element for certain"
