"""Switches for speed: what they change, what they leave as it is, and what they refuse."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig
from test_train import CONF, config, losses
from torch import nn

from crystens.callbacks.acceleration import Acceleration, NetworksOf16Bits, networks, precision_arguments
from crystens.checkpoint import load_checkpoint
from crystens.errors import CrystensError
from crystens.models.diffusion import CascadedDiffusion
from crystens.models.eager import run_eagerly
from crystens.models.gan import GAN
from crystens.models.wgan import WGANGP
from crystens.networks.conv import ConvDiscriminator, ConvGenerator
from crystens.optimization.clipping import clip_gradients
from crystens.samples.folder import read_samples
from crystens.training import tasks

SIDE = 16
FUSED = {
    "gan": ["+model.generator_optimizer.fused=true", "+model.discriminator_optimizer.fused=true"],
    "wgan": ["+model.generator_optimizer.fused=true", "+model.critic_optimizer.fused=true"],
    "diffusion": ["+model.optimizer.fused=true"],
}

# Adam's first steps have the size of the learning rate whatever the gradient's: a bias before a batch normalisation,
# whose gradient is rounding, goes either way.
ROUNDING = {"gan": 1e-2, "wgan": 1e-3, "diffusion": 1e-3}

# Two epochs of each loss; the two stages of the diffusion model take turns. Samples are judged once, at the end.
EPOCHS = {"gan": 2, "wgan": 2, "diffusion": 4}


def short(folder: Path, model: str, *more: str) -> DictConfig:
    """Return the config of a run of two epochs of each loss."""
    return config(
        folder, model, f"trainer.max_epochs={EPOCHS[model]}", "callbacks.sample_statistics.every_n_epochs=4", *more
    )


@pytest.fixture(autouse=True)
def _as_before():
    """Leave torch's precision of products as it was."""
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> dict[str, Path]:
    """A run of each model without any switch, made once."""
    folders = {model: tmp_path_factory.mktemp("plain") / model for model in FUSED}
    for model, folder in folders.items():
        tasks.train(short(folder, model))
    return folders


@pytest.fixture
def traced(monkeypatch):
    """Has torch.compile trace and differentiate as it always does, but write no C++, which takes minutes."""
    modes = []

    def compile(function, mode):
        modes.append(mode)
        return compiled(function, backend="aot_eager")

    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", compile)
    torch._dynamo.reset()
    return modes


def small_wgan() -> WGANGP:
    torch.manual_seed(0)
    adam = functools.partial(torch.optim.Adam, lr=1e-3)
    return WGANGP(ConvGenerator(SIDE, 8, 8, 16), ConvDiscriminator(SIDE, 4, 16), adam, adam, critic_steps=1)


def assert_near(found: dict[str, list[float]], expected: dict[str, list[float]], rel: float) -> None:
    for name, values in expected.items():
        assert len(values) >= 2
        assert found[name] == pytest.approx(values, rel=rel), name


CASES = [
    ("gan", ["trainer.precision=bf16-mixed"], 0.02),
    ("wgan", ["trainer.precision=bf16-mixed"], 0.04),
    ("diffusion", ["trainer.precision=bf16-mixed"], 0.02),
    ("gan", ["trainer.precision=bf16-true"], 0.02),
    ("diffusion", ["trainer.precision=bf16-true"], 0.02),
    *((model, ["acceleration.channels_last=true"], ROUNDING[model]) for model in FUSED),
    *((model, ["acceleration.matmul_precision=high"], ROUNDING[model]) for model in FUSED),
    *((model, lines, ROUNDING[model]) for model, lines in FUSED.items()),
    ("diffusion", [*FUSED["diffusion"], "trainer.precision=bf16-mixed"], 0.02),  # clipped as well
]


@pytest.mark.parametrize(("model", "switches", "rel"), CASES, ids=lambda case: str(case))
def test_losses_with_a_switch_are_near_those_without(tmp_path, plain, model, switches, rel):
    tasks.train(short(tmp_path, model, *switches))
    assert_near(losses(tmp_path, model), losses(plain[model], model), rel)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_images_are_given_out_in_float32_whatever_the_precision(tmp_path, precision):
    tasks.train(short(tmp_path, "gan", f"trainer.precision={precision}", "num_samples=3"))
    images = read_samples(tmp_path / "samples" / "images.safetensors").images
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1


