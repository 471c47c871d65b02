"""python -m crystens.runs puts runs side by side, those that failed too."""

from __future__ import annotations

import csv
import json
import os
import re
import statistics
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from html_page import assert_self_contained, cells, parse, text_of, with_class

from crystens.cif.write import write_cif
from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.evaluate import main as evaluate
from crystens.report.page import chosen_samples
from crystens.runs.__main__ import compare, main
from crystens.runs.crystals import drawn_crystals
from crystens.runs.figures import _of_the_same_samples, cluster_plot, colours, group_plot, loss_plots
from crystens.runs.run import read_run, read_runs
from crystens.runs.table import Table
from crystens.runs.text import table_text

GAN, WGAN = "crystens.models.gan.GAN", "crystens.models.wgan.WGANGP"
QUANTITIES = ("a", "b", "c", "alpha", "beta", "gamma", "space_group", "Z")


def config(model: str = GAN, seed: int = 0, **changes: Any) -> dict[str, Any]:
    """What train.py saves, in small; changes by dotted name, with "__" for the dots."""
    told: dict[str, Any] = {
        "data": {
            "_target_": "crystens.data.datamodule.CrysTensDataModule",
            "path": "/data/perov_5",
            "seed": "${seed}",
            "batch_size": 32,
            "source": {"_target_": "crystens.datasets.cdvae.CdvaeSplits", "path": "${..path}", "name": "perov_5"},
        },
        "decode": {"_target_": "crystens.decoding.Decoder", "atom_clusters": "auto", "coordinate_clusters": "auto"},
        "trainer": {"_target_": "pytorch_lightning.Trainer", "max_epochs": 20},
        "callbacks": {"last_checkpoint": {"dirpath": "${run_folder}/checkpoints"}},
        "model": {
            "_target_": model,
            "generator": {"_target_": "crystens.networks.conv.ConvGenerator", "width": 48},
            "generator_optimizer": {"_target_": "torch.optim.Adam", "lr": 0.0005 if model == GAN else 0.0001},
        },
        "seed": seed,
        "max_sites": 20,
        "threads": 1 + seed,
        "num_samples": 10,
        "run_folder": f"/runs/{seed}",
    }
    for name, value in changes.items():
        *parts, last = name.split("__")
        node = told
        for part in parts:
            node = node[part]
        node[last] = value
    return told


def metrics(value: float, about: dict[str, Any] | None = None, **others: float) -> dict[str, Any]:
    """What sample.py writes, in small."""
    units = {"cell_length_variance": "angstrom^2", "decoded_rate": "1", **{f"ks_{name}": "1" for name in QUANTITIES}}
    told: dict[str, Any] = {
        name: {"value": others.get(name, value), "unit": unit, "description": name, "count": 10}
        for name, unit in units.items()
    }
    told["num_samples"] = {"value": 10, "unit": "samples", "description": "all", "count": 10}
    return {**told, "provenance": {"value": about or {}, "unit": "", "description": "", "count": 10}}


def about(told: dict[str, Any], weights: str = "w", **changes: Any) -> dict[str, Any]:
    """The provenance that a run's own samples have."""
    return {
        "model": told["model"]["_target_"].rsplit(".", maxsplit=1)[-1],
        "data": {**told["data"]["source"], "path": told["data"]["path"]},
        "trained": "20 epochs, 100 steps",
        "training_seed": told["seed"],
        "seed": told["seed"],
        "max_sites": 20,
        "num_samples": 10,
        "weights": weights,
        "decode": {"atom_clusters": "auto", "coordinate_clusters": "auto"},
        **changes,
    }


def write(folder: Path, told: dict[str, Any] | None = None, judged: dict[str, Any] | None = None) -> Path:
    """Write a run folder, or (without a config) a folder of samples."""
    folder.mkdir(parents=True)
    samples = folder
    if told is not None:
        (folder / "config.yaml").write_text(yaml.safe_dump(told))
        (folder / "train.log").touch()
        samples = folder / "samples"
    if judged is not None:
        samples.mkdir(exist_ok=True)
        (samples / "metrics.json").write_text(json.dumps(judged))
    return folder


