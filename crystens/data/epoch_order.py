"""The order of training: a function of seed and epoch only, and for each rank of a distributed run a part of its own.

- "shuffled": every epoch a new random order of all crystals.
- "blocks": for a store that does not fit into memory. Crystals lie in blocks of a file. The blocks are put into a new
  random order every epoch, the row of all crystals is cut into as many equal pieces as there are ranks, and each rank
  shuffles its piece within a window that slides over it. A rank reads a part of the file, forward, and holds a window.

In both no crystal comes twice in an epoch, on any rank. Those left over when crystals are divided by ranks are left
out, other ones each epoch.
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

    A subclass of DistributedSampler, because Lightning calls `set_epoch` of such a one and leaves it in place.

    Args:
        dataset: the crystals, M of them.
        sizes: number of consecutive crystals in each block; their sum is M.
        ranks: number of ranks.
        rank: which one this is.
        seed: of the order.
        window: crystals that are shuffled together.
    """

    def __init__(
        self, dataset: Dataset, sizes: Sequence[int], ranks: int, rank: int, seed: int, window: int = 2**18
    ) -> None:
        """Keep where the blocks begin."""
        super().__init__(dataset, ranks, rank, shuffle=True, seed=seed, drop_last=True)
        self.sizes = np.array(sizes, dtype=np.int64)
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.window = window

    def __len__(self) -> int:
        """Return the number of crystals of this rank."""
        return int(self.sizes.sum()) // self.num_replicas

    def __iter__(self) -> Iterator[int]:
        """Yield the positions of this rank's crystals in the order of the epoch."""
        # The order of the blocks is the same on all ranks, that inside of a window is not.
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
                    # Half goes out and half stays, so that crystals of neighbouring blocks mix.
                    mixed = inside.permutation(np.concatenate(window))
                    yield from mixed[: filled // 2].tolist()
                    window, filled = [mixed[filled // 2 :]], filled - filled // 2
        if window:
            yield from inside.permutation(np.concatenate(window)).tolist()

    def _pieces(self, blocks: np.ndarray, first: int, last: int) -> Iterator[np.ndarray]:
        """Yield the positions first to last of the row of all blocks, block by block."""
        passed = 0
        for block in blocks:
            size = int(self.sizes[block])
            low, high = max(first - passed, 0), min(last - passed, size)
            if low < high:
                yield np.arange(self.starts[block] + low, self.starts[block] + high)
            passed += size
