"""Several processes share the weights of one model: trainer=fsdp, by two processes on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from test_ddp import SAME, _lines_of, go_on_with_another_number, lines
from test_ddp import train as train_by_two
from test_train import losses
from two_ranks import TwoRanks, train_here, two_ranks

from crystens.callbacks.acceleration import Acceleration, NetworksOf16Bits
from crystens.checkpoint import load_checkpoint
from crystens.devices.sharding import FullySharded
from crystens.errors import CrystensError
from crystens.samples.folder import read_samples

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ranks() -> Iterator[TwoRanks]:
    """Two processes that train together."""
    with two_ranks() as ranks:
        yield ranks


def train(*arguments: str) -> str:
    """Run train.py by two processes that share the weights and return what it says."""
    return train_by_two("trainer=fsdp", *arguments)


@pytest.mark.parametrize("model", list(SAME))
def test_two_processes_that_share_weights_have_the_losses_of_one_with_the_doubled_batch(tmp_path, ranks, model):
    some = _lines_of(model, 4)
    train_here(*some, "data.batch_size=16", f"run_folder={tmp_path / 'one'}")
    ranks.train(*some, "trainer=fsdp", "trainer.devices=2", "data.batch_size=8", f"run_folder={tmp_path / 'two'}")
    one, two = losses(tmp_path / "one", model), losses(tmp_path / "two", model)
    for name, values in one.items():
        assert len(values) >= 2
        assert two[name] == pytest.approx(values, rel=1e-4, abs=1e-6), name
    whole, gathered = (load_checkpoint(tmp_path / run / "checkpoints" / "last.ckpt") for run in ("one", "two"))
    assert {name: value.shape for name, value in whole["state_dict"].items()} == {
        name: value.shape for name, value in gathered["state_dict"].items()
    }
    for name, value in whole["state_dict"].items():
        if value.is_floating_point():  # Adam turns rounding of a gradient near 0 into a step of either sign
            assert (gathered["state_dict"][name] - value).norm() <= 0.01 * value.norm() + 1e-3, name
        else:
            assert torch.equal(gathered["state_dict"][name], value), name


@pytest.mark.parametrize("model", ["wgan", "diffusion"])
def test_a_run_goes_on_with_another_number_of_processes_that_share_weights(tmp_path, ranks, model):
    # Shares of two and of four epochs, so that the stages change at one step.
    first, then = (
        (["model.first_stage_share=0.5"], ["model.first_stage_share=0.25"]) if model == "diffusion" else ([], [])
    )
    go_on_with_another_number(tmp_path, ranks, "fsdp", [*_lines_of(model, 2), *first], [f"+{line}" for line in then])
    train_here(*_lines_of(model, 4), *then, "data.batch_size=16", f"run_folder={tmp_path / 'whole'}")
    whole = losses(tmp_path / "whole", model)
    for name in ("shrinks", "grows"):
        for loss, values in losses(tmp_path / name, model).items():
            assert values == pytest.approx(whole[loss], rel=1e-4, abs=1e-6), (name, loss)


def test_a_run_of_shared_weights_ends_with_the_samples_of_its_checkpoint(tmp_path):
    said = train(*lines(tmp_path), f"hydra.run.dir={tmp_path / 'run'}")
    assert said.count("trained 4 epochs") == 1
    images = read_samples(tmp_path / "run" / "samples" / "images.safetensors").images
    assert len(torch.unique(images.flatten(1), dim=0)) == 10


def test_what_divided_weights_cannot_have_is_refused():
    strategy = FullySharded()
    strategy.precision_plugin = NetworksOf16Bits("bf16-true")
    with pytest.raises(CrystensError, match="take 32-true or bf16-mixed"):
        strategy.setup(None)
    trainer = SimpleNamespace(strategy=strategy)
    for switch in ({"channels_last": True}, {"compile": "default"}):
        with pytest.raises(CrystensError, match="trainer=fsdp"):
            Acceleration(**switch).setup(trainer, pl.LightningModule(), "fit")
