"""Training, validation and test sets: as the source gives them, or drawn by a seed of their own.

A drawn split orders entries by a hash of seed, file and entry. It is the same on every machine and with every version
of every library, does not depend on the order of reading, and does not share a generator with the training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from crystens.data.entries import SPLITS, Entry
from crystens.errors import CrystensError

KINDS = ("auto", "given", "random")


def split_entries(entries: Sequence[Entry], kind: str, fractions: Sequence[float], seed: int) -> dict[str, list[Entry]]:
    """Return the entries of train, val and test, each in the order of reading.

    Args:
        entries: what to split.
        kind: "given" takes the splits of the source; "random" draws them; "auto" takes those of the source if it gives
            any.
        fractions: shares of train, val and test when drawn; they sum to 1. A share above 0 gets one entry at least, as
            long as train keeps one.
        seed: of the draw.

    Raises:
        CrystensError: if an option is out of range, a given split is missing, or train would be empty.
    """
    if kind not in KINDS:
        raise CrystensError(f"data.split={kind} is not known; use one of {', '.join(KINDS)}")
    given = any(entry.split for entry in entries)
    if kind == "given" and not given:
        raise CrystensError("data.split=given, but this source gives no splits; use data.split=random")
    drawn = kind == "random" or not given
    assigned = _drawn(entries, fractions, seed) if drawn else [entry.split for entry in entries]
    splits = {
        split: [entry for entry, name in zip(entries, assigned, strict=True) if name == split] for split in SPLITS
    }
    if not splits["train"]:
        raise CrystensError(f"no training data: all {len(entries)} usable entries belong to val or test")
    return splits


def _drawn(entries: Sequence[Entry], fractions: Sequence[float], seed: int) -> list[str]:
    """Return the split of each entry."""
    if len(fractions) != 3 or min(fractions) < 0 or fractions[0] <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise CrystensError(
            f"data.split_fractions={list(fractions)}: give three shares (train, val, test) of at least 0 that sum "
            "to 1, train above 0"
        )
    count = len(entries)
    sizes = [max(round(share * count), 1) if share else 0 for share in fractions[1:]]
    while sum(sizes) >= count and any(sizes):
        sizes[sizes.index(max(sizes))] -= 1
    names = ["val"] * sizes[0] + ["test"] * sizes[1] + ["train"] * (count - sum(sizes))
    order = sorted(range(count), key=lambda k: (_key(entries[k], seed), k))
    assigned = [""] * count
    for place, name in zip(order, names, strict=True):
        assigned[place] = name
    return assigned


def _key(entry: Entry, seed: int) -> bytes:
    """Return what a drawn split sorts by."""
    return hashlib.blake2b(f"{seed}\n{entry.file}\n{entry.entry}".encode(errors="replace"), digest_size=16).digest()
