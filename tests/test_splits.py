"""Splits: given ones are kept, drawn ones repeat."""

from __future__ import annotations

import numpy as np
import pytest

from crystens.crystal import Crystal
from crystens.data.entries import Entry
from crystens.data.splits import split_entries
from crystens.errors import CrystensError

THIRDS = (0.9, 0.05, 0.05)


def _entries(count: int, splits: tuple[str | None, ...] = (None,)) -> list[Entry]:
    """Return entries that differ in their names."""
    crystal = Crystal([4.0] * 3, [90] * 3, 221, [1], np.zeros((1, 3)))
    return [Entry("f", str(k), crystal, splits[k % len(splits)]) for k in range(count)]


def _names(splits: dict[str, list[Entry]]) -> dict[str, list[str]]:
    return {split: [entry.entry for entry in entries] for split, entries in splits.items()}


def test_drawn_split_has_its_shares_and_uses_every_entry_once():
    names = _names(split_entries(_entries(200), "auto", THIRDS, 0))
    assert {split: len(members) for split, members in names.items()} == {"train": 180, "val": 10, "test": 10}
    assert sorted((name for members in names.values() for name in members), key=int) == [str(k) for k in range(200)]


def test_drawn_split_repeats_and_depends_on_its_seed():
    first, again, other = (_names(split_entries(_entries(200), "random", THIRDS, seed)) for seed in (1, 1, 2))
    assert first == again
    assert first["val"] != other["val"]


def test_drawn_split_is_the_same_on_every_machine():
    assert _names(split_entries(_entries(20), "random", (0.8, 0.1, 0.1), 0))["val"] == ["6", "9"]


def test_drawn_split_does_not_depend_on_the_order_of_reading():
    entries = _entries(200)
    forward, backward = (split_entries(order, "random", THIRDS, 0) for order in (entries, entries[::-1]))
    assert set(_names(forward)["val"]) == set(_names(backward)["val"])


@pytest.mark.parametrize(("count", "sizes"), [(1, [1, 0, 0]), (2, [1, 0, 1]), (3, [1, 1, 1]), (10, [8, 1, 1])])
def test_few_entries_leave_one_for_training(count, sizes):
    splits = split_entries(_entries(count), "random", THIRDS, 0)
    assert [len(splits[name]) for name in ("train", "val", "test")] == sizes


def test_share_of_zero_gets_nothing():
    splits = split_entries(_entries(50), "random", (1.0, 0.0, 0.0), 0)
    assert [len(splits[name]) for name in ("train", "val", "test")] == [50, 0, 0]


def test_given_split_is_kept_unless_a_random_one_is_asked_for():
    entries = _entries(20, ("train", "test"))
    assert _names(split_entries(entries, "auto", THIRDS, 0))["test"] == [str(k) for k in range(1, 20, 2)]
    assert len(split_entries(entries, "random", THIRDS, 0)["train"]) == 18


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
        split_entries(_entries(10), kind, fractions, 0)


def test_given_split_without_training_data_is_an_error():
    with pytest.raises(CrystensError, match="no training data"):
        split_entries(_entries(10, ("val",)), "auto", THIRDS, 0)
