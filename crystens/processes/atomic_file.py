"""Atomic files: a kill leaves the old file or the new one."""

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
    """Yield a temporary path to write to, which replaces `path` at the end, unless an exception was raised.

    If several processes write the same file, the last one wins.

    Raises:
        OSError: if `path` cannot be replaced.
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
    """Write a file atomically, and create its folder; its bytes are on disk before it gets its name.

    Args:
        path: the file.
        content: bytes, or text, written as UTF-8 with backslash escapes for what UTF-8 cannot encode.
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
