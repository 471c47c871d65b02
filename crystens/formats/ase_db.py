"""Databases of ASE (`ase.db`): SQLite files (.db) and JSON files (.json).

Each row gives the cell, atomic numbers, positions, periodicity and the key-value pairs. A row is named by its pair
material_id, id or name, otherwise `row ID`; rows are in the order of their ids. Pairs, and the energy of the calculator
(`energy`, eV), can be kept as properties (`crystens.sources.properties`). Other results, constraints and data are
ignored. ASE stores no occupancies: a row from a disordered CIF holds one element for each site, without notice.

Nothing is ever written. `ase.db.connect` would create missing files, missing tables and lock files. Therefore Python's
sqlite3 opens the SQLite file in read-only mode, and columns are decoded as in ASE 3 (versions 5 to 9 of its format). A
database that is being written is rejected, because reading it could require a repair. The tests compare with
`ase.db.connect`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from crystens.errors import CrystensError
from crystens.sources.json_stream import DAMAGE, json_items, opened
from crystens.sources.limits import Limits
from crystens.sources.properties import kept
from crystens.sources.record import Entry, Record, Reject, Unusable, quoted, shown
from crystens.sources.source import Source, existing
from crystens.sources.structures import atomic_number, check_periodic, crystal_of_sites, finite_array, own_name

DATABASE_SUFFIXES = (".db", ".json", ".json.gz")
_EXPECTED = "a .db or .json file that ase.db has written"
_VERSIONS = range(5, 10)
_SQLITE_DAMAGE = (sqlite3.Error, UnicodeDecodeError)  # the second, because messages may quote a damaged schema
_MAX_ROW_BYTES = 2**20  # 37,000 atoms
_NO_ROWS = ("ids", "nextid", "metadata")  # keys of a JSON file that are not rows
_LONGEST_NAME = 200
_ADVICE = "write the row again with ase.db"
_COLUMNS = ("numbers", "positions", "cell", "pbc", "key_value_pairs", "energy")


class AseDatabase(Source):
    """Source: one database of ASE.

    Args:
        path: the file. None raises an error on reading.
    """

    gives_properties = True

    def __init__(self, path: str | Path | None) -> None:
        """Keep the path; nothing is opened yet."""
        self.path = path

    def __str__(self) -> str:
        """Return what is read, for messages."""
        return f"ASE database {self.path}"

    def contents(self) -> dict[str, str | Path]:
        """Return the file, see `Source.contents`."""
        path = self._file()
        return {path.name: path}

    def records(self) -> Iterator[Record | Reject]:
        """Yield each row.

        Raises:
            CrystensError: if there is no such file, or it is no database of ASE, or it is being written.
        """
        path = self._file()
        return _sqlite_records(path) if path.name.lower().endswith(".db") else _json_records(path)

    def parse(self, record: Record, limits: Limits) -> list[Entry | Reject]:
        """Return the crystal of one row."""
        row = _json_row(record.content) if isinstance(record.content, str) else _sqlite_row(record.content)
        name = own_name(row["key_value_pairs"]) or record.entry
        try:
            check_periodic(_periodic(row["pbc"]))
            numbers = [atomic_number(number) for number in _list(row["numbers"], "atomic numbers")]
            crystal = crystal_of_sites(
                limits,
                finite_array(row["cell"], (3, 3), "cell vectors"),
                np.array(numbers, dtype=np.int64),
                finite_array(row["positions"], (len(numbers), 3), "positions"),
                cartesian=True,
            )
            pairs = row["key_value_pairs"]
            named = {"energy": row["energy"], **(pairs if isinstance(pairs, dict) else {})}
            properties = kept(named, self.properties)
        except Unusable as error:
            return [Reject(record.file, name, error.reason, error.advice)]
        return [Entry(record.file, name, crystal, properties=properties)]

    def _file(self) -> Path:
        """Return the path, checked."""
        path = existing(self.path, _EXPECTED)
        if not path.is_file():
            raise CrystensError(f"{path} is not a file; give {_EXPECTED}")
        if not path.name.lower().endswith(DATABASE_SUFFIXES):
            raise CrystensError(f"{path} is no database of ASE by its name; give {_EXPECTED}")
        return path


def is_row(value: Any) -> bool:
    """Return whether a value of a JSON file is a row of a database of ASE."""
    return isinstance(value, dict) and "numbers" in value and "positions" in value


# SQLite


def _sqlite_records(path: Path) -> Iterator[Record | Reject]:
    """Yield the rows of a SQLite file."""
    last = "its beginning"
    try:
        with closing(_connected(path)) as connection:
            _check_format(connection, path)
            sizes = " + ".join(f"COALESCE(LENGTH({column}), 0)" for column in _COLUMNS)
            # Row by row, so that the id of a damaged row is known, and a row that is too large is never fetched.
            for number, size in connection.execute(f"SELECT id, {sizes} FROM systems ORDER BY id"):
                last = name = f"row {shown(str(number))}"
                if size > _MAX_ROW_BYTES:
                    reason = f"row too large: {size / 2**20:.1f} MiB is above {_MAX_ROW_BYTES // 2**20}"
                    yield Reject(path.name, name, reason, "use a smaller cell")
                    continue
                query = f"SELECT {', '.join(_COLUMNS)} FROM systems WHERE id = ?"
                columns = connection.execute(query, (number,)).fetchone()
                if columns is None:  # a damaged key, or a table in which ids are no keys
                    yield Reject(path.name, name, "row not found again by its id", _ADVICE)
                else:
                    yield Record(path.name, name, columns)
    except _SQLITE_DAMAGE as error:
        reason = f"cannot read the database: {shown(str(error), 200)} after {last}"
        yield Reject(path.name, "", reason, "fetch or copy the file again")


def _connected(path: Path) -> sqlite3.Connection:
    """Return a connection that cannot write.

    Raises:
        CrystensError: if another program is writing the file, or ended without closing it.
    """
    path = path.resolve()  # SQLite keeps its journal beside the file itself, not beside a link to it
    for suffix in ("-wal", "-journal"):
        beside = path.with_name(path.name + suffix)
        if beside.is_file() and beside.stat().st_size > 0:
            raise CrystensError(
                f"{path} is being written or was not closed: {beside.name} exists; end the program that writes the "
                "database, or open and close it once with ase.db"
            )
    with path.open("rb") as file:
        logged = file.read(20)[18:20] == b"\x02\x02"
    # A file with write-ahead logging would get a -shm file beside it, unless it is declared to never change.
    mode = "mode=ro&immutable=1" if logged else "mode=ro"
    connection = sqlite3.connect(f"{path.as_uri()}?{mode}", uri=True, timeout=20)
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def _check_format(connection: sqlite3.Connection, path: Path) -> None:
    """Raise a CrystensError unless a file is a database of ASE, of a version whose columns are known."""
    try:
        kinds = dict(connection.execute("SELECT name, type FROM sqlite_master"))
        # A view could be a query that never ends.
        if any(kinds.get(name) != "table" for name in ("systems", "information")):
            raise CrystensError(
                f"{path} is a SQLite file but no database of ASE: its tables are {sorted(map(str, kinds))[:8]}"
            )
        found = connection.execute("SELECT value FROM information WHERE name = 'version'").fetchone()
    except _SQLITE_DAMAGE as error:
        raise CrystensError(
            f"{path} cannot be read as a database: {error}; fetch or copy it again, or give {_EXPECTED}"
        ) from error
    if found is None or str(found[0]) not in map(str, _VERSIONS):
        version = "none" if found is None else found[0]
        raise CrystensError(
            f"{path} has version {version} of ASE's format, and 5 to 9 are known; convert it with ase db {path.name} "
            "--insert-into new.db"
        )


def _sqlite_row(columns: tuple[Any, ...]) -> dict[str, Any]:
    """Return the columns of a row by name, decoded."""
    row = dict(zip(_COLUMNS, columns, strict=True))
    row["numbers"] = _values(row["numbers"], "<i4", "atomic numbers").tolist()
    row["positions"] = _values(row["positions"], "<f8", "positions")
    row["positions"] = row["positions"].reshape(-1, 3) if len(row["positions"]) % 3 == 0 else row["positions"]
    cell = _values(row["cell"], "<f8", "cell vectors")
    row["cell"] = cell.reshape(3, 3) if cell.size == 9 else cell
    flags = row["pbc"] if isinstance(row["pbc"], int) else 0
    row["pbc"] = [bool(flags & bit) for bit in (1, 2, 4)]
    row["key_value_pairs"] = _object(row["key_value_pairs"] or "{}")
    return row


def _values(blob: Any, kind: str, name: str) -> np.ndarray:
    """Return the numbers in the bytes of a column."""
    try:
        return np.frombuffer(blob, kind)
    except (TypeError, ValueError, AttributeError) as error:
        raise Unusable(f"{name} damaged: {error}"[:100], _ADVICE) from error


# JSON


def _json_records(path: Path) -> Iterator[Record | Reject]:
    """Yield the rows of a JSON file."""
    last = "its beginning"
    try:
        with opened(path) as file:
            for key, text in json_items(file, lambda key, value: key not in _NO_ROWS):
                if key == "":
                    raise CrystensError(f"{path} is JSON but no database of ASE; give {_EXPECTED}")
                if key not in _NO_ROWS:
                    last = f"row {shown(key, _LONGEST_NAME)}"
                    yield Record(path.name, last, text)
    except Unusable as error:
        yield Reject(path.name, "", f"{error.reason} (after {last})", error.advice)
    except DAMAGE as error:
        yield Reject(path.name, "", f"cannot read the file: {error} after {last}", "fetch the file again")


def _json_row(text: str) -> dict[str, Any]:
    """Return the fields of a row by name, decoded."""
    value = _object(text)
    if not is_row(value):
        raise Unusable("no row of a database of ASE: numbers or positions are missing", _ADVICE)
    row = {name: _plain(value.get(name)) for name in _COLUMNS}
    row["cell"] = np.zeros((3, 3)) if row["cell"] is None else row["cell"]
    return row


def _object(text: Any) -> Any:
    """Return the value of a JSON text."""
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise Unusable(f"not JSON: {error}"[:200], _ADVICE) from error


def _plain(value: Any) -> Any:
    """Return a value with ASE's arrays as lists, without creating the classes that the file names."""
    if isinstance(value, dict) and "array" in value:
        value = value["array"]  # a cell
    if isinstance(value, dict) and "__ndarray__" in value:
        try:
            shape, _, flat = value["__ndarray__"]
            return np.array(flat).reshape(shape).tolist()
        except (TypeError, ValueError, OverflowError) as error:
            raise Unusable(f"array damaged: {error}"[:100], _ADVICE) from error
    return value


def _periodic(flags: Any) -> list[bool]:
    """Return periodicity along the three cell vectors; ASE leaves it out for molecules."""
    if flags is None:
        return [False] * 3
    return [bool(flag) for flag in (flags if isinstance(flags, list) else [flags] * 3)]


def _list(values: Any, name: str) -> list[Any]:
    """Return a list, checked."""
    if not isinstance(values, list):
        raise Unusable(f"{name} missing: {quoted(values)}", _ADVICE)
    return values
