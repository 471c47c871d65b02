"""The metrics of symmetry applied to real crystals, and their cost; see README.md.

python experiments/symmetry/run.py real DIR/mp_52 [--max-sites N]
python experiments/symmetry/run.py cost DIR/mp_52 [--max-sites N] [--number N]
python experiments/symmetry/run.py junk DIR/mp_52 [--minutes M]
python experiments/symmetry/run.py stated DIR/mp_52 [--number N]
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
from crystens.symmetry.space_groups import imposed
from crystens.symmetry.stated_group import stated_group

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
    parser.add_argument("what", choices=("real", "cost", "junk", "stated"))
    parser.add_argument("data")
    parser.add_argument("--max-sites", type=int, default=20)
    parser.add_argument("--number", type=int, default=10_000, help="crystals that are measured, of cost and stated")
    parser.add_argument("--minutes", type=float, default=4.0, help="how long junk is made")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    train, test = (_crystals(options.data, split, options.max_sites) for split in ("train", "test"))
    if options.what == "real":
        _real(train, test)
    elif options.what == "cost":
        _cost(train, test, options.number)
    elif options.what == "stated":
        _stated(test, options.number)
    else:
        _junk(train, options.minutes)


def _crystals(data: str, split: str, max_sites: int) -> list[Crystal]:
    """Return the crystals of a split with at most a given number of sites."""
    return [crystal for crystal in read_real("mp_52", data, split)[0] if len(crystal) <= max_sites]


def _batch(crystals: list[Crystal]) -> CrystalBatch:
    """Return crystals as a batch, with the space groups of their atoms."""
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
    """Print the time of a function."""
    start = time.process_time()
    function()
    seconds = time.process_time() - start
    print(json.dumps({what: round(seconds, 2), "crystals": len(crystals)}), flush=True)


def _junk(crystals: list[Crystal], minutes: float) -> None:
    """Print the longest search for groups in crystals that are compressed, with sites moved."""
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


def _stated(crystals: list[Crystal], number: int) -> None:
    """Print in how many noisy crystals each way of decoding finds the original group."""
    chosen = np.random.default_rng(0).permutation(len(crystals))[:number]
    some = [crystals[place] for place in chosen]
    groups = [symmetry_of(crystal, shortest_distance(crystal)).space_group for crystal in some]
    known = [(crystal, group) for crystal, group in zip(some, groups, strict=True) if group is not None and group > 1]
    for noise in (0.01, 0.05, 0.1, 0.2, 0.3):
        generator = np.random.default_rng(1)
        found: dict[str, int] = {"project": 0, "true": 0}
        seconds = dict.fromkeys(found, 0.0)
        moves: list[float] = []
        for crystal, group in known:
            places = generator.normal(0, noise, (len(crystal), 3)) @ np.linalg.inv(crystal.vectors)
            lengths = crystal.lengths * (1 + generator.normal(0, noise / 10, 3))
            noisy = replace(crystal, lengths=lengths, coordinates=(crystal.coordinates + places) % 1, space_group=1)
            nearest = shortest_distance(noisy)
            start = time.process_time()
            projected = stated_group(noisy, group, min(0.5, nearest / 2))
            middle = time.process_time()
            searched = imposed(noisy, group, 0.3, 0.01)
            seconds["project"] += middle - start
            seconds["true"] += time.process_time() - middle
            found["true"] += searched is not None and searched[0].crystal.space_group == group
            if projected is not None:
                found["project"] += 1
                moves.append(float(projected.displacements.max()))
        shares = {f"symmetrise={how}": round(count / len(known), 4) for how, count in found.items()}
        times = {f"ms, {how}": round(1000 * total / len(known), 1) for how, total in seconds.items()}
        told = {"noise": noise, "crystals": len(known), **shares, **times, "median move": round(np.median(moves), 3)}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
