"""All tables and figures of the paper: from trained checkpoints, or trained too; see README.md.

python experiments/paper/run.py train NAME DATA --runs RUNS [--models gan wgan diffusion] [--seeds 0 1 2] [--jobs 1]
python experiments/paper/run.py judge NAME DATA --runs RUNS --out OUT [--stages tables ...] [--number 300]
python experiments/paper/run.py all NAME DATA --runs RUNS --out OUT
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from page import STAGES, page_stages
from stages import run_stages
from training import ROOT, runs_of, train_all

from crystens.errors import CrystensError

log = logging.getLogger(__name__)


def _parsed() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    helps = {
        "train": "train every model of a recipe at every seed, and sample it",
        "judge": "make tables and figures of trained runs",
        "all": "both",
    }
    for name, told in helps.items():
        command = commands.add_parser(name, help=told)
        command.add_argument("name", help="a recipe of recipes.yaml, such as perov_5")
        command.add_argument("data", type=Path, help="where its data is")
        command.add_argument("--runs", type=Path, required=True, help="folder of the runs")
        command.add_argument("--models", nargs="+", help="some of the recipe's models; by default all")
        command.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
        if name != "judge":
            command.add_argument("--jobs", type=int, default=1, help="runs at a time")
        if name != "train":
            command.add_argument("--out", type=Path, required=True, help="folder of the results")
            command.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="by default all")
            command.add_argument(
                "--number", type=int, default=300, help="crystals of a series whose energy is computed"
            )
    return parser.parse_args()


def main() -> int:
    """Run the command line and return its exit status."""
    options = _parsed()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    data = options.data.resolve()
    bad = 0
    try:
        if not data.exists():
            raise CrystensError(f"no data at {data}; give the folder of {options.name}")
        runs = runs_of(options.name, str(data), options.runs.resolve(), options.models, options.seeds)
        if options.command != "judge":
            bad += len(train_all(runs, options.jobs))
        if options.command != "train":
            out = options.out.resolve()
            stages = page_stages(runs, data, options.runs.resolve() / options.name, out, options.number)
            chosen = [stage for stage in stages if stage.name in options.stages]
            records = run_stages(chosen, out / "stages" / options.name, ROOT)
            bad += sum(record["status"] == "failed" for record in records)
            for record in records:
                log.info("%(name)s: %(status)s, %(seconds).1f s", record)
            unfinished = [f"{run.model} seed {run.seed}" for run in runs if not run.finished]
            if unfinished:
                log.warning("not finished, and so not in figures: %s", ", ".join(unfinished))
            log.info("%s in %s/*/%s", "some stages failed; the others are" if bad else "all is", out, options.name)
    except CrystensError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
