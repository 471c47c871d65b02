"""Extended XYZ files with one or many frames: a number of atoms, a comment line, and a line for each atom.

Read by the specification of the format. The comment line (`crystens.formats.xyz_comment`) holds

    Lattice     the cell vectors a, b, c, angstrom: nine numbers, three rows of three, or the three lengths of a cell
                whose angles are 90 degrees
    pbc         optional; must be true along all three vectors
    Properties  the columns of the atom lines, name:kind:number and so on, in any order. Columns that are read: species
                (S), Z (I), pos (R, Cartesian, angstrom), occupancy (R). Without Properties: symbol, x, y, z

Atom lines have the number of values in Properties; texts with blanks are in quotes. Exponents may have Fortran's form.
A frame is named by its material_id, id or name, otherwise `frame K`, counted from 1. Any key of the comment line with a
number as value can be kept as a property (`crystens.sources.properties`).

The rows of a Lattice with three rows are cell vectors, by the specification; libAtoms' reader (extxyz 0.4.6) reads them
as columns. ASE (3.29) rejects them, and also three lengths and Fortran's exponents. Therefore crystens has its own
reader; the tests compare with ASE's writer.

Frames are read one after the other (`crystens.formats.xyz_frames`), so that a file may have any size. The path is one
.xyz or .extxyz file, gzipped or not, a folder of them, searched to any depth, or an archive; see
`crystens.sources.files`.

Source: README of github.com/libAtoms/extxyz (version 0.4), and `ase.io.extxyz`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crystens.errors import CrystensError
from crystens.formats.xyz_comment import Pairs, Value, unquoted, words
from crystens.formats.xyz_frames import frames
from crystens.sources.files import ARCHIVE_SUFFIXES, file_records, find_files
from crystens.sources.json_stream import DAMAGE, opened
from crystens.sources.limits import Limits
from crystens.sources.properties import kept
from crystens.sources.record import Entry, Record, Reject, Unusable, shown
from crystens.sources.source import Source, existing
from crystens.sources.structures import atomic_number, check_periodic, crystal_of_sites, finite_array, own_name
from crystens.sources.texts import number

XYZ_SUFFIXES = (".xyz", ".extxyz", ".xyz.gz", ".extxyz.gz")
_EXPECTED = "a .xyz or .extxyz file (or .gz of it), a folder of them, or a .tar.gz or .zip archive of them"
_PLAIN_COLUMNS = "species:S:1:pos:R:3"
_COLUMN = re.compile(r"((?:[^:]|::)+?):([SRIL]):([1-9]\d{0,3})(?::(?=.)|$)", re.DOTALL)
_VALUE = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')
_FLAGS = {"T": True, "True": True, "true": True, "TRUE": True, "t": True, "1": True} | {
    "F": False, "False": False, "false": False, "FALSE": False, "f": False, "0": False
}  # fmt: skip
_LATTICE = 'write Lattice="ax ay az bx by bz cx cy cz", angstrom, into the comment line'
_PROPERTIES = "write Properties=species:S:1:pos:R:3"


class ExtendedXyz(Source):
    """Source: the extended XYZ files at a path.

    Args:
        path: folder, archive or file. None raises an error on reading.
    """

    gives_properties = True

    def __init__(self, path: str | Path | None) -> None:
        """Keep the path; nothing is opened yet."""
        self.path = path

    def __str__(self) -> str:
        """Return what is read, for messages."""
        return f"extended XYZ files of {self.path}"

    def contents(self) -> dict[str, str | Path]:
        """Return the files and archives, see `Source.contents`."""
        return find_files(self._root(), is_xyz)[0]

    def records(self) -> Iterator[Record | Reject]:
        """Yield a record for each frame.

        Raises:
            CrystensError: if the path does not exist or there is no such file in it.
        """
        path = self._root()
        empty = True
        for item in file_records(path, is_xyz):
            empty = False
            if isinstance(item, Reject):
                yield item
            else:
                yield from _frames(item)
        if empty:
            raise CrystensError(f"no .xyz or .extxyz file in {path}; give {_EXPECTED}")

    def parse(self, record: Record, limits: Limits) -> list[Entry | Reject]:
        """Return the crystal of one frame."""
        rows = [*_text(record.content).split("\n"), ""]  # a frame without atoms may have no comment line
        pairs = Pairs(rows[1])
        name = own_name(pairs.texts()) or record.entry
        try:
            matrix = _matrix(pairs)
            count = int(rows[0])
            limits.check_read_count(count)
            numbers, positions, occupancies = _sites(rows[2 : 2 + count], pairs)
            crystal = crystal_of_sites(limits, matrix, numbers, positions, occupancies, cartesian=True)
            properties = kept(_asked(pairs, self.properties), self.properties)
        except Unusable as error:
            return [Reject(record.file, name, error.reason, error.advice)]
        return [Entry(record.file, name, crystal, properties=properties)]

    def _root(self) -> Path:
        """Return the path, checked."""
        path = existing(self.path, _EXPECTED)
        if path.is_file() and not path.name.lower().endswith((*XYZ_SUFFIXES, *ARCHIVE_SUFFIXES)):
            raise CrystensError(f"{path} is neither an .xyz file nor an archive of them; give {_EXPECTED}")
        return path


def is_xyz(name: str) -> bool:
    """Return whether a file of this name is an XYZ file."""
    return name.lower().endswith(XYZ_SUFFIXES)


def _frames(record: Record) -> Iterator[Record | Reject]:
    """Yield a record for each frame of a file, and a reject for each that cannot be read."""
    found = 0
    try:
        with opened(record.content) as file:
            for frame in frames(file):
                found += 1
                if isinstance(frame, Unusable):
                    yield Reject(record.file, f"frame {found}", frame.reason, frame.advice)
                else:
                    yield Record(record.file, f"frame {found}", frame)
            if found == 0:
                yield Reject(record.file, "", "empty file", "fetch or export the file again")
    except Unusable as error:
        yield Reject(record.file, "", error.reason, error.advice)
    except DAMAGE as error:
        yield Reject(record.file, "", f"cannot read the file: {error} after frame {found}", "fetch the file again")


def _text(content: bytes) -> str:
    """Return the text of a frame, UTF-8 or Latin-1."""
    if b"\0" in content:
        raise Unusable("not a text file: binary data", "give a text file")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _asked(pairs: Pairs, names: Sequence[str] | None) -> dict[str, Value | None]:
    """Return the values of some keys, by their exact names, or of all keys.

    If a quote is not closed, an absent key may follow it; `Pairs.get` then raises `Unusable`.
    """
    if names is None:
        return {**pairs.values}
    return {name: pairs.get(name) for name in names if name in pairs.values or pairs.unclosed is not None}


def _matrix(pairs: Pairs) -> np.ndarray:
    """Return the cell vectors as rows (3, 3), angstrom."""
    lattice = pairs.get("Lattice")
    if lattice is None:
        raise Unusable("no cell: the comment line has no Lattice", _LATTICE)
    lattice = unquoted(lattice)
    found = words(lattice)
    if _rows(lattice) not in ([3, 3, 3], [9], [3]):
        raise Unusable(f"Lattice not understood: it has {len(found)} values and not nine", _LATTICE)
    if (periodic := pairs.get("pbc")) is not None:
        _check_pbc(periodic)
    values = finite_array(_numbers(found, "Lattice values"), (len(found),), "Lattice values")
    return np.diag(values) if len(values) == 3 else values.reshape(3, 3)


def _rows(value: Value) -> list[int]:
    """Return the number of values in each row of a text or an array; empty for any other nesting."""
    if isinstance(value, str) or all(isinstance(item, str) for item in value):
        return [len(words(value))]
    rows = [item for item in value if isinstance(item, list) and all(isinstance(word, str) for word in item)]
    return [len(row) for row in rows] if len(rows) == len(value) else []


def _check_pbc(value: Value) -> None:
    """Raise `Unusable` unless the flags, one for all or one for each vector, are true."""
    flags = words(unquoted(value))
    if (odd := next((flag for flag in flags if flag not in _FLAGS), None)) is not None:
        raise Unusable(f"pbc not understood: {shown(odd)!r}", 'write pbc="T T T"')
    periodic = [_FLAGS[flag] for flag in flags]
    check_periodic(periodic * 3 if len(periodic) == 1 else periodic)


def _numbers(texts: list[str], name: str) -> list[float]:
    """Return texts as numbers."""
    values = []
    for text in texts:
        try:
            values.append(number(text))
        except ValueError as error:
            raise Unusable(f"{name} not numbers: {shown(text)!r}", f"correct the {name}") from error
    return values


@dataclass(frozen=True)
class _Columns:
    """The columns of the atom lines.

    Attributes:
        places: kind (S, R, I or L), first column and number of columns of each property.
        width: number of known columns.
        whole: whether these are all columns. Columns after the needed ones need not be understood.
    """

    places: dict[str, tuple[str, int, int]]
    width: int
    whole: bool

    def find(self, name: str, kinds: str, size: int) -> int | None:
        """Return the first column of a property; None if there is no such property.

        Raises:
            Unusable: if the property has another kind or another number of columns.
        """
        if name not in self.places:
            return None
        kind, first, found = self.places[name]
        if kind not in kinds or found != size:
            raise Unusable(
                f"Properties not understood: {name} is {kind}:{found} and not {kinds[0]}:{size}", _PROPERTIES
            )
        return first


def _columns(properties: Value) -> _Columns:
    """Return the columns that Properties names; the case of a name does not matter, except for Z."""
    refusal = Unusable(f"Properties not understood: {shown(str(properties), 150)!r}", _PROPERTIES)
    if not isinstance(properties, str):
        raise refusal
    places: dict[str, tuple[str, int, int]] = {}
    place = width = 0
    while (match := _COLUMN.match(properties, place)) is not None:
        name = match[1] if match[1] == "Z" else "z (not Z)" if match[1] == "z" else match[1].lower()
        if name in places and name in ("species", "pos", "Z", "occupancy"):
            raise Unusable(f"Properties not understood: {name} stands twice", _PROPERTIES)
        places[name] = (match[2], width, int(match[3]))
        width += int(match[3])
        place = match.end()
    whole = place == len(properties)
    if not whole and not ("pos" in places and ("species" in places or "Z" in places)):
        raise refusal
    return _Columns(places, width, whole)


def _sites(rows: list[str], pairs: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return atomic numbers (N,), Cartesian positions (N, 3), angstrom, and occupancies (N,) if there are any."""
    properties = pairs.get("Properties")
    columns = _columns(_PLAIN_COLUMNS if properties is None else properties)
    pos, species, charges = columns.find("pos", "RI", 3), columns.find("species", "SI", 1), columns.find("Z", "I", 1)
    if pos is None or (species is None and charges is None):
        raise Unusable(f"Properties without species or pos: {shown(str(properties), 150)!r}", _PROPERTIES)
    exact = columns.whole and properties is not None
    values = [_values(row, place, columns.width, exact) for place, row in enumerate(rows, start=1)]
    named = [[_element(row[column]) for row in values] for column in (species, charges) if column is not None]
    if named[0] != named[-1]:
        raise Unusable("species and Z disagree: they name other elements for an atom", "correct one of the two columns")
    positions = finite_array(
        [_numbers(row[pos : pos + 3], "positions") for row in values], (len(values), 3), "positions"
    )
    _check_ase_occupancy(pairs.texts())
    occupancies = None
    if (place := columns.find("occupancy", "RI", 1)) is not None:
        occupancies = finite_array(
            _numbers([row[place] for row in values], "occupancies"), (len(values),), "occupancies"
        )
    return np.array(named[0], dtype=np.int64), positions, occupancies


