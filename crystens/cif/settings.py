"""The stated space group of a file, by number, symbol or code, and the settings that agree with it.

A group has many settings: unique axes, cell choices, origins, hexagonal or rhombohedral axes. A number or a Schoenflies
symbol states the group only. A Hermann-Mauguin symbol leaves two origins and the axes open, which a code
(`_space_group_IT_coordinate_system_code`) may settle. A Hall symbol states everything. The possible settings are those
that agree with all items of a file; if there is none, the file contradicts itself.

Source: core CIF dictionary, `_space_group`; International Tables for Crystallography A (2016), table 1.5.4.4 (symbols
and settings), table 2.1.3.3 (short and full symbols); settings, Hall and Hermann-Mauguin symbols by gemmi.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

import gemmi

from crystens.cif.items import Items
from crystens.cif.operations import Operations, of_group
from crystens.cif.write import GENERATED_GROUP
from crystens.crystal import NUM_SPACE_GROUPS
from crystens.sources.record import Unusable, quoted

_HALL = ("_space_group_name_hall", "_symmetry_space_group_name_hall")
_SYMBOLS = (
    "_space_group_name_h-m_alt",
    "_symmetry_space_group_name_h-m",
    "_space_group_name_h-m",
    "_space_group_name_h-m_full",
)
_TYPES = ("_space_group_name_h-m_ref",)  # a symbol of the group without its setting
_NUMBERS = ("_space_group_it_number", "_symmetry_int_tables_number", "_symmetry_it_number")
_SCHOENFLIES = ("_space_group_name_schoenflies", "_symmetry_space_group_name_schoenflies")
_CODE = "_space_group_it_coordinate_system_code"

_NAMED = (("symbol", _SYMBOLS), ("type", _TYPES), ("number", _NUMBERS), ("schoenflies", _SCHOENFLIES))

_LONGEST = 60  # letters of a symbol
_LIST_THEM = "list the symmetry operations in the file"
# First number and number of groups of each class; the groups of a class are in the order of their superscripts.
_CLASSES = {
    "C1": (1, 1), "Ci": (2, 1), "S2": (2, 1), "C2": (3, 3), "Cs": (6, 4), "C1h": (6, 4), "C2h": (10, 6), "D2": (16, 9),
    "V": (16, 9), "C2v": (25, 22), "D2h": (47, 28), "Vh": (47, 28), "C4": (75, 6), "S4": (81, 2), "C4h": (83, 6),
    "D4": (89, 10), "C4v": (99, 12), "D2d": (111, 12), "Vd": (111, 12), "D4h": (123, 20), "C3": (143, 4),
    "C3i": (147, 2), "S6": (147, 2), "D3": (149, 7), "C3v": (156, 6), "D3d": (162, 6), "C6": (168, 6), "C3h": (174, 1),
    "C6h": (175, 2), "D6": (177, 6), "C6v": (183, 4), "D3h": (187, 4), "D6h": (191, 4), "T": (195, 5), "Th": (200, 7),
    "O": (207, 8), "Td": (215, 6), "Oh": (221, 10),
}  # fmt: skip
# Origins and axes after a symbol, in notations of files: ":2", "(origin choice 2)", "O2"; the ICSD writes origins 1 and
# 2 as S and Z, hexagonal axes as H or HR.
_BEHIND = (
    re.compile(
        r"\s*(?:[:(\[,;]|\bo(?=\s*[12]$)|(?=\borigin))[\s:(]*(?:origin)?[\s-]*(?:choice|at)?[\s:-]*([12])[)\]]*$", re.I
    ),
    re.compile(r"[\s:(\[,;]+(h|r)(?:ex\w*|homb\w*)?(?:\s*(?:axes|setting|cell))?[)\]]*$", re.I),
    re.compile(r"\s*(HR|[SZHR])$", re.I),
)
_ICSD = {"S": "1", "Z": "2", "HR": "H"}


@dataclass(frozen=True, eq=False)
class Setting:
    """One possible reading of a file's statement.

    Attributes:
        name: name for messages.
        operations: operations of the group in this setting.
        usual: whether it is the usual meaning. P 21/c is P 1 21/c 1, and P 21/c 1 1 only if the cell excludes that.
    """

    name: str
    operations: Operations
    usual: bool = True


@dataclass(frozen=True, eq=False)
class Statement:
    """Statement of a file on its space group.

    Attributes:
        text: the items, for messages; empty if there are none.
        settings: the settings that agree with them, the usual ones first; empty if there are no items.
    """

    text: str
    settings: tuple[Setting, ...]


def statement(items: Items) -> Statement:
    """Return the statement of a data block on its space group.

    Raises:
        Unusable: if a symbol is not known, or items contradict each other.
    """
    found = []
    for kind, names in (("hall", _HALL), *_NAMED, ("code", (_CODE,))):
        for name in names:
            if (value := items.value(name)) is not None:
                found.append((kind, name, value))
    return _statement(tuple(found))


def stated_number(items: Items) -> int | None:
    """Return the stated international number of a data block; None if it states none, or P1.

    In files of crystens this is the group in the image, also if it is P1.
    """
    try:
        if (generated := items.value(GENERATED_GROUP.lower())) is not None:
            found = _settings("number", generated)
            return found[0].number if found else None
        for kind, names in _NAMED:
            for name in names:
                if (value := items.value(name)) is not None and (found := _settings(kind, value)):
                    return found[0].number if found[0].number > 1 else None
    except Unusable:  # an item occurs twice, with different values
        return None
    return None


def number_of_symbol(symbol: str) -> int | None:
    """Return the international number of a Hermann-Mauguin symbol, short or full, in any setting; None if unknown."""
    found = _settings("symbol", symbol)
    return found[0].number if found else None


@functools.lru_cache(maxsize=1024)
def _statement(found: tuple[tuple[str, str, str], ...]) -> Statement:
    """Return the statement of items (kind, name, value)."""
    if not found or all(kind == "code" for kind, _, _ in found):
        return Statement("", ())
    text = ", ".join(f"{name} {quoted(value)}" for _, name, value in found)
    halls = [value for kind, _, value in found if kind == "hall"]
    unknown = [
        value for kind, _, value in found if kind != "hall" and kind != "code" and _settings(kind, value) is None
    ]
    if halls:
        operations = _of_hall(halls[0])
        if operations is not None:
            _check_hall(halls[0], operations, found, text)
            return Statement(text, (Setting(halls[0], operations),))
        unknown.insert(0, halls[0])
    if unknown:
        raise Unusable(f"space group not known: {quoted(unknown[0])}", _LIST_THEM)
    named = [_settings(kind, value) or () for kind, _, value in found if kind not in ("hall", "code")]
    left = [group for group in named[0] if all(group in others for others in named[1:])]
    if not left:
        raise Unusable(f"space group given in two ways that contradict each other: {text}", "correct the wrong one")
    first = next((group.hm for group in named[0] if group in left), "")
    for _, _, code in (item for item in found if item[0] == "code"):
        left = _with_code(left, code)
        if not left:
            raise Unusable(f"setting of the space group not known: {text}", _LIST_THEM)
        first = left[0].hm
    return Statement(text, tuple(Setting(g.xhm(), of_group(g.hall), g.hm == first) for g in left))


def _check_hall(hall: str, operations: Operations, found: tuple[tuple[str, str, str], ...], text: str) -> None:
    """Raise `Unusable` if a known symbol excludes the setting of a Hall symbol."""
    for kind, _, value in found:
        groups = _settings(kind, value) if kind == "symbol" else None
        if groups and not any(of_group(group.hall).keys == operations.keys for group in groups):
            raise Unusable(
                f"space group given in two ways that contradict each other: {text}",
                "correct the wrong one, or list the symmetry operations in the file",
            )
        numbers = _settings(kind, value) if kind in ("number", "type", "schoenflies") else None
        order = len(_point_group(operations))
        if numbers and len(_point_group(of_group(numbers[0].hall))) != order:
            raise Unusable(
                f"space group given in two ways that contradict each other: {text}",
                "correct the wrong one, or list the symmetry operations in the file",
            )


def _point_group(operations: Operations) -> set[tuple[int, ...]]:
    """Return the distinct rotations."""
    return {tuple(rotation.ravel().tolist()) for rotation in operations.rotations}


@functools.lru_cache(maxsize=256)
def _of_hall(symbol: str) -> Operations | None:
    """Return the operations of a Hall symbol; None if it is not known."""
    if len(symbol) > _LONGEST or not symbol.isascii():
        return None  # gemmi's message splits letters beyond ASCII
    try:
        return of_group(symbol.replace("_", " "))
    except RuntimeError:
        return None


@functools.lru_cache(maxsize=1024)
def _settings(kind: str, value: str) -> tuple[gemmi.SpaceGroup, ...] | None:
    """Return the settings that agree with a symbol or number, the usual one first; None if it is not known."""
    if len(value) > _LONGEST or not value.isascii():
        return None  # int() also accepts digits of other scripts
    if kind == "number":
        number = int(value) if value.isdigit() else 0
    elif kind == "schoenflies":
        number = _schoenflies_number(value)
    else:
        groups = _of_symbol(value)
        if kind == "symbol" or groups is None:
            return groups
        number = groups[0].number
    if not 1 <= number <= NUM_SPACE_GROUPS:
        return None
    groups = tuple(group for group in _table() if group.number == number)
    return tuple(sorted(groups, key=lambda group: not group.is_reference_setting()))


@functools.cache
def _table() -> tuple[gemmi.SpaceGroup, ...]:
    """Return all settings in gemmi."""
    return tuple(gemmi.spacegroup_table())


def _schoenflies_number(symbol: str) -> int:
    """Return the number of a Schoenflies symbol (D6h^4, D6h.4, D_6h^4); 0 if it is not known."""
    match = re.fullmatch(r"([A-Za-z])_?\{?(\d?[a-z]?)\}?\s*(?:[.^_ ]\s*\{?(\d+)\}?)?", symbol.strip())
    first, count = _CLASSES.get((match[1].upper() + match[2]) if match else "", (0, 0))
    index = int(match[3] or (1 if count == 1 else 0)) if match else 0
    return first + index - 1 if 1 <= index <= count else 0


def _of_symbol(symbol: str) -> tuple[gemmi.SpaceGroup, ...] | None:
    """Return the settings that agree with a Hermann-Mauguin symbol; None if it is not known."""
    name = re.sub(r"(\d)\((\d)\)", r"\1\2", symbol.replace("_", "").replace("~", "")).strip()
    if name.isdigit():
        return _settings("number", name)
    for ending in _BEHIND:
        match = ending.search(name)
        if match is not None and match.start():
            end = match[1].upper()
            end = _ICSD.get(end, end)
            if groups := tuple(g for g in _found(name[: match.start()].strip()) if g.ext.upper() == end):
                return groups
    return _found(name) or None


def _found(name: str) -> tuple[gemmi.SpaceGroup, ...]:
    """Return the settings of a symbol without origin or axes, or with those in gemmi's notation."""
    compact = name.replace(" ", "").lower()
    short = tuple(group for group in _table() if _short_monoclinic(group.hm).replace(" ", "").lower() == compact)
    group = gemmi.find_spacegroup_by_name(name) or gemmi.find_spacegroup_by_name(_short(name))
    if group is None:
        return short
    if ":" in name:
        return (group,)
    alike = tuple(other for other in _table() if other.number == group.number and other.hm == group.hm)
    if re.match(r"[Hh]", name):
        return tuple(other for other in alike if other.ext != "R")  # H is the lattice of hexagonal axes
    # Also the short symbol for other unique axes: P 21/b for P 1 1 21/b and P 21/b 1 1.
    return alike + tuple(other for other in short if other not in alike and other.number == group.number)


