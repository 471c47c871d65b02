"""Training on XLA through the project's own entry: torch_xla on its CPU device, in an environment of its own.

`.ci/xla` makes that environment and runs the tests marked `xla`. Each model is trained twice with the same random
numbers, on the CPU and on XLA; most tests look at that pair of runs.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pytorch_lightning.accelerators import AcceleratorRegistry, XLAAccelerator
from torch import Tensor
from torch.overrides import TorchFunctionMode

from crystens.checkpoint import KEY, load_checkpoint
from crystens.devices import accelerator
from crystens.devices.accelerator import prepare_accelerator
from crystens.devices.xla import seed_device
from crystens.errors import CrystensError
from crystens.samples.folder import read_samples
from crystens.training import tasks

REPOSITORY = Path(__file__).parent.parent
BATCHES = 3  # in an epoch
EPOCHS = 8
SAMPLED = 2  # epochs from one sampling to the next
# Largest relative differences of a loss to the CPU's: over the first epoch, and over all steps. Rounding grows while a
# model trains, fastest in the GAN, and as fast between two runs on the CPU; `nudged` is such a run.
FIRST_EPOCH = 1e-4
WHOLE_RUN = {"gan": 5e-2, "wgan": 1e-3, "diffusion": 1e-3, "edm": 1e-3}

# Narrow networks at 32 px on few crystals.
MODELS = {
    "gan": [
        "model.generator.width=8",
        "model.discriminator.width=8",
        "data.augmentation.origin_shift=true",
        "data.augmentation.permute_like_sites=true",
        "data.augmentation.relabel_axes=true",
    ],
    "wgan": ["model.generator.width=8", "model.critic.width=8", "model.critic_steps=2"],
    "diffusion": [
        "model.sampling_steps=2",
        *(
            f"model.unets.{unet}.{option}"
            for unet in (0, 1)
            for option in ("dim=8", "dim_mults=[1,2]", "layer_attns=[false,true]", "layer_cross_attns=[false,true]")
        ),
    ],
    "edm": [
        "pretrained=null",
        "model.network.width=16",
        "model.network.depth=1",
        "model.network_calls=7",
        "model.network.geometric_pairs=true",
        "model.network.surroundings=true",
        "model.network.parts=2",
    ],
}


def overrides(folder: Path, model: str, device: str) -> list[str]:
    """Return what makes train.py's default a run of 24 batches."""
    return [
        f"model={model}",
        *MODELS[model],
        "max_sites=20",
        "data.batch_size=16",
        "data.split_fractions=[0.2,0.4,0.4]",
        f"trainer.max_epochs={EPOCHS}",
        f"trainer.accelerator={device}",
        "+trainer.enable_progress_bar=false",
        "callbacks.progress_bar=null",
        f"callbacks.sample_statistics.every_n_epochs={SAMPLED}",
        "callbacks.sample_statistics.num_samples=4",
        f"+callbacks.watch={{_target_: test_xla.Watch, path: {folder}/watch.json, stop: false, nudge: 0.0}}",
        "data.ingest.workers=0",
        "threads=1",
        "num_samples=0",
    ]


def train(folder: Path, model: str, device: str, *more: str) -> dict[str, Any]:
    """Train as train.py would, and return what `Watch` wrote down."""
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        cfg = compose("train", overrides=[*overrides(folder, model, device), f"run_folder={folder}", *more])
    tasks.train(cfg)
    return json.loads((folder / "watch.json").read_text())


