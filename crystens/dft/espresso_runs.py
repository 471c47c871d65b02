"""Runs of Quantum ESPRESSO read back from pw.out: energies, both pressures, cell and space group of each.

After a relaxation (vc-relax) pw.x computes the last crystal anew, in the basis of its own cell. So the energies before
and after are each in the basis of their cell, and so is `pressure_fresh`; `pressure` is that of the last step before.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Lattice, Structure

from crystens.crystal import Crystal
from crystens.dft.espresso import RYDBERG
from crystens.dft.runs import BROKEN, CHECK, KILOBAR, UNFINISHED, DftRun, finished_run, stopped
from crystens.errors import CrystensError, first_line

_OUTPUT, _INPUT = "pw.out", "pw.in"
_BOHR3 = 0.529177210903**3  # cubic angstrom, CODATA 2018

_ENERGY = re.compile(r"^!\s+total energy\s+=\s+(\S+) Ry", re.MULTILINE)
_SMEARING = re.compile(r"smearing contrib\. \(-TS\)\s+=\s+(\S+) Ry")
_PRESSURE = re.compile(r"total\s+stress .*P=\s*(\S+)")
_VOLUME = re.compile(r"unit-cell volume\s+=\s+(\S+) \(a\.u\.\)\^3")
_STRUCTURE = re.compile(r"^CELL_PARAMETERS.*?^ATOMIC_POSITIONS.*?\n(?:\S+(?: +\S+){3} *\n)+", re.MULTILINE | re.DOTALL)
_SECONDS = re.compile(r"^\s+PWSCF\s+:\s+(.+?)\s*CPU", re.MULTILINE)
_ERROR = re.compile(r"Error in routine\s+(\S+).*\n\s*(.*?)\s*\n")
_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def read_runs(folder: Path) -> list[DftRun]:
    """Return the runs below the folder of a candidate's inputs, in order, and the check; none if none was begun."""
    return [_read(place) for place in (*_relaxations(folder), folder / CHECK) if place.is_dir()]


def crystals_of(folder: Path) -> tuple[Crystal, Crystal]:
    """Return the crystal that the relaxations below a folder of inputs began with, and the last one that they made.

    The sites of both have the same order. Space groups are not looked for (1).

    Raises:
        CrystensError: if no relaxation has ended.
    """
    ended = [place for place in _relaxations(folder) if (place / "ended").exists()]
    if not ended:
        raise CrystensError(f"no relaxation in {folder} has ended; start run.sh there")
    paths = folder / "structure.in", ended[-1] / "structure.out"
    start, last = (Crystal.from_structure(_structure(path.read_text()), 1) for path in paths)
    return start, last


def _relaxations(folder: Path) -> list[Path]:
    """Return the folders of relaxations, in order."""
    return sorted(folder.glob("run_*"), key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)])


def _read(folder: Path) -> DftRun:
    """Return the run in a folder, whatever is wrong with it."""
    path = folder / _OUTPUT
    run, ended = folder.name, stopped(folder)
    if not path.is_file() or path.stat().st_size == 0:
        return DftRun(run, "", UNFINISHED, ended or f"no output: no {_OUTPUT}, or nothing in it")
    try:
        text = path.read_text(errors="replace")
        if "Program PWSCF" not in text:
            raise ValueError("it does not begin as the output of pw.x does")
        reason = _unfinished(text)
        if reason is not None:
            return DftRun(run, path.name, UNFINISHED, ended or reason)
        return _finished(folder, text)
    except CrystensError as error:
        return DftRun(run, path.name, BROKEN, str(error))
    except (ValueError, IndexError, OSError) as error:
        return DftRun(run, path.name, BROKEN, f"cannot be read: {first_line(error)}")


def _unfinished(text: str) -> str | None:
    """Return why a run did not end with a crystal and an energy, `category: details`; None if it did."""
    steps = f"after {len(_ENERGY.findall(text))} ionic steps"
    error = _ERROR.search(text)
    if error is not None:
        return f"pw.x stopped: {error[1]}: {error[2]}"
    if "Maximum CPU time exceeded" in text:
        return f"out of time: pw.x reached max_seconds {steps}"
    if "convergence NOT achieved" in text:
        return f"electrons did not converge: {steps}"
    if "JOB DONE." not in text:
        return f"the file ends before the run did: {steps}"
    return None


def _finished(folder: Path, text: str) -> DftRun:
    """Return the run of an output that is whole."""
    functional = re.search(r"Exchange-correlation\s*=\s*(.+)", text)
    if functional is None or functional[1].strip().upper() != "PBESOL":
        found = "unknown" if functional is None else functional[1].strip()
        raise CrystensError(f"of another functional: {found}, not PBEsol; give pseudopotentials for PBEsol")
    before, _, after = text.partition("Begin final coordinates")
    energies, pressures = _energies(before), _pressures(before)
    volume = float(_VOLUME.findall(text)[0]) * _BOHR3
    # The crystal of each ionic step, and after the last step one more, of which no energy is known yet.
    structures = [_structure((folder / _INPUT).read_text()), *map(_structure, _STRUCTURE.findall(text))]
    told: dict[str, Any] = {"seconds": _seconds(text), "steps": len(energies)}
    told |= {"pressure_before": pressures[0], "pressure": pressures[-1]}
    if after:
        fresh = _energies(after)
        told |= {"pressure_fresh": _pressures(after)[-1], "converged": "bfgs converged in" in before}
        return finished_run(folder.name, _OUTPUT, structures[-1], fresh[-1], energies[0], volume, **told)
    if len(structures) == 1:  # a calculation that moves nothing
        told |= {"pressure_fresh": pressures[-1], "converged": True}
    else:  # the ionic steps are used up, and pw.x computes nothing anew
        told["converged"] = False
    last = structures[len(energies) - 1]
    return finished_run(folder.name, _OUTPUT, last, energies[-1], energies[0], volume, **told)


def _pressures(text: str) -> list[float]:
    """Return the pressures of ionic steps, GPa."""
    return [float(value) * KILOBAR for value in _PRESSURE.findall(text)]


def _energies(text: str) -> list[float]:
    """Return the energies of ionic steps with the smearing taken to zero, eV.

    pw.x minimises the free energy, F = E - TS. At zero smearing it is F + TS / 2, as VASP takes it.
    """
    found = []
    for place in _ENERGY.finditer(text):
        smearing = _SMEARING.search(text, place.end(), place.end() + 2000)
        found.append((float(place[1]) - (float(smearing[1]) / 2 if smearing else 0.0)) * RYDBERG)
    return found


def _structure(text: str) -> Structure:
    """Return the crystal of CELL_PARAMETERS in angstrom and fractional ATOMIC_POSITIONS."""
    _, _, cell = text.partition("CELL_PARAMETERS")
    cell, _, sites = cell.partition("ATOMIC_POSITIONS")
    matrix = np.array([line.split() for line in cell.splitlines()[1:4]], dtype=float)
    rows = [line.split() for line in sites.splitlines()[1:] if len(line.split()) == 4]
    if matrix.shape != (3, 3) or not rows or "angstrom" not in cell or "crystal" not in sites:
        raise ValueError("it holds no cell in angstrom with fractional coordinates")
    return Structure(Lattice(matrix), [row[0] for row in rows], np.array([row[1:] for row in rows], dtype=float))


def _seconds(text: str) -> float | None:
    """Return the processor time that pw.x states at its end, seconds."""
    found = _SECONDS.findall(text)
    if not found:
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)\s*([dhms])", found[-1]))
