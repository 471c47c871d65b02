"""Steering by a regressor: against an equation that has a solution, and what is refused."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from scipy.integrate import solve_ivp
from test_kept import generator as made_generator
from test_kept import rocksalt
from torch import Tensor, nn

import crystens
from crystens.checkpoint import KEY, card
from crystens.encoding import ATTRIBUTES, HEADER
from crystens.errors import CrystensError
from crystens.generator import Generator
from crystens.models.edm import EDM
from crystens.models.regressor import Regressor
from crystens.models.steering import Steering
from crystens.networks.row_regressor import RowRegressor
from crystens.networks.told import Told
from crystens.regressors import TrainedRegressor
from crystens.scaling import Scaling
from crystens.training import tasks

CONF = Path(__file__).parent.parent / "conf"
SIDE = 16
SPREAD = 0.3  # standard deviation of each cell of the images that `Gaussian` denoises


class Gaussian(nn.Module):
    """The denoiser of images whose cells are independent and normal, which is known exactly."""

    image_side = SIDE

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))
        self.first: Tensor | None = None  # noise that sampling started from

    def forward(self, images: Tensor, log_noise: Tensor, counts: Tensor) -> Tensor:
        """Return the mean of the clean images; those given are divided by the root of 1 + sigma^2."""
        sigma = log_noise.exp().expand(len(images))[:, None, None, None]
        noisy = images * (1 + sigma.square()).sqrt()
        self.first = noisy if self.first is None else self.first
        return noisy * SPREAD**2 / (SPREAD**2 + sigma.square())


class Linear:
    """The property w x of clean images x, with w of unit length, as a noisy image gives it: exactly."""

    def __init__(self, counts: Tensor) -> None:
        self.weights = torch.zeros(4, SIDE, SIDE)
        self.weights[:, 4:7, HEADER : HEADER + int(counts[0])] = 1
        self.weights /= self.weights.norm()
        self.levels: list[float] = []

    def along(self, images: Tensor) -> Tensor:
        """Return w x."""
        return (images * self.weights).sum((1, 2, 3))

    def predict(self, noisy: Tensor, sigma: Tensor, counts: Tensor) -> Tensor:
        """Return the mean of the property."""
        self.levels.append(float(sigma[0]))
        return self.along(noisy) * SPREAD**2 / (SPREAD**2 + sigma.square())


def denoiser(**options: Any) -> EDM:
    edm = EDM(Gaussian(), functools.partial(torch.optim.AdamW, lr=1e-3), **{"network_calls": 81} | options)
    edm.site_counts[2] = 1
    return edm


def steered(target: float, scale: float, **options: Any) -> tuple[EDM, Linear, Tensor]:
    """Return a denoiser, a regressor, and the property of 4 samples that it was steered by."""
    edm, linear = denoiser(**options), Linear(torch.tensor([2]))
    drawn = edm.sample(4, torch.Generator().manual_seed(0), steering=Steering(linear, target, scale))
    return edm, linear, linear.along((drawn - 0.5) / 0.25)


@pytest.mark.parametrize(("target", "scale"), [(1.0, 2.0), (-1.0, 2.0), (1.0, 8.0)])
def test_samples_go_where_the_equation_says(target: float, scale: float) -> None:
    edm, linear, found = steered(target, scale)
    first = edm.average_network.first
    assert first is not None
    schedule = edm.schedule
    low, high = float(schedule(torch.tensor(0.0))[1]), float(schedule(torch.tensor(1.0))[1])

    def slope(sigma: float, along: np.ndarray) -> np.ndarray:
        share = SPREAD**2 / (SPREAD**2 + sigma**2)
        estimate = share * along - scale * sigma**2 * share * (share * along - target)
        return (along - estimate) / sigma  # Karras et al. 2022, eq. 1 and 3

    solved = solve_ivp(slope, (high, low), linear.along(first).numpy(), rtol=1e-8, atol=1e-8).y[:, -1]
    np.testing.assert_allclose(found, solved * SPREAD**2 / (SPREAD**2 + low**2), atol=0.01)
    plain = steered(target, 0.0)[2]
    assert bool(((found - plain) * target > 0.02).all())


def test_the_last_step_is_not_steered() -> None:
    edm, linear, _ = steered(1.0, 1.0, network_calls=9)
    assert len(linear.levels) == 8
    assert linear.levels[0] == pytest.approx(edm.sigma_max)


def test_shift_is_the_gradient_of_half_the_squared_distance() -> None:
    counts = torch.tensor([2, 2])
    linear, noisy, sigma = Linear(counts), torch.randn(2, 4, SIDE, SIDE), torch.tensor([0.5, 3.0])
    with torch.no_grad():  # as in sampling
        shift = Steering(linear, 0.7, 2.5).shift(noisy, sigma, counts)
    share = SPREAD**2 / (SPREAD**2 + sigma.square())
    factors = -2.5 * sigma.square() * (linear.along(noisy) * share - 0.7) * share
    torch.testing.assert_close(shift, factors[:, None, None, None] * linear.weights)


def test_cells_that_are_told_are_not_moved() -> None:
    edm, counts = denoiser(), torch.tensor([2])
    noisy, time = torch.randn(1, 4, SIDE, SIDE), edm.schedule.time(torch.tensor(1.0))
    cells = torch.full_like(noisy, torch.nan)
    cells[:, :, 5, HEADER] = 0.25
    estimates = []
    for scale in (0.0, 3.0):
        steering = Steering(Linear(counts), 2.0, scale)
        made = edm._denoiser(edm.average_network, counts, edm._present(counts), None, 1.0, steering)
        made.told = Told(cells=cells)
        made.denoiser = _Forgetful(made.denoiser)
        estimates.append(made(noisy, time).mean)
    moved = (estimates[0] != estimates[1])[0, 0]
    assert moved[4:7, HEADER : HEADER + 2].tolist() == [[True, True], [False, True], [True, True]]
    assert int(moved.sum()) == 5


class _Forgetful(nn.Module):
    """A denoiser whose network takes nothing that is told."""

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, images: Tensor, time: Tensor, told: Told, **known: Tensor) -> Any:
        """Leave out what is told."""
        return self.denoiser(images, time, **known)


def test_an_estimate_does_not_leave_what_an_image_can_hold() -> None:
    edm, counts = denoiser(), torch.tensor([2])
    noisy, time = torch.randn(1, 4, SIDE, SIDE), edm.schedule.time(torch.tensor(1.0))
    steering = Steering(Linear(counts), 1e6, 1.0)
    moved = edm._denoiser(edm.average_network, counts, edm._present(counts), None, 1.0, steering)(noisy, time).mean
    assert set(moved[0, :, 4:7, HEADER : HEADER + 2].flatten().tolist()) == {2.0}
    assert moved.abs().max() == 2


# With a model


asked_generator = made_generator  # a fixture: a model of orbits that can be asked


@pytest.fixture(scope="module")
def generator() -> Generator:
    """The released model, in few steps."""
    generator = crystens.load("perov_5", device="cpu")
    generator.model.network_calls = 7
    return generator


def regressor(scaling: Scaling, **options: float) -> TrainedRegressor:
    """Return a regressor of random weights."""
    torch.manual_seed(0)
    side = HEADER + scaling.max_sites
    orbits = scaling.rows > len(ATTRIBUTES)
    network = RowRegressor(side, width=16, depth=1, heads=2, codes=scaling.atoms == "bits", orbits=orbits)
    optimizer = functools.partial(torch.optim.AdamW, lr=1e-3)
    model = Regressor(network, optimizer, "gap", rows=scaling.rows, **options)
    model.prepare_for_images(side, scaling, "fractional", {"gap": (2.0, 0.5)})
    about = {"property": "gap", "weights": "0123"}
    return TrainedRegressor(model.eval(), scaling, "fractional", about)


def test_a_scale_of_0_changes_nothing_and_another_does(generator: Generator) -> None:
    guide = regressor(generator.scaling)
    plain = generator.sample_images(3)
    assert torch.equal(plain, generator.sample_images(3, regressor=guide, target=3.0, scale=0))
    assert not torch.equal(plain, generator.sample_images(3, regressor=guide, target=3.0, scale=5.0))
    assert len(generator.sample(2, regressor=guide, target=3.0)) == 2


def test_images_do_not_depend_on_the_size_of_chunks_of_the_model(generator: Generator) -> None:
    guide = regressor(generator.scaling)
    whole = generator.sample_images(5, regressor=guide, target=3.0)
    generator.model.sample_chunk, before = 2, generator.model.sample_chunk
    try:
        torch.testing.assert_close(generator.sample_images(5, regressor=guide, target=3.0), whole, atol=1e-3, rtol=0)
    finally:
        generator.model.sample_chunk = before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"target": 3.0}, "guidance.target=3.0 is for guidance by a regressor: give guidance.regressor=RUN"),
        ({"scale": 2.0}, "guidance.scale=2.0 is for guidance by a regressor: give guidance.regressor=RUN"),
        ({"regressor": True}, "give guidance.target too, the gap to guide samples to"),
        ({"regressor": True, "target": math.nan}, "guidance.target=nan must be a finite number"),
        ({"regressor": True, "target": "3"}, "guidance.target='3' must be a finite number"),
        (
            {"regressor": True, "target": 5.1},
            "guidance.target=5.1 is too far from .* whose gap is 2 in the mean with a",
        ),
        ({"regressor": True, "target": 2.5, "scale": -1}, "guidance.scale=-1 must be a finite number, at least 0"),
        ({"regressor": True, "target": 2.5, "scale": math.inf}, "guidance.scale=inf must be a finite number"),
        ({"regressor": "no/file", "target": 2.5}, "no checkpoint at no/file"),
    ],
)
def test_what_cannot_be_asked_of_a_regressor_is_one_line(generator: Generator, given: dict, message: str) -> None:
    if given.get("regressor") is True:
        given = given | {"regressor": regressor(generator.scaling)}
    with pytest.raises(CrystensError, match=message) as caught:
        generator.sample_images(1, **given)
    assert "\n" not in str(caught.value)


def test_a_regressor_of_other_images_is_refused(generator: Generator) -> None:
    own = generator.scaling
    wide = Scaling(own.ranges | {"a": (3.0, 6.0)}, 5, own.gap, own.diagonal, own.atoms)
    large = Scaling(own.ranges, 8, own.gap, own.diagonal, own.atoms)
    number = Scaling(own.ranges | {"Z": (1.0, 99.0)}, 5, own.gap, own.diagonal, "number")
    for other, message in (
        (regressor(wide), "other scaling numbers, which are fitted to the training data, than the model's; train it"),
        (
            regressor(large),
            r"other numbers of slots \(max_sites\) than the model's: 8, and the model's are 5; train it",
        ),
        (regressor(number), r"other elements \(encoding.atoms\) than the model's: number, and the model's are bits"),
        (
            regressor(own, atom_scale=2.0),
            r"scales of cells in noise .*: \[2.0, 1.0, 1.0\], and .* are \[1.0, 1.0, 1.0\]",
        ),
        (replace(regressor(own), distance="cartesian"), "other distances .* cartesian, and the model's are fractional"),
    ):
        with pytest.raises(CrystensError, match=message) as caught:
            generator.sample_images(1, regressor=other, target=2.5)
        assert "\n" not in str(caught.value)


def test_a_model_that_cannot_be_guided_says_so(generator: Generator) -> None:
    class Still:
        image_side = 17

        def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
            return torch.zeros(n, 4, 17, 17)

    still = Generator(Still(), generator.scaling, generator.reference)
    with pytest.raises(CrystensError, match="Still cannot be guided by a regressor; model=edm can"):
        still.sample_images(1, regressor=regressor(generator.scaling), target=2.5)


def test_what_is_asked_holds_under_steering(asked_generator: Generator) -> None:
    guide = regressor(asked_generator.scaling, atom_scale=2.0, group_scale=4.0, position_scale=4.0)
    asked = {"formula": "NaCl", "space_group": 225, "structure": rocksalt(6.0), "keep": ["cell"]}
    plain = asked_generator.sample_images(3, **asked)
    steered = asked_generator.sample_images(3, regressor=guide, target=3.0, scale=30.0, **asked)
    assert not torch.equal(plain, steered)
    for item in asked_generator.decode(steered):
        assert item.crystal is not None
        assert set(item.crystal.numbers.tolist()) == {11, 17}
        assert item.generated_space_group == 225
        assert item.crystal.lattice.volume == pytest.approx(rocksalt(6.0).lattice.volume, rel=1e-3)


def test_sample_py_is_guided_and_remembers_by_what(generator: Generator, tmp_path: Path) -> None:
    made = regressor(generator.scaling)
    network = {"_target_": "crystens.networks.row_regressor.RowRegressor", "image_side": 17, "width": 16, "depth": 1}
    optimizer = {"_target_": "torch.optim.AdamW", "_partial_": True}
    model = {"_target_": "crystens.models.regressor.Regressor", "target": "gap", "optimizer": optimizer}
    config = {"model": model | {"network": network | {"heads": 2, "codes": True}}, "data": {"source": "here"}}
    representation = {"max_sites": 5, "distance": "fractional", "scaling": generator.scaling.to_dict()}
    content = {"epoch": 0, "global_step": 3, "state_dict": made.model.state_dict()}
    torch.save(content | {KEY: card(config, representation, {})}, tmp_path / "gap.ckpt")

    def sample(*lines: str) -> Path:
        common = ["checkpoint=perov_5", "num_samples=2", "+model.network_calls=3", "threads=1", "device=cpu"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("sample", overrides=[*common, f"run_folder={tmp_path / 'out'}", *lines])
        return tasks.sample(cfg)

    guided = [f"guidance.regressor={tmp_path / 'gap.ckpt'}", "guidance.scale=2.0"]
    with pytest.raises(CrystensError, match=r"guidance.target=9 is too far"):
        sample(*guided, "guidance.target=9")
    assert not (tmp_path / "out" / "images.part").exists()
    out = sample(*guided, "guidance.target=3")
    provenance = json.loads((out / "metrics.json").read_text())["provenance"]["value"]
    assert provenance["steering"]["target"] == 3.0
    assert provenance["steering"]["scale"] == 2.0
    assert provenance["steering"]["regressor"]["property"] == "gap"
    assert provenance["steering"]["regressor"]["trained"] == "1 epochs, 3 steps"
    sample(*guided, "guidance.target=3")  # the same samples, judged again
    with pytest.raises(CrystensError, match=r"holds samples of another model, .* guidance"):
        sample(*guided, "guidance.target=2")
    with pytest.raises(CrystensError, match=r"holds samples of another model, .* guidance"):
        sample()
