"""Time of a training step of a preset, and with changes of its config; see README.md.

python experiments/frontier/steps.py carbon_24_edm DIR/carbon_24 model.network.parts=1 "model.network.parts=1 ..."
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

import crystens.training.tasks  # noqa: F401 (gives Hydra the resolvers)
from crystens.callbacks.acceleration import Acceleration

CONF = Path(__file__).resolve().parents[2] / "conf"


def _times(overrides: list[str], options: argparse.Namespace) -> list[float]:
    """Return the CPU time of each step after the first ones, in seconds."""
    import pytorch_lightning as pl
    from pytorch_lightning.callbacks import LambdaCallback

    pl.seed_everything(0, verbose=False)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=[*overrides, "run_folder=none"])
    data = instantiate(config.data, scaling=instantiate(config.scaling), rejected_path=None, _convert_="all")
    model = instantiate(config.model, _convert_="all")
    ends: list[float] = []
    callbacks: list[Any] = [LambdaCallback(on_train_batch_end=lambda *_: ends.append(time.process_time()))]
    if options.compile:
        torch.compiler.reset()
        callbacks.append(Acceleration(compile=options.compile))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=options.warmup + options.steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=config.trainer.gradient_clip_val,
        callbacks=callbacks,
    )
    trainer.fit(model, datamodule=data)
    return [after - before for before, after in zip(ends[options.warmup :], ends[options.warmup + 1 :], strict=False)]


def main() -> None:
    """Measure the preset and each change in turn, several times, on one thread, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", help="a preset of conf/experiment")
    parser.add_argument("path", help="its data")
    parser.add_argument("changes", nargs="+", help="overrides, several in one argument with spaces between")
    parser.add_argument("--compile", help="mode of torch.compile; none without it")
    parser.add_argument("--warmup", type=int, default=40, help="steps before the timed ones, in which it compiles")
    parser.add_argument("--steps", type=int, default=60, help="timed steps")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[float]] = {change: [] for change in ["", *options.changes]}
    for _ in range(options.rounds):
        for change, times in found.items():
            preset = [f"experiment={options.experiment}", f"data.path={options.path}"]
            times += _times(preset + change.split(), options)
    medians = {change: statistics.median(times) for change, times in found.items()}
    print("| | CPU time of a step, median | mean | of the preset's |")
    print("|---|---|---|---|")
    for change, median in medians.items():
        mean = statistics.mean(found[change])
        name = f"`{change}`" if change else "the preset"
        print(f"| {name} | {1e3 * median:.0f} ms | {1e3 * mean:.0f} ms | {median / medians['']:.2f} |")


if __name__ == "__main__":
    main()
