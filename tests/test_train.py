"""The entry points, from composed configs: train, stop, resume, sample, judge."""

from __future__ import annotations

import csv
import json
import logging
import math
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import wandb
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from small_models import SMALL

import crystens
from crystens.checkpoint import KEY, load_checkpoint
from crystens.configs.moved import _MOVED
from crystens.errors import CrystensError
from crystens.metrics.crystal_table import CrystalTable
from crystens.samples.folder import read_samples
from crystens.training import tasks

REPOSITORY = Path(__file__).parent.parent
CONF = REPOSITORY / "conf"

LOSSES = {
    "gan": ["train/generator_loss", "train/discriminator_loss"],
    "wgan": ["train/generator_loss", "train/critic_loss"],
    "diffusion": ["train/unet1_loss", "train/unet2_loss"],
    "edm": ["train/loss"],
}
MODELS = list(SMALL)


def overrides(folder: Path, model: str) -> list[str]:
    """Return what turns the default run into one of seconds."""
    return [
        f"model={model}",
        *SMALL[model],
        f"run_folder={folder}",
        "max_sites=20",
        "data.batch_size=16",
        "data.split_fractions=[0.2,0.75,0.05]",  # every test crystal is judged once a run
        "trainer.max_epochs=4",
        "trainer.accelerator=cpu",
        "+trainer.enable_progress_bar=false",
        "callbacks.progress_bar=null",
        "callbacks.sample_statistics.every_n_epochs=2",
        "callbacks.sample_statistics.num_samples=4",
        "threads=1",
        "num_samples=0",
    ]


