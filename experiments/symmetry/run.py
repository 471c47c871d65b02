"""What the metrics of symmetry say of real crystals, and what they cost; see README.md.

python experiments/symmetry/run.py real DIR/mp_52 [--max-sites N]
python experiments/symmetry/run.py cost DIR/mp_52 [--max-sites N] [--number N]
python experiments/symmetry/run.py junk DIR/mp_52 [--minutes M]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from crystens.batch import CrystalBatch
from crystens.crystal import Crystal
from crystens.metrics.by_num_sites import by_size
from crystens.metrics.crystal_table import crystal_row
from crystens.metrics.distributions import Reference
from crystens.metrics.metrics_file import summarise
from crystens.metrics.symmetries import symmetry_of
from crystens.metrics.validity import shortest_distance
from crystens.processes.cache_folder import CACHE_VARIABLE
from crystens.samples.references import read_real

_SHOWN = (
    "structural_validity",
    "unknown_space_group",
    "p1_rate",
    "p1_rate_at_0.1",
    "ks_space_group",
    "num_space_groups",
    "num_wyckoff_templates",
    "novel_template_rate",
)


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("real", "cost", "junk"))
    parser.add_argument("data")
    parser.add_argument("--max-sites", type=int, default=20)
    parser.add_argument("--number", type=int, default=10_000, help="crystals that the cost is measured on")
    parser.add_argument("--minutes", type=float, default=4.0, help="how long junk is made")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    train, test = (_crystals(options.data, split, options.max_sites) for split in ("train", "test"))
    if options.what == "real":
        _real(train, test)
    elif options.what == "cost":
        _cost(train, test, options.number)
    else:
        _junk(train, options.minutes)


def _crystals(data: str, split: str, max_sites: int) -> list[Crystal]:
    """Return the crystals of a split that have at most so many sites."""
    return [crystal for crystal in read_real("mp_52", data, split)[0] if len(crystal) <= max_sites]


def _batch(crystals: list[Crystal]) -> CrystalBatch:
    """Return crystals as a batch, with the space groups that their atoms have."""
    grouped = [
        replace(crystal, space_group=symmetry_of(crystal, shortest_distance(crystal)).space_group or 1)
        for crystal in crystals
    ]
    return CrystalBatch.from_crystals(grouped, max(map(len, grouped)))


def _real(train: list[Crystal], test: list[Crystal]) -> None:
    """Print the metrics of the test split against the train split, all and by size."""
    reference = Reference.from_crystals(_batch(train), "mp_52")
    rows = [crystal_row(index, crystal) for index, crystal in enumerate(test)]
    metrics = summarise(rows, reference)
    print(json.dumps({"train": len(train), "test": len(test), "templates of train": len(reference.templates or ())}))
    for name in _SHOWN:
        print(json.dumps({name: metrics[name]["value"]}))
    print(json.dumps({"p1 of train": float((reference.values["space_group"] == 1).mean())}))
    for row in by_size(rows, reference):
        print(json.dumps({name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}))


def _cost(train: list[Crystal], test: list[Crystal], number: int) -> None:
    """Print seconds of processor time for groups, templates and rows."""
    chosen = np.random.default_rng(0).permutation(len(train) + len(test))[:number]
    some = [(train + test)[place] for place in chosen]
    nearest = [shortest_distance(crystal) for crystal in some]
    _told("groups at both tolerances, and template", some, lambda: list(map(symmetry_of, some, nearest)))
    _told("rows of crystals.csv", some, lambda: [crystal_row(place, one) for place, one in enumerate(some)])
    batch = _batch(train)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[CACHE_VARIABLE] = folder
        for known in ("unknown", "known"):
            _told(f"reference, templates {known}", train, lambda: Reference.from_crystals(batch, "mp_52"))


def _told(what: str, crystals: list[Crystal], function: Callable[[], Any]) -> None:
    """Print what a function takes."""
    start = time.process_time()
    function()
    seconds = time.process_time() - start
    print(json.dumps({what: round(seconds, 2), "crystals": len(crystals)}), flush=True)


def _junk(crystals: list[Crystal], minutes: float) -> None:
    """Print how long the search for groups takes at most in crystals that are squeezed, and their sites moved."""
    generator = np.random.default_rng(1)
    end, times = time.monotonic() + 60 * minutes, []
    while time.monotonic() < end:
        crystal = crystals[generator.integers(len(crystals))]
        size = crystal.lengths * generator.choice([1, 0.7, 0.5, 0.4, 0.3])
        moved = generator.normal(size=(len(crystal), 3)) * generator.choice([0, 0.02, 0.05, 0.1, 0.2]) / size
        bad = replace(crystal, lengths=size, coordinates=crystal.coordinates + moved)
        if generator.random() < 0.2:
            places = generator.random((generator.integers(2, 52), 3))
            bad = Crystal(size, np.full(3, 90.0), 1, generator.integers(1, 4, len(places)), places)
        nearest, start = shortest_distance(bad), time.process_time()
        symmetry_of(bad, nearest)
        times.append(time.process_time() - start)
    print(json.dumps({"crystals": len(times), "mean ms": 1000 * np.mean(times), "longest ms": 1000 * max(times)}))


if __name__ == "__main__":
    main()
