"""Real crystals that generated ones are compared with, such as those of training: one split of a source."""

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
        name: what they are, for titles.
        names: of each, the file it is in and which one in that file.
        crystals: the crystals.
        left_out: how many entries of the source cannot be compared with, by reason; of every split.
    """

    name: str
    names: tuple[str, ...] = ()
    crystals: tuple[Crystal, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)


def read_known(path: str, split: str | None = None) -> KnownCrystals:
    """Return the ordered crystals of a source, those of any size and however bad: a copy of one is not novel.

    Crystals that cannot be read are counted, and a warning says so.

    Args:
        path: of the source.
        split: "train", "val", "test" or `WHOLE`; None takes train where the source gives splits, and everything where
            not.

    Raises:
        CrystensError: if there is nothing usable, or no such split.
    """
    taken, left_out = entries_of(open_source(path), path, split)
    part = split or ("train" if any(entry.split for entry in taken) else WHOLE)
    kind = "structures" if part == WHOLE else "training structures" if part == "train" else f"{part} structures"
    name = f"{len(taken)} {kind} of {Path(path).resolve().name}"
    names = tuple(f"{entry.file} {entry.entry}".strip() for entry in taken)
    return KnownCrystals(name, names, tuple(entry.crystal for entry in taken), left_out)


def entries_of(source: Source, path: str, split: str | None = None) -> tuple[list[Entry], dict[str, int]]:
    """Return the entries of one split of a source, and how many of all its records are left out, by reason.

    Args:
        source: the source.
        path: where it is, for messages.
        split: see `read_known`.

    Raises:
        CrystensError: if there is nothing usable, or no such split.
    """
    entries, rejects = read_all(source, JudgingLimits())
    part = split or ("train" if any(entry.split for entry in entries) else WHOLE)
    taken = [entry for entry in entries if part in (WHOLE, entry.split)]
    if not taken:
        raise CrystensError(f"{path} has no crystals of the split {part}; give another split, or {WHOLE}")
    reasons = Counter(reject.category for reject in rejects)
    if rejects:
        log.warning(
            "%d entries of %s are left out, so that nothing is compared with them: %s",
            len(rejects),
            path,
            ", ".join(f"{count} {reason}" for reason, count in reasons.most_common()),
        )
    return taken, dict(reasons)
