"""Successive relaxations by a potential: each begins where the one before ended, with its own limit of steps.

The paper relaxes a candidate four times in a row, because a relaxation whose cell changes much is only right when it is
begun anew from the changed cell. Each one is a call of `crystens.energies.energies`, which writes every result down, so
that a run that was killed goes on with the relaxation that it was at.

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
        start: the crystal before, in the cell that the potential took.
        runs: one energy a relaxation, up to the first that failed.
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
        """Whether the last relaxation came to rest."""
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
        """Volume after all by that before, less 1; None if a relaxation failed."""
        after = self.crystal
        return None if after is None else after.lattice.volume / self.start.lattice.volume - 1

    @property
    def displacement(self) -> float | None:
        """Largest way of a site over all, angstrom, as in `Relaxed`; None if one failed or took another cell."""
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
    """Return what four successive relaxations do to each crystal.

    Args:
        crystals: what is relaxed.
        potential: what relaxes them.
        relaxation: one of the relaxations: its most steps, and the force at which it ends.
        options: how; all but `relaxation` counts.
        runs: how many relaxations.
        progress: called with the number of the run, from 1, and the number of crystals that are done in it.

    Raises:
        CrystensError: if there is to be no run.
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
    """Return what tells the progress in one run."""
    return lambda count: progress(run, count)
