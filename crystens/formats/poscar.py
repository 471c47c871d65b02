"""POSCAR and CONTCAR files of VASP: one, a folder of them searched to any depth, or an archive.

A file has a comment, a scale, three cell vectors, the elements, the number of atoms of each, optionally `Selective
dynamics`, `Direct` or `Cartesian`, and a line for each atom; the rest (velocities) is ignored. A scale above 0
multiplies the cell vectors and Cartesian positions. A scale below 0 is minus the volume of the cell in cubic angstrom.
Three scales above 0 multiply x, y and z. For elements named as in a POTCAR (Fe_pv, Na_sv/6a2f546d) the first part
counts.

Elements are never guessed: a file of VASP 4, which does not name them, is rejected. Other readers take elements from
the comment, from a POTCAR nearby or from the order of the periodic table; therefore crystens has its own reader.

Files are read whose names begin with POSCAR or CONTCAR, or end with .poscar or .vasp, gzipped or not.

Source: VASP wiki, page POSCAR.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.sources.files import file_records, find_files, is_archive, read_bytes, unpacked
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Record, Reject, Unusable, shown
from crystens.sources.source import Source, existing
from crystens.sources.structures import atomic_number, crystal_of_sites, finite_array, text_of
from crystens.sources.texts import number

_EXPECTED = "a folder of POSCAR, CONTCAR, .poscar or .vasp files, one such file, or a .tar.gz or .zip archive of them"
_EXPORT = "export the structure as POSCAR again"
_VASP_4 = "write the elements, in the order of the numbers of atoms, on a line of their own before those numbers"


class PoscarFolder(Source):
    """Source: the POSCAR files at a path.

    Args:
        path: folder, archive or file. None raises an error on reading.
    """

    def __init__(self, path: str | Path | None) -> None:
        """Keep the path; nothing is opened yet."""
        self.path = path

    def __str__(self) -> str:
        """Return what is read, for messages."""
        return f"POSCAR files of {self.path}"

    def contents(self) -> dict[str, str | Path]:
        """Return the files and archives, see `Source.contents`."""
        return find_files(self._root(), is_poscar)[0]

    def expected(self) -> int | None:
        """Return the number of files; None if there are archives among them."""
        names = self.contents()
        return None if any(map(is_archive, names)) else len(names)

    def records(self) -> Iterator[Record | Reject]:
        """Yield a record for each file.

        Raises:
            CrystensError: if the path does not exist or there is no such file in it.
        """
        path = self._root()
        empty = True
        for item in file_records(path, is_poscar):
            empty = False
            yield item
        if empty:
            raise CrystensError(f"no POSCAR file in {path}; give {_EXPECTED}")

    def parse(self, record: Record, limits: Limits) -> list[Entry | Reject]:
        """Return the crystal of one file."""
        text = text_of(unpacked(read_bytes(record.content)))
        return [Entry(record.file, record.entry, read_poscar(text, limits))]

    def _root(self) -> Path:
        """Return the path, checked."""
        path = existing(self.path, _EXPECTED)
        if path.is_file() and not (is_poscar(path.name) or is_archive(path.name)):
            raise CrystensError(f"{path} is neither a POSCAR file by its name nor an archive; give {_EXPECTED}")
        return path


def is_poscar(name: str) -> bool:
    """Return whether a file of this name is a POSCAR; the name may be a path in an archive."""
    name = PurePosixPath(name).name.lower().removesuffix(".gz")
    return name.startswith(("poscar", "contcar")) or name.endswith((".poscar", ".vasp"))


def read_poscar(text: str, limits: Limits) -> Crystal:
    """Return the crystal of the text of a POSCAR.

    Raises:
        Unusable: if the text holds no usable crystal.
    """
    if not text.strip():
        raise Unusable("empty file", "fetch or export the file again")
    lines = [re.split(r"[!#]", line, maxsplit=1)[0].split() for line in text.split("\n")]
    if len(lines) < 8:
        raise Unusable(f"truncated POSCAR: it has {len(lines)} lines", _EXPORT)
    scale = _numbers(lines[1], "scale")
    matrix = finite_array([_numbers(line[:3], "cell vector") for line in lines[2:5]], (3, 3), "cell vectors")
    factors = _factors(scale, matrix)
    symbols, counts, place = _composition(lines)
    limits.check_read_count(sum(counts))
    mode = _word(lines, place)
    if mode.startswith("s"):
        place += 1
        mode = _word(lines, place)
    if not mode.startswith(("d", "c", "k")):
        raise Unusable(f"kind of coordinates missing: line {place + 1} is {mode[:40]!r}", "write Direct or Cartesian")
    rows = [row[:3] for row in lines[place + 1 : place + 1 + sum(counts)]]
    found = next((k for k, row in enumerate(rows) if len(row) < 3), len(rows))
    if found < sum(counts):
        raise Unusable(f"truncated POSCAR: coordinates of {found} of {sum(counts)} atoms", _EXPORT)
    coordinates = finite_array([_numbers(row, "coordinates") for row in rows], (len(rows), 3), "coordinates")
    cartesian = not mode.startswith("d")
    numbers = np.repeat([atomic_number(re.split("[_/]", symbol)[0]) for symbol in symbols], counts)
    return crystal_of_sites(
        limits, matrix * factors, numbers, coordinates * factors if cartesian else coordinates, cartesian=cartesian
    )


def _factors(scale: list[float], matrix: np.ndarray) -> np.ndarray:
    """Return the factors of x, y and z of cell vectors and positions, shape (3,)."""
    values = finite_array(scale, (len(scale),), "scale factors")
    if len(values) == 1 and values[0] < 0:
        volume = abs(np.linalg.det(matrix))
        if volume == 0:
            raise Unusable("impossible cell: the cell vectors have no volume", "correct the cell vectors")
        return np.full(3, np.cbrt(-values[0] / volume))
    if len(values) not in (1, 3) or (values <= 0).any():
        raise Unusable(
            f"scale not understood: {shown(' '.join(f'{value:g}' for value in values))}",
            "line 2 holds one factor above 0, or the volume with a minus sign, or three factors above 0",
        )
    return np.full(3, values[0]) if len(values) == 1 else values


def _composition(lines: list[list[str]]) -> tuple[list[str], list[int], int]:
    """Return the symbols, the number of atoms of each, and the number of the line after them.

    VASP breaks long lists over several lines.
    """
    place = 5
    if not lines[place] or _is_count(lines[place][0]):
        raise Unusable("no elements in the POSCAR: it has the form of VASP 4, which does not name them", _VASP_4)
    symbols: list[str] = []
    while place < len(lines) and lines[place] and not _is_count(lines[place][0]):
        symbols += lines[place]
        place += 1
    counts: list[int] = []
    while place < len(lines) and len(counts) < len(symbols) and lines[place] and all(map(_is_count, lines[place])):
        counts += [int(count) for count in lines[place]]
        place += 1
    if len(counts) != len(symbols):
        elements = shown(" ".join(symbols))
        raise Unusable(f"numbers of atoms do not fit the elements: {len(counts)} for {elements}", _VASP_4)
    return symbols, counts, place


def _is_count(word: str) -> bool:
    """Return whether a word is a number of atoms."""
    return re.fullmatch(r"\d{1,9}", word) is not None


def _word(lines: list[list[str]], place: int) -> str:
    """Return the first word of a line in lower case; empty if there is none."""
    return lines[place][0].lower() if place < len(lines) and lines[place] else ""


def _numbers(words: list[str], name: str) -> list[float]:
    """Return words as numbers."""
    try:
        return [number(word) for word in words]
    except ValueError as error:
        raise Unusable(f"not a POSCAR: {name} expected in {' '.join(words)[:60]!r}", _EXPORT) from error
