"""`python -m crystens.evaluate SOURCE --out DIR`: judges the crystals of any generator.

Crystals are read in the form of their files, see `crystens.ingest.generated`. In a folder of sample.py failed samples
count as failed.

The command writes `crystals.csv`, `metrics.json` and `report.html`, like sample.py, and `by_num_sites.csv`. Statistics
of CrysTens images do not apply to files. Options add more columns and metrics:

- `--protocol cdvae`: the CDVAE protocol (`crystens.protocol.cdvae_protocol`). `--energy-model` adds the distance of
  energy per atom (`crystens.protocol.energy_distance`).
- `--protocol csp`: k structure predictions for each real crystal (`crystens.protocol.csp_protocol`), assigned by
  `crystens.protocol.answers`.
- `--properties cgcnn`: eight properties predicted by CGCNN (`crystens.properties.property_metrics`).

Fingerprints, energies and properties are cached, so that the same command resumes after an interruption.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from crystens.asking.question import composition_asked
from crystens.chemistry.formulas import ReducedComposition
from crystens.crystal import Crystal
from crystens.energies.energies import EnergyOptions
from crystens.energies.potentials import SHIPPED, Potential, shipped
from crystens.errors import CrystensError
from crystens.formats.cdvae_result import CdvaeResult
from crystens.ingest.generated import JudgingLimits, is_sample_folder, open_generated
from crystens.ingest.sample_folder import SampleFolder
from crystens.metrics.by_num_sites import by_num_sites, write_by_num_sites
from crystens.metrics.crystal_table import CRYSTAL_COLUMNS, MET_COLUMNS, CrystalTable, Row, crystal_row, failed_row
from crystens.metrics.distributions import Reference
from crystens.metrics.entries import Metrics
from crystens.metrics.metrics_file import summarise, write_metrics
from crystens.metrics.verdicts import verdict
from crystens.processes.command import run_command
from crystens.processes.cores import usable_cores
from crystens.processes.cost_estimate import CostEstimate, Show
from crystens.processes.engines import add_engine, engine_running
from crystens.processes.progress_bars import ProgressBars
from crystens.properties.cgcnn import load_networks
from crystens.properties.properties import PropertyOptions
from crystens.properties.property_metrics import COLUMNS as PROPERTY_COLUMNS
from crystens.properties.property_metrics import PropertyMetrics
from crystens.protocol.answers import ORDERS
from crystens.protocol.cdvae_protocol import CUTOFFS, CdvaeProtocol, ProtocolOptions
from crystens.protocol.composition_validity import OXIDATION_STATES
from crystens.protocol.csp_protocol import MOST_PAIRS, CspOptions, CspProtocol
from crystens.protocol.csp_tables import csp_tables
from crystens.protocol.energy_distance import EnergyDistance
from crystens.protocol.fingerprinting import FingerprintOptions
from crystens.protocol.judgement import Judge, Stages, stage
from crystens.report.page import NUM_BEST, NUM_PICTURES, write_report
from crystens.samples.references import DATA_SETS, drawn, read_real, read_reference
from crystens.sources.record import SPLITS, Reject
from crystens.sources.source import Source

_RESULTS = ("metrics.json", "report.html", "by_num_sites.csv")  # beside crystals.csv
_CHUNK = 100  # rows written at a time

# Advice for stages that take long, by their names; "its" stages are those of the reference.
_FEWER = "--reference-number N computes those of N real crystals, drawn by --seed"
_ADVICE = dict.fromkeys(("its fingerprints", "its energies", "its properties"), _FEWER)
_ADVICE |= dict.fromkeys(("fingerprints", "energies", "properties"), "")


def evaluate(
    source: Source,
    out: str | Path,
    reference: Reference | None = None,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
    protocol: Judge | None = None,
    stages: Stages | None = None,
    properties: PropertyMetrics | None = None,
) -> Metrics:
    """Judge all crystals of a source, and write crystals.csv, metrics.json, by_num_sites.csv and report.html.

    Samples of sample.py in which decoding merged sites are not structurally valid, though their CIFs are.

    Args:
        source: source of the crystals, such as `CifFolder(path)`.
        out: folder of the results; created if it does not exist.
        reference: real crystals to compare with; None for no comparison.
        seed: seed of the choice of crystals in pictures.
        progress: called with the number of entries judged so far.
        protocol: a protocol with its real crystals; None for none. It holds all crystals in memory.
        stages: called with the name of a stage of protocol and properties, the number of finished crystals, and the
            total.
        properties: CGCNN's properties, with those of the real crystals; None for none. They hold all crystals in
            memory.

    Raises:
        CrystensError: if the source has no entry, cannot be read, or does not fit the references (earlier results are
            then kept); if the results cannot be written.
    """
    out = Path(out)
    items = source.read(JudgingLimits())
    first = next(items, None)
    if first is None:
        raise CrystensError(f"no sample in {source}")
    items = itertools.chain([first], items)
    asked = _met(source)
    if isinstance(protocol, CspProtocol):
        given = list(items)
        if not isinstance(source, SampleFolder) and protocol.options.order != "composition":
            _check_names([item.file for item in given])
        protocol.check([None if isinstance(item, Reject) else item.crystal for item in given])
        items = iter(given)
    columns = CRYSTAL_COLUMNS + (MET_COLUMNS if asked else ())
    columns += (protocol.columns if protocol else ()) + (PROPERTY_COLUMNS if properties else ())
    table = CrystalTable(out / "crystals.csv", columns)
    with _writing(out):
        for name in _RESULTS:  # delete earlier results: after an interruption they would not fit the new table
            (out / name).unlink(missing_ok=True)
        table.keep(0)
    chosen, best = _Reservoir(NUM_PICTURES, seed), _Best(NUM_BEST)
    waiting: list[Row] = []
    crystals: dict[int, Crystal] = {}
    streamed = protocol is None and properties is None
    merged = source.merged() if isinstance(source, SampleFolder) else frozenset()
    for index, item in enumerate(items):
        if isinstance(item, Reject):
            row = failed_row(index, item.reason, item.file, item.entry)
        else:
            row = crystal_row(
                index,
                item.crystal,
                item.file,
                item.entry,
                stated=item.stated_space_group,
                merged=index in merged,
                reference=reference,
            )
            chosen.offer(index, item.crystal)
            best.offer(index, item.crystal, row["plausibility"])
            if not streamed:
                crystals[index] = item.crystal
        waiting.append(row | asked[index] if asked else row)
        if len(waiting) == _CHUNK and streamed:
            table.append(waiting)
            waiting = []
        if progress is not None:
            progress(index + 1)
    about: dict[str, Any] = {"source": str(source), "seed": seed, "invalid_for_merged_sites": len(merged)}
    judged = None
    if protocol is not None:
        judged = protocol.judge(waiting, crystals, stages)
        waiting, about = judged.rows, about | judged.about
    if properties is not None:
        waiting = properties.measured(waiting, crystals, stage(stages, "properties", len(crystals)))
        about |= properties.about()
    table.append(waiting)
    rows = table.rows()
    with _writing(out):
        table.sort()
    metrics = summarise(rows, reference, about=about)
    if properties is not None:
        metrics |= properties.metrics(rows)
    with _writing(out):
        if judged is not None:
            metrics |= judged.metrics
        metrics |= verdict(metrics, reference)
        by_size = by_num_sites(rows, reference, [] if judged is None else judged.by_num_sites)
        write_by_num_sites(out / "by_num_sites.csv", by_size)
        write_metrics(out / "metrics.json", metrics)
    write_report(
        out / "report.html",
        metrics,
        rows,
        title=f"Crystals judged: {source}",
        statement=[
            "These crystals were read from files. How they were made is not known here, and the statistics of CrysTens "
            "images do not apply to them.",
        ],
        reference=reference,
        crystals=chosen.kept | best.kept,
        best=best.kept,
        properties=properties,
        tables=csp_tables(metrics),
    )
    return metrics


def _met(source: Source) -> list[Row]:
    """Return the `MET_COLUMNS` in the table of a folder of samples under conditions."""
    told = source.table() if isinstance(source, SampleFolder) else []
    if not told or "asked" not in told[0]:
        return []
    truths = {"true": True, "false": False}
    return [
        {"asked": row["asked"] or None, **{name: truths.get(row.get(name, "")) for name in MET_COLUMNS[1:]}}
        for row in told
    ]


def _check_names(files: Sequence[str]) -> None:
    """Raise a CrystensError if sorting files by name differs from sorting by the numbers in their names."""

    def by_numbers(name: str) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]

    numbered = sorted(files, key=by_numbers)
    if list(files) == sorted(files) != numbered:
        place = next(place for place, name in enumerate(files) if name != numbered[place])
        raise CrystensError(
            f"{files[place]} is read where {numbered[place]} stands by its number, so that samples would answer other "
            "crystals: write numbers of one length, such as 0002.cif and 0010.cif, or give --order composition"
        )


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Convert errors of writing results into a CrystensError."""
    try:
        yield
    except OSError as error:
        raise CrystensError(f"cannot write to {out}: {error.strerror}; choose another folder, or make room") from error