def log_losses(folder: Path, losses: list[float], first: int = 0, version: int = 0) -> None:
    """Write what a CSVLogger writes: a row a step, and one at the end of the epoch with the average."""
    path = folder / "csv" / f"version_{version}" / "metrics.csv"
    path.parent.mkdir(parents=True)
    lines = ["epoch,step,train/loss,train/loss_epoch,val/mean_ks"]
    for epoch, loss in enumerate(losses, first):
        lines += [f"{epoch},{epoch},{loss},,", f"{epoch},{epoch},,{loss},", f"{epoch},{epoch},,,0.5"]
    path.write_text("\n".join(lines) + "\n")


def judged_run(folder: Path, value: float, model: str = GAN, seed: int = 0, **changes: Any) -> Path:
    """Write a run that is done; its weights are its own."""
    told = config(model, seed, **changes)
    return write(folder, told, metrics(value, about(told, weights=str(folder))))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_only_settings_that_differ_are_columns_by_short_names(tmp_path: Path) -> None:
    judged_run(tmp_path / "a", 0.1, GAN, 0)
    judged_run(tmp_path / "b", 0.2, WGAN, 1)
    table = compare([tmp_path], tmp_path / "out", pictures=0)
    # Not the learning rate, which follows from the model, nor threads and run_folder, which change nothing.
    assert list(table.settings.values()) == ["model", "seed"]
    assert [(row["run"], row["model"], row["seed"]) for row in rows(tmp_path / "out" / "runs.csv")] == [
        ("a", "GAN", "0"),
        ("b", "WGANGP", "1"),
    ]


def test_a_setting_within_a_model_is_compared_among_runs_of_that_model(tmp_path: Path) -> None:
    judged_run(tmp_path / "a", 0.1, model__generator_optimizer__lr=0.001)
    judged_run(tmp_path / "b", 0.2)
    judged_run(tmp_path / "c", 0.3, WGAN)
    table = Table(read_runs([tmp_path]))
    assert list(table.settings.values()) == ["model", "generator_optimizer.lr"]


def test_models_of_one_name_from_two_modules_are_told_apart(tmp_path: Path) -> None:
    judged_run(tmp_path / "a", 0.1)
    judged_run(tmp_path / "b", 0.1, "own.gan.GAN", model__generator_optimizer__lr=0.0005)
    table = Table(read_runs([tmp_path]))
    assert [table.setting(run, "model") for run in table.runs] == [GAN, "own.gan.GAN"]


def test_a_setting_with_the_name_of_a_metric_is_called_config(tmp_path: Path) -> None:
    judged_run(tmp_path / "a", 0.1, num_samples=10)
    judged_run(tmp_path / "b", 0.1, num_samples=20)
    assert list(Table(read_runs([tmp_path])).settings.values()) == ["config.num_samples"]


