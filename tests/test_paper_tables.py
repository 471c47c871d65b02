"""Tables 1 and 2 and Figs. 4-6 from run folders: what is pooled, what is refused, what is said to be missing."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from crystens.batch import CrystalBatch
from crystens.cif.write import write_cif
from crystens.crystal import Crystal
from crystens.decoding import Decoder, read_copies
from crystens.errors import CrystensError
from crystens.generator import Generator
from crystens.metrics.crystal_table import CrystalTable, image_rows
from crystens.metrics.distributions import QUANTITIES, Reference
from crystens.metrics.metrics_file import summarise, write_metrics
from crystens.metrics.statistics import STATISTICS, image_statistics
from crystens.samples.folder import sample_to_file
from crystens.scaling import Scaling

PAPER = Path(__file__).parent.parent / "experiments" / "paper"
SITES = 8
DATA = {"_target_": "crystens.formats.cif_folder.CifFolder", "path": "somewhere"}
LIMITS = {"_target_": "crystens.sources.limits.Limits"}


def module(folder: str, name: str, called: str | None = None) -> ModuleType:
    """A module of an experiment, under the name that its neighbours import it by."""
    called = called or name
    if called not in sys.modules:
        specification = importlib.util.spec_from_file_location(called, PAPER / folder / f"{name}.py")
        assert specification is not None
        assert specification.loader is not None
        sys.modules[called] = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(sys.modules[called])
    return sys.modules[called]


FINISHED, POOLING = module("tables", "finished_runs"), module("tables", "pooling")
REFERENCE, REAL = module("tables", "reference_values"), module("tables", "real_crystals")
TABLES = module("tables", "paper_tables")
RUN_TABLES = module("tables", "run", "paper_tables_run")
module("distributions", "distribution_figures")
RUN_DISTRIBUTIONS = module("distributions", "run", "paper_distributions_run")


class Noisy:
    """Gives real images with noise; the last one is empty, which cannot be decoded."""

    image_side = 12 + SITES

    def __init__(self, images: Tensor, sigma: float) -> None:
        self.images = images
        self.sigma = sigma

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        chosen = self.images[torch.arange(n) % len(self.images)]
        noisy = (chosen + self.sigma * torch.randn(chosen.shape, generator=generator)).clamp(0, 1)
        noisy[-1] = 0
        return noisy


@pytest.fixture
def batch(nacl: Crystal, copper_primitive: Crystal, single_atom: Crystal) -> CrystalBatch:
    return CrystalBatch.from_crystals([nacl, copper_primitive, single_atom], SITES)


def make_run(
    folder: Path, batch: CrystalBatch, seed: int, sigma: float = 0.01, number: int = 7, decoder: Decoder | None = None
) -> Path:
    """A finished run without training: noisy real images, judged."""
    decoder = Decoder() if decoder is None else decoder
    scaling, samples = Scaling.fit(batch), folder / f"seed_{seed}" / "samples"
    about = {"model": folder.name, "trained": "1 epoch", "weights": f"{folder.name}{seed}", "training_seed": seed}
    about |= {"data": DATA, "max_sites": SITES}
    reference = Reference.from_crystals(batch, f"three crystals of {folder}")
    generator = Generator(Noisy(scaling.encode(batch), sigma), scaling, reference, about=about)
    made = sample_to_file(generator, samples, number, number, seed)
    assert made is not None
    decoded = decoder.decode(made.images, scaling)
    rows = image_rows(read_copies(made.images, scaling), decoded)
    CrystalTable(samples / "crystals.csv").append(rows)
    write_metrics(samples / "metrics.json", summarise(rows, made.reference, {**about, "decode": vars(decoder)}))
    (samples / "report.html").touch()
    return samples


def change(samples: Path, **about: object) -> None:
    """Change what a run's metrics.json says of it."""
    metrics = json.loads((samples / "metrics.json").read_text())
    metrics["provenance"]["value"].update(about)
    (samples / "metrics.json").write_text(json.dumps(metrics))


