"""`python -m crystens.runs DIR [DIR ...] --out OUT`: one table and one page of all runs below folders.

Runs are run folders of train.py and folders of sample.py or `python -m crystens.evaluate`. Unfinished and unreadable
runs are rows too, with their state. The command writes `runs.csv` (all settings that differ, all metrics), `groups.csv`
(runs that differ by seed only, as mean and standard deviation), `runs.png` and `runs.html`, and prints the table.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from crystens.processes.atomic_file import write_whole
from crystens.processes.command import run_command
from crystens.runs.crystals import NUM_PICTURES
from crystens.runs.figures import group_plot
from crystens.runs.page import write_page
from crystens.runs.run import read_runs
from crystens.runs.settings import SEEDS
from crystens.runs.table import Table
from crystens.runs.text import table_text

_WIDTH = 160  # letters in a line of the table if stdout is a file


def compare(
    folders: Sequence[Path],
    out: Path,
    sort: str | None = None,
    metrics: Sequence[str] | None = None,
    group: Sequence[str] = SEEDS,
    pictures: int | None = None,
) -> Table:
    """Read all runs at and below folders, write the files and return the table.

    Args:
        folders: folders to search.
        out: folder of the results; created if it does not exist.
        sort: metric or setting to sort by; None takes mean K-S.
        metrics: metrics to show; None takes those of `crystens.runs.table.METRICS` that occur.
        group: settings in which averaged runs may differ; empty for no averages.
        pictures: number of crystals drawn for each run.

    Raises:
        CrystensError: if there is no run, no such metric, or the results cannot be written.
    """
    table = Table(read_runs(folders), sort, metrics, group)
    table.write_runs(out / "runs.csv")
    table.write_groups(out / "groups.csv")
    picture = group_plot(table, table.metrics)
    if picture is None:
        (out / "runs.png").unlink(missing_ok=True)  # an earlier call may have left one
    else:
        write_whole(out / "runs.png", picture)
    # Two parts of a path: the last one alone is often "runs" or "multirun".
    names = ", ".join(Path(*folder.resolve().parts[-2:]).as_posix() for folder in folders)
    write_page(out / "runs.html", table, f"Runs in {names}", pictures)
    return table


def main(arguments: Sequence[str] | None = None, prog: str = "python -m crystens.runs") -> int:
    """Run the command line and return its exit status; `prog` is how the command was called."""
    parser = argparse.ArgumentParser(prog=prog, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", metavar="DIR", type=Path, nargs="+", help="folder with runs at any depth")
    parser.add_argument("--out", metavar="OUT", type=Path, required=True, help="folder for the results")
    parser.add_argument("--sort", metavar="METRIC", help="metric or setting; the best first, by default mean_ks")
    parser.add_argument("--metrics", metavar="METRIC", nargs="+", help="shown in this order; runs.csv holds all")
    parser.add_argument(
        "--group",
        metavar="SETTING",
        nargs="*",
        default=SEEDS,
        help="runs that differ in nothing else are averaged; by default the seeds, without a value nothing",
    )
    parser.add_argument(
        "--pictures", metavar="N", type=int, help=f"crystals drawn of each run; by default {NUM_PICTURES}, 0 for none"
    )
    options = parser.parse_args(arguments)
    return run_command(lambda: _compared(options), "run the same command again to start over")


def _compared(options: argparse.Namespace) -> str:
    """Compare the runs by the options of the command line, and return the table as text."""
    table = compare(options.folders, options.out, options.sort, options.metrics, options.group, options.pictures)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH
    return f"{table_text(table, width)}\n{options.out / 'runs.html'}, runs.csv, groups.csv and runs.png hold it all\n"


if __name__ == "__main__":
    sys.exit(main())