class _Reservoir:
    """A random subset of a stream of crystals (Vitter's algorithm R, 1985)."""

    def __init__(self, size: int, seed: int) -> None:
        self.kept: dict[int, Crystal] = {}
        self._size = size
        self._random = random.Random(seed)
        self._seen = 0

    def offer(self, index: int, crystal: Crystal) -> None:
        """Keep a crystal, perhaps in place of another."""
        self._seen += 1
        if len(self.kept) == self._size:
            place = self._random.randrange(self._seen)
            if place >= self._size:
                return
            del self.kept[list(self.kept)[place]]
        self.kept[index] = crystal


class _Best:
    """The most plausible crystals of a stream; ties go to the first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: list[tuple[float, int, Crystal]] = []

    @property
    def kept(self) -> dict[int, Crystal]:
        """The crystals by index, the most plausible first."""
        return {index: crystal for _, index, crystal in self._kept}

    def offer(self, index: int, crystal: Crystal, plausibility: float) -> None:
        """Keep a crystal, perhaps in place of another."""
        self._kept.append((-plausibility, index, crystal))
        self._kept.sort(key=lambda item: item[:2])
        del self._kept[self._size :]


def _protocol_options(options: argparse.Namespace) -> ProtocolOptions:
    """Return the options of the protocol cdvae from those of the command line."""
    cutoffs = options.cutoffs or CUTOFFS.get(options.reference)
    if cutoffs is None:
        raise CrystensError(
            f"the protocol has cut-offs of {', '.join(CUTOFFS)} and none of {options.reference}: give --cutoffs "
            "STRUCTURE COMPOSITION, such as --cutoffs 0.4 10, those of mp_20"
        )
    return ProtocolOptions(
        cutoffs=tuple(cutoffs),
        oxidation_states=options.oxidation_states,
        seed=options.seed,
        fingerprints=FingerprintOptions(**_how(options)),
    )


def _how(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options of the computation of fingerprints and properties."""
    return {"workers": options.workers, "time_limit": options.time_limit, "engine": options.engine}


