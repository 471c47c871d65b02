"""Extended XYZ files: one or many frames a file, each a number of atoms, a comment line, and a line for each atom.

The comment line holds `Lattice="ax ay az bx by bz cx cy cz"`, angstrom, and `Properties=species:S:1:pos:R:3:...`, which
names the columns of the atom lines: read are `species` (or `Z`), `pos` (Cartesian, angstrom) and `occupancy`. Without
`Properties` the columns are symbol, x, y, z. `pbc` must be true along the three vectors where it stands. A frame is
called by its material_id, id or name, otherwise `frame K`, counted from 1.

Frames are read one after the other, so that a file may be of any size; one frame may have `MAX_BYTES`. Files are
.xyz, .extxyz, gzipped or not: one, a folder of them searched to any depth, or an archive; see `crystens.sources.files`.

Source: documentation of the format at github.com/libAtoms/extxyz, and ASE's reader, against which this one is tested.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from crystens.errors import CrystensError
from crystens.sources.files import ARCHIVE_SUFFIXES, MAX_BYTES, file_records, find_files
from crystens.sources.json_stream import DAMAGE, opened
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Record, Reject, Unusable
from crystens.sources.source import Source, existing
from crystens.sources.structures import atomic_number, check_periodic, crystal_of_sites, finite_array, own_name, text_of

XYZ_SUFFIXES = (".xyz", ".extxyz", ".xyz.gz", ".extxyz.gz")
_EXPECTED = "a .xyz or .extxyz file (or .gz of it), a folder of them, or a .tar.gz or .zip archive of them"
_LONGEST_COUNT = 1000  # bytes of the line with the number of atoms
_PLAIN_COLUMNS = "species:S:1:pos:R:3"
_PAIR = re.compile(
    r"""(?<![\w.-])([A-Za-z_][\w.-]*)\s*=\s*("(?:[^"\\]|\\.)*"|'[^']*'|\{[^}]*\}|\[[^\]]*\]|[^\s"'{\[]\S*)"""
)
_TRUE = {"T", "t", "True", "true", "TRUE", "1"}
_LATTICE = 'write Lattice="ax ay az bx by bz cx cy cz", angstrom, into the comment line'


class ExtendedXyz(Source):
    """Source: the extended XYZ files at a path.

    Args:
        path: folder, archive or file; None if the user gave none, which reading reports.
    """

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
        rows = text_of(record.content).split("\n")
        fields = {match[1].lower(): _bare(match[2]) for match in _PAIR.finditer(rows[1])}
        name = own_name(fields) or record.entry
        try:
            matrix = _matrix(fields)
            count = int(rows[0])
            limits.check_read_count(count)
            numbers, positions, occupancies = _sites(rows[2 : 2 + count], fields)
            crystal = crystal_of_sites(limits, matrix, numbers, positions, occupancies, cartesian=True)
        except Unusable as error:
            return [Reject(record.file, name, error.reason, error.advice)]
        return [Entry(record.file, name, crystal)]

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
    """Yield a record for each frame of a file, and a reject where it cannot be read on."""
    number = 0
    try:
        with opened(record.content) as file:
            while first := _count_line(file):
                number += 1
                frame = _frame(file, first, f"frame {number}")
                if isinstance(frame, Unusable):
                    yield Reject(record.file, f"frame {number}", frame.reason, frame.advice)
                else:
                    yield Record(record.file, f"frame {number}", frame)
            if number == 0:
                yield Reject(record.file, "", "empty file", "fetch or export the file again")
    except Unusable as error:
        yield Reject(record.file, f"frame {number}" if number else "", error.reason, error.advice)
    except DAMAGE as error:
        yield Reject(record.file, "", f"cannot read the file: {error} after frame {number}", "fetch the file again")


def _count_line(file: BinaryIO) -> bytes:
    """Return the first line that is not blank, or nothing at the end of the file."""
    while (line := file.readline(_LONGEST_COUNT)) and not line.strip():
        pass
    return line