def config(folder: Path, model: str, *more: str) -> DictConfig:
    """Return a config of train.py as the command line would compose it."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=[*overrides(folder, model), *more])


@contextmanager
def resuming(folder: Path, *more: str) -> Iterator[DictConfig]:
    """Give the config of `python train.py resume=FOLDER ...`, as long as Hydra knows that command line."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        lines = [f"resume={folder}", f"hydra.runtime.output_dir={folder}", *more]
        cfg = compose("train", overrides=lines, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    try:
        yield cfg
    finally:
        HydraConfig.instance().cfg = None


def losses(folder: Path, model: str) -> dict[str, list[float]]:
    """Return the losses of every epoch from the csv logger's files of a run and of its resumptions."""
    found: dict[str, dict[int, float]] = {name: {} for name in LOSSES[model]}
    for path in sorted(folder.glob("csv/version_*/metrics.csv")):
        for row in csv.DictReader(path.open()):
            for name, values in found.items():
                if row.get(f"{name}_epoch"):
                    values[round(float(row["epoch"]))] = float(row[f"{name}_epoch"])
    return {name: [values[epoch] for epoch in sorted(values)] for name, values in found.items()}


class Stop(pl.Callback):
    """Breaks a run off in the middle of an epoch, as a kill does: nothing more is written."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        """Raise in the third epoch."""
        if trainer.current_epoch == 2 and not trainer.is_last_batch:
            raise KeyError("stopped")


@pytest.mark.parametrize("model", MODELS)
def test_a_run_broken_off_and_resumed_has_the_losses_of_an_uninterrupted_one(tmp_path: Path, model: str) -> None:
    tasks.train(config(tmp_path / "whole", model))
    with pytest.raises(KeyError):
        tasks.train(config(tmp_path / "broken", model, "+callbacks.stop={_target_:test_train.Stop}"))
    resumed = config(tmp_path / "broken", model, f"resume={tmp_path / 'broken'}")
    path = tmp_path / "broken" / "config.yaml"
    path.write_text(path.read_text().replace("_target_: test_train.Stop", "_target_: pytorch_lightning.Callback"))
    tasks.train(resumed)
    whole, broken = losses(tmp_path / "whole", model), losses(tmp_path / "broken", model)
    assert whole == broken
    assert all(len(values) >= 2 for values in whole.values())
    states = [
        load_checkpoint(tmp_path / run / "checkpoints" / "last.ckpt")["state_dict"] for run in ("whole", "broken")
    ]
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


@pytest.mark.parametrize("model", MODELS)
def test_sample_py_makes_the_samples_of_a_run_again_byte_for_byte(tmp_path: Path, model: str) -> None:
    # 70 samples are a whole chunk and a part of one; the epochs end in the middle of the last, as max_steps asks.
    run = tasks.train(config(tmp_path / "run", model, "trainer.max_steps=5", "num_samples=70", "decode=paper"))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        lines = [f"checkpoint={run}", f"run_folder={tmp_path / 'again'}", "num_samples=70", "threads=1", "device=cpu"]
        again = tasks.sample(compose("sample", overrides=lines))
    for name in ("images.safetensors", "crystals.csv"):
        assert (again / name).read_bytes() == (run / "samples" / name).read_bytes(), name
    provenance = json.loads((again / "metrics.json").read_text())["provenance"]["value"]
    assert provenance["decode"]["atom_clusters"] == 3
    generator = crystens.load(run, "cpu")
    assert torch.equal(generator.sample_images(70), read_samples(again / "images.safetensors").images)
    cifs = [item.crystal and item.crystal.formula for item in generator.sample(70, as_="decoded")]
    assert cifs == [row["formula"] for row in CrystalTable(again / "crystals.csv").rows()]


@pytest.mark.parametrize("model", MODELS)
def test_training_ends_with_judged_samples(tmp_path: Path, model: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="crystens")
    folder = tasks.train(config(tmp_path / "run", model, "trainer.max_epochs=1", "num_samples=6"))
    samples = folder / "samples"
    metrics = json.loads((samples / "metrics.json").read_text())
    for name in ("cell_length_variance", "coordinate_agreement", "decoded_rate", "structural_validity", "ks_a"):
        assert set(metrics[name]) >= {"value", "unit", "description", "count"}
    rows = list(csv.DictReader((samples / "crystals.csv").open()))
    assert len(rows) == 6
    assert len(list((samples / "cifs").glob("*.cif"))) == sum(row["status"] == "ok" for row in rows)
    assert "<html" in (samples / "report.html").read_text()
    assert (folder / "rejected.csv").read_text().startswith("file,entry,reason,advice")
    checkpoint = load_checkpoint(folder / "checkpoints" / "last.ckpt")
    assert checkpoint[KEY]["config"]["model"]["_target_"].startswith("crystens.models.")
    (told,) = (record.message for record in caplog.records if " trains " in record.message)
    named = {name: int(size.replace(",", "")) for size, name in re.findall(r"([\d,]+) parameters of (\w+)", told)}
    assert named
    for name, size in named.items():
        weights = [tensor for key, tensor in checkpoint["state_dict"].items() if key.startswith(f"{name}.")]
        assert 0 < size <= sum(tensor.numel() for tensor in weights)
    images = read_samples(samples / "images.safetensors").images
    assert images.shape == (6, 4, 32, 32)
    assert images.min() >= 0
    assert images.max() <= 1


def test_two_runs_with_one_seed_are_the_same_bit_for_bit(tmp_path: Path) -> None:
    for name in ("one", "two"):
        tasks.train(config(tmp_path / name, "wgan", "num_samples=4", "seed=3", "trainer.max_epochs=2"))
    assert losses(tmp_path / "one", "wgan") == losses(tmp_path / "two", "wgan")
    one, two = (read_samples(tmp_path / name / "samples" / "images.safetensors").images for name in ("one", "two"))
    assert torch.equal(one, two)


@pytest.mark.parametrize(("logger", "pattern"), [("tensorboard", "events.out.*"), ("wandb", "run-*.wandb")])
def test_other_loggers_work_without_an_account(tmp_path: Path, monkeypatch, logger: str, pattern: str) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    tasks.train(config(tmp_path / "run", "gan", f"logger={logger}", "trainer.max_epochs=2"))
    wandb.teardown()  # its service writes on after the run's end
    (written,) = (tmp_path / "run").rglob(pattern)
    assert written.stat().st_size > 500


class Poison(pl.Callback):
    """Makes the generator's weights NaN after the first epoch."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put one NaN in."""
        next(pl_module.generator.parameters()).data.fill_(math.nan)


def test_a_nan_loss_stops_the_run_and_says_what_to_look_at(tmp_path: Path) -> None:
    with pytest.raises(CrystensError, match=r"became NaN or infinite by step \d+ .*learning rate"):
        tasks.train(config(tmp_path, "gan", "+callbacks.poison={_target_:test_train.Poison}"))


@pytest.mark.filterwarnings("error:.*monitor")
def test_without_sample_statistics_there_is_no_best_checkpoint_and_the_log_says_so(tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO, logger="crystens")
    tasks.train(config(tmp_path, "gan", "callbacks.sample_statistics=null", "trainer.max_epochs=2"))
    assert "callbacks.best_checkpoint is left out: nothing logs val/mean_ks without sample_statistics" in caplog.text
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]


