"""Training, validation and test sets: given by the source, or drawn with a separate seed.

A drawn split orders entries by a hash of seed, file and entry. It is the same on every machine and with all versions of
libraries. It does not depend on the order of reading, and shares no random generator with training.

Names need not be distinct: all frames of a file may be called CsCl. From the second entry of a name on, the hash
includes the number of earlier entries with that name. So only the draw among entries of the same name depends on the
order of reading.

A split by formula or by structure draws whole groups, so that no formula, or no crystal, is in two splits. A group
hashes as its first member by name (of equal names, the first read). The minimum hash of all members would favour large
groups for val. In the order of hashes, each group goes to val if it still fits, else to test if it fits, else to train.
If val or test stays short, the smallest group of train is moved there if this brings the split nearer to its share, or
if the split would be empty. Groups of one entry each give the random split.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from crystens.errors import CrystensError
from crystens.sources.record import SPLITS

GROUPED_KINDS = ("formula", "structure")
KINDS = ("auto", "given", "random", *GROUPED_KINDS)


def split_indices(
    keys: Sequence[str],
    given: Sequence[str | None],
    kind: str,
    fractions: Sequence[float],
    seed: int,
    groups: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Return the positions of the entries of train, val and test, each ascending, int64.

    Args:
        keys: names of the M entries (`entry_key`), in the order of reading.
        given: the split of each entry, "train", "val" or "test", or None if the source gives none.
        kind: "given" takes the splits of the source; "random" draws them; "auto" is "given" if the source gives splits,
            else "random"; "formula" and "structure" draw whole groups.
        fractions: shares of train, val and test in a drawn split; they sum to 1. A share above 0 gets at least one
            entry, as long as train keeps one.
        seed: seed of the draw.
        groups: label of the group of each entry, (M,), any integers, see `crystens.data.split_groups`; needed by
            "formula" and "structure", not used by the others.

    Raises:
        CrystensError: if an option is out of range, a given split or the groups are missing, train would be empty, or
            there are too few groups for the splits.
    """
    if kind not in KINDS:
        raise CrystensError(f"data.split={kind} is not known; use one of {', '.join(KINDS)}")
    if kind == "given" and not any(given):
        raise CrystensError("data.split=given, but this source gives no splits; use data.split=random")
    if kind in GROUPED_KINDS and groups is None:
        raise CrystensError(f"data.split={kind} needs the group of each entry, and got none; give groups")
    if kind in ("auto", "given") and any(given):
        assigned = list(given)
    else:
        sizes = _sizes(len(keys), fractions)
        if kind in GROUPED_KINDS:
            assert groups is not None
            assigned = _drawn_groups(keys, seed, sizes, groups, kind)
        else:
            assigned = _drawn(keys, seed, sizes)
    splits = {split: np.array([k for k, name in enumerate(assigned) if name == split], np.int64) for split in SPLITS}
    if not len(splits["train"]):
        raise CrystensError(f"no training data: all {len(keys)} usable entries belong to val or test")
    return splits


def entry_key(file: str, entry: str) -> str:
    """Return the name of an entry in its source; several entries may have one name."""
    return f"{file}\n{entry}"


def numbered(keys: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Yield each key with the number of equal keys before it; the pairs are distinct."""
    before: Counter[str] = Counter()
    for key in keys:
        yield key, before[key]
        before[key] += 1


def _sizes(count: int, fractions: Sequence[float]) -> dict[str, int]:
    """Return the numbers of val and test entries among `count`."""
    if len(fractions) != 3 or min(fractions) < 0 or fractions[0] <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise CrystensError(
            f"data.split_fractions={list(fractions)}: give three shares (train, val, test) of at least 0 that sum "
            "to 1, train above 0"
        )
    sizes = [max(round(share * count), 1) if share else 0 for share in fractions[1:]]
    while sum(sizes) >= count and any(sizes):
        sizes[sizes.index(max(sizes))] -= 1
    return {"val": sizes[0], "test": sizes[1]}


def _drawn(keys: Sequence[str], seed: int, sizes: dict[str, int]) -> list[str | None]:
    """Return the split of each entry: the first ones by hash are val, the next are test."""
    hashes = [_hash(name, seed) for name in numbered(keys)]
    names = ["val"] * sizes["val"] + ["test"] * sizes["test"]
    assigned: list[str | None] = ["train"] * len(hashes)
    for place, name in zip(sorted(range(len(hashes)), key=lambda k: (hashes[k], k)), names, strict=False):
        assigned[place] = name
    return assigned


def _drawn_groups(
    keys: Sequence[str], seed: int, sizes: dict[str, int], groups: np.ndarray, kind: str
) -> list[str | None]:
    """Return the split of each entry, with groups kept whole; the rule is in the module's docstring."""
    names = list(numbered(keys))
    members: dict[int, list[int]] = {}
    for place, (_, label) in enumerate(zip(names, groups.tolist(), strict=True)):
        members.setdefault(label, []).append(place)
    wanted = {name: size for name, size in sizes.items() if size}
    if len(members) <= len(wanted):
        raise CrystensError(
            f"data.split={kind}: the {len(keys)} entries form {len(members)} group(s) of the same {kind}, too few "
            f"for train, {' and '.join(wanted)}, because no group is divided; use data.split="
            f"{'structure or random' if kind == 'formula' else 'random'}"
        )
    chosen: dict[str, list[list[int]]] = {name: [] for name in SPLITS}
    room = dict(sizes)
    for group in sorted(members.values(), key=lambda places: _hash(min(names[k] for k in places), seed)):
        name = next((name for name in ("val", "test") if len(group) <= room[name]), "train")
        chosen[name].append(group)
        if name != "train":
            room[name] -= len(group)
    for name in wanted:
        # A split that would be empty takes a group from the other split if train has only one.
        donors = ("train",) if chosen[name] else ("train", "test", "val")
        donor = next((donor for donor in donors if len(chosen[donor]) > 1), None)
        if donor is None:
            continue
        smallest = min(chosen[donor], key=len)
        if not chosen[name] or len(smallest) < 2 * room[name]:
            chosen[donor].remove(smallest)
            chosen[name].append(smallest)
    assigned: list[str | None] = [None] * len(keys)
    for name, whole in chosen.items():
        for place in itertools.chain.from_iterable(whole):
            assigned[place] = name
    return assigned


def _hash(name: tuple[str, int], seed: int) -> bytes:
    """Return the sort key of a drawn split; for the first entry of a name (number 0) a hash of seed and name alone."""
    key, number = name
    text = f"{seed}\n{key}" if number == 0 else f"{seed}\n{key}\n{number}"
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=16).digest()
