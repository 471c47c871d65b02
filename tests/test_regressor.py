"""A property learned from noisy images: the images are those of EDM, and errors are what they say."""

from __future__ import annotations

import csv
import functools
import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from test_kept import rocksalt, rutile
from torch import Tensor, nn

import crystens
from crystens.batch import CrystalBatch
from crystens.checkpoint import load_checkpoint
from crystens.cif.write import write_cif
from crystens.encoding import HEADER
from crystens.errors import CrystensError
from crystens.models.edm import EDM
from crystens.models.noising import count_sites
from crystens.models.regressor import Regressor
from crystens.networks.row_regressor import RowRegressor
from crystens.regressors import TrainedRegressor
from crystens.scaling import Scaling
from crystens.training import held_out_errors, tasks

CONF = Path(__file__).parent.parent / "conf"
SCALES = {"atom_scale": 2.0, "group_scale": 4.0, "position_scale": 3.0}
GAPS = [None, 3.0, 4.0, 5.5, 7.0, 9.0]  # of train and then of val, which are alternate rows


class Constant(nn.Module):
    """A network that predicts one number, and keeps what it was given."""

    def __init__(self, side: int, number: float = 0.0) -> None:
        super().__init__()
        self.image_side = side
        self.number = nn.Parameter(torch.tensor(number))
        self.given: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, images: Tensor, log_noise: Tensor, counts: Tensor, **_: Tensor) -> Tensor:
        """Return the number for each image, or images of it if all of them are asked for."""
        self.given.append((images, log_noise, counts))
        return self.number.expand(len(images))


class ConstantImages(Constant):
    """The same as a denoiser."""

    def forward(self, images: Tensor, log_noise: Tensor, counts: Tensor, **_: Tensor) -> Tensor:
        """Return images."""
        super().forward(images, log_noise, counts)
        return self.number * images


def regressor(network: nn.Module, **options: float) -> Regressor:
    return Regressor(network, functools.partial(torch.optim.AdamW, lr=5e-3), "gap", **options)


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Images of two kinds of crystals, of 2 and of 6 sites, with 8 slots."""
    crystals = CrystalBatch.from_crystals(
        [make(size) for size in (4.0, 4.5, 5.0, 5.5) for make in (rocksalt, rutile)], 8
    )
    return Scaling.fit(crystals, atoms="bits").encode(crystals)


def overrides(folder: Path, *more: str) -> DictConfig:
    """Return the config of a run of seconds on crystals some of which have a property."""
    if not (folder / "data").exists():
        (folder / "data").mkdir()
        for split, first in (("train", 0), ("val", 3), ("test", 3)):
            with (folder / "data" / f"{split}.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, ["material_id", "cif", "gap"])
                writer.writeheader()
                for place, gap in enumerate(GAPS[first:] if first else GAPS[:3]):
                    for make in (rocksalt, rutile):
                        cif = write_cif(make(5 + place / 10 + first / 100))
                        row = {"material_id": f"{split}{place}{make.__name__}", "cif": cif, "gap": gap}
                        writer.writerow(row)
    lines = [
        "model=regressor",
        "model.target=gap",
        "data=perov_5",
        f"data.path={folder / 'data'}",
        "data.properties=[gap]",
        f"data.ingest.cache={folder / 'cache'}",
        "data.ingest.workers=0",
        "data.batch_size=2",
        "max_sites=8",
        "model.network.width=16",
        "model.network.depth=1",
        "model.network.heads=2",
        "trainer.max_epochs=4",
        "trainer.accelerator=cpu",
        "+trainer.enable_progress_bar=false",
        "callbacks.progress_bar=null",
        "threads=1",
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=[*lines, *more])


@pytest.fixture(scope="module", params=["orbits", "all"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained regressor."""
    folder = tmp_path_factory.mktemp("regressor")
    return tasks.train(
        overrides(folder, f"encoding.sites={request.param}", f"run_folder={folder / 'run'}", "trainer.max_epochs=1")
    )


def test_it_sees_the_noisy_images_that_edm_trains_on(images: Tensor) -> None:
    ours, theirs = Constant(20), ConstantImages(20)
    noise = {"noise_mean": 0.5, "noise_deviation": 1.1}
    edm = EDM(theirs, functools.partial(torch.optim.AdamW, lr=5e-3), **noise, **SCALES)
    torch.manual_seed(3)
    edm.loss(images, count_sites(images))
    torch.manual_seed(3)
    regressor(ours, **noise, **SCALES).loss(images, torch.zeros(len(images)))
    for own, other in zip(ours.given[0], theirs.given[0], strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)
    assert ours.given[0][2].tolist() == [2, 6] * 4


def test_crystals_without_the_property_have_no_share_in_the_loss(images: Tensor) -> None:
    model = regressor(Constant(20, 0.5))
    model.mean, model.deviation = torch.tensor(3.0), torch.tensor(2.0)
    values = torch.full((8,), torch.nan)
    values[1], values[4] = 5.0, 1.0  # 1 and -1 in standard deviations
    loss, known = model.loss(images, values)
    assert float(loss.detach()) == pytest.approx((0.5**2 + 1.5**2) / 2)
    assert float(known) == 0.25
    loss, known = model.loss(images, torch.full((8,), torch.nan))
    loss.backward()
    assert float(loss.detach()) == 0
    assert float(model.network.number.grad) == 0


