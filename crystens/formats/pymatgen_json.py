"""Structures as pymatgen writes them in JSON, in .json and .jsonl files, gzipped or not.

A .json file holds one Structure, a list of them, or an object of them by id; a .jsonl file one on each line. In the
place of a Structure may stand an object that has one under the key `structure`: a ComputedStructureEntry, or a summary
document of the Materials Project. Such an entry is called by its key, or by material_id, entry_id, task_id, id or name.
Numbers beside the structure can be kept as properties (`crystens.sources.properties`), in an entry `data.band_gap`.

Only numbers and symbols are read: `lattice.matrix` (cell vectors as rows, angstrom), and `species` and `abc`
(fractional) of each site. No class that the file names (`@module`, `@class`) is looked up or imported. Oxidation states
and isotopes are dropped; elements of one site that are equal without them are one.

Lists and objects are taken apart while they are read: a file may be of any size, and each structure in it of
`MAX_BYTES`. Files may stand in a folder, searched to any depth, or in an archive; see `crystens.sources.files`.

Source: `Structure.as_dict` and `ComputedStructureEntry.as_dict` of pymatgen, against which this reader is tested.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.sources.files import ARCHIVE_SUFFIXES, file_records, find_files
from crystens.sources.json_stream import DAMAGE, json_items, lines, opened
from crystens.sources.limits import Limits
from crystens.sources.properties import kept
from crystens.sources.record import Entry, Record, Reject, Unusable, quoted, shown
from crystens.sources.source import Source, existing
from crystens.sources.structures import atomic_number, check_periodic, crystal_of_sites, finite_array, own_name

JSON_SUFFIXES = (".json", ".json.gz")
LINES_SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")
_EXPECTED = "a .json or .jsonl file of pymatgen structures (or .gz of it), a folder or an archive of them"
_MOST_SHARE = 1e6  # an occupancy above it is no number; one above 1 is told as such later
_ADVICE = "give pymatgen structures, as Structure.as_dict writes them"
_LONGEST_NAME = 200
_IDS = ("material_id", "entry_id", "task_id", "id", "name")


class PymatgenJson(Source):
    """Source: the JSON files of pymatgen structures at a path.

    Args:
        path: folder, archive or file; None if the user gave none, which reading reports.
    """

    gives_properties = True

    def __init__(self, path: str | Path | None) -> None:
        """Keep the path; nothing is opened yet."""
        self.path = path

    def __str__(self) -> str:
        """Return what is read, for messages."""
        return f"pymatgen structures of {self.path}"

    def contents(self) -> dict[str, str | Path]:
        """Return the files and archives, see `Source.contents`."""
        return find_files(self._root(), is_json)[0]

    def records(self) -> Iterator[Record | Reject]:
        """Yield a record for each structure.

        Raises:
            CrystensError: if the path does not exist or there is no such file in it.
        """
        path = self._root()
        empty = True
        for item in file_records(path, is_json):
            empty = False
            if isinstance(item, Reject):
                yield item
            else:
                yield from _pieces(item)
        if empty:
            raise CrystensError(f"no .json or .jsonl file in {path}; give {_EXPECTED}")

    def parse(self, record: Record, limits: Limits) -> list[Entry | Reject]:
        """Return the crystals of one record."""
        try:
            value = json.loads(record.content)
        except (ValueError, RecursionError) as error:
            raise Unusable(f"not JSON: {error}"[:200], "correct it, or export it again") from error
        return [
            _item(document, record.file, name, limits, self.properties)
            for name, document in _documents(value, record.entry)
        ]

    def _root(self) -> Path:
        """Return the path, checked."""
        path = existing(self.path, _EXPECTED)
        if path.is_file() and not path.name.lower().endswith((*JSON_SUFFIXES, *LINES_SUFFIXES, *ARCHIVE_SUFFIXES)):
            raise CrystensError(f"{path} is neither a .json or .jsonl file nor an archive of them; give {_EXPECTED}")
        return path


def is_json(name: str) -> bool:
    """Return whether a file of this name is JSON, or JSON lines."""
    return name.lower().endswith((*JSON_SUFFIXES, *LINES_SUFFIXES))


def is_document(value: Any) -> bool:
    """Return whether a value is a Structure as pymatgen writes it, or holds one under the key `structure`."""
    return isinstance(value, dict) and (_is_structure(value) or "structure" in value)


def splits(key: str, value: Any) -> bool:
    """Return whether an object with this first pair holds documents by their ids, and is none itself."""
    return key != "structure" and is_document(value)


def _is_structure(value: dict[str, Any]) -> bool:
    """Return whether an object is a Structure; a crystal dictionary has lists for sites."""
    sites = value.get("sites")
    return (
        isinstance(value.get("lattice"), dict) and isinstance(sites, list) and all(isinstance(s, dict) for s in sites)
    )


def _pieces(record: Record) -> Iterator[Record | Reject]:
    """Yield a record for each structure in a file, and a reject where it cannot be read on."""
    name = ""
    empty = True
    try:
        with opened(record.content) as file:
            if record.file.lower().endswith(LINES_SUFFIXES):
                for number, line in enumerate(lines(file), start=1):
                    name = f"line {number}"
                    if isinstance(line, Unusable):
                        yield Reject(record.file, name, line.reason, line.advice)
                    elif line.strip():
                        empty = False
                        yield Record(record.file, name, line)
            else:
                for name, text in json_items(file, splits):
                    empty = False
                    yield Record(record.file, name, text)
        if empty:
            yield Reject(record.file, "", "no structure in the file: it is empty", _ADVICE)
    except Unusable as error:
        yield Reject(record.file, "", error.reason + (f" (after {shown(name)})" if name else ""), error.advice)
    except DAMAGE as error:
        reason = f"cannot read the file: {error}" + (f" after {shown(name)}" if name else "")
        yield Reject(record.file, "", reason, "fetch the file again")


def _documents(value: Any, name: str) -> list[tuple[str, Any]]:
    """Return the documents in a value with what each is called.

    An object of documents by id gets here in one piece if its first value is none.
    """
    if isinstance(value, dict) and not is_document(value) and any(is_document(item) for item in value.values()):
        return list(value.items())
    return [(name, value)]


def _item(value: Any, file: str, name: str, limits: Limits, properties: Sequence[str] | None) -> Entry | Reject:
    """Return the entry or reject of one document."""
    if not name or name.startswith(("item ", "line ")):
        name = own_name(value, _IDS) or name
    name = shown(name, _LONGEST_NAME)
    try:
        return Entry(file, name, _crystal(value, limits), properties=kept(value, properties))
    except Unusable as error:
        return Reject(file, name, error.reason, error.advice)


def _crystal(value: Any, limits: Limits) -> Crystal:
    """Return the crystal of one document."""
    structure = value["structure"] if isinstance(value, dict) and "structure" in value else value
    if not isinstance(structure, dict):
        found = "a text" if isinstance(structure, str) else type(structure).__name__
        raise Unusable(f"no structure: {found} stands where an object should", _ADVICE)
    if not _is_structure(structure):
        keys = ", ".join(shown(key, 20) for key in list(structure)[:6]) or "none"
        raise Unusable(f"no structure: lattice or sites are missing among the keys {keys}", _ADVICE)
    lattice = structure["lattice"]
    if isinstance(lattice.get("pbc"), list):
        check_periodic(lattice["pbc"])
    matrix = finite_array(lattice.get("matrix"), (3, 3), "cell vectors")
    numbers: list[int] = []
    coordinates: list[Any] = []
    occupancies: list[float] = []
    for site in structure["sites"]:
        for number, occupancy in _shares(site.get("species")).items():
            numbers.append(number)
            coordinates.append(site.get("abc"))
            occupancies.append(occupancy)
    return crystal_of_sites(
        limits,
        matrix,
        np.array(numbers, dtype=np.int64),
        finite_array(coordinates, (len(numbers), 3), "coordinates") if numbers else np.zeros((0, 3)),
        finite_array(occupancies, (len(numbers),), "occupancies"),
    )


def _shares(species: Any) -> dict[int, float]:
    """Return the occupancies of one site by atomic number, oxidation states and isotopes put together."""
    if not (isinstance(species, list) and species and all(isinstance(item, dict) for item in species)):
        raise Unusable(f"species not understood: {quoted(species)}", _ADVICE)
    shares: dict[int, float] = {}
    for item in species:
        number = atomic_number(item.get("element"))
        occupancy = item.get("occu", 1)
        # An integer may be too large for a float.
        if not isinstance(occupancy, int | float) or isinstance(occupancy, bool) or not abs(occupancy) <= _MOST_SHARE:
            raise Unusable(f"occupancy not a number: {quoted(occupancy)}", _ADVICE)
        shares[number] = shares.get(number, 0.0) + occupancy
    # Shares of 1/3 need not add up to 1 in floating point.
    return {number: 1.0 if abs(share - 1) < 1e-8 else share for number, share in shares.items()}
