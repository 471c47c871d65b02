"""Training that starts from a checkpoint: what comes from it, what from the command line, and what is refused."""

from __future__ import annotations

import csv
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict
from test_kept import rocksalt, rutile

import crystens
from crystens.batch import CrystalBatch
from crystens.checkpoint import KEY, card, load_checkpoint, release
from crystens.cif.write import write_cif
from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.generator import Generator
from crystens.training import command_line, tasks
from crystens.training.pretrained import Pretrained

CONF = Path(__file__).parent.parent / "conf"

SMALL = [
    "trainer.accelerator=cpu",
    "+trainer.enable_progress_bar=false",
    "callbacks.progress_bar=null",
    "callbacks.sample_statistics=null",
    "data.split_fractions=[1,0,0]",
    "data.ingest.workers=0",
    "threads=1",
    "num_samples=0",
]


def perovskite(a: float, first: int = 38, second: int = 22, anion: int = 8) -> Crystal:
    """SrTiO3 and the like, sites in the order A, B, X."""
    places = [[0, 0, 0], [0.5] * 3, [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    return Crystal([a] * 3, [90] * 3, 221, [first, second, *[anion] * 3], np.array(places))


def table(path: Path, crystals: Sequence[Crystal], gaps: Sequence[float] = ()) -> Path:
    """Write crystals as a CSV, with the property gap where there are values."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["cif", "gap"] if gaps else ["cif"])
        for place, crystal in enumerate(crystals):
            writer.writerow([write_cif(crystal), *([gaps[place]] if gaps else [])])
    return path


@contextmanager
def command(*lines: str) -> Iterator[DictConfig]:
    """Give the config of `python train.py LINES`, as long as Hydra knows that command line."""
    lines = (*lines, "hydra.runtime.output_dir=.", "hydra.job.num=0")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=list(lines), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    try:
        yield cfg
    finally:
        HydraConfig.instance().cfg = None


def trained(folder: Path, *lines: str) -> Path:
    """Run train.py with a folder for the run and for stores."""
    with command(*SMALL, f"data.ingest.cache={folder}/cache", f"run_folder={folder}/run", *lines) as cfg:
        return tasks.train(cfg)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a network of few weights, on rocksalts and rutiles that have a gap."""
    folder = tmp_path_factory.mktemp("base")
    sizes = [1 + step / 50 for step in range(12)]
    crystals = [*(rocksalt(5.6 * size) for size in sizes), *(rutile(4.6 * size, 2.96 * size) for size in sizes)]
    path = table(folder / "data.csv", crystals, [3 + place / 10 for place in range(24)])
    return trained(
        folder,
        *("experiment=mp_52_orbits", "data=csv", f"data.path={path}", "data.properties=[gap]"),
        *("model.network.width=16", "model.network.depth=1", "model.network.heads=2", "model.network_calls=3"),
        "trainer.max_epochs=1",
    )


@pytest.fixture(scope="module")
def fluorides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight rocksalts, other than those of the base, in a table without properties."""
    crystals = [rocksalt(5.7 + step / 10, 3, 9) for step in range(8)]
    return table(tmp_path_factory.mktemp("fluorides") / "data.csv", crystals)


def test_a_run_starts_from_the_averaged_weights_and_counts_sizes_anew(
    base: Path, fluorides: Path, tmp_path: Path, caplog
) -> None:
    still = ["model.optimizer.lr=0", "+model.optimizer.matrix_lr=0"]
    with caplog.at_level(logging.INFO):
        run = trained(
            tmp_path, f"pretrained={base}", "data=csv", f"data.path={fluorides}", "trainer.max_epochs=1", *still
        )
    assert "the data do not keep gap (data.properties)" in caplog.text
    assert "batch size 2 instead of 32" in caplog.text
    assert "few training crystals (" in caplog.text
    before, after = load_checkpoint(base), load_checkpoint(run)
    average = {name: value for name, value in before["state_dict"].items() if name.startswith("average_network.")}
    assert len(average) > 10
    for name, value in average.items():
        assert torch.equal(after["state_dict"][name], value), name
        assert torch.equal(after["state_dict"][name.removeprefix("average_")], value), name
    assert after[KEY]["representation"] == before[KEY]["representation"]
    old, new = crystens.load(base, device="cpu"), crystens.load(run, device="cpu")
    assert new.model.facts.scale("gap") == old.model.facts.scale("gap")
    assert new.model.site_counts.nonzero().tolist() == [[2]]
    assert new.model.site_counts.sum() == 8
    assert new.model.size_counts.nonzero().tolist() == [[2, 2, 2, 1]]  # the base has six sites too
    assert new.about["pretrained"] == {"name": str(base), "weights": old.about["weights"]}
    assert "pretrained" not in old.about
    assert new.reference.count == 8
    assert {orbits.space_group for orbits in new.orbits.crystals} == {225}
    assert "gap" in new.conditions  # what the checkpoint learned can still be asked for


def test_a_run_that_started_from_a_checkpoint_goes_on(base: Path, tmp_path: Path) -> None:
    path = table(
        tmp_path / "data.csv", [rocksalt(5.7 + step / 10, 3, 9) for step in range(8)], [9.0 + k for k in range(8)]
    )
    run = trained(
        tmp_path,
        *(f"pretrained={base}", "data=csv", f"data.path={path}", "data.properties=[gap]", "trainer.max_epochs=1"),
    )
    first = load_checkpoint(run)
    with command(f"resume={run}", "trainer.max_epochs=2") as cfg:
        tasks.train(cfg)
    second = load_checkpoint(run)
    assert second["epoch"] == first["epoch"] + 1
    assert second["state_dict"]["site_counts"].sum() == 2 * first["state_dict"]["site_counts"].sum()
    assert second[KEY]["pretrained"] == first[KEY]["pretrained"]
    assert second[KEY]["representation"] == load_checkpoint(base)[KEY]["representation"]
    means = "average_network.facts.means"
    assert torch.equal(second["state_dict"][means], load_checkpoint(base)["state_dict"][means])
    with (
        command(f"resume={run}", "pretrained=perov_5") as cfg,
        pytest.raises(CrystensError, match="starts from a checkpoint once"),
    ):
        tasks.train(cfg)


def test_a_released_model_is_adapted_and_the_report_says_so(tmp_path: Path) -> None:
    crystals = [perovskite(3.8 + step / 10, first=first) for step in range(4) for first in (38, 56)]
    path = table(tmp_path / "data.csv", [*crystals, perovskite(6.2), rocksalt(5.6)])
    run = trained(
        tmp_path,
        *("pretrained=perov_5", "data=csv", f"data.path={path}", "trainer.max_epochs=1", "num_samples=2"),
        *("model.network_calls=3", "model.sample_chunk=2"),
    )
    with (run / "rejected.csv").open() as file:
        reasons = [row["reason"] for row in csv.DictReader(file)]
    assert len(reasons) == 2
    assert "cell out of range: a 6.2 is not from 3.3045 to 5.64988" in reasons[0]
    assert "cell out of range: alpha 60 is not from 89.5 to 90.5" in reasons[1]
    told = json.loads((run / "samples" / "metrics.json").read_text())["provenance"]["value"]["pretrained"]
    assert told == {
        "name": "perov_5",
        "weights": Generator.from_checkpoint(load_checkpoint("perov_5")).about["weights"],
    }
    assert told["weights"] in (run / "samples" / "report.html").read_text()
    generator = crystens.load(run, device="cpu")
    assert (generator.form.shift, generator.form.site_order) == (0.25, "given")
    released = release(load_checkpoint(run), generator.model)
    assert released[KEY]["pretrained"] == told
    assert Generator.from_checkpoint(released).about["pretrained"] == told


def test_nothing_that_fits_is_one_line(tmp_path: Path) -> None:
    path = table(tmp_path / "data.csv", [rocksalt(5.6)])
    with pytest.raises(CrystensError, match=r"nothing usable in .*cell out of range: alpha 60") as caught:
        trained(tmp_path, "pretrained=perov_5", "data=csv", f"data.path={path}")
    assert "\n" not in str(caught.value)


def test_cells_of_a_store_that_images_do_not_hold_are_an_error() -> None:
    start = Pretrained("perov_5")
    fits = CrystalBatch.from_crystals([perovskite(4.0)], 5)
    assert start.scaling([fits], "fractional").to_dict() == load_checkpoint("perov_5")[KEY]["representation"]["scaling"]
    with pytest.raises(CrystensError, match=r"1 training crystals have cells .* \(a 3.3045 to 5.64988, b "):
        start.scaling([fits, CrystalBatch.from_crystals([perovskite(5.7)], 5)], "fractional")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("model=wgan", "pretrained=perov_5 has a model of EDM, and the config one of WGANGP: leave model out"),
        ("encoding.sites=orbits", "encoding.sites=orbits contradicts pretrained=perov_5, which has encoding.sites=all"),
        ("encoding.atoms=number", "which has encoding.atoms=bits"),
        ("max_sites=52", "max_sites=52 contradicts pretrained=perov_5, which has max_sites=5: leave it out, or train"),
        ("data.max_sites=4", "which has data.max_sites=5"),
        ("data.limits.shift=0", "which has data.limits.shift=0.25"),
        ("data.augmentation.relabel_axes=true", "which has data.augmentation.relabel_axes=False"),
        ("data.limits.cell=niggli", "which has data.limits.cell=given"),
        ("data.limits.cell_ranges=null", "which decides data.limits.cell_ranges"),
        ("model.network.width=64", "which has model.network.width=128"),
        ("model.network.codes=true", "has no model.network.codes"),
        ("model.atom_scale=2", "has no model.atom_scale"),
        ("model.prediction=residual", "which has model.prediction=image"),
        ("~model.network.width", "contradicts pretrained=perov_5"),
        ("scaling.gap=0.2", "which has scaling.gap=0.1"),
        ("scaling=paper", "scaling=paper: pretrained=perov_5 decides scaling, leave it out"),
        ("experiment=perov_5_edm", "pretrained=perov_5 decides experiment, leave it out"),
    ],
)
def test_what_contradicts_the_checkpoint_is_refused_in_one_line(line: str, message: str) -> None:
    with command("pretrained=perov_5", line) as cfg, pytest.raises(CrystensError, match=message) as caught:
        Pretrained("perov_5").configured(cfg)
    assert "\n" not in str(caught.value)


def test_other_keys_are_taken_and_few_crystals_have_a_recipe_of_their_own() -> None:
    given = ["model.network.width=128", "max_sites=5", "decode.merge_distance=0.4", "seed=3"]
    given += ["model.optimizer.lr=0.5", "model.ema_decay=0.9", "model.network.repulsion=0.7", "data.batch_size=4"]
    given += ["data.limits.occupancy=majority", "minutes=2"]
    with command("pretrained=perov_5", "data=cif_folder", "data.path=DIR", *given) as cfg:
        got = Pretrained("perov_5").configured(cfg)
    assert got.data.source._target_.endswith("CifFolder")
    assert (got.max_sites, got.image_side, got.seed, got.minutes) == (5, 17, 3, 2)
    assert got.encoding == {
        "sites": "all",
        "distance": "fractional",
        "atoms": "bits",
        "space_group": None,
        "wyckoff": "letter",
    }
    assert (got.model.optimizer.lr, got.model.ema_decay, got.model.network.repulsion) == (0.5, 0.9, 0.7)
    assert got.model.optimizer.matrix_lr < load_checkpoint("perov_5")[KEY]["config"]["model"]["optimizer"]["matrix_lr"]
    assert (got.data.limits.shift, got.data.limits.site_order, got.data.limits.occupancy) == (0.25, "given", "majority")
    assert got.decode.merge_distance == 0.4
    assert (got.data.batch_size, got.data.batch_share) == (4, 0.25)
    with command("pretrained=perov_5", "trainer.max_epochs=7", "data.batch_share=1") as cfg:
        got = Pretrained("perov_5").configured(cfg)
    assert (got.trainer.max_epochs, got.data.batch_share) == (7, 1)


def test_a_checkpoint_of_a_model_that_starts_from_nothing_is_refused(tmp_path: Path) -> None:
    config = {"model": {"_target_": "crystens.models.wgan.WGANGP"}}
    torch.save({"state_dict": {}, KEY: card(config, {}, {})}, tmp_path / "wgan.ckpt")
    with pytest.raises(
        CrystensError, match="a checkpoint of WGANGP, which starts from nothing; checkpoints of model=edm"
    ):
        Pretrained(tmp_path / "wgan.ckpt")


def test_the_command_line_knows_the_keys_of_the_model_that_is_adapted(monkeypatch, tmp_path: Path) -> None:
    found: list[str] = []

    def task(cfg: DictConfig) -> Path:
        found.append(cfg.model._target_)
        return tmp_path

    monkeypatch.chdir(tmp_path)
    line = ["pretrained=perov_5", "model.optimizer.lr=1e-4", f"run_folder={tmp_path}"]
    command_line.main(task, "train", [sys.argv[0]], [*line, f"hydra.run.dir={tmp_path}"])
    assert found == ["crystens.models.edm.EDM"]