class Watch(pl.Callback):
    """Writes down the losses of every batch, and how many graphs XLA had compiled and values the host read by then.

    Args:
        path: of the JSON file to write when training ends.
        stop: whether to break the run off in the third epoch, as a kill would.
        nudge: relative size of a random change of all weights before training.
    """

    def __init__(self, path: str, stop: bool, nudge: float) -> None:
        self.path = Path(path)
        self.stop = stop
        self.nudge = nudge
        self.losses: list[dict[str, Tensor]] = []
        self.compiled: list[int] = []
        self.read: list[int] = []
        self.compiled_before = _count("CompileTime")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.nudge:
            generator = torch.Generator().manual_seed(0)
            for weights in pl_module.parameters():
                weights.data *= 1 + self.nudge * torch.randn(weights.shape, generator=generator)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: object) -> None:
        if self.stop and trainer.current_epoch == 2:
            raise KeyError("stopped")
        self.losses.append(dict(outputs))
        self.compiled.append(_count("CompileTime"))
        self.read.append(_count("aten::_local_scalar_dense"))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        told = {
            "device": pl_module.device.type,
            "losses": [{name: float(value) for name, value in batch.items()} for batch in self.losses],
            "compiled_before": self.compiled_before,
            "compiled": self.compiled,
            "read": self.read,
            "on_the_host": _operations_on_the_host(),
        }
        self.path.write_text(json.dumps(told))


class HostRandom(TorchFunctionMode):
    """Has random numbers of a device drawn on the CPU, so that runs on XLA and on the CPU draw the same ones."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in (torch.rand, torch.randn) and torch.device(kwargs.get("device") or "cpu").type == "xla":
            return function(*args, **{**kwargs, "device": "cpu"}).to(kwargs["device"])
        if function in (torch.rand_like, torch.randn_like):
            return function(torch.empty(args[0].shape, dtype=args[0].dtype), **kwargs).to(args[0].device)
        if function is Tensor.uniform_:
            return args[0].copy_(torch.empty(args[0].shape).uniform_(*args[1:], **kwargs))
        if function is torch.nn.functional.dropout:
            return _dropout(*args, **kwargs)
        return function(*args, **kwargs)


def _dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Drop out with a mask of the CPU's."""
    if not training or p == 0:
        return x
    return x * (torch.rand(x.shape) >= p).to(x.device, x.dtype) / (1 - p)


def _count(name: str) -> int:
    """Return a metric's or a counter's count, 0 where there is no XLA."""
    if "torch_xla" not in sys.modules:
        return 0
    from torch_xla.debug import metrics

    data = metrics.metric_data(name)
    return data[0] if data else metrics.counter_value(name) or 0


def _operations_on_the_host() -> list[str]:
    """Return the operations that XLA does not know, which ran on the CPU; reading a number is none."""
    if "torch_xla" not in sys.modules:
        return []
    from torch_xla.debug import metrics

    return [
        name for name in metrics.counter_names() if name.startswith("aten::") and name != "aten::_local_scalar_dense"
    ]


@pytest.fixture(scope="module")
def xla() -> Iterator[torch.device]:
    """Return XLA's CPU device; skip where there is no torch_xla."""
    if importlib.util.find_spec("torch_xla") is None:
        pytest.skip("needs torch_xla, in an environment of its own: .ci/xla makes it")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PJRT_DEVICE", "CPU")
        if "torch_xla" not in sys.modules:
            patch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", "--xla_backend_optimization_level=0"))
        prepare_accelerator("tpu")
        # The first tensor of a process settles whether float32 is float32 there; a later run in bf16-true does not.
        yield torch.zeros(1, device="xla").device


