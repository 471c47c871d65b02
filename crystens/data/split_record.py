"""A record of the crystals of each split in the checkpoint, so that no run is resumed on other data unnoticed.

Data are equal if each split holds the same crystals, bit by bit and in the same order. The kept properties are part of
a crystal. Names, paths and options do not matter, unless options change crystals or splits. With other data, test
crystals of the earlier run could be in train.

Names and options are recorded to report what changed. For up to `MOST_MARKED` crystals the record holds two marks for
each crystal: 8 bytes of a digest of its name, and 8 bytes of a digest of its arrays. For more crystals it holds one
digest for each split.
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
_MOST_NAMED = 3  # crystals named in a message, for each kind of change


class OtherData(CrystensError):
    """The data are not those that a checkpoint was trained on."""


@dataclass(frozen=True)
class SplitRecord:
    """Counts and digests of the crystals of each split.

    Attributes:
        counts: number of crystals of train, val and test.
        digests: digests of the crystals of train, val and test, in order.
        options: options that decide crystals and splits, by the name to report; plain values.
        names: marks of the names of all crystals, train first, then val and test, (M,) int64; None for more than
            `MOST_MARKED` crystals.
        crystals: marks of the arrays, (M,) int64, or None.
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
        """Return the record of a store; reads all of it, some 5 microseconds a crystal.

        Args:
            store: the crystals.
            splits: rows of train, val and test, int64.
            listed: function from rows to the batch of crystals or orbits, with the kept properties.
            options: options that decide crystals and splits, by the name to report.
        """
        marks = [_crystal_marks(splits[split], listed) for split in SPLITS]
        counts = tuple(len(part) for part in marks)
        digests = tuple(hashlib.blake2b(part.tobytes(), digest_size=16).hexdigest() for part in marks)
        if sum(counts) > MOST_MARKED:
            return cls(counts, digests, options, None, None)
        rows = np.concatenate([splits[split] for split in SPLITS])
        return cls(counts, digests, options, _name_marks(store)[rows], np.concatenate(marks))

    def to_dict(self) -> dict[str, Any]:
        """Return the record in plain types and tensors, which torch loads with `weights_only`."""
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
        """The index in `SPLITS` of each crystal's split, (M,) int64."""
        return np.repeat(np.arange(len(SPLITS)), self.counts)


def what_changed(
    before: SplitRecord, now: SplitRecord, store: CrystalStore, splits: Mapping[str, np.ndarray]
) -> str | None:
    """Return the differences between data and a record in one line, or None if they are equal.

    Args:
        before: the record in the checkpoint.
        now: the record of the present data.
        store: the present data, for names of crystals.
        splits: rows of the splits.
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
    """Return the change of an option; for digests, which mean nothing to a reader, the name alone."""
    if any(isinstance(value, str) and re.fullmatch(r"[0-9a-f]{32}", value) for value in (before, now)):
        return name
    return f"{name} ({before}, now {now})"


def _changes(before: SplitRecord, now: SplitRecord, store: CrystalStore, rows: np.ndarray) -> Iterator[str]:
    """Yield the changes of crystals: new, missing, changed, moved to another split, in another order."""
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
    """Return the names of the first few rows."""
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
    """Return a mark of the name of each crystal of a store, distinct where names repeat, (M,) int64."""
    keys = numbered(entry_key(file, entry) for file, entry in store.texts("file", "entry"))
    return np.fromiter((_mark(f"{key}\n{number}".encode(errors="replace")) for key, number in keys), np.int64)


def _mark(data: Any) -> int:
    """Return 8 bytes of a digest, as a number."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True)
