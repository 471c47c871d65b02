"""The cascaded diffusion: its U-Nets, its process, and the training of two stages in one run."""

import copy
import functools
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from crystens.errors import CrystensError
from crystens.models.diffusion import CascadedDiffusion
from crystens.networks.imagen import CascadeProcess, build_sr_unet, build_unet, check_unet_side

SIDE = 16
NARROW: dict[str, Any] = {
    "dim": 8,
    "dim_mults": (1, 2, 2),
    "num_resnet_blocks": 1,
    "attn_heads": 2,
    "attn_dim_head": 8,
    "max_text_len": 1,
    "attn_pool_text": False,
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _model(side: int = SIDE, objective: str = "noise", **options: Any) -> CascadedDiffusion:
    arguments: dict[str, Any] = {"sampling_steps": 4, "ema_decay": 0.9} | options
    return CascadedDiffusion(
        [build_unet(**NARROW), build_sr_unet(**NARROW)],
        CascadeProcess(side, objective, condition_noise=0.05),
        functools.partial(torch.optim.Adam, lr=3e-3),
        **arguments,
    )


def _images(n: int = 8, side: int = SIDE) -> torch.Tensor:
    """Images of one crystal with one site: as simple as CrysTens gets."""
    images = torch.zeros(n, 4, side, side)
    images[..., :11, 12:14] = torch.linspace(0.2, 0.9, 11)[:, None]
    images[..., 12:14, :11] = torch.linspace(0.2, 0.9, 11)
    images[..., 12:14, 12:14] = 0.5
    return images


def _train(
    model: CascadedDiffusion, images: torch.Tensor | None = None, checkpoint: Path | None = None, **options: Any
) -> pl.Trainer:
    arguments: dict[str, Any] = {"max_steps": 4, "max_epochs": -1, "logger": False} | options
    trainer = pl.Trainer(
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        log_every_n_steps=1,
        **arguments,
    )
    images = _images() if images is None else images
    trainer.fit(model, DataLoader(images, batch_size=4), ckpt_path=checkpoint, weights_only=checkpoint is not None)
    return trainer


def _parameters(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()]).clone()


class _Losses(pl.Callback):
    """Keeps the loss of every step, by its name."""

    def __init__(self) -> None:
        self.losses: list[tuple[str, float]] = []

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx) -> None:
        self.losses += [(name, float(value)) for name, value in outputs.items()]


