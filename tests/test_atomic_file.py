"""Files are written whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from crystens.errors import CrystensError
from crystens.processes.atomic_file import whole_file, write_whole


def test_a_file_is_written_with_its_folder_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.txt"
    write_whole(path, "Å\n")
    write_whole(path, "Å and more\n")
    assert path.read_bytes() == "Å and more\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_text_that_utf_8_cannot_hold_is_written_with_backslashes(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.txt", "a\udcff")
    assert (tmp_path / "a.txt").read_bytes() == b"a\\udcff"


def _interrupted(path: Path) -> None:
    """Begin to write a file."""
    with whole_file(path) as beside:
        beside.write_bytes(b"ne")
        raise KeyboardInterrupt


def test_an_interrupted_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_whole(path, b"old")
    with pytest.raises(KeyboardInterrupt):
        _interrupted(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_whole(path, b"old")

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CrystensError, match=r"cannot write .*a\.txt: No space left on device; choose another folder"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
