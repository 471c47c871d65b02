"""`python -m crystens.sun SOURCE --out DIR --novel-against TRAIN`: stable, unique and novel samples of any generator.

The command writes `crystals.csv`, one row for each sample with its flags and group, and `metrics.json` with the rates.
The same command resumes an interrupted run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from crystens.crystal import Crystal
from crystens.energies.energies import EnergyOptions
from crystens.energies.formation_energies import COLUMN, read_formation_energies
from crystens.energies.known_crystals import WHOLE, KnownCrystals, read_known
from crystens.energies.potentials import MP2020, CHGNet, Potential
from crystens.energies.references import HullSource, reference_of
from crystens.energies.relaxation import Relaxation
from crystens.errors import CrystensError
from crystens.ingest.generated import is_sample_folder, read_generated
from crystens.ingest.kinds import KINDS
from crystens.ingest.sample_folder import SampleFolder
from crystens.matching.known_search import KnownSearch
from crystens.matching.unique_pool import MATCHER
from crystens.metrics.crystal_table import CrystalTable
from crystens.metrics.entries import Metrics
from crystens.metrics.metrics_file import write_metrics
from crystens.processes.atomic_file import write_whole
from crystens.processes.command import run_command
from crystens.processes.engines import add_engine, engine_running
from crystens.processes.progress_bars import ProgressBars
from crystens.processes.result_cache import digest_of
from crystens.sources.record import SPLITS, Entry, Reject
from crystens.sun.judge import Stability, judge
from crystens.sun.rates import rates
from crystens.sun.rows import COLUMNS, STATES

_NOTHING = "none"
_FORMAT = 4  # format of the rows; raise it when the meaning of rows or options changes


def main(
    arguments: Sequence[str] | None = None, potential: Potential | None = None, prog: str = "python -m crystens.sun"
) -> int:
    """Run the command line and return its exit status.

    Args:
        arguments: arguments of the command line; None takes those of this process.
        potential: potential for energies; None takes CHGNet with the requested weights.
        prog: name of the command, for help.
    """
    options = _parser(prog).parse_args(arguments)
    return run_command(lambda: _rated(options, potential))


def _rated(options: argparse.Namespace, potential: Potential | None) -> str:
    """Judge the samples, and return the metrics as lines of text."""
    with ProgressBars() as bars, engine_running(options.engine):
        metrics = _judged(options, potential, bars)
    return _told(metrics, options.out)


def _judged(options: argparse.Namespace, potential: Potential | None, bars: ProgressBars) -> Metrics:
    """Judge the samples, write the results, and return the metrics."""
    if options.number < 0 or options.seed < 0:
        raise CrystensError(f"--number {options.number} and --seed {options.seed} must be at least 0")
    if options.out.resolve() == Path(options.source).resolve():
        raise CrystensError(f"--out {options.out} is the folder of SOURCE; choose another folder")
    how = EnergyOptions(
        workers=options.workers, time_limit=options.time_limit, cache=options.cache, engine=options.engine
    )
    relaxation = Relaxation(steps=options.steps, force=options.force)
    hulls = ("hull_reference", "hull_entries", "hull_energies")
    given = [f"--{name.replace('_', '-')}" for name in hulls if getattr(options, name) is not None]
    if len(given) > 1:
        raise CrystensError(f"{' and '.join(given)} are {len(given)} hulls; give one of them")
    if options.hull_reference == _NOTHING and options.relax:
        raise CrystensError(f"--relax judges stability, which --hull-reference {_NOTHING} leaves out; drop one of them")
    bars("reading", 0, None)
    samples = list(enumerate(read_generated(options.source, options.kind, options.source_split)))
    if options.number:
        drawn = np.random.default_rng(options.seed).permutation(len(samples))[: options.number]
        samples = [samples[place] for place in sorted(drawn.tolist())]
    known = read_known(options.novel_against, options.split)
    bars("reading", len(samples), len(samples))
    stability = None
    if options.hull_reference != _NOTHING:
        crystals = [item.crystal for _, item in samples if isinstance(item, Entry)]
        stability = _stability(options, potential, how, relaxation if options.relax else None, crystals, known, bars)
    folder = Path(options.source)
    merged = SampleFolder(folder).merged() if options.kind is None and is_sample_folder(folder) else frozenset()
    settings = _settings(samples, known, stability, merged)
    _check_settings(options.out, settings)
    table = CrystalTable(options.out / "crystals.csv", COLUMNS)
    search = KnownSearch(known.crystals, options.workers, options.engine)
    told = partial(bars, "judging")
    rows = judge(samples, known, table, stability, lambda done: told(done, len(samples)), merged, search)
    about = {"source": options.source, "source_split": options.source_split, "number": options.number or None}
    metrics = rates(rows, known, stability, about | {"seed": options.seed})
    write_metrics(options.out / "metrics.json", metrics)
    return metrics


def _stability(
    options: argparse.Namespace,
    potential: Potential | None,
    how: EnergyOptions,
    relaxation: Relaxation | None,
    crystals: Sequence[Crystal],
    known: KnownCrystals,
    bars: ProgressBars,
) -> Stability:
    """Return the settings of stability: the potential and the hulls."""
    try:
        potential = CHGNet(options.weights) if potential is None else potential
    except CrystensError as error:
        raise CrystensError(f"{error}; or leave stability out: --hull-reference {_NOTHING}") from error
    source = HullSource(options.hull_entries, options.scale)
    if options.hull_energies is not None:
        source = HullSource(formation=read_formation_energies(options.hull_energies, options.column))
    elif options.hull_entries is None:
        source = HullSource(known=known if options.hull_reference is None else read_known(options.hull_reference))
    bars("hull", 0, None)
    reference = relaxed = reference_of(crystals, potential, how, source, partial(bars, "hull"))
    if relaxation is None:
        return Stability(potential, reference, how)
    if source.known is not None:
        bars("relaxed hull", 0, None)
        relaxing = replace(how, relaxation=relaxation)
        relaxed = reference_of(crystals, potential, relaxing, source, partial(bars, "relaxed hull"))
    return Stability(potential, reference, how, relaxation, relaxed)


def _settings(
    samples: Sequence[tuple[int, Entry | Reject]],
    known: KnownCrystals,
    stability: Stability | None,
    merged: frozenset[int],
) -> dict[str, Any]:
    """Return everything that the rows depend on, by names for messages."""
    told = [
        f"{index} {digest_of(item.crystal)} {index in merged}"
        if isinstance(item, Entry)
        else f"{index} {item.file} {item.entry} {item.reason}"
        for index, item in samples
    ]
    settings: dict[str, Any] = {"format": _FORMAT, "samples": _digest(told), "matcher": MATCHER}
    settings["novel-against"] = _digest(_digests(known.crystals))
    if stability is not None:
        settings |= {"potential": stability.potential.identity, "relax": repr(stability.relaxation)}
        for state in STATES[: 1 if stability.relaxation is None else 2]:
            hull = stability.hull(state)
            entries = [f"{entry.composition.formula} {entry.energy!r}" for entry in hull.entries]
            settings[f"{state}hull"] = _digest([*entries, repr(hull.element_energies)])
    return settings


def _digests(crystals: Iterable[Crystal]) -> Iterable[str]:
    """Yield a digest of each crystal."""
    return (digest_of(crystal) for crystal in crystals)


def _digest(texts: Iterable[str]) -> str:
    """Return a digest of texts."""
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        digest.update(f"{text}\n".encode())
    return digest.hexdigest()


def _check_settings(out: Path, settings: dict[str, Any]) -> None:
    """Write the settings into the folder of results; raise if it holds results with other settings."""
    path = out / "settings.json"
    try:
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            other = sorted(name for name in {*found, *settings} if found.get(name) != settings.get(name))
            if other:
                raise CrystensError(
                    f"{out} holds results with other {', '.join(other)}; choose another folder, or delete it"
                )
        elif (out / "crystals.csv").exists():
            raise CrystensError(f"{out} holds a crystals.csv of another command; choose another folder")
        write_whole(path, json.dumps(settings, indent=2) + "\n")
    except OSError as error:
        raise CrystensError(f"cannot write {path}: {error.strerror}; choose another folder") from error
    except ValueError as error:
        raise CrystensError(f"{path} is damaged: {error}; delete {out}, or choose another folder") from error


def _told(metrics: Metrics, out: Path) -> str:
    """Return the metrics as lines of text."""
    lines = []
    for name, entry in metrics.items():
        if not isinstance(entry["value"], int | float):
            continue
        unit = entry["unit"] if entry["unit"] != "1" else ""
        value = entry["value"] if isinstance(entry["value"], int) else f"{entry['value']:.4g}"
        line = f"{name:36} {value:<10} {unit}".rstrip()
        if entry.get("unknown"):
            line += f"  ({entry['unknown']} of {entry['count']} unknown)"
        if entry.get("reasons"):
            line += "  " + ", ".join(f"{count} {reason}" for reason, count in entry["reasons"].items())
        lines.append(line)
        lines += [f"    {entry['note']}"] if entry.get("note") else []
    doubts = dict.fromkeys(entry["statement"] for entry in metrics.values() if entry.get("statement"))
    lines += [f"warning: {doubt}" for doubt in doubts]
    return "\n".join([*lines, f"{out / 'metrics.json'} and crystals.csv hold it all", ""])


def _parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=form)
    parser.add_argument("source", metavar="SOURCE", help="folder that sample.py wrote, or any source of crystals")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder of the results")
    against = "real crystals: a novel sample is the same as none of them; they also form the hull, unless one is given"
    parser.add_argument("--novel-against", metavar="SOURCE", required=True, help=against)
    split = f"split of --novel-against, or {WHOLE}; by default train if it has splits, otherwise {WHOLE}"
    parser.add_argument("--split", choices=(*SPLITS, WHOLE), help=split)
    hull = (
        f"other real crystals (their split train) for the hull, with the elements, all by the potential; "
        f"{_NOTHING} leaves stability out"
    )
    parser.add_argument("--hull-reference", metavar="SOURCE", help=hull)
    entries = "energies of the hull: pymatgen entries (.json), or formula and energy_per_atom (.csv)"
    parser.add_argument("--hull-entries", metavar="FILE", help=entries)
    parser.add_argument("--scale", default=MP2020, help=f"scale of the energies in that file; by default {MP2020}")
    formation = (
        "formation energies of the hull, elements at 0: a table with the columns formula and --column, or any source "
        "of crystals with the property --column, such as the folder of mp_52 (its split train). CHGNet's energies are "
        "converted to formation energies with CHGNet's energies of the elements"
    )
    parser.add_argument("--hull-energies", metavar="FILE", help=formation)
    parser.add_argument("--column", default=COLUMN, help=f"column of --hull-energies, eV/atom; by default {COLUMN}")
    parser.add_argument("--relax", action="store_true", help="judge relaxed crystals too, against relaxed ones")
    parser.add_argument("--steps", type=int, default=200, help="largest number of relaxation steps; by default 200")
    parser.add_argument("--force", type=float, default=0.05, help="convergence, eV/angstrom; by default 0.05")
    parser.add_argument("--kind", choices=sorted(KINDS), help="kind of SOURCE; by default guessed from its name")
    parser.add_argument("--source-split", choices=SPLITS, help="only this part of SOURCE, where it has splits")
    parser.add_argument("--number", type=int, default=0, help="judge only so many samples; by default all")
    parser.add_argument("--seed", type=int, default=0, help="seed of --number; by default 0")
    parser.add_argument("--weights", default="0.3.0", help="weights of CHGNet; by default 0.3.0")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread; by default 1; 0: this one")
    add_engine(parser)
    limit = "limit for one energy or relaxation, seconds of processor time; by default 600"
    parser.add_argument("--time-limit", type=float, default=600.0, help=limit)
    parser.add_argument("--cache", metavar="DIR", help="folder of cached energies; by default in ~/.cache/crystens")
    return parser


if __name__ == "__main__":
    sys.exit(main())
