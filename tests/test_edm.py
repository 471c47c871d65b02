"""EDM: levels of noise, what the loss is, sampling, averaging, and resuming."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from crystens.encoding import HEADER
from crystens.errors import CrystensError
from crystens.models.edm import EDM, KarrasSchedule
from crystens.networks.row_transformer import RowTransformer

SIDE = 16


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def model(**options: Any) -> EDM:
    network = RowTransformer(SIDE, width=32, depth=2, heads=2)
    arguments: dict[str, Any] = {"network_calls": 9, "warmup_steps": 5, "ema_decay": 0.9} | options
    return EDM(network, functools.partial(torch.optim.AdamW, lr=5e-3), **arguments)


def images(n: int = 8, sites: int = 2) -> torch.Tensor:
    """Images of one crystal."""
    made = torch.zeros(n, 4, SIDE, SIDE)
    filled = slice(HEADER, HEADER + sites)
    made[..., :11, filled] = torch.linspace(0.2, 0.9, 11)[:, None]
    made[..., filled, :11] = torch.linspace(0.2, 0.9, 11)
    made[..., filled, filled] = 0.5
    return made


def train(edm: EDM, data: torch.Tensor, checkpoint: Path | None = None, **options: Any) -> pl.Trainer:
    arguments: dict[str, Any] = {"max_epochs": 4, "logger": False} | options
    trainer = pl.Trainer(
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **arguments,
    )
    trainer.fit(edm, DataLoader(data, batch_size=len(data) // 2), ckpt_path=checkpoint, weights_only=True)
    return trainer


def test_levels_run_from_the_lowest_to_the_highest_as_in_the_source() -> None:
    schedule = KarrasSchedule(0.002, 80.0, 7.0)
    steps = 18
    times = torch.linspace(1, 0, steps, dtype=torch.float64)
    expected = [
        (80 ** (1 / 7) + i / (steps - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(steps)
    ]  # Karras et al. 2022, eq. 5
    factors, levels = schedule(times)
    assert torch.equal(factors, torch.ones_like(times))
    torch.testing.assert_close(levels, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(schedule.time(levels), times)


def test_an_untrained_network_has_the_loss_of_a_guess_at_every_level() -> None:
    # The network gives 0, so the denoised image is c_skip x: the weighted error is (x0 - sigma noise)^2 / (1 + sigma^2)
    # in the mean, which is 1 for data of variance 1, at every level.
    edm = model(prediction="residual", max_weight=math.inf)
    generator = torch.Generator().manual_seed(0)
    data = (torch.randn(512, 4, SIDE, SIDE, generator=generator) * 0.25 + 0.5).clamp(min=1e-3)
    assert float(edm.loss(data, torch.full((512,), SIDE - HEADER))) == pytest.approx(1, rel=0.02)


def test_the_weight_of_a_level_has_a_limit() -> None:
    edm = model(noise_mean=-6.0, noise_deviation=0.1, max_weight=7.0)  # it guesses 0; the variance is 1
    data = torch.randn(512, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 0.25 + 0.5
    assert float(edm.loss(data, torch.full((512,), SIDE - HEADER))) == pytest.approx(7, rel=0.02)


def test_empty_cells_have_no_part_in_the_loss() -> None:
    edm = model()
    counts = torch.full((8,), 2)
    clean, spoilt = images(), images()
    spoilt[:, :, 14:, 14:] = 0.7
    losses = []
    for data in (clean, spoilt):
        torch.manual_seed(3)
        losses.append(float(edm.loss(data, counts)))
    assert losses[0] == losses[1]


def test_training_on_one_crystal_samples_that_crystal() -> None:
    edm = model(network_calls=33)
    train(edm, images(64), max_epochs=150)
    given = edm.sample(4, torch.Generator().manual_seed(0))
    assert given.shape == (4, 4, SIDE, SIDE)
    apart = (given - images(4))[:, :, :14, :14].abs()
    assert apart.mean() < 0.02  # values are 0.2 to 0.9
    assert (given[:, :, 14:] == 0).all()


def test_numbers_of_sites_are_sampled_as_often_as_they_were_trained_on() -> None:
    edm = model()
    train(edm, torch.cat([images(12, sites=1), images(36, sites=3)]), max_epochs=1)
    given = edm.sample(2000, torch.Generator().manual_seed(0))
    counts = (given[:, :, :, HEADER:] != 0).any(dim=(1, 2)).sum(dim=1)
    assert set(counts.tolist()) == {1, 3}
    assert float((counts == 1).float().mean()) == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 2000))


@pytest.mark.parametrize("options", [{}, {"sampler": "euler"}, {"churn": 10.0}])
def test_an_image_depends_on_its_seed_alone_and_not_on_the_chunk(options: dict[str, Any]) -> None:
    edm = model(**options)
    train(edm, images(), max_epochs=2)
    given = edm.sample(5, torch.Generator().manual_seed(7))
    edm.sample_chunk = 2
    generator = torch.Generator().manual_seed(7)
    torch.testing.assert_close(torch.cat([edm.sample(2, generator), edm.sample(3, generator)]), given)


@pytest.mark.parametrize("sampler", ["heun", "euler"])
@pytest.mark.parametrize("calls", [5, 9, 50])
def test_the_network_is_called_as_often_as_was_asked_for_at_most(sampler: str, calls: int) -> None:
    edm = model(sampler=sampler, network_calls=calls)
    edm.site_counts[2] = 1
    seen = []
    edm.average_network.register_forward_hook(lambda *_: seen.append(1))
    edm.sample(1)
    assert calls - 1 <= len(seen) <= calls


def test_churn_makes_another_image_of_the_same_seed() -> None:
    edm = model()
    train(edm, images(), max_epochs=2)
    plain = edm.sample(1, torch.Generator().manual_seed(0))
    edm.churn = 10.0
    assert (edm.sample(1, torch.Generator().manual_seed(0)) - plain).abs().max() > 1e-3


def test_a_model_that_was_never_trained_is_not_sampled() -> None:
    with pytest.raises(CrystensError, match="not been trained"):
        model().sample(1)


def test_averaged_weights_lag_behind_the_trained_ones_and_are_saved() -> None:
    edm = model()
    train(edm, images(), max_epochs=3)
    trained, average = (
        torch.cat([p.flatten() for p in part.parameters()]) for part in (edm.network, edm.average_network)
    )
    assert not torch.equal(trained, average)
    other = model()
    other.load_state_dict(edm.state_dict())
    torch.testing.assert_close(
        other.sample(2, torch.Generator().manual_seed(0)), edm.sample(2, torch.Generator().manual_seed(0))
    )


def test_the_learning_rate_rises_and_falls_to_0_at_the_planned_end() -> None:
    edm = model(warmup_steps=4)
    rates: list[float] = []

    class Rates(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    train(edm, images(), max_epochs=10, callbacks=[Rates()])
    assert rates[:4] == sorted(rates[:4])
    assert max(rates) == pytest.approx(5e-3, rel=0.15)
    assert rates[-1] < 1e-4


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"sigma_min": 0.0}, "sigma_min"),
        ({"sampler": "leap"}, "sampler"),
        ({"network_calls": 2}, "network_calls"),
        ({"churn": -1.0}, "churn"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"sample_chunk": 0}, "sample_chunk"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(CrystensError, match=named):
        model(**options)