def test_the_pooled_mean_is_over_crystals_and_its_spread_between_seeds_over_their_means() -> None:
    cell = POOLING.pooled(
        {0: [1.0, 2.0, 3.0, None], 1: [10.0, float("nan")]}, {0: [False, False, True, True], 1: [False, True]}
    )
    assert cell.mean == pytest.approx(4.0)  # not 6, the mean of the seeds' means
    assert cell.seed_means == {0: 2.0, 1: 10.0}
    assert cell.seed_standard_deviation == pytest.approx(np.sqrt(32))
    assert cell.standard_deviation == pytest.approx(np.std([1, 2, 3, 10], ddof=1))
    assert cell.median == 2.5
    assert (cell.count, cell.samples, cell.failed) == (4, 6, 1)


def test_one_seed_has_no_spread_and_no_value_is_not_0() -> None:
    assert POOLING.pooled({3: [1.0, 2.0]}, {3: [False, False]}).seed_standard_deviation is None
    nothing = POOLING.pooled({0: [None], 1: [None]}, {0: [True], 1: [True]})
    assert (nothing.mean, nothing.median, nothing.count, nothing.samples) == (None, None, 0, 2)
    assert POOLING.spread({0: None, 1: 0.5, 2: 0.7}).mean == pytest.approx(0.6)
    assert POOLING.spread({0: None}).mean is None


def test_one_run_gives_the_numbers_of_its_own_metrics(tmp_path: Path, batch: CrystalBatch) -> None:
    metrics = json.loads((make_run(tmp_path / "gan", batch, 0) / "metrics.json").read_text())
    runs = FINISHED.find_runs(tmp_path)
    tables = TABLES.make_tables(runs, REAL.judged(runs.finished[0], batch, 0))
    for name in STATISTICS:
        cell = tables.statistics[name]["gan"]
        assert cell.mean == pytest.approx(metrics[name]["value"], rel=1e-8), name
        assert cell.standard_deviation == pytest.approx(metrics[name]["standard_deviation"], rel=1e-8), name
        assert (cell.count, cell.samples) == (6, 7), name  # the empty image has none
    assert tables.rates["decoded_rate"]["gan"].mean == pytest.approx(6 / 7)


def test_real_crystals_agree_with_themselves_and_decode(tmp_path: Path, batch: CrystalBatch) -> None:
    make_run(tmp_path / "gan", batch, 0)
    runs = FINISHED.find_runs(tmp_path)
    tables = TABLES.make_tables(runs, REAL.judged(runs.finished[0], batch, 0))
    for found in (tables.statistics, tables.redefined):
        assert all(cells[TABLES.REAL].mean < 1e-6 for cells in found.values())
    assert tables.rates["decoded_rate"][TABLES.REAL].mean == 1
    assert tables.rates["ks_a"][TABLES.REAL].mean == 0  # the training crystals themselves
    assert tables.rates["novel_formula_rate"][TABLES.REAL].mean == 0
    with pytest.raises(CrystensError, match="no test split"):
        REAL.judged(runs.finished[0], batch[slice(0, 0)], 0)


def test_unfinished_runs_and_missing_models_are_named_and_counted(tmp_path: Path, batch: CrystalBatch) -> None:
    for seed in (10, 2):
        make_run(tmp_path / "gan", batch, seed)
    (make_run(tmp_path / "diffusion", batch, 0) / "report.html").unlink()
    (tmp_path / "diffusion" / "seed_1" / "checkpoints").mkdir(parents=True)
    runs = FINISHED.find_runs(tmp_path)
    assert [run.name for run in runs.finished] == ["gan/seed_2", "gan/seed_10"]
    assert runs.unfinished == ("diffusion/seed_0", "diffusion/seed_1")
    assert runs.missing == ("wgan",)
    page = TABLES.markdown(
        TABLES.make_tables(runs, real := REAL.judged(runs.finished[0], batch, 0)), runs, "a size", real
    )
    assert "NOT FINISHED, not in these numbers: 2 (diffusion/seed_0, diffusion/seed_1)" in page
    assert "NO RUN of: WGAN-GP" in page
    assert "GAN: seeds 2, 10, 7 samples each" in page
    assert "12 of 14, 0 not decoded" in page
    assert str(tmp_path) not in page


