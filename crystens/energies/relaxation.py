"""The energy of one crystal by a potential, unrelaxed or relaxed, or the reason why it has none.

Energies in eV of a whole cell unless a name says per atom, forces in eV/angstrom, pressures in GPa.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms, units

from crystens.crystal import Crystal
from crystens.distances import nearest_steps, shortest_translation
from crystens.energies.potentials import Potential, compact, objection, to_atoms
from crystens.errors import CrystensError, first_line

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Relaxation:
    """Options of relaxation by FIRE, atoms and cell together.

    Attributes:
        steps: largest number of steps; an unconverged crystal still gets an energy, and is marked.
        force: convergence criterion: largest force on an atom and on the cell (virial divided by the number of atoms,
            as in ASE's FrechetCellFilter), eV/angstrom.
        cell: whether the cell may change.

    Raises:
        CrystensError: if a value is out of range.
    """

    steps: int = 200
    force: float = 0.1
    cell: bool = True

    def __post_init__(self) -> None:
        """Check the values."""
        if self.steps < 1:
            raise CrystensError(f"a relaxation needs at least 1 step, got steps={self.steps}")
        if not self.force > 0:
            raise CrystensError(f"force must be above 0 eV/angstrom, got {self.force}")


@dataclass(frozen=True, eq=False)
class Relaxed:
    """Result of a relaxation.

    Attributes:
        crystal: the relaxed crystal, with sites in their old order, in the relaxed original or `compact` cell; its
            space group number is unchanged.
        steps: number of steps.
        converged: whether the forces reached the criterion.
        energy_before: energy of the cell before relaxation, eV.
        force: largest force on an atom at the end, eV/angstrom.
        displacement: largest displacement of a site, angstrom, see `displacements`.
        mean_displacement: mean displacement of the sites, angstrom.
        volume_change: relative change of the volume.
        pressure_before: pressure before relaxation, GPa.
        pressure_after: pressure after relaxation, GPa.
    """

    crystal: Crystal
    steps: int
    converged: bool
    energy_before: float
    force: float
    displacement: float
    mean_displacement: float
    volume_change: float
    pressure_before: float
    pressure_after: float

    def to_plain(self) -> dict[str, Any]:
        """Return the result in values that JSON holds without loss."""
        crystal = {name: getattr(self.crystal, name) for name in Crystal.__dataclass_fields__}
        plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in crystal.items()}
        return {**vars(self), "crystal": plain}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Relaxed:
        """Return the result that `to_plain` wrote."""
        return cls(**{**plain, "crystal": Crystal(**plain["crystal"])})


@dataclass(frozen=True, eq=False)
class Energy:
    """The energy of one crystal, or why there is none.

    Attributes:
        total: energy of the cell, eV, after relaxation if requested; None if there is none.
        reason: why there is none, `category: details`; None if there is one.
        seconds: duration of the computation.
        relaxed: result of relaxation; None if it was not requested, or failed.
    """

    total: float | None
    reason: str | None = None
    seconds: float = 0.0
    relaxed: Relaxed | None = None

    def to_plain(self) -> dict[str, Any]:
        """Return the energy in values that JSON holds without loss."""
        relaxed = None if self.relaxed is None else self.relaxed.to_plain()
        return {**vars(self), "seconds": round(self.seconds, 4), "relaxed": relaxed}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Energy:
        """Return the energy that `to_plain` wrote."""
        relaxed = plain["relaxed"]
        return cls(**{**plain, "relaxed": None if relaxed is None else Relaxed.from_plain(relaxed)})


def judged(crystal: Crystal, potential: Potential, relaxation: Relaxation | None) -> Energy:
    """Return the energy of one crystal, or the reason why it has none; never raises."""
    start = time.perf_counter()
    try:
        reason = objection(crystal, potential)
        crystal = crystal if reason else compact(crystal)
        total, relaxed = None, None
        if reason is None and relaxation is None:
            total = potential.energy(crystal)
        elif reason is None and relaxation is not None:
            total, relaxed = _relax(crystal, potential, relaxation)
            if (left := objection(relaxed.crystal, potential)) is not None:
                reason = f"relaxed into what cannot be judged: {left}"
        if reason is None and (total is None or not math.isfinite(total)):
            reason = f"the energy is not a finite number: {total}"
    except Exception as error:
        # Potentials fail in many ways, and one crystal must not end a run of thousands.
        log.debug("the potential failed", exc_info=True)
        reason = f"the potential failed: {type(error).__name__}: {first_line(error)}"
    seconds = time.perf_counter() - start
    return Energy(total, None, seconds, relaxed) if reason is None else Energy(None, reason, seconds)


def _relax(crystal: Crystal, potential: Potential, relaxation: Relaxation) -> tuple[float, Relaxed]:
    """Return the energy of the relaxed cell, eV, and the result of relaxation."""
    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE

    atoms = to_atoms(crystal)
    atoms.calc = potential.calculator()
    before, pressure = float(atoms.get_potential_energy()), _pressure(atoms)
    optimizer = FIRE(FrechetCellFilter(atoms) if relaxation.cell else atoms, logfile=None)
    converged = bool(optimizer.run(fmax=relaxation.force, steps=relaxation.steps))
    shape = atoms.cell.cellpar()
    relaxed = Crystal(shape[:3], shape[3:], crystal.space_group, crystal.numbers, atoms.get_scaled_positions())
    ways = displacements(crystal, relaxed)
    return float(atoms.get_potential_energy()), Relaxed(
        crystal=relaxed,
        steps=int(optimizer.nsteps),
        converged=converged,
        energy_before=before,
        force=float(np.linalg.norm(atoms.get_forces(), axis=1).max()),
        displacement=float(ways.max()),
        mean_displacement=float(ways.mean()),
        volume_change=relaxed.lattice.volume / crystal.lattice.volume - 1,
        pressure_before=pressure,
        pressure_after=_pressure(atoms),
    )


def displacements(before: Crystal, after: Crystal) -> np.ndarray:
    """Return the displacement of each site, angstrom, in the old cell: (N,).

    It is the change of the fractional coordinates to the nearest image, minus the mean change of all sites, so that
    pure expansion moves no site. Displacements above a third of the shortest translation may be overestimated.

    Args:
        before: N sites.
        after: the same sites in the same order, in the changed cell.
    """
    matrix = before.lattice.matrix
    within = 0.35 * shortest_translation(matrix)
    shifts = nearest_steps(matrix, after.coordinates - before.coordinates, within)
    return np.linalg.norm((shifts - shifts.mean(axis=0)) @ matrix, axis=1)


def _pressure(atoms: Atoms) -> float:
    """Return the pressure in a cell, GPa; positive if the cell would expand."""
    return -float(np.mean(atoms.get_stress()[:3])) / units.GPa
