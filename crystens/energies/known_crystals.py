"""Known real crystals, such as the training data, that generated crystals are compared with: a split of a source."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.ingest.generated import JudgingLimits
from crystens.ingest.kinds import open_source
from crystens.sources.record import Entry
from crystens.sources.source import Source, read_all

log = logging.getLogger(__name__)

WHOLE = "all"  # splits of a source


@dataclass(frozen=True)
class KnownCrystals:
    """Real crystals, such as those that a model was trained on.

    Attributes:
        name: name for titles.
        names: file and entry of each crystal.
        crystals: the crystals.
        left_out: number of entries of the source, in all splits, that could not be read, by reason.
    """

    name: str
    names: tuple[str, ...] = ()
    crystals: tuple[Crystal, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)


def read_known(path: str, split: str | None = None) -> KnownCrystals:
    """Return all ordered crystals of a source, of any size and quality: a copy of any of them is not novel.

    Crystals that cannot be read are counted and reported by a warning.

    Args:
        path: path of the source.
        split: "train", "val", "test" or `WHOLE`; None takes train if the source gives splits, otherwise all crystals.

    Raises:
        CrystensError: if there is no usable crystal, or no such split.
    """
    taken, left_out = entries_of(open_source(path), path, split)
    part = split or ("train" if any(entry.split for entry in taken) else WHOLE)
    kind = "structures" if part == WHOLE else "training structures" if part == "train" else f"{part} structures"
    name = f"{len(taken)} {kind} of {Path(path).resolve().name}"
    names = tuple(f"{entry.file} {entry.entry}".strip() for entry in taken)
    return KnownCrystals(name, names, tuple(entry.crystal for entry in taken), left_out)


def entries_of(source: Source, path: str, split: str | None = None) -> tuple[list[Entry], dict[str, int]]:
    """Return the entries of one split of a source, and the number of rejected records of all splits, by reason.

    Args:
        source: the source.
        path: path of the source, for messages.
        split: see `read_known`.

    Raises:
        CrystensError: if there is no usable crystal, or no such split.
    """
    entries, rejects = read_all(source, JudgingLimits())
    part = split or ("train" if any(entry.split for entry in entries) else WHOLE)
    taken = [entry for entry in entries if part in (WHOLE, entry.split)]
    if not taken:
        raise CrystensError(f"{path} has no crystals of the split {part}; give another split, or {WHOLE}")
    reasons = Counter(reject.category for reject in rejects)
    if rejects:
        log.warning(
            "%d entries of %s cannot be read and are not compared with samples: %s",
            len(rejects),
            path,
            ", ".join(f"{count} {reason}" for reason, count in reasons.most_common()),
        )
    return taken, dict(reasons)