def test_runs_that_are_not_done_and_broken_ones_are_rows_with_their_state(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    judged_run(runs / "done", 0.1)
    log_losses(write(runs / "training", config()), [1.0, 0.5, 0.4])
    log_losses(write(runs / "diverged", config()), [1.0, float("nan")])
    write(runs / "begun", config())
    (write(runs / "sampling", config()) / "samples").mkdir()
    (runs / "sampling" / "samples" / "images.part").touch()
    (write(runs / "unjudged", config()) / "samples").mkdir()
    (runs / "unjudged" / "samples" / "images.safetensors").touch()
    (judged_run(runs / "bad_metrics", 0.1) / "samples" / "metrics.json").write_text('{"decoded_rate": {"val')
    (judged_run(runs / "foreign_metrics", 0.1) / "samples" / "metrics.json").write_text('{"accuracy": 0.5}')
    (judged_run(runs / "bad_config", 0.1) / "config.yaml").write_text("model: [1, 2\nseed: 0\n")
    (judged_run(runs / "empty_config", 0.1) / "config.yaml").write_text("")
    (judged_run(runs / "endless_config", 0.1) / "config.yaml").write_text("model: &a {of: [*a]}\n")
    (write(runs / "failed") / "train.log").touch()
    (write(runs / "sample_failed") / "sample.log").touch()
    (judged_run(runs / "binary", 0.1) / "config.yaml").write_bytes(b"\xff\xfe\x00")
    compare([runs], tmp_path / "out", pictures=0)
    states = {row["run"]: row["state"] for row in rows(tmp_path / "out" / "runs.csv")}
    assert set(states) == {path.name for path in runs.iterdir()}
    assert states["done"] == "done"
    assert states["training"] == "no samples yet, at epoch 3 of 20"
    assert states["diverged"] == "no samples: loss was not finite at epoch 2 of 20"
    assert states["begun"] == "no samples yet, no epoch recorded"
    assert states["sampling"] == "no samples yet, sampling"
    assert states["unjudged"] == "sampled, not judged: no metrics.json"
    assert states["bad_metrics"].startswith("metrics.json cannot be read: ")
    assert states["foreign_metrics"] == "metrics.json was not written by crystens: it has no provenance"
    assert states["bad_config"].startswith("config.yaml cannot be read: ")
    assert "line 2" in states["bad_config"]
    assert states["empty_config"] == "config.yaml holds no settings"
    assert states["endless_config"] == "config.yaml holds itself"
    assert states["failed"] == "no metrics: it ended early and wrote only train.log"
    assert states["sample_failed"] == "no metrics: it ended early and wrote only sample.log"
    assert states["binary"].startswith("config.yaml cannot be read: ")
    shown = {row[0] for row in cells(parse((tmp_path / "out" / "runs.html").read_text()), "runs")}
    assert shown == {name if state == "done" else f"{name} {state}" for name, state in states.items()}


def test_metrics_of_a_run_whose_config_is_broken_are_kept(tmp_path: Path) -> None:
    (judged_run(tmp_path / "a", 0.25) / "config.yaml").write_text("{")
    run = read_run(tmp_path / "a")
    assert run.value("ks_a") == 0.25
    assert run.model == "GAN"  # as the provenance of the metrics says


def test_metrics_older_than_the_training_are_called_so(tmp_path: Path) -> None:
    log_losses(judged_run(tmp_path / "a", 0.1), [1.0] * 25)
    assert read_run(tmp_path / "a").state == "metrics of epoch 20, training went on to epoch 25"


def test_a_folder_without_runs_says_what_a_run_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "empty"), "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert "no run below" in told
    assert "config.yaml" in told
    assert "metrics.json" in told
    assert not (tmp_path / "out").exists()
    with pytest.raises(CrystensError, match="folder not found"):
        read_runs([tmp_path / "nowhere"])


def test_links_are_followed_once_and_folders_given_twice_are_read_once(tmp_path: Path) -> None:
    judged_run(tmp_path / "runs" / "seed_0", 0.1)
    judged_run(tmp_path / "elsewhere" / "seed_1", 0.2, seed=1)
    (tmp_path / "runs" / "latest").symlink_to(tmp_path / "runs" / "seed_0")
    (tmp_path / "runs" / "other").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "runs" / "seed_0" / "loop").symlink_to(tmp_path / "runs")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "runs")
    runs = read_runs([tmp_path / "runs", tmp_path / "runs" / "seed_0", tmp_path / "runs"])
    assert [run.name for run in runs] == ["seed_0", "other/seed_1"]


def test_samples_on_another_disk_belong_to_their_run(tmp_path: Path) -> None:
    run = judged_run(tmp_path / "runs" / "a", 0.1)
    (run / "samples").rename(tmp_path / "moved")
    (run / "samples").symlink_to(tmp_path / "moved")
    assert [(run.name, run.state) for run in read_runs([tmp_path / "runs"])] == [("a", "done")]


def test_numbered_runs_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 1):
        write(tmp_path / f"seed_{number}", config(seed=number))
    assert [run.name for run in read_runs([tmp_path])] == ["seed_1", "seed_9", "seed_10"]


