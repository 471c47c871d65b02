"""The DataModule: batches of images of fixed shape, an order that a resumed run repeats, and a state that travels."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from crystens.batch import CrystalBatch
from crystens.crystal import Crystal
from crystens.data.augmentation import Augmentation
from crystens.data.datamodule import CrysTensDataModule
from crystens.datasets.prototypes import Prototypes
from crystens.encoding import encode
from crystens.errors import CrystensError
from crystens.ingest.ingest import IngestOptions
from crystens.scaling import Scaling
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Record, Reject
from crystens.sources.source import Source

CONF = Path(__file__).parent.parent / "conf"


class Salts(Source):
    """Source: `count` rocksalt crystals whose cell length tells which is which, and one reject."""

    def __init__(self, count: int) -> None:
        self.count = count

    def records(self) -> Iterator[Record | Reject]:
        for k in range(self.count):
            yield Record("salts", str(k), 4 + k / 100)
        yield Reject("salts", "last", "not a salt: sugar", "taste it")

    def parse(self, record: Record, limits: Limits) -> list[Entry]:
        places = np.array([[0.5, 0.5, 0.5], [0, 0, 0]])
        crystal = Crystal([record.content] * 3, [60] * 3, 225, [17, 11], places)
        return [Entry(record.file, record.entry, crystal.in_canonical_order())]


def _module(count: int = 50, **options: object) -> CrysTensDataModule:
    settings = {"max_sites": 4, "scaling": Scaling.fit, "batch_size": 8, "split_fractions": (1.0, 0.0, 0.0)}
    settings["ingest"] = IngestOptions(workers=0)
    return CrysTensDataModule(Salts(count), **(settings | options))


def _lengths(module: CrysTensDataModule, epoch: int) -> list[list[int]]:
    """Return which crystals stand in each batch of an epoch."""
    loader = module.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return [torch.round((batch.lengths[:, 0] - 4) * 100).int().tolist() for batch in loader]


def test_batch_becomes_scaled_images_of_a_fixed_shape():
    module = _module()
    images = [module.on_after_batch_transfer(batch, 0) for batch in module.train_dataloader()]
    assert [tuple(batch.shape) for batch in images] == [(8, 4, 16, 16)] * 6
    assert all(batch.dtype == torch.float32 and batch.min() == 0 and abs(batch.max() - 1) < 1e-6 for batch in images)
    crystals = module.train_crystals[:8]
    expected = module.scaling.scale(encode(crystals), crystals.counts)
    torch.testing.assert_close(module.encode(crystals), expected, rtol=0, atol=1e-6)


def test_sites_stand_in_canonical_order():
    assert _module().train_crystals.numbers[:, :2].tolist() == [[11, 17]] * 50


def test_order_depends_on_seed_and_epoch_only():
    torch.manual_seed(0)
    first = _lengths(_module(), 3)
    torch.manual_seed(1)
    assert _lengths(_module(), 3) == first
    assert _lengths(_module(), 4) != first
    assert _lengths(_module(seed=5), 3) != first
    assert len({k for batch in first for k in batch}) == 48


def test_split_smaller_than_a_batch_lowers_the_batch_size(caplog):
    module = _module(count=5)
    with caplog.at_level(logging.INFO):
        assert [len(batch) for batch in module.train_dataloader()] == [5]
    assert "batch size 5 instead of 8: the training split has 5 crystals" in caplog.text


def test_random_split_is_not_moved_by_the_training_seed():
    modules = [_module(split_fractions=(0.8, 0.1, 0.1), seed=seed) for seed in (0, 1)]
    assert torch.equal(modules[0].val_crystals.lengths, modules[1].val_crystals.lengths)
    assert (len(modules[0].train_crystals), len(modules[0].test_crystals)) == (40, 5)


def test_source_is_read_once(monkeypatch):
    module = _module()
    reads = []
    original = module.source.records
    monkeypatch.setattr(module.source, "records", lambda: reads.append(1) or original())
    module.setup("fit")
    module.setup("test")
    _ = module.train_dataloader(), module.val_crystals
    assert reads == [1]


def test_rejects_are_kept_and_written(tmp_path):
    module = _module(rejected_path=tmp_path / "rejected.csv")
    module.setup()
    assert [reject.category for reject in module.store.rejects()] == ["not a salt"]
    assert "sugar" in (tmp_path / "rejected.csv").read_text()


def test_scaling_is_fitted_to_the_training_split_with_the_distance_of_the_module():
    calls = []

    def scaling(crystals, distance):
        parts = list(crystals)
        calls.append((sum(map(len, parts)), distance))
        return Scaling.fit(parts, distance=distance)

    _module(split_fractions=(0.8, 0.1, 0.1), scaling=scaling, distance="cartesian").setup()
    assert calls == [(40, "cartesian")]


@pytest.mark.parametrize("before", [True, False], ids=["setup_first", "load_first"])
def test_scaling_of_a_checkpoint_wins_over_the_fitted_one(before):
    trained, resumed = _module(count=50), _module(count=10, resume_on_other_data=True)
    trained.setup()
    if before:
        resumed.setup()
    resumed.load_state_dict(trained.state_dict())
    resumed.setup()
    assert resumed.scaling.to_dict() == trained.scaling.to_dict()
    assert _scaling_of(_module(count=10)) != trained.scaling.to_dict()


def _scaling_of(module: CrysTensDataModule) -> dict:
    module.setup()
    return module.scaling.to_dict()


@pytest.mark.parametrize("option", [{"max_sites": 6}, {"distance": "cartesian"}])
def test_checkpoint_of_other_images_is_an_error(option):
    trained = _module()
    trained.setup()
    with pytest.raises(CrystensError, match=f"was trained with {next(iter(option))}="):
        _module(**option).load_state_dict(trained.state_dict())


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"batch_size": 0}, "data.batch_size must be at least 1, got 0"),
        ({"max_sites": 256}, "max_sites must be 1-255, got 256"),
        ({"num_workers": -1}, "data.num_workers"),
        ({"order": "sorted"}, "data.order=sorted is not known"),
        ({"distance": "manhattan"}, "manhattan"),
        ({"limits": {"shift": 0.25}}, r"data.limits \(shift\) cannot be applied to data=store"),
    ],
)
def test_option_out_of_range_is_an_error(option, message):
    with pytest.raises(CrystensError, match=message):
        _module(**option)


def test_augmented_crystals_stay_inside_of_the_scaling():
    rng = np.random.default_rng(0)
    long = Crystal([4, 5, 30], [70, 80, 100], 1, [11, 17], rng.random((2, 3)))
    augmentation = Augmentation(origin_shift=True, relabel_axes=True)
    module = _module(count=1, augmentation=augmentation)
    module.source = Fixed(long)
    module.setup()
    batch = CrystalBatch.from_crystals([long] * 200, 4)
    images = module.encode(augmentation(batch, torch.Generator().manual_seed(0)))
    assert images.max() <= 1 + 1e-6
    plain = _module(count=1)
    plain.source = Fixed(long)
    assert plain.encode(augmentation(batch, torch.Generator().manual_seed(0))).max() > 1.5


class Fixed(Salts):
    """Source: one crystal that is given."""

    def __init__(self, crystal: Crystal) -> None:
        super().__init__(1)
        self.crystal = crystal

    def parse(self, record: Record, limits: Limits) -> list[Entry]:
        return [Entry(record.file, record.entry, self.crystal)]


class Recorder(pl.LightningModule):
    """A model that keeps the batches it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[torch.Tensor] = []

    def training_step(self, batch: torch.Tensor) -> torch.Tensor:
        self.seen.append(batch.clone())
        return self.weight.sum() + batch.mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def _fit(folder: Path, epochs: int, checkpoint: Path | None = None, **options: object) -> list[torch.Tensor]:
    """Train a recorder and return the batches that it saw."""
    model = Recorder()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=folder
        )
        trainer.fit(model, datamodule=_module(count=20, **options), ckpt_path=checkpoint)
    return model.seen


