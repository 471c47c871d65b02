"""train.py and sample.py as a person calls them: mistakes are one line and no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from crystens import tasks  # noqa: F401  (registers schemas and resolvers)
from crystens.command_line import check_overrides
from crystens.errors import CrystensError

REPOSITORY = Path(__file__).parent.parent
CONF = REPOSITORY / "conf"


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
        check_overrides([override], CONF, "train")
    assert "\n" not in str(caught.value)


def test_a_key_of_a_run_that_goes_on_is_told_how_to_be_set() -> None:
    with pytest.raises(CrystensError, match=r"no config key 'model.sampling_steps'.* is set with \+KEY=VALUE"):
        check_overrides(["resume=x", "model.sampling_steps=9"], CONF, "train")
    check_overrides(["resume=x", "+model.sampling_steps=9"], CONF, "train")


def test_good_overrides_and_sweeps_pass() -> None:
    check_overrides(["model=gan,wgan", "seed=range(3)", "data=cif_folder", "data.path=x"], CONF, "train")
    check_overrides(["checkpoint=a.ckpt", "decode.atom_clusters=2,3,auto", "+model.sampling_steps=5"], CONF, "sample")


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("train.py", ["modle=wgan"], "did you mean 'model'"),
        ("train.py", ["data=cif_folder", "data.path=/nowhere"], "/nowhere does not exist"),
        ("train.py", ["data=cif_folder", "data.path=EMPTY"], "EMPTY"),
        ("train.py", ["experiment=perov_5_edm", "model=gan"], "sets options of its own model; model=gan was chosen"),
        ("train.py", ["~trainer.nothing", "seed=0", "--cfg", "job"], "'trainer.nothing' does not exist"),
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
