"""The order of training, a function of seed and epoch only; each rank of a distributed run gets a different part.

- "shuffled": a new random order of all crystals in every epoch.
- "blocks": for a store that does not fit into memory. In every epoch the blocks of the file get a new random order, the
  resulting sequence of crystals is cut into one piece for each rank, all of equal length, and each rank shuffles its
  piece within a sliding window. A rank reads only a part of the file, and holds only a window in memory.

In both orders no crystal occurs twice in an epoch, on any rank. If the number of crystals is no multiple of the number
of ranks, the remainder is left out, other crystals in each epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

ORDERS = ("shuffled", "blocks")


def shuffled(dataset: Dataset, ranks: int, rank: int, seed: int) -> DistributedSampler:
    """Return the order "shuffled" of a data set for one of the ranks."""
    return DistributedSampler(dataset, ranks, rank, shuffle=True, seed=seed, drop_last=True)


class BlockOrder(DistributedSampler):
    """The order "blocks".

    A subclass of DistributedSampler, because Lightning calls its `set_epoch` and does not replace it.

    Args:
        dataset: the crystals, M of them.
        sizes: number of consecutive crystals in each block; their sum is M.
        ranks: number of ranks.
        rank: index of this rank.
        seed: seed of the order.
        window: number of crystals that are shuffled together.
    """

    def __init__(
        self, dataset: Dataset, sizes: Sequence[int], ranks: int, rank: int, seed: int, window: int = 2**18
    ) -> None:
        """Store the start of each block."""
        super().__init__(dataset, ranks, rank, shuffle=True, seed=seed, drop_last=True)
        self.sizes = np.array(sizes, dtype=np.int64)
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.window = window

    def __len__(self) -> int:
        """Return the number of crystals of this rank."""
        return int(self.sizes.sum()) // self.num_replicas

    def __iter__(self) -> Iterator[int]:
        """Yield the positions of this rank's crystals in the order of the epoch."""
        # The order of blocks is the same on all ranks; the order within windows is not.
        blocks = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.sizes))
        inside = np.random.default_rng((self.seed, self.epoch, self.rank))
        first = self.rank * len(self)
        window: list[np.ndarray] = []
        filled = 0
        for piece in self._pieces(blocks, first, first + len(self)):
            for start in range(0, len(piece), self.window):
                window.append(piece[start : start + self.window])
                filled += len(window[-1])
                if filled >= self.window:
                    # Half of the window is yielded and half stays, so that crystals of neighbouring blocks mix.
                    mixed = inside.permutation(np.concatenate(window))
                    yield from mixed[: filled // 2].tolist()
                    window, filled = [mixed[filled // 2 :]], filled - filled // 2
        if window:
            yield from inside.permutation(np.concatenate(window)).tolist()

    def _pieces(self, blocks: np.ndarray, first: int, last: int) -> Iterator[np.ndarray]:
        """Yield positions `first` to `last` of the sequence of all blocks, block by block."""
        passed = 0
        for block in blocks:
            size = int(self.sizes[block])
            low, high = max(first - passed, 0), min(last - passed, size)
            if low < high:
                yield np.arange(self.starts[block] + low, self.starts[block] + high)
            passed += size
