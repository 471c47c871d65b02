"""All tables and figures of the paper: from trained checkpoints, or trained too; see README.md.

python experiments/paper/run.py train NAME DIR --out RUNS [--models gan wgan diffusion] [--seeds 0 1 2] [--jobs 1]
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from training import runs_of, train_all

from crystens.errors import CrystensError


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    trained = commands.add_parser("train", help="train every model of a recipe at every seed, and sample it")
    trained.add_argument("name", help="a recipe of recipes.yaml, such as perov_5")
    trained.add_argument("data", type=Path, help="where its data is")
    trained.add_argument("--out", type=Path, required=True, help="folder of the runs")
    trained.add_argument("--models", nargs="+", help="some of the recipe's models; by default all")
    trained.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    trained.add_argument("--jobs", type=int, default=1, help="runs at a time")
    return parser.parse_args()


def main() -> int:
    """Run the command line and return its exit status."""
    options = _parsed()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        runs = runs_of(options.name, str(options.data.resolve()), options.out.resolve(), options.models, options.seeds)
        failed = train_all(runs, options.jobs)
    except CrystensError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
