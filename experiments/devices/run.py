"""Steps and samples per second and peak memory of each switch, beside imagen-pytorch's trainer; see README.md.

python experiments/devices/run.py                       the small presets
python experiments/devices/run.py --paper --batch 4     the presets of the paper, on a GPU
python experiments/devices/run.py --profile             a profile of each switch
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from crystens.callbacks.acceleration import Acceleration, precision_arguments
from crystens.models.diffusion import CascadedDiffusion

CONF = Path(__file__).resolve().parents[2] / "conf"
SIDE = 64
EVERYTHING = {"precision": "bf16-mixed", "matmul_precision": "high", "channels_last": True, "fused": True}
SWITCHES: dict[str, dict[str, Any]] = {
    "plain float32": {},
    "tf32": {"matmul_precision": "high"},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "16-mixed": {"precision": "16-mixed", "clip": False},
    "bf16-true": {"precision": "bf16-true"},
    "channels_last": {"channels_last": True},
    "fused optimizer": {"fused": True},
    "compile": {"compile": "default"},
    "all but compile": EVERYTHING,
    "all": {**EVERYTHING, "compile": "default"},
    "imagen-pytorch float32": {"imagen": "no"},
    "imagen-pytorch bf16": {"imagen": "bf16"},
}
GPU_ONLY = ("tf32", "16-mixed", "compile", "all", "imagen-pytorch bf16")
NOT_OF_WGAN = ("bf16-true", "imagen-pytorch float32", "imagen-pytorch bf16")
SUBJECTS = ("unet1", "unet2", "wgan")


def main() -> None:
    """Measure all switches in turn, several times, each in its own process, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paper", action="store_true", help="the paper's networks instead of the small ones")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--batch", type=int, default=16, help="images a step")
    parser.add_argument("--steps", type=int, default=10, help="timed steps")
    parser.add_argument("--warmup", type=int, default=3, help="steps before them")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--samples", type=int, default=0, help="images sampled as well; 0 for none")
    parser.add_argument("--sampling-steps", type=int, default=32, help="of the diffusion, in each stage")
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=SUBJECTS)
    parser.add_argument(
        "--only", nargs="+", choices=SWITCHES, help="these switches; the others are compared with the first"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--profile", action="store_true", help="a torch.profiler table of each instead of times")
    options = parser.parse_args()
    if options.device == "auto":
        options.device = _apart(_default_device)
    from crystens.networks.imagen import _imagen

    _imagen()  # imported once, before the processes fork
    results: dict[str, dict[str, list[dict[str, float]]]] = {subject: {} for subject in options.subjects}
    for _ in range(1 if options.profile else options.repeats):
        for subject in options.subjects:
            for name in options.only or SWITCHES:
                if subject == "wgan" and name in NOT_OF_WGAN:
                    continue
                if options.device == "cpu" and name in GPU_ONLY and not options.only:
                    continue
                found = _apart(_measure, subject, SWITCHES[name], options)
                if options.profile:
                    print(f"{subject}, {name}\n{found}")
                    continue
                results[subject].setdefault(name, []).append(found)
                print(json.dumps({"subject": subject, "switch": name, **found}), flush=True)
    if not options.profile:
        print(_table(results, options))


def _default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of a function that runs in a forked process."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    try:
        found = ours.recv()
    except EOFError:
        raise SystemExit("a measurement ended without a result; see its message above") from None
    process.join()
    return found


def _send(connection: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    connection.send(function(*arguments))


def _measure(subject: str, switches: dict[str, Any], options: argparse.Namespace) -> Any:
    """Return seconds for a step, seconds for a sample and the peak of memory in MiB, or a profile."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    # The memory of the interpreter and the libraries is not counted.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clock = _Clock(options)
    sample = (_train_by_imagen if "imagen" in switches else _train)(subject, switches, options, clock)
    if options.profile:
        return clock.profile.key_averages().table(sort_by=f"self_{options.device}_time_total", row_limit=15)
    found = {"seconds_a_step": clock.seconds / options.steps}
    if options.device == "cuda":
        found["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
    else:
        found["peak_mib"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    if options.samples and subject != "unet1":
        sample()  # compiles the network before the measurement
        _wait(options.device)
        start = _now(options.device)
        sample()
        _wait(options.device)
        found["seconds_a_sample"] = (_now(options.device) - start) / options.samples
    return found


class _Clock:
    """Measures the time, or a profile, of the steps after the first ones."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.steps = 0
        self.profile = torch.profiler.profile()

    def tick(self) -> None:
        """Count a step."""
        self.steps += 1
        if self.steps == self.options.warmup:
            _wait(self.options.device)
            if self.options.profile:
                self.profile.start()
            self.start = _now(self.options.device)
        elif self.steps == self.options.warmup + self.options.steps:
            _wait(self.options.device)
            self.seconds = _now(self.options.device) - self.start
            if self.options.profile:
                self.profile.stop()


def _now(device: str) -> float:
    """Return seconds of the clock, or on a CPU the processor time of this process, because other processes run too."""
    return time.process_time() if device == "cpu" else time.perf_counter()


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _config(subject: str, options: argparse.Namespace) -> Any:
    """Return the config of a model as train.py composes it."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    import crystens.training.tasks  # noqa: F401 (gives Hydra the resolvers)

    name = ("paper_" if options.paper else "") + ("wgan" if subject == "wgan" else "diffusion")
    lines = [f"model={name}", "max_sites=52", "run_folder=none"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose("train", overrides=lines).model, resolve=True)


def _train(subject: str, switches: dict[str, Any], options: argparse.Namespace, clock: _Clock) -> Callable[[], Any]:
    """Train the model of crystens under Lightning, and return a function that samples it."""
    import pytorch_lightning as pl
    from hydra.utils import instantiate
    from pytorch_lightning.callbacks import LambdaCallback

    config = _config(subject, options)
    for name, part in config.items():
        if name.endswith("optimizer") and switches.get("fused"):
            part["fused"] = True
    if not switches.get("clip", True):
        config["gradient_clip"] = None
    if subject != "wgan":
        config["first_stage_share"] = 0.999
        config["sampling_steps"] = options.sampling_steps
    model = instantiate(config, _convert_="all")
    if subject == "unet2":
        assert isinstance(model, CascadedDiffusion)
        model.unet1_steps.fill_(2**40)  # ends the stage of the first U-Net
    kinds = {name: switches[name] for name in ("matmul_precision", "channels_last", "compile") if name in switches}
    acceleration = Acceleration(**kinds)
    precision, accelerator = switches.get("precision", "32-true"), {"cuda": "gpu"}.get(options.device, "cpu")
    trainer = pl.Trainer(
        accelerator=accelerator,
        devices=1,
        max_steps=10**6,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[acceleration, LambdaCallback(on_train_batch_end=lambda *_: clock.tick())],
        **({"precision": precision} | precision_arguments(precision, accelerator)),
    )
    images = torch.rand(options.batch, 4, SIDE, SIDE)
    trainer.fit(model, (images for _ in range(options.warmup + options.steps)))
    model.to(options.device)  # Lightning leaves it on the CPU
    return lambda: model.sample(options.samples, torch.Generator().manual_seed(0))


def _train_by_imagen(
    subject: str, switches: dict[str, Any], options: argparse.Namespace, clock: _Clock
) -> Callable[[], Any]:
    """Train the same U-Nets with imagen-pytorch's trainer, and return a function that samples them."""
    from hydra.utils import instantiate

    from crystens.networks.imagen import _imagen

    config, number = _config(subject, options), 1 if subject == "unet1" else 2
    library = _imagen()
    imagen = library.Imagen(
        unets=instantiate(config["unets"], _convert_="all"),
        image_sizes=(SIDE // 2, SIDE),
        channels=4,
        pred_objectives=config["process"]["objective"],
        timesteps=options.sampling_steps,
        dynamic_thresholding=False,
        condition_on_text=False,
        text_embed_dim=768,
    )
    trainer = library.ImagenTrainer(
        imagen,
        lr=config["optimizer"]["lr"],
        max_grad_norm=config["gradient_clip"],
        precision=switches["imagen"],
        only_train_unet_number=number,
        verbose=False,
    )
    images = torch.rand(options.batch, 4, SIDE, SIDE).to(trainer.device)

    for _ in range(options.warmup + options.steps):
        trainer(images, unet_number=number)
        trainer.update(unet_number=number)
        clock.tick()
    return lambda: trainer.sample(batch_size=options.samples, use_tqdm=False)


def _table(results: dict[str, dict[str, list[dict[str, float]]]], options: argparse.Namespace) -> str:
    """Return the best of the repeats of each as Markdown, and ratios to the first."""
    device = (
        torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {options.threads} thread(s), by CPU time"
    )
    lines = [
        f"{device}, {platform.machine()}, torch {torch.__version__}; side {SIDE}, batch {options.batch}, "
        f"{'the paper' if options.paper else 'small'} presets, best of {options.repeats} of {options.steps} steps",
        "",
        "| what | switch | steps a second | to plain | peak MiB | samples a second |",
        "|---|---|---|---|---|---|",
    ]
    for subject, switches in results.items():
        first = None
        for name, found in switches.items():
            best = min(one["seconds_a_step"] for one in found)
            first = first or best
            memory = min(one["peak_mib"] for one in found)
            samples = "-"
            if "seconds_a_sample" in found[0]:
                samples = f"{1 / min(one['seconds_a_sample'] for one in found):.3g}"
            lines.append(f"| {subject} | {name} | {1 / best:.3g} | {first / best:.2f} | {memory:.0f} | {samples} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
