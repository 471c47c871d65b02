"""Sweeps: launchers, Optuna's search, what a failed job leaves, runs that stop early."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf
from test_train import CONF, REPOSITORY, overrides

from crystens.callbacks.median_stop import VALUES, MedianStop
from crystens.errors import CrystensError
from crystens.training.command_line import FAILED, FailedJobs, _explain, check_overrides
from crystens.training.tasks import objective_value

SWEEPS = sorted(path.stem for path in (CONF / "sweep").glob("[a-z]*.yaml"))
LAUNCHERS = {"processes": "Joblib", "slurm": "Slurm", "slurm_local": "Local", "ray_jobs": "Ray"}


def environment() -> dict[str, str]:
    """Return what a command of its own is to see: the tests' own cache folder among it."""
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}


def needs(plugin: str) -> None:
    """Skip a test where a plugin of Hydra's is not installed."""
    if not any(plugin.lower() in found.__name__.lower() for found in Plugins.instance().discover()):
        extra = "ray-sweep" if plugin == "RayLauncher" else "sweep"
        pytest.skip(f"no {plugin} plugin of Hydra here; pip install -e '.[{extra}]'")


def sweep(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `train.py -m` on tiny models, with its folder."""
    given = tuple(f"{argument.split('=')[0]}=" for argument in arguments)  # of a key given twice one value wins
    left_out = ("run_folder", "num_samples", *given)
    small = [line for line in overrides(folder, "gan") if not line.startswith(left_out)]
    command = [sys.executable, str(REPOSITORY / "train.py"), "-m", *small, "num_samples=4", f"hydra.sweep.dir={folder}"]
    return subprocess.run(
        [*command, *arguments], env=environment(), cwd=folder, capture_output=True, text=True, timeout=900
    )


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["processes", "slurm_local", "ray_jobs"])
def test_four_jobs_in_processes_of_which_one_fails(tmp_path: Path, launcher: str) -> None:
    needs(LAUNCHERS[launcher] + "Launcher")
    done = sweep(tmp_path, f"hydra/launcher={launcher}", "model.generator.width=8,0", "seed=1,2")
    assert done.returncode == 1
    assert "2 failed" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    for job, seed in (("0", 1), ("1", 2)):
        assert OmegaConf.load(tmp_path / job / "config.yaml").seed == seed
        assert len((tmp_path / job / "samples" / "crystals.csv").read_text().splitlines()) == 5
        assert not (tmp_path / job / FAILED).exists()
    for job in ("2", "3"):
        assert "width" in (tmp_path / job / FAILED).read_text()


@pytest.mark.slow
def test_a_search_by_optuna_goes_on_after_failed_trials_and_names_the_least_variance(tmp_path: Path) -> None:
    needs("OptunaSweeper")
    done = sweep(
        tmp_path,
        "sweep=gan",
        "model.discriminator.width=choice(8,0)",
        "data.batch_size=16",
        "hydra.sweeper.n_trials=6",
        f"hydra.sweeper.storage=sqlite:///{tmp_path}/search.db",
        "hydra.sweeper.study_name=search",
        "callbacks.median_stop.runs=1",
    )
    found = OmegaConf.load(tmp_path / "optimization_results.yaml")
    finished = [json.loads(path.read_text()) for path in tmp_path.glob("*/samples/metrics.json")]
    failed = list(tmp_path.glob(f"*/{FAILED}"))
    assert failed, done.stderr
    assert len(finished) + len(failed) == 6
    assert found.best_value == pytest.approx(min(metrics["coordinate_variance"]["value"] for metrics in finished))
    assert found.best_params["model.discriminator.width"] == 8
    assert list(tmp_path.glob(f"*/{VALUES}"))
    assert (tmp_path / "search.db").stat().st_size > 0


@pytest.mark.parametrize("name", SWEEPS)
def test_every_key_that_a_sweep_searches_is_a_key_of_its_model(name: str) -> None:
    needs("OptunaSweeper")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=[f"sweep={name}", "run_folder=x"], return_hydra_config=True)
    assert cfg.hydra.sweeper.params
    for key in cfg.hydra.sweeper.params:
        assert OmegaConf.select(cfg, key, throw_on_missing=True) is not None, key
    assert cfg.callbacks.median_stop.every_n_epochs == cfg.callbacks.sample_statistics.every_n_epochs
    assert cfg.objective == "coordinate_variance"


@pytest.mark.parametrize("name", LAUNCHERS)
def test_every_launcher_composes(name: str) -> None:
    needs(LAUNCHERS[name] + "Launcher")
    check_overrides([f"hydra/launcher={name}", "model=gan,wgan"], "train")


def test_a_launcher_that_is_not_installed_is_answered_with_how_to_install_it() -> None:
    message = "In 'hydra/launcher/processes': Could not find 'hydra/launcher/joblib'"
    assert _explain(message, [], "train") == 'hydra/launcher=joblib is not installed: pip install -e ".[sweep]"'


def test_a_misspelt_launcher_is_answered_with_those_that_exist() -> None:
    with pytest.raises(CrystensError, match=r"no hydra/launcher=proceses \(did you mean 'processes'\?\)"):
        check_overrides(["hydra/launcher=proceses"], "train")


def test_a_sweep_without_m_is_refused(tmp_path: Path) -> None:
    needs("OptunaSweeper")
    command = [sys.executable, str(REPOSITORY / "train.py"), "sweep=gan", f"hydra.run.dir={tmp_path / 'run'}"]
    done = subprocess.run(command, env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert done.stderr.startswith("error: sweep=... searches with -m")


def test_the_word_none_is_refused_for_null() -> None:
    with pytest.raises(
        CrystensError, match=r"model.gradient_clip=None sets the word None; write model.gradient_clip=null"
    ):
        check_overrides(["model.gradient_clip=None"], "train")


def metrics(folder: Path, **values: object) -> Path:
    """Write a metrics.json of these values into a run folder."""
    (folder / "samples").mkdir(parents=True)
    (folder / "samples" / "metrics.json").write_text(json.dumps({name: {"value": v} for name, v in values.items()}))
    return folder


def test_the_objective_is_a_metric_of_the_samples(tmp_path: Path) -> None:
    folder = metrics(tmp_path, decoded_rate=0.5, coordinate_variance=None, provenance={"seed": 1})
    assert objective_value(OmegaConf.create({"objective": "decoded_rate"}), folder) == 0.5
    assert objective_value(OmegaConf.create({"objective": None}), folder) is None
    assert objective_value(OmegaConf.create({}), folder) is None  # of sample.py
    with pytest.raises(CrystensError, match=r"no metric objective=decode_rate; .*coordinate_variance, decoded_rate$"):
        objective_value(OmegaConf.create({"objective": "decode_rate"}), folder)
    with pytest.raises(CrystensError, match=r"no sample of .* could be measured"):
        objective_value(OmegaConf.create({"objective": "coordinate_variance"}), folder)


def test_a_sweep_ends_with_status_1_if_and_only_if_a_job_failed(tmp_path: Path, capsys) -> None:
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    (tmp_path / "0").mkdir()
    FailedJobs().on_multirun_end(config)
    (tmp_path / "0" / FAILED).write_text("why\n")
    with pytest.raises(SystemExit) as ended:
        FailedJobs().on_multirun_end(config)
    assert ended.value.code == 1
    assert re.search(r"1 failed: .*0/error.txt", capsys.readouterr().err)


def stopped(folder: Path, value: float, epoch: int = 10, **options: object) -> bool:
    """Return whether a run in this folder stops after an epoch with this value."""
    folder.mkdir(exist_ok=True)
    trainer = SimpleNamespace(
        current_epoch=epoch - 1,
        callback_metrics={"val/x": torch.tensor(value)},
        is_global_zero=True,
        strategy=SimpleNamespace(broadcast=lambda reason: reason),
        should_stop=False,
    )
    MedianStop(str(folder), "val/x", **{"runs": 3, **options}).on_train_epoch_end(trainer, None)  # type: ignore[arg-type]
    return trainer.should_stop


def test_a_run_worse_than_the_median_of_three_others_at_its_epoch_stops(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 2.0), ("c", 3.0)):
        assert not stopped(tmp_path / name, value)  # too few others
        assert not stopped(tmp_path / name, 0.0, epoch=20)
    assert not stopped(tmp_path / "d", 2.0)
    assert stopped(tmp_path / "e", 2.1)
    assert not stopped(tmp_path / "e", 2.1, epoch=15)  # not looked at
    with (tmp_path / "e" / VALUES).open() as file:
        assert [(int(epoch), float(value)) for epoch, value in csv.reader(file)] == [(10, pytest.approx(2.1))]


def test_more_is_better_where_the_mode_is_max_and_nan_is_the_worst(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 2.0), ("c", math.nan)):
        stopped(tmp_path / name, value, mode="max")
    assert stopped(tmp_path / "d", 0.9, mode="max")
    assert not stopped(tmp_path / "e", 1.5, mode="max")
    assert stopped(tmp_path / "f", math.nan, mode="max")


def test_a_run_worse_than_the_bound_stops_alone(tmp_path: Path) -> None:
    assert stopped(tmp_path / "a", 2.0, bound=1.0)
    assert not stopped(tmp_path / "b", 1.0, bound=1.0)


def test_a_metric_that_nobody_logs_is_refused(tmp_path: Path) -> None:
    trainer = SimpleNamespace(current_epoch=9, callback_metrics={})
    with pytest.raises(CrystensError, match="no metric val/x at epoch 10"):
        MedianStop(str(tmp_path), "val/x").on_train_epoch_end(trainer, None)  # type: ignore[arg-type]


def test_a_line_torn_by_a_neighbour_that_writes_is_not_read(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / VALUES).write_text("10,1.0\n20,0.")
    assert stopped(tmp_path / "d", 2.0)
    assert not stopped(tmp_path / "e", 2.0, epoch=20)


_BROKEN = """
import sys
from pathlib import Path
from crystens.training.command_line import main

def task(cfg):
    print("job of seed", cfg.seed, 1 / (cfg.seed - 1))
    return Path(cfg.run_folder)

main(task, "train")
"""


def test_a_job_that_breaks_on_a_mistake_of_ours_does_not_end_the_sweep_and_leaves_its_traceback(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text(_BROKEN)
    command = [sys.executable, str(script), "-m", "seed=1,2", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    done = subprocess.run(command, env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "job of seed 2" in done.stdout
    assert "ZeroDivisionError" in (tmp_path / "sweep" / "0" / FAILED).read_text()
    assert not (tmp_path / "sweep" / "1" / FAILED).exists()
