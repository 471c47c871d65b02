"""The one LightningDataModule: crystals at rest as compact arrays, images made batch by batch on the training device.

A training batch leaves the loader as a `CrystalBatch` (some 700 bytes a crystal), is moved to the device, and becomes
images (B, 4, S, S) float32, S = 12 + max_sites, scaled to [0, 1]. Its shape is the same for every batch of a run, as
XLA wants it: the last, incomplete batch of an epoch is dropped.

The order of training is a function of seed and epoch only, so that a run that is resumed at the start of an epoch sees
the batches that an uninterrupted one would have seen. Each rank of a distributed run gets its own part of it.

What a model needs to be understood again travels in its checkpoint: the numbers of the scaling, `max_sites` and the
distance of the pair block. Numbers from a checkpoint win over numbers fitted to the data at hand.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from crystens.crystal import CrystalBatch
from crystens.data.entries import SPLITS, Reject
from crystens.data.limits import Limits
from crystens.data.sources import Source, read_all
from crystens.data.splits import split_entries
from crystens.encoding import check_distance, image_side
from crystens.errors import CrystensError
from crystens.metrics.distributions import Reference
from crystens.scaling import Scaling

log = logging.getLogger(__name__)


class CrysTensDataModule(pl.LightningDataModule):
    """Crystals of one source, split, scaled and encoded.

    Args:
        source: where crystals come from.
        max_sites: site slots N of the image, 1-255; larger crystals are set aside.
        scaling: makes the scaling: called once, in `setup`, with the training crystals and `distance`; `Scaling.fit`
            and `Scaling.paper` are such functions.
        distance: distance of the pair block, "fractional" or "cartesian".
        batch_size: crystals in a training batch; lowered, with a line in the log, to the size of a smaller training
            split.
        split: "auto", "given" or "random", see `crystens.data.splits`.
        split_seed: seed of a random split, independent of the seed of the training.
        split_fractions: shares of train, val and test in a random split.
        seed: seed of the order of training.
        num_workers: processes that assemble batches; 0 is fastest for all but the largest data sets, because a batch
            is a slice of arrays.
        limits: further bounds on what is usable; its `max_sites` is replaced.
        rejected_path: where to write `rejected.csv`; None writes none.
        path: not used: it makes `data.path=PATH` a key of the configuration, where the source takes it from.

    Raises:
        CrystensError: if an option is out of range.

    Attributes:
        scaling: the scaling, once `setup` or `load_state_dict` ran.
        rejects: what was set aside, once `setup` ran.
    """

    def __init__(
        self,
        source: Source,
        max_sites: int,
        scaling: Callable[..., Scaling],
        distance: str = "fractional",
        batch_size: int = 64,
        split: str = "auto",
        split_seed: int = 0,
        split_fractions: Sequence[float] = (0.9, 0.05, 0.05),
        seed: int = 0,
        num_workers: int = 0,
        limits: Limits | None = None,
        rejected_path: str | Path | None = None,
        path: str | Path | None = None,
    ) -> None:
        """Check the options; nothing is read before `setup`."""
        super().__init__()
        check_distance(distance)
        if not 1 <= max_sites <= 255:
            raise CrystensError(f"max_sites must be 1-255, got {max_sites}")
        if batch_size < 1:
            raise CrystensError(f"data.batch_size must be at least 1, got {batch_size}")
        if num_workers < 0:
            raise CrystensError(f"data.num_workers must be at least 0, got {num_workers}")
        self.source = source
        self.max_sites = max_sites
        self.distance = distance
        self.batch_size = batch_size
        self.split = split
        self.split_seed = split_seed
        self.split_fractions = split_fractions
        self.seed = seed
        self.num_workers = num_workers
        self.limits = replace(limits or Limits(), max_sites=max_sites)
        self.rejected_path = rejected_path
        self.scaling: Scaling | None = None
        self.rejects: list[Reject] = []
        self._reference: Reference | None = None
        self._make_scaling = scaling
        self._crystals: dict[str, CrystalBatch] = {}

    @property
    def image_side(self) -> int:
        """The side S of the images."""
        return image_side(self.max_sites)

    @property
    def train_crystals(self) -> CrystalBatch:
        """The training crystals, sites in canonical order."""
        return self._split_crystals("train")

    @property
    def val_crystals(self) -> CrystalBatch:
        """The validation crystals, sites in canonical order; there may be none."""
        return self._split_crystals("val")

    @property
    def test_crystals(self) -> CrystalBatch:
        """The test crystals, sites in canonical order; there may be none."""
        return self._split_crystals("test")

    @property
    def reference(self) -> Reference:
        """The distributions of the training crystals, which samples are compared with."""
        if self._reference is None:
            self._reference = Reference.from_crystals(self.train_crystals, str(self.source))
        return self._reference

    def _split_crystals(self, split: str) -> CrystalBatch:
        """Return the crystals of a split."""
        self.setup()
        return self._crystals[split]

    def setup(self, stage: str | None = None) -> None:
        """Read, split and scale the data, once.

        Raises:
            CrystensError: if the source cannot be read or holds nothing usable.
        """
        if self._crystals:
            return
        writes = self.trainer is None or self.trainer.is_global_zero
        entries, self.rejects = read_all(self.source, self.limits, self.rejected_path if writes else None)
        splits = split_entries(entries, self.split, self.split_fractions, self.split_seed)
        self._crystals = {
            split: CrystalBatch.from_crystals(
                [entry.crystal for entry in splits[split]], self.max_sites
            ).in_canonical_order()
            for split in SPLITS
        }
        log.info("crystals: %s", ", ".join(f"{len(self._crystals[split])} {split}" for split in SPLITS))
        if self.scaling is None:
            self.scaling = self._make_scaling(self._crystals["train"], distance=self.distance)

    def train_dataloader(self) -> DataLoader:
        """Return the loader of training batches, in an order of its own for every epoch."""
        dataset = _Crystals(self.train_crystals)
        ranks, rank = (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)
        if len(dataset) < ranks:
            raise CrystensError(f"{len(dataset)} training crystals for {ranks} devices; use fewer devices")
        batch_size = min(self.batch_size, len(dataset) // ranks)
        if batch_size < self.batch_size:
            log.info(
                "batch size %d instead of %d: the training split has %d crystals",
                batch_size,
                self.batch_size,
                len(dataset),
            )
        # Lightning calls set_epoch of this sampler and leaves it in place in distributed runs.
        order: DistributedSampler = DistributedSampler(
            dataset, ranks, rank, shuffle=True, seed=self.seed, drop_last=True
        )
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=order,
            drop_last=True,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=_as_it_is,
            # Of its own, so that making the loader's iterator draws nothing from the global one, which resume restores.
            generator=torch.Generator(),
        )

    def on_after_batch_transfer(self, batch: CrystalBatch, dataloader_idx: int = 0) -> Tensor:
        """Return the images of a batch, on its device: (B, 4, S, S) float32, scaled."""
        return self.encode(batch)

    def encode(self, crystals: CrystalBatch) -> Tensor:
        """Return scaled images (B, 4, S, S) float32 of crystals, on their device."""
        if self.scaling is None:
            self.setup()
        assert self.scaling is not None
        self.scaling.to(crystals.lengths.device)
        return self.scaling.encode(crystals, self.distance)

    def state_dict(self) -> dict[str, Any]:
        """Return what travels in a checkpoint."""
        return {
            "max_sites": self.max_sites,
            "distance": self.distance,
            "scaling": None if self.scaling is None else self.scaling.to_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the numbers of a checkpoint; they win over those fitted to the data at hand.

        Raises:
            CrystensError: if the checkpoint's images are not of the kind that the options ask for.
        """
        for name in ("max_sites", "distance"):
            if state_dict[name] != getattr(self, name):
                raise CrystensError(
                    f"the checkpoint was trained with {name}={state_dict[name]}, the configuration says "
                    f"{getattr(self, name)}; use the checkpoint's value"
                )
        if state_dict["scaling"] is not None:
            self.scaling = Scaling.from_dict(state_dict["scaling"])


class _Crystals(Dataset):
    """Crystals that are fetched a whole batch at a time."""

    def __init__(self, crystals: CrystalBatch) -> None:
        self.crystals = crystals

    def __len__(self) -> int:
        return len(self.crystals)

    def __getitem__(self, index: int) -> CrystalBatch:
        return self.crystals[[index]]

    def __getitems__(self, indices: list[int]) -> CrystalBatch:
        return self.crystals[indices]


def _as_it_is(batch: Any) -> Any:
    """Return a batch that needs no collation."""
    return batch
