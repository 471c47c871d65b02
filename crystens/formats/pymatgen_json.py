"""Structures in JSON, in .json and .jsonl files, packed by gzip or bzip2 or not.

`crystens.formats.structure_objects` lists the forms of a structure: pymatgen, JARVIS and OPTIMADE.
`crystens.formats.json_records` describes records and their layouts in files. A .jsonl file holds a record on each line.
Numbers of a record can be kept as properties (`crystens.sources.properties`), by name or by path, such as
`data.band_gap`.

Files may have any size, and a record at most `MAX_BYTES`. The path may be a folder, searched to any depth, or an
archive; see `crystens.sources.files`.

Tested against `Structure.as_dict` and `ComputedStructureEntry.as_dict` of pymatgen, its adapter for OPTIMADE, and
tables that pandas writes in each of its ways.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from crystens.errors import CrystensError
from crystens.formats.json_records import in_one, read_record, walk
from crystens.sources.files import ARCHIVE_SUFFIXES, file_records, find_files
from crystens.sources.json_stream import DAMAGE, lines, opened
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Record, Reject, Unusable, shown
from crystens.sources.source import Source, existing

JSON_SUFFIXES = (".json", ".json.gz", ".json.bz2")
LINES_SUFFIXES = tuple(f"{name}{packed}" for name in (".jsonl", ".ndjson") for packed in ("", ".gz", ".bz2"))
_EXPECTED = "a .json or .jsonl file of structures (or .gz or .bz2 of it), a folder or an archive of them"
OPTIMADE = "x-optimade"  # on the first line of a JSON lines file of OPTIMADE


class PymatgenJson(Source):
    """Source: the JSON files of structures at a path.

    Args:
        path: folder, archive or file. None raises an error on reading.
        key: path of the structure in each record, such as output.structure; None searches each record.
    """

    gives_properties = True

    def __init__(self, path: str | Path | None, key: str | None = None) -> None:
        """Keep the path and the key; nothing is opened yet."""
        self.path = path
        self.key = key

    def __str__(self) -> str:
        """Return what is read, for messages."""
        return f"structures of {self.path}"

    def variant(self) -> str:
        """Return the key, see `Source.variant`."""
        return self.key or ""

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
                yield from self._pieces(item)
        if empty:
            raise CrystensError(f"no .json or .jsonl file in {path}; give {_EXPECTED}")

    def parse(self, record: Record, limits: Limits) -> list[Entry | Reject]:
        """Return the crystals of one record."""
        try:
            value = json.loads(record.content)
        except (ValueError, RecursionError) as error:
            raise Unusable(f"not JSON: {error}"[:200], "correct it, or export it again") from error
        if isinstance(value, dict) and OPTIMADE in value:
            return []
        named = in_one(value, record.entry)
        how = (self.key, self.properties, limits)
        return [item for name, part in named for item in read_record(part, record.file, name, *how)]

    def _root(self) -> Path:
        """Return the path, checked."""
        path = existing(self.path, _EXPECTED)
        if path.is_file() and not path.name.lower().endswith((*JSON_SUFFIXES, *LINES_SUFFIXES, *ARCHIVE_SUFFIXES)):
            raise CrystensError(f"{path} is neither a .json or .jsonl file nor an archive of them; give {_EXPECTED}")
        return path

    def _pieces(self, record: Record) -> Iterator[Record | Reject]:
        """Yield a record for each structure in a file, and a reject if the file cannot be read to its end."""
        name = ""
        empty = True
        try:
            if record.file.lower().endswith(LINES_SUFFIXES):
                with opened(record.content) as file:
                    for number, line in enumerate(lines(file), start=1):
                        name = f"line {number}"
                        if isinstance(line, Unusable):
                            yield Reject(record.file, name, line.reason, line.advice)
                        elif line.strip():
                            empty = False
                            yield Record(record.file, name, line)
            else:
                for name, text in walk(lambda: opened(record.content), self.key, self.properties):
                    empty = False
                    if isinstance(text, Unusable):
                        yield Reject(record.file, shown(name), text.reason, text.advice)
                    else:
                        yield Record(record.file, name, text)
            if empty:
                advice = "give a file with structures in it"
                yield Reject(record.file, "", "no structure in the file: it is empty", advice)
        except Unusable as error:
            yield Reject(record.file, "", error.reason + (f" (after {shown(name)})" if name else ""), error.advice)
        except DAMAGE as error:
            reason = f"cannot read the file: {error}" + (f" after {shown(name)}" if name else "")
            yield Reject(record.file, "", reason, "fetch the file again")


def is_json(name: str) -> bool:
    """Return whether a file of this name is JSON, or JSON lines."""
    return name.lower().endswith((*JSON_SUFFIXES, *LINES_SUFFIXES))
