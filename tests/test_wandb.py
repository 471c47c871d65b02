"""Runs of Weights & Biases, offline, read back from the files that would be uploaded; a sweep of W&B by its command."""

from __future__ import annotations

import csv
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from test_train import CONF, REPOSITORY, config, overrides

from crystens.errors import CrystensError
from crystens.metrics.statistics import STATISTICS
from crystens.training import tasks
from crystens.training.command_line import check_overrides
from crystens.training.wandb_run import WandbRun

_BLOCK = 32768
_FILE_HEADER, _CHUNK_HEADER = 7, 7
_WHOLE, _LAST = 1, 4


@pytest.fixture(autouse=True)
def _no_account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        patch.setenv("WANDB_SILENT", "true")
        patch.setenv("NETRC", str(tmp_path_factory.mktemp("home") / "netrc"))
        yield


def records(folder: Path) -> list[Any]:
    """Return what an offline run wrote: a log of chunks in blocks, each record a protocol buffer."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("run-*.wandb")
    data, place, whole, found = path.read_bytes(), _FILE_HEADER, b"", []
    while place + _CHUNK_HEADER <= len(data):
        left = _BLOCK - place % _BLOCK
        if left < _CHUNK_HEADER:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + _CHUNK_HEADER])
        place += _CHUNK_HEADER
        whole += data[place : place + length]
        place += length
        if kind in (_WHOLE, _LAST):
            found.append(Record.FromString(whole))
            whole = b""
    return found


def of_kind(found: list[Any], kind: str) -> list[Any]:
    """Return the records of a kind."""
    return [getattr(record, kind) for record in found if record.WhichOneof("record_type") == kind]


def history(found: list[Any]) -> list[dict[str, Any]]:
    """Return what was logged, in order."""
    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row.item}
        for row in of_kind(found, "history")
    ]


def starts(folder: Path) -> list[list[Any]]:
    """Return the records of each start of a run, in order."""
    wandb.teardown()  # files are written after `finish` returns, until the service ends
    return [records(path) for path in sorted((folder / "wandb").glob("offline-run-*"))]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train four epochs with six samples, and go on to six epochs."""
    folder = tmp_path_factory.mktemp("wandb") / "run"
    more = ["logger=wandb", "logger.tags=[tiny]", "logger.group=tests", "num_samples=6", "logger.table_rows=5"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        tasks.train(config(folder, "gan", *more))
        saved = folder / "config.yaml"
        saved.write_text(saved.read_text().replace("max_epochs: 4", "max_epochs: 6"))
        tasks.train(config(folder, "gan", f"resume={folder}"))
    return folder


def test_a_resumed_run_goes_on_with_the_same_id(run: Path) -> None:
    headers = [of_kind(found, "run")[0] for found in starts(run)]
    assert len(headers) == 2
    kept = json.loads((run / "wandb_run.json").read_text())
    assert {header.run_id for header in headers} == {kept["id"]}
    for header in headers:
        assert (header.run_group, header.job_type, list(header.tags)) == ("tests", "train", ["tiny"])
        assert header.project == "crystens"
    rows = [history(found) for found in starts(run)]
    epochs = [{row["epoch"] for row in part if "train/generator_loss_epoch" in row} for part in rows]
    assert epochs == [{0, 1, 2, 3}, {4, 5}]


def test_metrics_have_step_axes_of_their_own(run: Path) -> None:
    axes = {metric.glob_name: metric.step_metric for metric in of_kind(starts(run)[0], "metric")}
    assert axes.pop("") == ""  # the axes themselves
    assert axes == {
        "train/*": "trainer/global_step",
        "steps/*": "trainer/global_step",
        "val/*": "epoch",
        "samples/*": "epoch",
    }
    for row in history(starts(run)[0]):
        names = {name.split("/")[0] for name in row}
        assert "epoch" in row or not names & {"val", "samples"}
        assert "trainer/global_step" in row or "train" not in names


def test_the_config_of_the_run_is_the_resolved_one(run: Path) -> None:
    found = {
        item.key: json.loads(item.value_json) for part in of_kind(starts(run)[0], "config") for item in part.update
    }
    assert found["model_name"] == "GAN"
    assert found["image_side"] == 32
    assert found["model"]["generator"]["image_side"] == 32
    assert found["decode"]["coordinate_clusters"] == "auto"


def test_the_crystals_of_the_samples_are_a_table_with_pictures(run: Path) -> None:
    (row,) = [row for row in history(starts(run)[1]) if "samples/decoded_rate" in row]
    metrics = json.loads((run / "samples" / "metrics.json").read_text())
    for name in STATISTICS:
        assert row[f"samples/{name}"] == pytest.approx(metrics[name]["value"])
    assert row["epoch"] == 6
    assert row["samples/crystals/nrows"] == 5
    (contents,) = [kept.manifest.contents for kept in of_kind(starts(run)[1], "artifact") if kept.type == "run_table"]
    (path,) = [entry.local_path for entry in contents if entry.path == "samples/crystals.table.json"]
    table = json.loads(Path(path).read_text())
    with (run / "samples" / "crystals.csv").open() as file:
        rows = list(csv.DictReader(file))[:5]
    for found, expected in zip(table["data"], rows, strict=True):
        shown = dict(zip(table["columns"], found, strict=True))
        assert shown["formula"] == (expected["formula"] or None)
        assert shown["space_group"] == (int(expected["space_group"]) if expected["space_group"] else None)
        assert shown["structurally_valid"] == {"true": True, "false": False, "": None}[expected["structurally_valid"]]
        assert shown["reason"] == (expected["reason"] or None)
        assert (shown["picture"] is None) == (expected["status"] != "ok")
    pictures = [found[0] for found in table["data"] if found[0] is not None]
    assert all(picture["format"] == "png" and picture["width"] > 100 for picture in pictures)


def test_checkpoints_config_and_metrics_are_artifacts(run: Path) -> None:
    found = {artifact.type: artifact.manifest.contents for artifact in of_kind(starts(run)[1], "artifact")}
    files = {kind: {entry.path: entry for entry in entries} for kind, entries in found.items()}
    assert set(files["model"]) == {"last.ckpt", "best.ckpt", "config.yaml"}
    assert set(files["samples"]) == {"metrics.json", "crystals.csv", "config.yaml"}
    for kind, name, original in (
        ("model", "last.ckpt", run / "checkpoints" / "last.ckpt"),
        ("samples", "metrics.json", run / "samples" / "metrics.json"),
    ):
        staged = Path(files[kind][name].local_path)
        assert staged.is_relative_to(run), "copies belong into the run folder, not into the home folder"
        assert staged.read_bytes() == original.read_bytes()
    kept = yaml.safe_load(Path(files["model"]["config.yaml"].local_path).read_text())
    assert kept["trainer"]["max_epochs"] == 6
    assert kept["run_folder"] == str(run)


def test_the_run_is_over_before_the_next_job_begins(run: Path) -> None:
    import wandb

    assert wandb.run is None
    assert [of_kind(found, "exit")[0].exit_code for found in starts(run)] == [0, 0]


def test_a_run_that_fails_is_marked_as_failed_and_does_not_reach_into_the_next(tmp_path: Path) -> None:
    import wandb

    poison = "+callbacks.poison={_target_:test_train.Poison}"
    with pytest.raises(CrystensError, match="NaN"):
        tasks.train(config(tmp_path / "bad", "gan", "logger=wandb", poison))
    assert wandb.run is None
    (found,) = starts(tmp_path / "bad")
    assert of_kind(found, "exit")[0].exit_code == 1
    assert not of_kind(found, "artifact")


def test_samples_judged_again_are_a_run_of_their_own_with_k(run: Path, tmp_path: Path, monkeypatch) -> None:
    lines = [f"images={run / 'samples' / 'images.safetensors'}", "logger=wandb", "decode.coordinate_clusters=3"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("sample", overrides=[*lines, f"run_folder={tmp_path}"], return_hydra_config=True)
    cfg.hydra.runtime.output_dir = str(tmp_path)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", cfg)
    tasks.sample(cfg)
    (found,) = starts(tmp_path)
    (header,) = of_kind(found, "run")
    assert header.job_type == "sample"
    kept = {item.key: json.loads(item.value_json) for part in of_kind(found, "config") for item in part.update}
    assert kept["decode"]["coordinate_clusters"] == 3
    assert kept["model_name"] == "GAN"
    assert history(found)[0]["epoch"] == 6


@pytest.mark.parametrize(
    ("offline", "environment", "mode"),
    [
        ("auto", {}, "offline"),
        ("auto", {"WANDB_API_KEY": "0" * 40}, "online"),
        ("auto", {"WANDB_API_KEY": "0" * 40, "WANDB_MODE": "offline"}, "offline"),
        (True, {"WANDB_API_KEY": "0" * 40}, "offline"),
        (False, {}, "online"),
    ],
)
def test_a_run_is_offline_where_there_is_no_account(tmp_path, monkeypatch, offline, environment, mode) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert WandbRun(str(tmp_path), offline=offline)._wandb_init["mode"] == mode


def test_an_account_that_wandb_login_wrote_is_found(tmp_path, monkeypatch) -> None:
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai\n  login user\n  password {'0' * 40}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert WandbRun(str(tmp_path))._wandb_init["mode"] == "online"


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CrystensError, match="true, false or auto, got 'no'"):
        WandbRun(str(tmp_path), offline="no")
    (tmp_path / "wandb_run.json").write_text("{")
    with pytest.raises(CrystensError, match="is damaged; delete it"):
        WandbRun(str(tmp_path))


def test_a_sweep_of_wandb_names_the_run(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "fromsweep")
    assert WandbRun(str(tmp_path)).version == "fromsweep"


def sweep_command(**chosen: Any) -> list[str]:
    """Return the command that W&B's agent makes of conf/wandb_sweep.yaml and of what the server chose."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    sweep = yaml.safe_load((CONF / "wandb_sweep.yaml").read_text())
    unknown = set(chosen) - set(sweep["parameters"])
    assert not unknown
    made = create_sweep_command_args({"args": {name: {"value": value} for name, value in chosen.items()}})
    made |= {"env": ["/usr/bin/env"], "interpreter": [sys.executable], "program": [str(REPOSITORY / sweep["program"])]}
    command: list[str] = []
    for part in create_sweep_command(sweep["command"]):
        command += made[part[2:-1]] if part.startswith("${") else [part]
    return command


CHOSEN = {
    "model": "wgan",
    "seed": 2,
    "model.generator_optimizer.lr": 3.0e-4,
    "model.critic_optimizer.lr": 1.2e-5,
    "model.gradient_clip": "null",
}


def test_every_parameter_of_the_sweep_file_is_a_key_of_train_py() -> None:
    sweep = yaml.safe_load((CONF / "wandb_sweep.yaml").read_text())
    assert set(CHOSEN) == set(sweep["parameters"])
    check_overrides(sweep_command(**CHOSEN)[3:], "train")
    assert sweep["metric"]["name"] == "samples/coordinate_variance"
    with pytest.raises(CrystensError, match=r"write model\.gradient_clip=null"):  # what W&B makes of a null
        check_overrides(sweep_command(**CHOSEN | {"model.gradient_clip": None})[3:], "train")


@pytest.mark.slow
def test_the_command_of_the_sweep_file_trains_with_what_the_agent_chose(tmp_path: Path) -> None:
    small = [
        line for line in overrides(tmp_path, "wgan") if not line.startswith(("run_folder", "model=", "num_samples"))
    ]
    environment = os.environ | {"WANDB_RUN_ID": "agent001", "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    command = [*sweep_command(**CHOSEN), *small, "num_samples=4", f"hydra.run.dir={tmp_path / 'run'}"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    (found,) = starts(tmp_path / "run")
    assert of_kind(found, "run")[0].run_id == "agent001"
    kept = {item.key: json.loads(item.value_json) for part in of_kind(found, "config") for item in part.update}
    assert kept["model"]["generator_optimizer"]["lr"] == 3.0e-4
    assert kept["model"]["gradient_clip"] is None
    assert kept["seed"] == 2
    assert any("samples/coordinate_variance" in row for row in history(found))
