"""Candidates for density functional theory, from generated crystals.

select SAMPLES --out DIR    rank, clean and relax samples, and write the inputs of VASP or Quantum ESPRESSO
entries SAMPLES --out FILE  download the Materials Project's energies of all competing phases, for select --entries
run DIR                     run these inputs on this machine
parse DIR                   read the results of these runs
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from crystens.candidates.cleaning import CleaningOptions
from crystens.candidates.figure import candidates_figure
from crystens.candidates.folder import parse_runs, read_candidates, write_selection
from crystens.candidates.generated import Sample, read_generated
from crystens.candidates.neutrality import OXIDATION_STATES
from crystens.candidates.ranking import ORDERS
from crystens.candidates.relaxations import RUNS
from crystens.candidates.selection import Selection, SelectionOptions, exclusion_counts, select
from crystens.dft.engines import DFT_ENGINES, VASP, DftEngine, engine_of
from crystens.dft.local_runs import run_here
from crystens.dft.runs import FINISHED
from crystens.energies.energies import EnergyOptions
from crystens.energies.formation_energies import COLUMN, read_formation_energies
from crystens.energies.hull import HullDistance
from crystens.energies.known_crystals import read_known
from crystens.energies.materials_project_entries import chemical_systems, fetch_entries
from crystens.energies.potentials import MP2020, CHGNet, Potential
from crystens.energies.references import HullSource, reference_of
from crystens.energies.relaxation import Relaxation
from crystens.errors import CrystensError
from crystens.ingest.kinds import KINDS
from crystens.processes.atomic_file import write_whole
from crystens.processes.command import run_command
from crystens.processes.engines import add_engine, engine_running
from crystens.processes.progress_bars import ProgressBars
from crystens.sources.record import SPLITS

Command = Callable[[argparse.Namespace, Potential | None], str]


def main(
    arguments: Sequence[str] | None = None,
    potential: Potential | None = None,
    prog: str = "python -m crystens.candidates",
) -> int:
    """Run the command line and return its exit status.

    Args:
        arguments: arguments of the command line; None takes those of this process.
        potential: potential for energies; None takes CHGNet with the requested weights.
        prog: name of the command, for help.
    """
    options = _parser(prog).parse_args(arguments)
    command: Command = options.run
    return run_command(lambda: command(options, potential))


def _select(options: argparse.Namespace, potential: Potential | None) -> str:
    """Select candidates, write their folder, and return the text to print."""
    hulls = ("reference", "entries", "hull_energies")
    given = [f"--{name.replace('_', '-')}" for name in hulls if getattr(options, name) is not None]
    if len(given) > 1:
        raise CrystensError(f"{' and '.join(given)} are {len(given)} references; give one of them")
    if not given and (options.rank_by == "above_hull" or options.max_hull < math.inf):
        raise CrystensError(
            "an energy above hull needs crystals to compare with; give --reference, --entries or --hull-energies"
        )
    potential = potential or CHGNet(options.weights)
    energy_options = EnergyOptions(
        workers=options.workers, time_limit=options.time_limit, cache=options.cache, engine=options.engine
    )
    by = options.rank_by or ("above_hull" if given else "formation_energy")
    chosen = SelectionOptions(
        options.number,
        by,
        options.max_hull,
        CleaningOptions(
            options.oxidation_states, options.max_shift, options.generated_tolerance, options.found_tolerance
        ),
        Relaxation(steps=options.steps, force=options.force),
        options.relaxations,
    )
    with ProgressBars() as bars, engine_running(options.engine):
        bars("reading", 0, None)
        engine = DFT_ENGINES[options.dft]
        samples = [_computable(item, engine) for item in read_generated(options.samples, options.kind, options.split)]
        bars("reading", len(samples), len(samples))
        known = None if options.reference is None else read_known(options.reference)
        crystals = [sample.crystal for sample in samples if sample.crystal is not None]
        if not crystals:
            raise CrystensError(
                f"none of the {len(samples)} samples of {options.samples} is a crystal: {samples[0].reason}"
            )
        formation = None
        if options.hull_energies is not None:
            formation = read_formation_energies(options.hull_energies, options.column)
        source = HullSource(options.entries, options.scale, formation, known)
        told, reference, relaxed = partial(bars, "reference"), None, None
        if given or by != "energy":
            reference = reference_of(crystals, potential, energy_options, source, told)
        if known is not None:
            relaxing = replace(energy_options, relaxation=chosen.relaxation)
            relaxed = partial(reference_of, potential=potential, options=relaxing, source=source, progress=told)
        selection = select(samples, potential, energy_options, chosen, reference, known, bars, relaxed)
        about = {"source": options.samples, "potential": potential.identity, "ranked_by": by}
        names = ("number", "max_hull", "oxidation_states", "max_shift", "generated_tolerance", "found_tolerance")
        about["options"] = {name: _plain(getattr(options, name)) for name in (*names, "relaxations", "steps", "force")}
        bars("writing", 0, None)
        write_selection(selection, options.out, options.start, about, engine)
        compared = "energies by themselves" if selection.reference is None else selection.reference.name
        title = f"{by.replace('_', ' ')}: {len(selection.candidates)} of {len(samples)} samples; {compared}"
        title = f"{options.title}\n{title}" if options.title else title
        write_whole(options.out / "candidates.png", candidates_figure(selection.candidates, title))
        bars("writing", len(selection.candidates), len(selection.candidates))
    return _told(selection, options.out)


def _computable(sample: Sample, engine: DftEngine) -> Sample:
    """Return a sample, without its crystal if the DFT code does not support its elements."""
    reason = None if sample.crystal is None else engine.refused(sample.crystal)
    return sample if reason is None else replace(sample, crystal=None, reason=reason)


def _entries(options: argparse.Namespace, potential: Potential | None) -> str:
    """Fetch the entries of the samples' elements, and return the text to print."""
    samples = read_generated(options.samples, options.kind, options.split)
    systems = chemical_systems(sample.crystal for sample in samples if sample.crystal is not None)
    if not systems:
        raise CrystensError(f"no sample of {options.samples} is a crystal; there is nothing to ask for")
    with ProgressBars() as bars:
        count = fetch_entries(systems, options.out, lambda done: bars("chemical systems", done, len(systems)))
    return f"{count} entries of {len(systems)} chemical systems in {options.out}; use them with --entries\n"


