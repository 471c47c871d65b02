"""Tables 1 and 2 of the paper from the finished runs of one data set; see README.md.

python experiments/paper/tables/run.py RUNS [DATA] --out DIR [--label TEXT] [--seed 0]
python experiments/paper/tables/run.py reference FILE
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))

from finished_runs import data_name, find_runs
from paper_tables import make_tables, markdown
from real_crystals import data_of, judged
from reference_values import difference_table, largest_differences
from training import read_recipe

from crystens.errors import CrystensError

log = logging.getLogger(__name__)


def write_tables(folder: Path, out: Path, data: Path | None, label: str | None, seed: int) -> str:
    """Write OUT/tables.md and OUT/tables.json, and return the former.

    Args:
        folder: the runs of one data set.
        out: where the tables go.
        data: where the data is; None for where the runs found it.
        label: what is said of the size of the models; None for what recipes.yaml says of the folder's name.
        seed: which real crystals are drawn.

    Raises:
        CrystensError: if runs are missing or do not belong together.
    """
    runs = find_runs(folder)
    label = read_recipe(folder.resolve().name)["label"] if label is None else label
    for line in runs.told:
        log.info("%s", line)
    first = runs.finished[0]
    real = judged(first, data_of(first, data).test_crystals, seed)
    tables = make_tables(runs, real)
    page = markdown(tables, runs, label, real)
    out.mkdir(parents=True, exist_ok=True)
    about = {
        "label": label,
        "runs": [run.name for run in runs.finished],
        "unfinished": list(runs.unfinished),
        "models_without_a_run": list(runs.missing),
        "decode": first.made_with["decode"],
        "reference": {**first.made_with["reference"], "name": data_name(first)},
        "real_crystals": {"count": len(real.rows), "available": real.available, "seed": seed},
        "versions": {name: first.made_with[name] for name in ("crystens", "torch", "pymatgen", "numpy")},
    }
    text = json.dumps({"about": about} | tables.to_dict(), indent=1, allow_nan=False)
    (out / "tables.json").write_text(text + "\n", encoding="utf-8")
    (out / "tables.md").write_text(page, encoding="utf-8")
    return page


def _parsed() -> argparse.Namespace:
    if sys.argv[1:2] == ["reference"]:
        parser = argparse.ArgumentParser(description="print how far our statistics are from reference values")
        parser.add_argument("command", choices=["reference"])
        parser.add_argument("file", type=Path, help="reference_metrics.json")
        return parser.parse_intermixed_args()
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], epilog="`run.py reference FILE` compares with reference values"
    )
    parser.add_argument("runs", type=Path, help="folder of one data set's runs, MODEL/seed_K")
    parser.add_argument("data", type=Path, nargs="?", help="where the data is; by default where the runs found it")
    parser.add_argument("--out", type=Path, required=True, help="folder of tables.md and tables.json")
    parser.add_argument("--label", help="what the models are; by default what recipes.yaml says of the folder's name")
    parser.add_argument("--seed", type=int, default=0, help="which real test crystals are drawn")
    return parser.parse_intermixed_args()


def main() -> int:
    """Run the command line and return its exit status."""
    options = _parsed()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    try:
        if "file" in options:
            sys.stdout.write(difference_table(largest_differences(options.file)))
        else:
            sys.stdout.write(write_tables(options.runs, options.out, options.data, options.label, options.seed))
    except CrystensError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
