"""The LightningDataModule: crystals from a memory-mapped store, encoded batch by batch on the training device.

The loader yields a training batch as a `CrystalBatch` (some 700 bytes a crystal). On the device the batch is augmented,
if requested, and encoded as images (B, 4, S, S) float32, S = 12 + max_sites, scaled to [0, 1]. All batches of a run
have the same shape, because XLA compiles for each shape: the last, incomplete batch of an epoch is dropped.

The order of training (`crystens.data.epoch_order`) depends on seed and epoch only, so that a run resumed at the start
of an epoch sees the same batches as an uninterrupted run. Each rank of a distributed run gets a different part.

The checkpoint holds the representation: the parameters of the scaling, `max_sites` and the distance of the pair block.
Parameters from a checkpoint take precedence over parameters fitted to the data. The checkpoint also holds a record of
the crystals of each split (`crystens.data.split_record`), so that resuming on other data is an error.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from crystens.asking.known import KnownOrbits
from crystens.batch import CrystalBatch, ImageBatch
from crystens.data.augmentation import Augmentation
from crystens.data.epoch_order import ORDERS, BlockOrder, shuffled
from crystens.data.split_groups import crystal_groups
from crystens.data.split_record import OtherData, SplitRecord, what_changed
from crystens.data.splits import entry_key, split_indices
from crystens.encoding import check_distance, image_side
from crystens.errors import CrystensError
from crystens.ingest.ingest import IngestOptions, open_store
from crystens.ingest.recipe import made_from, read_with
from crystens.ingest.store import CrystalStore
from crystens.metrics.distributions import Reference
from crystens.metrics.held_out import spread, with_held_out
from crystens.orbits.batch import OrbitBatch
from crystens.orbits.encodings import check_sites, scaling_from_dict, sites_of
from crystens.scaling import Scaling
from crystens.sources.limits import Limits
from crystens.sources.record import SPLITS
from crystens.sources.source import Source

log = logging.getLogger(__name__)

_MOST_REFERENCE = 1_000_000
_PART_ROWS = 65_536


class CrysTensDataModule(pl.LightningDataModule):
    """Crystals of one source, split, scaled and encoded.

    Args:
        source: source of the crystals.
        max_sites: slots N of the image, 1-255; larger crystals are set aside.
        scaling: function that returns the scaling, such as `Scaling.fit` and `Scaling.paper`; called once, in `setup`,
            with the training crystals and `distance`.
        distance: distance of the pair block, "fractional" or "cartesian".
        sites: what the slots of an image hold: "all" sites, or "orbits".
        batch_size: crystals in a training batch; lowered, with a log message, to the share `batch_share` of a small
            training split.
        split: "auto", "given", "random", "formula" or "structure", see `crystens.data.splits`.
        split_seed: seed of a random split, independent of the seed of training.
        split_fractions: shares of train, val and test in a random split.
        seed: seed of the order of training.
        num_workers: processes that assemble batches; 0 is fastest for all but the largest data sets, because a batch
            is a slice of arrays.
        order: "shuffled", or "blocks" for a store larger than the memory, see `crystens.data.epoch_order`.
        augmentation: augmentation of training batches, on their device, before encoding; None for none.
        limits: bounds on usable crystals, and their form, see `Limits.for_images`.
        ingest: options of reading the source.
        rejected_path: path for `rejected.csv`; None writes no file.
        resume_on_other_data: whether to take a checkpoint that was trained on other data, with a warning.
        properties: names of the properties that crystals keep, see `crystens.sources.properties`, in the order of
            `CrystalBatch.properties`.
        batch_share: largest share of the training split in one batch of all devices together, above 0 and at most 1.
        path: not used here; it makes `data.path=PATH` a key of the configuration, which the source refers to.

    Raises:
        CrystensError: if an option is out of range.

    Attributes:
        scaling: the scaling, after `setup` or `load_state_dict`.
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
        order: str = "shuffled",
        augmentation: Augmentation | None = None,
        limits: Limits | None = None,
        ingest: IngestOptions | None = None,
        rejected_path: str | Path | None = None,
        resume_on_other_data: bool = False,
        properties: Sequence[str] = (),
        path: str | Path | None = None,
        sites: str = "all",
        batch_share: float = 1.0,
    ) -> None:
        """Check the options; nothing is read before `setup`."""
        super().__init__()
        check_distance(distance)
        check_sites(sites)
        if sites == "orbits" and augmentation is not None and augmentation != Augmentation():
            raise CrystensError(
                "data.augmentation changes origin, axes or site order, which encoding.sites=orbits fixes: leave it out"
            )
        if not 1 <= max_sites <= 255:
            raise CrystensError(f"max_sites must be 1-255, got {max_sites}")
        if batch_size < 1:
            raise CrystensError(f"data.batch_size must be at least 1, got {batch_size}")
        if not 0 < batch_share <= 1:
            raise CrystensError(f"data.batch_share must be above 0 and at most 1, got {batch_share}")
        if num_workers < 0:
            raise CrystensError(f"data.num_workers must be at least 0, got {num_workers}")
        if order not in ORDERS:
            raise CrystensError(f"data.order={order} is not known; use one of {', '.join(ORDERS)}")
        if isinstance(limits, Mapping):  # limits of a recipe, without a _target_ because data=store has no limits
            raise CrystensError(
                f"data.limits ({', '.join(limits)}) cannot be applied to data=store, whose crystals already have their "
                "form: make the store again with these options of `python -m crystens.data ingest`, and set "
                "data.limits=null here"
            )
        self.source = source.keeping(properties) if properties else source
        self.properties = tuple(properties)
        self.max_sites = max_sites
        self.distance = distance
        self.sites = sites
        self.batch_size = batch_size
        self.batch_share = batch_share
        self.split = split
        self.split_seed = split_seed
        self.split_fractions = split_fractions
        self.seed = seed
        self.num_workers = num_workers
        self.order = order
        self.augmentation = augmentation
        self.ingest = ingest
        self.limits = (limits or Limits()).for_images(max_sites, sites)
        self.rejected_path = rejected_path
        self.resume_on_other_data = resume_on_other_data
        self.scaling: Scaling | None = None
        self._make_scaling = scaling
        self._store: CrystalStore | None = None
        self._splits: dict[str, np.ndarray] = {}
        self._trained_on: SplitRecord | None = None

    @property
    def image_side(self) -> int:
        """The side S of the images."""
        return image_side(self.max_sites)

    @property
    def store(self) -> CrystalStore:
        """All crystals of the source, and the rejects."""
        self.setup()
        assert self._store is not None
        return self._store

    @property
    def train_crystals(self) -> CrystalBatch:
        """The training crystals, copied into memory."""
        return self._split_crystals("train")

    @property
    def val_crystals(self) -> CrystalBatch:
        """The validation crystals, copied into memory; there may be none."""
        return self._split_crystals("val")

    @property
    def test_crystals(self) -> CrystalBatch:
        """The test crystals, copied into memory; there may be none."""
        return self._split_crystals("test")

    @cached_property
    def reference(self) -> Reference:
        """The reference of decoded samples: training crystals, with all sites of each.

        At most `_MOST_REFERENCE` crystals are taken, evenly spread. The reference also holds the metrics of held-out
        crystals, of the test split or the validation split.
        """
        crystals = self.store.batch(self._reference_rows(), self.store.most_sites)
        reference = Reference.from_crystals(crystals, str(self.source))
        for split in ("test", "val"):
            if len(rows := spread(self._splits[split])):
                return with_held_out(reference, (self.store[row] for row in rows.tolist()), split)
        return reference

    @cached_property
    def image_reference(self) -> Reference:
        """The reference of raw images: the sites or orbits in the slots of the training images."""
        if self.sites == "all":
            return self.reference
        return Reference.from_crystals(self.listed(self._reference_rows()), str(self.source), with_templates=False)

    @cached_property
    def orbits(self) -> dict[str, Tensor] | None:
        """Elements and Wyckoff positions of the training crystals, for a checkpoint; None with `sites="all"`."""
        batch = None if self.sites == "all" else self.listed(self._reference_rows())
        return KnownOrbits.of(batch).to_tensors() if isinstance(batch, OrbitBatch) else None

    def _reference_rows(self) -> np.ndarray:
        """Return the training rows that samples are compared with."""
        self.setup()
        rows = self._splits["train"]
        if len(rows) > _MOST_REFERENCE:
            log.info("samples are compared with %d of %d training crystals", _MOST_REFERENCE, len(rows))
            rows = rows[np.linspace(0, len(rows) - 1, _MOST_REFERENCE).astype(np.int64)]
        return rows

    def _split_crystals(self, split: str) -> CrystalBatch:
        """Return the crystals, or the orbits, of a split as in its images."""
        self.setup()
        return self.listed(self._splits[split])

    @property
    def listed(self) -> Callable[[np.ndarray], CrystalBatch]:
        """Function from rows of the store to a batch of crystals or orbits, with the kept properties."""
        return partial(self.store.listed, slots=self.max_sites, sites=self.sites, properties=self.properties)

    def setup(self, stage: str | None = None) -> None:
        """Read, split and scale the data, once.

        Raises:
            CrystensError: if the source cannot be read, has no usable crystal, or is not the data that a loaded
                checkpoint was trained on.
        """
        if self._store is not None:
            return
        writes = self.trainer is None or self.trainer.is_global_zero
        store = open_store(self.source, self.limits, self.ingest, self.rejected_path if writes else None)
        most = store.most_sites if self.sites == "all" else store.most_orbits
        if most > self.max_sites:
            raise CrystensError(
                f"{self.source} holds crystals of {most} {'sites' if self.sites == 'all' else 'orbits'}, more than "
                f"max_sites={self.max_sites}; raise max_sites, or ingest the source again with a lower limit"
            )
        self._splits = self._split_rows(store)
        self._store = store
        log.info("crystals: %s", ", ".join(f"{len(self._splits[split])} {split}" for split in SPLITS))
        self._check_trained_on()
        if self.scaling is None:
            self.scaling = self._fitted()

    def _split_rows(self, store: CrystalStore) -> dict[str, np.ndarray]:
        """Return the rows of each split, ascending, int64."""
        if self.split in ("auto", "given"):
            # The same as `split_indices`, which would need the key of every crystal, 30 times the memory of its row.
            given = store.given_splits()
            splits = {name: np.flatnonzero(given == place) for place, name in enumerate(SPLITS)}
            if len(splits["train"]):
                return splits
        groups = crystal_groups(store, self.split, self.ingest)
        given_names = [SPLITS[place] if place >= 0 else None for place in store.given_splits()]
        return split_indices(_Keys(store), given_names, self.split, self.split_fractions, self.split_seed, groups)

    def _fitted(self) -> Scaling:
        """Return the scaling of the training split, with ranges wide enough for augmented crystals."""
        scaling = self._make_scaling(self._parts("train"), distance=self.distance)
        if self.augmentation is None:
            return scaling
        ranges = self.augmentation.widened(scaling.ranges, self.distance)
        if ranges == scaling.ranges:
            return scaling
        log.info("ranges of the scaling are widened to those of augmented crystals")
        return Scaling(ranges, scaling.max_sites, scaling.gap, scaling.diagonal, scaling.atoms)

    def _parts(self, split: str) -> Iterator[CrystalBatch]:
        """Yield the crystals of a split in parts that fit into memory."""
        rows = self._splits[split]
        for start in range(0, len(rows), _PART_ROWS):
            yield self.listed(rows[start : start + _PART_ROWS])

    def train_dataloader(self) -> DataLoader:
        """Return the loader of training batches, with a new order in every epoch."""
        self.setup()
        rows = self._splits["train"]
        dataset = _Crystals(rows, self.listed)
        ranks, rank = (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)
        if len(dataset) < ranks:
            raise CrystensError(f"{len(dataset)} training crystals for {ranks} devices; use fewer devices")
        batch_size = min(self.batch_size, max(1, int(self.batch_share * len(dataset)) // ranks))
        if batch_size < self.batch_size:
            log.info(
                "batch size %d instead of %d: the training split has %d crystals%s",
                batch_size,
                self.batch_size,
                len(dataset),
                "" if self.batch_share == 1 else f", and data.batch_share is {self.batch_share:g}",
            )
        # Lightning calls set_epoch of this sampler and leaves it in place in distributed runs.
        order: DistributedSampler
        if self.order == "blocks":
            edges = np.searchsorted(rows, np.cumsum([0, *self.store.block_sizes]))
            order = BlockOrder(dataset, np.diff(edges).tolist(), ranks, rank, self.seed)
        else:
            order = shuffled(dataset, ranks, rank, self.seed)
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=order,
            drop_last=True,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=_as_it_is,
            # A separate generator: the loader's iterator must not draw from the global one, which resume restores.
            generator=torch.Generator(),
        )

    def on_after_batch_transfer(self, batch: CrystalBatch, dataloader_idx: int = 0) -> Tensor | ImageBatch:
        """Return the images of a batch, on its device: (B, 4, S, S) float32, scaled.

        A model with `learned_properties` gets an `ImageBatch` with these properties, NaN where the data lack one.
        """
        if self.augmentation is not None and self.trainer is not None and self.trainer.training:
            batch = self.augmentation(batch)
        learned = () if self.trainer is None else getattr(self.trainer.lightning_module, "learned_properties", ())
        if not learned or batch.properties is None:
            return self.encode(batch)
        kept = dict(zip(self.properties, batch.properties.unbind(dim=1), strict=True))
        missing = torch.full_like(batch.properties[:, 0], torch.nan)
        return ImageBatch(self.encode(batch), torch.stack([kept.get(name, missing) for name in learned], dim=1))

    @cached_property
    def property_scales(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation in the training split of each kept property that varies, by name."""
        self.setup()
        values = self.store.properties(self.properties, self._splits["train"])  # (B, P)
        scales = {}
        for column, name in enumerate(self.properties):
            known = values[np.isfinite(values[:, column]), column]
            if len(known) and (deviation := float(known.std())) > 0:
                scales[name] = (float(known.mean()), deviation)
        return scales

    def encode(self, crystals: CrystalBatch) -> Tensor:
        """Return scaled images (B, 4, S, S) float32 of crystals, on their device."""
        if self.scaling is None:
            self.setup()
        assert self.scaling is not None
        self.scaling.to(crystals.lengths.device)
        return self.scaling.encode(crystals, self.distance)

    @property
    def representation(self) -> dict[str, Any]:
        """Representation of the images: `max_sites`, `distance` and the numbers of the scaling."""
        return {
            "max_sites": self.max_sites,
            "distance": self.distance,
            "scaling": None if self.scaling is None else self.scaling.to_dict(),
        }

    @cached_property
    def split_record(self) -> SplitRecord:
        """The record of the crystals of each split."""
        store = self.store
        ingest = self.ingest or IngestOptions()
        made = store.manifests[0]["made_from"] if store.manifests else None
        read = made or made_from(self.source, self.limits, None, ingest.duplicates)
        options = {
            "source": str(self.source),
            "data.split": self.split,
            "data.split_seed": self.split_seed,
            "data.split_fractions": list(self.split_fractions),
            **read_with(read),
        }
        return SplitRecord.from_store(store, self._splits, self.listed, options)

    def _check_trained_on(self) -> None:
        """Compare the data with those of the loaded checkpoint, if there is one.

        Raises:
            OtherData: if they differ, and `resume_on_other_data` is false.
        """
        if self._trained_on is None or self._store is None:
            return
        trained_on, self._trained_on = self._trained_on, None
        changed = what_changed(trained_on, self.split_record, self._store, self._splits)
        if changed is None:
            return
        if not self.resume_on_other_data:
            raise OtherData(
                f"the data are not those that the checkpoint was trained on: {changed}. Give the data and options of "
                "the run, start a new run, or add resume_on_other_data=true to continue with these data; test crystals "
                "of the earlier run may then be in train"
            )
        log.warning("continuing with other data than those that the checkpoint was trained on: %s", changed)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {**self.representation, "trained_on": self.split_record.to_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state of a checkpoint, which takes precedence over parameters fitted to the data.

        Raises:
            CrystensError: if the options ask for images of another kind than the checkpoint's.
            OtherData: if the checkpoint was trained on other data, and `resume_on_other_data` is false.
        """
        for name in ("max_sites", "distance"):
            if state_dict[name] != getattr(self, name):
                raise CrystensError(
                    f"the checkpoint was trained with {name}={state_dict[name]}, the configuration says "
                    f"{getattr(self, name)}; use the checkpoint's value"
                )
        if state_dict["scaling"] is not None:
            self.scaling = scaling_from_dict(state_dict["scaling"])
            if sites_of(self.scaling) != self.sites:
                raise CrystensError(
                    f"the checkpoint was trained with encoding.sites={sites_of(self.scaling)}, the configuration says "
                    f"{self.sites}; use the checkpoint's value"
                )
        if "trained_on" not in state_dict:
            log.warning("the checkpoint has no record of its data (an earlier version wrote it): the data may differ")
            return
        self._trained_on = SplitRecord.from_dict(state_dict["trained_on"])
        self._check_trained_on()


class _Keys(Sequence[str]):
    """The `entry_key` of each crystal, computed when it is read."""

    def __init__(self, store: CrystalStore) -> None:
        self.store = store

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]

    def __iter__(self) -> Iterator[str]:
        return (entry_key(file, entry) for file, entry in self.store.texts("file", "entry"))


class _Crystals(Dataset):
    """Rows of a store, fetched a whole batch at a time."""

    def __init__(self, rows: np.ndarray, listed: Callable[[np.ndarray], CrystalBatch]) -> None:
        self.rows = rows
        self.listed = listed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> CrystalBatch:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> CrystalBatch:
        return self.listed(self.rows[indices])


def _as_it_is(batch: Any) -> Any:
    """Return a batch that needs no collation."""
    return batch
