"""Real test crystals, processed like samples: the result of a perfect model.

They are encoded with the scaling of a run, and then counted, decoded and judged like its samples, against the same
training split. As many are taken as a run has samples, because rates and Kolmogorov-Smirnov statistics depend on the
number; all of them where the test split is smaller.

The other end of the scale, for the agreements, is `strangers`: images put together from three real crystals.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from finished_runs import FinishedRun
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from crystens.batch import CrystalBatch
from crystens.data.datamodule import CrysTensDataModule
from crystens.decoding import Decoder, read_copies
from crystens.encoding import HEADER
from crystens.errors import CrystensError
from crystens.metrics.crystal_table import Row, image_rows
from crystens.metrics.entries import Metrics
from crystens.metrics.metrics_file import summarise
from crystens.scaling import Scaling

_CHUNK = 64


@dataclass(frozen=True, eq=False)
class RealCrystals:
    """Real crystals judged like samples.

    Attributes:
        images: scaled images (n, 4, S, S) float32.
        rows: as in crystals.csv.
        metrics: as in metrics.json.
        available: crystals of the test split.
    """

    images: Tensor
    rows: list[Row]
    metrics: Metrics
    available: int


def data_of(run: FinishedRun, path: Path | None = None) -> CrysTensDataModule:
    """Return the data that a run was trained on.

    Args:
        run: its config.yaml says which data.
        path: where that is now; None for where it was.

    Raises:
        CrystensError: if it is not there.
    """
    if not (run.folder / "config.yaml").is_file():
        raise CrystensError(f"{run.folder} has no config.yaml, and so does not say what it was trained on")
    config = OmegaConf.load(run.folder / "config.yaml")
    if path is not None:
        config.data.path = str(path.resolve())
    place = config.data.get("path")
    if place is not None and not Path(place).exists():
        raise CrystensError(f"{run.name} was trained on {place}, which is not there; give its place after RUNS")
    plain = OmegaConf.to_container(config.data, resolve=True)
    module: CrysTensDataModule = instantiate(plain, scaling=Scaling.fit, rejected_path=None, _convert_="all")
    module.setup()
    return module


def drawn(crystals: CrystalBatch, number: int, seed: int) -> CrystalBatch:
    """Return so many crystals drawn without replacement, in their order; all of them if there are not more."""
    if number >= len(crystals):
        return crystals
    chosen = np.random.default_rng(seed).choice(len(crystals), number, replace=False)
    return crystals[torch.from_numpy(np.sort(chosen))]


def judged(run: FinishedRun, crystals: CrystalBatch, seed: int) -> RealCrystals:
    """Return real crystals, as many as a run has samples, judged like them.

    Raises:
        CrystensError: if there are none.
    """
    if len(crystals) == 0:
        raise CrystensError(f"the data of {run.name} has no test split to compare with")
    samples = run.samples
    chosen = drawn(crystals, run.num_samples, seed)
    images = samples.scaling.encode(chosen, samples.distance)
    decoder = Decoder(**run.made_with["decode"])
    rows = []
    for start in range(0, len(images), _CHUNK):
        some = images[start : start + _CHUNK]
        copies = read_copies(some, samples.scaling)
        rows += image_rows(copies, decoder.decode_copies(copies), samples.distance, start)
    return RealCrystals(images, rows, summarise(rows, samples.reference, distance=samples.distance), len(crystals))


def strangers(images: Tensor, counts: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return images whose rows, distances and differences are of three images of as many sites, and their numbers.

    What the three say has nothing to do with each other. Two would not do: the places are voted by rows and
    differences, of which the rows do not change any distance between them. Images of a number of sites that fewer than
    three have are left out.

    Args:
        images: scaled images (B, 4, S, S); not changed.
        counts: (B,) numbers of sites.
        seed: of who gets whose parts.
    """
    generator = np.random.default_rng(seed)
    rows, distances, differences = [], [], []
    for count in np.unique(counts.numpy()):
        places = generator.permutation(np.flatnonzero(counts.numpy() == count))
        if len(places) > 2:
            rows += places.tolist()
            distances += np.roll(places, 1).tolist()
            differences += np.roll(places, 2).tolist()
    mixed = images[rows].clone()
    mixed[:, :1, HEADER:, HEADER:] = images[distances][:, :1, HEADER:, HEADER:]
    mixed[:, 1:, HEADER:, HEADER:] = images[differences][:, 1:, HEADER:, HEADER:]
    return mixed, counts[rows]
