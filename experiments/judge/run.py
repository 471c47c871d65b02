"""The CDVAE protocol applied to real crystals, and its cost; see README.md.

python experiments/judge/run.py rates DATA
python experiments/judge/run.py times DATA [--crystals N] [--workers N]
python experiments/judge/run.py draws DATA SAMPLES/crystals.csv
python experiments/judge/run.py energies DATA [--crystals N] [--workers N] [--cache DIR]
python experiments/judge/run.py noise DATA [--crystals N] [--workers N]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import wasserstein_distance

from crystens.crystal import Crystal
from crystens.energies.energies import EnergyOptions, energies
from crystens.energies.potentials import CHGNet
from crystens.errors import CrystensError
from crystens.ingest.generated import JudgingLimits
from crystens.ingest.kinds import open_source
from crystens.metrics.crystal_table import CRYSTAL_COLUMNS, PROTOCOL_COLUMNS, CrystalTable, crystal_row
from crystens.metrics.validity import is_structurally_valid
from crystens.protocol.by_num_sites import wasserstein
from crystens.protocol.cdvae_protocol import CUTOFFS, VALID_SAMPLES
from crystens.protocol.composition_validity import OXIDATION_STATES, PASSED, composition_verdict
from crystens.protocol.coverage import nearest
from crystens.protocol.fingerprinting import FingerprintOptions, fingerprints
from crystens.protocol.fingerprints import featurizers
from crystens.samples.references import read_real
from crystens.sources.record import Entry

_SETS = (
    ("perov_5", "train"),
    ("perov_5", "val"),
    ("perov_5", "test"),
    ("carbon_24", "test"),
    ("mp_3dsc", "train"),
    ("mp_3dsc", "test"),
)
_DEVIATIONS = (0.03, 0.06, 0.1, 0.15)  # angstrom


def _rates(data: Path) -> None:
    """Print the validity of real splits, with each set of oxidation states."""
    for name, split in _SETS:
        crystals = read_real(name, str(data / name), split)[0]
        told: dict[str, Any] = {"set": f"{name} {split}", "crystals": len(crystals)}
        told["structural"] = round(100 * float(np.mean([is_structurally_valid(crystal) for crystal in crystals])), 2)
        for states in OXIDATION_STATES:
            verdicts = Counter(composition_verdict(crystal.numbers, states) for crystal in crystals)
            told[states] = round(100 * sum(verdicts[verdict] for verdict in PASSED) / len(crystals), 2)
            if states == "smact14":
                told["verdicts"] = dict(verdicts)
        print(json.dumps(told), flush=True)


def _draws(data: Path, table: Path) -> None:
    """Print the spread of Wasserstein distances to the test split of Perov-5 over 200 draws of 1,000 valid samples."""
    rows = [row for row in CrystalTable(table, CRYSTAL_COLUMNS + PROTOCOL_COLUMNS).rows() if row["valid"]]
    real = read_real("perov_5", str(data / "perov_5"), "test")[0]
    values = {
        "density": [float(crystal.to_structure().density) for crystal in real],
        "num_elements": [len(set(crystal.numbers.tolist())) for crystal in real],
    }
    for column, those in values.items():
        distances = []
        for seed in range(200):
            drawn = np.random.default_rng(seed).permutation(len(rows))[:VALID_SAMPLES]
            distance = wasserstein([rows[place] for place in drawn], column, np.array(those))
            if distance is None:
                raise CrystensError(f"{table} has no valid sample with a value of {column}")
            distances.append(distance)
        quantiles = np.quantile(np.array(distances), [0, 0.025, 0.5, 0.975, 1]).round(4).tolist()
        print(json.dumps({column: {"mean": round(float(np.mean(distances)), 4), "quantiles": quantiles}}))


class _Clock:
    """Seconds for 1,000 crystals by stage: of the clock, and of the processor in this process."""

    def __init__(self) -> None:
        self.told: dict[str, list[float]] = {}

    def time(self, name: str, function: Callable[[], Any], number: int) -> Any:
        """Return the result of a function, and record its time for a number of crystals."""
        start, computed = time.perf_counter(), time.process_time()
        result = function()
        seconds = time.perf_counter() - start, time.process_time() - computed
        self.told[name] = [round(1000 * value / number, 2) for value in seconds]
        return result


def _first(path: Path, number: int) -> list[Crystal]:
    """Return the first crystals of at most 20 sites."""
    items = open_source(str(path)).read(JudgingLimits())
    small = (item.crystal for item in items if isinstance(item, Entry) and len(item.crystal) <= 20)
    return list(islice(small, number))


def _times(data: Path, number: int, workers: int) -> None:
    """Print seconds for 1,000 crystals, by stage, without cached results."""
    featurizers()  # three seconds of imports, once in a run
    for path in (data / "perov_5" / "test.csv.gz", data / "carbon_24" / "test.csv.gz", data / "mp_3dsc"):
        print(json.dumps({"set": path.parent.name if path.is_file() else path.name} | _stages(path, number, workers)))
    clock = _Clock()
    generator = np.random.default_rng(0)
    samples, real = ((generator.random((size, 61)), generator.random((size, 132))) for size in (10_000, 3_785))
    clock.time("coverage, against 3,785", lambda: nearest(samples, real, CUTOFFS["perov_5"]), 10_000)
    print(json.dumps(clock.told))


def _stages(path: Path, number: int, workers: int) -> dict[str, Any]:
    """Return the times of each stage for the first crystals of a source."""
    clock = _Clock()
    crystals = clock.time("reading", lambda: _first(path, number), number)
    clock.time("rows of crystals.csv", lambda: [crystal_row(k, one) for k, one in enumerate(crystals)], number)
    clock.time("compositions", lambda: [composition_verdict(one.numbers) for one in crystals], number)
    with tempfile.TemporaryDirectory() as folder:
        options = FingerprintOptions(workers=workers, cache=folder)
        found = clock.time("fingerprints", lambda: fingerprints(crystals, options), number)
    failed = sum(one.reason is not None for one in found)
    counts = {"crystals": len(crystals), "sites": sum(map(len, crystals)), "without a fingerprint": failed}
    return counts | {"workers": workers} | clock.told


def _energies(data: Path, number: int, workers: int, cache: Path | None) -> None:
    """Print Wasserstein distances of CHGNet energies, test and part of train against test of Perov-5, and costs."""
    potential, options = CHGNet(), EnergyOptions(workers=workers, cache=cache)
    potential.calculator()  # seconds of imports and loading, once in a run
    found: dict[str, np.ndarray] = {}
    for split in ("test", "train"):
        crystals = read_real("perov_5", str(data / "perov_5"), split)[0]
        if split == "train":
            chosen = np.sort(np.random.default_rng(0).permutation(len(crystals))[:number])
            crystals = [crystals[place] for place in chosen]
        clock = _Clock()
        told = clock.time("energies", partial(energies, crystals, potential, options), len(crystals))
        found[split] = np.array(
            [np.nan if one.total is None else one.total / len(crystals[k]) for k, one in enumerate(told)]
        )
        valid = [composition_verdict(crystal.numbers) in PASSED for crystal in crystals]
        found[f"{split}, valid"] = found[split][np.array(valid)]
        failed = Counter(one.reason for one in told if one.reason is not None)
        inside = round(1000 * sum(one.seconds for one in told) / len(told), 1)
        print(json.dumps({split: len(crystals), "failed": dict(failed), "inside, for 1,000": inside} | clock.told))
    found = {name: values[np.isfinite(values)] for name, values in found.items()}
    for name, values in found.items():
        told = {"mean": round(float(values.mean()), 4), "standard deviation": round(float(values.std()), 4)}
        told["distance to test"] = round(float(wasserstein_distance(values, found["test"])), 4)
        draws = [np.random.default_rng(seed).permutation(values)[:VALID_SAMPLES] for seed in range(200)]
        distances = [wasserstein_distance(draw, found["test"]) for draw in draws]
        told[f"draws of {VALID_SAMPLES}"] = np.quantile(distances, [0.025, 0.5, 0.975]).round(4).tolist()
        print(json.dumps({f"{name}, {len(values)} energies": told}), flush=True)


def _noise(data: Path, number: int, workers: int) -> None:
    """Print the distance of crystals of the test splits from themselves with sites moved at random."""
    generator = np.random.default_rng(0)
    for name in ("perov_5", "carbon_24"):
        crystals = read_real(name, str(data / name), "test")[0][:number]
        with tempfile.TemporaryDirectory() as folder:
            options = FingerprintOptions(workers=workers, cache=folder)
            real = [one.structure for one in fingerprints(crystals, options)]
            for deviation in _DEVIATIONS:
                moved = [_moved(crystal, deviation, generator) for crystal in crystals]
                found = [one.structure for one in fingerprints(moved, options)]
                apart = [
                    np.inf if one is None else float(np.linalg.norm(one - own))
                    for one, own in zip(found, real, strict=True)
                    if own is not None
                ]
                near = float(np.mean(np.array(apart) <= CUTOFFS[name][0]))
                told = {"set": name, "crystals": len(apart), "deviation, A": deviation}
                told |= {"median distance": round(float(np.median(apart)), 3), "within, %": round(100 * near, 1)}
                print(json.dumps(told), flush=True)


def _moved(crystal: Crystal, deviation: float, generator: np.random.Generator) -> Crystal:
    """Return a crystal with normal displacements of its sites, of a standard deviation in angstrom along each axis."""
    moves = generator.normal(0, deviation, (len(crystal), 3))
    moves = crystal.lattice.get_fractional_coords(moves)
    return replace(crystal, space_group=1, coordinates=crystal.coordinates + moves)


def main() -> None:
    """Run one of the measurements, and print it as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", choices=("rates", "times", "draws", "energies", "noise"))
    parser.add_argument("data", type=Path, help="folder with perov_5, carbon_24 and mp_3dsc")
    parser.add_argument("table", type=Path, nargs="?", help="for draws: crystals.csv of samples that were judged")
    parser.add_argument("--crystals", type=int, default=200, help="number of crystals of each set")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--cache", type=Path, help="folder of known energies; by default in ~/.cache/crystens")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.part == "rates":
        _rates(arguments.data)
    elif arguments.part == "draws":
        _draws(arguments.data, arguments.table)
    elif arguments.part == "energies":
        _energies(arguments.data, arguments.crystals, arguments.workers, arguments.cache)
    elif arguments.part == "noise":
        _noise(arguments.data, arguments.crystals, arguments.workers)
    else:
        _times(arguments.data, arguments.crystals, arguments.workers)


if __name__ == "__main__":
    main()
