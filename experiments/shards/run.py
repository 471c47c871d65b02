"""Beyond one machine: an array of jobs, two training processes, and a store larger than the memory; see README.md.

python experiments/shards/run.py array DIR/mp_3dsc                   4 shards by 4 processes against one reading
python experiments/shards/run.py ranks STORE --out DIR               which crystals each of two ranks trained on
python experiments/shards/run.py large DIR/mp_3dsc --crystals N      a store of N crystals under a limit of memory
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import crystens  # noqa: F401  (before Lightning)

MAX_SITES = 52
JOBS = 4
RANKS = 2
EPOCHS = 3
BATCH = 64
SHARDS = 8
BLOCK_ROWS = 65_536  # rows of a block in stores of ingest
MIB = 2**20


def _call(*arguments: object) -> str:
    """Run a command line of this Python, and return its output."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


# (a) An array of jobs


def array(source: str) -> dict[str, Any]:
    """Ingest a source at once, and in shards by two processes at a time; compare the two stores."""
    from crystens.ingest.store import CrystalStore

    with tempfile.TemporaryDirectory() as folder:
        ingest = ["-m", "crystens.data", "ingest", source, "--max-sites", MAX_SITES, "--workers", 1]

        def job(shard: int) -> float:
            start = time.perf_counter()
            _call(*ingest, "--out", f"{folder}/shards", "--shard", f"{shard}/{JOBS}")
            return time.perf_counter() - start

        start = time.perf_counter()
        with ThreadPoolExecutor(2) as two:
            seconds = list(two.map(job, range(JOBS)))
        together = time.perf_counter() - start
        start = time.perf_counter()
        _call(*ingest, "--out", f"{folder}/whole")
        alone = time.perf_counter() - start
        whole, union = CrystalStore.open(f"{folder}/whole"), CrystalStore.open(f"{folder}/shards")
        return {
            "crystals": [len(whole), len(union)],
            "rejects": [whole.num_rejects, union.num_rejects],
            "same_crystals": _rows(whole) == _rows(union),
            "same_rejects": Counter(whole.rejects()) == Counter(union.rejects()),
            "shard_sizes": [manifest["crystals"] for manifest in union.manifests],
            "seconds_of_each_job": seconds,
            "seconds_of_the_array": together,
            "seconds_of_one_reading": alone,
        }


def _rows(store: Any) -> Counter[tuple[Any, ...]]:
    """Return the rows of a store with all columns, and the count of each."""
    names = ("file", "entry", "split", "lengths", "angles", "space_group", "numbers", "coordinates")
    columns = [[tuple(v) if isinstance(v, list) else v for v in store.column(name)] for name in names]
    return Counter(zip(*columns, strict=True))


# (b) Two ranks


