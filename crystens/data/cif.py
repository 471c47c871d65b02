"""CIF text to crystals (this module reads; `crystens.cif` writes).

The atoms listed are the asymmetric unit: symmetry operations make the others. Operations that a file lists win over the
space group that it names; the name is used where no operations are listed; a file with neither is P 1. Images of one
site that coincide within `Limits.merge_distance` are one site, at their mean, so that a third rounded to 0.3333 makes
one atom and not two. Coordinates are otherwise kept as written and wrapped into [0, 1). Deuterium and tritium are
hydrogen. An image holds ordered crystals only: what becomes of a partial occupancy is an option of `Limits`.

Each data block is one entry. Blocks without a cell and without atoms (the text of a publication) hold no crystal and
are passed over if another block does.

Source: core CIF dictionary, International Tables for Crystallography G (2005), ch. 4.1; syntax by gemmi.
"""

from __future__ import annotations

import functools
import re

import gemmi
import numpy as np
from gemmi import cif
from pymatgen.core import Element

from crystens.crystal import Crystal, cell_vectors
from crystens.data.entries import Entry, Reject, Unusable, quoted, shown
from crystens.data.files import unpacked
from crystens.data.limits import Limits

_CELL_TAGS = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
_OPERATION_TAGS = (
    "_space_group_symop_operation_xyz",
    "_space_group_symop.operation_xyz",
    "_symmetry_equiv_pos_as_xyz",
    "_symmetry_equiv.pos_as_xyz",
)
_GROUP_TAGS = (
    "_space_group_name_Hall",
    "_space_group.name_Hall",
    "_symmetry_space_group_name_Hall",
    "_space_group_name_H-M_alt",
    "_space_group.name_H-M_alt",
    "_symmetry_space_group_name_H-M",
    "_space_group_IT_number",
    "_space_group.IT_number",
    "_symmetry_Int_Tables_number",
)
_MAX_OPERATIONS = 2000  # a group in a conventional cell has 192 at most; supercells have more
_MAX_WORK = 10**8  # pairs of operations, times atoms: 192 operations on 100 atoms need 4 % of it
_LONGEST_OPERATION = 200  # letters; without a bound a number in it has no bound either
_LARGEST_COEFFICIENT = 1000  # in an operation
_LONGEST_GROUP = 60  # letters of a symbol
_LONGEST_NAME = 200
_FULL = frozenset(["1", "1.", "1.0", "1.00", "1.000", "1.0000"])  # occupancies that need no look
_NO_CIF = "export the structure as CIF again"


def read_cif(content: bytes | str, file: str, limits: Limits) -> list[Entry | Reject]:
    """Return one entry or reject for each data block of a CIF, or one reject for a text that is no CIF.

    Args:
        content: the text, or its bytes: UTF-8, UTF-16 or Latin-1, with or without a byte order mark, gzipped or not.
        file: name to report.
        limits: bounds on what is usable.
    """
    try:
        blocks = _blocks(content)
    except Unusable as error:
        return [Reject(file, "", error.reason, error.advice)]
    results: list[Entry | Reject] = []
    for block in blocks:
        name = shown(block.name, _LONGEST_NAME)
        try:
            results.append(Entry(file, name, _crystal(block, limits)))
        except Unusable as error:
            results.append(Reject(file, name, error.reason, error.advice))
    return results


def _blocks(content: bytes | str) -> list[cif.Block]:
    """Return the data blocks that should hold a crystal."""
    text = content if isinstance(content, str) else _decoded(content)
    if not text.strip():
        raise Unusable("empty file", "fetch or export the file again")
    try:
        document = cif.read_string(text.removeprefix("\ufeff"))
    except (ValueError, RuntimeError) as error:
        raise _syntax_error(str(error)) from error
    holding = [b for b in document if any(_cell_value(b, tag) for tag in _CELL_TAGS) or _atom_column(b, "fract_x")]
    if not holding:
        raise Unusable("no crystal in the file: no data block with a cell and atoms", _NO_CIF)
    return holding


