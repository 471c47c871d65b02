"""Crystals that train shares with val and test, and the cost of finding them; see README.md.

python experiments/leaks/run.py DIR/carbon_24 [--exhaustive] [--groups] [--prices] [--workers N] [--csv leaks.csv]
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pymatgen.core.structure_matcher import StructureMatcher

from crystens.crystal import Crystal
from crystens.ingest.kinds import open_source
from crystens.matching.structure_matching import CANDIDATES, group_matches
from crystens.sources.limits import Limits
from crystens.sources.record import Entry
from crystens.sources.source import read_all
from crystens.survey.leaks import Leak, leak_report, write_leaks

_STRICT: dict[str, Any] = {"ltol": 0.05, "stol": 0.05, "angle_tol": 1, "scale": False}


def _timed(function: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[Any, dict[str, float]]:
    """Return a result, its seconds, its processor seconds in this process, and the number of comparisons."""
    compared = [0]
    start, computed = time.perf_counter(), time.process_time()
    result = function(*arguments, progress=compared.append, **options)
    seconds = {"seconds": time.perf_counter() - start, "computing in this process": time.process_time() - computed}
    return result, {name: round(value, 1) for name, value in seconds.items()} | {"comparisons": compared[-1]}


def _leaks(entries: Sequence[Entry], candidates: int | None, workers: int) -> tuple[list[Leak], dict[str, Any]]:
    """Return the leaks, and their counts with the null rate."""
    crystals, splits = [entry.crystal for entry in entries], [entry.split for entry in entries]
    report, cost = _timed(leak_report, crystals, splits, candidates, workers)
    strict = StructureMatcher(**_STRICT)
    same = Counter(
        leak.split
        for leak in report.leaks
        if strict.fit(crystals[leak.position].to_structure(), crystals[leak.match].to_structure())
    )
    counts = {split: f"{report.count(split)} of {report.sizes[split]}" for split in ("val", "test")}
    return report.leaks, {
        **counts,
        "of these with strict tolerances": dict(same),
        "random pairs": {split: f"{report.null_matches[split]} of {n}" for split, n in report.null_pairs.items()},
        "shared formulas": {split: f"{a} of {b}" for split, (a, b) in report.shared_formulas.items()},
        **cost,
    }


def _groups(entries: Sequence[Entry], candidates: int | None, workers: int) -> dict[str, Any]:
    """Return the sizes of the groups of equal crystals, and the groups themselves if there are few."""
    labels, cost = _timed(group_matches, [entry.crystal for entry in entries], candidates, workers)
    sizes = np.unique(labels, return_counts=True)[1]
    pairs = [[entries[first].entry, entries[k].entry] for k, first in enumerate(labels) if first != k]
    largest = np.sort(sizes)[::-1][:5].tolist()
    some = {"joined": pairs} if len(pairs) <= 20 else {}
    return {"groups": len(sizes), "crystals in groups": int(sizes[sizes > 1].sum()), "largest": largest, **some, **cost}


def _prices(crystals: Sequence[Crystal]) -> dict[str, float]:
    """Return milliseconds for comparing a pair of one composition, with reduction in each pair or once a crystal."""
    generator = np.random.default_rng(0)
    some = [crystals[k].to_structure() for k in generator.choice(len(crystals), min(400, len(crystals)), replace=False)]
    start = time.perf_counter()
    reduced = [structure.get_reduced_structure("niggli").get_primitive_structure() for structure in some]
    once = time.perf_counter() - start
    pairs = [(i, j) for i in range(len(some)) for j in range(i) if reduced[i].composition == reduced[j].composition]
    pairs = [pairs[k] for k in generator.choice(len(pairs), min(300, len(pairs)), replace=False)]
    start = time.perf_counter()
    for i, j in pairs:
        StructureMatcher().fit(reduced[i], reduced[j], skip_structure_reduction=True)
    skipping = time.perf_counter() - start
    start = time.perf_counter()
    for i, j in pairs:
        # A large set does not fit into pymatgen's cache of reduced structures.
        StructureMatcher._get_reduced_istructure.cache_clear()
        StructureMatcher().fit(some[i], some[j])
    whole = time.perf_counter() - start
    return {
        "pairs": len(pairs),
        "reduction of a crystal": round(once / len(some) * 1e3, 2),
        "pair, crystals reduced before": round(skipping / len(pairs) * 1e3, 2),
        "pair, reduced each time": round(whole / len(pairs) * 1e3, 2),
    }


def main() -> None:
    """Find leaks and print them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="folder, archive or table")
    parser.add_argument("--exhaustive", action="store_true", help="also compare all pairs that could match")
    parser.add_argument("--groups", action="store_true", help="also group all crystals")
    parser.add_argument("--prices", action="store_true", help="also time single comparisons")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--csv", help="where to write the leaks")
    arguments = parser.parse_args()
    entries, _ = read_all(open_source(arguments.source), Limits(max_sites=None))
    results: dict[str, Any] = {"crystals": len(entries), "workers": arguments.workers}
    for candidates in (CANDIDATES, None) if arguments.exhaustive else (CANDIDATES,):
        leaks, results[f"leaks, {candidates=}"] = _leaks(entries, candidates, arguments.workers)
        if arguments.groups:
            results[f"groups, {candidates=}"] = _groups(entries, candidates, arguments.workers)
        print(json.dumps(results, indent=2), flush=True)
    if arguments.prices:
        print(json.dumps({"milliseconds": _prices([entry.crystal for entry in entries])}, indent=2))
    if arguments.csv:
        files, names = [entry.file for entry in entries], [entry.entry for entry in entries]
        write_leaks(leaks, files, names, arguments.csv)


if __name__ == "__main__":
    main()