def test_imagen_is_imported_without_a_network_and_only_when_a_unet_is_built(tmp_path: Path) -> None:
    code = """
import socket, sys
def refuse(*_, **__):
    raise AssertionError("something reached for the network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import crystens.models.diffusion
from crystens.networks.imagen import build_unet
assert "imagen_pytorch" not in sys.modules
build_unet(dim=8, attn_heads=2, attn_dim_head=8)
assert "imagen_pytorch" in sys.modules
import transformers
assert "from_pretrained" not in vars(transformers.T5Config)
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""


def test_paper_unets_have_the_parameters_of_an_independent_build() -> None:
    with torch.device("meta"):
        first, second = build_unet(dim=256), build_sr_unet(dim=256)
    assert sum(parameter.numel() for parameter in first.parameters()) == 269_754_655
    assert sum(parameter.numel() for parameter in second.parameters()) == 727_787_458


@pytest.mark.slow
def test_paper_unets_run_forward_at_32_and_64_px() -> None:
    process = CascadeProcess(64)
    with torch.no_grad():
        images = torch.rand(1, 4, 64, 64)
        assert process.loss(0, build_unet(dim=256), images[..., ::2, ::2]).isfinite()
        assert process.loss(1, build_sr_unet(dim=256), images, condition=images).isfinite()


@pytest.mark.parametrize("stage", [0, 1])
def test_every_parameter_that_trains_gets_a_finite_gradient(stage: int) -> None:
    model = _model()
    torch.nn.init.normal_(model.unets[stage].final_conv.weight)  # it starts at zero and would block all others
    model.stage_loss(stage, torch.rand(4, 4, SIDE, SIDE)).backward()

    for name, parameter in model.unets[stage].named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        else:
            assert name.startswith(("null_text_", "attn_pool."))
    assert all(parameter.grad is None for parameter in model.unets[1 - stage].parameters())


def test_process_can_be_copied_and_pickled_and_gives_the_same_loss() -> None:
    process, unet, images = CascadeProcess(SIDE, objective="v"), build_unet(**NARROW), torch.rand(2, 4, 8, 8)
    losses = []
    for twin in (process, copy.deepcopy(process), pickle.loads(pickle.dumps(process))):
        torch.manual_seed(1)
        losses.append(twin.loss(0, unet, images).item())
    assert losses[0] == losses[1] == losses[2]


@pytest.mark.parametrize("stage", [0, 1])
def test_process_gives_the_loss_that_imagen_itself_gives(stage: int) -> None:
    unets = [build_unet(**NARROW), build_sr_unet(**NARROW)]
    from imagen_pytorch import Imagen  # only now, for the builders import it without its question to a model hub

    imagen = Imagen(unets, image_sizes=(8, 16), channels=4, condition_on_text=False, text_embed_dim=768)
    images = torch.rand(4, 4, 16, 16)
    model = CascadedDiffusion(unets, CascadeProcess(16), torch.optim.Adam, low_resolution="nearest")

    torch.manual_seed(3)
    expected = imagen(images, unet=imagen.unets[stage], unet_number=stage + 1).item()
    torch.manual_seed(3)
    assert model.stage_loss(stage, images).item() == pytest.approx(expected, rel=1e-6)
    assert imagen.unets[stage] is unets[stage], "imagen built the network a second time"


@pytest.mark.parametrize("stage", [0, 1])
def test_a_step_moves_the_unet_and_the_average_of_its_stage_only(stage: int) -> None:
    model = _model(first_stage_share=0.5)
    if stage == 1:
        _train(model, max_steps=2)  # the first of these steps is the first stage's
    trained = [_parameters(unet) for unet in model.unets]
    averaged = [_parameters(unet) for unet in model.average_unets]
    model.unet1_steps.fill_(0 if stage == 0 else 100)
    trainer = _train(model, max_steps=1)

    assert trainer.global_step == 1
    assert not torch.equal(_parameters(model.unets[stage]), trained[stage])
    assert not torch.equal(_parameters(model.average_unets[stage]), averaged[stage])
    assert torch.equal(_parameters(model.unets[1 - stage]), trained[1 - stage])
    assert torch.equal(_parameters(model.average_unets[1 - stage]), averaged[1 - stage])


def test_average_follows_the_weights_closely_in_a_short_run() -> None:
    model = _model(ema_decay=0.9999)
    start = _parameters(model.unets[0])
    _train(model, max_steps=20)
    moved = (_parameters(model.unets[0]) - start).norm()
    behind = (_parameters(model.unets[0]) - _parameters(model.average_unets[0])).norm()
    assert behind < 0.5 * moved


@pytest.mark.parametrize("options", [{"max_steps": 8}, {"max_epochs": 4, "max_steps": -1}])
def test_stages_change_at_the_share_of_planned_steps(options: dict[str, int]) -> None:
    model, losses = _model(first_stage_share=0.25), _Losses()
    trainer = _train(model, callbacks=[losses], **options)

    assert [name for name, _ in losses.losses] == ["train/unet1_loss"] * 2 + ["train/unet2_loss"] * 6
    assert (int(model.unet1_steps), int(model.unet2_steps), trainer.global_step) == (2, 6, 8)


def test_each_loss_is_a_curve_of_its_own(tmp_path: Path) -> None:
    logger = pl.loggers.CSVLogger(tmp_path)
    _train(_model(), max_steps=4, logger=logger)
    header, *lines = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
    columns = header.split(",")

    def curve(name: str) -> list[str]:
        return [line.split(",")[columns.index(name)] for line in lines if line.split(",")[columns.index(name)]]

    for name in ("train/unet1_loss", "train/unet2_loss"):
        assert len(curve(name)) == 2
        assert len(curve(f"{name}_epoch")) == 1
    assert curve("steps/unet2") == ["0.0", "0.0", "1.0", "2.0"]


def test_a_resumed_run_repeats_the_uninterrupted_one_across_the_change_of_stages(tmp_path: Path) -> None:
    images, checkpoint = torch.rand(8, 4, SIDE, SIDE), tmp_path / "middle.ckpt"

    class SeedEachStep(pl.Callback):
        def on_train_batch_start(self, trainer, model, batch, batch_idx) -> None:
            torch.manual_seed(trainer.global_step)

    class Save(pl.Callback):
        def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx) -> None:
            if trainer.global_step == 2:
                trainer.save_checkpoint(checkpoint)

    whole, rest = _Losses(), _Losses()
    uninterrupted, resumed = _model(), _model()
    _train(uninterrupted, images, max_steps=6, callbacks=[SeedEachStep(), Save(), whole])
    _train(resumed, images, checkpoint, max_steps=6, callbacks=[SeedEachStep(), rest])

    assert rest.losses == whole.losses[2:]
    assert {name for name, _ in rest.losses} == {"train/unet1_loss", "train/unet2_loss"}
    state = resumed.state_dict()
    for name, value in uninterrupted.state_dict().items():
        assert torch.equal(state[name], value), name


def test_both_losses_fall_on_one_batch() -> None:
    model, images = _model(objective="x_start"), _images(4)

    def losses() -> list[float]:
        torch.manual_seed(9)
        return [model.stage_loss(stage, images.repeat(16, 1, 1, 1)).item() for stage in (0, 1)]

    before = losses()
    _train(model, images, max_steps=80)
    after = losses()
    assert after[0] < 0.3 * before[0]
    assert after[1] < 0.3 * before[1]


def test_a_run_without_a_planned_end_is_refused() -> None:
    with pytest.raises(CrystensError, match=r"trainer\.max_steps or trainer\.max_epochs"):
        _train(_model(), max_steps=-1, max_time="00:00:00:01")


def test_a_run_that_ends_in_the_first_stage_says_so(caplog: pytest.LogCaptureFixture) -> None:
    _train(_model(first_stage_share=0.9), max_steps=1)
    assert "second U-Net was not trained" in caplog.text


def test_samples_have_their_shape_and_range_and_follow_the_generator_alone() -> None:
    model = _model(sampling_steps=[3, 2])
    _train(model)
    model.train()
    first = model.sample(3, torch.Generator().manual_seed(5))
    torch.rand(7)
    again = model.sample(3, torch.Generator().manual_seed(5))
    other = model.sample(3, torch.Generator().manual_seed(6))

    assert first.shape == (3, 4, SIDE, SIDE)
    assert first.dtype == torch.float32
    assert not first.requires_grad
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_samples_do_not_depend_on_how_they_are_chunked() -> None:
    model = _model()
    _train(model)
    whole = model.sample(3, torch.Generator().manual_seed(5))
    model.sample_chunk = 2
    generator = torch.Generator().manual_seed(5)
    parts = torch.cat([model.sample(1, generator), model.sample(2, generator)])
    assert torch.allclose(whole, model.sample(3, torch.Generator().manual_seed(5)), atol=1e-5)
    assert torch.allclose(whole, parts, atol=1e-5)


def test_sampling_uses_the_averaged_weights_and_reports_its_steps() -> None:
    model, steps = _model(sampling_steps=[3, 2], sample_chunk=2), []
    before = model.sample(3, torch.Generator().manual_seed(5), on_step=lambda *step: steps.append(step))
    for parameter in model.unets.parameters():
        parameter.data.fill_(float("nan"))
    assert torch.equal(model.sample(3, torch.Generator().manual_seed(5)), before)
    assert steps == [(done, 10) for done in range(1, 11)]


def test_nan_in_a_network_is_seen_in_the_images() -> None:
    model = _model()
    model.average_unets[1].final_conv.bias.data.fill_(float("nan"))
    assert model.sample(1).isnan().all()


def test_state_dict_brings_back_steps_weights_and_samples() -> None:
    model = _model()
    _train(model)
    twin = _model()
    twin.load_state_dict(copy.deepcopy(model.state_dict()))
    assert (int(twin.unet1_steps), int(twin.unet2_steps)) == (2, 2)
    generators = [torch.Generator().manual_seed(2) for _ in range(2)]
    assert torch.equal(model.sample(2, generators[0]), twin.sample(2, generators[1]))
    assert torch.equal(_parameters(copy.deepcopy(model)), _parameters(model))


def test_a_perfect_denoiser_is_followed_to_its_image() -> None:
    """With a network that always predicts one image, sampling ends at that image, whatever the steps."""

    class Oracle(torch.nn.Module):
        def forward_with_cond_scale(self, x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
            return 2 * target - 1

    target = torch.rand(1, 4, SIDE, SIDE)
    noise = functools.partial(torch.randn, 1, 4, SIDE, SIDE)
    clean = CascadeProcess(SIDE, objective="x_start").sample(1, Oracle(), noise, 3, condition=target)
    as_imagen = CascadeProcess(SIDE, objective="x_start", return_prediction=False)
    noisy = as_imagen.sample(1, Oracle(), noise, 1000, condition=target)
    assert torch.allclose(clean, target, atol=1e-6)
    assert 0.003 < (noisy - target).std() < 0.007


@pytest.mark.parametrize(("side", "advice"), [(62, "44 or max_sites=52"), (32 + 4, "20 or max_sites=28"), (8, "4 or")])
def test_an_image_side_that_cannot_be_halved_is_refused_with_the_nearest(side: int, advice: str) -> None:
    with pytest.raises(CrystensError, match=f"image_side={side} .*max_sites={advice}"):
        CascadeProcess(side)


@pytest.mark.parametrize("side", [16, 24, 32, 64])
def test_both_stages_run_at_any_side_divisible_by_8(side: int) -> None:
    model = _model(side, sampling_steps=1)
    for stage in (0, 1):
        assert model.stage_loss(stage, torch.rand(1, 4, side, side)).isfinite()
    assert model.sample(1).shape == (1, 4, side, side)


def test_a_unet_that_halves_too_often_for_its_side_is_refused_with_the_nearest() -> None:
    unet = build_unet(dim=8, memory_efficient=True)  # three halvings of side 12
    with pytest.raises(CrystensError, match=r"side 12, .* multiple of 8.*max_sites=4 or 20"):
        check_unet_side(unet, 12, 12)
    check_unet_side(unet, 16, 20)
    check_unet_side(build_unet(dim=8), 12, 12)


@pytest.mark.parametrize(
    "arguments", [{"objective": "epsilon"}, {"noise_schedule": "sigmoid"}, {"condition_noise": 1.5}]
)
def test_process_quotes_a_value_that_it_refuses(arguments: dict[str, Any]) -> None:
    [(name, value)] = arguments.items()
    with pytest.raises(CrystensError, match=f"{name}={value!r}"):
        CascadeProcess(SIDE, **arguments)


@pytest.mark.parametrize(
    "arguments", [{"first_stage_share": 1.0}, {"sampling_steps": 0}, {"sample_chunk": 0}, {"gradient_clip": 0.0}]
)
def test_model_quotes_a_value_that_it_refuses(arguments: dict[str, Any]) -> None:
    [(name, value)] = arguments.items()
    with pytest.raises(CrystensError, match=f"{name}={value!r}"):
        _model(**arguments)