def main(arguments: Sequence[str] | None = None, prog: str = "python -m crystens.evaluate") -> int:
    """Run the command line and return its exit status; `prog` is how the command was called."""
    options = _parser(prog).parse_args(arguments)
    resumes = "run the same command again to resume"
    return run_command(lambda: _evaluated(options), resumes)


def _evaluated(options: argparse.Namespace) -> str:
    """Judge as the command line says, and return the metrics as lines of text."""
    with ProgressBars() as bars, engine_running(options.engine):
        metrics = _judged(options, CostEstimate(bars, _ADVICE))
    return _told(metrics, options.out)


def _judged(options: argparse.Namespace, bars: Show) -> Metrics:
    """Judge as the command line says, and return the metrics."""
    if options.reference is None and (options.data_path or options.split):
        raise CrystensError("--data-path and --split say what --reference is made of: give --reference NAME too")
    if options.reference_number is not None:
        if options.reference_number < 1:
            raise CrystensError(f"--reference-number must be at least 1, got {options.reference_number}")
        if options.reference is None or (options.protocol is None and options.properties is None):
            raise CrystensError(
                "--reference-number bounds the real crystals whose fingerprints, energies and properties are computed: "
                "give --reference NAME, and --protocol cdvae or --properties cgcnn"
            )
    _check_protocol(options)
    if options.seed < 0:
        raise CrystensError(f"--seed must be at least 0, got {options.seed}")
    if options.out.resolve() == Path(options.source).resolve():
        raise CrystensError(f"--out {options.out} is SOURCE, which would be overwritten; choose another folder")
    judging = _protocol_options(options) if options.protocol == "cdvae" else None
    potential = None if options.energy_model is None else shipped(options.energy_model)
    source = SampleFolder(options.source) if is_sample_folder(Path(options.source)) else open_generated(options.source)
    _check_holds_samples(source)
    reference = properties = None
    protocol: Judge | None = None
    split = options.split
    if options.properties is not None:
        load_networks()  # fail early if the package is missing
    if options.protocol == "csp":
        source, protocol = _csp(options, source, bars)
    if judging is not None:
        bars("reading the reference", 0, None)
        found, part = read_real(options.reference, options.data_path, split)
        bars("reading the reference", len(found), len(found))
        real = drawn(found, options.reference_number, options.seed)
        protocol = _protocol(real, _name(options, part, real, found), judging, potential, bars, len(found))
    if options.reference is not None:
        name = "reading the reference" if protocol is None else "its distributions"
        bars(name, 0, None)
        reference = read_reference(
            options.reference, options.data_path, split, progress=lambda done: bars(name, done, None)
        )
        bars(name, reference.count, reference.count)
    if options.properties is not None:
        properties = _properties(options, bars)
    return evaluate(
        source,
        options.out,
        reference,
        options.seed,
        lambda done: bars("judging", done, None),
        protocol,
        bars,
        properties,
    )