def test_a_network_learns_a_property_that_images_state(images: Tensor) -> None:
    torch.manual_seed(0)
    model = regressor(RowRegressor(20, width=32, depth=1, heads=2), noise_mean=-3.0, noise_deviation=0.1)
    model.mean, model.deviation = torch.tensor(0.0), torch.tensor(1.0)
    values = images[:, 0, 4, HEADER] * 4 - 2  # the edge a
    optimizer = torch.optim.AdamW(model.network.parameters(), lr=5e-3)
    losses = []
    for _ in range(80):
        loss, _ = model.loss(images, values)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) < 0.05 * sum(losses[:3])


def test_all_parameters_have_gradients_and_parts_change_nothing(images: Tensor) -> None:
    torch.manual_seed(0)
    network = RowRegressor(20, width=16, depth=2, heads=2, codes=True)
    crystals = CrystalBatch.from_crystals([rocksalt(5.0)], 8)
    model = regressor(network, **SCALES)
    model.prepare_for_images(20, Scaling.fit(crystals, atoms="bits"), "fractional", {"gap": (0.0, 1.0)})
    loss, _ = model.loss(images, torch.arange(8.0))
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    counts = count_sites(images)
    given = (torch.randn(8, 4, 20, 20) * model.present(counts), torch.linspace(-3, 3, 8), counts)
    whole = network(*given)
    network.parts = 3
    torch.testing.assert_close(network(*given), whole)
    torch.testing.assert_close(network(*(part[3:4] for part in given)), whole[3:4])


def test_training_moves_every_weight(run: Path) -> None:
    checkpoint = load_checkpoint(run)
    torch.manual_seed(0)
    network = tasks._build(checkpoint["crystens"]["config"]["model"], "model").network
    for name, weight in network.named_parameters():
        assert not torch.equal(weight, checkpoint["state_dict"][f"network.{name}"]), name


def test_a_run_ends_with_its_errors_and_no_samples(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert not (run / "samples").exists()
    assert metrics["crystals_with_property"] | {"description": ""} == {
        **{"value": 6, "count": 6, "unit": "crystals", "description": ""}
    }
    assert metrics["training_crystals_with_property"]["value"] == 4
    assert metrics["training_crystals_with_property"]["count"] == 6
    error = metrics["mean_absolute_error"]
    assert error["count"] == 6
    assert list(error["by_noise_level"]) == [f"{level:g}" for level in held_out_errors.LEVELS]
    assert error["of_training_mean"] == pytest.approx((5.5 + 7 + 9) / 3 - 3.5)
    assert error["value"] == pytest.approx(sum(error["by_noise_level"].values()) / len(held_out_errors.LEVELS))
    assert metrics["provenance"]["value"]["split"] == "val"
    assert metrics["provenance"]["value"]["property"] == "gap"


def test_the_error_of_a_constant_guess_is_that_of_the_training_mean(run: Path) -> None:
    trained = TrainedRegressor.load(run)
    assert float(trained.model.mean) == 3.5
    assert float(trained.model.deviation) == 0.5
    nn.init.zeros_(trained.model.average_network.head[1].weight)
    nn.init.zeros_(trained.model.average_network.head[1].bias)
    config = load_checkpoint(run)["crystens"]["config"]
    data = tasks._build(config["data"], "data", scaling=tasks._build(config["scaling"], "scaling"))
    metrics = held_out_errors.held_out_errors(trained, data)
    for kind in ("mean_absolute_error", "root_mean_square_error"):
        for error in metrics[kind]["by_noise_level"].values():
            assert error == pytest.approx(metrics[kind]["of_training_mean"])
    assert metrics["root_mean_square_error"]["of_training_mean"] == pytest.approx(((4 + 12.25 + 30.25) / 3) ** 0.5)


def test_it_says_that_it_cannot_sample_and_a_generator_that_it_is_no_regressor(run: Path) -> None:
    with pytest.raises(
        CrystensError, match=r"of a Regressor, which cannot sample: it can guide another model, by guid"
    ):
        crystens.load(run, device="cpu")
    with pytest.raises(CrystensError, match=r"perov_5 is the checkpoint of EDM and no regressor: train one by"):
        TrainedRegressor.load("perov_5")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("model.target=gab", r"model.target=gab is no property .* \(these are: gap\): name it in data.properties"),
        ("model.target=null", r"model.target=None must be the name of one property, such as band_gap"),
        ("data.properties=[]", r"model.target=gap is no property .* \(these are: none\)"),
        ("encoding.atoms=number", r"give encoding.atoms=bits and encoding.space_group=bits, or model.network.codes=fa"),
    ],
)
def test_what_cannot_be_learned_is_one_line(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(CrystensError, match=message) as caught:
        tasks.train(overrides(tmp_path, line, f"run_folder={tmp_path / 'run'}"))
    assert "\n" not in str(caught.value)


def test_a_run_broken_off_and_resumed_has_the_losses_of_an_uninterrupted_one(tmp_path: Path) -> None:
    tasks.train(overrides(tmp_path, f"run_folder={tmp_path / 'whole'}"))
    broken = f"run_folder={tmp_path / 'broken'}"
    with pytest.raises(KeyError):
        tasks.train(overrides(tmp_path, broken, "+callbacks.stop={_target_:test_train.Stop}"))
    path = tmp_path / "broken" / "config.yaml"
    path.write_text(path.read_text().replace("_target_: test_train.Stop", "_target_: pytorch_lightning.Callback"))
    tasks.train(overrides(tmp_path, broken, f"resume={tmp_path / 'broken'}"))
    states = [load_checkpoint(tmp_path / name)["state_dict"] for name in ("whole", "broken")]
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name
    first, second = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("whole", "broken"))
    assert first["mean_absolute_error"] == second["mean_absolute_error"]
