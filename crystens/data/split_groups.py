"""Groups of the crystals of a store, by formula or by structure, cached beside the store."""

from __future__ import annotations

import logging

import numpy as np
from filelock import FileLock

from crystens.data.splits import GROUPED_KINDS
from crystens.ingest.ingest import IngestOptions
from crystens.ingest.store import CrystalStore
from crystens.matching.structure_matching import group_matches
from crystens.processes.atomic_file import whole_file
from crystens.survey.columns import Census

log = logging.getLogger(__name__)


def crystal_groups(store: CrystalStore, kind: str, options: IngestOptions | None = None) -> np.ndarray | None:
    """Return the group label of each crystal, (M,) int64, or None for a split that needs no groups.

    Args:
        store: M crystals.
        kind: kind of the split, see `crystens.data.splits`: "formula" groups by reduced formula, "structure" by
            `crystens.matching.structure_matching.group_matches`, which compares each crystal only with its most similar
            candidates.
        options: options with the number of workers.
    """
    if kind not in GROUPED_KINDS:
        return None
    if kind == "formula":
        return Census.from_store(store).formulas
    if store.folder is None:
        return _found(store, options)
    kept = store.folder / f"groups_{kind}.npy"
    try:
        # One rank of a distributed run computes the groups, and the others wait.
        with FileLock(store.folder / f".groups_{kind}.lock"):
            if kept.is_file() and len(groups := np.load(kept)) == len(store):
                return groups
            groups = _found(store, options)
            with whole_file(kept) as beside, beside.open("wb") as file:
                np.save(file, groups)
            return groups
    except OSError as error:
        log.warning("cannot cache the groups of %s: %s; each run will compute them", store.name, error.strerror)
        return _found(store, options)


def _found(store: CrystalStore, options: IngestOptions | None) -> np.ndarray:
    """Compute the groups of crystals that are the same."""
    log.info("searching duplicates among %d crystals of %s", len(store), store.name)
    return group_matches(store, workers=max((options or IngestOptions()).num_workers, 1))
