"""Is fine-tuning a model on one family of crystals better than training on it from nothing?

python experiments/finetune/run.py make DIR/mp_52 --out FAMILY
D="data=csv data.path=FAMILY/train.csv data.split_fractions=[1,0,0] num_samples=200"
python train.py $D hydra.run.dir=RUNS/adapted
python train.py experiment=mp_52_orbits data.properties=[] $D minutes=5 hydra.run.dir=RUNS/from_nothing
python experiments/finetune/run.py table FAMILY mp_52 RUNS/*
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from pathlib import Path

import torch
from pymatgen.core import Structure

import crystens
from crystens.cif.write import write_cif
from crystens.metrics.symmetries import templates
from crystens.models.edm import EDM
from crystens.models.noising import count_sites
from crystens.samples.references import read_real

FAMILY = "225 abc of 3 elements"  # full Heusler compounds
TRAIN = 300
DRAWS = 10  # of noise, for each held-out crystal
METRICS = ("structural_validity", "charge_neutral_rate", "novel_formula_rate", "ks_a", "ks_Z")


def main() -> None:
    """Make the data, or print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make")
    make.add_argument("data")
    make.add_argument("--out", type=Path, required=True)
    table = commands.add_parser("table")
    table.add_argument("family", type=Path)
    table.add_argument("runs", nargs="+")
    options = parser.parse_args()
    if options.command == "make":
        _make(options.data, options.out)
    else:
        _table(options.family, options.runs)


def _make(data: str, out: Path) -> None:
    """Write the family in the test split of mp_52, which no released model has seen, into two tables."""
    crystals = [one for one in read_real(data, split="test")[0] if len(one) == 4]
    found = [one for one, template in zip(crystals, templates(crystals), strict=True) if template == FAMILY]
    random.Random(0).shuffle(found)
    out.mkdir(parents=True, exist_ok=True)
    for name, crystals in (("train", found[:TRAIN]), ("held_out", found[TRAIN:])):
        with (out / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["material_id", "cif"])
            writer.writerows([place, write_cif(crystal)] for place, crystal in enumerate(crystals))
    print(f"{len(found)} crystals of {FAMILY}, {TRAIN} of them for training")


def _table(family: Path, runs: list[str]) -> None:
    """Print a row for each model: loss on held-out crystals, and metrics of samples."""
    with (family / "held_out.csv").open(newline="", encoding="utf-8") as file:
        held_out = [Structure.from_str(row["cif"], fmt="cif") for row in csv.DictReader(file)]
    print("| model | loss on", len(held_out), "held-out | in the family |", " | ".join(METRICS), "|")
    for run in runs:
        generator = crystens.load(run, device="cpu")
        model = generator.model
        assert isinstance(model, EDM)
        model.network.load_state_dict(model.average_network.state_dict())
        model.network.train()
        images = generator.encode(held_out)
        torch.manual_seed(0)
        with torch.no_grad():
            loss = sum(float(model.loss(images, count_sites(images))) for _ in range(DRAWS)) / DRAWS
        print("|", run, "|", f"{loss:.4f}", "|", _of_samples(Path(run) / "samples"), "|", flush=True)


def _of_samples(folder: Path) -> str:
    """Return the columns of a row for the samples of a run."""
    if not folder.is_dir():
        return " | ".join("-" for _ in range(1 + len(METRICS)))
    with (folder / "crystals.csv").open(newline="", encoding="utf-8") as file:
        found = [row["wyckoff_template"] == FAMILY for row in csv.DictReader(file)]
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    values = [sum(found) / len(found), *(metrics[name]["value"] for name in METRICS)]
    return " | ".join(f"{value:.3f}" for value in values)


if __name__ == "__main__":
    main()
