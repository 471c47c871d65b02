"""Splitting extended XYZ files into frames: a number of atoms, a comment line, and a line for each atom.

A file of any size is read once, in order; a frame may have `MAX_BYTES`. Blank lines are skipped, except blank comment
lines. An atom line has at least four words, so that a line with a single integer begins the next frame. A frame with
fewer or more atom lines than its number of atoms is rejected, and the next frame is read.
"""

from __future__ import annotations

import io
import re
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO

from crystens.sources.files import MAX_BYTES
from crystens.sources.record import Unusable, shown
from crystens.sources.texts import number

_COUNT = re.compile(r"\s*\d{1,15}\s*")
_BLANK = " \t\n\f\v\x1a"  # the last character ends files of DOS
_MARK = "\u00ef\u00bb\u00bf"  # a byte order mark, read as Latin-1
_HEADER = re.compile(r"(?:lattice|properties)\s*=", re.IGNORECASE)
_FETCH = "fetch the file again, or delete the frame"


def frames(file: BinaryIO) -> Iterator[bytes | Unusable]:
    """Yield the bytes of each frame of a file, with lines ended by LF, or the reason why it cannot be read."""
    lines = _Lines(file)
    while lines.skip_blank():
        yield _frame(lines) if _COUNT.fullmatch(lines.peek()) else _not_a_frame(lines)


class _Lines:
    """The lines of a file, with a look ahead.

    Lines may end with LF, CR or CR LF. Bytes are kept as Latin-1. A line longer than `MAX_BYTES` is cut to just above
    that length.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = io.TextIOWrapper(file, encoding="latin-1", newline=None)
        self._next: deque[str] = deque()

    def peek(self, ahead: int = 0) -> str:
        """Return a later line, without its byte order mark; empty at the end of the file."""
        while len(self._next) <= ahead:
            line = self._file.readline(MAX_BYTES)
            if len(line) == MAX_BYTES and not line.endswith("\n"):
                while (rest := self._file.readline(MAX_BYTES)) and not rest.endswith("\n"):
                    pass
                line += "\n"
            self._next.append(line.removeprefix(_MARK))
        return self._next[ahead]

    def take(self) -> str:
        """Return the next line, and move past it."""
        line = self.peek()
        self._next.popleft()
        return line

    def skip_blank(self) -> bool:
        """Go to the next line that is not blank, and return whether there is one."""
        while (line := self.peek()) and not line.strip(_BLANK):
            self.take()
        return bool(line)

    def skip_to_count(self) -> None:
        """Go to the next line that is a number of atoms, or to the end."""
        while (line := self.peek()) and not _COUNT.fullmatch(line):
            self.take()


def _not_a_frame(lines: _Lines) -> Unusable:
    """Move to the next frame, and return the error of this one."""
    first = shown(lines.peek().strip(_BLANK))
    lines.skip_to_count()
    return Unusable(
        f"not an XYZ frame: expected the number of atoms, found {first!r}",
        "check the frame before and after it, or export the file again",
    )


def _frame(lines: _Lines) -> bytes | Unusable:
    """Move past the frame that begins here, and return it or the error."""
    first = lines.take()
    count = int(first)
    if _COUNT.fullmatch(lines.peek()) and _HEADER.search(lines.peek(1)):
        return _truncated("the next frame begins", 0, count)
    if not lines.peek().strip(_BLANK) and _HEADER.search(lines.peek(1)):
        lines.take()
    pieces = [first, lines.take()]
    size = len(first) + len(pieces[-1])
    found = 0
    while found < count:
        if not lines.skip_blank():
            return _truncated("the file ends", found, count)
        if _COUNT.fullmatch(lines.peek()):
            return _truncated("the next frame begins", found, count)
        line = lines.take()
        found += 1
        size += len(line)
        if size <= MAX_BYTES:
            pieces.append(line)
    if lines.skip_blank() and _is_like(lines.peek(), pieces[-1]):
        reason = f"number of atoms wrong: lines of atoms go on after {count}: {shown(lines.peek().strip(_BLANK))!r}"
        lines.skip_to_count()
        return Unusable(reason, "correct the number in the first line of the frame, or delete the frame")
    if size > MAX_BYTES:
        return Unusable(f"frame too large: above {MAX_BYTES // 2**20} MiB", "use a smaller cell")
    return "".join(pieces).encode("latin-1")


def _truncated(end: str, found: int, count: int) -> Unusable:
    """Return the error of a truncated frame."""
    return Unusable(f"truncated frame: {end} after {found} of {count} atoms", _FETCH)


def _is_like(line: str, atom: str) -> bool:
    """Return whether a line has as many words as the atom line before it, and at least three numbers."""
    parts = line.split()
    return len(parts) >= 4 and len(parts) == len(atom.split()) and sum(map(_is_number, parts)) >= 3


def _is_number(word: str) -> bool:
    """Return whether a word is a number."""
    try:
        number(word)
    except ValueError:
        return False
    return True
