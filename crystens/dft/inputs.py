"""The folder of one crystal's inputs for a density functional code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from crystens.errors import CrystensError
from crystens.processes.atomic_file import write_whole


def write_folder(folder: Path, files: Mapping[str, str], structure: str, others: str) -> None:
    """Write inputs, of which run.sh is made executable; runs of the same crystal that are there stay.

    Args:
        folder: made if it is missing.
        files: text by name.
        structure: name of the file that says which crystal is computed.
        others: what runs of another structure are called in messages, such as "VASP of another POSCAR".

    Raises:
        CrystensError: if the folder holds runs of another crystal, or cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = folder / structure
        if any(folder.glob("run_*")) and there.exists() and there.read_text() != files[structure]:
            raise CrystensError(f"{folder} holds runs of {others}; give another --out, or move them away")
        for name, text in files.items():
            write_whole(folder / name, text)
        (folder / "run.sh").chmod(0o755)
    except OSError as error:
        raise CrystensError(f"cannot write to {folder}: {error.strerror}; choose another folder") from error
