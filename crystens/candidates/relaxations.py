"""Successive relaxations by a potential: each starts from the result of the one before, with a new limit of steps.

The paper relaxes a candidate four times, because a relaxation with a large change of the cell must be restarted from
the changed cell. Each relaxation is a call of `crystens.energies.energies`, which caches its results, so that a killed
run resumes with the interrupted relaxation.

Source: Alverson et al., Digital Discovery 2024, 3, 62, Sec. 6.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from crystens.crystal import Crystal
from crystens.energies.energies import EnergyOptions, energies
from crystens.energies.potentials import Potential, compact
from crystens.energies.relaxation import Energy, Relaxation, displacements
from crystens.errors import CrystensError

RUNS = 4


@dataclass(frozen=True, eq=False)
class Relaxations:
    """Relaxation of one crystal.

    Attributes:
        start: the crystal before, in the cell used by the potential.
        runs: the energy after each relaxation, up to the first that failed.
    """

    start: Crystal
    runs: tuple[Energy, ...]

    @property
    def crystal(self) -> Crystal | None:
        """The crystal after the last relaxation; None if one failed."""
        last = self.runs[-1].relaxed
        return None if last is None or self.reason is not None else last.crystal

    @property
    def reason(self) -> str | None:
        """Why there is no relaxed crystal, `category: details`; None if there is one."""
        return self.runs[-1].reason

    @property
    def converged(self) -> bool:
        """Whether the last relaxation converged."""
        last = self.runs[-1].relaxed
        return self.reason is None and last is not None and last.converged

    @property
    def energy_before(self) -> float | None:
        """Energy before the first relaxation, eV/atom; None if the first one failed."""
        first = self.runs[0].relaxed
        return None if first is None else first.energy_before / len(self.start)

    @property
    def energy_after(self) -> float | None:
        """Energy after the last relaxation, eV/atom; None if one failed."""
        total = self.runs[-1].total
        return None if total is None else total / len(self.start)

    @property
    def volume_change(self) -> float | None:
        """Relative change of the volume over all relaxations; None if one failed."""
        after = self.crystal
        return None if after is None else after.lattice.volume / self.start.lattice.volume - 1

    @property
    def displacement(self) -> float | None:
        """Largest displacement of a site over all relaxations, angstrom; None if one failed or changed the cell."""
        after = self.crystal
        turned = any(
            run.relaxed is None or compact(run.relaxed.crystal) is not run.relaxed.crystal for run in self.runs
        )
        if after is None or turned:
            return None
        return float(displacements(self.start, after).max())


def relax_successively(
    crystals: Sequence[Crystal],
    potential: Potential,
    relaxation: Relaxation,
    options: EnergyOptions,
    runs: int = RUNS,
    progress: Callable[[int, int], None] | None = None,
) -> list[Relaxations]:
    """Return the results of successive relaxations of each crystal.

    Args:
        crystals: the crystals.
        potential: the potential.
        relaxation: options of each relaxation.
        options: options of the computation; their relaxation is ignored.
        runs: number of relaxations.
        progress: called with the number of the relaxation, from 1, and its number of finished crystals.

    Raises:
        CrystensError: if `runs` is below 1.
    """
    if runs < 1:
        raise CrystensError(f"relaxations must be at least 1, got {runs}")
    options = replace(options, relaxation=relaxation)
    done: list[list[Energy]] = [[] for _ in crystals]
    now: list[Crystal | None] = list(crystals)
    for run in range(1, runs + 1):
        places = [place for place, crystal in enumerate(now) if crystal is not None]
        there = [crystal for crystal in now if crystal is not None]
        told = None if progress is None else _in_run(progress, run)
        for place, energy in zip(places, energies(there, potential, options, told), strict=True):
            done[place].append(energy)
            now[place] = None if energy.relaxed is None else energy.relaxed.crystal
    return [Relaxations(_start(crystal), tuple(item)) for crystal, item in zip(crystals, done, strict=True)]


def _start(crystal: Crystal) -> Crystal:
    """Return the crystal in the cell that a relaxation begins with."""
    return compact(crystal)


def _in_run(progress: Callable[[int, int], None], run: int) -> Callable[[int], None]:
    """Return the progress callback of one relaxation."""
    return lambda count: progress(run, count)