def _decoded(content: bytes) -> str:
    """Return bytes as text."""
    content = unpacked(content)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    if re.search(rb"[\x00-\x08\x0e-\x19\x1b-\x1f]", content):
        raise Unusable("not a CIF: binary data", "give a text file with a data_ block")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _syntax_error(message: str) -> Unusable:
    """Return gemmi's complaint as a refusal."""
    message = message.removeprefix("string:").removeprefix("string ")
    if "expected block header" in message:
        return Unusable("not a CIF: no data_ block at its beginning", _NO_CIF)
    if "Wrong number of values in loop" in message:
        detail = shown(message.partition("in loop ")[2])
        return Unusable(
            f"loop is truncated: the values of {detail} are not a multiple of the loop's columns",
            "fetch the file again, or complete its last row",
        )
    return Unusable(f"CIF syntax error: line {shown(message, 120)}", "correct that line, or export the structure again")


def _crystal(block: cif.Block, limits: Limits) -> Crystal:
    """Return the crystal of one data block."""
    lengths, angles = _cell(block)
    limits.check_cell(lengths, angles)
    numbers, coordinates, occupancies = _asymmetric_unit(block)
    matrix = cell_vectors(lengths, angles)
    numbers, coordinates = limits.ordered(numbers, coordinates, occupancies, matrix)
    rotations, translations = _operations(block, angles)
    if len(rotations) > 1:
        numbers, coordinates = _expanded(numbers, coordinates, rotations, translations, matrix, limits)
    return limits.crystal(lengths, angles, numbers, coordinates)


def _cell(block: cif.Block) -> tuple[np.ndarray, np.ndarray]:
    """Return lengths (3,), angstrom, and angles (3,), degrees."""
    values = []
    for tag in _CELL_TAGS:
        text = _cell_value(block, tag)
        if not text or cif.is_null(text):
            raise Unusable(f"_cell_{tag} missing", "complete the cell in the file")
        value = _number(text)
        if not np.isfinite(value):
            raise Unusable(f"cell is not a number: _cell_{tag} is {quoted(cif.as_string(text))}", "correct the cell")
        if tag.startswith("length") and value <= 0:
            raise Unusable(f"cell length must be > 0: _cell_{tag} is {value:g}", "correct the cell in the file")
        if tag.startswith("angle") and not 0 < value < 180:
            raise Unusable(
                f"cell angle must lie strictly between 0 and 180 degrees: _cell_{tag} is {value:g}",
                "correct the cell in the file",
            )
        values.append(value)
    return np.array(values[:3]), np.array(values[3:])


def _cell_value(block: cif.Block, tag: str) -> str | None:
    """Return the text of a cell item under its old or its new name."""
    return block.find_value(f"_cell_{tag}") or block.find_value(f"_cell.{tag}")


def _number(text: str) -> float:
    """Return a CIF number without its standard uncertainty; NaN if it is none."""
    return cif.as_number(cif.as_string(text))


def _numbers(column: list[str]) -> list[float]:
    """Return CIF numbers without their standard uncertainties; NaN or infinity for each that is none."""
    letters = "".join(column)
    if letters.isascii() and "_" not in letters:
        try:
            return list(map(float, column))  # most columns are plain numbers, which this reads in a tenth of the time
        except ValueError:
            pass
    return [_number(text) for text in column]


def _atom_column(block: cif.Block, name: str) -> list[str]:
    """Return a column of the atom_site loop, or its single value; empty if there is none."""
    return list(block.find_values(f"_atom_site_{name}") or block.find_values(f"_atom_site.{name}"))