def _run(options: argparse.Namespace, potential: Potential | None) -> str:
    """Run the inputs of a folder on this machine, and return the text to print."""
    engine = engine_of(options.folder, options.dft)
    names = [row["name"] for row in read_candidates(options.folder)]
    unknown = sorted(set(options.without) - set(names))
    if unknown:
        raise CrystensError(f"no candidate {unknown[0]} in {options.folder}; its candidates are {', '.join(names)}")
    names = [name for name in names if name not in options.without]
    with ProgressBars() as bars:
        told = partial(bars, "relaxations")
        runs = run_here(options.folder, names, engine, options.jobs, options.time_limit, told)
    lines = [f"{item.name:24} {item.done} of {engine.relaxations} relaxations  {item.reason or ''}" for item in runs]
    next_step = f"python -m crystens.candidates parse {options.folder} reads them back"
    return "\n".join([*(line.rstrip() for line in lines), next_step, ""])


def _parse(options: argparse.Namespace, potential: Potential | None) -> str:
    """Read the results of the runs in a folder, and return the text to print."""
    rows = parse_runs(options.folder, engine_of(options.folder, options.dft))
    lines = []
    for row in rows:
        energy = "" if row["energy_per_atom"] is None else f"{row['energy_per_atom']:.4f} eV/atom"
        lines.append(f"{row['name']:24} {row['run']:8} {row['status']:12} {energy}{row['reason'] or ''}")
        if row["flags"] and row["status"] == FINISHED:
            lines[-1] += f"  ! {row['flags']}"
    return "\n".join([*lines, f"{options.folder / 'dft.csv'} and candidates.csv hold it all", ""])


def _told(selection: Selection, out: Path) -> str:
    """Return the candidates, and the numbers of excluded samples, as lines of text."""
    lines = [f"{len(selection.candidates)} candidates of {len(selection.candidates) + len(selection.excluded)} samples"]
    lines += [f"  {count} excluded: {reason}" for reason, count in exclusion_counts(selection.excluded).items()]
    for candidate in selection.candidates:
        before, after = candidate.ranked.crystal.formula, candidate.cleaned.crystal.formula
        formula = after if before == after else f"{before} -> {after}"
        told = candidate.relaxations.reason or _energy(candidate.place)
        told += "" if candidate.relaxations.converged or candidate.relaxations.reason else "; not at rest yet"
        same = "" if candidate.known is None else f"; the same as {candidate.known}"
        lines.append(f"{candidate.rank:3} {formula:28} {candidate.cleaned.charge:12} {told}{same}")
    if selection.relaxed_reference is not None and selection.relaxed_reference.note:
        lines.append(selection.relaxed_reference.note)
    return "\n".join([*lines, f"{out / 'candidates.csv'}, candidates.png and candidates/ hold it all", ""])


def _energy(place: HullDistance) -> str:
    """Return formation energy or energy above hull of a relaxed crystal, in words."""
    if place.above_hull is None:
        return f"unknown ({place.reason})"
    if place.only_elements:
        return f"{place.formation_energy:.3f} eV/atom against its elements; no compound of them in the reference"
    return f"{place.above_hull:.3f} eV/atom above the hull"


def _plain(value: Any) -> Any:
    """Return an option as JSON holds it."""
    return None if value == math.inf else value


