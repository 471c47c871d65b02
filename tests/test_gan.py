"""The vanilla GAN: who trains when, what counts as a step, sampling, and resuming."""

import csv
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader

from crystens.errors import CrystensError
from crystens.models.gan import GAN
from crystens.networks.conv import ConvDiscriminator, ConvGenerator

SIDE = 16
BATCHES = 6


def build(seed=0, **options):
    torch.manual_seed(seed)
    return GAN(
        generator=ConvGenerator(SIDE, latent_dim=8, width=8, hidden=16),
        discriminator=ConvDiscriminator(SIDE, width=4, hidden=16, dropout=0.25),
        generator_optimizer=partial(torch.optim.Adam, lr=1e-3),
        discriminator_optimizer=partial(torch.optim.Adam, lr=1e-3),
        **options,
    )


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


def weights(network):
    return [parameter.detach().clone() for parameter in network.parameters()]


def moved(network, before):
    return [not torch.equal(new, old) for new, old in zip(network.parameters(), before, strict=True)]


class Frozen(torch.optim.SGD):
    """An optimizer that steps nowhere."""

    def __init__(self, params):
        super().__init__(params, lr=0.0)


@pytest.mark.parametrize("still", ["generator", "discriminator"])
def test_each_optimizer_moves_only_its_own_weights(still, tmp_path):
    model = build()
    setattr(model, {"generator": "_generator_optimizer", "discriminator": "_opponent_optimizer"}[still], Frozen)
    other = {"generator": "discriminator", "discriminator": "generator"}[still]
    before_still, before_other = weights(getattr(model, still)), weights(getattr(model, other))
    trainer(tmp_path).fit(model, batches())
    assert not any(moved(getattr(model, still), before_still))
    assert all(moved(getattr(model, other), before_other))


def test_every_weight_still_wants_a_gradient_after_training(tmp_path):
    model = build()
    trainer(tmp_path).fit(model, batches())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_global_step_counts_generator_steps_not_both_optimizers(tmp_path):
    model = build()
    fit = trainer(tmp_path)
    fit.fit(model, batches())
    assert fit.global_step == BATCHES
    assert int(model.generator_steps) == int(model.discriminator_steps) == BATCHES


def test_max_steps_counts_generator_steps(tmp_path):
    model = build()
    fit = trainer(tmp_path, max_epochs=-1, max_steps=BATCHES + 2)
    fit.fit(model, batches())
    assert fit.global_step == int(model.generator_steps) == BATCHES + 2


def test_logged_lines_carry_losses_and_generator_steps(tmp_path):
    trainer(tmp_path, logger=CSVLogger(tmp_path, name="", version=""), max_epochs=2).fit(build(), batches())
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    lines = [row for row in rows if row["train/generator_loss"]]
    assert [int(line["step"]) for line in lines] == list(range(1, 2 * BATCHES + 1))
    assert [float(line["steps/generator"]) for line in lines] == list(range(1, 2 * BATCHES + 1))
    assert [float(line["epoch"]) for line in lines] == [0.0] * BATCHES + [1.0] * BATCHES
    assert all(float(line["train/discriminator_loss"]) > 0 for line in lines)
    epochs = [row for row in rows if row["train/generator_loss_epoch"]]
    assert [int(row["step"]) for row in epochs] == [BATCHES, 2 * BATCHES]
    mean = sum(float(line["train/generator_loss"]) for line in lines[:BATCHES]) / BATCHES
    assert float(epochs[0]["train/generator_loss_epoch"]) == pytest.approx(mean, rel=1e-5)


def test_training_step_returns_detached_losses(tmp_path):
    seen = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append(outputs)

    trainer(tmp_path, callbacks=[Watch()]).fit(build(), batches())
    assert len(seen) == BATCHES
    assert all(set(losses) == {"train/generator_loss", "train/discriminator_loss"} for losses in seen)
    assert not any(value.requires_grad for losses in seen for value in losses.values())


def test_generator_loss_falls_against_a_discriminator_that_stands_still(tmp_path):
    model = build()
    model._opponent_optimizer = Frozen
    with torch.no_grad():
        model.discriminator.body[-1].weight *= 20  # an untrained one hardly tells one image from another
    record = KeepLosses()
    trainer(tmp_path, max_epochs=20, callbacks=[record]).fit(model, batches())
    losses = [loss["train/generator_loss"] for loss in record.losses]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_discriminator_learns_to_tell_real_from_generated(tmp_path):
    model = build()
    model._generator_optimizer = Frozen
    trainer(tmp_path, max_epochs=15).fit(model, batches())
    model.eval()
    real, fake = next(iter(batches())), model.sample(4)
    assert model.discriminator(real).min() > model.discriminator(fake).max()