def _asymmetric_unit(block: cif.Block) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the atomic numbers (n,), fractional coordinates (n, 3) and occupancies (n,) that the file lists."""
    columns = [_atom_column(block, f"fract_{axis}") for axis in "xyz"]
    symbols, labels = _atom_column(block, "type_symbol"), _atom_column(block, "label")
    count = len(columns[0])
    if count == 0 or any(len(column) != count for column in columns) or len(symbols or labels) != count:
        raise Unusable(
            "atoms incomplete: each needs _atom_site_fract_x, _y, _z and _atom_site_type_symbol or _atom_site_label",
            _NO_CIF,
        )
    occupied = _atom_column(block, "occupancy")
    if len(occupied) not in (0, count):  # columns of two loops
        raise Unusable(f"atoms incomplete: there are {count} sites and {len(occupied)} occupancies", _NO_CIF)
    names = [cif.as_string(text) for text in (labels if len(labels) == count else symbols)]
    coordinates = np.array([_numbers(column) for column in columns]).T
    broken = np.flatnonzero(~np.isfinite(coordinates).all(axis=1))
    if len(broken):
        values = ", ".join(shown(cif.as_string(column[broken[0]]), 20) for column in columns)
        name = shown(names[broken[0]], 20)
        raise Unusable(f"coordinate is not a finite number: {name} at {values}", "correct the coordinates")
    occupancies = np.ones(count)
    if not _FULL.issuperset(occupied):
        for row, text in enumerate(occupied):
            occupancies[row] = _occupancy(names[row], text)
    numbers = [_atomic_number(text, False) for text in symbols] or [_atomic_number(text, True) for text in labels]
    return np.array(numbers), coordinates, occupancies


def _occupancy(name: str, text: str) -> float:
    """Return an occupancy of at least 0; 1 where none is given."""
    if cif.is_null(text):
        return 1.0
    value = _number(text)
    if not 0 <= value < np.inf:
        found = f"{shown(name, 20)} has {quoted(cif.as_string(text))}"
        raise Unusable(f"occupancy is not a number >= 0: {found}", "correct the occupancy")
    return value


@functools.lru_cache(maxsize=4096)
def _atomic_number(text: str, is_label: bool) -> int:
    """Return the atomic number of a type symbol (Fe, Fe3+, D) or of a site label (Fe1, FE2A)."""
    text = cif.as_string(text)
    letters = re.match(r"[A-Za-z]*", text).group().capitalize()  # type: ignore[union-attr]
    symbol = {"D": "H", "T": "H"}.get(letters, letters)
    try:
        return Element(symbol).Z
    except ValueError:
        advice = "add _atom_site_type_symbol to the file" if is_label else "correct the element symbol"
        raise Unusable(f"unknown element: {quoted(letters or text)}", advice) from None


def _operations(block: cif.Block, angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rotations (M, 3, 3) and translations (M, 3) by the list, else by the name, else the identity."""
    for tag in _OPERATION_TAGS:
        listed = tuple(cif.as_string(text) for text in block.find_values(tag) if not cif.is_null(text))
        if len(listed) > _MAX_OPERATIONS:
            raise Unusable(f"too many symmetry operations: {len(listed)}", "list all atoms under x,y,z instead")
        if listed:
            return _listed_operations(listed)
    return _named_operations(block, angles)