def test_without_sample_statistics_the_best_checkpoint_may_be_that_of_a_loss(tmp_path: Path) -> None:
    monitor = "callbacks.best_checkpoint.monitor=train/generator_loss"
    tasks.train(config(tmp_path, "gan", "callbacks.sample_statistics=null", monitor, "trainer.max_epochs=3"))
    values = losses(tmp_path, "gan")["train/generator_loss"]
    assert load_checkpoint(tmp_path / "checkpoints" / "best.ckpt")["epoch"] == values.index(min(values))


def test_every_other_callback_can_be_left_out(tmp_path: Path) -> None:
    names = ("finite_losses", "random_states", "last_checkpoint", "best_checkpoint")
    without = [f"callbacks.{name}=null" for name in names]
    tasks.train(config(tmp_path, "gan", *without, "trainer.max_epochs=1", "num_samples=2"))
    assert not (tmp_path / "checkpoints").exists()
    assert (tmp_path / "samples" / "report.html").is_file()


def test_resume_with_more_epochs_trains_on_remembers_them_and_replaces_the_samples(tmp_path: Path) -> None:
    folder = tasks.train(config(tmp_path / "run", "gan", "num_samples=4", "trainer.max_epochs=2"))
    saved = folder / "config.yaml"
    before = read_samples(folder / "samples" / "images.safetensors").images.clone()
    saved.write_text(saved.read_text().replace("max_epochs: 2", "max_epochs: 3"))
    tasks.train(config(folder, "gan", f"resume={folder}"))
    assert len(losses(folder, "gan")["train/generator_loss"]) == 3
    assert "max_epochs: 3" in saved.read_text()
    assert not torch.equal(before, read_samples(folder / "samples" / "images.safetensors").images)


def test_samples_of_a_network_that_averages_mirror_images_are_measured_before_and_after(tmp_path: Path) -> None:
    symmetric = "model.network.symmetric=true"
    folder = tasks.train(config(tmp_path, "edm", symmetric, "trainer.max_epochs=1", "num_samples=4"))
    metrics = json.loads((folder / "samples" / "metrics.json").read_text())
    assert metrics["provenance"]["value"]["symmetric"] is True
    assert 0 <= metrics["cell_length_variance_projected"]["value"] < metrics["cell_length_variance"]["value"]