@pytest.fixture(scope="module", params=MODELS)
def pair(request: pytest.FixtureRequest, xla: torch.device, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Train a model on the CPU and on XLA with the same random numbers; return the runs, and the folder.

    `nudged` is the run on the CPU once more, every weight changed by about one rounding before training.
    """
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp(request.param)
    with HostRandom():
        runs = {device: train(folder / device, request.param, device) for device in ("cpu", "tpu")}
        runs["nudged"] = train(folder / "nudged", request.param, "cpu", "callbacks.watch.nudge=6e-8")
    return {**runs, "folder": folder, "model": request.param}


def largest_difference(expected: list[dict[str, float]], found: list[dict[str, float]]) -> float:
    """Return the largest relative difference of a loss; of losses below 0.001 the absolute one in units of 0.001."""
    return max(
        abs(other[name] - value) / max(abs(value), 1e-3)
        for one, other in zip(expected, found, strict=True)
        for name, value in one.items()
    )


@pytest.mark.xla
def test_losses_on_xla_are_those_of_the_cpu(pair: dict[str, Any]) -> None:
    assert (pair["cpu"]["device"], pair["tpu"]["device"]) == ("cpu", "xla")
    assert len(pair["tpu"]["losses"]) == EPOCHS * BATCHES
    assert [losses.keys() for losses in pair["tpu"]["losses"]] == [losses.keys() for losses in pair["cpu"]["losses"]]
    start = {device: pair[device]["losses"][:BATCHES] for device in ("cpu", "tpu")}
    whole = {device: pair[device]["losses"] for device in ("cpu", "tpu", "nudged")}
    print(
        f"\n{pair['model']}: losses differ from the CPU's by at most "
        f"{largest_difference(start['cpu'], start['tpu']):.1e} in {BATCHES} steps and "
        f"{largest_difference(whole['cpu'], whole['tpu']):.1e} in {len(whole['tpu'])}; those of the CPU, from weights "
        f"changed by a rounding, by {largest_difference(whole['cpu'], whole['nudged']):.1e}"
    )
    assert largest_difference(start["cpu"], start["tpu"]) < FIRST_EPOCH
    assert largest_difference(whole["cpu"], whole["tpu"]) < WHOLE_RUN[pair["model"]]


@pytest.mark.xla
def test_nothing_is_compiled_any_more_in_the_last_epochs(pair: dict[str, Any]) -> None:
    compiled = pair["tpu"]["compiled"]
    new = [after - before for before, after in itertools.pairwise([pair["tpu"]["compiled_before"], *compiled])]
    print(f"\n{pair['model']}: {sum(new)} graphs compiled in {len(new)} batches: {new}")
    assert new[0] > 0
    assert compiled[-1] == compiled[-1 - SAMPLED * BATCHES]


@pytest.mark.xla
def test_every_operation_runs_on_the_device_and_no_step_reads_a_value(pair: dict[str, Any]) -> None:
    assert pair["tpu"]["on_the_host"] == []
    read = pair["tpu"]["read"]
    # Between the first and the last batch of an epoch, of which the one follows the averages of an epoch and the other
    # has its losses checked, values are read only where the step is logged, which is every tenth.
    within = [read[start + BATCHES - 2] - read[start] for start in range(0, len(read), BATCHES)]
    assert sum(values > 0 for values in within) <= EPOCHS * BATCHES // 10


@pytest.mark.xla
def test_images_sampled_on_xla_are_those_of_the_cpu(pair: dict[str, Any], xla: torch.device) -> None:
    checkpoint = load_checkpoint(pair["folder"] / "tpu" / "checkpoints" / "last.ckpt")
    model = instantiate(OmegaConf.create(checkpoint[KEY]["config"]["model"]), _convert_="all")
    model.load_state_dict(checkpoint["state_dict"])
    images = [model.to(device).sample(4, torch.Generator().manual_seed(0)).cpu() for device in ("cpu", xla)]
    assert images[0].std() > 0.01
    torch.testing.assert_close(images[1], images[0], rtol=0, atol=1e-4)


@pytest.mark.xla
@pytest.mark.parametrize("model", MODELS)
def test_a_run_broken_off_and_resumed_on_xla_has_the_losses_of_an_uninterrupted_one(
    tmp_path: Path, model: str, xla: torch.device
) -> None:
    """With the random numbers of the device."""
    whole = train(tmp_path / "whole", model, "tpu")
    resumed = break_off_and_resume(tmp_path / "broken", model, "tpu")
    assert resumed["device"] == "xla"
    expected = whole["losses"][2 * BATCHES :]  # up to rounding: the first graphs of a resumed run are others
    assert largest_difference(expected[:BATCHES], resumed["losses"][:BATCHES]) < FIRST_EPOCH
    assert largest_difference(expected, resumed["losses"]) < WHOLE_RUN[model]


@pytest.mark.xla
def test_what_was_trained_on_xla_goes_on_on_the_cpu(tmp_path: Path, xla: torch.device) -> None:
    resumed = break_off_and_resume(tmp_path, "gan", "cpu")
    assert resumed["device"] == "cpu"
    assert len(resumed["losses"]) == (EPOCHS - 2) * BATCHES


def break_off_and_resume(folder: Path, model: str, device: str) -> dict[str, Any]:
    """Train on XLA, break off in the third epoch, and resume on `device`; return what the resumed run wrote down."""
    with pytest.raises(KeyError, match="stopped"):
        train(folder, model, "tpu", "callbacks.watch.stop=true")
    path = folder / "config.yaml"
    path.write_text(
        path.read_text().replace("stop: true", "stop: false").replace("accelerator: tpu", f"accelerator: {device}")
    )
    return train(folder, model, "tpu", f"resume={folder}")


@pytest.mark.xla
def test_the_device_draws_the_same_numbers_after_the_same_seeds_only(xla: torch.device) -> None:
    drawn = []
    for seeds in ([3, 0, 0], [3, 0, 0], [3, 1, 0], [3, 0, 1]):
        seed_device(xla, seeds)
        drawn.append(torch.rand(8, device=xla).cpu())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[3])


@pytest.mark.xla
def test_the_commands_train_and_sample_on_xla(tmp_path: Path, xla: torch.device) -> None:
    run, samples = tmp_path / "run", tmp_path / "samples"
    lines = [line for line in overrides(run, "wgan", "tpu") if "watch" not in line]
    lines += ["trainer.max_epochs=1", "num_samples=4", f"hydra.run.dir={run}"]
    for command in (
        ["train.py", *lines],
        ["sample.py", f"checkpoint={run}/checkpoints/last.ckpt", "device=tpu", "num_samples=4", f"out={samples}"],
    ):
        done = subprocess.run([sys.executable, *command], cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
    assert read_samples(run / "samples" / "images.safetensors").images.shape == (4, 4, 32, 32)
    assert len((samples / "crystals.csv").read_text().splitlines()) == 5


@pytest.mark.xla
@pytest.mark.parametrize("devices", ["2", "[0,1]"])
def test_more_than_one_device_is_refused(tmp_path: Path, devices: str, xla: torch.device) -> None:
    with pytest.raises(CrystensError, match=r"trainer.devices=.*has 1 device"):
        train(tmp_path, "gan", "tpu", f"trainer.devices={devices}")


@pytest.mark.xla
@pytest.mark.parametrize(
    ("model", "precision", "message"),
    [("wgan", "bf16-true", "the gradient penalty needs float32"), ("gan", "bf16-mixed", "not supported in XLA")],
)
def test_a_precision_that_cannot_be_had_on_xla_is_refused(
    tmp_path: Path, model: str, precision: str, message: str, xla: torch.device
) -> None:
    with pytest.raises(CrystensError, match=message):
        train(tmp_path, model, "tpu", f"trainer.precision={precision}")


@pytest.mark.xla
def test_a_cpu_that_was_not_asked_for_is_no_tpu(xla: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "_asked_for", lambda: None)
    with pytest.raises(CrystensError, match=r"no TPU here.*PJRT_DEVICE=CPU"):
        prepare_accelerator("tpu")


def test_a_tpu_without_torch_xla_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_xla", None)
    with pytest.raises(CrystensError, match=r'needs torch_xla .*pip install -e "\.\[tpu\]"'):
        prepare_accelerator("tpu")


@pytest.mark.parametrize("name", ["auto", "cpu", "gpu"])
def test_other_accelerators_are_left_to_lightning(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_xla", None)
    prepare_accelerator(name)
    assert AcceleratorRegistry["tpu"]["accelerator"] is XLAAccelerator
