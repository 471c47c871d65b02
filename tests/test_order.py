"""The order of training: nothing twice, nothing left out but what does not divide, a function of seed and epoch."""

from __future__ import annotations

import numpy as np
import pytest
from torch.utils.data import Dataset

from crystens.data.epoch_order import BlockOrder, shuffled


class Numbers(Dataset):
    """A data set of a given size."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        return index


SIZES = [100, 7, 64, 1, 250, 80]
TOTAL = sum(SIZES)


def _blocks(ranks: int = 1, rank: int = 0, epoch: int = 0, seed: int = 0, window: int = 60) -> list[int]:
    order = BlockOrder(Numbers(TOTAL), SIZES, ranks, rank, seed, window)
    order.set_epoch(epoch)
    positions = list(order)
    assert len(positions) == len(order)
    return positions


def _shuffled(ranks: int = 1, rank: int = 0, epoch: int = 0, seed: int = 0) -> list[int]:
    order = shuffled(Numbers(TOTAL), ranks, rank, seed)
    order.set_epoch(epoch)
    return list(order)


@pytest.mark.parametrize("order", [_blocks, _shuffled])
@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_ranks_share_an_epoch_without_repeating(order, ranks):
    parts = [order(ranks, rank, epoch=3) for rank in range(ranks)]
    assert {len(part) for part in parts} == {TOTAL // ranks}
    everything = [position for part in parts for position in part]
    assert len(set(everything)) == len(everything)
    assert set(everything) <= set(range(TOTAL))


@pytest.mark.parametrize("order", [_blocks, _shuffled])
def test_order_depends_on_seed_and_epoch_only(order):
    assert order(epoch=1) == order(epoch=1)
    assert order(epoch=1) != order(epoch=2)
    assert order(epoch=1) != order(epoch=1, seed=5)


def test_every_crystal_comes_in_some_epoch_where_ranks_do_not_divide():
    seen = {position for epoch in range(10) for rank in range(4) for position in _blocks(4, rank, epoch)}
    assert seen == set(range(TOTAL))


def test_a_rank_reads_few_blocks_one_after_the_other():
    order = BlockOrder(Numbers(10_000), [100] * 100, 4, 1, seed=0, window=500)
    blocks = np.array(list(order)) // 100
    assert len(np.unique(blocks)) <= 26
    first = [int(np.flatnonzero(blocks == block)[0]) for block in np.unique(blocks)]
    last = [int(np.flatnonzero(blocks == block)[-1]) for block in np.unique(blocks)]
    # Half of a window stays behind, of that a half again: rows drift by a few windows and not by the whole part.
    assert np.median(np.array(last) - np.array(first)) < 1500


def test_window_mixes_neighbouring_blocks():
    order = BlockOrder(Numbers(10_000), [100] * 100, 1, 0, seed=0, window=1000)
    blocks = np.array(list(order)) // 100
    assert np.mean([len(np.unique(blocks[start : start + 100])) for start in range(0, 10_000, 100)]) > 8


def test_window_smaller_than_a_block_takes_the_block_in_pieces():
    assert sorted(_blocks(window=3)) == list(range(TOTAL))