def test_what_does_not_fit_the_checkpoint_is_refused_and_not_kept(tmp_path: Path) -> None:
    muon = "model.optimizer._target_=crystens.optimization.muon.MuonAdamW"
    tasks.train(config(tmp_path, "edm", muon, "trainer.max_epochs=1"))
    for change in ("model.optimizer._target_=torch.optim.AdamW", "model.network.width=32"):
        with (
            resuming(tmp_path, "trainer.max_epochs=2", change) as cfg,
            pytest.raises(CrystensError, match="model, its optimizer and max_sites stay as they were on resume"),
        ):
            tasks.train(cfg)
    with resuming(tmp_path, "trainer.max_epochs=2") as cfg:
        tasks.train(cfg)
    assert len(losses(tmp_path, "edm")["train/loss"]) == 2


def test_another_split_is_refused_and_not_kept_unless_it_is_asked_for_this_time(tmp_path: Path) -> None:
    tasks.train(config(tmp_path, "gan", "trainer.max_epochs=1"))
    files = [tmp_path / "config.yaml", tmp_path / "rejected.csv"]
    before = [path.read_text() for path in files]
    other = ["trainer.max_epochs=2", "data.split_seed=1", "data.limits.max_length=12"]
    with (
        resuming(tmp_path, *other) as cfg,
        pytest.raises(CrystensError, match=r"not those that the checkpoint.*data.split_seed \(0, now 1\).*max_length"),
    ):
        tasks.train(cfg)
    assert [path.read_text() for path in files] == before
    with resuming(tmp_path, *other, "resume_on_other_data=true") as cfg:
        tasks.train(cfg)
    assert len(losses(tmp_path, "gan")["train/generator_loss"]) == 2
    assert "resume_on_other_data: false" in files[0].read_text()
    assert "split_seed: 1" in files[0].read_text()
    assert files[1].read_text() != before[1]
    with resuming(tmp_path, "trainer.max_epochs=3", "data.batch_size=8") as cfg:
        tasks.train(cfg)


def test_a_run_whose_config_names_classes_by_their_modules_of_before_goes_on_and_is_sampled(tmp_path: Path) -> None:
    tasks.train(config(tmp_path, "gan", "trainer.max_epochs=1"))
    path = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint = load_checkpoint(path)
    card = json.dumps(checkpoint[KEY]["config"])
    saved = (tmp_path / "config.yaml").read_text()
    for old, new in _MOVED.items():
        card, saved = card.replace(f'"{new}"', f'"{old}"'), saved.replace(f"_target_: {new}\n", f"_target_: {old}\n")
    assert "crystens.data.limits.Limits" in card
    assert "crystens.data.limits.Limits" in saved
    torch.save({**checkpoint, KEY: {**checkpoint[KEY], "config": json.loads(card)}}, path)
    (tmp_path / "config.yaml").write_text(saved)
    before = crystens.load(tmp_path, "cpu").sample_images(3)
    with resuming(tmp_path, "trainer.max_epochs=2") as cfg:
        tasks.train(cfg)
    assert len(losses(tmp_path, "gan")["train/generator_loss"]) == 2
    assert not torch.equal(before, crystens.load(tmp_path, "cpu").sample_images(3))


def test_other_data_are_for_a_run_that_goes_on(tmp_path: Path) -> None:
    with pytest.raises(CrystensError, match="resume_on_other_data=true is for a run that goes on: give resume=RUN"):
        tasks.train(config(tmp_path, "gan", "resume_on_other_data=true"))


def test_a_checkpoint_from_before_there_was_a_record_of_the_data_resumes(tmp_path: Path, caplog) -> None:
    tasks.train(config(tmp_path, "gan", "trainer.max_epochs=1"))
    path = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint = load_checkpoint(path)
    assert "trained_on" not in checkpoint[KEY]["representation"]
    del checkpoint["CrysTensDataModule"]["trained_on"]
    torch.save(checkpoint, path)
    saved = tmp_path / "config.yaml"
    saved.write_text(saved.read_text().replace("resume_on_other_data: false\n", ""))
    with caplog.at_level(logging.WARNING), resuming(tmp_path, "trainer.max_epochs=2") as cfg:
        tasks.train(cfg)
    assert "no record of its data" in caplog.text
    assert "trained_on" in load_checkpoint(path)["CrysTensDataModule"]