def _check_protocol(options: argparse.Namespace) -> None:
    """Raise a CrystensError for options that do not apply to the protocol."""
    if options.protocol is not None and options.reference is None:
        raise CrystensError(f"--protocol {options.protocol} compares with real crystals: give --reference NAME")
    if options.protocol != "cdvae" and options.energy_model is not None:
        raise CrystensError("--energy-model adds to what --protocol cdvae compares: give --protocol cdvae too")
    if options.protocol == "csp":
        if options.cutoffs is not None:
            raise CrystensError("--cutoffs are those of --protocol cdvae: leave them out")
        if options.first is not None and (options.first < 1 or options.reference_number is not None):
            raise CrystensError(
                f"--first {options.first} takes the first crystals of the reference, at least 1, and not together with "
                "--reference-number, which draws them"
            )
        return
    for name in ("each", "order", "first", "baseline", "most_pairs"):
        if getattr(options, name) not in (None, False):
            raise CrystensError(f"--{name.replace('_', '-')} belongs to --protocol csp: give that, or leave it out")


def _csp(options: argparse.Namespace, source: Source, bars: Show) -> tuple[Source, CspProtocol]:
    """Return the source in the form for structure prediction, and the protocol."""
    bars("reading the reference", 0, None)
    found, part = read_real(options.reference, options.data_path, options.split)
    bars("reading the reference", len(found), len(found))
    if options.first is not None and options.first > len(found):
        raise CrystensError(f"--first {options.first}: the reference has {len(found)} crystals")
    real = found[: options.first] if options.first else drawn(found, options.reference_number, options.seed)
    name = f"{options.reference} ({part}, the first {len(real)} of {len(found)} crystals)"
    if not options.first:
        name = _name(options, part, real, found)
    asked = rounds = None
    if isinstance(source, CdvaeResult):
        source = CdvaeResult(source.path, every=True)
        evaluations = source.num_evaluations()
        rounds = evaluations if evaluations > 1 else None
    elif isinstance(source, SampleFolder) and options.order in (None, "composition"):
        asked = _asked(source)

    def train() -> list[Crystal]:
        return read_real(options.reference, options.data_path, "train")[0]

    chosen = CspOptions(
        data_set=options.reference if options.reference in DATA_SETS else None,
        each=options.each,
        order=options.order,
        baseline=options.baseline,
        oxidation_states=options.oxidation_states,
        most_pairs=MOST_PAIRS if options.most_pairs is None else options.most_pairs,
        workers=options.workers,
        engine=options.engine,
    )
    return source, CspProtocol(real, name, chosen, asked, rounds, None if part in ("all", "train") else train)