def test_bf16_true_trains_weights_of_16_bits_and_averages_in_float32(tmp_path):
    tasks.train(short(tmp_path, "diffusion", "trainer.precision=bf16-true", "trainer.max_epochs=2"))
    state = load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["state_dict"]
    kinds = {
        part: {v.dtype for n, v in state.items() if n.startswith(part) and v.is_floating_point()}
        for part in ("unets.", "average_unets.")
    }
    assert kinds == {"unets.": {torch.bfloat16}, "average_unets.": {torch.float32}}


def test_bf16_true_sees_images_that_were_encoded_in_float32(tmp_path, monkeypatch):
    seen = []
    step = GAN.training_step
    monkeypatch.setattr(GAN, "training_step", lambda self, batch, i: seen.append(batch) or step(self, batch, i))
    tasks.train(short(tmp_path, "gan", "trainer.precision=bf16-true"))
    assert {images.dtype for images in seen} == {torch.float32}
    assert any(not torch.equal(images, images.bfloat16().float()) for images in seen)


def test_wgan_refuses_bf16_true_for_its_penalty(tmp_path):
    with pytest.raises(CrystensError, match=r"torch.bfloat16.*bf16-mixed"):
        tasks.train(config(tmp_path, "wgan", "trainer.precision=bf16-true"))


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("16-true", "use bf16-true"),
        ("16-mixed", "needs a GPU; on a CPU use bf16-mixed"),
        ("64-true", "use 32-true"),
    ],
)
def test_a_precision_that_does_not_train_here_is_refused(tmp_path, precision, message):
    with pytest.raises(CrystensError, match=rf"trainer\.precision={precision}.*{message}"):
        tasks.train(config(tmp_path, "gan", f"trainer.precision={precision}"))


def test_float16_weights_do_not_train_which_is_why_they_are_refused(tmp_path, monkeypatch):
    plugins = {"precision": None, "plugins": [NetworksOf16Bits("16-true")]}
    monkeypatch.setattr(tasks, "precision_arguments", lambda *_: plugins)
    with pytest.raises(CrystensError, match="became NaN or infinite"):
        tasks.train(config(tmp_path, "gan"))


def test_a_tpu_keeps_lightnings_own_precision():
    assert precision_arguments("bf16-true", "tpu") == {}
    assert precision_arguments("32-true", "cpu") == {}


def test_without_a_switch_no_forward_is_touched():
    model = small_wgan()
    Acceleration().apply(model)
    assert torch.get_float32_matmul_precision() == "highest"
    assert all("forward" not in network.__dict__ for network in networks(model))


def test_matmul_precision_is_torchs_own():
    Acceleration(matmul_precision="high").apply(small_wgan())
    assert torch.get_float32_matmul_precision() == "high"


def test_channels_last_reaches_weights_and_what_convolutions_give():
    model, seen = small_wgan(), []
    Acceleration(channels_last=True).apply(model)
    model.critic.body[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
    model.critic(torch.rand(2, 4, SIDE, SIDE))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert not seen[0].is_contiguous()


@pytest.mark.parametrize(("before", "after"), [("false", "true"), ("true", "false")])
def test_a_run_goes_on_with_another_layout_and_a_fused_optimizer(tmp_path, before, after):
    fused = FUSED["gan"]
    tasks.train(short(tmp_path / "whole", "gan", *fused))
    folder = tmp_path / "changed"
    tasks.train(short(folder, "gan", *fused, f"acceleration.channels_last={before}", "trainer.max_epochs=1"))
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace(f"channels_last: {before}", f"channels_last: {after}"))
    path.write_text(path.read_text().replace("max_epochs: 1", "max_epochs: 2"))
    tasks.train(config(folder, "gan", f"resume={folder}"))
    # Two networks against each other enlarge the rounding of another layout; by how much depends on the processor.
    assert_near(losses(folder, "gan"), losses(tmp_path / "whole", "gan"), 5e-3)


def test_a_compiled_critic_is_penalised_as_one_that_is_not(traced):
    real, fake = torch.rand(3, 4, SIDE, SIDE), torch.rand(3, 4, SIDE, SIDE)

    def gradients(model):
        torch.manual_seed(1)
        (model.critic(real).mean() + model.gradient_penalty(real, fake)).backward()
        return [parameter.grad for parameter in model.critic.parameters() if parameter.grad is not None]

    model = small_wgan()
    Acceleration(compile="default").apply(model)
    for compiled, eager in zip(gradients(model), gradients(small_wgan()), strict=True):
        assert torch.allclose(compiled, eager, rtol=1e-4, atol=1e-6)
    assert traced == ["default"] * 2


