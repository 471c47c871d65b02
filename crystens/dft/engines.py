"""The density functional codes that candidates are computed by, behind one interface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from crystens.crystal import Crystal
from crystens.dft import espresso, espresso_runs, vasp, vasp_runs
from crystens.dft.runs import DftRun
from crystens.errors import CrystensError


class WriteInputs(Protocol):
    """Writes the inputs of one candidate."""

    def __call__(self, crystal: Crystal, folder: Path, title: str, start: str, /) -> str | None:
        """Write the inputs; return what is missing, or None if they can be run as they are.

        Args:
            crystal: what is computed.
            folder: where the files go.
            title: stands above them.
            start: what the crystal is, in words.
        """


@dataclass(frozen=True)
class DftEngine:
    """A code. Its inputs in a folder have a script run.sh, which makes run_1 and on, each with `ended` once it ended.

    Attributes:
        name: of the option and of the folder beside a candidate's CIFs.
        program: its name in words.
        variable: environment variable with the command that starts it.
        command: value of the variable where it is not set; empty if there is none.
        advice: how to get the program, in words.
        relaxations: how many run.sh makes.
        write_inputs: writes the inputs of one candidate.
        read_runs: returns the runs in a folder, in order, whatever is wrong with them; none if none was begun.
        lacking: returns what a folder of inputs lacks to be run here, and how to get it; None if it lacks nothing.
        environment: returns variables for run.sh.
        refused: returns why elements cannot be computed, `category: details`, or None.
    """

    name: str
    program: str
    variable: str
    command: str
    advice: str
    relaxations: int
    write_inputs: WriteInputs
    read_runs: Callable[[Path], list[DftRun]]
    lacking: Callable[[Path], str | None]
    environment: Callable[[], dict[str, str]]
    refused: Callable[[Crystal], str | None]

    def inputs(self, out: Path, name: str) -> Path:
        """Return the folder of a candidate's inputs, below the folder of all candidates."""
        return out / "candidates" / name / self.name


VASP = DftEngine(
    name="vasp",
    program="VASP",
    variable="VASP_COMMAND",
    command="",
    advice="set VASP_COMMAND to the command that starts VASP, such as 'mpirun -n 16 vasp_std'",
    relaxations=vasp.RUNS,
    write_inputs=vasp.write_inputs,
    read_runs=vasp_runs.read_runs,
    lacking=vasp.lacking,
    environment=lambda: {},
    refused=lambda crystal: None,
)
ESPRESSO = DftEngine(
    name="espresso",
    program="Quantum ESPRESSO",
    variable="PW_COMMAND",
    command="pw.x",
    advice="apt install quantum-espresso, or set PW_COMMAND to the command that starts pw.x",
    relaxations=espresso.RUNS,
    write_inputs=espresso.write_inputs,
    read_runs=espresso_runs.read_runs,
    lacking=espresso.lacking,
    environment=espresso.environment,
    refused=espresso.refused,
)
DFT_ENGINES = {engine.name: engine for engine in (VASP, ESPRESSO)}

_RUN_ALL = """#!/bin/sh
# Runs {program} for all candidates one after the other; relaxations that ended are not run again.
#     {variable}="mpirun -n 16 {example}" ./run.sh
# Under Slurm, from this folder, one candidate a task:
#     sbatch --array=1-{number} --export=ALL,{variable}="srun {example}" run.sh
cd "${{SLURM_SUBMIT_DIR:-$(dirname "$0")}}" || exit 1
number=0
failed=0
for folder in candidates/*/{name}; do
    [ -d "$folder" ] || continue
    number=$((number + 1))
    [ "${{SLURM_ARRAY_TASK_ID:-$number}}" = "$number" ] || continue
    if [ ! -x "$folder/run.sh" ]; then
        echo "$folder: nothing to run here" >&2
        failed=1
        continue
    fi
    echo "$folder"
    "$folder/run.sh" || failed=1
done
[ "$number" -gt 0 ] || {{ echo "no candidates/*/{name} in $(pwd); submit from the folder of run.sh" >&2; exit 1; }}
exit $failed
"""


def run_all(engine: DftEngine, number: int) -> str:
    """Return the text of the script that runs an engine for so many candidates."""
    example = "pw.x" if engine.name == ESPRESSO.name else "vasp_std"
    return _RUN_ALL.format(
        program=engine.program, variable=engine.variable, name=engine.name, number=number, example=example
    )


def engine_of(out: Path, name: str | None = None) -> DftEngine:
    """Return the engine whose inputs are in a folder of candidates.

    Args:
        out: the folder that select wrote.
        name: the engine that is asked for; None for the only one.

    Raises:
        CrystensError: if there are inputs of none, or of several and none is asked for.
    """
    if name is not None:
        return DFT_ENGINES[name]
    there = [engine for engine in DFT_ENGINES.values() if any((out / "candidates").glob(f"*/{engine.name}"))]
    if len(there) > 1:
        names = " and ".join(engine.program for engine in there)
        raise CrystensError(f"{out} holds inputs of {names}; name one by --dft")
    if not there:
        raise CrystensError(f"no inputs in {out / 'candidates'}; write them with python -m crystens.candidates select")
    return there[0]
