"""Reading generated crystals, without the checks of training data, and counting failed samples.

Crystals that a training set would set aside are read here: overlapping atoms make a crystal invalid, not unreadable. An
entry that cannot be read as an ordered crystal is a failed sample, and stays in every denominator.
"""

from __future__ import annotations

import csv
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.formats.cdvae_result import RESULT_SUFFIXES
from crystens.ingest.kinds import IN_FOLDERS, guess_kind, kind_by_name, open_source
from crystens.sources.files import find_files, is_archive
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Reject, Unusable
from crystens.sources.source import Source

log = logging.getLogger(__name__)

TABLE = "crystals.csv"


@dataclass(frozen=True)
class JudgingLimits(Limits):
    """Limits that accept every ordered crystal, however bad.

    The space group is not searched and set to 1; code that needs it searches it, and handles that there may be none.
    """

    def check_cell(self, lengths: np.ndarray, angles: np.ndarray) -> np.ndarray:
        """Return cell vectors as `Limits.check_cell` does; raise `Unusable` only if the numbers form no cell."""
        return Limits(max_length=float("inf"), min_distance=0.0).check_cell(lengths, angles)

    def checked(self, lengths: np.ndarray, angles: np.ndarray, numbers: np.ndarray, coordinates: np.ndarray) -> Crystal:
        """Return the crystal of raw numbers, see `Limits.checked`."""
        self.check_cell(lengths, angles)
        self.check_count(len(numbers))
        try:
            return Crystal(lengths, angles, 1, numbers, coordinates)
        except CrystensError as error:
            raise Unusable(f"not a crystal: {error}", "correct the file") from error

    def formed(self, crystal: Crystal) -> Crystal:
        """Return the crystal unchanged."""
        return crystal

    def unformed(self) -> JudgingLimits:
        """Return these limits, see `Limits.unformed`."""
        return self


def open_generated(path: str | Path, kind: str | None = None) -> Source:
    """Return the source of samples that sample.py did not write.

    Args:
        path: any source of crystals.
        kind: kind of the source, see `open_source`; None guesses.

    Raises:
        CrystensError: if there is nothing; if a folder holds only results of CDVAE; or if it holds samples both in
            files and in archives, which may be copies or intermediate steps, as in a folder of MatterGen.
    """
    guessed = guess_kind(str(path)) if kind is None else kind
    if kind is None and guessed in IN_FOLDERS and Path(path).is_dir():
        found = find_files(Path(path), lambda name: kind_by_name(name) is not None)[0]
        if not found and (results := sorted(file.name for file in Path(path).glob(f"*{RESULT_SUFFIXES[0]}"))):
            raise CrystensError(
                f"no files of crystals in {path}, but {', '.join(results[:5])}: give the file that CDVAE wrote"
            )
        archives = sorted(name for name in found if is_archive(name))
        if archives and len(archives) < len(found):
            file = next(name for name in sorted(found) if not is_archive(name))
            raise CrystensError(
                f"{path} holds samples in files ({file}) and in archives ({', '.join(archives[:3])}), which may be "
                "copies or intermediate steps: give one of them"
            )
        counts = Counter(kind_by_name(name) for name in found if not is_archive(name))
        others = [f"{counts[name]} of kind {name}" for name in ("extxyz", "poscar") if counts[name] and name != guessed]
        if others:
            log.warning("%s: only files of kind %s are judged, not %s", path, guessed, " and ".join(others))
    return open_source(str(path), guessed)


def read_generated(path: str | Path, kind: str | None = None, split: str | None = None) -> list[Entry | Reject]:
    """Return all samples at a path, in their order.

    Args:
        path: any source of crystals, or a folder of sample.py, whose failed samples become rejects with the reason in
            its table and the sample's index as `entry`.
        kind: kind of the source, see `open_source`; None guesses.
        split: "train", "val" or "test", for a source with splits: only that split. Rejects are always kept.

    Raises:
        CrystensError: if there is nothing, the folder's table names a missing CIF, or a split is asked for of samples
            of sample.py, which have no splits.
    """
    folder = Path(path)
    if kind is not None or not is_sample_folder(folder):
        found = list(open_generated(path, kind).read(JudgingLimits()))
        if split is not None:
            found = [item for item in found if isinstance(item, Reject) or item.split == split]
        if not found:
            part = f" of the split {split}" if split else ""
            raise CrystensError(f"no crystal{part} in {path}; give a folder that sample.py wrote, or a source")
        return found
    if split is not None:
        raise CrystensError(f"{path} holds samples, which have no splits; leave split={split} out")
    rows = read_table(folder)
    by_name = {}
    if any(row["status"] == "ok" for row in rows):
        by_name = {Path(item.file).name: item for item in open_source(str(folder / "cifs")).read(JudgingLimits())}
    samples: list[Entry | Reject] = []
    for row in rows:
        name = Path(row["file"]).name
        if row["status"] != "ok":
            samples.append(Reject("", row["index"], f"not decoded: {row['reason']}", "check the model"))
        elif name in by_name:
            samples.append(by_name[name])
        else:
            raise CrystensError(f"{folder / TABLE} names {row['file']}, which is not there; judge the samples again")
    if not samples:
        raise CrystensError(f"no sample in {folder}")
    return samples


def is_sample_folder(folder: Path) -> bool:
    """Return whether a folder was written by sample.py."""
    return (folder / TABLE).is_file() and (folder / "cifs").is_dir()


def read_table(folder: Path) -> list[dict[str, str]]:
    """Return the rows of the table of a folder that sample.py wrote, as text, in the order of the samples."""
    with (folder / TABLE).open(encoding="utf-8", newline="") as file:
        return sorted(csv.DictReader(file), key=lambda row: int(row["index"]))