def ranks(source: str, out: Path) -> None:
    """Train two ranks in both orders, uninterrupted and resumed; write the crystals that each rank saw into `out`.

    Lightning runs this command line again for the second rank.
    """
    import pytorch_lightning as pl
    import torch

    from crystens.data.datamodule import CrysTensDataModule
    from crystens.ingest.kinds import open_source
    from crystens.scaling import Scaling

    class Watched(CrysTensDataModule):
        """Tells which crystals go into each batch, on the way to the training step."""

        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
            batches.append(_marks(batch))
            return super().on_after_batch_transfer(batch, dataloader_idx)

    class Mean(pl.LightningModule):
        """Learns the mean image."""

        def __init__(self, side: int) -> None:
            super().__init__()
            self.mean = torch.nn.Parameter(torch.full((4, side, side), 0.5))

        def training_step(self, images: torch.Tensor) -> torch.Tensor:
            return (images - self.mean).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

        def on_train_epoch_end(self) -> None:
            seen.append(batches.copy())
            batches.clear()

    batches: list[list[str]] = []
    seen: list[list[list[str]]] = []
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for order in ("shuffled", "blocks"):
        checkpoint = out / f"{order}.ckpt"
        for run, epochs in (("first", 1), ("resumed", EPOCHS), ("whole", EPOCHS)):
            data = Watched(open_source(source), MAX_SITES, Scaling.fit, batch_size=BATCH, order=order)
            trainer = pl.Trainer(
                accelerator="cpu",
                devices=RANKS,
                strategy="ddp",
                max_epochs=epochs,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.fit(Mean(data.image_side), datamodule=data, ckpt_path=checkpoint if run == "resumed" else None)
            if run == "first":
                trainer.save_checkpoint(checkpoint)
            told = {"train": _marks(data.train_crystals), "seen": seen}
            (out / f"{order}_{run}_{trainer.global_rank}.json").write_text(json.dumps(told))
            seen.clear()
            trainer.strategy.barrier()  # rank 0 reads the files of all ranks after this


def _marks(batch: Any) -> list[str]:
    """Return a digest of the numbers of each crystal of a batch."""
    columns = [getattr(batch, name).numpy() for name in ("lengths", "angles", "numbers", "coordinates")]
    return [hashlib.md5(b"".join(row.tobytes() for row in rows)).hexdigest() for rows in zip(*columns, strict=True)]


def told_by_ranks(out: Path) -> dict[str, dict[str, Any]]:
    """Return facts on the crystals that the ranks saw, for each order.

    The training split may hold equal crystals. A crystal counts as seen twice if it was seen more often than it occurs.
    """
    return {order: _told_of(out, order) for order in ("shuffled", "blocks")}


def _told_of(out: Path, order: str) -> dict[str, Any]:
    """Return the facts for one order."""
    told = {
        run: [json.loads((out / f"{order}_{run}_{rank}.json").read_text()) for rank in range(RANKS)]
        for run in ("first", "resumed", "whole")
    }
    train = Counter(told["whole"][0]["train"])
    epochs = list(zip(*(rank["seen"] for rank in told["whole"]), strict=True))
    drawn = [Counter(mark for rank in epoch for batch in rank for mark in batch) for epoch in epochs]
    return {
        "train": train.total(),
        "epochs": len(epochs),
        "steps_of_each_rank": [[len(rank) for rank in epoch] for epoch in epochs],
        "twice": [(marks - train).total() for marks in drawn],
        "not_seen": [(train - marks).total() for marks in drawn],
        "never_seen_in_any_epoch": sum(not any(mark in marks for marks in drawn) for mark in train),
        "orders_differ": all(epochs[0][rank] != epoch[rank] for epoch in epochs[1:] for rank in range(RANKS)),
        "resumed_is_whole": all(
            first["seen"] + resumed["seen"] == whole["seen"]
            for first, resumed, whole in zip(told["first"], told["resumed"], told["whole"], strict=True)
        ),
    }


# (c) A store larger than the memory


def build(source: str, out: Path, count: int) -> None:
    """Write a store of `count` crystals in 8 shards: the rows of a source in turn, with new names."""
    import pyarrow as pa

    from crystens.ingest.ingest import IngestOptions, open_store
    from crystens.ingest.kinds import open_source
    from crystens.ingest.store import CRYSTALS, REJECTED, SCHEMA, CrystalStore, write_manifest
    from crystens.sources.limits import Limits
    from crystens.sources.rejects import write_rejected

    with tempfile.TemporaryDirectory() as cache:
        folder = open_store(open_source(source), Limits(MAX_SITES), IngestOptions(cache=cache)).folder
        assert folder is not None
        made_from = CrystalStore.open(folder).manifests[0]["made_from"]
        with pa.memory_map(str(folder / CRYSTALS)) as file:
            rows = pa.ipc.open_file(file).read_all()
            written = 0
            for shard in range(SHARDS):
                part = out / f"{shard:05d}-of-{SHARDS:05d}"
                part.mkdir(parents=True)
                left = count // SHARDS
                with pa.OSFile(str(part / CRYSTALS), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
                    while left:
                        size = min(left, BLOCK_ROWS)
                        block = pa.concat_tables([rows] * (size // len(rows) + 1)).slice(0, size)
                        names = pa.array([f"crystal-{written + k}" for k in range(size)], pa.string())
                        for batch in block.set_column(1, SCHEMA.field("entry"), names).combine_chunks().to_batches():
                            writer.write_batch(batch)
                        written, left = written + size, left - size
                write_rejected([], part / REJECTED)
                write_manifest(part, "repeated", made_from, count // SHARDS, Counter(), (shard, SHARDS))


def stream(store: str, limit_mib: int, order: str, split: str, most: int) -> dict[str, Any]:
    """Open a store under a limit of memory, read part of an epoch, and return times and memory.

    The limit is RLIMIT_DATA: all memory of this process that is not backed by a file. The kernel can drop pages of the
    mapped store at any time.
    """
    import torch

    from crystens.data.datamodule import CrysTensDataModule
    from crystens.ingest.store_source import StoredCrystals
    from crystens.scaling import Scaling

    torch.set_num_threads(1)
    for path in Path(store).rglob("*.arrow"):  # so that the disk is read, and not the page cache
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    data = CrysTensDataModule(StoredCrystals(store), MAX_SITES, Scaling.paper, batch_size=256, order=order, split=split)
    if limit_mib:
        resource.setrlimit(resource.RLIMIT_DATA, (limit_mib * MIB, resource.RLIM_INFINITY))
    with _Watch() as watch:
        imported = watch.anonymous()
        start = time.perf_counter()
        data.setup()
        opened = time.perf_counter() - start
        set_up, kept = watch.peak, watch.anonymous()
        loader = data.train_dataloader()
        assert isinstance(loader.sampler, torch.utils.data.distributed.DistributedSampler)
        loader.sampler.set_epoch(1)
        start = time.perf_counter()
        count = 0
        for batch in loader:
            count += len(batch)
            if count >= most:
                break
        seconds = time.perf_counter() - start
        return {
            "crystals": len(data.store),
            "store_mib": data.store.nbytes / MIB,
            "order": order,
            "split": split,
            "seconds_to_set_up": opened,
            "crystals_read": count,
            "crystals_a_second": count / seconds,
            "anonymous_mib": {"imported": imported, "set_up_peak": set_up, "set_up": kept, "peak": watch.peak},
            "mapped_mib": _memory()["RssFile"] / 1024,
        }


class _Watch:
    """Peak of the anonymous memory of this process, sampled every 5 ms."""

    def __init__(self) -> None:
        self.peak = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def anonymous(self) -> float:
        """Return the anonymous memory now, MiB."""
        now = _memory()["RssAnon"] / 1024
        self.peak = max(self.peak, now)
        return now

    def _look(self) -> None:
        while not self._ended.wait(0.005):
            self.anonymous()


def _memory() -> dict[str, int]:
    """Return the kinds of resident memory, KiB."""
    pairs = (line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(value.split()[0]) for name, value in pairs if name.startswith("Rss")}


def fit(store: str, most: int) -> float:
    """Return the rate of fitting a scaling, crystals per second, on one thread."""
    import torch

    from crystens.ingest.store import CrystalStore
    from crystens.scaling import Scaling

    torch.set_num_threads(1)
    opened = CrystalStore.open(store)
    start = time.perf_counter()
    Scaling.fit(opened.batch(range(most), MAX_SITES))
    return most / (time.perf_counter() - start)


def large(source: str, count: int, limit_mib: int) -> dict[str, Any]:
    """Measure stores of a quarter and of all crystals, which shows what grows with the number of crystals."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in (count // 4, count):
            store = Path(folder) / "store"
            start = time.perf_counter()
            build(source, store, size)
            results[f"seconds_to_write_{size}"] = time.perf_counter() - start
            results[f"on_disk_{size}"] = sum(path.stat().st_size for path in store.rglob("*.*") if path.is_file())
            for order, split in (("blocks", "auto"), ("shuffled", "auto"), ("blocks", "random")):
                limit = limit_mib if (order, split) == ("blocks", "auto") else 0
                told = _call(__file__, "stream", store, "--limit", limit, "--order", order, "--split", split)
                results[f"{order}_{split}_{size}"] = json.loads(told)
            results["fit_crystals_a_second"] = float(_call(__file__, "fit", store))
            shutil.rmtree(store)
    for name in ("blocks_auto", "shuffled_auto", "blocks_random"):
        less, more = (results[f"{name}_{size}"]["anonymous_mib"] for size in (count // 4, count))
        results[f"{name}_bytes_a_crystal"] = {
            part: ((more[part] - more["imported"]) - (less[part] - less["imported"])) * MIB / (count - count // 4)
            for part in ("set_up_peak", "set_up", "peak")
        }
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a part and print its results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("array", "ranks", "large", "stream", "fit"))
    parser.add_argument("source", help="folder, archive or table; of ranks, stream and fit a store")
    parser.add_argument("--out", type=Path, help="of ranks: folder for what each rank saw")
    parser.add_argument("--crystals", type=int, default=8_000_000, help="of large")
    parser.add_argument("--limit", type=int, default=1024, help="of large and stream: memory, MiB; 0 for none")
    parser.add_argument("--order", default="blocks", help="of stream")
    parser.add_argument("--split", default="auto", help="of stream")
    options = parser.parse_args(arguments)
    match options.part:
        case "array":
            print(json.dumps(array(options.source), indent=2))
        case "ranks":
            options.out.mkdir(parents=True, exist_ok=True)
            ranks(options.source, options.out)
            if int(os.environ.get("LOCAL_RANK", 0)) == 0:
                print(json.dumps(told_by_ranks(options.out), indent=2))
        case "large":
            print(json.dumps(large(options.source, options.crystals, options.limit), indent=2))
        case "stream":
            print(json.dumps(stream(options.source, options.limit, options.order, options.split, 1_000_000)))
        case "fit":
            print(fit(options.source, 20_000))


if __name__ == "__main__":
    main()
