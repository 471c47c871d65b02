"""Duplicates: crystals that are the same as an earlier one become rejects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crystens.ingest.store import CrystalStore
from crystens.sources.record import Entry, Reject


def repeats_in(store: CrystalStore, workers: int) -> dict[int, Reject]:
    """Return the rejects of rows that repeat an earlier row of a store, by row.

    Args:
        store: the crystals.
        workers: number of processes, see `crystens.matching.structure_matching.group_matches`.
    """
    from crystens.matching.structure_matching import group_matches  # here, because it imports scipy

    files, entries = store.column("file"), store.column("entry")
    firsts = group_matches(store, workers=max(workers, 1))
    return {
        int(row): _repeat(files[row], entries[row], files[firsts[row]], entries[firsts[row]])
        for row in np.flatnonzero(firsts != np.arange(len(store)))
    }


def without_repeats(items: Sequence[Entry | Reject], workers: int) -> list[Entry | Reject]:
    """Return items in which each entry that repeats an earlier one is replaced by a reject."""
    entries = [item for item in items if isinstance(item, Entry)]
    repeats = repeats_in(CrystalStore.from_items(entries, ""), workers)
    rejects = {id(entries[row]): reject for row, reject in repeats.items()}
    return [rejects.get(id(item), item) for item in items]


def _repeat(file: str, entry: str, first_file: str, first_entry: str) -> Reject:
    """Return the reject of a crystal that repeats another."""
    reason = f"the same crystal as an earlier one: {first_file} {first_entry}".rstrip()
    return Reject(file, entry, reason, "ask for data.ingest.duplicates=keep to keep it")
