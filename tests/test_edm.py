"""EDM: levels of noise, what the loss is, sampling, and averaging."""

from __future__ import annotations

import functools
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from crystens.batch import CrystalBatch
from crystens.callbacks.image_format import ImageFormat
from crystens.crystal import Crystal
from crystens.encoding import HEADER, average_mirror_images, present_cells
from crystens.errors import CrystensError
from crystens.metrics.statistics import image_statistics
from crystens.models.denoising import KarrasSchedule
from crystens.models.edm import EDM
from crystens.networks.row_transformer import RowTransformer
from crystens.networks.surroundings import surroundings
from crystens.scaling import Scaling

SIDE = 16


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def model(network_options: dict[str, Any] | None = None, **options: Any) -> EDM:
    network = RowTransformer(SIDE, width=32, depth=2, heads=2, **network_options or {})
    arguments: dict[str, Any] = {"network_calls": 9, "warmup_steps": 5, "ema_decay": 0.9} | options
    arguments.setdefault("optimizer", functools.partial(torch.optim.AdamW, lr=5e-3))
    return EDM(network, **arguments)


def images(n: int = 8, sites: int = 2) -> torch.Tensor:
    """Images of one crystal."""
    made = torch.zeros(n, 4, SIDE, SIDE)
    filled = slice(HEADER, HEADER + sites)
    made[..., :11, filled] = torch.linspace(0.2, 0.9, 11)[:, None]
    made[..., filled, :11] = torch.linspace(0.2, 0.9, 11)
    made[..., filled, filled] = 0.5
    return made


def quiet_trainer(**options: Any) -> pl.Trainer:
    arguments: dict[str, Any] = {"max_epochs": 4, "logger": False, "enable_checkpointing": False} | options
    return pl.Trainer(
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        **arguments,
    )


