"""The symmetry of a data block: its operations, from their list or else from the name of the group.

A list must fit the cell and form a group together with the lattice translations. A list with missing lines is completed
if only one group is possible, and rejected otherwise. A list overrides a name that disagrees. If the list is a subgroup
of the named group, the number of atoms in the formula decides.

A name may have several settings (`crystens.cif.settings`). The cell excludes some; formula and multiplicities decide
between two origins. A file without symmetry lists all its atoms. A file with an unknown form of symmetry, or a
modulated structure, is rejected.

Operations of magnetic structures have a fourth part, time reversal, which moves no atom; their list is multiplied by
the list of centring translations (magnetic CIF dictionary, `_space_group_symop_magn_operation`).
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

import numpy as np

from crystens.cif.items import Items, is_null, plain
from crystens.cif.operations import IDENTITY, Listed, Operations, listed
from crystens.cif.settings import Setting, Statement, statement
from crystens.sources.record import Unusable, quoted, shown

_LISTS = (
    "_space_group_symop_operation_xyz",
    "_symmetry_equiv_pos_as_xyz",
    "_space_group_symop_operation_xyz_",
    "_symmetry_equiv_pos_as_xyz_",
)
_GENERATORS = "_space_group_symop_generator_xyz"
_MAGNETIC = "_space_group_symop_magn_operation_xyz"
_CENTRING = "_space_group_symop_magn_centering_xyz"
_MOST_OPERATIONS = 2000  # a group in a conventional cell has 192 at most; supercells have more
_MOST_REPEATED = 400  # a group that is listed twice is accepted
_IN_P1 = {("x,y,z",), ("x, y, z",)}
_LIST_THEM = "list the symmetry operations of this cell, or list all atoms under x,y,z"
_MODULATED = re.compile(r"^_\w*(?:_ssg_|_superspace|cell_wave_vector|cell_subsystem)", re.MULTILINE)
_UNKNOWN = re.compile(
    r"^_[\w-]*(?:symop|symmetry_equiv|equiv_pos|symmetry_operation)[\w-]*$"
    r"|^_(?:parent_space_group|(?:magnetic_)?space_group_magn)[\w-]*(?:name|number)[\w-]*$",
    re.MULTILINE,
)
_HARMLESS = re.compile(r"_id$|_mxmymz$|description|timereversal|_link_|_info$")


@dataclass(frozen=True, eq=False)
class Symmetry:
    """The possible symmetries of a data block.

    Attributes:
        readings: possible operations; if there are several, the number of atoms decides.
        default: whether the first reading is used if the number of atoms does not decide.
        doubt: reason why there are several readings, or why the only one may be wrong.
        advice: how to correct the file.
    """

    readings: tuple[Setting, ...]
    default: bool = True
    doubt: str = ""
    advice: str = ""


_NONE_SAID = Symmetry(
    (Setting("x,y,z", IDENTITY),),
    doubt="no symmetry in the file, and fewer atoms than its formula and _cell_formula_units_Z say",
    advice="add the symmetry operations or the space group, or complete the atoms",
)
_ONLY_IDENTITY = Symmetry((Setting("x,y,z", IDENTITY),))


def symmetry(items: Items, matrix: np.ndarray) -> Symmetry:
    """Return the symmetry of a data block.

    Args:
        items: items of the block.
        matrix: cell vectors as rows, shape (3, 3), angstrom.

    Raises:
        Unusable: if the symmetry is not known, or does not fit the cell.
    """
    _check_modulation(items)
    triplets = _triplets(items)
    if not triplets:
        return _named(items, matrix)
    if triplets in _IN_P1 or (len(triplets) == 1 and triplets[0].replace(" ", "").lower() == "x,y,z"):
        return _identity_alone(items, matrix)
    found = listed(triplets)
    if len(triplets) > max(_MOST_REPEATED, 2 * len(found.operations)):
        told = f"{len(triplets)} are listed, {len(found.operations)} are different"
        raise Unusable(f"too many symmetry operations: {told}", _LIST_THEM)
    if (wrong := found.operations.misfit(matrix)) is not None:
        reason = f"symmetry operation does not fit the cell: {shown(wrong)} does not keep {_cell(matrix)}"
        raise Unusable(reason, _LIST_THEM)
    if items.column(_GENERATORS) and found.group is not None and not any(map(items.column, _LISTS)):
        return Symmetry((Setting("the generators", found.group),))
    settings = _fitting(_statement(items), matrix)
    group = _completed(found, settings)
    # A number alone allows any setting, so an unusual setting does not contradict a list.
    larger = [s for s in settings if s.usual and s.operations.keys > group.keys]
    if not larger:
        return Symmetry((Setting("the listed operations", group),))
    return Symmetry(
        (Setting("the listed operations", group), larger[0]),
        default=False,
        doubt=f"listed operations are a part of the group that is named: {len(group)} are listed, {larger[0].name} has "
        f"{len(larger[0].operations)}",
        advice="complete the list, or correct the name",
    )


def _identity_alone(items: Items, matrix: np.ndarray) -> Symmetry:
    """Return the symmetry of a list with x,y,z alone. Many programs write this list for any group."""
    named = items.value("_symmetry_space_group_name_h-m") or items.value("_space_group_name_h-m_alt")
    if named is not None and named.replace(" ", "") in ("P1", "p1"):
        return _ONLY_IDENTITY
    settings = [s for s in _fitting(_statement(items), matrix) if len(s.operations) > 1]
    if not settings:
        return _ONLY_IDENTITY
    return Symmetry(
        (Setting("x,y,z alone", IDENTITY), *settings),
        doubt=f"listed is x,y,z alone, named is {settings[0].name}, and the formula fits the named group",
        advice="list all symmetry operations, or remove the name",
    )


def _triplets(items: Items) -> tuple[str, ...]:
    """Return the operations that a block lists, in the notation x,y,z."""
    if magnetic := _values(items, _MAGNETIC):
        centring = _values(items, _CENTRING) or ("x,y,z",)
        if len(magnetic) * len(centring) > _MOST_OPERATIONS:
            raise Unusable(f"too many symmetry operations: {len(magnetic)} times {len(centring)}", _LIST_THEM)
        spatial = [",".join(text.split(",")[:3]) if text.count(",") == 3 else text for text in magnetic]
        shifts = [",".join(text.split(",")[:3]) if text.count(",") == 3 else text for text in centring]
        return tuple(_shifted(operation, shift) for shift in shifts for operation in spatial)
    for name in (*_LISTS, _GENERATORS):
        if items.loop_of(name) is None:
            continue
        if found := _values(items, name):
            return found
        if not items.column(name):
            raise Unusable(f"symmetry operations are missing: {name} has no values", _LIST_THEM)
    return ()


def _values(items: Items, name: str) -> tuple[str, ...]:
    """Return the values of an item that are not null, without quotes."""
    found = tuple(plain(text) for text in items.column(name) if not is_null(text))
    if len(found) > _MOST_OPERATIONS:
        raise Unusable(f"too many symmetry operations: {len(found)}", _LIST_THEM)
    return found


def _shifted(operation: str, centring: str) -> str:
    """Return an operation followed by a centring translation x+1/2,y+1/2,z."""
    parts, shifts = operation.split(","), centring.lower().replace(" ", "").split(",")
    if len(parts) != 3 or len(shifts) != 3 or any(axis not in shift for axis, shift in zip("xyz", shifts, strict=True)):
        raise Unusable(f"symmetry operation not understood: {quoted(f'{operation} with {centring}')}", _LIST_THEM)
    ends = [shift.replace(axis, "", 1) for axis, shift in zip("xyz", shifts, strict=True)]
    return ",".join(
        part + (end if end[:1] in ("", "+", "-") else f"+{end}") for part, end in zip(parts, ends, strict=True)
    )


def _check_modulation(items: Items) -> None:
    """Raise `Unusable` for a structure that repeats in more than three dimensions."""
    tag = _modulation("\n".join(items.names))
    if tag is None and items.value("_cell_modulation_dimension") in (None, "0"):
        return
    raise Unusable(
        f"modulated structure: {shown(tag or '_cell_modulation_dimension')} is given",
        "give a commensurate approximant in a supercell",
    )


@functools.lru_cache(maxsize=64)  # cached, because files of one program have the same items
def _modulation(names: str) -> str | None:
    """Return the first name, of one on each line, that only a modulated structure has; None if there is none."""
    found = _MODULATED.search(names)
    return found[0] if found else None


def _statement(items: Items) -> Statement:
    """Return the statement on the space group in a block that lists operations; empty if it is not understood."""
    try:
        return statement(items)
    except Unusable:
        return Statement("", ())  # the list decides


def _fitting(said: Statement, matrix: np.ndarray) -> list[Setting]:
    """Return the distinct settings that fit a cell; only the usual ones if any of them fit."""
    fits = [setting for setting in said.settings if setting.operations.misfit(matrix) is None]
    fits = [setting for setting in fits if setting.usual] or fits
    different: list[Setting] = []
    for setting in fits:
        if all(setting.operations.keys != other.operations.keys for other in different):
            different.append(setting)
    return different


def _named(items: Items, matrix: np.ndarray) -> Symmetry:
    """Return the symmetry of a block that lists no operations."""
    for name in _UNKNOWN.findall("\n".join(items.names)):
        if name not in (*_LISTS, _GENERATORS) and not _HARMLESS.search(name):
            raise Unusable(f"symmetry is given in a form that crystens cannot read: {shown(name)}", _LIST_THEM)
    said = statement(items)
    if not said.settings:
        return _NONE_SAID
    fits = _fitting(said, matrix)
    if not fits:
        wrong = said.settings[0].operations.misfit(matrix)
        raise Unusable(
            f"space group does not fit the cell: {shown(said.text)} has {wrong}, which does not keep {_cell(matrix)}",
            "correct the cell, or name the group in the setting of the cell",
        )
    if len(fits) == 1:
        return Symmetry((fits[0],))
    names = " or ".join(setting.name for setting in fits[:4])
    return Symmetry(
        tuple(fits),
        default=False,
        doubt=f"setting of the space group in doubt: {shown(said.text)} may be {names}",
        advice="add the setting (:1 or :2) or _space_group_IT_coordinate_system_code, or list the operations",
    )


def _completed(found: Listed, settings: list[Setting]) -> Operations:
    """Return the group of a list. An incomplete list is completed if only one group is possible.

    More than half of the operations of a group generate that group and no smaller one. A shorter list is completed only
    if the file also names its group.
    """
    group = found.group
    if group is found.operations:
        return group
    named = group is not None and any(setting.operations.keys == group.keys for setting in settings)
    sizes = {len(setting.operations) for setting in settings if setting.usual}
    if group is not None and (named or (2 * len(found.operations) > len(group) and sizes <= {len(group)})):
        return group
    told = f"; {settings[0].name} has {len(settings[0].operations)}" if settings else ""
    raise Unusable(
        f"listed operations are no group: {shown(found.gap, 120)}, which is not among the {len(found.operations)} "
        f"listed{told}",
        "correct or complete the list of operations",
    )


def _cell(matrix: np.ndarray) -> str:
    """Return lengths and angles, for a message."""
    lengths = np.linalg.norm(matrix, axis=1)
    units = matrix / lengths[:, None]
    cosines = np.clip([units[1] @ units[2], units[0] @ units[2], units[0] @ units[1]], -1, 1)
    values = ", ".join(f"{value:.5g}" for value in [*lengths, *np.degrees(np.arccos(cosines))])
    return f"the lengths of the cell {values}"
