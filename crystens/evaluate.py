"""`python -m crystens.evaluate DIR_OF_CIFS --out DIR`: judges any generator's crystals, ours or a peer's.

Crystals are read as they stand in the files, see `crystens.data.generated`.

Written are `crystals.csv`, `metrics.json` and `report.html`, as by sample.py. The statistics of CrysTens images do not
apply to files and are absent.
"""

from __future__ import annotations

import argparse
import random
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from crystens.crystal import Crystal
from crystens.data.entries import SPLITS, Reject
from crystens.data.generated import JudgingLimits
from crystens.data.ingest import open_store
from crystens.data.kinds import open_source
from crystens.data.limits import Limits
from crystens.data.sources import Source
from crystens.errors import CrystensError
from crystens.metrics.distributions import Reference
from crystens.metrics.summary import Metrics, summarise, write_metrics
from crystens.metrics.table import CRYSTAL_COLUMNS, CrystalTable, Row, crystal_row, failed_row
from crystens.report import NUM_PICTURES, write_report

DATA_SETS = ("perov_5", "carbon_24", "mp_20", "mp_3dsc")

_CHUNK = 100  # rows written at a time
_MAX_SITES = 255  # of a reference crystal, as many as a batch of compact arrays holds


def evaluate(
    source: Source,
    out: str | Path,
    reference: Reference | None = None,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Metrics:
    """Judge all crystals of a source; write crystals.csv, metrics.json and report.html to a folder.

    Args:
        source: where the crystals are, such as `CifFolder(path)`.
        out: folder of the results; made if it is not there.
        reference: what the crystals are compared with; None compares with nothing.
        seed: chooses the crystals that are drawn.
        progress: called with the number of entries judged so far.

    Raises:
        CrystensError: if the source holds no entry at all, or the results cannot be written.
    """
    out = Path(out)
    table = CrystalTable(out / "crystals.csv", CRYSTAL_COLUMNS)
    table.keep(0)
    chosen = _Reservoir(NUM_PICTURES, seed)
    waiting: list[Row] = []
    for index, item in enumerate(source.read(JudgingLimits())):
        if isinstance(item, Reject):
            waiting.append(failed_row(index, item.reason, item.file, item.entry))
        else:
            waiting.append(crystal_row(index, item.crystal, item.file, item.entry))
            chosen.offer(index, item.crystal)
        if len(waiting) == _CHUNK:
            table.append(waiting)
            waiting = []
        if progress is not None:
            progress(index + 1)
    table.append(waiting)
    rows = table.rows()
    metrics = summarise(rows, reference, about={"source": str(source), "seed": seed})
    write_metrics(out / "metrics.json", metrics)
    write_report(
        out / "report.html",
        metrics,
        rows,
        title=f"Crystals judged: {source}",
        statement=[
            "These crystals were read from files. How they were made is not known here, and the statistics of CrysTens "
            "images do not apply to them."
        ],
        reference=reference,
        crystals=chosen.kept,
    )
    return metrics


class _Reservoir:
    """A few crystals of a stream, each crystal with the same chance, chosen by seed (Vitter's algorithm R, 1985)."""

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


def read_reference(name: str, data_path: str | None = None, split: str | None = None) -> Reference:
    """Return the real crystals to compare with.

    Args:
        name: "prototypes", one of the `DATA_SETS` (which needs `data_path`), or the path of any source.
        data_path: folder or file of the data set.
        split: "train", "val" or "test"; None takes train where the source gives splits, and everything where not.

    Raises:
        CrystensError: if there is no such data, or it has no such split.
    """
    if name in DATA_SETS and data_path is None:
        raise CrystensError(f"--reference {name} needs its data: give --data-path PATH")
    path = data_path if data_path is not None and name != "prototypes" else name
    store = open_store(_source(path), Limits(max_sites=_MAX_SITES))
    splits = store.column("split")
    given = any(splits)
    if split is not None and not given:
        raise CrystensError(f"--split {split}: {path} gives no splits; leave the option out to take all of it")
    part = split or ("train" if given else None)
    rows = [row for row, name in enumerate(splits) if part is None or name == part]
    batch = store.batch(rows, int(store.counts.max()))
    return Reference.from_crystals(batch, name, part or "all")


def _source(path: str) -> Source:
    """Return the source at a path."""
    return open_source(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m crystens.evaluate", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", metavar="DIR_OF_CIFS", help="folder or archive of CIFs, or any other source")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--reference",
        metavar="NAME",
        help=f"real crystals to compare with: prototypes, {', '.join(DATA_SETS)}, or the path of any source",
    )
    parser.add_argument("--data-path", metavar="PATH", help="folder or file of the reference's data")
    parser.add_argument("--split", choices=SPLITS, help="which split of the reference; by default train")
    parser.add_argument("--seed", type=int, default=0, help="chooses the crystals that are drawn; by default 0")
    options = parser.parse_args(arguments)
    warnings.filterwarnings(
        "ignore", message=".*No Pauling electronegativity.*"
    )  # of noble gases; changes nothing here
    try:
        if options.reference is None and (options.data_path or options.split):
            raise CrystensError("--data-path and --split say what --reference is made of: give --reference NAME too")
        source = _source(options.source)
        with Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        ) as progress:
            reference = None
            if options.reference is not None:
                task = progress.add_task("reading the reference", total=None)
                reference = read_reference(options.reference, options.data_path, options.split)
                progress.update(task, total=reference.count, completed=reference.count)
            task = progress.add_task("judging", total=None)
            metrics = evaluate(
                source, options.out, reference, options.seed, lambda count: progress.update(task, completed=count)
            )
            progress.update(task, total=metrics["num_samples"]["value"])
    except CrystensError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(_told(metrics, options.out))
    return 0


def _told(metrics: dict[str, dict[str, Any]], out: Path) -> str:
    """Return the metrics as lines of text."""
    lines = []
    for name, entry in metrics.items():
        if isinstance(entry["value"], int | float):
            lines.append(f"{name:24} {entry['value']:<12.4g} {entry['unit'] if entry['unit'] != '1' else ''}".rstrip())
    return "\n".join([*lines, f"{out / 'report.html'}, metrics.json and crystals.csv hold it all", ""])


if __name__ == "__main__":
    sys.exit(main())
