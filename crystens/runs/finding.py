"""Finding runs below folders.

A run folder of train.py holds config.yaml; a folder of samples, of sample.py or `python -m crystens.evaluate`, holds
metrics.json, crystals.csv or images. A folder that holds only a log is a run that ended before training began. Links
are followed last, and no folder is entered twice.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from crystens.errors import CrystensError

CONFIG = "config.yaml"
METRICS = "metrics.json"
TABLE = "crystals.csv"
IMAGES = ("images.safetensors", "images.part")
LOGS = ("train.log", "sample.log")
SAMPLES = "samples"

_OF_TRAINING = {"checkpoints", "csv", SAMPLES, "rejected.csv", "train.log"}
_INSIDE = {"cifs", "checkpoints", "csv", "tensorboard", "wandb"}  # folders of a run that hold no further runs


def find_runs(folders: Sequence[Path]) -> dict[Path, str | None]:
    """Return all runs at and below folders, in order, each with None or the reason why it cannot be opened.

    Raises:
        CrystensError: if a folder does not exist, or there is no run below any of them.
    """
    search = _Search()
    for folder in folders:
        if not folder.is_dir():
            raise CrystensError(f"folder not found: {folder}; give folders that contain runs")
        search.enter(folder)
    while search.links:
        search.enter(search.links.pop(0))
    if not search.found:
        told = ", ".join(map(str, folders))
        raise CrystensError(
            f"no run below {told}; give a run folder of train.py (it holds {CONFIG}), a folder of sample.py (it holds "
            f"{METRICS}), or a folder above them"
        )
    return search.found


class _Search:
    """The runs found so far.

    Attributes:
        found: the runs, each with None or the reason why it cannot be opened.
        links: links to folders, which are followed last.
    """

    def __init__(self) -> None:
        self.found: dict[Path, str | None] = {}
        self.links: list[Path] = []
        self._entered: set[tuple[int, int]] = set()

    def enter(self, folder: Path, is_samples: bool = False) -> bool:
        """Look at a folder and all below it; return whether a run was found.

        Args:
            folder: to look at.
            is_samples: whether the folder is the samples of the run in the folder above, and no run by itself.
        """
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in self._entered:
                return True
            self._entered.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                items = sorted(entries, key=lambda item: _natural(item.name))
            names = {item.name for item in items}
            folders = [item for item in items if item.is_dir() and not item.name.startswith(".")]
            linked = {item.name for item in folders if item.is_symlink()}
        except OSError as error:
            self.found[folder] = f"cannot be read: {error.strerror}"
            return True
        is_training = CONFIG in names and (bool(names & _OF_TRAINING) or _tells_a_model(folder / CONFIG))
        is_run = is_training or (not is_samples and bool(names & {METRICS, TABLE, *IMAGES}))
        if is_run:
            self.found[folder] = None
        below = False
        for item in folders:
            if (is_run or is_samples) and item.name in _INSIDE:
                continue
            own_samples = is_training and item.name == SAMPLES
            if item.name in linked and not own_samples:
                self.links.append(folder / item.name)
                continue
            below |= self.enter(folder / item.name, own_samples)
        if not is_run and not is_samples and not below and names & set(LOGS):
            self.found[folder] = None
            return True
        return is_run or below


def _tells_a_model(path: Path) -> bool:
    """Return whether a config.yaml, without other files of a run, looks like one of train.py."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return "\nmodel:" in f"\n{text}" and "\ndata:" in f"\n{text}"


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key: seed_2 before seed_10."""
    digits = ""
    parts: list[tuple[int, str]] = []
    for letter in f"{name}\0":
        if letter.isdecimal() and letter.isascii():
            digits += letter
            continue
        if digits:
            parts.append((int(digits), ""))
            digits = ""
        parts.append((-1, letter))
    return parts
