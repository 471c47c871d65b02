"""Compares results and cost of `crystens.matching.unique_pool` with StructureMatcher; see README.md.

python experiments/sun/run.py DATA [--mixed 1000] [--carbon 200] [--novel 50] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Structure
from pymatgen.core.structure_matcher import StructureMatcher

from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.matching.unique_pool import Comparable, Pool
from crystens.sun.__main__ import read_known

_COPIES = 0.1  # share of the mixed crystals that are changed copies of others
_CELLS = ([[1, 1, 0], [0, 1, 0], [0, 0, 2]], [[1, 0, 0], [1, 1, 0], [0, 0, 1]], [[0, 1, 0], [1, 0, 0], [0, 0, -1]])


def main() -> None:
    """Compare, time and write."""
    options = _arguments()
    warnings.simplefilter("ignore")
    generator = np.random.default_rng(options.seed)
    perovskites = _drawn(read_known(f"{options.data}/perov_5", "test").crystals, options.mixed // 2, generator)
    mixed = [
        *perovskites,
        *_drawn(read_known(f"{options.data}/mp_3dsc", "all").crystals, options.mixed // 2, generator),
    ]
    copied = generator.choice(len(mixed), int(_COPIES * len(mixed)), replace=False)
    for place in copied:
        mixed[place] = _disguised(mixed[generator.integers(len(mixed))], generator)
    mixed = [mixed[place] for place in generator.permutation(len(mixed))]
    carbon = read_known(f"{options.data}/carbon_24", "train").crystals
    report = {f"{len(mixed)} of perov_5 and mp_3dsc, {len(copied)} of them copies": _groups(mixed)}
    _tell(report, options.out)
    drawn = _drawn(carbon, options.carbon, generator)
    report[f"{len(drawn)} of carbon_24"] = _groups(drawn)
    _tell(report, options.out)
    samples = _drawn(read_known(f"{options.data}/carbon_24", "test").crystals, options.novel, generator)
    of_train = _drawn(carbon, 4 * options.novel, generator)
    report[f"{len(samples)} of carbon_24, test, against {len(of_train)} of train"] = _novelty(samples, of_train)
    _tell(report, options.out)


def _tell(report: dict[str, Any], out: Path) -> None:
    """Write all results so far, and print the last one."""
    out.write_text(json.dumps(report, indent=1) + "\n")
    name = list(report)[-1]
    sys.stdout.write(json.dumps({name: report[name]}, indent=1) + "\n")
    sys.stdout.flush()


def _arguments() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", metavar="DATA", help="folder with perov_5, mp_3dsc and carbon_24")
    parser.add_argument("--mixed", type=int, default=1000, help="crystals, half of perov_5 and half of mp_3dsc")
    parser.add_argument("--carbon", type=int, default=200, help="crystals of carbon_24")
    parser.add_argument("--novel", type=int, default=50, help="samples, looked for among four times as many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "sameness.json")
    return parser.parse_args()


def _drawn(crystals: Sequence[Crystal], number: int, generator: np.random.Generator) -> list[Crystal]:
    """Return some crystals."""
    return [crystals[place] for place in generator.permutation(len(crystals))[:number]]


def _disguised(crystal: Crystal, generator: np.random.Generator) -> Crystal:
    """Return a crystal in another cell, with another origin and volume, slightly strained and with noise."""
    structure = crystal.to_structure()
    structure.make_supercell(_CELLS[generator.integers(len(_CELLS))])
    structure.translate_sites(list(range(len(structure))), generator.random(3))
    for site in range(len(structure)):
        structure.translate_sites([site], generator.normal(0, 0.05, 3), frac_coords=False)
    structure.apply_strain(generator.uniform(-0.02, 0.02, 3).tolist())
    return Crystal.from_structure(structure, 1)


def _groups(crystals: Sequence[Crystal]) -> dict[str, Any]:
    """Return whether three ways of grouping agree, and their times: ours, all pairs, and `group_structures`."""
    ours, pool = [], Pool()
    begun = time.process_time()
    for place, crystal in enumerate(crystals):
        one = Comparable(crystal)
        earlier = pool.find(one, lowest=True)
        if earlier.reason is not None:
            raise CrystensError(f"crystal {place}: {earlier.reason}")
        if earlier.place is None:
            pool.add(place, one)
        ours.append(place if earlier.place is None else earlier.place)
    seconds = {"ours": time.process_time() - begun}

    structures = [crystal.to_structure() for crystal in crystals]
    matcher = StructureMatcher()
    begun = time.process_time()
    same = {
        (i, j): bool(matcher.fit(structures[i], structures[j]))
        for i in range(len(crystals))
        for j in range(i + 1, len(crystals))
    }
    plain: list[int] = []
    for j in range(len(crystals)):
        plain.append(next((i for i in range(j) if plain[i] == i and same[i, j]), j))
    seconds["all pairs"] = time.process_time() - begun

    begun = time.process_time()
    found = matcher.group_structures(structures)
    seconds["group_structures"] = time.process_time() - begun
    places = {id(structure): place for place, structure in enumerate(structures)}
    grouped = list(range(len(crystals)))
    for group in found:
        for structure in group:
            grouped[places[id(structure)]] = places[id(group[0])]
    return {
        "equal to all pairs": ours == plain,
        "equal to group_structures": ours == grouped,
        "groups": len(set(ours)),
        "pairs that match, of all": sum(same.values()),
        "pairs": dict(pool.counts) | {"all": len(same)},
        **_times(seconds),
    }


def _novelty(samples: Sequence[Crystal], known: Sequence[Crystal]) -> dict[str, Any]:
    """Return whether two ways of looking for samples among known crystals agree, and their times."""
    pool = Pool()
    begun = time.process_time()
    for place, crystal in enumerate(known):
        pool.add(place, Comparable(crystal))
    ours = [pool.find(Comparable(crystal)).place is None for crystal in samples]
    seconds = {"ours": time.process_time() - begun}
    structures: list[Structure] = [crystal.to_structure() for crystal in known]
    matcher = StructureMatcher()
    begun = time.process_time()
    plain = [not any(matcher.fit(one, crystal.to_structure()) for one in structures) for crystal in samples]
    seconds["all pairs"] = time.process_time() - begun
    return {"equal to all pairs": ours == plain, "novel": sum(ours), "pairs": dict(pool.counts), **_times(seconds)}


def _times(seconds: dict[str, float]) -> dict[str, Any]:
    """Return processor seconds, and the ratio of each to ours."""
    return {
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "ratio": {name: round(value / seconds["ours"], 1) for name, value in seconds.items() if name != "ours"},
    }


if __name__ == "__main__":
    try:
        main()
    except CrystensError as error:
        sys.exit(f"error: {error}")