def test_a_folder_without_a_finished_run_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "gan" / "seed_0").mkdir(parents=True)
    with pytest.raises(CrystensError, match=r"no finished run .*1 unfinished"):
        FINISHED.find_runs(tmp_path)


@pytest.mark.parametrize(
    ("about", "what"),
    [
        ({"max_sites": 52}, "max_sites is 8 and 52"),
        ({"decode": {"atom_clusters": 3}}, "decode is"),
        ({"data": {**DATA, "_target_": "another"}}, "data is"),
        ({"reference": {"name": "three crystals", "split": "train", "count": 4}}, "training split is"),
    ],
)
def test_runs_that_do_not_belong_together_are_named(
    tmp_path: Path, batch: CrystalBatch, about: dict[str, object], what: str
) -> None:
    make_run(tmp_path / "gan", batch, 0)
    change(make_run(tmp_path / "wgan", batch, 1), **about)
    with pytest.raises(CrystensError, match=f"gan/seed_0 and wgan/seed_1 do not belong in one table: {what}"):
        FINISHED.find_runs(tmp_path)


def test_runs_of_different_numbers_of_samples_do_not_belong_together(tmp_path: Path, batch: CrystalBatch) -> None:
    make_run(tmp_path / "gan", batch, 0)
    make_run(tmp_path / "gan", batch, 1, number=6)
    with pytest.raises(CrystensError, match="number of samples is 7 and 6"):
        FINISHED.find_runs(tmp_path)


def test_where_the_data_lay_does_not_matter(tmp_path: Path, batch: CrystalBatch) -> None:
    make_run(tmp_path / "gan", batch, 0)
    change(make_run(tmp_path / "wgan", batch, 0), data={**DATA, "path": "elsewhere"})
    assert len(FINISHED.find_runs(tmp_path).finished) == 2


def test_one_model_is_not_counted_as_two_seeds(tmp_path: Path, batch: CrystalBatch) -> None:
    make_run(tmp_path / "gan", batch, 0)
    shutil.copytree(tmp_path / "gan" / "seed_0", tmp_path / "gan" / "seed_1")
    with pytest.raises(CrystensError, match="gan/seed_0 and gan/seed_1 are one model"):
        FINISHED.find_runs(tmp_path)


def test_rows_that_are_not_those_of_the_metrics_are_refused(tmp_path: Path, batch: CrystalBatch) -> None:
    samples = make_run(tmp_path / "gan", batch, 0)
    CrystalTable(samples / "crystals.csv").keep(3)
    (run,) = FINISHED.find_runs(tmp_path).finished
    with pytest.raises(CrystensError, match=r"has 3 rows and metrics\.json beside it says 7"):
        run.rows  # noqa: B018


def test_strangers_keep_their_rows_and_agree_about_nothing(nacl: Crystal, single_atom: Crystal) -> None:
    places = np.random.default_rng(0).random((4, 8, 3))
    others = [Crystal(nacl.lengths, nacl.angles, 1, nacl.numbers, place) for place in places]
    batch = CrystalBatch.from_crystals([*others, single_atom], SITES)
    scaling = Scaling.fit(batch)
    images = scaling.encode(batch)
    mixed, counts = REAL.strangers(images, batch.counts, 0)
    assert counts.tolist() == [8, 8, 8, 8]  # a single atom alone has nobody to exchange with
    found = image_statistics(mixed, scaling, counts)
    assert found["coordinate_variance"].max() < 1e-12
    assert found["coordinate_agreement"].min() > 0.05
    assert found["pairwise_agreement"].min() > 0.5
    assert image_statistics(images, scaling)["pairwise_agreement"].max() < 1e-5


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (2367.4, "2367"), (0.38449, "0.384"), (4.36e-4, "4.36e-4"), (177.4, "177"), (-0.0123, "-0.0123")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert TABLES.number(value) == text