def test_resumed_run_sees_the_batches_of_an_uninterrupted_one(tmp_path):
    whole = _fit(tmp_path / "whole", 4)
    first = _fit(tmp_path / "first", 2)
    checkpoint = next((tmp_path / "first").rglob("*.ckpt"))
    second = _fit(tmp_path / "second", 4, checkpoint)
    assert len(whole) == len(first) + len(second) == 8
    assert all(torch.equal(a, b) for a, b in zip(whole, first + second, strict=True))
    assert not torch.equal(whole[0], whole[2])


def test_augmentation_changes_training_batches(tmp_path):
    plain = _fit(tmp_path / "plain", 1)
    moved = _fit(tmp_path / "moved", 1, augmentation=Augmentation(origin_shift=True))
    assert not torch.equal(plain[0], moved[0])


@pytest.mark.parametrize("order", ["shuffled", "blocks"])
def test_two_ranks_see_every_crystal_once(order):
    class Rank:
        world_size = 2
        training = True
        is_global_zero = True

        def __init__(self, rank: int) -> None:
            self.global_rank = rank

    seen = []
    for rank in range(2):
        module = _module(count=48, order=order)
        module.trainer = Rank(rank)
        seen += [length for batch in _lengths(module, 2) for length in batch]
    assert sorted(seen) == list(range(48))


def test_worker_processes_give_the_same_batches(tmp_path):
    alone, helped = _fit(tmp_path / "a", 1), _fit(tmp_path / "b", 1, num_workers=1)
    assert all(torch.equal(a, b) for a, b in zip(alone, helped, strict=True))


def _composed(*overrides: str) -> Callable[[], CrysTensDataModule]:
    """Return a function that builds the DataModule of a data config, beside the keys that the main config has."""
    with initialize_config_dir(str(CONF / "data"), version_base=None):
        data = compose(overrides[0], overrides=list(overrides[1:]))
    cfg = OmegaConf.create(
        {"max_sites": 52, "encoding": {"distance": "fractional", "sites": "all"}, "seed": 7, "data": data}
    )
    return lambda: instantiate(cfg.data, scaling=Scaling.fit, _convert_="all")


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "data").glob("[a-z]*.yaml")))
def test_config_builds_its_source(name):
    path = [] if name in ("prototypes", "materials_project") else ["path=/nowhere"]
    query = ["source.chemsys=Na-Cl"] if name == "materials_project" else []
    module = _composed(name, *path, *query)()
    assert (module.max_sites, module.seed, module.limits.max_sites, module.limits.symprec) == (52, 7, 52, 0.01)
    if path:
        with pytest.raises(CrystensError, match="/nowhere does not exist"):
            module.setup()


def test_path_beside_the_default_source_is_an_error():
    with pytest.raises(Exception, match="data=prototypes reads no path"):
        _composed("prototypes", "path=/nowhere")()


def test_prototypes_train_at_the_papers_image_side():
    module = CrysTensDataModule(Prototypes(), max_sites=52, scaling=Scaling.fit, batch_size=64)
    module.setup()
    assert module.image_side == 64
    assert [len(module.train_crystals), len(module.val_crystals), len(module.test_crystals)] == [254, 14, 14]
    images = module.encode(next(iter(module.train_dataloader())))
    assert images.shape == (64, 4, 64, 64)
    assert torch.isfinite(images).all()