def test_the_best_run_is_on_top_and_runs_without_the_metric_at_the_end(tmp_path: Path) -> None:
    for place, value in enumerate([0.3, 0.1, 0.2]):
        judged_run(tmp_path / f"r{place}", value, seed=place)
    write(tmp_path / "none", config(seed=3))
    runs = read_runs([tmp_path])
    assert [run.name for run in Table(runs).runs] == ["r1", "r2", "r0", "none"]  # by mean_ks, small is good
    assert [run.name for run in Table(runs, sort="decoded_rate").runs] == ["r0", "r2", "r1", "none"]  # large is good
    assert [run.name for run in Table(runs, sort="seed").runs] == ["r0", "r1", "r2", "none"]


def test_an_unknown_metric_is_answered_with_the_nearest(tmp_path: Path) -> None:
    judged_run(tmp_path / "a", 0.1)
    runs = read_runs([tmp_path])
    with pytest.raises(CrystensError, match=r"'decoded_rat' \(did you mean decoded_rate\?\)"):
        Table(runs, sort="decoded_rat")
    with pytest.raises(CrystensError, match="no run has a metric 'loss'"):
        Table(runs, metrics=["loss"])
    with pytest.raises(CrystensError, match="no run has a setting that differs 'size'"):
        Table(runs, group=["size"])


def test_mean_ks_is_the_mean_of_the_eight_and_absent_where_one_is(tmp_path: Path) -> None:
    judged_run(tmp_path / "a", 0.0)
    told = metrics(0.0, about(config()), ks_Z=0.8)
    (tmp_path / "a" / "samples" / "metrics.json").write_text(json.dumps(told))
    assert read_run(tmp_path / "a").value("mean_ks") == pytest.approx(0.1)
    told["ks_Z"]["value"] = None
    (tmp_path / "a" / "samples" / "metrics.json").write_text(json.dumps(told))
    assert read_run(tmp_path / "a").value("mean_ks") is None


def test_seeds_are_summarised_as_mean_and_spread_over_runs(tmp_path: Path) -> None:
    values = [0.1, 0.2, 0.4]
    for seed, value in enumerate(values):
        judged_run(tmp_path / "runs" / f"gan_{seed}", value, GAN, seed)
    write(tmp_path / "runs" / "gan_3", config(GAN, 3))  # no metrics yet: does not count
    judged_run(tmp_path / "runs" / "wgan_0", 0.5, WGAN, 0)
    compare([tmp_path / "runs"], tmp_path / "out", pictures=0)
    (group,) = rows(tmp_path / "out" / "groups.csv")
    assert (group["model"], group["n"], group["num_runs"]) == ("GAN", "3", "4")
    assert float(group["ks_a"]) == pytest.approx(statistics.fmean(values))
    assert float(group["ks_a_spread"]) == pytest.approx(statistics.stdev(values))


def test_samples_judged_twice_count_once_and_unlike_runs_of_one_seed_are_not_averaged(tmp_path: Path) -> None:
    first = judged_run(tmp_path / "seed_0", 0.1)
    judged_run(tmp_path / "seed_1", 0.2, seed=1)
    again = about(config(), weights=str(first), source=str(first / "samples" / "images.safetensors"))
    write(tmp_path / "again", None, metrics(0.1, again))
    (group,) = Table(read_runs([tmp_path])).summarised()
    assert (len(group.runs), len(group.counted), group.problem) == (3, 2, None)
    judged_run(tmp_path / "seed_0_changed", 0.3)  # other weights, though all that is recorded is the same
    (group,) = Table(read_runs([tmp_path])).summarised()
    assert group.problem == "not averaged: again and seed_0_changed have the same seed"


def test_any_setting_can_be_averaged_over(tmp_path: Path) -> None:
    for place, size in enumerate((16, 32)):
        judged_run(tmp_path / f"r{place}", 0.1 + place, data__batch_size=size)
    runs = read_runs([tmp_path])
    assert Table(runs).summarised() == []
    (group,) = Table(runs, group=["data.batch_size"]).summarised()
    assert group.mean("ks_a") == pytest.approx(0.6)
    assert "differ in data.batch_size only" in table_text(Table(runs, group=["data.batch_size"]))


