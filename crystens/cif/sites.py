"""The atoms that a data block lists, row by row.

Dummy sites (`_atom_site_calc_flag` dum) and sites with an occupancy of 0 are left out. Mutually exclusive alternatives
(`_atom_site_disorder_group`) count as disorder, whatever their occupancies. Hydrogens that the file counts without
coordinates are counted here.

Source: core CIF dictionary, `_atom_site`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from gemmi import cif
from pymatgen.core import Element

from crystens.cif.formula_sum import FormulaSum
from crystens.cif.items import Items, is_null, plain
from crystens.cif.type_symbols import Kind, kinds
from crystens.sources.limits import Limits
from crystens.sources.record import Unusable, quoted, shown

_NO_CIF = "export the structure as CIF again"
_MULTIPLICITIES = ("symmetry_multiplicity", "site_symmetry_multiplicity")
_NO_COUNT = frozenset(["0", ".", "?"])
_FULL = frozenset(["1", "1.", "1.0", "1.00", "1.000", "1.0000"])  # compared as text, which is faster
HEAVY_ATOM = "give their places, or keep the heavy atoms alone with data.limits.groups=heavy_atom"
_ORDERED = "give an ordered model of the structure"


@dataclass(eq=False)
class Sites:
    """Rows of atoms.

    Attributes:
        texts: labels or type symbols, (n,), with quotes; see `name`.
        numbers: atomic numbers, (n,).
        coordinates: fractional, (n, 3).
        occupancies: at least 0, (n,).
        groups: number of hydrogens without coordinates in the type symbol, 1 for OH, (n,).
        attached: number of hydrogens without coordinates in `_atom_site_attached_hydrogens`, (n,).
        lost: number of rows of hydrogens without coordinates.
        multiplicities: number of images in the cell, as text, (n,); empty if the file does not give it.
        is_disordered: whether a row of the file is not fully occupied, or is one of several alternatives.
    """

    texts: list[str]
    numbers: np.ndarray
    coordinates: np.ndarray
    occupancies: np.ndarray
    groups: np.ndarray
    attached: np.ndarray
    lost: int
    multiplicities: list[str]
    is_disordered: bool

    def __len__(self) -> int:
        """Return the number of rows, n."""
        return len(self.numbers)

    def name(self, row: int) -> str:
        """Return the label or type symbol of an atom, for messages."""
        return _name(self.texts[row])

    def has_multiplicities(self, counts: np.ndarray) -> bool:
        """Return whether the multiplicities in the file equal `counts`, (n,)."""
        return bool(self.multiplicities) and np.array_equal(_numbers(self.multiplicities), counts)


def sites_of(items: Items, formula: FormulaSum | None, limits: Limits) -> Sites:
    """Return the atoms of a data block.

    Args:
        items: items of the block.
        formula: composition that the block states.
        limits: treatment of disorder and of hydrogens without coordinates.

    Raises:
        Unusable: if an atom is incomplete or no element.
    """
    loop = items.loop_of("_atom_site_fract_x")
    columns = [items.column(f"_atom_site_fract_{axis}") for axis in "xyz"]
    count = len(columns[0])
    symbols, labels = _column(items, "type_symbol", loop, False), _column(items, "label", loop, False)
    if count == 0 or any(len(column) != count for column in columns) or not (symbols or labels):
        raise Unusable(
            "atoms incomplete: each needs _atom_site_fract_x, _y, _z and _atom_site_type_symbol or _atom_site_label",
            _NO_CIF,
        )
    occupied = _column(items, "occupancy", loop, True)
    attached = _column(items, "attached_hydrogens", loop, False)
    multiplicities = next(filter(None, (_column(items, name, loop, False) for name in _MULTIPLICITIES)), [])
    if (kept := _real_rows(items, loop, count)) is not None:
        symbols, labels, occupied, attached, multiplicities, *columns = (
            [column[row] for row in kept] if column else []
            for column in (symbols, labels, occupied, attached, multiplicities, *columns)
        )
        count = len(kept)
    texts = labels or symbols
    occupancies, disordered = np.ones(count), False
    if not _FULL.issuperset(occupied):
        occupancies = np.array([_occupancy(text, value) for text, value in zip(texts, occupied, strict=True)])
        disordered = bool((np.abs(occupancies - 1) > 1e-3).any())
    found = kinds(symbols, labels, formula)
    numbers = np.array([kind.number for kind in found], dtype=np.int64)
    groups = np.array([kind.hydrogens for kind in found])
    coordinates = np.array([_numbers(column) for column in columns]).T.reshape(count, 3)
    if limits.groups == "reject" and groups.any():
        raise _group(int(groups.argmax()), symbols, found)
    hydrogens = _counts("attached_hydrogens", attached, texts)
    rows, lost = np.flatnonzero(occupancies > 0), 0
    if not np.isfinite(coordinates).all():
        placeless = _placeless_hydrogens(numbers, columns)
        lost = int(placeless[rows].sum())
        if limits.groups == "reject" and lost:
            name = _name(texts[int(placeless.argmax())])
            raise Unusable(f"hydrogens without a place: {lost} rows such as {name} have no coordinates", HEAVY_ATOM)
        rows = rows[~placeless[rows]]
        broken = rows[~np.isfinite(coordinates[rows]).all(axis=1)]
        if len(broken):
            values = ", ".join(shown(plain(column[broken[0]]), 20) for column in columns)
            where = f"{_name(texts[broken[0]])} at {values}"
            raise Unusable(f"coordinate is not a finite number: {where}", "correct the coordinates")
    sites = Sites(texts, numbers, coordinates, occupancies, groups, hydrogens, lost, multiplicities, disordered)
    if len(rows) < count:
        sites = _taken(sites, rows)
    return _one_alternative(sites, items, loop, kept, rows, limits)


def _group(row: int, symbols: list[str], found: list[Kind]) -> Unusable:
    """Return the error for a type symbol of a heavy atom with hydrogens, such as OH."""
    count, heavy = found[row].hydrogens, Element.from_Z(found[row].number).symbol
    text = shown(plain(symbols[row]).strip(), 20)
    plural = "hydrogen that has" if count == 1 else "hydrogens that have"
    article = "an" if heavy[0] in "AEFHILMNORSX" and (len(heavy) == 1 or heavy[0] in "AEIO") else "a"
    return Unusable(
        f"hydrogens without a place: {text} is a group: {article} {heavy} with {count} {plural} no place", HEAVY_ATOM
    )


def _taken(sites: Sites, rows: np.ndarray) -> Sites:
    """Return some of the rows."""
    return Sites(
        [sites.texts[row] for row in rows],
        sites.numbers[rows],
        sites.coordinates[rows],
        sites.occupancies[rows],
        sites.groups[rows],
        sites.attached[rows],
        sites.lost,
        [sites.multiplicities[row] for row in rows] if sites.multiplicities else [],
        sites.is_disordered,
    )


def _column(items: Items, name: str, loop: int | None, must_belong: bool) -> list[str]:
    """Return a column of the loop with the coordinates; empty if that loop has no such column.

    Raises:
        Unusable: if `must_belong`, and the column is in another loop, whose rows are not these atoms.
    """
    tag = f"_atom_site_{name}"
    if (own := items.loop_of(tag)) is None:
        return []
    if own == loop:
        return items.column(tag)
    if must_belong and not all(map(is_null, items.column(tag))):
        raise Unusable(f"atoms incomplete: {tag} is in another loop than the coordinates", _NO_CIF)
    return []


def _real_rows(items: Items, loop: int | None, count: int) -> list[int] | None:
    """Return the rows that are not dummy sites; None if there are no dummy sites."""
    flags = _column(items, "calc_flag", loop, False)
    if not any(plain(flag).lower() in ("dum", "dummy") for flag in set(flags)):
        return None
    return [row for row in range(count) if plain(flags[row]).lower() not in ("dum", "dummy")]


def _placeless_hydrogens(numbers: np.ndarray, columns: list[list[str]]) -> np.ndarray:
    """Return which rows are hydrogens without any coordinate, (n,)."""
    absent = [all(is_null(column[row]) for column in columns) for row in range(len(numbers))]
    return np.array(absent, dtype=bool) & (numbers == 1)


def _counts(name: str, values: list[str], texts: list[str]) -> np.ndarray:
    """Return the numbers of a column; a missing number is 0."""
    if _NO_COUNT.issuperset(values):
        return np.zeros(len(texts))
    counts = np.array([0.0 if is_null(value) else _number(value) for value in values])
    wrong = np.flatnonzero(~((counts >= 0) & (counts < np.inf)))
    if len(wrong):
        found = f"{_name(texts[wrong[0]])} has {quoted(plain(values[wrong[0]]))}"
        raise Unusable(f"_atom_site_{name} is not a number >= 0: {found}", "correct it")
    return counts


def _occupancy(text: str, value: str) -> float:
    """Return an occupancy of at least 0; a missing one is 1."""
    if is_null(value):
        return 1.0
    share = _number(value)
    if not 0 <= share < np.inf:
        found = f"{_name(text)} has {quoted(plain(value))}"
        raise Unusable(f"occupancy is not a number >= 0: {found}", "correct the occupancy")
    return share


def _name(text: str) -> str:
    """Return a label or type symbol for a message."""
    return shown(plain(text), 20)


def _number(text: str) -> float:
    """Return a CIF number without its standard uncertainty; NaN for any other text."""
    return cif.as_number(plain(text))


def _numbers(column: list[str]) -> list[float]:
    """Return CIF numbers without their standard uncertainties; NaN or infinity for any other text."""
    letters = "".join(column)
    if letters.isascii() and "_" not in letters:
        try:
            return list(map(float, column))  # ten times as fast, and enough for most columns
        except ValueError:
            pass
    return [_number(text) for text in column]


def _one_alternative(
    sites: Sites, items: Items, loop: int | None, kept: list[int] | None, rows: np.ndarray, limits: Limits
) -> Sites:
    """Return the rows of one alternative of each assembly of disordered atoms.

    Sites of one group are occupied together. Sites of different groups of one assembly exclude each other. A minus
    marks sites that are disordered about a special position: their own images exclude each other.

    Raises:
        Unusable: if there are alternatives and `Limits.occupancy` is "reject", or images exclude each other.
    """
    texts = _column(items, "disorder_group", loop, False)
    if not texts or set(texts) <= {".", "?", "0"}:
        return sites
    assemblies = _column(items, "disorder_assembly", loop, False) or ["."] * len(texts)
    real = rows if kept is None else [kept[row] for row in rows]
    places: dict[str, dict[str, list[int]]] = {}
    for index, row in enumerate(real):
        group = "" if is_null(texts[row]) else plain(texts[row]).strip()
        if group in ("", "0"):
            continue
        if (group.startswith("-") and limits.occupancy == "reject") or (
            group.startswith("-") and sites.occupancies[index] == 1
        ):
            found = f"{sites.name(index)} is in group {shown(group, 20)}, disordered about a special position"
            raise Unusable(f"partial occupancy (disordered structure): {found}", _ORDERED)
        places.setdefault(plain(assemblies[row]), {}).setdefault(group, []).append(index)
    dropped: list[int] = []
    for assembly, groups in places.items():
        if len(groups) < 2:
            continue
        if limits.occupancy == "reject":
            first = [sites.name(members[0]) for members in groups.values()]
            raise Unusable(
                f"partial occupancy (disordered structure): {' and '.join(first[:4])} are in groups "
                f"{shown(', '.join(groups), 40)} of one assembly ({shown(assembly, 20)}), and exclude each other",
                f"{_ORDERED}, or ask for data.limits.occupancy=majority",
            )
        shares = {group: float(sites.occupancies[members].mean()) for group, members in groups.items()}
        winner = max(shares, key=lambda group: shares[group])
        sites.occupancies[groups[winner]] = min(1.0, sum(shares.values()))
        sites.is_disordered = True
        dropped += [row for group, members in groups.items() if group != winner for row in members]
    return _taken(sites, np.setdiff1d(np.arange(len(sites.numbers)), dropped)) if dropped else sites