def test_what_is_compiled_cannot_be_differentiated_twice_and_run_eagerly_is_why_it_can(traced):
    model = small_wgan()
    Acceleration(compile="default").apply(model)
    points = torch.rand(3, 4, SIDE, SIDE, requires_grad=True)

    def penalty():
        (slope,) = torch.autograd.grad(model.critic(points).sum(), points, create_graph=True)
        slope.square().sum().backward()

    with pytest.raises(RuntimeError, match="double backward"):
        penalty()
    with run_eagerly(model.critic):
        penalty()


@pytest.mark.parametrize("model", ["gan", "wgan", pytest.param("diffusion", marks=pytest.mark.slow)])
def test_compiled_networks_have_the_losses_and_names_of_those_that_are_not(tmp_path, plain, traced, model):
    tasks.train(short(tmp_path, model, "acceleration.compile=default"))
    assert traced
    assert_near(losses(tmp_path, model), losses(plain[model], model), 1e-3)
    states = [load_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"] for run in (tmp_path, plain[model])]
    assert states[0].keys() == states[1].keys()


def test_a_run_is_compiled_or_not_when_it_goes_on(tmp_path, plain, traced):
    tasks.train(short(tmp_path, "gan", "acceleration.compile=reduce-overhead", "trainer.max_epochs=1"))
    path = tmp_path / "config.yaml"
    path.write_text(path.read_text().replace("compile: reduce-overhead", "compile: null"))
    path.write_text(path.read_text().replace("max_epochs: 1", "max_epochs: 2"))
    tasks.train(config(tmp_path, "gan", f"resume={tmp_path}"))
    assert_near(losses(tmp_path, "gan"), losses(plain["gan"], "gan"), 1e-3)


@pytest.mark.slow
def test_inductor_gives_the_scores_of_eager_code():
    eager, compiled = ConvDiscriminator(SIDE, 4, 16), nn.Module()
    compiled.critic = ConvDiscriminator(SIDE, 4, 16)
    compiled.critic.load_state_dict(eager.state_dict())
    Acceleration(compile="default").apply(compiled)
    images = torch.rand(2, 4, SIDE, SIDE)
    assert torch.allclose(compiled.critic(images), eager(images), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"matmul_precision": "tf32"}, "matmul_precision='tf32' must be one of highest, high, medium"),
        ({"compile": "fast"}, "compile='fast' must be null or one of default"),
    ],
)
def test_a_wrong_option_is_quoted(options, message):
    with pytest.raises(CrystensError, match=message):
        Acceleration(**options)


def test_a_model_without_networks_says_that_it_cannot_be_compiled():
    with pytest.raises(CrystensError, match="no network"):
        Acceleration(compile="default").apply(nn.Identity())


def test_networks_are_those_held_directly_and_in_lists():
    model = CascadedDiffusion.__new__(CascadedDiffusion)
    pl.LightningModule.__init__(model)
    model.unets = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
    model.head, model.nothing = nn.Linear(1, 1), nn.ReLU()
    assert list(networks(model)) == [*model.unets, model.head]


def test_a_clipped_gradient_is_bounded_before_it_is_divided_by_the_scale():
    """As under 16-mixed, whose scaler multiplies the loss."""

    class Scaler:
        def get_scale(self):
            return 1024.0

    model = small_wgan()
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.precision_plugin.scaler = Scaler()
    model.trainer = trainer
    weight = nn.Parameter(torch.tensor([1.0]))
    weight.grad = torch.tensor([5.0 * 1024.0])
    clip_gradients(model, torch.optim.SGD([weight], lr=0.1), 2.0)
    assert weight.grad.item() / 1024 == pytest.approx(2.0)


@pytest.mark.parametrize("task", ["train", "sample"])
def test_every_choice_of_acceleration_composes(task):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for name in ("none", "gpu"):
            overrides = [f"acceleration={name}", "run_folder=x"]
            made = instantiate(compose(task, overrides=overrides).acceleration, _convert_="all")
            assert made.channels_last == (name == "gpu")
