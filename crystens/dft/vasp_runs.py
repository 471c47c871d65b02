"""Runs of VASP read back: energy, pressure, cell and space group of each, beside those of the potential.

A run is a folder with vasprun.xml or OUTCAR, gzipped or not. Total energies of PBEsol and of the potential are on two
scales: their difference is written down and means nothing by itself; compare it between candidates of one composition,
or take the changes in relaxing.

The pressure of VASP is the mean of the diagonal of its stress, kB, without Pulay's correction: at a fixed cutoff it is
too low or too high by what the basis lacks, until a run begins from the cell that the one before ended with.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from crystens.dft.runs import BROKEN, FINISHED, KILOBAR, UNFINISHED, DftRun, finished_run, stopped
from crystens.errors import CrystensError, first_line

_NAMES = ("vasprun.xml", "vasprun.xml.gz", "OUTCAR", "OUTCAR.gz")


def read_runs(folder: Path) -> list[DftRun]:
    """Return the runs below the folder of a candidate's inputs, in order; none if none was begun.

    Args:
        folder: it holds run_1 and on, or the output of a single run itself.
    """
    places = sorted(folder.glob("run_*"), key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)])
    found = [_read(place, place.name) for place in places if place.is_dir()]
    if any((folder / name).exists() for name in _NAMES):
        found.insert(0, _read(folder, "."))
    return found


def _read(folder: Path, run: str) -> DftRun:
    """Return the run in a folder, whatever is wrong with it."""
    found, ended = _from_output(folder, run), stopped(folder)
    return found if ended is None or found.status == FINISHED else replace(found, status=UNFINISHED, reason=ended)


def _from_output(folder: Path, run: str) -> DftRun:
    """Return the run that the output in a folder tells of."""
    there = [folder / name for name in _NAMES if (folder / name).exists()]
    if not there:
        return DftRun(run, "", UNFINISHED, f"no output: none of {', '.join(_NAMES)}")
    path = there[0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if path.name.startswith("vasprun"):
                return _from_vasprun(path, run)
            return _from_outcar(path, run)
    except CrystensError as error:
        return DftRun(run, path.name, UNFINISHED, str(error))
    except Exception as error:
        # A torn file makes pymatgen fail in many ways, and one run must not cost the others.
        status = UNFINISHED if _is_cut_short(path) else BROKEN
        what = "the file ends before the run did" if status == UNFINISHED else "cannot be read"
        return DftRun(run, path.name, status, f"{what}: {type(error).__name__}: {first_line(error)}")


def _from_vasprun(path: Path, run: str) -> DftRun:
    """Return the run of a vasprun.xml."""
    from pymatgen.io.vasp.outputs import Vasprun

    done = Vasprun(path, parse_dos=False, parse_eigen=False, parse_potcar_file=False)
    if not done.ionic_steps:
        raise CrystensError("no ionic step was finished")
    energies = float(done.final_energy), _without_smearing(done.ionic_steps[0])
    told: dict[str, Any] = {
        "pressure_before": _pressure(done.ionic_steps[0]),
        "pressure": _pressure(done.ionic_steps[-1]),
        "converged": bool(done.converged),
        "steps": len(done.ionic_steps),
    }
    volume = float(done.initial_structure.volume)
    return finished_run(run, path.name, done.final_structure, *energies, volume, **told)


def _pressure(step: dict[str, Any]) -> float | None:
    """Return the pressure of an ionic step, GPa; None if it has no stress."""
    stress = step.get("stress")
    return None if stress is None else float(np.trace(np.array(stress))) / 3 * KILOBAR


def _without_smearing(step: dict[str, Any]) -> float:
    """Return the energy of an ionic step with the smearing taken to zero, eV, as pymatgen does for the final one.

    Some versions of VASP write another energy under that name for the step, but not for the last electronic one in it.
    """
    last = step["electronic_steps"][-1]
    return float(step["e_fr_energy"] + last["e_0_energy"] - last["e_fr_energy"])


def _from_outcar(path: Path, run: str) -> DftRun:
    """Return the run of an OUTCAR; its cell and sites are in the CONTCAR beside it."""
    from monty.io import zopen
    from pymatgen.io.vasp.inputs import Poscar

    with zopen(path, mode="rt", encoding="utf-8", errors="replace") as file:
        text = str(file.read())
    # Two blanks: with one it is an electronic step.
    energies = re.findall(r"energy  without entropy\s*=\s*\S+\s+energy\(sigma->0\)\s*=\s*(\S+)", text)
    if not energies:
        raise CrystensError("no ionic step was finished")
    if "General timing and accounting" not in text:
        raise CrystensError(f"the file ends before the run did: after {len(energies)} ionic steps")
    contcar = next((path.parent / name for name in ("CONTCAR", "CONTCAR.gz") if (path.parent / name).exists()), None)
    if contcar is None:
        raise CrystensError("an OUTCAR without a CONTCAR beside it does not tell the crystal")
    pressures = [float(value) * KILOBAR for value in re.findall(r"external pressure\s*=\s*(\S+)\s*kB", text)]
    at_rest = "reached required accuracy - stopping structural energy minimisation" in text
    static = re.search(r"NSW\s*=\s*0\b", text) is not None
    electrons = text.count("aborting loop because EDIFF is reached") >= len(energies)
    structure = Poscar.from_file(contcar, check_for_potcar=False).structure
    told: dict[str, Any] = {
        "pressure_before": pressures[0] if pressures else None,
        "pressure": pressures[-1] if pressures else None,
        "converged": electrons and (at_rest or static),
        "steps": len(energies),
    }
    volumes = re.findall(r"volume of cell :\s*(\S+)", text)
    volume = float(volumes[0]) if volumes else None
    return finished_run(run, path.name, structure, float(energies[-1]), float(energies[0]), volume, **told)


def _is_cut_short(path: Path) -> bool:
    """Return whether a file begins as an output of VASP does, so that its end is what is missing."""
    from monty.io import zopen

    try:
        with zopen(path, mode="rt", encoding="utf-8", errors="replace") as file:
            head = str(file.read(2000))
    except (OSError, EOFError):
        return path.stat().st_size > 0 and path.name.endswith(".gz")
    return "<modeling>" in head or "vasp." in head
