"""The WGAN with gradient penalty: the order of steps, the counting of generator steps only, and the penalty."""

import csv
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader

from crystens.errors import CrystensError
from crystens.models.wgan import WGANGP
from crystens.networks.conv import ConvDiscriminator, ConvGenerator

SIDE = 16
BATCHES = 10
CELLS = 4 * SIDE * SIDE


def build(seed=0, **options):
    torch.manual_seed(seed)
    defaults = {
        "generator": ConvGenerator(SIDE, latent_dim=8, width=8, hidden=16),
        "critic": ConvDiscriminator(SIDE, width=4, hidden=16, spectral_norm=True),
        "generator_optimizer": partial(torch.optim.Adam, lr=1e-3, betas=(0.0, 0.9)),
        "critic_optimizer": partial(torch.optim.Adam, lr=1e-3, betas=(0.0, 0.9)),
    }
    return WGANGP(**(defaults | options))


def batches(count=BATCHES, size=4):
    images = torch.rand(count * size, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    # A generator of its own: a DataLoader without one draws a seed from torch's for each epoch, resumed epochs too.
    return DataLoader(images, batch_size=size, generator=torch.Generator())


def trainer(folder, **options):
    defaults = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
        "max_epochs": 1,
    }
    return pl.Trainer(default_root_dir=folder, **(defaults | options))


class Record(pl.Callback):
    """Keep the losses, the batches and the order of the steps; carry torch's generator through a checkpoint."""

    def __init__(self):
        self.losses, self.batches, self.steps, self.global_steps = [], [], [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.steps.append("generator" if optimizer is trainer.optimizers[0] else "critic")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append({name: value.item() for name, value in outputs.items()})
        self.batches.append(batch)
        self.global_steps.append(trainer.global_step)

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        checkpoint["rng"] = torch.get_rng_state()

    def on_load_checkpoint(self, trainer, pl_module, checkpoint):
        self.rng = checkpoint["rng"]

    def on_train_start(self, trainer, pl_module):
        if hasattr(self, "rng"):
            torch.set_rng_state(self.rng)


class LinearCritic(nn.Module):
    """score = factor * sum of cells: its gradient has the norm factor * sqrt(cells) everywhere."""

    image_side = SIDE

    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(float(factor)))

    def forward(self, images):
        return self.factor * images.sum(dim=(1, 2, 3))


def test_five_critic_steps_on_five_different_batches_come_before_each_generator_step(tmp_path):
    record = Record()
    trainer(tmp_path, callbacks=[record]).fit(build(), batches())
    assert record.steps == (["critic"] * 5 + ["generator"]) * 2
    assert len({batch.sum().item() for batch in record.batches}) == BATCHES


def test_global_step_counts_generator_steps_only(tmp_path):
    model, record = build(), Record()
    fit = trainer(tmp_path, callbacks=[record])
    fit.fit(model, batches())
    assert fit.global_step == int(model.generator_steps) == 2
    assert int(model.critic_steps) == 10
    assert record.global_steps == [0, 0, 0, 0, 1, 1, 1, 1, 1, 2]


def test_counts_of_critic_steps_go_on_over_the_end_of_an_epoch(tmp_path):
    model = build()
    fit = trainer(tmp_path, max_epochs=5)
    fit.fit(model, batches(count=3))
    assert (fit.global_step, int(model.critic_steps)) == (3, 15)


def test_max_steps_counts_generator_steps(tmp_path):
    model = build()
    fit = trainer(tmp_path, max_epochs=-1, max_steps=3)
    fit.fit(model, batches())
    assert (fit.global_step, int(model.critic_steps)) == (3, 15)


def test_checkpoint_interval_counts_generator_steps(tmp_path):
    save = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=2, save_top_k=-1)
    trainer(tmp_path, max_epochs=2, callbacks=[save], enable_checkpointing=True).fit(build(), batches())
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == ["step=2.ckpt", "step=4.ckpt"]


def test_logged_lines_carry_generator_steps_and_both_counts(tmp_path):
    logger = CSVLogger(tmp_path, name="", version="")
    trainer(tmp_path, logger=logger, log_every_n_steps=5).fit(build(), batches())
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [int(row["step"]) for row in rows if row["train/critic_loss_epoch"]] == [2]
    lines = [row for row in rows if row["steps/critic"]]
    assert [int(line["step"]) for line in lines] == [1, 2]
    assert [float(line["steps/generator"]) for line in lines] == [1, 2]
    assert [float(line["steps/critic"]) for line in lines] == [5, 10]
    names = [f"train/{n}" for n in ("critic_loss", "generator_loss", "gradient_penalty", "wasserstein_distance")]
    assert all(float(line[name]) == float(line[name]) for line in lines for name in names)


@pytest.mark.parametrize("stop", [1, 3])
def test_resumed_run_repeats_the_losses_and_counts_of_an_uninterrupted_one(stop, tmp_path):
    # Three batches an epoch: the run stops between two generator steps. (No file is written after epochs 0 and 2,
    # in which the generator has not stepped: a ModelCheckpoint skips a global step that it has seen.)
    whole = Record()
    save = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, every_n_epochs=1)
    trainer(tmp_path, max_epochs=5, callbacks=[whole, save], enable_checkpointing=True).fit(build(), batches(count=3))
    rest, model = Record(), build(seed=5)
    fit = trainer(tmp_path, max_epochs=5, callbacks=[rest])
    fit.fit(model, batches(count=3), ckpt_path=tmp_path / f"epoch={stop}.ckpt", weights_only=False)
    assert rest.losses == whole.losses[3 * (stop + 1) :]
    assert rest.global_steps == whole.global_steps[3 * (stop + 1) :]
    assert (fit.global_step, int(model.critic_steps)) == (3, 15)


