"""Runs of a density functional code, as every engine tells them, and the flags of a chain of relaxations.

A candidate is relaxed several times in a row, in run_1 and on, each from the crystal that the run before ended with.
One that did not end, or that cannot be read, stays in the table with its reason, `category: details`.

Two pressures exist, for a plane-wave basis is chosen by the cell at the start of a run. `pressure` is in that basis:
VASP states it, so that it stands beside the paper's. `pressure_fresh` is computed anew in the basis of the last cell,
and is the one that a comparison with experiment would take.

Source of the chain: Alverson et al., Digital Discovery 2024, 3, 62, Sec. 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pymatgen.core import Structure

from crystens.crystal import Crystal
from crystens.symmetry.space_groups import group_within

SYMPREC = 0.1  # angstrom, for the space group of a relaxed crystal
KILOBAR = 0.1  # GPa

FINISHED, UNFINISHED, BROKEN = "finished", "unfinished", "broken"

CHECK = "check"  # folder of a calculation of the last crystal at a higher cutoff
STATUS = "status"  # file in a run's folder: exit status of the program, or why it was ended

RISE = 1e-4  # eV/atom
LARGEST_VOLUME_CHANGE = 0.1
LARGEST_CHECK_DIFFERENCE = 0.5  # GPa

_SIGNALS = 128  # a shell adds the number of the signal that ended a program to this


@dataclass(frozen=True)
class DftRun:
    """One run.

    Attributes:
        run: name of its folder below the candidate's; "." for the candidate's own; `CHECK` for that calculation.
        file: what was read; empty if there was nothing.
        status: "finished", "unfinished" or "broken".
        reason: why it is not finished, `category: details`; None if it is.
        formula: of the cell.
        num_sites: in the cell.
        energy: final energy of the cell, smearing taken to zero, eV.
        energy_per_atom: eV/atom.
        energy_change: final energy less that of the first ionic step, eV/atom; both in the basis of their own cell
            where the engine computes the last crystal anew.
        pressure_before: GPa, of the first ionic step; None where the engine does not state it.
        pressure: GPa, at the end, in the basis of the start; above 0 where the cell would swell.
        pressure_fresh: GPa, at the end, in the basis of the end; None where the engine does not compute it.
        converged: whether electrons and ions both came to rest.
        steps: ionic steps.
        volume: cubic angstrom, at the end.
        volume_change: volume at the end by that at the start, less 1; None if the start is not known.
        space_group: number at the end, within 0.1 angstrom.
        seconds: of the processor; None where the engine does not state them.
    """

    run: str
    file: str
    status: str
    reason: str | None = None
    formula: str | None = None
    num_sites: int | None = None
    energy: float | None = None
    energy_per_atom: float | None = None
    energy_change: float | None = None
    pressure_before: float | None = None
    pressure: float | None = None
    pressure_fresh: float | None = None
    converged: bool | None = None
    steps: int | None = None
    volume: float | None = None
    volume_change: float | None = None
    space_group: int | None = None
    seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the values by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def finished_run(
    run: str, file: str, structure: Structure, energy: float, first: float, start_volume: float | None, **values: Any
) -> DftRun:
    """Return a finished run.

    Args:
        run: its name.
        file: what was read.
        structure: at the end.
        energy: at the end, eV.
        first: energy of the first ionic step, eV.
        start_volume: of the cell at the start, cubic angstrom; None if it is not known.
        values: attributes of `DftRun` that need no computation.
    """
    crystal = Crystal.from_structure(structure, 1)
    sites = len(crystal)
    return DftRun(
        run=run,
        file=file,
        status=FINISHED,
        formula=structure.composition.reduced_formula,
        num_sites=sites,
        energy=energy,
        energy_per_atom=energy / sites,
        energy_change=(energy - first) / sites,
        volume=float(structure.volume),
        volume_change=None if start_volume is None else float(structure.volume) / start_volume - 1,
        space_group=group_within(crystal, SYMPREC),
        **values,
    )


def stopped(folder: Path) -> str | None:
    """Return why the program of a run was ended from outside, `category: details`; None if nothing says that it was."""
    path = folder / STATUS
    told = path.read_text(errors="replace").strip() if path.is_file() else ""
    if not told.isdigit():
        return told or None
    signal = int(told) - _SIGNALS
    return f"killed: by signal {signal}" if 1 <= signal <= 64 else None


def flags(runs: Sequence[DftRun]) -> list[list[str]]:
    """Return what speaks against each run of a chain; nothing for a run without fault.

    A cutoff that is too low shows in no pressure: the cell collapses until it is 0. It shows in an energy that rises
    once the last crystal is computed in its own basis, in a large change of volume, and at a higher cutoff.

    Args:
        runs: of one candidate, in order, the check at a higher cutoff last.
    """
    told = []
    volume = 1.0
    last: DftRun | None = None
    for run in runs:
        if run.status != FINISHED:
            categorised = run.reason is not None and run.status in (UNFINISHED, BROKEN)
            told.append([str(run.reason).split(":")[0] if categorised else run.status])
            continue
        found = [] if run.converged else ["not converged"]
        if run.run == CHECK:
            found += _against_check(last, run)
        else:
            rise = _rise(last, run)
            if rise > RISE:
                found.append(f"energy rises by {rise:.4f} eV/atom")
            volume *= 1 + (run.volume_change or 0)
            if abs(volume - 1) > LARGEST_VOLUME_CHANGE:
                found.append(f"volume changes by {100 * (volume - 1):+.0f} %")
            last = run
        told.append(found)
    return told


def _rise(last: DftRun | None, run: DftRun) -> float:
    """Return by how much the energy rises in a run or since the end of the last one, eV/atom."""
    since_last = 0.0
    if last is not None and last.energy_per_atom is not None and run.energy_per_atom is not None:
        since_last = run.energy_per_atom - last.energy_per_atom
    return max(run.energy_change or 0.0, since_last)


def _against_check(last: DftRun | None, check: DftRun) -> list[str]:
    """Return what the same crystal at a higher cutoff says against a run."""
    if last is None or last.pressure_fresh is None or check.pressure_fresh is None:
        return ["nothing to compare with"]
    difference = check.pressure_fresh - last.pressure_fresh
    if abs(difference) <= LARGEST_CHECK_DIFFERENCE:
        return []
    return [f"pressure changes by {difference:+.2f} GPa at a higher cutoff"]
