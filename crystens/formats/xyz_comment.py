"""The comment line of an extended XYZ frame: pairs of a key and a value, by the grammar of the specification.

    key=value  "a key"=value  key = value    keys and values may be quoted; blanks may stand around the equals sign
    "a \\"quoted\\" text"                      in quotes a backslash makes the next character plain, and \\n a line end
    [1, 2, 3]  [[1, 2], [3, 4]]              arrays: one row, or rows
    "1 2 3"  {1 2 3}                         arrays in the older notation
    word                                     a flag, which has no value and is skipped

Beyond the specification, as ASE reads them: single quotes, and values with commas and no quotes.

Source: README of github.com/libAtoms/extxyz (version 0.4), and `ase.io.extxyz`.
"""

from __future__ import annotations

import re

from crystens.sources.record import Unusable, shown

Value = str | list["Value"]  # a list is an array of texts and arrays

_BLANKS = re.compile(r"\s*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_SINGLE_QUOTED = re.compile(r"'([^']*)'")
_KEY = re.compile(r'[^\s="]+')
_BARE = re.compile(r"\S*")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_ITEM = re.compile(r'\s*(?:(,)|([\[{])|([\]}])|"((?:[^"\\]|\\.)*)"|([^\s,\[\]{}"]+))', re.DOTALL)
_CLOSES = {"]": "[", "}": "{"}
_DEEPEST = 8  # levels of nested arrays


class Pairs:
    """The pairs of a comment line.

    Attributes:
        values: the value of each key; the first value of a repeated key.
        repeated: keys that occur twice, with different values.
        unclosed: key whose value has an unclosed quote or bracket, which ended reading; None if there is none.
    """

    def __init__(self, line: str) -> None:
        self.values: dict[str, Value] = {}
        self.repeated: set[str] = set()
        self.unclosed: str | None = None
        self._read(line)

    def get(self, name: str) -> Value | None:
        """Return the value of a key, by its exact name or else in another case; None if there is none.

        Raises:
            Unusable: if the key has two values, or cannot be found because a quote is not closed.
        """
        found = name if name in self.values else next((key for key in self.values if key.lower() == name.lower()), None)
        if found in self.repeated:
            raise Unusable(f"{name} stands twice: the comment line gives it two values", f"keep one {name}")
        if found is None and self.unclosed is not None:
            raise Unusable(
                f"comment line not understood: a quote or bracket of {shown(self.unclosed, 40)} is not closed",
                "close it, or delete the frame",
            )
        return None if found is None else self.values[found]

    def texts(self) -> dict[str, str]:
        """Return the values that are texts, by keys in lower case."""
        return {key.lower(): value for key, value in self.values.items() if isinstance(value, str)}

    def _read(self, line: str) -> None:
        """Read the pairs of a line."""
        place = _after(_BLANKS, line, 0)
        while place < len(line) and self.unclosed is None:
            quoted = _QUOTED.match(line, place)
            match = quoted or _KEY.match(line, place)
            if match is None:  # an equals sign or a quote without a key
                place = _after(_BARE, line, place + 1)
            else:
                key = _plain(quoted[1]) if quoted else match[0]
                place = _after(_BLANKS, line, match.end())
                if line[place : place + 1] == "=":
                    place = self._value(key, line, _after(_BLANKS, line, place + 1))
            place = _after(_BLANKS, line, place)

    def _value(self, key: str, line: str, place: int) -> int:
        """Record the value that begins at index `place`, and return the index after it."""
        value: Value
        first = line[place : place + 1]
        match = _QUOTED.match(line, place) or _SINGLE_QUOTED.match(line, place)
        if match is not None:
            value, place = _plain(match[1]), match.end()
        elif first in ("[", "{"):
            array, place = _array(line, place)
            if array is None:
                self.unclosed = key
                return place
            value = array
        elif first == '"':
            self.unclosed = key
            return place
        else:
            end = _after(_BARE, line, place)
            value, place = line[place:end], end
        if self.values.setdefault(key, value) != value:
            self.repeated.add(key)
        return place


def words(value: Value) -> list[str]:
    """Return the words of a text or an array, row by row, separated by blanks and commas."""
    if isinstance(value, str):
        return [word for word in re.split(r"[\s,]+", value) if word]
    return [word for item in value for word in words(item)]


def unquoted(value: Value) -> Value:
    """Return the array in a text such as "[1, 2, 3]"; other values are returned unchanged."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        array, end = _array(value, 0)
        return value if array is None or value[end:].strip() else array
    return value


def _array(line: str, place: int) -> tuple[list[Value] | None, int]:
    """Return the array that begins at index `place`, None if it has no end, and the index after it."""
    outermost: list[Value] = []
    inside: list[tuple[str, list[Value]]] = [("", outermost)]
    while (match := _ITEM.match(line, place)) is not None:
        place = match.end()
        _, opening, closing, quoted, bare = match.groups()
        if opening:
            array: list[Value] = []
            inside[-1][1].append(array)
            inside.append((opening, array))
            if len(inside) > _DEEPEST:
                return None, place
        elif closing:
            if inside.pop()[0] != _CLOSES[closing]:
                return None, place
            if len(inside) == 1:
                (first,) = outermost
                return (first if isinstance(first, list) else None), place
        elif quoted is not None or bare:
            inside[-1][1].append(bare or _plain(quoted))
    return None, place


def _after(pattern: re.Pattern[str], line: str, place: int) -> int:
    """Return the index after the match of a pattern at index `place`."""
    match = pattern.match(line, place)
    return match.end() if match else place


def _plain(quoted: str) -> str:
    """Return the text between quotes, with escapes replaced."""
    return _ESCAPED.sub(lambda match: "\n" if match[1] == "n" else match[1], quoted)
