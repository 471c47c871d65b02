"""Universal potentials, and the crystals that they may be applied to.

Energies are in eV for a whole cell, unless a name says per atom; forces are in eV/angstrom, stresses in ASE's units.
Energies may be compared only on the same `scale`. Each potential has its own scale. CHGNet was also trained to
reproduce energies of the Materials Project, scale `MP2020` (PBE and PBE+U with that project's corrections of 2020).

For unphysical crystals a potential gives meaningless energies, which may look plausible: rocksalt NaCl with a cell of
0.1 angstrom gets -1.29 eV/atom. Therefore crystals unlike its training data are rejected (`objection`).

Source of the default: Deng et al., "CHGNet as a pretrained universal neural network potential for charge-informed
atomistic modelling", Nat. Mach. Intell. 2023, 5, 1031.
Differs from the paper: Alverson et al., Digital Discovery 2024, 3, 62 take M3GNet, whose weights are a download.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from abc import ABC, abstractmethod
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from pymatgen.core import Element, Structure

from crystens.crystal import Crystal
from crystens.distances import nearest_distances
from crystens.errors import CrystensError
from crystens.metrics.validity import MIN_DISTANCE

MP2020 = "MP2020"

SHIPPED = {"chgnet": "0.3.0", "chgnet-0.2.0": "0.2.0", "chgnet-r2scan": "r2scan"}  # name to weights of CHGNet

MIN_ANGLE, MAX_ANGLE = 30.0, 150.0  # degree; a cell of 5 degrees takes CHGNet 47 s


class Potential(ABC):
    """An interatomic potential. It can be pickled, and loads its network at first use.

    Attributes:
        identity: name and version of everything that its energies depend on.
        scales: scales of its energies: its own identity, and the scale that it was trained to reproduce.
    """

    identity: str
    scales: tuple[str, ...]

    @property
    def elements(self) -> frozenset[int]:
        """Atomic numbers that it knows; by default up to plutonium."""
        return frozenset(range(1, 95))

    @property
    def cutoff(self) -> float:
        """Cutoff distance of interactions, angstrom."""
        return 6.0

    @abstractmethod
    def calculator(self) -> Any:
        """Return its ASE calculator (energies, forces, stresses), the same object each time."""

    def energy(self, crystal: Crystal) -> float:
        """Return the energy of the cell of a crystal without relaxation, eV."""
        atoms = to_atoms(crystal)
        atoms.calc = self.calculator()
        return float(atoms.get_potential_energy())


class CHGNet(Potential):
    """The universal potential CHGNet, with weights from its package.

    Args:
        weights: "0.3.0" and "0.2.0" were trained on the Materials Project's MPtrj, and give energies of the scale
            `MP2020`, corrections included; "r2scan" has a different scale.

    Raises:
        CrystensError: if the package is not installed, or has no such weights.
    """

    def __init__(self, weights: str = "0.3.0") -> None:
        """Check that the package is installed; nothing is loaded yet."""
        if weights not in ("0.3.0", "0.2.0", "r2scan"):
            raise CrystensError(f"{weights=} are not known for CHGNet; use 0.3.0, 0.2.0 or r2scan")
        self.weights = weights
        self.identity = f"chgnet {_release('chgnet', 'energy')}, weights {weights}"
        self.scales = (self.identity,) if weights == "r2scan" else (self.identity, MP2020)
        self._calculator: Any = None

    def __reduce__(self) -> tuple[type[CHGNet], tuple[str]]:
        """Travel without the network."""
        return CHGNet, (self.weights,)

    def calculator(self) -> Any:
        """Return the package's calculator, on the CPU; it raises for a structure with an isolated atom."""
        if self._calculator is None:
            # Takes seconds to import, and prints about itself.
            with contextlib.redirect_stdout(io.StringIO()):
                from chgnet.model.dynamics import CHGNetCalculator
                from chgnet.model.model import CHGNet as Network

                network = Network.load(model_name=self.weights, use_device="cpu", verbose=False)
                self._calculator = CHGNetCalculator(network, use_device="cpu", on_isolated_atoms="error")
        return self._calculator

    def energy(self, crystal: Crystal) -> float:
        """Return the energy of the cell without relaxation, eV; faster than the calculator, which computes forces."""
        network = self.calculator().model
        with torch.no_grad():
            prediction = network.predict_graph(network.graph_converter(crystal.to_structure()), task="e")
        return float(prediction["e"]) * len(crystal)