def test_definitions_of_the_reference_give_its_numbers(shared_data: Path) -> None:
    path = shared_data.parent / "reference_metrics.json"
    if not path.exists():
        pytest.skip(f"no reference values at {path}")
    found = {(item.statistic, item.sigma): item for item in REFERENCE.largest_differences(path)}
    assert len(found) == 7 * 3
    for (statistic, sigma), item in found.items():
        if float(sigma):
            assert item.theirs < 1e-6, (statistic, sigma)
            if statistic not in REFERENCE.REDEFINED:
                assert item.ours < 1e-6, (statistic, sigma)
        else:
            assert max(item.ours_absolute, item.theirs_absolute) < 1e-12, (statistic, sigma)


def test_a_file_that_holds_no_reference_values_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file.json").write_text("{}")
    with pytest.raises(CrystensError, match="no file of reference statistics"):
        REFERENCE.largest_differences(tmp_path / "file.json")


def test_one_site_and_no_site_in_the_definitions_of_the_reference(batch: CrystalBatch) -> None:
    scaling = Scaling.fit(batch)
    images = scaling.encode(batch) + 0.01
    counts = torch.tensor([8, 1, 0])
    found = REFERENCE.reference_statistics(images, scaling, counts)
    ours = image_statistics(images, scaling, counts)
    for name in REFERENCE.REDEFINED:
        assert np.isfinite(found[name]).tolist() == [True, True, False], name
        assert ours[name].isfinite().tolist() == [True, True, False], name


def test_command_lines_write_tables_and_figures(
    tmp_path: Path, batch: CrystalBatch, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, cifs = tmp_path / "small", tmp_path / "cifs"
    cifs.mkdir()
    for place in range(9):
        (cifs / f"{place}.cif").write_text(write_cif(batch.crystal(place % 3)))
    for model, seed in (("gan", 0), ("gan", 1), ("diffusion", 0)):
        samples = make_run(runs / model, batch, seed)
        config = {
            "data": {
                "_target_": "crystens.data.datamodule.CrysTensDataModule",
                "path": "${gone}",
                "max_sites": "${max_sites}",
                "split": "random",
                "split_fractions": [0.4, 0.2, 0.4],
                "limits": LIMITS,
                "ingest": {"_target_": "crystens.ingest.ingest.IngestOptions", "workers": 0},
                "source": {**DATA, "path": "${..path}"},
            },
            "max_sites": SITES,
            "gone": str(tmp_path / "gone"),
        }
        OmegaConf.save(OmegaConf.create(config), samples.parent / "config.yaml")
    arguments = [str(runs), "--label", "no training at all"]
    for command, written in (
        (RUN_TABLES, ("tables.md", "tables.json")),
        (RUN_DISTRIBUTIONS, ("gan.png", "diffusion.png", "overview.png", "distributions.md", "distributions.json")),
    ):
        out = tmp_path / written[0]
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments, "--out", str(out)])
        assert command.main() == 1
        assert "gone, which is not there; give its place after RUNS" in capsys.readouterr().err
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments, str(cifs), "--out", str(out)])
        assert command.main() == 0
        assert "no training at all" in capsys.readouterr().out
        assert {path.name for path in out.iterdir()} == set(written)
        for path in out.iterdir():
            assert str(tmp_path).encode() not in path.read_bytes()
    found = json.loads((tmp_path / "tables.md" / "tables.json").read_text())
    assert found["about"]["runs"] == ["gan/seed_0", "gan/seed_1", "diffusion/seed_0"]
    assert found["statistics"]["cell_length_variance"]["gan"]["samples"] == 14
    distances = json.loads((tmp_path / "gan.png" / "distributions.json").read_text())
    assert set(distances["ks"]["gan"]) == {*QUANTITIES, "generated_space_group"}


def test_a_seed_without_a_run_is_one_clear_line(tmp_path: Path, batch: CrystalBatch) -> None:
    make_run(tmp_path / "gan", batch, 3)
    with pytest.raises(CrystensError, match=r"no finished run of seed 0 .*gan/seed_3"):
        RUN_DISTRIBUTIONS.write_figures(tmp_path, tmp_path / "out", 0, None, "a size")