def test_samples_in_a_folder_of_their_own_take_settings_from_the_run_they_came_from(tmp_path: Path) -> None:
    run = judged_run(tmp_path / "runs" / "a", 0.1, model__generator__width=96)
    judged_run(tmp_path / "runs" / "b", 0.2)
    for clusters in (2, 3):
        told = about(
            config(),
            weights=str(run),
            source=str(run / "samples" / "images.safetensors"),
            decode={"atom_clusters": clusters, "coordinate_clusters": "auto"},
        )
        write(tmp_path / "k" / str(clusters), None, metrics(0.1, told))
    table = Table(read_runs([tmp_path / "runs", tmp_path / "k"]))
    assert set(table.settings.values()) == {"decode.atom_clusters", "generator.width"}
    found = {run.name: [table.setting(run, name) for name in sorted(table.settings)] for run in table.runs}
    assert found == {"runs/a": ["auto", "96"], "runs/b": ["auto", "48"], "k/2": ["2", "96"], "k/3": ["3", "96"]}
    assert cluster_plot(table, ["decoded_rate"]).startswith(b"\x89PNG")
    assert cluster_plot(Table(read_runs([tmp_path / "runs"])), ["decoded_rate"]) is None


def test_seeds_that_were_not_judged_at_every_k_do_not_look_like_an_effect_of_k(tmp_path: Path) -> None:
    for seed, value in ((0, 0.2), (1, 0.8)):
        judged_run(tmp_path / f"seed_{seed}", value, seed=seed)
    told = about(config(), str(tmp_path / "seed_0"), decode={"atom_clusters": 3, "coordinate_clusters": "auto"})
    write(tmp_path / "k3", None, metrics(0.2, {**told, "source": str(tmp_path / "seed_0/samples/images.safetensors")}))
    table = Table(read_runs([tmp_path]))
    assert sorted(group.mean("ks_a") or 0 for group in table.groups) == pytest.approx([0.2, 0.5])
    assert [group.mean("ks_a") for group in _of_the_same_samples(table.groups)] == pytest.approx([0.2, 0.2])


def test_a_run_that_has_since_been_replaced_tells_nothing_of_samples_of_the_old_one(tmp_path: Path) -> None:
    run = judged_run(tmp_path / "runs" / "a", 0.1, seed=5)
    told = about(config(seed=4), source=str(run / "checkpoints" / "best.ckpt"))
    write(tmp_path / "s", None, metrics(0.1, told))
    found = read_run(tmp_path / "s")
    assert (found.settings["seed"], found.settings["checkpoint"], found.whole) == (4, "best", False)


def test_judged_files_of_a_peer_are_a_row(tmp_path: Path, nacl: Crystal) -> None:
    (tmp_path / "cifs").mkdir()
    (tmp_path / "cifs" / "a.cif").write_text(write_cif(nacl))
    assert evaluate([str(tmp_path / "cifs"), "--out", str(tmp_path / "runs" / "peer")]) == 0
    judged_run(tmp_path / "runs" / "own", 0.5)
    compare([tmp_path / "runs"], tmp_path / "out")
    found = {row["run"]: row for row in rows(tmp_path / "out" / "runs.csv")}
    assert (found["peer"]["decoded_rate"], found["peer"]["model"]) == ("1", "no model")
    assert (found["peer"]["cell_length_variance"], found["peer"]["ks_a"]) == ("", "")


def test_losses_of_a_resumed_run_are_those_of_the_later_file(tmp_path: Path) -> None:
    run = write(tmp_path / "a", config())
    log_losses(run, [5.0, 4.0, 3.9])
    log_losses(run, [3.0, 2.0], first=2, version=1)
    log_losses(run, [1.0], first=4, version=10)
    assert read_run(run).curves["loss"] == {1: 5.0, 2: 4.0, 3: 3.0, 4: 2.0, 5: 1.0}
    with (run / "csv" / "version_10" / "metrics.csv").open("a") as file:
        file.write("5,5,0.1")  # being written now
    assert read_run(run).epochs == 5