class Matgl(Potential):
    """A potential of the package matgl, such as M3GNet, read from a folder: matgl ships no weights.

    Its energies have a different scale: M3GNet was trained on the Materials Project without corrections.

    Args:
        folder: folder with `model.pt`, `state.pt` and `model.json`, as saved by matgl.

    Raises:
        CrystensError: if the package or a file is missing.
    """

    def __init__(self, folder: str | Path) -> None:
        """Hash the files; nothing is loaded yet."""
        self.folder = Path(folder).expanduser()
        digest = hashlib.blake2b(digest_size=4)
        # Without the check matgl would try to download a model of this name.
        for name in ("model.json", "model.pt", "state.pt"):
            try:
                digest.update((self.folder / name).read_bytes())
            except OSError as error:
                raise CrystensError(f"cannot read {self.folder / name}; give a folder that matgl saved") from error
        self.identity = f"matgl {_release('matgl', 'matgl')}, {self.folder.name} {digest.hexdigest()}"
        self.scales = (self.identity,)
        self._calculator: Any = None

    def __reduce__(self) -> tuple[type[Matgl], tuple[Path]]:
        """Travel without the network."""
        return Matgl, (self.folder,)

    @property
    def elements(self) -> frozenset[int]:
        """Atomic numbers that its network has."""
        return frozenset(Element(symbol).Z for symbol in self.calculator().element_types)

    @property
    def cutoff(self) -> float:
        """Cutoff distance of interactions, angstrom."""
        return float(self.calculator().cutoff)

    def calculator(self) -> Any:
        """Return the package's own calculator."""
        if self._calculator is None:
            # Takes seconds to import.
            import matgl
            from matgl.ext.ase import PESCalculator

            self._calculator = PESCalculator(matgl.load_model(self.folder), stress_unit="eV/A3", use_voigt=True)
        return self._calculator


def shipped(name: str) -> Potential:
    """Return a potential by name, with weights from its package.

    Raises:
        CrystensError: if the name is not in `SHIPPED`, or the package is not installed.
    """
    if name not in SHIPPED:
        raise CrystensError(f"potential {name!r} is not known; use one of {', '.join(SHIPPED)}")
    return CHGNet(SHIPPED[name])


def _release(package: str, extra: str) -> str:
    """Return the version of a package that an extra of crystens installs."""
    try:
        return version(package)
    except PackageNotFoundError as error:
        raise CrystensError(f"{package} is not installed; run pip install 'crystens[{extra}]'") from error


def objection(crystal: Crystal, potential: Potential) -> str | None:
    """Return why a potential must not be applied to a crystal, `category: details`; None if it may.

    Conditions: the potential knows all elements; no two atoms, own periodic images included, are nearer than 0.5
    angstrom; each site has another atom within the cutoff; angles of the `compact` cell are 30 to 150 degrees.
    """
    unknown = sorted(set(crystal.numbers.tolist()) - potential.elements)
    if unknown:
        return f"element unknown to the potential: {', '.join(Element.from_Z(number).symbol for number in unknown)}"
    if _is_skewed(angles := compact(crystal).angles):
        bounds = f"{MIN_ANGLE:g} to {MAX_ANGLE:g} degrees are judged"
        return f"cell angle out of bounds: {np.round(angles, 2).tolist()}; {bounds}"
    nearest = nearest_distances(crystal.vectors, crystal.coordinates)
    if nearest.min() < MIN_DISTANCE:
        return f"atoms too near: {nearest.min():.3g} angstrom; {MIN_DISTANCE} and more are judged"
    if nearest.max() >= potential.cutoff:
        seen = f"the potential sees {potential.cutoff:g}"
        return f"isolated atom: none within {nearest.max():.3g} angstrom of site {nearest.argmax()}; {seen}"
    return None


def compact(crystal: Crystal) -> Crystal:
    """Return the same crystal in a cell for a potential: LLL-reduced if an angle is not 30 to 150 degrees.

    One in fourteen real crystals of mp_3dsc has such angles. The sites keep their order.
    """
    if not _is_skewed(crystal.angles):
        return crystal
    lattice = crystal.lattice
    reduced = lattice.get_lll_reduced_lattice()
    structure = Structure(reduced, crystal.numbers.tolist(), lattice.get_lll_frac_coords(crystal.coordinates))
    return Crystal.from_structure(structure, crystal.space_group)


def _is_skewed(angles: np.ndarray) -> bool:
    """Return whether an angle is out of bounds."""
    return bool(angles.min() < MIN_ANGLE or angles.max() > MAX_ANGLE)


def to_atoms(crystal: Crystal) -> Atoms:
    """Return a crystal as ASE's atoms, in the orientation of its pymatgen Structure.

    CHGNet computes in single precision: rotation of a crystal changes its energy by some 1e-6 eV/atom.
    """
    cell = crystal.lattice.matrix
    return Atoms(numbers=crystal.numbers, scaled_positions=crystal.coordinates, cell=cell, pbc=True)
