"""Real crystals to judge generated crystals against, by the name of a data set or the path of a source."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.ingest.generated import JudgingLimits
from crystens.ingest.ingest import open_store
from crystens.ingest.kinds import open_source
from crystens.metrics.distributions import Reference
from crystens.metrics.held_out import spread, with_held_out
from crystens.sources.limits import Limits
from crystens.sources.record import Record, Reject

log = logging.getLogger(__name__)

DATA_SETS = ("perov_5", "carbon_24", "mp_20", "mp_3dsc", "mp_52")

_MAX_SITES = 255  # limit of a batch of compact arrays


def read_reference(
    name: str,
    data_path: str | None = None,
    split: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Reference:
    """Return the real crystals to compare with; for a source with splits, also the metrics of a held-out split.

    Args:
        name: "prototypes", one of the `DATA_SETS` (which needs `data_path`), or the path of any source.
        data_path: folder or file of the data set.
        split: "train", "val" or "test"; None takes train if the source gives splits, otherwise all crystals.
        progress: called with the number of crystals whose Wyckoff template is known.

    Raises:
        CrystensError: if there is no such data, or it has no such split.
    """
    path = _reference_path(name, data_path)
    store = open_store(open_source(path), Limits(max_sites=_MAX_SITES))
    if store.num_rejects:
        first = next(iter(store.rejects()))
        log.warning(
            "%d entries of %s are missing in the reference; the first: %s: %s",
            store.num_rejects,
            path,
            f"{first.file} {first.entry}".strip(),
            first.reason,
        )
    splits = store.column("split")
    has_splits = any(splits)
    if split is not None and not has_splits:
        raise CrystensError(f"--split {split}: {path} gives no splits; leave the option out to take all of it")
    part = split or ("train" if has_splits else None)
    rows = [row for row, given in enumerate(splits) if part is None or given == part]
    batch = store.batch(rows, int(store.counts.max()))
    reference = Reference.from_crystals(batch, name, part or "all", progress)
    for other in ("test", "val", "train"):
        others = spread(np.array([row for row, given in enumerate(splits) if given == other], dtype=np.int64))
        if other != part and len(others):
            return with_held_out(reference, (store[row] for row in others.tolist()), other)
    return reference


def read_real(
    name: str, data_path: str | None = None, split: str | None = None, default: str = "test"
) -> tuple[list[Crystal], str]:
    """Return real crystals, read exactly like samples, and their split.

    Args:
        name: as in `read_reference`.
        data_path: as in `read_reference`.
        split: "train", "val" or "test"; None takes `default` if the source gives splits, otherwise all crystals.
        default: the split that is taken by default; "test" is that of the CDVAE protocol.

    Raises:
        CrystensError: if there is no such data, or a crystal of it cannot be read.
    """
    path = _reference_path(name, data_path)
    source = open_source(path)
    records = list(source.records())
    given = any(record.split for record in records if isinstance(record, Record))
    if split is not None and not given:
        raise CrystensError(f"--split {split}: {path} gives no splits; leave the option out to take all of it")
    part = split or (default if given else None)
    crystals = []
    for record in records:
        if isinstance(record, Record) and part is not None and record.split != part:
            continue
        for item in [record] if isinstance(record, Reject) else source.parsed(record, JudgingLimits()):
            if isinstance(item, Reject):
                raise CrystensError(f"{path}: {item.file} {item.entry} cannot be read: {item.reason}; {item.advice}")
            crystals.append(item.crystal)
    return crystals, part or "all"


def drawn(crystals: Sequence[Crystal], number: int | None, seed: int) -> list[Crystal]:
    """Return `number` of the crystals, drawn without replacement by a seed, in their order; None for all."""
    if number is None or number >= len(crystals):
        return list(crystals)
    return [crystals[place] for place in sorted(random.Random(seed).sample(range(len(crystals)), number))]


def _reference_path(name: str, data_path: str | None) -> str:
    """Return the path of a reference."""
    if name in DATA_SETS:
        if data_path is None:
            raise CrystensError(f"--reference {name} needs its data: give --data-path PATH")
        return data_path
    known = f"prototypes, {', '.join(DATA_SETS)}"
    if name != "prototypes" and not Path(name).exists():
        more = "" if data_path is None else f", such as {data_path}, without --data-path"
        raise CrystensError(
            f"--reference {name} is no data set ({known}), and as a path {name} does not exist; give one of these "
            f"names, or the path of any source{more}"
        )
    if data_path is not None:
        raise CrystensError(
            f"--data-path is for the data sets {', '.join(DATA_SETS)}, but --reference {name} is a source: leave "
            "--data-path out"
        )
    return name