def test_loss_of_a_discriminator_that_cannot_tell_is_ln_2():
    model = build()
    for parameter in model.discriminator.parameters():
        torch.nn.init.zeros_(parameter)
    images = torch.rand(2, 4, SIDE, SIDE)
    assert model.discriminator_loss(images, images).item() == pytest.approx(0.693147, abs=1e-6)
    assert model.generator_loss(images).item() == pytest.approx(0.693147, abs=1e-6)


def test_gradient_clip_bounds_the_norm_of_the_step(tmp_path):
    model = build(gradient_clip=1e-3)
    norms = []

    class Watch(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            gradients = [p.grad.flatten() for group in optimizer.param_groups for p in group["params"]]
            norms.append(torch.cat(gradients).norm().item())

    trainer(tmp_path, callbacks=[Watch()]).fit(model, batches())
    assert len(norms) == 2 * BATCHES
    assert max(norms) <= 1.001e-3


def test_sample_gives_images_in_range_without_gradient_and_keeps_the_training_mode():
    model = build().train()
    images = model.sample(5)
    assert images.shape == (5, 4, SIDE, SIDE)
    assert images.dtype == torch.float32
    assert not images.requires_grad
    assert 0 <= images.min() < images.max() <= 1
    assert model.generator.training


def test_sample_depends_on_the_generator_and_not_on_the_chunk_or_the_global_seed():
    model = build(sample_chunk=2)
    torch.manual_seed(1)
    first = model.sample(5, torch.Generator().manual_seed(7))
    model.sample_chunk = 5
    torch.manual_seed(2)
    assert torch.allclose(model.sample(5, torch.Generator().manual_seed(7)), first, atol=1e-6)
    assert not torch.allclose(model.sample(5, torch.Generator().manual_seed(8)), first, atol=1e-6)


def test_sampling_with_a_generator_leaves_the_global_one_alone():
    model = build()
    state = torch.get_rng_state()
    model.sample(3, torch.Generator().manual_seed(7))
    assert torch.equal(torch.get_rng_state(), state)


class KeepLosses(pl.Callback):
    """Keep every loss, and restore torch's generator where a checkpoint was written."""

    def __init__(self):
        self.losses = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append({name: value.item() for name, value in outputs.items()})

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        checkpoint["rng"] = torch.get_rng_state()

    def on_load_checkpoint(self, trainer, pl_module, checkpoint):
        self.rng = checkpoint["rng"]

    def on_train_start(self, trainer, pl_module):
        if hasattr(self, "rng"):
            torch.set_rng_state(self.rng)


def test_resumed_run_repeats_the_losses_of_an_uninterrupted_one(tmp_path):
    whole = KeepLosses()
    save = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=BATCHES, save_top_k=-1)
    trainer(tmp_path, max_epochs=2, callbacks=[whole, save], enable_checkpointing=True).fit(build(), batches())
    rest = KeepLosses()
    fit = trainer(tmp_path, max_epochs=2, callbacks=[rest])
    model = build(seed=5)
    fit.fit(model, batches(), ckpt_path=tmp_path / f"step={BATCHES}.ckpt", weights_only=False)
    assert fit.global_step == int(model.generator_steps) == 2 * BATCHES
    assert rest.losses == whole.losses[BATCHES:]


@pytest.mark.parametrize(
    ("preset", "side"), [("gan", 16), ("gan", 32), ("wgan", 16), ("wgan", 32), ("paper_gan", 64), ("paper_wgan", 64)]
)
def test_preset_builds_a_model_of_the_side_asked_for(preset, side):
    config = OmegaConf.load(Path(__file__).parent.parent / "conf" / "model" / f"{preset}.yaml")
    config = OmegaConf.merge({"image_side": side}, config)
    with torch.device("meta"):
        model = instantiate(config.model, _convert_="all")
        assert model.image_side == side
        assert [len(optimizer.param_groups) for optimizer in model.configure_optimizers()] == [1, 1]


def test_networks_of_different_sides_are_refused():
    with pytest.raises(CrystensError, match="side 16 and its opponent reads side 18"):
        GAN(ConvGenerator(16), ConvDiscriminator(18), torch.optim.Adam, torch.optim.Adam)


@pytest.mark.parametrize(("option", "value"), [("gradient_clip", 0.0), ("sample_chunk", 0)])
def test_numbers_out_of_range_are_refused(option, value):
    with pytest.raises(CrystensError, match=f"{option}={value}"):
        build(**{option: value})
