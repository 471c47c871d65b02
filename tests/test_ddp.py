"""Several processes train one model: who writes what where, and whose images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from test_samples import ABOUT, Noise
from test_train import REPOSITORY, losses, overrides
from two_ranks import TwoRanks, train_here, two_ranks

from crystens.batch import CrystalBatch
from crystens.generator import Generator
from crystens.metrics.distributions import Reference
from crystens.samples.folder import read_samples, sample_to_file
from crystens.scaling import Scaling

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ranks() -> Iterator[TwoRanks]:
    """Two processes that train together."""
    with two_ranks() as ranks:
        yield ranks


def train(*arguments: str) -> str:
    """Run train.py, which starts the second of two processes, and return what it says."""
    command = [sys.executable, str(REPOSITORY / "train.py"), "trainer=ddp", "trainer.devices=2", *arguments]
    environment = {key: value for key, value in os.environ.items() if key != "LOCAL_RANK"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def lines(folder: Path, model: str = "gan") -> list[str]:
    """Return the overrides of a small run by `trainer=ddp` that makes ten samples."""
    small = overrides(folder, model)
    return [line for line in small if not line.startswith(("run_folder", "num_samples"))] + ["num_samples=10"]


def _sample_in_rank(rank: int, folder: Path, batch: CrystalBatch) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    generator = Generator(Noise(), Scaling.fit(batch), Reference.from_crystals(batch, "three crystals"), about=ABOUT)
    # Chunks of 3: the last has one image, in the second process.
    found = sample_to_file(generator, folder / "two", 10, 3, 1)
    assert (found is None) == (rank > 0)
    torch.distributed.destroy_process_group()


def test_images_of_two_processes_are_those_of_one(tmp_path, nacl, triclinic, copper_primitive):
    batch = CrystalBatch.from_crystals([nacl, triclinic, copper_primitive], 20).in_canonical_order()
    torch.multiprocessing.spawn(_sample_in_rank, (tmp_path, batch), nprocs=2)
    generator = Generator(Noise(), Scaling.fit(batch), Reference.from_crystals(batch, "three crystals"), about=ABOUT)
    sample_to_file(generator, tmp_path / "one", 10, 3, 1)
    files = [(tmp_path / name / "images.safetensors").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]


def test_two_processes_make_one_run(tmp_path):
    said = train(*lines(tmp_path), f"hydra.run.dir={tmp_path / 'run'}")
    run = tmp_path / "run"
    assert said.count("crystens.training.tasks") > 0
    assert said.count("trained 4 epochs") == 1
    images = read_samples(run / "samples" / "images.safetensors").images
    assert len(torch.unique(images.flatten(1), dim=0)) == 10
    assert json.loads((run / "samples" / "metrics.json").read_text())["num_samples"]["value"] == 10
    assert OmegaConf.load(run / "config.yaml").trainer.devices == 2


def test_each_job_of_a_sweep_by_two_processes_has_its_own_folder(tmp_path):
    train(*lines(tmp_path), f"hydra.sweep.dir={tmp_path / 'sweep'}", "-m", "seed=1,2")
    runs = sorted(path.parent for path in tmp_path.glob("**/config.yaml"))
    assert runs == [tmp_path / "sweep" / "0", tmp_path / "sweep" / "1"]
    assert [OmegaConf.load(run / "config.yaml").seed for run in runs] == [1, 2]
    assert all((run / "samples" / "report.html").exists() for run in runs)


# Two processes with batches of 8 are one with batches of 16; but for dropout and batch normalisation, which know a
# process's own images alone (trainer.sync_batchnorm=true shares them, on GPUs).
FROZEN = "+callbacks.frozen={_target_: frozen_norms.FrozenNorms}"
SAME = {"gan": ["model.discriminator.dropout=0", FROZEN], "wgan": [FROZEN], "diffusion": [], "edm": []}


def _lines_of(model: str, epochs: int) -> list[str]:
    kept = [line for line in lines(Path(), model) if not line.startswith(("num_samples", "data.batch", "trainer.max"))]
    return [*kept, *SAME[model], "num_samples=0", f"trainer.max_epochs={epochs}"]


@pytest.mark.parametrize("model", list(SAME))
def test_two_processes_have_the_losses_of_one_with_the_doubled_batch(tmp_path, ranks, model):
    some = _lines_of(model, 4)  # of three batches
    train_here(*some, "data.batch_size=16", f"run_folder={tmp_path / 'one'}")
    ranks.train(*some, "trainer=ddp", "trainer.devices=2", "data.batch_size=8", f"run_folder={tmp_path / 'two'}")
    one, two = losses(tmp_path / "one", model), losses(tmp_path / "two", model)
    for name, values in one.items():
        assert len(values) >= 2
        assert two[name] == pytest.approx(values, rel=1e-4, abs=1e-6), name


def go_on_with_another_number(folder: Path, ranks: TwoRanks, trainer: str, first: list[str], then: list[str]) -> None:
    """Train two epochs by one number of processes and two more by the other, into folders `shrinks` and `grows`."""

    def train(devices: int, *overrides: str) -> None:
        by = ranks.train if devices == 2 else train_here
        by(*overrides, f"trainer.devices={devices}", f"data.batch_size={16 // devices}")

    for name, before, after in (("shrinks", 2, 1), ("grows", 1, 2)):
        train(before, *first, f"trainer={trainer}", f"run_folder={folder / name}")
        train(after, f"resume={folder / name}", *then, "trainer.max_epochs=4")


def test_a_run_goes_on_with_another_number_of_processes(tmp_path, ranks):
    go_on_with_another_number(tmp_path, ranks, "ddp", _lines_of("wgan", 2), [])
    train_here(*_lines_of("wgan", 4), "data.batch_size=16", f"run_folder={tmp_path / 'whole'}")
    whole = losses(tmp_path / "whole", "wgan")
    for name in ("shrinks", "grows"):
        for loss, values in losses(tmp_path / name, "wgan").items():
            assert len(values) == 4
            assert values == pytest.approx(whole[loss], rel=1e-4, abs=1e-6), (name, loss)
