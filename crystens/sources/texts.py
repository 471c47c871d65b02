"""Bytes to text: encodings, the ends of lines, and the marks that old systems leave in files; words to numbers.

Lines may end with LF, CR or CR LF (CIF 1.1 and 2.0, common semantics); a form feed or a vertical tab, the page ends of
old printers, end a line too, and so does Ctrl-Z, which DOS wrote at the end of a file. A no-break space, which comes
with text that was copied from a page, is a space.
"""

from __future__ import annotations

import re

from crystens.sources.files import unpacked
from crystens.sources.record import Unusable

_ENDS = ("\r", "\f", "\v", "\x1a")
_MARKS = str.maketrans({"\r": "\n", "\f": "\n", "\v": "\n", "\x1a": "\n", "\u00a0": " ", "\ufeff": None})
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x19\x1b-\x1f]")


def decoded(content: bytes) -> str:
    """Return the text of bytes: UTF-8, UTF-16 or Latin-1, with or without a byte order mark, gzipped or not.

    Raises:
        Unusable: if they are no text.
    """
    content = unpacked(content)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    if _BINARY.search(content):
        raise Unusable("not a CIF: binary data", "give a text file with a data_ block")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def plain_lines(text: str) -> str:
    """Return a text whose lines end with LF alone, without byte order marks and no-break spaces."""
    if text.isascii() and not any(end in text for end in _ENDS):
        return text
    return text.replace("\r\n", "\n").translate(_MARKS)


def number(word: str) -> float:
    """Return a word as a number, not finite ones too; Fortran writes 1.0D0 for 1.0E0.

    Raises:
        ValueError: if it is none; `float` would take digits of other scripts, and an underscore between digits.
    """
    if "_" in word or not word.isascii():
        raise ValueError(f"not a number: {word[:40]!r}")
    return float(word.replace("D", "e").replace("d", "e"))