def _short_monoclinic(symbol: str) -> str:
    """Return a monoclinic symbol without directions of no symmetry; other symbols are returned unchanged."""
    words = symbol.split()
    return " ".join(word for word in words if word != "1") if words.count("1") == 2 else symbol


def _short(name: str) -> str:
    """Return the short form of a full symbol: F 4/m -3 2/m as F m -3 m, P 21/n 21/m 21/a as P n m a."""
    words = name.split()
    if len(words) < 3:
        return name
    cubic = words[2] == "-3"
    axial = words[1][0] in "46" and not cubic
    kept = [words[0], words[1] if axial else re.sub(r"^\d+/", "", words[1])]
    return " ".join(kept + [re.sub(r"^\d+/", "", word) for word in words[2:]])


def _with_code(groups: list[gemmi.SpaceGroup], code: str) -> list[gemmi.SpaceGroup]:
    """Return the settings with a code: 1, 2, h, r, b1, -c2, 1cab, abc."""
    code = code.strip().lower().removeprefix(":")
    if code in ("a1", "b1", "c1") and any(group.qualifier == code[0] for group in groups):
        code = code[0]  # with a single cell choice there is no number after the axis
    own = {group: (group.ext.strip("\0").lower() + group.qualifier) or "abc" for group in groups}
    return [group for group in groups if code in (own[group], own[group] + "abc")]
