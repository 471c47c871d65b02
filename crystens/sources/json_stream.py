"""Reading files of any size in pieces: lines, and the values of a JSON list or object.

Memory is bounded by the largest piece, `MAX_BYTES`, and not by the file. Compressed files are recognised by their first
bytes.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from crystens.sources.files import MAX_BYTES, open_regular, unpacked
from crystens.sources.record import Unusable, shown

DAMAGE = (OSError, EOFError, zlib.error)  # raised when a damaged file is read as a stream

_CHUNK = 2**20
_BEGINNING = 2**18
_BLANKS = re.compile(r"[ \t\r\n]*")
_MARKS = re.compile(r'"(?:[^"\\]|\\.)*"|["\[\]{},]', re.DOTALL)
_CLOSES = {"[": "]", "{": "}"}
_DEEPEST = 100  # nesting depth at which the beginning of a value is cut off
_DECODER = json.JSONDecoder()
_FETCH = "fetch the file again, or correct it"
_AS_LINES = "write one structure a line, as JSON lines with the suffix .jsonl"


def opened(content: str | Path | bytes) -> BinaryIO:
    """Return the content of a record of `file_records` as a stream, decompressed if it is gzip or bzip2.

    Raises:
        Unusable: if it is not a regular file, or has vanished.
        OSError: if it cannot be opened.
    """
    if isinstance(content, bytes):
        file: BinaryIO = io.BytesIO(unpacked(content))
    else:
        file = open_regular(content)
    start = file.read(3)
    file.seek(0)
    if start == b"BZh":
        return cast(BinaryIO, bz2.BZ2File(file))
    return cast(BinaryIO, gzip.GzipFile(fileobj=file)) if start[:2] == b"\x1f\x8b" else file


def lines(file: BinaryIO) -> Iterator[bytes | Unusable]:
    """Yield each line with its end; for a line above `MAX_BYTES` an `Unusable` is yielded instead."""
    while line := file.readline(MAX_BYTES):
        if len(line) == MAX_BYTES and not line.endswith(b"\n"):
            while (rest := file.readline(MAX_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield Unusable(f"line too long: above {MAX_BYTES // 2**20} MiB", "write one JSON object a line")
        else:
            yield line


def json_items(file: BinaryIO, splits: Callable[[str, Any], bool]) -> Iterator[tuple[str, str]]:
    """Yield the names and texts of the values in a JSON file, with one value in memory at a time.

    A list is split into its values, named `item 1`, `item 2` and so on. An object is split into its values, named by
    their keys, if `splits` says so. Everything else is one value without a name.

    Args:
        file: the text, UTF-8.
        splits: whether to split an object, from its first key and value.

    Raises:
        Unusable: where the text is not JSON, or a value is too large. Values yielded before are valid.
    """
    text = JsonText(file)
    opening = text.peek()
    if opening == "":
        raise Unusable("empty file", "fetch or export the file again")
    if opening == "[":
        yield from ((f"item {number}", value) for number, (_, _, value) in enumerate(text.values("]"), start=1))
    elif opening == "{" and _first_pair_splits(text, splits):
        yield from ((key, value) for key, _, value in text.values("}"))
    else:
        yield "", text.value()[1]
    text.end()


def _first_pair_splits(text: JsonText, splits: Callable[[str, Any], bool]) -> bool:
    """Return whether to split the object that comes next, without moving forward."""
    text.hold()
    text.take()
    try:
        return text.peek() == '"' and splits(text.key(), text.value()[0])
    finally:
        text.release()


class JsonText:
    """A JSON text of any length, read value by value; text that was read is dropped, except after `hold`.

    Args:
        file: the text, UTF-8.

    Raises:
        Unusable: by all methods that move forward, where the text is not JSON, or a value is too large.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="")
        self._text = ""
        self._place = 0
        self._held: int | None = None

    def hold(self) -> None:
        """Keep the text from here on."""
        self._held = self._place

    def release(self) -> None:
        """Go back to where `hold` was called."""
        self._place, self._held = self._held or 0, None

    def peek(self) -> str:
        """Return the next character that is not blank, without moving forward; empty at the end."""
        while True:
            match = _BLANKS.match(self._text, self._place)
            self._place = match.end() if match else self._place
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._grow():
                return ""

    def take(self) -> str:
        """Return the next character that is not blank, and move past it; empty at the end."""
        character = self.peek()
        self._place += len(character)
        return character

    def beginning(self) -> tuple[Any, bool]:
        """Return the next value, shortened if it is long, and whether it is whole, without moving forward.

        The value is None if the text is not JSON.
        """
        self.peek()
        while len(self._text) - self._place < _BEGINNING and self._grow():
            pass
        try:
            return _DECODER.raw_decode(self._text, self._place)[0], True
        except (ValueError, RecursionError):
            try:
                return json.loads(_closed(self._text[self._place : self._place + _BEGINNING])), False
            except (ValueError, RecursionError):
                return None, False

    def values(self, closing: str) -> Iterator[tuple[str, Any, str]]:
        """Yield key, value and text of each value of a list or object, whose opening bracket is next."""
        for key in self._parts(closing):
            yield key, *self.value()

    def each_key(self) -> Iterator[str]:
        """Yield each key of the object that comes next; the caller must read the value before the next key."""
        return self._parts("}")

    def end(self) -> None:
        """Raise `Unusable` if there is more text."""
        if self.peek():
            raise Unusable("not JSON: there is more text after its end", f"give one JSON value a file, or {_AS_LINES}")

    def _parts(self, closing: str) -> Iterator[str]:
        """Yield before each value of a list or object, whose opening bracket is next: its key; empty in a list."""
        opening = "{" if closing == "}" else "["
        if (found := self.take()) != opening:
            raise _no_json(f"expected {opening} and found {shown(found) or 'the end of the file'}")
        if self.peek() == closing:
            self.take()
            return
        while True:
            yield self.key() if closing == "}" else ""
            separator = self.take()
            if separator == closing:
                return
            if separator != ",":
                raise _no_json(f"expected , or {closing} and found {shown(separator) or 'the end of the file'}")

    def key(self) -> str:
        """Return the key of a pair, and move past its colon."""
        if self.peek() != '"':
            raise _no_json("a key is missing")
        key = self.value()[0]
        if self.take() != ":":
            raise _no_json("a colon is missing")
        return str(key)

    def value(self) -> tuple[Any, str]:
        """Return the next value and its text, and move past it."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._place)
            except RecursionError:
                raise _no_json("nested too deep") from None
            except ValueError as error:
                reason = getattr(error, "msg", str(error))
                if len(self._text) - self._place > MAX_BYTES:
                    raise _too_large(reason) from error
                if not self._grow():
                    raise _no_json(reason) from error
                continue
            # A number may continue in text that is not read yet.
            if end == len(self._text) and self._grow():
                continue
            if end - self._place > MAX_BYTES:
                raise _too_large("too much text")
            text = self._text[self._place : end]
            self._place = end
            return value, text

    def _grow(self) -> bool:
        """Double the text in memory, so that a long value is not decoded too often; False at the end."""
        start = self._place if self._held is None else self._held
        kept = self._text[start:]
        more = self._file.read(max(_CHUNK, len(kept)))
        self._text = kept + more
        self._place -= start
        self._held = None if self._held is None else 0
        return bool(more)


def _closed(text: str) -> str:
    """Return a truncated JSON text without its last, incomplete parts, and with its brackets closed."""
    inside: list[str] = []
    end, closers = 0, ""
    for match in _MARKS.finditer(text):
        mark = match[0]
        if mark == '"':  # an unterminated string
            break
        if mark in _CLOSES and len(inside) == _DEEPEST:
            break
        if mark in _CLOSES:
            inside.append(_CLOSES[mark])
        elif mark in ("]", "}"):
            if not inside or inside.pop() != mark:
                break
        elif mark != ",":
            continue
        end = match.start() if mark == "," else match.end()
        closers = "".join(inside)
    return text[:end] + closers[::-1]


def _no_json(reason: str) -> Unusable:
    """Return the error of a text that is not JSON."""
    return Unusable(f"not JSON: {reason}", _FETCH)


def _too_large(reason: str) -> Unusable:
    """Return the error of a value that does not end within `MAX_BYTES`."""
    return Unusable(f"entry too large: no end within {MAX_BYTES // 2**20} MiB, {reason}", _AS_LINES)