def test_a_model_has_one_colour_whatever_runs_there_are(tmp_path: Path) -> None:
    judged_run(tmp_path / "a", 0.1, GAN)
    alone = colours(read_runs([tmp_path]))
    judged_run(tmp_path / "b", 0.1, WGAN)
    judged_run(tmp_path / "c", 0.1, "own.Flow")
    both = colours(read_runs([tmp_path]))
    assert both["GAN"] == alone["GAN"]
    assert len(set(both.values())) == 3


def test_figures_are_absent_where_there_is_nothing_to_draw(tmp_path: Path) -> None:
    write(tmp_path / "runs" / "a", config())
    table = compare([tmp_path / "runs"], tmp_path / "out")
    assert table.metrics == []
    assert group_plot(table, ["decoded_rate"]) is None
    assert loss_plots(table) == {}
    assert not (tmp_path / "out" / "runs.png").exists()


def test_settings_that_are_interpolations_can_be_drawn(tmp_path: Path) -> None:
    judged_run(tmp_path / "runs" / "a", 0.1, data__batch_size="${image_side:${max_sites}}")
    log_losses(judged_run(tmp_path / "runs" / "b", 0.2, decode__atom_clusters="${x"), [1.0])
    table = compare([tmp_path / "runs"], tmp_path / "out", metrics=["decoded_rate"])
    assert len(table.groups) == 2


def with_crystals(run: Path, crystals: list[Crystal]) -> None:
    """Write crystals.csv, CIFs and a report for a run."""
    samples = run / "samples"
    (samples / "cifs").mkdir()
    lines = ["index,file,status,formula,space_group,structurally_valid"]
    for index, crystal in enumerate(crystals):
        (samples / "cifs" / f"{index:06d}.cif").write_text(write_cif(crystal))
        lines.append(f"{index},cifs/{index:06d}.cif,ok,{crystal.formula},{crystal.space_group},true")
    lines.append(f"{len(crystals)},,failed,,,")
    (samples / "crystals.csv").write_text("\n".join(lines) + "\n")
    (samples / "report.html").touch()


def test_the_page_needs_nothing_beside_itself_and_links_to_the_reports(tmp_path: Path, nacl: Crystal) -> None:
    run = judged_run(tmp_path / "runs" / "50 % <b>", 0.1)
    with_crystals(run, [nacl] * 3)
    log_losses(run, [1.0, 0.5])
    judged_run(tmp_path / "runs" / "seed_1", 0.2, seed=1)
    write(tmp_path / "runs" / "seed_2", config(seed=2))
    compare([tmp_path / "runs"], tmp_path / "deep" / "out")
    page = parse((tmp_path / "deep" / "out" / "runs.html").read_text())
    assert_self_contained(page)
    links = {link.get("href", "") for link in page.iter("a")}
    assert links == {"../../runs/50%20%25%20%3Cb%3E/samples/report.html"}
    assert (tmp_path / "deep" / "out" / unquote(links.pop())).is_file()
    captions = [text_of(caption).split()[0] for caption in page.iter("figcaption")]
    assert captions == ["NaCl"] * 3


def test_the_page_shows_metrics_of_runs_and_their_mean_and_spread_over_seeds(tmp_path: Path) -> None:
    judged_run(tmp_path / "runs" / "first", 0.1)
    judged_run(tmp_path / "runs" / "second", 0.2, seed=1)
    write(tmp_path / "runs" / "third", config(seed=2))
    compare([tmp_path / "runs"], tmp_path / "out")
    page = parse((tmp_path / "out" / "runs.html").read_text())
    assert [(row[0], row[-1]) for row in cells(page, "runs")] == [
        ("first", "0.1"),
        ("second", "0.2"),
        ("third no samples yet, no epoch recorded", "–"),
    ]
    ((label, count, *values),) = cells(page, "groups")
    assert (label, count, set(values)) == ("GAN", "2", {"0.15 ± 0.071"})
    assert len(cells(page, "meanings")) == len(values)