def test_a_run_folder_is_not_overwritten(tmp_path: Path) -> None:
    tasks.train(config(tmp_path, "gan", "trainer.max_epochs=1"))
    with pytest.raises(CrystensError, match="already holds a run; give resume="):
        tasks.train(config(tmp_path, "gan"))


@pytest.mark.parametrize(("override", "message"), [("seed=-1", "seed must be 0 to"), ("num_samples=-5", "0 or more")])
def test_numbers_out_of_range_are_refused(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(CrystensError, match=message):
        tasks.train(config(tmp_path, "gan", override))


def test_resuming_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CrystensError, match="is no run folder"):
        tasks.train(config(tmp_path, "gan", f"resume={tmp_path}"))
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(CrystensError, match=r"no checkpoints/last.ckpt yet"):
        tasks.train(config(tmp_path, "gan", f"resume={tmp_path}"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no checkpoint at"),
        (b"not a checkpoint", "cannot be read as a checkpoint"),
        (b"", "cannot be read as a checkpoint"),
        ({KEY: 3}, "was not written by crystens"),
        ({"state_dict": {}}, "was not written by crystens"),
        ({KEY: {"format": 999, "version": "9.9"}}, r"checkpoint format 999 \(crystens 9.9\)"),
    ],
)
def test_a_wrong_checkpoint_is_refused_in_one_line(tmp_path: Path, content, message: str) -> None:
    path = tmp_path / "some.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(CrystensError, match=message) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_unknown_key_in_an_experiment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CrystensError, match=r"cannot build trainer from its config.*max_epoch"):
        tasks.train(config(tmp_path, "gan", "+trainer.max_epoch=3"))


@pytest.mark.parametrize("path", sorted((CONF / "experiment").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_composes(path: Path) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=[f"experiment={path.stem}", "run_folder=x", "data.path=y"])
    plain = tasks._plain(cfg)
    assert plain["image_side"] == (64 if path.stem.startswith("paper_") else 12 + plain["max_sites"])


@pytest.mark.parametrize("group", ["data", "logger", "model", "scaling", "decode"])
def test_every_choice_of_a_group_composes(group: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for path in sorted((CONF / group).glob("[a-z]*.yaml")):
            cfg = compose("train", overrides=[f"{group}={path.stem}", "run_folder=x"])
            built_later = (group, path.stem) == ("decode", "checkpoint")  # on top of the one that a checkpoint brings
            assert (tasks._plain(cfg)[group]["_target_"] is None) == built_later


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_a_run_killed_with_signal_9_and_resumed_has_the_losses_of_an_uninterrupted_one(
    tmp_path: Path, model: str
) -> None:
    arguments = [line for line in overrides(tmp_path / "unused", model) if not line.startswith("run_folder=")]
    arguments = [line for line in arguments if not line.startswith("trainer.max_epochs=")] + ["trainer.max_epochs=12"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    tasks.train(config(whole, model, "trainer.max_epochs=12"))
    command = [sys.executable, str(REPOSITORY / "train.py")]
    process = subprocess.Popen([*command, *arguments, f"hydra.run.dir={killed}"], stdout=subprocess.DEVNULL)
    while process.poll() is None and not (killed / "checkpoints" / "last.ckpt").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it was killed; give it more epochs"
    assert len(losses(killed, model)[LOSSES[model][0]]) < 12
    if model == "edm":  # one model shows that the command line finds the run
        subprocess.run([*command, f"resume={killed}"], check=True, timeout=600, capture_output=True)
    else:
        with resuming(killed) as cfg:
            tasks.train(cfg)
    expected, found = losses(whole, model), losses(killed, model)
    for name, values in expected.items():
        assert values[-len(found[name]) :] == found[name]
        assert len(found[name]) >= 1
    states = [load_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"] for run in (whole, killed)]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