def _asked(source: SampleFolder) -> list[ReducedComposition] | None:
    """Return the compositions that the samples of a folder were asked for; None without conditions."""
    asked = _met(source)
    if not asked:
        return None
    found = []
    for place, row in enumerate(asked):
        text = row["asked"] or ""
        composition = composition_asked(text)
        if composition is None:
            raise CrystensError(
                f"sample {place} was asked for {text or 'nothing'}, and not for a formula: structure prediction judges "
                "samples of formulas; give --order blocks or rounds where they stand in the order of the references"
            )
        found.append(composition)
    return found


def _properties(options: argparse.Namespace, bars: Show) -> PropertyMetrics:
    """Return the metrics of properties, with the properties of the reference computed."""
    how = PropertyOptions(**_how(options))
    if options.reference is None:
        return PropertyMetrics(how)
    found, part = read_real(options.reference, options.data_path, options.split, default="train")
    real = drawn(found, options.reference_number, options.seed)
    name = _name(options, part, real, found)
    return PropertyMetrics(how, real, name, lambda done: bars("its properties", done, len(real)))


def _name(options: argparse.Namespace, part: str, real: Sequence[Crystal], found: Sequence[Crystal]) -> str:
    """Return the name of the real crystals, for messages and metrics.json."""
    few = f", {len(real)} of {len(found)} crystals drawn with seed {options.seed}" if len(real) < len(found) else ""
    return f"{options.reference} ({part}{few})"


def _check_holds_samples(source: Source) -> None:
    """Fail early if the source is empty. Skipped for sources that must be read whole anyway."""
    if not isinstance(source, SampleFolder | CdvaeResult) and next(source.read(JudgingLimits()), None) is None:
        raise CrystensError(f"no sample in {source}")


def _protocol(
    real: Sequence[Crystal], name: str, options: ProtocolOptions, potential: Potential | None, bars: Show, total: int
) -> CdvaeProtocol:
    """Return the protocol, prepared for the real crystals, which were drawn from `total`."""
    energies = None
    if potential is not None:
        prints = options.fingerprints
        how = EnergyOptions(workers=prints.workers, time_limit=prints.time_limit, engine=prints.engine)
        energies = EnergyDistance(real, name, potential, how, lambda done: bars("its energies", done, len(real)))
    drawn_of = total if len(real) < total else None
    return CdvaeProtocol(
        real, name, options, lambda done: bars("its fingerprints", done, len(real)), energies, drawn_of
    )


