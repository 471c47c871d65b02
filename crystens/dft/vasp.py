"""Inputs of VASP for a candidate, with the paper's settings, as pymatgen's input set writes them.

A folder holds INCAR, KPOINTS, POSCAR, POTCAR.spec (the names of the pseudopotentials), README.txt and run.sh, which
runs four successive relaxations in run_1 to run_4, each from the CONTCAR of the one before. POTCAR is written where
pymatgen knows the user's licensed files (PMG_VASP_PSP_DIR); without them README.txt says what is missing.

Source: Alverson et al., Digital Discovery 2024, 3, 62, Sec. 6: PBEsol, 400 eV, 3 x 3 x 3 k-points, 1e-5 eV, smearing of
0.1 eV, conjugate gradients, cell and atoms, four relaxations in a row.
Differs from the paper, which does not say these: NSW = 100, without which VASP moves nothing; Gaussian smearing; the
pseudopotentials are those that the Materials Project takes, PBE_54; pymatgen adds LMAXMIX where there are d or f
electrons, which helps convergence and changes no energy.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from pymatgen.core import Structure

from crystens.crystal import Crystal
from crystens.dft.inputs import write_folder
from crystens.errors import first_line

INCAR = {
    "GGA": "PS",  # PBEsol
    "ENCUT": 400,  # eV
    "EDIFF": 1e-5,  # eV
    "ISMEAR": 0,
    "SIGMA": 0.1,  # eV
    "IBRION": 2,  # conjugate gradients
    "ISIF": 3,  # atoms, and the cell's shape and volume
    "NSW": 100,  # not the paper's
}
KPOINTS = (3, 3, 3)  # centred on Gamma; of an odd number Monkhorst and Pack's grid is the same
RUNS = 4
FUNCTIONAL = "PBE_54"

_RUN = """#!/bin/sh
# Relaxes the crystal of POSCAR {runs} times in a row, each time from the CONTCAR of the run before.
# Set VASP_COMMAND, such as "mpirun -n 16 vasp_std". The same command goes on after the last run that ended.
set -eu
cd "$(dirname "$0")"
: "${{VASP_COMMAND:?set VASP_COMMAND to the command that starts VASP}}"
if [ ! -s POTCAR ]; then
    echo "no POTCAR here; see README.txt" >&2
    exit 1
fi
from=POSCAR
for run in {numbers}; do
    if [ ! -e "run_$run/ended" ]; then
        mkdir -p "run_$run"
        cp INCAR KPOINTS POTCAR "run_$run/"
        cp "$from" "run_$run/POSCAR"
        rm -f "run_$run/CONTCAR"
        (cd "run_$run" && sh -c "$VASP_COMMAND" > vasp.out 2>&1)
        if [ ! -s "run_$run/CONTCAR" ]; then
            echo "run_$run left no CONTCAR; see run_$run/vasp.out" >&2
            exit 1
        fi
        touch "run_$run/ended"
    fi
    from="run_$run/CONTCAR"
done
"""

_README = """{title}

INCAR    PBEsol (GGA = PS), ENCUT 400 eV, EDIFF 1e-5 eV, Gaussian smearing of 0.1 eV, conjugate gradients (IBRION 2),
         cell and atoms (ISIF 3). NSW = 100 is not the paper's: it does not say how many steps a relaxation has.
KPOINTS  3 x 3 x 3, centred on Gamma.
POSCAR   {poscar}
POTCAR   {potcar}
run.sh   {runs} relaxations in a row, in run_1 to run_{runs}; the command of VASP is taken from VASP_COMMAND.

400 eV is less than the ENMAX of some pseudopotentials; look at the warnings of VASP before you trust a pressure.
Magnetic moments and Hubbard's U are not set, for the paper does not name them.
When the runs have ended: python -m crystens.candidates parse DIR, with the folder that holds candidates.csv.
"""


def write_inputs(crystal: Crystal, folder: Path, title: str, poscar: str) -> str | None:
    """Write the inputs of one candidate; return what is missing, or None if it can be run as it is.

    Args:
        crystal: what is computed.
        folder: where the files go; made if it is not there.
        title: first line of README.txt.
        poscar: what the crystal of POSCAR is, for README.txt.

    Raises:
        CrystensError: if the folder holds runs of another POSCAR, or cannot be written.
    """
    files, symbols = _files(crystal.to_structure())
    potcar, missing = _potcar(symbols)
    given = f"{' '.join(symbols)} of {FUNCTIONAL}, written by pymatgen"
    told = given if missing is None else f"missing: {missing}"
    files |= {
        "run.sh": _RUN.format(runs=RUNS, numbers=" ".join(str(run) for run in range(1, RUNS + 1))),
        "README.txt": _README.format(title=title, poscar=poscar, potcar=told, runs=RUNS),
    }
    if potcar is not None:
        files["POTCAR"] = potcar
    write_folder(folder, files, "POSCAR", "VASP of another POSCAR")
    return missing


def lacking(folder: Path) -> str | None:
    """Return what a folder of inputs lacks to be run here, and how to get it; None if it lacks nothing."""
    for name in ("INCAR", "KPOINTS", "POSCAR", "run.sh"):
        if not (folder / name).is_file():
            return f"no {name} in {folder}; write it again with python -m crystens.candidates select"
    return None if (folder / "POTCAR").is_file() else f"no POTCAR in {folder}; see README.txt there"


def _files(structure: Structure) -> tuple[dict[str, str], list[str]]:
    """Return the texts of the files that need no licence, and the names of the pseudopotentials."""
    # Takes seconds to import.
    from pymatgen.io.vasp.inputs import Kpoints
    from pymatgen.io.vasp.sets import MPScanRelaxSet, VaspInputSet

    config: dict[str, Any] = {"INCAR": INCAR, "KPOINTS": {}, "POTCAR_FUNCTIONAL": FUNCTIONAL}
    config["POTCAR"] = MPScanRelaxSet.CONFIG["POTCAR"]
    grid: Any = Kpoints.gamma_automatic(KPOINTS)  # taken as it is, though declared as a dictionary
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inputs = VaspInputSet(structure, config, user_kpoints_settings=grid)
        written = inputs.get_input_set(potcar_spec=True)
        symbols = list(inputs.potcar_symbols)
    files = {name: str(written[name]).rstrip() + "\n" for name in ("INCAR", "KPOINTS", "POSCAR")}
    # pymatgen writes "Ps"; the manual of VASP says PS.
    files["INCAR"] = files["INCAR"].replace("GGA = Ps", "GGA = PS")
    return files | {"POTCAR.spec": "\n".join(symbols) + "\n"}, symbols


def _potcar(symbols: list[str]) -> tuple[str | None, str | None]:
    """Return the text of POTCAR where pymatgen has the licensed files, and what is missing where it has not."""
    from pymatgen.io.vasp.inputs import PmgVaspPspDirError, Potcar

    names = " ".join(symbols)
    make = f"make POTCAR of {names} ({FUNCTIONAL}), in this order; POTCAR.spec names them"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return str(Potcar(symbols, functional=FUNCTIONAL)), None
    except PmgVaspPspDirError:
        return None, f"PMG_VASP_PSP_DIR is not set, so that pymatgen does not find your licensed files; {make}"
    except (OSError, ValueError, KeyError) as error:
        return None, f"pymatgen cannot read your licensed files ({first_line(error)}); {make}"