def _frame(file: BinaryIO, first: bytes, name: str) -> bytes | Unusable:
    """Return the bytes of a frame whose first line is read, or why it is too large to be kept.

    Raises:
        Unusable: if the file cannot be read on after it.
    """
    first = first.removeprefix(b"\xef\xbb\xbf")
    if not re.fullmatch(rb"\s*\d{1,15}\s*", first):
        shown = first[:60].decode("latin-1").strip()
        raise Unusable(
            f"not an XYZ frame: the number of atoms should stand where {shown!r} stands; nothing after it is read",
            "check that the frame before has as many atoms as it says, or export the file again",
        )
    count = int(first)
    pieces, size, found = [first], len(first), 0
    whole = True
    while found < count + 1:
        piece = file.readline(2**20)  # a part of a line if the line is longer
        if not piece:
            found += not whole
            break
        whole = piece.endswith(b"\n")
        found += whole
        size += len(piece)
        if size <= MAX_BYTES:
            pieces.append(piece)
    if found < count + 1:
        raise Unusable(
            f"truncated frame: the file ends after {max(found - 1, 0)} of {count} atoms of {name}",
            "fetch the file again, or delete the frame",
        )
    if size > MAX_BYTES:
        return Unusable(f"frame too large: above {MAX_BYTES // 2**20} MiB", "use a smaller cell")
    return b"".join(pieces)


def _bare(value: str) -> str:
    """Return a value of the comment line without the quotes or brackets around it."""
    if value[0] == '"':
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value[1:-1] if value[0] in "'{[" else value


def _matrix(fields: dict[str, str]) -> np.ndarray:
    """Return the cell vectors as rows (3, 3), angstrom."""
    if "lattice" not in fields:
        raise Unusable("no cell: the comment line has no Lattice", _LATTICE)
    values = fields["lattice"].replace(",", " ").split()
    if len(values) != 9:
        raise Unusable(f"Lattice not understood: it has {len(values)} values and not nine", _LATTICE)
    if "pbc" in fields:
        check_periodic([flag in _TRUE for flag in fields["pbc"].replace(",", " ").split()])
    return finite_array(values, (9,), "Lattice values").reshape(3, 3)


def _sites(rows: list[str], fields: dict[str, str]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return atomic numbers (N,), Cartesian positions (N, 3), angstrom, and occupancies (N,) if there are any."""
    columns, width = _columns(fields.get("properties", _PLAIN_COLUMNS))
    if columns.get("pos", (0, 0))[1] != 3 or not ("species" in columns or "z" in columns):
        raise Unusable(
            f"Properties without species or pos: {fields.get('properties')!r}"[:200],
            "write Properties=species:S:1:pos:R:3",
        )
    values = [row.split() for row in rows]
    for number, row in enumerate(values, start=1):
        if len(row) < width:
            reason = f"atom line too short: that of atom {number} has {len(row)} of {width} values"
            raise Unusable(reason, "complete the line, or correct Properties")
    species = columns["species" if "species" in columns else "z"][0]
    numbers = [_element(row[species]) for row in values]
    first = columns["pos"][0]
    positions = finite_array([row[first : first + 3] for row in values], (len(values), 3), "positions")
    _check_ase_occupancy(fields)
    occupancies = None
    if "occupancy" in columns:
        place = columns["occupancy"][0]
        occupancies = finite_array([row[place] for row in values], (len(values),), "occupancies")
    return np.array(numbers, dtype=np.int64), positions, occupancies


def _element(species: str) -> int:
    """Return the atomic number of a symbol or of a text that is a number."""
    return atomic_number(int(species) if re.fullmatch(r"\d{1,3}", species) else species)


def _columns(properties: str) -> tuple[dict[str, tuple[int, int]], int]:
    """Return first column and number of columns of each property, by its name in lower case, and their total."""
    parts = properties.split(":")
    columns: dict[str, tuple[int, int]] = {}
    width = 0
    for name, kind, size in zip(parts[::3], parts[1::3], parts[2::3], strict=False):
        if kind not in ("S", "R", "I", "L") or not re.fullmatch(r"[1-9]\d{0,3}", size):
            raise Unusable(f"Properties not understood: {properties!r}"[:200], "write Properties=species:S:1:pos:R:3")
        columns[name.lower()] = (width, int(size))
        width += int(size)
    if len(parts) % 3:
        raise Unusable(f"Properties not understood: {properties!r}"[:200], "write Properties=species:S:1:pos:R:3")
    return columns, width


def _check_ase_occupancy(fields: dict[str, str]) -> None:
    """Raise `Unusable` if a frame that ASE wrote from a disordered CIF says so.

    ASE keeps one element of each site in the atom lines, and the occupancies, by numbers of sites of the CIF, as JSON
    in the comment line. Which element shares which site cannot be told from it.
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
