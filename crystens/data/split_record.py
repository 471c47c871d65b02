"""A record of the crystals of each split, kept in the checkpoint: no run is resumed on other data in silence.

Data are the same where each split holds the same crystals, bit by bit and in the same order. Names and paths do not
matter: a folder may be moved, and a crystal renamed. Properties that a run keeps of its crystals are a part of them.
Options do not matter either, unless they change crystals or splits. Were other data taken in silence, test crystals of
the run so far could come into train.

Names and options are kept to say what changed. Of each crystal stand 8 bytes of a digest of its name and 8 of its
arrays, as long as there are no more than `MOST_MARKED` crystals; of more, one digest a split.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from crystens.batch import CrystalBatch
from crystens.data.splits import entry_key, numbered
from crystens.errors import CrystensError
from crystens.ingest.store import CrystalStore
from crystens.sources.record import SPLITS

MOST_MARKED = 1_000_000

_PART_ROWS = 65_536
_MOST_NAMED = 3  # crystals of each kind of change that a message names


class OtherData(CrystensError):
    """The data are not those that a checkpoint was trained on."""


@dataclass(frozen=True)
class SplitRecord:
    """Counts and digests of the crystals of each split.

    Attributes:
        counts: number of crystals of train, val and test.
        digests: of the crystals of train, val and test, in order.
        options: what decides crystals and splits, by the name to report; plain values.
        names: marks of the names of all crystals, those of train first, then val and test, (M,) int64; None of more
            than `MOST_MARKED`.
        crystals: marks of their arrays, (M,) int64, or None.
    """

    counts: tuple[int, ...]
    digests: tuple[str, ...]
    options: Mapping[str, Any]
    names: np.ndarray | None
    crystals: np.ndarray | None

    @classmethod
    def from_store(
        cls,
        store: CrystalStore,
        splits: Mapping[str, np.ndarray],
        listed: Callable[[np.ndarray], CrystalBatch],
        options: Mapping[str, Any],
    ) -> SplitRecord:
        """Return the record of a store; all of it is read, some 5 microseconds a crystal.

        Args:
            store: the crystals.
            splits: rows of train, val and test, int64.
            listed: gives what the images of rows list, and the properties that the run keeps.
            options: what decides crystals and splits, by the name to report.
        """
        marks = [_crystal_marks(splits[split], listed) for split in SPLITS]
        counts = tuple(len(part) for part in marks)
        digests = tuple(hashlib.blake2b(part.tobytes(), digest_size=16).hexdigest() for part in marks)
        if sum(counts) > MOST_MARKED:
            return cls(counts, digests, options, None, None)
        rows = np.concatenate([splits[split] for split in SPLITS])
        return cls(counts, digests, options, _name_marks(store)[rows], np.concatenate(marks))

    def to_dict(self) -> dict[str, Any]:
        """Return the record in plain types and tensors, as torch's safe loading accepts them."""
        return {
            "counts": list(self.counts),
            "digests": list(self.digests),
            "options": dict(self.options),
            "names": None if self.names is None else torch.from_numpy(self.names),
            "crystals": None if self.crystals is None else torch.from_numpy(self.crystals),
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> SplitRecord:
        """Return the record that `to_dict` gave."""
        names, crystals = state["names"], state["crystals"]
        return cls(
            tuple(state["counts"]),
            tuple(state["digests"]),
            state["options"],
            None if names is None else names.numpy(),
            None if crystals is None else crystals.numpy(),
        )

    @property
    def places(self) -> np.ndarray:
        """The place in `SPLITS` of the split of each crystal, (M,) int64."""
        return np.repeat(np.arange(len(SPLITS)), self.counts)


def what_changed(
    before: SplitRecord, now: SplitRecord, store: CrystalStore, splits: Mapping[str, np.ndarray]
) -> str | None:
    """Return how data differ from those of a record, one line, or None where they are the same.

    Args:
        before: the record of a checkpoint.
        now: the record of the data at hand.
        store: the data at hand, of which crystals are named.
        splits: their rows.
    """
    if before.digests == now.digests:
        return None
    told = [
        f"{split} has {count} crystals instead of {earlier}"
        for split, earlier, count in zip(SPLITS, before.counts, now.counts, strict=True)
        if count != earlier
    ]
    if before.names is not None and now.names is not None:
        rows = np.concatenate([splits[split] for split in SPLITS])
        told += list(_changes(before, now, store, rows))
    else:
        pairs = zip(SPLITS, before.digests, now.digests, strict=True)
        told.append(f"other crystals are in {', '.join(split for split, old, new in pairs if old != new)}")
    options = [
        _option(name, before.options.get(name), now.options.get(name))
        for name in {**before.options, **now.options}
        if before.options.get(name) != now.options.get(name)
    ]
    if options:
        told.append(f"these differ: {', '.join(options)}")
    return "; ".join(told)


def _option(name: str, before: Any, now: Any) -> str:
    """Return how an option changed; of digests, which nobody reads, the name."""
    if any(isinstance(value, str) and re.fullmatch(r"[0-9a-f]{32}", value) for value in (before, now)):
        return name
    return f"{name} ({before}, now {now})"


def _changes(before: SplitRecord, now: SplitRecord, store: CrystalStore, rows: np.ndarray) -> Iterator[str]:
    """Yield what became of the crystals: new, gone, changed, moved to another split, read in another order."""
    assert before.names is not None
    assert before.crystals is not None
    assert now.names is not None
    assert now.crystals is not None
    common, old, new = np.intersect1d(before.names, now.names, return_indices=True)
    added = np.flatnonzero(~np.isin(now.names, common))
    gone = len(before.names) - len(common)
    changed = new[before.crystals[old] != now.crystals[new]]
    splits = before.places[old], now.places[new]
    moved = new[splits[0] != splits[1]]
    into_train = int(((splits[0] > 0) & (splits[1] == 0)).sum())
    if len(added):
        yield f"{len(added)} new ({_named(store, rows[added])})"
    if gone:
        yield f"{gone} gone"
    if len(changed):
        yield f"{len(changed)} with other cells, sites or properties ({_named(store, rows[changed])})"
    if len(moved):
        yield f"{len(moved)} in another split, {into_train} of them from val or test to train"
    if not (len(added) or gone or len(changed) or len(moved)):
        yield "the same crystals in another order"


def _named(store: CrystalStore, rows: Sequence[int] | np.ndarray) -> str:
    """Return the names of the first of some rows."""
    wanted = sorted(int(row) for row in rows)[:_MOST_NAMED]
    texts = dict(zip(wanted, _texts_of(store, wanted), strict=True))
    more = ", ..." if len(rows) > _MOST_NAMED else ""
    return ", ".join(" ".join(part for part in texts[row] if part) for row in wanted) + more


def _texts_of(store: CrystalStore, rows: Sequence[int]) -> Iterator[tuple[str, str]]:
    """Yield file and entry of rows, ascending."""
    texts, passed = store.texts("file", "entry"), 0
    for row in rows:
        yield next(islice(texts, row - passed, None))
        passed = row + 1


def _crystal_marks(rows: np.ndarray, listed: Callable[[np.ndarray], CrystalBatch]) -> np.ndarray:
    """Return a mark of the arrays of each crystal, (M,) int64."""
    marks = np.zeros(len(rows), np.int64)
    for start in range(0, len(rows), _PART_ROWS):
        batch = listed(rows[start : start + _PART_ROWS])
        columns = (tensor.numpy() for tensor in batch.tensors().values())
        table = np.concatenate([column.reshape(len(batch), -1).view(np.uint8) for column in columns], axis=1)
        marks[start : start + len(batch)] = [_mark(row) for row in table]
    return marks


def _name_marks(store: CrystalStore) -> np.ndarray:
    """Return a mark of the name of each crystal of a store, told apart where names repeat, (M,) int64."""
    keys = numbered(entry_key(file, entry) for file, entry in store.texts("file", "entry"))
    return np.fromiter((_mark(f"{key}\n{number}".encode(errors="replace")) for key, number in keys), np.int64)


def _mark(data: Any) -> int:
    """Return 8 bytes of a digest, as a number."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True)