def _parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=form)
    commands = parser.add_subparsers(dest="command", required=True)
    told = "choose, clean and relax candidates, and write inputs for DFT"
    chosen = commands.add_parser("select", help=told, description=told)
    chosen.set_defaults(run=_select)
    chosen.add_argument("samples", metavar="SAMPLES", help="folder that sample.py wrote, or any source of crystals")
    chosen.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder of the results")
    chosen.add_argument("--kind", choices=sorted(KINDS), help="kind of SAMPLES; by default guessed from its name")
    chosen.add_argument("--split", choices=SPLITS, help="only this part of SAMPLES, where it has splits")
    chosen.add_argument("--number", type=int, default=20, help="number of candidates; by default 20")
    hull = "largest energy above hull of a candidate as generated, eV/atom; by default any"
    chosen.add_argument("--max-hull", type=float, default=math.inf, help=hull)
    chosen.add_argument("--reference", metavar="SOURCE", help="real crystals for the hull, by the same potential")
    entries = "energies of the hull: pymatgen entries (.json), or formula and energy_per_atom (.csv)"
    chosen.add_argument("--entries", metavar="FILE", help=entries)
    chosen.add_argument("--scale", default=MP2020, help=f"scale of the energies in that file; by default {MP2020}")
    formation = "formation energies of the hull, elements at 0, see python -m crystens.sun --help"
    chosen.add_argument("--hull-energies", metavar="FILE", help=formation)
    chosen.add_argument("--column", default=COLUMN, help=f"column of --hull-energies, eV/atom; by default {COLUMN}")
    order = "by default above_hull with a reference, else formation_energy"
    chosen.add_argument("--rank-by", choices=ORDERS, help=order)
    cleaning = CleaningOptions()
    states = "smact's list of oxidation states; by default smact14"
    chosen.add_argument("--oxidation-states", choices=OXIDATION_STATES, default="smact14", help=states)
    shift = "largest change in atomic number when an element is replaced; by default 2; 0 replaces none"
    chosen.add_argument("--max-shift", type=int, default=cleaning.max_shift, help=shift)
    within = "tolerance for the generated space group, angstrom; by default 0.3"
    chosen.add_argument("--generated-tolerance", type=float, default=cleaning.generated_tolerance, help=within)
    within = "tolerance for any other space group, angstrom; by default 0.01"
    chosen.add_argument("--found-tolerance", type=float, default=cleaning.found_tolerance, help=within)
    chosen.add_argument("--relaxations", type=int, default=RUNS, help=f"successive relaxations; by default {RUNS}")
    chosen.add_argument("--steps", type=int, default=200, help="steps of one relaxation at most; by default 200")
    chosen.add_argument("--force", type=float, default=0.05, help="convergence, eV/angstrom; by default 0.05")
    _add_dft(chosen, VASP.name, "code whose inputs are written; by default vasp")
    start = "crystal that DFT begins with; by default the relaxed one"
    chosen.add_argument("--start", choices=("relaxed", "cleaned"), default="relaxed", help=start)
    chosen.add_argument("--title", default="", help="title of the picture")
    chosen.add_argument("--weights", default="0.3.0", help="weights of CHGNet; by default 0.3.0")
    chosen.add_argument("--workers", type=int, default=1, help="processes of one thread; by default 1; 0: this one")
    add_engine(chosen)
    limit = "for one energy or relaxation, seconds of processor time; by default 600"
    chosen.add_argument("--time-limit", type=float, default=600.0, help=limit)
    chosen.add_argument("--cache", metavar="DIR", help="folder of cached energies; by default in ~/.cache/crystens")
    told = "download the Materials Project's energies of all phases of the samples' elements (key in MP_API_KEY)"
    fetched = commands.add_parser("entries", help=told, description=told)
    fetched.set_defaults(run=_entries)
    fetched.add_argument("samples", metavar="SAMPLES", help="folder that sample.py wrote, or any source of crystals")
    fetched.add_argument("--out", metavar="FILE", type=Path, required=True, help="a .json file")
    fetched.add_argument("--kind", choices=sorted(KINDS), help="kind of SAMPLES; by default guessed from its name")
    fetched.add_argument("--split", choices=SPLITS, help="only this part of SAMPLES, where it has splits")
    told = "run the inputs of all candidates on this machine; run it again to resume after an interruption"
    ran = commands.add_parser("run", help=told, description=told)
    ran.set_defaults(run=_run)
    ran.add_argument("folder", metavar="DIR", type=Path, help="folder that select wrote")
    ran.add_argument("--jobs", type=int, default=1, help="candidates at a time; by default 1")
    limit = "limit for all relaxations of one candidate, seconds of wall time; by default 3600"
    ran.add_argument("--time-limit", type=float, default=3600.0, help=limit)
    ran.add_argument("--without", metavar="NAME", nargs="+", default=[], help="candidates to leave out")
    _add_dft(ran, None, "code whose inputs are run; by default the only one there")
    told = "read the results of all candidates into dft.csv and candidates.csv"
    parsed = commands.add_parser("parse", help=told, description=told)
    parsed.set_defaults(run=_parse)
    parsed.add_argument("folder", metavar="DIR", type=Path, help="folder that select wrote")
    _add_dft(parsed, None, "code whose runs are read; by default the only one there")
    return parser


def _add_dft(parser: argparse.ArgumentParser, default: str | None, told: str) -> None:
    """Add the option --dft to a command."""
    parser.add_argument("--dft", choices=sorted(DFT_ENGINES), default=default, help=told)


if __name__ == "__main__":
    sys.exit(main())