@pytest.mark.parametrize("factor", [0.0, 0.5, 1 / 32, -0.1])
def test_penalty_of_a_linear_critic_is_its_closed_form(factor):
    model = build(critic=LinearCritic(factor))
    real, fake = torch.rand(3, 4, SIDE, SIDE), torch.rand(3, 4, SIDE, SIDE)
    norm = abs(factor) * CELLS**0.5
    penalty = model.gradient_penalty(real, fake)
    assert penalty.item() == pytest.approx((norm - 1) ** 2, rel=1e-4, abs=1e-9)


def test_gradient_of_the_penalty_of_a_linear_critic_is_its_closed_form():
    model = build(critic=LinearCritic(0.5))
    model.gradient_penalty(torch.rand(3, 4, SIDE, SIDE), torch.rand(3, 4, SIDE, SIDE)).backward()
    norm = 0.5 * CELLS**0.5
    assert model.critic.factor.grad.item() == pytest.approx(2 * (norm - 1) * CELLS**0.5, rel=1e-5)


def test_penalty_is_taken_between_real_and_generated_images():
    seen = []

    class Spy(LinearCritic):
        def forward(self, images):
            seen.append(images.detach())
            return super().forward(images)

    real, fake = torch.ones(64, 4, SIDE, SIDE), torch.zeros(64, 4, SIDE, SIDE)
    build(critic=Spy(1.0)).gradient_penalty(real, fake)
    (points,) = seen
    assert torch.equal(points.amin(dim=(1, 2, 3)), points.amax(dim=(1, 2, 3))), "one share for each image"
    assert points.min() < 0.2
    assert points.max() > 0.8


def test_penalty_is_float32_under_autocast():
    model = build()
    real, fake = torch.rand(2, 4, SIDE, SIDE), torch.rand(2, 4, SIDE, SIDE)
    model.critic.eval()
    torch.manual_seed(3)
    expected = model.gradient_penalty(real, fake)
    torch.manual_seed(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        penalty = model.gradient_penalty(real.bfloat16().float(), fake)
        assert model.critic(real).dtype == torch.bfloat16, "autocast is on outside of the penalty"
    assert penalty.dtype == torch.float32
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-4)


def test_trains_in_bfloat16_mixed_precision(tmp_path):
    record = Record()
    trainer(tmp_path, precision="bf16-mixed", callbacks=[record]).fit(build(), batches())
    assert all(torch.tensor(list(losses.values())).isfinite().all() for losses in record.losses)


def test_weights_of_less_than_float32_are_refused(tmp_path):
    with pytest.raises(CrystensError, match=r"torch.bfloat16.*bf16-mixed"):
        trainer(tmp_path, precision="bf16-true").fit(build(), batches())


def test_critic_tells_real_from_generated_images_after_a_few_steps(tmp_path):
    model = build(critic_steps=1000)
    trainer(tmp_path, max_epochs=10).fit(model, batches())
    model.eval()
    real, fake = next(iter(batches())), model.sample(4)
    assert int(model.generator_steps) == 0
    assert model.critic(real).min() > model.critic(fake).max()


def test_generator_comes_nearer_to_one_batch(tmp_path):
    # All real images are one: a generator that learns makes its pixels.
    image = (torch.rand(1, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    fast = partial(torch.optim.Adam, lr=5e-3, betas=(0.0, 0.9))
    critic = ConvDiscriminator(SIDE, width=8, hidden=16)
    model = build(critic=critic, critic_steps=1, generator_optimizer=fast, critic_optimizer=fast)
    before = (model.sample(16, torch.Generator().manual_seed(0)) - image).abs().mean()
    trainer(tmp_path, max_epochs=1).fit(model, DataLoader(image.expand(480, -1, -1, -1), batch_size=4))
    after = (model.sample(16, torch.Generator().manual_seed(0)) - image).abs().mean()
    assert after < 0.75 * before, (float(before), float(after))


def test_each_optimizer_moves_only_its_own_weights(tmp_path):
    model = build(critic_steps=1)
    before = [p.detach().clone() for p in model.parameters()]
    model._generator_optimizer = partial(torch.optim.SGD, lr=0.0)
    trainer(tmp_path).fit(model, batches())
    generator = len(list(model.generator.parameters()))
    changed = [not torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True)]
    assert not any(changed[:generator])
    assert sum(changed[generator:]) >= len(changed[generator:]) - 1, "the last bias of a critic cancels"

    model = build(critic_steps=1, critic_optimizer=partial(torch.optim.SGD, lr=0.0))
    before = [p.detach().clone() for p in model.parameters()]
    trainer(tmp_path).fit(model, batches())
    changed = [not torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True)]
    assert all(changed[:generator])
    assert not any(changed[generator:])


@pytest.mark.parametrize(("option", "value"), [("critic_steps", 0), ("penalty_weight", -1.0)])
def test_numbers_out_of_range_are_refused(option, value):
    with pytest.raises(CrystensError, match=f"{option}={value}"):
        build(**{option: value})