def train(edm: EDM, data: torch.Tensor, **options: Any) -> pl.Trainer:
    trainer = quiet_trainer(**options)
    trainer.fit(edm, DataLoader(data, batch_size=len(data) // 2))
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


@pytest.mark.parametrize(
    ("option", "part"),
    [
        ("atom_weight", (slice(0, 1), slice(HEADER, HEADER + 2))),
        ("attribute_weight", (slice(3, 4), slice(HEADER, HEADER + 2))),
        ("pair_weight", (slice(HEADER, HEADER + 2), slice(HEADER, HEADER + 2))),
    ],
)
def test_cells_count_in_the_loss_as_their_weights_say(option: str, part: tuple[slice, slice]) -> None:
    def share(edm: EDM) -> float:
        """Return what moving two, or four, cells of one kind from their guess adds, as a share of the weights' sum."""
        losses = []
        for value in (0.5, 1.0):
            data = torch.full((8, 4, SIDE, SIDE), 0.5) * present_cells(torch.full((8,), 2), SIDE)[:, None]
            data[:, :, part[0], part[1]] = value
            torch.manual_seed(3)
            losses.append(float(edm.loss(data, torch.full((8,), 2)).detach()))
        return losses[1] - losses[0]

    plain = {"noise_deviation": 1e-3, "noise_mean": 5.0, "max_weight": 1.0}
    cells = {"atom_weight": 4, "attribute_weight": 40, "pair_weight": 4}
    expected = 3 * sum(cells.values()) / (sum(cells.values()) + 2 * cells[option])
    assert share(model(**plain, **{option: 3.0})) / share(model(**plain)) == pytest.approx(expected, rel=0.05)


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
    apart = (given - images(4)).abs()  # values are 0.2 to 0.9
    for part in (apart[:, :, :11, 12:14], apart[:, :, 12:14, :11], apart[:, :, 12:14, 12:14]):
        assert part.max() < 0.06
    assert (given[:, :, 14:] == 0).all()


@pytest.mark.parametrize("prediction", ["image", "residual"])
@pytest.mark.parametrize(("sampler", "churn"), [("heun", 0.0), ("heun", 1.0), ("heun", 30.0), ("euler", 1.0)])
def test_samples_are_those_of_the_source_s_algorithms(sampler: str, churn: float, prediction: str) -> None:
    # Karras et al. 2022, Algorithms 1 and 2 (Euler's without the correction), but for noise in the last step.
    edm = model(sampler=sampler, churn=churn, prediction=prediction)
    torch.nn.init.normal_(edm.average_network.transformer.out_proj.weight, std=0.1)
    edm.site_counts[2] = 1
    seed = int(torch.randint(2**62, (1,), generator=torch.Generator().manual_seed(5)))
    generator = torch.Generator().manual_seed(seed)
    torch.rand(1, dtype=torch.float64, generator=generator)  # the number of sites
    counts = torch.tensor([2])
    mask = present_cells(counts, SIDE)[:, None]

    def denoised(x: torch.Tensor, level: float) -> torch.Tensor:
        given = edm.average_network(x / (1 + level**2) ** 0.5, torch.tensor(level).log(), counts)
        if prediction == "residual":
            given = x / (1 + level**2) + level / (1 + level**2) ** 0.5 * given
        return given * mask

    def noise() -> torch.Tensor:
        return torch.randn(4, SIDE, SIDE, generator=generator) * mask

    steps = 5 if sampler == "heun" else 9  # of nine calls
    low, high, rho = edm.schedule.low, edm.schedule.high, edm.schedule.rho
    levels = [(high + i / (steps - 1) * (low - high)) ** rho for i in range(steps)]
    with torch.no_grad():
        x = levels[0] * noise()
        for level, after in itertools.pairwise(levels):
            higher = level * (1 + min(churn / steps, 2**0.5 - 1))
            x = x + (higher**2 - level**2) ** 0.5 * noise() if churn else x
            slope = (x - denoised(x, higher)) / higher
            there = x + (after - higher) * slope
            if sampler == "heun":
                slope = (slope + (there - denoised(there, after)) / after) / 2
            x = x + (after - higher) * slope
        expected = ((denoised(x, levels[-1]) * 0.25 + 0.5).clamp(0, 1)) * mask
    torch.testing.assert_close(edm.sample(1, torch.Generator().manual_seed(5)), expected, atol=2e-4, rtol=0)


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


def test_a_network_that_averages_mirror_images_gives_the_image_before_that() -> None:
    edm = model({"symmetric": True}, network_calls=5)
    edm.site_counts[2] = 1
    seen = []
    edm.average_network.register_forward_hook(lambda network, given, image: seen.append((network.symmetric, image)))
    (sampled,) = edm.sample(1, torch.Generator().manual_seed(0))
    assert [symmetric for symmetric, _ in seen] == [True] * 4 + [False]
    assert edm.average_network.symmetric
    mask = present_cells(torch.tensor([2]), SIDE)
    torch.testing.assert_close(sampled, ((seen[-1][1][0] * 0.25 + 0.5).clamp(0, 1) * mask))
    assert (sampled - average_mirror_images(sampled[None])[0]).abs().max() > 1e-3


def test_what_a_symmetric_network_draws_is_trained_before_it_is_averaged() -> None:
    plain = model()
    symmetric = model({"symmetric": True})
    symmetric.load_state_dict(plain.state_dict())
    losses = []
    for edm in (plain, symmetric):
        torch.manual_seed(1)
        losses.append(edm.loss(images(), torch.full((8,), 2)))
    assert torch.equal(*losses)
    assert symmetric.network.symmetric


def test_self_conditioning_shows_the_estimate_of_the_call_before() -> None:
    edm = model({"self_conditioning": True})
    train(edm, images(), max_epochs=1)
    calls: list[tuple[torch.Tensor | None, torch.Tensor]] = []
    edm.average_network.register_forward_hook(
        lambda _, __, options, out: calls.append((options["estimate"], out)), with_kwargs=True
    )
    edm.sample(2, torch.Generator().manual_seed(0))
    assert len(calls) == 9
    assert calls[0][0] is None
    mask = present_cells(torch.full((2,), 2), SIDE)[:, None]
    for (_, before), (shown, _) in itertools.pairwise(calls):
        assert torch.equal(shown, before * mask)


def test_half_the_training_images_are_shown_their_first_estimate() -> None:
    edm = model({"self_conditioning": True})
    torch.nn.init.normal_(edm.network.transformer.out_proj.weight)
    calls: list[tuple[torch.Tensor | None, bool]] = []
    edm.network.register_forward_hook(
        lambda _, __, options, out: calls.append((options["estimate"], out.requires_grad)), with_kwargs=True
    )
    edm.loss(images(200), torch.full((200,), 2)).backward()
    (first, learned_from), (shown, learned_from_second) = calls
    assert first is None
    assert not learned_from
    assert learned_from_second
    share = (shown != 0).flatten(1).any(dim=1).float().mean()
    assert 0.35 < share < 0.65


def test_scaled_cells_are_less_noisy_and_come_back_as_they_are() -> None:
    edm = model(atom_scale=2.0, group_scale=4.0, noise_mean=math.log(2), noise_deviation=1e-9, rows=11)
    read: list[torch.Tensor] = []
    edm.network.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    edm.loss(images(400), torch.full((400,), 2))
    for row, scale in ((0, 2.0), (5, 1.0), (10, 4.0)):
        cells = read[0][:, 0, row, HEADER]
        clean = (0.2 + 0.07 * row - 0.5) / 0.25
        assert cells.mean().item() == pytest.approx(clean * scale / (scale**2 + 4) ** 0.5, abs=0.12)
        assert cells.std().item() == pytest.approx(2 / (scale**2 + 4) ** 0.5, rel=0.12)

    class Perfect(torch.nn.Module):
        image_side = SIDE

        def __init__(self) -> None:
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(1))

        def forward(self, given: torch.Tensor, log_noise: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
            return ((images(len(given)) - 0.5) / 0.25) + self.unused

    for scales in ({}, {"atom_scale": 2.0, "group_scale": 4.0}):
        known = EDM(Perfect(), functools.partial(torch.optim.AdamW, lr=1e-3), network_calls=9, **scales)
        assert known.loss(images(4), torch.full((4,), 2)).item() == pytest.approx(0, abs=1e-9)
        known.site_counts[2] = 1
        mask = present_cells(torch.full((3,), 2), SIDE)[:, None]
        torch.testing.assert_close(known.sample(3), images(3) * mask, atol=1e-5, rtol=0)


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


def test_averaged_weights_move_once_for_each_step_of_the_optimizer() -> None:
    edm = model()
    train(edm, images(), max_epochs=4, accumulate_grad_batches=2)  # two batches an epoch
    assert int(edm.steps) == 4


def test_averaged_weights_of_a_resumed_run_move_as_often(tmp_path: Path) -> None:
    options = {"accumulate_grad_batches": 2}
    train(model(), images(), max_epochs=2, **options).save_checkpoint(tmp_path / "half.ckpt")
    resumed = model()
    loader = DataLoader(images(), batch_size=4)
    quiet_trainer(max_epochs=4, **options).fit(resumed, loader, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert int(resumed.steps) == 4


def test_a_checkpoint_within_an_epoch_has_the_averaged_weights_of_its_step(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=-1)
    trainer = quiet_trainer(max_epochs=2, callbacks=[saver], enable_checkpointing=True)
    trainer.fit(model(), DataLoader(images(), batch_size=4))
    (path,) = tmp_path.glob("*.ckpt")
    kept = torch.load(path, weights_only=True)
    assert int(kept["state_dict"]["steps"]) == kept["global_step"] == 3


def test_fused_optimizers_are_clipped_under_mixed_precision() -> None:
    moved = []
    for bound in (None, 1e-20):
        edm = model(optimizer=functools.partial(torch.optim.SGD, lr=1.0, fused=True))
        before = [parameter.detach().clone() for parameter in edm.network.parameters()]
        train(edm, images(), max_epochs=1, precision="bf16-mixed", gradient_clip_val=bound)
        moved.append(max(float((a - b).abs().max()) for a, b in zip(before, edm.network.parameters(), strict=True)))
    assert moved[0] > 1e-6
    assert moved[1] < 1e-18


@pytest.mark.parametrize(
    ("diagonal", "distance", "advice"),
    [(False, "fractional", "scaling=fitted"), (True, "cartesian", "encoding.distance=fractional")],
)
def test_images_that_it_does_not_know_are_refused(diagonal: bool, distance: str, advice: str) -> None:
    crystals = Salt().crystals
    scaling = Scaling.fit(crystals) if diagonal else Scaling.paper(crystals)
    with pytest.raises(CrystensError, match=advice):
        model({"geometric_pairs": True}).prepare_for_images(SIDE, scaling, distance)


def test_images_of_another_side_are_refused() -> None:
    data = Salt()
    data.image_side = 40
    with pytest.raises(CrystensError, match="the data's images are 40 px and the network's"):
        quiet_trainer(callbacks=[ImageFormat()]).fit(model(), datamodule=data)


class Salt(pl.LightningDataModule):
    """Images of one crystal, with their scaling."""

    def __init__(self) -> None:
        super().__init__()
        crystal = Crystal([4.1] * 3, [90] * 3, 221, [55, 17], [[0, 0, 0], [0.5, 0.5, 0.5]])
        self.crystals = CrystalBatch.from_crystals([crystal] * 8, SIDE - HEADER)
        self.scaling, self.distance, self.image_side = Scaling.fit(self.crystals), "fractional", SIDE
        self.images = self.scaling.encode(self.crystals)

    def train_dataloader(self) -> DataLoader[torch.Tensor]:
        return DataLoader(self.images, batch_size=4)


def test_geometric_pairs_agree_with_the_coordinates_after_a_step() -> None:
    data = Salt()
    edm = model({"geometric_pairs": True})
    trainer = quiet_trainer(max_epochs=1, callbacks=[ImageFormat()])
    trainer.fit(edm, datamodule=data)
    for network in (edm.network, edm.average_network):
        torch.testing.assert_close(network.slopes, data.scaling.factors / 0.25)
        torch.testing.assert_close(network.offsets, (data.scaling.offsets - 0.5) / 0.25)
        assert network.limits.tolist() == [-2, 2]
    found = image_statistics(edm.sample(20, torch.Generator().manual_seed(0)), data.scaling)
    assert found["coordinate_variance"].max() > 1e-9  # the copies are not averaged
    assert found["coordinate_agreement"].max() < 1e-5
    plain = model()
    quiet_trainer(max_epochs=1).fit(plain, datamodule=data)
    found = image_statistics(plain.sample(20, torch.Generator().manual_seed(0)), data.scaling)
    assert found["coordinate_agreement"].max() > 1e-4
    with pytest.raises(CrystensError, match="call prepare_for_images"):
        train(model({"geometric_pairs": True}), data.images)


def test_sites_read_their_true_surroundings_where_there_is_no_noise() -> None:
    data = Salt()
    edm = model({"surroundings": True})
    quiet_trainer(max_epochs=1, callbacks=[ImageFormat()]).fit(edm, datamodule=data)
    assert edm.sample(2, torch.Generator().manual_seed(0)).isfinite().all()
    given: list[torch.Tensor] = []
    edm.network.transformer.in_proj.register_forward_pre_hook(lambda _, read: given.append(read[0][..., 8 * SIDE :]))
    counts = torch.full((8,), 2)
    edm.network((data.images - 0.5) / 0.25, torch.tensor(-9.0), counts)
    cells, places = torch.tensor([[4.1] * 3 + [90.0] * 3]), torch.tensor([[[0.0] * 3, [0.5] * 3]])
    true = surroundings(cells, places, torch.ones(1, 2, dtype=torch.bool), torch.zeros(1))
    found = given[0][:, HEADER : HEADER + 2]
    assert true.abs().max() > 5  # eight unlike neighbours at 3.55 angstrom
    torch.testing.assert_close(found, true.expand(8, -1, -1), atol=1e-3, rtol=0)
    assert not given[0][:, :HEADER].any()
    with pytest.raises(CrystensError, match="call prepare_for_images"):
        train(model({"surroundings": True}), data.images)


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
        ({"network_calls": 6.5}, "network_calls=6.5 must be a whole number"),
        ({"max_weight": None}, "inf bounds no weight"),
        ({"churn": -1.0}, "churn"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"group_scale": 0.0}, "group_scale"),
        ({"atom_scale": 2.0, "prediction": "residual"}, "prediction=residual"),
        ({"sample_chunk": 0}, "sample_chunk"),
        ({"sample_chunk": 2.5}, "sample_chunk"),
        ({"network_options": {"parts": 2.5}}, "parts=2.5"),
        ({"prediction": "residual", "network_options": {"symmetric": True}}, "network.symmetric"),
        ({"prediction": "residual", "network_options": {"geometric_pairs": True}}, "network.geometric_pairs"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(CrystensError, match=named):
        model(**options)
