"""Real crystals, before a model sees them.

summary SOURCE --out DIR    contents of a source as text and picture, and its rejects with reasons
leaks SOURCE --out DIR      crystals of val and test that are in train too
ingest SOURCE --out DIR     read a source into a store for data=store, in one job or many
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from crystens.data.splits import entry_key, split_indices
from crystens.errors import CrystensError
from crystens.ingest.asked_properties import check_found
from crystens.ingest.ingest import DUPLICATES, IngestOptions, ingest_shard, open_store
from crystens.ingest.kinds import KINDS, open_source
from crystens.ingest.store import CrystalStore
from crystens.processes.atomic_file import write_whole
from crystens.processes.command import run_command
from crystens.processes.engines import add_engine, engine_running
from crystens.processes.progress_bars import ProgressBars
from crystens.sources.limits import GROUPS, OCCUPANCIES, SITE_ORDERS, Limits
from crystens.sources.rejects import describe
from crystens.sources.source import Source
from crystens.survey.columns import Census
from crystens.survey.figure import draw
from crystens.survey.leaks import leak_report, write_leaks
from crystens.survey.text import summarise
from crystens.symmetry.space_groups import CELLS

_NUMBERS = {
    "min_distance": "angstrom",
    "max_length": "angstrom",
    "max_volume_per_site": "cubic angstrom",
    "merge_distance": "angstrom",
    "symprec": "angstrom",
    "shift": "of a cell's edges",
}

Command = Callable[[Source, Limits, IngestOptions, argparse.Namespace], str]


def main(arguments: Sequence[str] | None = None, prog: str = "python -m crystens.data") -> int:
    """Run the command line and return its exit status; `prog` is how the command was called."""
    options = _parser(prog).parse_args(arguments)
    return run_command(lambda: _run(options))


def _run(options: argparse.Namespace) -> str:
    """Open the source, run the command on it, and return its text."""
    limits = Limits(
        options.max_sites,
        **{option: getattr(options, option) for option in _NUMBERS},
        cell=options.cell,
        occupancy=options.occupancy,
        groups=options.groups,
        site_order=options.site_order,
    )
    ingest = IngestOptions(options.workers, options.time_limit, options.duplicates, options.cache)
    command: Command = options.run
    source = open_source(options.source, options.kind)
    return command(source.keeping(options.properties) if options.properties else source, limits, ingest, options)


def _summary(source: Source, limits: Limits, ingest: IngestOptions, options: argparse.Namespace) -> str:
    """Write summary.txt, summary.png and rejected.csv, and return the text."""
    store = open_store(source, limits, ingest, options.out / "rejected.csv")
    census = Census.from_store(store)
    text = summarise(census)
    try:
        write_whole(options.out / "summary.txt", text)
        draw(census, options.out / "summary.png")
    except OSError as error:
        raise CrystensError(f"cannot write to {options.out}: {error.strerror}; choose another folder") from error
    rejected = f"reasons and advice, one by one: {options.out / 'rejected.csv'}\n" if store.num_rejects else ""
    return f"{text}\npicture: {options.out / 'summary.png'}\n{rejected}"


def _leaks(source: Source, limits: Limits, ingest: IngestOptions, options: argparse.Namespace) -> str:
    """Write leaks.csv, leaks.txt and rejected.csv, and return the text."""
    store = open_store(source, limits, ingest, options.out / "rejected.csv")
    splits = store.column("split")
    if options.split != "auto" or not any(splits):
        keys = list(map(entry_key, store.column("file"), store.column("entry")))
        places = split_indices(keys, splits, options.split, options.split_fractions, options.split_seed)
        splits = [None] * len(store)
        for name, rows in places.items():
            for row in rows:
                splits[row] = name
    with ProgressBars() as bars, engine_running(options.engine):
        report = leak_report(
            store,
            splits,
            None if options.exhaustive else options.candidates,
            max(ingest.num_workers, 1),
            lambda count: bars("comparisons", count, None),
            engine=options.engine,
        )
    text = f"{source}\n{report.describe()}\n"
    path = write_leaks(report.leaks, store.column("file"), store.column("entry"), options.out / "leaks.csv")
    write_whole(options.out / "leaks.txt", text)
    return f"{text}which ones: {path}\n"


def _ingest(source: Source, limits: Limits, ingest: IngestOptions, options: argparse.Namespace) -> str:
    """Make one shard of a store, or all shards on a cluster, and return the numbers of crystals as text."""
    if options.engine is not None:
        folder = _ingest_on_ray(source, limits, ingest, options)
    elif options.shards is not None:
        raise CrystensError(
            f"--shards {options.shards} needs an engine: add --engine ray; without an engine, give "
            f"--shard K/{options.shards} to each job of an array"
        )
    else:
        folder = ingest_shard(source, limits, ingest, options.out, *(options.shard or (0, 1)))
    store = CrystalStore.open(folder)
    if options.shard is None:
        check_found(source, store)
    told = describe(len(store), store.reject_counts)
    return f"{folder}: {told}; {store.nbytes / max(len(store), 1):.0f} bytes a crystal\n"


def _ingest_on_ray(source: Source, limits: Limits, ingest: IngestOptions, options: argparse.Namespace) -> Path:
    """Make all shards of a store on Ray, and return its folder."""
    from crystens.ingest.on_ray import ingest_on_ray

    if options.shard is not None:
        raise CrystensError("--engine ray makes all shards; give --shards N instead of --shard K/N")
    shards = options.shards or 1
    with ProgressBars() as bars:
        bars("shards", 0, shards)
        ingest_on_ray(source, limits, ingest, options.out, shards, lambda ended: bars("shards", ended, shards))
    return Path(options.out)


def _parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=form)
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, run: Command, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        sub.add_argument("source", metavar="SOURCE", help="folder, archive or file of crystals, or the word prototypes")
        sub.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder of the results")
        sub.add_argument("--kind", choices=sorted(KINDS), help="kind of SOURCE; by default guessed from its name")
        text = "properties of the source that crystals keep, such as band_gap"
        sub.add_argument("--properties", metavar="NAME", nargs="+", help=text)
        sub.add_argument("--max-sites", type=int, help="set aside crystals with more sites; by default no limit")
        sub.add_argument("--cell", choices=CELLS, default="given", help="cell of the kept crystals")
        sub.add_argument(
            "--occupancy", choices=OCCUPANCIES, default="reject", help="how to treat partly occupied sites"
        )
        sub.add_argument(
            "--groups", choices=GROUPS, default="reject", help="treatment of OH as one site, without a site for H"
        )
        sub.add_argument("--site-order", choices=SITE_ORDERS, default="canonical", help="order of sites")
        for option, unit in _NUMBERS.items():
            value = getattr(Limits(), option)
            text = f"as data.limits.{option}, {unit}; by default {value:g}"
            sub.add_argument(f"--{option.replace('_', '-')}", type=float, default=value, help=text)
        sub.add_argument("--duplicates", choices=DUPLICATES, default="keep", help="treatment of duplicates")
        sub.add_argument(
            "--workers", type=_workers, default="auto", help="processes; auto: one for each core; 0: this process"
        )
        sub.add_argument("--time-limit", type=float, default=30.0, help="seconds for one input; by default 30")
        sub.add_argument("--cache", metavar="DIR", help="folder of the stores; by default ~/.cache/crystens")
        return sub

    command("summary", _summary, "show the contents of a source as text and picture")
    leaks = command("leaks", _leaks, "find crystals of val and test that are in train too")
    leaks.add_argument("--candidates", type=int, default=8, help="most similar crystals to compare each crystal with")
    leaks.add_argument("--exhaustive", action="store_true", help="compare all crystals that could match")
    leaks.add_argument("--split", choices=("auto", "given", "random"), default="auto", help="as data.split")
    leaks.add_argument("--split-seed", type=int, default=0, help="as data.split_seed")
    leaks.add_argument("--split-fractions", type=float, nargs=3, default=(0.9, 0.05, 0.05), help="train, val, test")
    add_engine(leaks)
    ingest = command("ingest", _ingest, "read a source into a store")
    text = "make shard K (0 to N-1) of N; inputs are distributed in chunks of 256"
    parts = ingest.add_mutually_exclusive_group()
    parts.add_argument("--shard", metavar="K/N", type=_shard, help=text)
    parts.add_argument("--shards", metavar="N", type=_count, help="make all N shards, with --engine")
    text = "run the shards on Ray, at RAY_ADDRESS or on this machine; pip install 'crystens[ray]'"
    ingest.add_argument("--engine", choices=("ray",), help=text)
    return parser


def _shard(text: str) -> tuple[int, int]:
    """Return the two numbers of "3/16"."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or not int(found[1]) < int(found[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not K/N with 0 <= K < N, such as 3/16")
    return int(found[1]), int(found[2])


def _count(text: str) -> int:
    """Return a number of at least 1."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def _workers(text: str) -> int | str:
    """Return a number of workers, or auto."""
    return int(text) if text.isdecimal() else text


if __name__ == "__main__":
    sys.exit(main())
