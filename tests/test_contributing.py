"""The worked examples of CONTRIBUTING.md work."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from crystens.crystal import Crystal
from crystens.training import tasks

REPOSITORY = Path(__file__).parent.parent
CONF = REPOSITORY / "conf"


def _example(name: str) -> str:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    found = re.search(rf"<!-- example: {name} -->\n```\w+\n(.*?)```", text, flags=re.DOTALL)
    assert found, f"CONTRIBUTING.md has no example {name}"
    return found.group(1)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the examples importable as noisy_mean and cubic_elements."""
    (tmp_path / "noisy_mean.py").write_text(_example("model"))
    (tmp_path / "cubic_elements.py").write_text(_example("source"))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("noisy_mean", "cubic_elements"):
        sys.modules.pop(name, None)


def test_an_added_model_trains_on_an_added_data_set_and_is_judged(tmp_path: Path, modules: None) -> None:
    overrides = [
        "model=wgan",
        f"run_folder={tmp_path / 'run'}",
        "max_sites=20",
        "num_samples=3",
        "threads=1",
        "trainer.accelerator=cpu",
        "callbacks.progress_bar=null",
        "+trainer.enable_progress_bar=false",
        "callbacks.sample_statistics.num_samples=2",
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=overrides)
    OmegaConf.set_struct(cfg, False)
    model = OmegaConf.create(_example("model config").replace("crystens.models.", ""))
    cfg.model = model.model
    cfg.trainer.max_epochs = model.trainer.max_epochs
    cfg.data.source = OmegaConf.create(_example("source config").replace("crystens.data.", "")).source
    folder = tasks.train(cfg)
    assert (folder / "samples" / "report.html").is_file()
    assert len((folder / "samples" / "crystals.csv").read_text().splitlines()) == 4


def test_an_added_source_gives_rejects_instead_of_errors(modules: None) -> None:
    from cubic_elements import CubicElements

    from crystens.sources.limits import Limits
    from crystens.sources.record import Entry

    items = list(CubicElements(120).read(Limits(max_sites=20)))
    assert sum(isinstance(item, Entry) for item in items) == 118
    assert "atomic number must be 1-118, got 119" in items[118].reason


def test_an_added_metric_is_a_value_a_crystal(nacl: Crystal) -> None:
    scope: dict = {}
    exec(_example("metric"), scope)
    assert scope["volume_per_site"](nacl) == pytest.approx(5.64**3 / 8)


def test_an_added_model_samples_from_the_given_generator(modules: None) -> None:
    from noisy_mean import NoisyMean

    model = NoisyMean(32)
    one, two = (model.sample(2, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(one, two)
