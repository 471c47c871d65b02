"""JSON records that contain a structure, and the six layouts of files with such records.

The structure of a record is at the key `structure`, or it is the record, or it is the only structure in the record:
`initial_structure` of WBM, `entry` of Matbench Discovery, `attributes` of OPTIMADE, `atoms` of JARVIS. A record with
several structures (`input.structure` and `output.structure` of a task document) is ambiguous, unless a key is given.

A record is named by the first of `IDS` that it has. A file holds

    a record   one object
    a list     of records
    ids        an object of records, which are called by their keys
    rows       an object with a list of records under some key: OPTIMADE's `data`, Alexandria's `entries`
    columns    an object of columns, each an object of values by row, as pandas writes a table: MP's entries in Matbench
               Discovery
    a table    an object with the lists `columns`, `data` and `index`: Matbench

The layout is detected from the first 256 KiB or, if that is not enough, from the beginning of each value. `walk` splits
a file into records while it is read.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, BinaryIO

from crystens.formats.structure_objects import is_structure, is_text, read_structure
from crystens.sources.json_stream import JsonText
from crystens.sources.limits import Limits
from crystens.sources.properties import kept
from crystens.sources.record import Entry, Reject, Unusable, shown
from crystens.sources.structures import own_name

IDS = ("material_id", "entry_id", "task_id", "jid", "immutable_id", "mp_id", "id", "name")
_TEXTS = ("structure", "cif", "cif_string")  # keys under which a structure may be a text
# Parts of keys of a record, which no id of a material has.
_FIELDS = (
    "structure",
    "entry",
    "cse",
    "atoms",
    "crystal",
    "input",
    "output",
    "initial",
    "final",
    "relaxed",
    "attributes",
)
_OTHER_KEY = "choose another data.source.key"
_DEEPEST = 6
_MOST_FOUND = 20
_TRIED = 5  # rows of a column that are looked at
_LONGEST_NAME = 200
_NUMBERED = ("item ", "line ", "row ")


# One record


def structures_of(record: Any) -> dict[str, Any]:
    """Return the structures in a record by their paths: keys and positions in lists, joined by dots."""
    found: dict[str, Any] = {}

    def search(value: Any, way: str, key: str, depth: int) -> None:
        if len(found) >= _MOST_FOUND or depth > _DEEPEST:
            return
        if is_structure(value) or (key in _TEXTS and is_text(value)):
            found[way] = value
        elif isinstance(value, Mapping | list):
            parts = value.items() if isinstance(value, Mapping) else enumerate(value)
            for name, part in parts:
                if isinstance(part, Mapping | list | str):
                    search(part, f"{way}.{name}" if way else str(name), str(name), depth + 1)

    search(record, "", "", 0)
    return found


def read_record(
    record: Any, file: str, name: str, key: str | None, properties: Sequence[str] | None, limits: Limits
) -> list[Entry | Reject]:
    """Return the crystal of a record, or the reason why it has no usable crystal.

    Args:
        record: any value of JSON.
        file: name of the file, see `Record`.
        name: name of the record in the file; an id in the record replaces a name that is only a number.
        key: path of the structure, as in `structures_of`; None searches the record.
        properties: properties that crystals keep, see `crystens.sources.properties`.
        limits: conditions for a crystal to be used.
    """
    way = ""
    try:
        way, structure = _chosen(record, key)
        items = read_structure(structure, file, _name(record, way, name), limits)
        numbers = kept(record, properties) if any(isinstance(item, Entry) for item in items) else {}
    except Unusable as error:
        return [Reject(file, _name(record, way, name), error.reason, error.advice)]
    return [replace(item, properties=numbers) if isinstance(item, Entry) else item for item in items]


def holds_structures(value: Any) -> bool:
    """Return whether a value of a file, or its beginning, holds a record with a structure."""
    return layout(value) != "record" or _is_record(value)


def is_field(key: str) -> bool:
    """Return whether a key names a part of a record, such as `structure`; ids of materials do not."""
    return any(word in key.lower() for word in _FIELDS)


def _chosen(record: Any, key: str | None) -> tuple[str, Any]:
    """Return the path of the structure of a record, and the value there."""
    if key is not None:
        value = record
        for part in key.split("."):
            if isinstance(value, list):
                value = value[int(part)] if part.isdecimal() and int(part) < len(value) else None
            else:
                value = value.get(part) if isinstance(value, Mapping) else None
        if value is None:
            raise Unusable(f"no structure: no key {shown(key)} in the record{_has(structures_of(record))}", _OTHER_KEY)
        way, structure = _chosen(value, None)
        return f"{key}.{way}".rstrip("."), structure
    if not isinstance(record, Mapping) or is_structure(record):
        return "", record
    if "structure" in record:
        return "structure", record["structure"]
    found = structures_of(record)
    if len(found) > 1:
        raise Unusable(f"no key structure: a record{_has(found)}", _choose(next(reversed(found))))
    return next(iter(found.items()), ("", record))


def _has(found: Mapping[str, Any]) -> str:
    """Return the paths of the structures in a record, for a message."""
    names = [shown(way, 40) or "a structure" for way in list(found)[:4]]
    return f" that has {' and '.join(names)}{' and more' * (len(found) > len(names))}" if names else ""


def _name(record: Any, way: str, name: str) -> str:
    """Return the name of a record: the given name, its id, or the id of an object on the path to its structure."""
    if not name or name.startswith(_NUMBERED) or name.isdecimal():
        value = record
        for part in ["", *way.split(".")]:
            value = value.get(part) if part and isinstance(value, Mapping) else value
            if own := own_name(value, IDS):
                return own
        first = way.split(".")[0]
        name = name or ("" if is_field(first) else first)
    return shown(name, _LONGEST_NAME)


# A file of records


def layout(value: Any) -> str:
    """Return the layout of an object: "record", "ids", "rows", "columns" or "table", see the top of this module.

    Args:
        value: a value of a file, or the beginning of a long one.
    """
    if not isinstance(value, Mapping) or _is_document(value):
        return "record"
    if isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):
        return "table"
    if own_name(value, IDS) is not None:
        return "record"
    held = [key for key, part in value.items() if isinstance(part, Mapping) and _has_structure(part)]
    if not held:
        return "rows" if any(_is_list_of_records(part) for part in value.values()) else "record"
    if all(isinstance(part, Mapping) for part in value.values()) and any(_is_column(part) for part in value.values()):
        return "columns"
    # Scalars beside one structure make a document, and no mapping of ids.
    others = sum(part is not None for part in value.values()) - len(held)
    return "record" if is_field(held[0]) or others >= len(held) else "ids"


def walk(
    reopen: Callable[[], BinaryIO], key: str | None = None, properties: Sequence[str] | None = ()
) -> Iterator[tuple[str, str | Unusable]]:
    """Yield the names and texts of the records of a file, with at most one record in memory.

    Args:
        reopen: opens the file, UTF-8, at its beginning; it is called twice for columns and tables.
        key: path of the structure of a record, see `read_record`.
        properties: columns of a table that are added to each structure; None for all.

    Raises:
        Unusable: if the text is not JSON, or a record is too large. Records that were already yielded are valid.
    """
    with reopen() as file:
        text = JsonText(file)
        opening = text.peek()
        if opening == "":
            raise Unusable("empty file", "fetch or export the file again")
        how = _told(text, reopen) if opening == "{" else "list" if opening == "[" else "record"
        if how == "list":
            yield from ((f"item {number}", value) for number, (_, _, value) in enumerate(text.values("]"), start=1))
        elif how == "ids":
            yield from ((name, value) for name, _, value in text.values("}"))
        elif how == "rows":
            yield from _rows(text)
        elif how == "columns":
            yield from _columns(text, reopen, key, properties)
        elif how == "table":
            yield from _table(text, reopen)
        else:
            yield "", text.value()[1]
        text.end()


def in_one(value: Any, name: str) -> list[tuple[str, Any]]:
    """Return the names and records of a value in memory, such as a line or an item of a list."""
    return list(value.items()) if layout(value) == "ids" else [(name, value)]


def _told(text: JsonText, reopen: Callable[[], BinaryIO]) -> str:
    """Return the layout of a file that is an object, from its beginning or the beginning of each of its values."""
    beginning, whole = text.beginning()
    how = layout(beginning)
    if how != "record" or whole:
        return how
    parts: dict[str, Any] = {}
    try:
        with reopen() as file:
            again = JsonText(file)
            for key in again.each_key():
                if (opening := again.peek()) in ("{", "["):
                    values = again.values("}" if opening == "{" else "]")
                    first = list(itertools.islice(((name, value) for name, value, _ in values), _TRIED))
                    parts[key] = dict(first) if opening == "{" else [value for _, value in first]
                    for _ in values:  # skip the rest of this value
                        pass
                else:
                    parts[key] = again.value()[0]
    except Unusable:
        return "record"  # reading the record will raise the error
    return layout(parts)


def _rows(text: JsonText) -> Iterator[tuple[str, str]]:
    """Yield the records in the lists of an object; other values are skipped."""
    number = 0
    for _ in text.each_key():
        if text.peek() != "[":
            text.value()
            continue
        wanted: bool | None = None
        for _, row, value in text.values("]"):
            wanted = _is_record(row) if wanted is None else wanted
            if wanted:
                number += 1
                yield f"item {number}", value


def _columns(
    text: JsonText, reopen: Callable[[], BinaryIO], key: str | None, properties: Sequence[str] | None
) -> Iterator[tuple[str, str | Unusable]]:
    """Yield the cells of the columns with structures, named by a column of ids, or by their rows.

    A cell of a table becomes a record with the ids and properties of its row.
    """
    held: list[str] = []  # columns with structures
    plain: dict[str, dict[str, Any]] = {}  # other columns, by row
    for column in text.each_key():
        wanted = column in IDS or properties is None or column in properties
        found: bool | None = None
        for row, value, _ in text.values("}"):
            if found is None and value is not None:
                found = _is_record(value)
            if wanted and not found and isinstance(value, str | int | float):
                plain.setdefault(column, {})[row] = value
        if found:
            held.append(column)
        else:
            plain.setdefault(column, {})
    ids: dict[str, Any] = next((plain[column] for column in IDS if plain.get(column)), {})
    table = bool(plain) or all(map(is_field, held))
    first = "structure" if key is None else key.split(".")[0]
    chosen = [column for column in held if table and column == first] or held
    several = Unusable(f"no key structure: a record{_has(dict.fromkeys(held))}", _choose(held[-1]) if held else "")
    with reopen() as file:
        again = JsonText(file)
        for column in again.each_key():
            for row, _, value in again.values("}"):
                if column not in chosen:
                    continue
                name = str(ids.get(row, f"row {row}" if row.isdecimal() else row))
                if not table:
                    yield f"{column}/{row}" if row.isdecimal() and len(held) > 1 else row, value
                elif len(chosen) == 1:
                    beside = "".join(f", {json.dumps(c)}: {json.dumps(v[row])}" for c, v in plain.items() if row in v)
                    yield name, f"{{{json.dumps(column)}: {value}{beside}}}"
                elif column == chosen[0]:
                    yield name, several


def _table(text: JsonText, reopen: Callable[[], BinaryIO]) -> Iterator[tuple[str, str]]:
    """Yield the rows of a table as objects."""
    heads: dict[str, list[Any]] = {"columns": [], "index": []}
    for key in text.each_key():
        if key in heads and text.peek() == "[":
            heads[key] = text.value()[0]
        elif text.peek() == "[":
            for _ in text.values("]"):
                pass
        else:
            text.value()
    columns = [str(column) for column in heads["columns"]]
    with reopen() as file:
        again = JsonText(file)
        for key in again.each_key():
            if key != "data" or again.peek() != "[":
                again.value()
                continue
            for place, (_, row, value) in enumerate(again.values("]")):
                index = heads["index"][place] if place < len(heads["index"]) else place
                name = index if isinstance(index, str) else f"row {shown(str(index))}"
                yield name, json.dumps(dict(zip(columns, row, strict=False))) if isinstance(row, list) else value


def _has_structure(part: Mapping[str, Any]) -> bool:
    """Return whether an object is a structure, or contains one at any depth."""
    return "structure" in part or bool(structures_of(part))


def _is_record(value: Any) -> bool:
    """Return whether a value is an object that is a structure, or contains one."""
    return isinstance(value, Mapping) and _has_structure(value)


def _is_document(value: Mapping[str, Any]) -> bool:
    """Return whether an object is a structure, or has one at the key `structure`, unless it is a column of a table."""
    held = value.get("structure")
    return is_structure(value) or ("structure" in value and not (isinstance(held, Mapping) and _is_column(held)))


def _is_list_of_records(part: Any) -> bool:
    """Return whether a value is a list whose first item is a record."""
    return isinstance(part, list) and bool(part) and _is_record(part[0])


def _is_column(part: Mapping[str, Any]) -> bool:
    """Return whether an object holds records by row, and is no record itself."""
    if _is_document(part) or any(is_field(row) for row in itertools.islice(part, _TRIED)):
        return False
    values = list(itertools.islice((value for value in part.values() if value is not None), _TRIED))
    return bool(values) and all(map(_is_record, values))


def _choose(way: str) -> str:
    """Return the advice to choose a structure of a record."""
    return f"choose one for all records, such as data.source.key={shown(way)}"
