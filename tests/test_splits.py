"""Splits: given ones are kept, drawn ones repeat, groups are never divided."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from crystens.crystal import Crystal
from crystens.data.datamodule import CrysTensDataModule
from crystens.data.splits import entry_key, split_indices
from crystens.errors import CrystensError
from crystens.formats.extxyz import ExtendedXyz
from crystens.ingest.ingest import IngestOptions
from crystens.scaling import Scaling
from crystens.sources.record import Entry

THIRDS = (0.9, 0.05, 0.05)


def _entries(count: int, splits: tuple[str | None, ...] = (None,)) -> list[Entry]:
    """Return entries that differ in their names."""
    crystal = Crystal([4.0] * 3, [90] * 3, 221, [1], np.zeros((1, 3)))
    return [Entry("f", str(k), crystal, splits[k % len(splits)]) for k in range(count)]


def _split(
    entries: list[Entry], kind: str, fractions: tuple[float, ...], seed: int, groups: np.ndarray | None = None
) -> dict[str, list[Entry]]:
    """Return the entries of each split."""
    keys = [entry_key(entry.file, entry.entry) for entry in entries]
    splits = split_indices(keys, [entry.split for entry in entries], kind, fractions, seed, groups)
    return {split: [entries[k] for k in places] for split, places in splits.items()}


def _names(splits: dict[str, list[Entry]]) -> dict[str, list[str]]:
    return {split: [entry.entry for entry in entries] for split, entries in splits.items()}


def test_drawn_split_has_its_shares_and_uses_every_entry_once():
    names = _names(_split(_entries(200), "auto", THIRDS, 0))
    assert {split: len(members) for split, members in names.items()} == {"train": 180, "val": 10, "test": 10}
    assert sorted((name for members in names.values() for name in members), key=int) == [str(k) for k in range(200)]


def test_drawn_split_repeats_and_depends_on_its_seed():
    first, again, other = (_names(_split(_entries(200), "random", THIRDS, seed)) for seed in (1, 1, 2))
    assert first == again
    assert first["val"] != other["val"]


def test_drawn_split_is_the_same_on_every_machine():
    assert _names(_split(_entries(20), "random", (0.8, 0.1, 0.1), 0))["val"] == ["6", "9"]


def test_drawn_split_does_not_depend_on_the_order_of_reading():
    entries = _entries(200)
    forward, backward = (_split(order, "random", THIRDS, 0) for order in (entries, entries[::-1]))
    assert set(_names(forward)["val"]) == set(_names(backward)["val"])


def _drawn(keys: list[str], kind: str, seed: int, groups: list[int] | None = None) -> dict[str, list[int]]:
    labels = None if groups is None else np.array(groups)
    splits = split_indices(keys, [None] * len(keys), kind, (0.8, 0.1, 0.1), seed, labels)
    return {split: places.tolist() for split, places in splits.items()}


@pytest.mark.parametrize("kind", ["random", "structure"])
def test_entries_of_one_name_are_drawn_from_the_whole_file_by_the_seed(kind):
    held_out = []
    for seed in range(50):
        splits = _drawn(["f\nCsCl"] * 40, kind, seed, list(range(40)))
        assert [len(places) for places in splits.values()] == [32, 4, 4]
        held_out += splits["val"] + splits["test"]
    # 400 draws of 40 places: each is drawn 10 times on average, by chance no more than 24 times.
    assert set(held_out) == set(range(40))
    assert max(held_out.count(place) for place in range(40)) <= 24


@pytest.mark.parametrize("kind", ["random", "structure"])
def test_entries_with_a_repeated_name_do_not_move_the_others(kind):
    distinct = [f"f\n{k}" for k in range(100)]
    held_out = []
    for keys in (distinct, [*distinct, *["f\n3"] * 5]):
        splits = _drawn(keys, kind, 0, list(range(len(keys))))
        held_out.append({k for split in ("val", "test") for k in splits[split]})
    assert [len(places) for places in held_out] == [20, 20]
    # Those of the 5 that are drawn push as many out, and nothing else changes.
    assert {k for k in held_out[1] if k < 100} < held_out[0]


def test_forty_frames_of_one_name_are_split_at_random(shared_data):
    case = shared_data / "cases" / "13-repeated-names-split"
    drawn = []
    for split_seed in (0, 1):
        source = ExtendedXyz(case / "frames.extxyz")
        options = {"split": "random", "split_seed": split_seed, "ingest": IngestOptions(workers=0)}
        module = CrysTensDataModule(source, 4, Scaling.fit, **options)
        held_out = [module.val_crystals, module.test_crystals]
        assert [len(crystals) for crystals in held_out] == [2, 2]
        # Frame k has a cell of 4 + k / 50 angstrom.
        places = sorted(round((length - 4) * 50) for crystals in held_out for length in crystals.lengths[:, 0].tolist())
        assert places[-1] - places[0] > 8, "frames of one name are drawn one after the other"
        drawn.append(places)
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize(("count", "sizes"), [(1, [1, 0, 0]), (2, [1, 0, 1]), (3, [1, 1, 1]), (10, [8, 1, 1])])
def test_few_entries_leave_one_for_training(count, sizes):
    splits = _split(_entries(count), "random", THIRDS, 0)
    assert [len(splits[name]) for name in ("train", "val", "test")] == sizes


def test_share_of_zero_gets_nothing():
    splits = _split(_entries(50), "random", (1.0, 0.0, 0.0), 0)
    assert [len(splits[name]) for name in ("train", "val", "test")] == [50, 0, 0]


def test_given_split_is_kept_unless_a_random_one_is_asked_for():
    entries = _entries(20, ("train", "test"))
    assert _names(_split(entries, "auto", THIRDS, 0))["test"] == [str(k) for k in range(1, 20, 2)]
    assert len(_split(entries, "random", THIRDS, 0)["train"]) == 18


@pytest.mark.parametrize(
    ("kind", "fractions", "message"),
    [
        ("sorted", THIRDS, "data.split=sorted is not known; use one of auto, given, random"),
        ("given", THIRDS, "this source gives no splits"),
        ("random", (0.9, 0.2, 0.05), "split_fractions"),
        ("random", (0.0, 0.5, 0.5), "split_fractions"),
        ("random", (1.0,), "split_fractions"),
    ],
)
def test_option_out_of_range_is_an_error(kind, fractions, message):
    with pytest.raises(CrystensError, match=message):
        _split(_entries(10), kind, fractions, 0)


def test_given_split_without_training_data_is_an_error():
    with pytest.raises(CrystensError, match="no training data"):
        _split(_entries(10, ("val",)), "auto", THIRDS, 0)


# Groups


def _indices(groups: list[int], kind: str = "structure", fractions=THIRDS, seed: int = 0) -> dict[str, list[int]]:
    keys = [f"f\n{k}" for k in range(len(groups))]
    splits = split_indices(keys, [None] * len(groups), kind, fractions, seed, np.array(groups))
    return {split: places.tolist() for split, places in splits.items()}


@settings(deadline=None, max_examples=200)
@given(
    groups=st.lists(st.integers(0, 30), min_size=1, max_size=120),
    fractions=st.sampled_from([THIRDS, (0.8, 0.1, 0.1), (0.4, 0.3, 0.3), (0.5, 0.5, 0.0), (0.9, 0.0, 0.1)]),
    seed=st.integers(0, 5),
)
def test_no_group_is_in_two_splits_and_every_entry_is_in_one(groups, fractions, seed):
    try:
        splits = _indices(groups, fractions=fractions, seed=seed)
    except CrystensError as error:
        assert "too few" in str(error)  # noqa: PT017  (hypothesis draws both cases)
        assert len(set(groups)) <= 2
        return
    assert sorted(k for places in splits.values() for k in places) == list(range(len(groups)))
    members = {split: {groups[k] for k in places} for split, places in splits.items()}
    assert not members["train"] & members["val"]
    assert not members["train"] & members["test"]
    assert not members["val"] & members["test"]
    assert members["train"]
    if len(groups) > 2:
        assert all(splits[split] for split, share in zip(splits, fractions, strict=True) if share)


@settings(deadline=None, max_examples=100)
@given(groups=st.lists(st.integers(0, 200), min_size=60, max_size=200), seed=st.integers(0, 5))
def test_sizes_miss_their_shares_by_less_than_the_smallest_group_left_in_train(groups, seed):
    assume(len(set(groups)) > 2)
    splits = _indices(groups, fractions=(0.6, 0.2, 0.2), seed=seed)
    counts = Counter(groups)
    smallest = min(counts[groups[k]] for k in splits["train"])
    for split in ("val", "test"):
        assert abs(len(splits[split]) - round(0.2 * len(groups))) < smallest


@pytest.mark.parametrize("kind", ["formula", "structure"])
def test_groups_of_one_are_split_as_at_random(kind):
    entries = _entries(200)
    grouped = _split(entries, kind, THIRDS, 3, np.arange(200))
    assert _names(grouped) == _names(_split(entries, "random", THIRDS, 3))


def test_grouped_split_repeats_and_depends_on_its_seed():
    groups = [k // 3 for k in range(300)]
    assert _indices(groups, seed=1) == _indices(groups, seed=1)
    assert _indices(groups, seed=1)["val"] != _indices(groups, seed=2)["val"]


def test_grouped_split_depends_neither_on_the_order_of_reading_nor_on_the_labels():
    entries, groups = _entries(300), np.arange(300) // 4
    forward = _split(entries, "structure", THIRDS, 0, groups)
    backward = _split(entries[::-1], "structure", THIRDS, 0, 1000 - groups[::-1])
    assert {split: set(names) for split, names in _names(forward).items()} == {
        split: set(names) for split, names in _names(backward).items()
    }


def test_large_groups_are_not_drawn_into_val_more_often_than_small_ones():
    # One group of 40 among 560 single entries, val of 60: by chance it comes early enough in some 60 - 40 of 560 draws.
    groups = [0] * 40 + list(range(1, 561))
    taken = sum(0 in _indices(groups, fractions=(0.9, 0.1, 0.0), seed=seed)["val"] for seed in range(200))
    assert taken <= 20


def test_giant_group_goes_to_train_and_leaves_the_others_their_shares():
    splits = _indices([0] * 700 + list(range(1, 301)))
    assert set(range(700)) <= set(splits["train"])
    assert [len(splits[split]) for split in ("train", "val", "test")] == [900, 50, 50]


def test_group_larger_than_a_share_is_taken_when_it_comes_nearer():
    # 100 entries, shares of 5: groups of 9 miss it by 4, an empty split by 5. Groups of 20 are taken as the only ones.
    assert [len(places) for places in _indices([k // 9 for k in range(99)]).values()] == [81, 9, 9]
    assert [len(places) for places in _indices([k // 20 for k in range(100)]).values()] == [60, 20, 20]


def test_split_that_would_be_empty_takes_from_the_other_where_train_has_one_group():
    splits = _indices([0, 1] + [2] * 8, fractions=(0.6, 0.2, 0.2))
    assert [len(splits[split]) for split in ("train", "val", "test")] == [8, 1, 1]


def test_single_formula_cannot_be_split_by_formula():
    groups = np.zeros(50, dtype=np.int64)
    with pytest.raises(CrystensError, match=r"50 entries form 1 group.*formula.*data\.split=structure or random"):
        _indices(groups.tolist(), "formula")


@pytest.mark.parametrize("kind", ["formula", "structure"])
def test_grouped_split_without_groups_is_an_error(kind):
    with pytest.raises(CrystensError, match=f"data.split={kind} needs the group of each entry"):
        _split(_entries(10), kind, THIRDS, 0)


def test_grouped_split_replaces_a_given_one():
    entries = _entries(40, ("train", "test"))
    assert len(_split(entries, "formula", THIRDS, 0, np.arange(40))["train"]) == 36


def test_split_of_indices_is_that_of_entries():
    entries = _entries(50)
    keys = [entry_key(entry.file, entry.entry) for entry in entries]
    places = split_indices(keys, [None] * 50, "auto", THIRDS, 0)
    assert [str(k) for k in places["test"]] == _names(_split(entries, "auto", THIRDS, 0))["test"]
