"""Two processes train on one store, really started by Lightning, and what a process holds of a store in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from crystens.crystal import Crystal
from crystens.data.datamodule import CrysTensDataModule
from crystens.data.splits import entry_key, split_indices
from crystens.errors import CrystensError
from crystens.formats.crystal_dictionary import CrystalDictionary
from crystens.ingest.ingest import IngestOptions, ingest_shard
from crystens.ingest.store import CrystalStore
from crystens.ingest.store_source import StoredCrystals
from crystens.scaling import Scaling
from crystens.sources.limits import Limits
from crystens.sources.record import SPLITS, Entry

SCRIPT = Path(__file__).parent.parent / "experiments" / "shards" / "run.py"
RANKS, BATCH, EPOCHS = 2, 64, 3  # as in the script


@pytest.fixture
def salts(tmp_path) -> Path:
    """A file of 1,200 crystals, no two of which are the same."""
    salt = {"angles": [60] * 3, "elements": ["Na", "Cl"], "coordinates": [[0, 0, 0], [0.5, 0.5, 0.5]]}
    path = tmp_path / "salts.jsonl"
    path.write_text(
        "".join(json.dumps({"id": str(k), "lengths": [4 + k / 1000] * 3, **salt}) + "\n" for k in range(1200))
    )
    return path


def _shards(path: Path, out: Path, shards: int) -> Path:
    for shard in range(shards):
        ingest_shard(CrystalDictionary(path), Limits(), IngestOptions(workers=0), out, shard, shards)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("stored", [True, False], ids=["shards", "not_read_before"])
def test_two_ranks_of_lightning_share_each_epoch_and_resume_it(tmp_path, salts, stored):
    # Of a source that was not read before, both ranks want the store at once: one makes it, the other waits.
    source = _shards(salts, tmp_path / "store", 4) if stored else salts
    command = [sys.executable, str(SCRIPT), "ranks", str(source), "--out", str(tmp_path / "seen")]
    environment = {key: value for key, value in os.environ.items() if key != "LOCAL_RANK"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout[done.stdout.index("{") :])
    assert set(told) == {"shuffled", "blocks"}
    for order in told.values():
        assert order["train"] == 1080
        assert order["twice"] == [0] * EPOCHS
        assert order["steps_of_each_rank"] == [[1080 // RANKS // BATCH] * RANKS] * EPOCHS
        assert all(0 < left <= RANKS * BATCH for left in order["not_seen"])
        assert order["orders_differ"]
        assert order["resumed_is_whole"]


# What is held in memory


def _store(splits: list[str | None], nacl: Crystal) -> CrystalStore:
    return CrystalStore.from_items([Entry("f", str(k), nacl, split) for k, split in enumerate(splits)], "salts")


def _splits(store: CrystalStore, kind: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    monkeypatch.setattr(StoredCrystals, "store", lambda self: store)
    module = CrysTensDataModule(StoredCrystals("unused"), 8, Scaling.fit, split=kind)
    module.setup()
    return {split: rows.tolist() for split, rows in module._splits.items()}


@pytest.mark.parametrize("given", [["train", "val", None, "train", "test"] * 4, [None] * 20], ids=["given", "drawn"])
@pytest.mark.parametrize("kind", ["auto", "random"])
def test_splits_are_those_of_split_indices_without_its_lists(given, kind, nacl, monkeypatch):
    store = _store(given, nacl)
    keys = [entry_key("f", str(k)) for k in range(20)]
    expected = split_indices(keys, given, kind, (0.9, 0.05, 0.05), 0)
    assert _splits(store, kind, monkeypatch) == {split: rows.tolist() for split, rows in expected.items()}


def test_given_splits_that_give_nothing_to_train_on_are_an_error(nacl, monkeypatch):
    with pytest.raises(CrystensError, match="no training data: all 2 usable entries"):
        _splits(_store(["val", "test"], nacl), "auto", monkeypatch)
    with pytest.raises(CrystensError, match="this source gives no splits"):
        _splits(_store([None, None], nacl), "given", monkeypatch)


def test_a_stores_splits_are_read_as_places(nacl):
    store = _store(["test", None, "train"], nacl)
    assert [SPLITS[place] if place >= 0 else None for place in store.given_splits()] == ["test", None, "train"]
    assert list(store.texts("entry", "split")) == [("0", "test"), ("1", None), ("2", "train")]
    assert store.given_splits().dtype == np.int8


def test_training_keeps_no_count_of_sites_for_each_crystal(tmp_path, salts):
    store = _shards(salts, tmp_path / "store", 3)
    module = CrysTensDataModule(StoredCrystals(store), 4, Scaling.fit, order="blocks")
    for batch in module.train_dataloader():
        assert batch.counts.tolist() == [2] * len(batch)
    assert "counts" not in vars(module.store)
    assert (module.store.most_sites, module.store.counts.tolist()) == (2, [2] * 1200)