def _values(row: str, place: int, width: int, exact: bool) -> list[str]:
    """Return the values of the line of atom `place`, counted from 1.

    A quoted text is one value, unless the number of its words already fits the columns.
    """
    values = row.split()
    if len(values) != width and '"' in row:
        values = [match[2] if match[1] is None else match[1] for match in _VALUE.finditer(row)]
    if len(values) < width or (exact and len(values) > width):
        fault = "short" if len(values) < width else "long"
        reason = f"atom line too {fault}: the line of atom {place} has {len(values)} values, and Properties {width}"
        raise Unusable(reason, "correct the line, or Properties")
    return values


def _element(species: str) -> int:
    """Return the atomic number of a symbol or of a text that is a number."""
    species = species[1:-1] if len(species) > 2 and species[0] == species[-1] == '"' else species
    return atomic_number(int(species) if re.fullmatch(r"[0-9]{1,3}", species) else species)


def _check_ase_occupancy(fields: dict[str, str]) -> None:
    """Raise `Unusable` if ASE wrote a frame from a disordered CIF.

    ASE keeps one element of each site in the atom lines. The comment line has the occupancies as JSON, by numbers of
    sites in the CIF, which does not tell which elements share a site of the frame.
    """
    try:
        kinds = json.loads(fields.get("occupancy", "{}").removeprefix("_JSON").strip())
        shares = [share for kind in kinds.values() for share in kind.values()]
    except (ValueError, AttributeError, RecursionError):
        return
    if any(share != 1 for share in shares):
        raise Unusable(
            "partial occupancy (disordered structure): the comment line has an occupancy below 1",
            "give the CIF from which the frame was made",
        )
