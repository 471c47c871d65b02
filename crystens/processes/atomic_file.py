"""Files that are written whole or not at all: a kill leaves the old file or the new one."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from crystens.errors import CrystensError


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path to write to, whose file takes the place of `path` at the end, if nothing was raised.

    Several processes may write one file at a time: the last one wins.

    Raises:
        OSError: if the file cannot be put into its place.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield beside
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def write_csv(path: str | Path, rows: Iterable[Sequence[Any]], advice: str = "choose another folder") -> None:
    """Write rows as CSV, the header first, see `write_whole`; None is an empty cell.

    Raises:
        CrystensError: if it cannot be written.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_whole(path, text.getvalue(), advice)


def write_whole(path: str | Path, content: str | bytes, advice: str = "choose another folder") -> None:
    """Write a file, and its folder if there is none; its bytes are on the disk before it has its name.

    Args:
        path: the file.
        content: bytes, or text that is written in UTF-8, what it cannot hold with backslashes.
        advice: what to do if the file cannot be written.

    Raises:
        CrystensError: if it cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as beside, beside.open("wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode(errors="backslashreplace"))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise CrystensError(f"cannot write {path}: {error.strerror}; {advice}") from error
