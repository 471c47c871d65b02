"""train.py and sample.py as a person calls them: mistakes are one line and no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from crystens.configs.keys import check_arguments
from crystens.errors import CrystensError
from crystens.training import tasks  # noqa: F401  (registers schemas and resolvers)
from crystens.training.command_line import check_overrides

REPOSITORY = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.max_epoch=3", r"no config key 'trainer.max_epoch' \(did you mean 'trainer.max_epochs'\?\)"),
        ("seeed=1", r"no config key 'seeed' \(did you mean 'seed'\?\)"),
        ("model=wgam", r"there is no model=wgam \(did you mean 'wgan'\?\); choices: .*diffusion.*wgan"),
        ("model=wgan,diffusin", r"there is no model=diffusin \(did you mean 'diffusion'\?\)"),
        ("max_sites=many", "max_sites"),
        ("=3", "cannot read the command line"),
    ],
)
def test_a_misspelt_override_is_answered_with_the_nearest_name(override: str, message: str) -> None:
    with pytest.raises(CrystensError, match=message) as caught:
        check_overrides([override], "train")
    assert "\n" not in str(caught.value)


def test_a_key_of_a_run_that_goes_on_is_told_how_to_be_set() -> None:
    with pytest.raises(CrystensError, match=r"no config key 'model.sampling_steps'.* is set with \+KEY=VALUE"):
        check_overrides(["resume=x", "model.sampling_steps=9"], "train")
    check_overrides(["resume=x", "+model.sampling_steps=9"], "train")


@pytest.mark.parametrize(
    ("command", "override", "message"),
    [
        (
            "sample",
            "+formula=SrTiO3",
            "sample has .*checkpoint.*keys such as condition.formula=SrTiO3",
        ),
        (
            "sample",
            "formula=SrTiO3",
            "sample has .*checkpoint.*keys such as condition.formula=SrTiO3",
        ),
        ("sample", "+space_group=221", "no config key 'space_group'"),
        ("train", "+formula=SrTiO3", "no config key 'formula'; train has acceleration, "),
        ("train", "+encoding.foo=1", "no config key 'encoding.foo'; encoding has sites, distance, atoms"),
        ("train", "+sweep.foo=1", "no config key 'sweep'"),
    ],
)
def test_a_key_that_nothing_reads_is_refused(command: str, override: str, message: str) -> None:
    with pytest.raises(CrystensError, match=message) as caught:
        check_overrides([override], command)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["generator_optimizer.foo", "generator_optimizer.leraning_rate"])
def test_an_argument_that_is_only_taken_later_is_checked_before_training(key: str) -> None:
    node = {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 1.0, key.split(".")[1]: 1}
    with pytest.raises(CrystensError, match=rf"no config key 'model.{key}'.* torch.optim.Adam has .*lr"):
        check_arguments(OmegaConf.create({"_target_": "x.Y", "generator_optimizer": node}), "model")


def test_a_part_without_a_class_is_refused() -> None:
    with pytest.raises(CrystensError, match=r"callbacks\.foo names no class to build"):
        check_arguments(OmegaConf.create({"bar": 1}), "callbacks.foo")


@pytest.fixture
def own_configs(tmp_path: Path) -> Path:
    """A folder of a user's own, with an experiment and a main config."""
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 7\n")
    (tmp_path / "own.yaml").write_text("defaults: [train, _self_]\nseed: 9\n")
    return tmp_path


def test_an_experiment_outside_is_found_and_others_are_named(own_configs: Path) -> None:
    check_overrides(["experiment=mine"], "train", more=own_configs)
    check_overrides(["experiment=mine", f"hydra.searchpath=[{own_configs}]"], "train")
    check_overrides([], "own", more=own_configs)
    with pytest.raises(CrystensError, match=r"no experiment=mine; choices: carbon_24_edm"):
        check_overrides(["experiment=mine"], "train")
    with pytest.raises(
        CrystensError, match=r"no experiment=min \(did you mean 'mine'\?\); choices: .*mine.*perov_5_edm"
    ):
        check_overrides(["experiment=min"], "train", more=own_configs)


def test_a_main_config_that_builds_on_none_of_ours_is_refused(own_configs: Path) -> None:
    (own_configs / "own.yaml").write_text("seed: 9\n")
    with pytest.raises(CrystensError, match=r"config own does not build on one of crystens"):
        check_overrides([], "own", more=own_configs)


def test_help_of_sample_lists_its_own_groups(tmp_path: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "sample.py"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=300)
    groups = done.stdout[done.stdout.index("(group=option)") : done.stdout.index("== Config ==")]
    assert [line.split(":")[0] for line in groups.splitlines() if ":" in line] == ["acceleration", "decode", "logger"]


def test_good_overrides_and_sweeps_pass() -> None:
    check_overrides(["model=gan,wgan", "seed=range(3)", "data=cif_folder", "data.path=x"], "train")
    check_overrides(["checkpoint=a.ckpt", "decode.atom_clusters=2,3,auto", "+model.sampling_steps=5"], "sample")


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("train.py", ["modle=wgan"], "did you mean 'model'"),
        ("train.py", ["data=cif_folder", "data.path=/nowhere"], "/nowhere does not exist"),
        ("train.py", ["data=cif_folder", "data.path=EMPTY"], "EMPTY"),
        ("train.py", ["experiment=perov_5_edm", "model=gan"], "sets options of its own model; model=gan was chosen"),
        ("train.py", ["~trainer.nothing", "seed=0", "--cfg", "job"], "'trainer.nothing' does not exist"),
        ("train.py", ["pretrained=null", "+scaling.foo=1"], "no config key 'scaling.foo'"),
        ("sample.py", [], "give either checkpoint=FILE"),
        ("sample.py", ["checkpoint=/nowhere.ckpt"], "no checkpoint at /nowhere.ckpt"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_status_1(tmp_path: Path, script, arguments, message) -> None:
    (tmp_path / "EMPTY").mkdir()
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / script), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1
    assert message in done.stderr
    assert len([line for line in done.stderr.splitlines() if line]) == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_sweep_makes_a_run_folder_for_each_job_and_its_images_can_be_judged_again(tmp_path: Path) -> None:
    tiny = ["max_sites=20", "data.batch_size=128", "trainer.max_epochs=1", "num_samples=4", "threads=1"]
    train = [sys.executable, str(REPOSITORY / "train.py"), "-m", "model=gan,wgan", *tiny, f"hydra.sweep.dir={tmp_path}"]
    subprocess.run(train, cwd=tmp_path, check=True, capture_output=True, timeout=600)
    for job in ("0", "1"):
        assert (tmp_path / job / "samples" / "report.html").is_file()
    images = tmp_path / "0" / "samples" / "images.safetensors"
    # Overrides before and after -m, as the README writes it.
    judge = [sys.executable, str(REPOSITORY / "sample.py"), f"images={images}", "-m", "decode.atom_clusters=2,auto"]
    subprocess.run([*judge, f"out={tmp_path / 'again'}"], cwd=tmp_path, check=True, capture_output=True, timeout=600)
    for job in ("0", "1"):
        assert len((tmp_path / "again" / job / "crystals.csv").read_text().splitlines()) == 5