@functools.lru_cache(maxsize=256)
def _listed_operations(triplets: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return rotations (M, 3, 3) and translations (M, 3) of operations such as "-x+1/2,y,z"."""
    rows = np.array([_operation(triplet) for triplet in dict.fromkeys(triplets)])
    return rows[:, :, :3], rows[:, :, 3]


def _operation(triplet: str) -> list[list[float]]:
    """Return three rows (coefficients of x, y, z and translation) of one operation.

    gemmi's own reader refuses decimals and denominators that do not divide 24.
    """
    if len(triplet) > _LONGEST_OPERATION:
        raise _bad_operation(triplet)
    rows = []
    for part in triplet.lower().replace(" ", "").split(","):
        row, rest = [0.0] * 4, part
        while rest:
            term = re.match(r"([+-]?)(?:(\d*\.?\d+|\d+\.)(?:/(\d+))?)?\*?([xyz]?)", rest)
            if term is None or not (term[2] or term[4]) or (term[3] and not int(term[3])):
                raise _bad_operation(triplet)
            value = (-1.0 if term[1] == "-" else 1.0) * float(term[2] or 1) / int(term[3] or 1)
            row["xyz".index(term[4]) if term[4] else 3] += value
            rest = rest[term.end() :]
        rows.append(row)
    if len(rows) != 3 or np.abs(rows).max() > _LARGEST_COEFFICIENT:
        raise _bad_operation(triplet)
    if abs(abs(np.linalg.det(np.array(rows)[:, :3])) - 1) > 1e-6:
        raise _bad_operation(triplet)
    return rows


def _bad_operation(triplet: str) -> Unusable:
    """Return the refusal of an operation."""
    return Unusable(f"symmetry operation not understood: {quoted(triplet)}", "write it like -x+1/2,y,z")


def _named_operations(block: cif.Block, angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the operations of the space group that a file names.

    The angles tell the setting of a rhombohedral group. Where a group has two origins and the name does not tell, it is
    the first one, as in pymatgen and gemmi.
    """
    named = ""
    for tag in _GROUP_TAGS:
        text = block.find_value(tag)
        if not text or cif.is_null(text):
            continue
        named = cif.as_string(text).strip()
        operations = _group_operations(named, "Hall" in tag, float(angles[0]), float(angles[2]))
        if operations is not None:
            return operations
    if named:
        raise Unusable(f"space group not known: {quoted(named)}", "list the symmetry operations in the file")
    return np.eye(3)[None], np.zeros((1, 3))


@functools.lru_cache(maxsize=1024)
def _group_operations(name: str, is_hall: bool, alpha: float, gamma: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the operations of a group by its Hall symbol, Hermann-Mauguin symbol or number; None if unknown."""
    if len(name) > _LONGEST_GROUP or not name.isascii():
        return None  # gemmi complains of letters beyond ASCII in half a letter, and int() takes other digits
    if is_hall:
        try:
            group = gemmi.symops_from_hall(name)
        except RuntimeError:
            return None
    else:
        if name.isdigit():
            standard = gemmi.find_spacegroup_by_number(int(name)) if 1 <= int(name) <= 230 else None
            name = standard.hm if standard else name
        # The ICSD writes origins 1 and 2 as S and Z, hexagonal axes as H or HR.
        for suffix, setting in ((" S", ":1"), (" Z", ":2"), (" HR", ":H"), (" H", ":H")):
            name = name.removesuffix(suffix) + setting if name.endswith(suffix) else name
        found = gemmi.find_spacegroup_by_name(name.replace("_", ""), alpha, gamma)
        if found is None:
            return None
        group = found.operations()
    operations = list(group)
    return (
        np.array([operation.rot for operation in operations]) / gemmi.Op.DEN,
        np.array([operation.tran for operation in operations]) / gemmi.Op.DEN,
    )


def _expanded(
    numbers: np.ndarray,
    coordinates: np.ndarray,
    rotations: np.ndarray,
    translations: np.ndarray,
    matrix: np.ndarray,
    limits: Limits,
) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers (N,) and coordinates (N, 3) of all sites in the cell."""
    if len(rotations) ** 2 * len(coordinates) > _MAX_WORK:
        raise Unusable(
            f"too many symmetry operations: {len(rotations)} for {len(coordinates)} atoms",
            "list all atoms under x,y,z instead",
        )
    sites: list[np.ndarray] = []
    counts = []
    for site in coordinates:
        images = rotations @ site + translations
        steps = images - images[:, None]
        steps -= np.round(steps)
        vectors = steps @ matrix
        near = np.einsum("ijk,ijk->ij", vectors, vectors) < limits.merge_distance**2
        firsts = np.flatnonzero(near.argmax(axis=1) == np.arange(len(images)))
        weights = near[firsts] / near[firsts].sum(axis=1, keepdims=True)
        sites.append(images[firsts] + np.einsum("ij,ijk->ik", weights, steps[firsts]))
        counts.append(len(firsts))
        limits.check_read_count(sum(counts))
    return np.repeat(numbers, counts), np.concatenate(sites)