def test_a_run_with_few_valid_samples_or_without_an_end_is_never_the_best(tmp_path: Path) -> None:
    for name, decoded, valid in (("all_decode", 1.0, 0.23), ("good", 0.9, 0.8), ("poor", 0.8, 0.6)):
        told = config(seed=len(name))
        judged = metrics(0.5, about(told, weights=name), decoded_rate=decoded)
        judged["structural_validity"] = {"value": valid, "unit": "1", "description": "valid", "count": 10}
        write(tmp_path / "runs" / name, told, judged)
    (judged_run(tmp_path / "runs" / "broken", 1.0) / "config.yaml").write_text("{")
    compare([tmp_path / "runs"], tmp_path / "out", metrics=["decoded_rate", "structural_validity"])
    page = parse((tmp_path / "out" / "runs.html").read_text())
    assert [text_of(cell) for cell in with_class(page, "best")] == ["0.9", "0.8"]
    assert "Bold: the best value of a column among finished runs with at least 50%" in text_of(page)


def test_the_title_and_numbered_jobs_name_the_folder_of_the_sweep(tmp_path: Path) -> None:
    for job in range(2):
        judged_run(tmp_path / "widths" / "runs" / str(job), 0.1, seed=job)
    table = compare([tmp_path / "widths" / "runs"], tmp_path / "out")
    assert [run.name for run in table.runs] == ["runs/0", "runs/1"]
    page = parse((tmp_path / "out" / "runs.html").read_text())
    assert [text_of(head) for head in page.iter("h1")] == ["Runs in widths/runs"]


def test_crystals_drawn_are_among_those_of_the_run_s_own_report(
    tmp_path: Path, nacl: Crystal, triclinic: Crystal
) -> None:
    run = judged_run(tmp_path / "a", 0.1, seed=7)
    with_crystals(run, [nacl, triclinic] * 15)
    table = [{"index": index, "status": "ok"} for index in range(30)]
    drawn, total = drawn_crystals(read_run(run), 4)
    assert [row["index"] for row, _ in drawn] == chosen_samples(table, 7)[:4]
    assert total == 30
    assert all(crystal.formula == row["formula"] for row, crystal in drawn)


def test_the_table_is_told_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judged_run(tmp_path / "runs" / "a", 0.1)
    judged_run(tmp_path / "runs" / "b", 0.2, WGAN)
    out = tmp_path / "out"
    assert main([str(tmp_path / "runs"), "--out", str(out), "--metrics", "decoded_rate", "ks_a"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"^a +20 +GAN +0\.1 +0\.1$", told, re.MULTILINE)
    assert re.search(r"^b +20 +WGANGP +0\.2 +0\.2$", told, re.MULTILINE)
    assert {path.name for path in out.iterdir()} == {"runs.csv", "groups.csv", "runs.png", "runs.html"}
    assert rows(out / "runs.csv")[0]["cell_length_variance"] == "0.1"  # all metrics, not only those shown


def test_no_line_of_the_text_is_wider_than_the_terminal_where_a_column_fits(tmp_path: Path) -> None:
    judged_run(tmp_path / "a", 0.1)
    judged_run(tmp_path / "b", 123.456, seed=1)
    text = table_text(Table(read_runs([tmp_path])), width=60)
    assert max(map(len, text.splitlines())) <= 75  # the line above the averages is one sentence
    assert text.count("\na ") > 1


def test_300_runs_are_read_in_seconds(tmp_path: Path) -> None:
    for number in range(300):
        run = judged_run(tmp_path / f"seed_{number}", 0.1, seed=number)
        log_losses(run, [1.0] * 50)
    start = time.process_time()
    table = Table(read_runs([tmp_path]))
    table_text(table)
    table.write_runs(tmp_path / "runs.csv")
    assert time.process_time() - start < 10
    assert len(table.runs) == 300


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_must_not_be_entered_is_a_row(tmp_path: Path) -> None:
    judged_run(tmp_path / "a", 0.1)
    (tmp_path / "b").mkdir(mode=0)
    assert [run.state for run in read_runs([tmp_path])] == ["done", "cannot be read: Permission denied"]