def _parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog=prog, description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="folder or archive of CIFs, extended XYZ, a CSV or .pt file of CDVAE or DiffCSP, or any other source",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--reference",
        metavar="NAME_OR_PATH",
        help=f"real crystals to compare with: prototypes, {', '.join(DATA_SETS)}, or the path of any source",
    )
    parser.add_argument("--data-path", metavar="PATH", help="folder or file of the reference's data")
    parser.add_argument(
        "--split",
        choices=SPLITS,
        help="which split of the reference; by default test for --protocol, and train for all else",
    )
    parser.add_argument(
        "--reference-number",
        metavar="N",
        type=int,
        help="computes fingerprints, energies and properties of N real crystals alone, drawn by --seed, by default of "
        "all; with fewer the precision of coverage is lower; with --protocol csp, the N that samples answer. Other "
        "distributions and formulas are still those of all",
    )
    parser.add_argument("--seed", type=int, default=0, help="chooses the crystals that are drawn; by default 0")
    parser.add_argument(
        "--protocol",
        choices=("cdvae", "csp"),
        help="add the metrics of a protocol: cdvae for samples of any composition, or csp for structure predictions of "
        'the crystals of the reference; needs "crystens[metrics]"',
    )
    csp = parser.add_argument_group("structure prediction (--protocol csp)")
    csp.add_argument(
        "--each", metavar="K", type=int, help="samples for each crystal of the reference; by default found"
    )
    csp.add_argument(
        "--order",
        choices=ORDERS,
        help="how samples answer the reference: blocks, K for its first crystal and then K for its second; rounds, one "
        "for each and then one for each again; composition, by the formula that they were asked for, or else have. By "
        "default as asked where the folder says it, and otherwise found by the compositions",
    )
    csp.add_argument("--first", metavar="N", type=int, help="the samples are of the first N crystals of the reference")
    csp.add_argument(
        "--baseline",
        action="store_true",
        help="add the baseline: the most similar train crystal, with its elements exchanged and its volume scaled",
    )
    csp.add_argument(
        "--most-pairs",
        metavar="N",
        type=int,
        help="METRe compares every sample with every reference of its composition, up to this many pairs; by default "
        f"{MOST_PAIRS:,}",
    )
    parser.add_argument(
        "--cutoffs",
        metavar=("STRUCTURE", "COMPOSITION"),
        nargs=2,
        type=float,
        help=f"of the protocol's coverage; by default those of the reference, one of {', '.join(CUTOFFS)}",
    )
    parser.add_argument(
        "--oxidation-states",
        choices=sorted(OXIDATION_STATES),
        default="smact14",
        help="list of oxidation states for charge neutrality; by default smact14, the original's",
    )
    parser.add_argument(
        "--energy-model",
        choices=sorted(SHIPPED),
        help='potential whose energies per atom the protocol compares too, by default none; needs "crystens[energy]"',
    )
    parser.add_argument(
        "--properties",
        choices=("cgcnn",),
        help="predicts formation energy, band gap, moduli and more for each crystal, and compares their distributions "
        'with those of the reference; needs "crystens[cgcnn]"',
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=usable_cores(),
        help="processes for fingerprints, energies and properties; by default one for each core that may be used",
    )
    add_engine(parser)
    parser.add_argument(
        "--time-limit",
        metavar="SECONDS",
        type=float,
        default=60.0,
        help="of processor time, for one crystal's fingerprint, energy or properties; by default 60",
    )
    return parser


def _told(metrics: dict[str, dict[str, Any]], out: Path) -> str:
    """Return the metrics as lines of text."""
    lines = []
    for name, entry in metrics.items():
        if isinstance(entry["value"], int | float):
            value = entry["value"] if isinstance(entry["value"], int) else f"{entry['value']:.4g}"
            lines.append(f"{name:32} {value:<12} {entry['unit'] if entry['unit'] != '1' else ''}".rstrip())
        if "statement" in entry:
            lines.append(f"  {name}: {entry['statement']}")
    lines += [str(table) for table in csp_tables(metrics)]
    lines += metrics["verdict"]["sentences"]
    return "\n".join([*lines, f"{out / 'report.html'}, metrics.json and crystals.csv hold it all", ""])


if __name__ == "__main__":
    sys.exit(main())
