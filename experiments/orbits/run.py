"""Crystals as lists of orbits: do all sites come back, and do all descriptions give one list? See README.md.

python experiments/orbits/run.py round_trip DIR/mp_52 --out FILE.csv
python experiments/orbits/run.py descriptions DIR/mp_52 --number 1500
python experiments/orbits/run.py rules DIR/mp_52
python experiments/orbits/run.py images DIR/mp_52
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import moyopy
import numpy as np
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher
from scipy.spatial import cKDTree

from crystens.crystal import Crystal, canonical_order, cell_vectors
from crystens.ingest.kinds import open_source
from crystens.orbits.batch import OrbitBatch
from crystens.orbits.decoding import OrbitDecoder
from crystens.orbits.scaling import OrbitScaling
from crystens.sources.limits import Limits
from crystens.sources.record import Entry
from crystens.sources.source import read_all
from crystens.symmetry.descriptions import OrbitError, describe, read_orbits
from crystens.symmetry.orbit_crystal import OrbitCrystal
from crystens.symmetry.space_groups import SymmetryError, cell_of_metric, in_cell, space_group_number

_NEIGHBOURS = 10
_SAME_DISTANCE = 0.02  # angstrom; standardisation at symprec 0.01 moves atoms
_MATCHED_SHARE = 0.02  # crystals that agree by distances and are also compared by StructureMatcher
_ALIKE = 0.03  # fractional
_CHUNK = 64
_CODES = (
    {"atoms": "bits", "space_groups": "bits", "wyckoff": "letter"},
    {"atoms": "bits", "space_groups": "bits", "wyckoff": "multiplicity"},
    {"atoms": "bits", "space_groups": "number", "wyckoff": "letter"},
)


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("round_trip", "descriptions", "rules", "images"))
    parser.add_argument("source")
    parser.add_argument("--number", type=int, help="only so many crystals, drawn with seed 0")
    parser.add_argument("--symprec", type=float, default=0.01)
    parser.add_argument("--out", type=Path, help="CSV of the crystals that did not come back")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    entries, rejects = read_all(open_source(options.source), Limits())
    found = [entry for entry in entries if isinstance(entry, Entry)]
    if options.number:
        found = [found[i] for i in np.random.default_rng(0).permutation(len(found))[: options.number]]
    _say(f"{options.source}: {len(found)} crystals, {len(rejects)} set aside by the reader, symprec {options.symprec}")
    if options.what == "round_trip":
        _round_trip(found, options.symprec, options.out)
    elif options.what == "descriptions":
        _descriptions([entry.crystal for entry in found], options.symprec)
    elif options.what == "rules":
        _rules(found, options.symprec)
    else:
        torch.set_num_threads(1)
        _images([entry.crystal for entry in found], options.symprec)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


# ---- all sites back


def _round_trip(entries: list[Entry], symprec: float, out: Path | None) -> None:
    """Bring each crystal to orbits and back, compare, and print counts and times."""
    failures: list[tuple[str, str, int, str]] = []
    counts: Counter[str] = Counter()
    orbits, seconds = [], np.zeros(2)
    rng = np.random.default_rng(0)
    for entry in entries:
        crystal = entry.crystal
        try:
            start = time.process_time()
            listed = describe(crystal, symprec)
            middle = time.process_time()
            back = listed.to_crystal("primitive")
            seconds += middle - start, time.process_time() - middle
            again = space_group_number(back.lengths, back.angles, back.numbers, back.coordinates, 1e-3)
        except (SymmetryError, OrbitError) as error:
            failures.append((entry.entry, crystal.formula, crystal.space_group, str(error)))
            continue
        orbits.append(len(listed))
        counts["the group that was read"] += listed.space_group == crystal.space_group
        counts["the group found again at 0.001 angstrom"] += again == listed.space_group
        if again != listed.space_group:
            failures.append((entry.entry, crystal.formula, listed.space_group, f"group {again} found again"))
        same = back.formula == crystal.formula and _apart(crystal, back) < _SAME_DISTANCE
        counts["the same distances"] += same
        if not same or rng.random() < _MATCHED_SHARE:
            counts["put to StructureMatcher"] += 1
            if StructureMatcher().fit(crystal.to_structure(), back.to_structure()):
                counts["matched by it"] += 1
            else:
                failures.append((entry.entry, crystal.formula, crystal.space_group, "no match"))
    listed_counts = np.array(orbits)
    for name, count in counts.items():
        _say(f"{count:6d} {name}")
    _say(f"{len(failures):6d} failures")
    _say(f"orbits: mean {listed_counts.mean():.2f}, most {listed_counts.max()}")
    for most in (12, 16, 20):
        _say(f"at most {most} orbits: {(listed_counts <= most).mean():.2%}, {(listed_counts > most).sum()} have more")
    first, second = 1000 * seconds / len(orbits)
    _say(f"CPU: {first:.2f} ms a crystal to orbits, {second:.2f} ms to all sites")
    if out is not None:
        with out.open("w", newline="") as file:
            csv.writer(file).writerows([("entry", "formula", "space_group", "failure"), *failures])


def _apart(one: Crystal, other: Crystal) -> float:
    """Return the largest difference of two crystals in the distances of a site to its neighbours, angstrom."""
    near, far = _neighbours(one), _neighbours(other)
    worst = 0.0
    for element in np.unique(one.numbers):
        steps = np.abs(near[one.numbers == element][:, None] - far[other.numbers == element][None]).max(axis=2)
        worst = max(worst, float(steps.min(axis=1).max()), float(steps.min(axis=0).max()))
    return worst


def _neighbours(crystal: Crystal) -> np.ndarray:
    """Return the distances (N, 10) of each site to its nearest sites, angstrom."""
    vectors = cell_vectors(crystal.lengths, crystal.angles)
    reduced = np.array(moyopy.minkowski_reduce(vectors.tolist())[0])
    places = (crystal.coordinates @ vectors @ np.linalg.inv(reduced)) % 1 @ reduced
    volume = abs(np.linalg.det(reduced))
    radius = 1.6 * (3 * volume / len(places) * (_NEIGHBOURS + 6) / (4 * np.pi)) ** (1 / 3)
    heights = 1 / np.linalg.norm(np.linalg.inv(reduced), axis=0)
    ranges = [range(-n, n + 1) for n in np.ceil(radius / heights).astype(int)]
    everywhere = (places[:, None] + np.array(list(itertools.product(*ranges))) @ reduced).reshape(-1, 3)
    return cKDTree(everywhere).query(places, k=_NEIGHBOURS + 1)[0][:, 1:]


# ---- one list for all descriptions


def _descriptions(crystals: list[Crystal], symprec: float) -> None:
    """Describe each crystal in four other ways, and count equal lists."""
    rng = np.random.default_rng(0)
    counts: Counter[tuple[str, str]] = Counter()
    groups: Counter[int] = Counter()
    for crystal in crystals:
        expected = describe(crystal, symprec)
        for way in ("other cell and origin", "doubled cell", "noise of 0.001 angstrom"):
            try:
                answer = _difference(expected, describe(_other(crystal, way, rng), symprec))
            except (SymmetryError, OrbitError):
                answer = "not described"
            counts[way, answer] += 1
            groups[expected.space_group] += answer not in ("same", "another group")
    for (way, answer), count in sorted(counts.items()):
        _say(f"{way}: {count} {answer} ({count / len(crystals):.2%})")
    _say(f"groups of those with another list: {[pair for pair in groups.most_common(12) if pair[1]]}")


def _other(crystal: Crystal, way: str, rng: np.random.Generator) -> Crystal:
    """Return a crystal in another basis, with another origin and another order of sites."""
    vectors = cell_vectors(crystal.lengths, crystal.angles)
    places, numbers = crystal.coordinates, crystal.numbers
    if way.startswith("noise"):
        places = places + rng.normal(scale=0.001 / np.sqrt(3), size=places.shape) @ np.linalg.inv(vectors)
    basis = np.eye(3)[rng.permutation(3)]
    if way == "doubled cell":
        places = np.concatenate([places, places + basis[0]])
        numbers = np.concatenate([numbers, numbers])
        basis[0] *= 2
    for _ in range(2):
        one, other = rng.choice(3, 2, replace=False)
        step = np.eye(3)
        step[one, other] = rng.choice([-1, 1])
        basis = step @ basis
    basis *= np.sign(np.linalg.det(basis))
    vectors, places = basis @ vectors, places @ np.linalg.inv(basis) + rng.random(3)
    order = rng.permutation(len(numbers))
    lengths, angles = cell_of_metric(vectors @ vectors.T)
    return Crystal(lengths, angles, crystal.space_group, numbers[order], places[order])


def _difference(one: OrbitCrystal, other: OrbitCrystal) -> str:
    """Return the difference of two lists; "same" within the tolerances."""
    if one.space_group != other.space_group:
        return "another group"
    if one.letters != other.letters or one.numbers.tolist() != other.numbers.tolist():
        return "other letters"
    if not (np.allclose(one.lengths, other.lengths, rtol=2e-3) and np.allclose(one.angles, other.angles, atol=0.1)):
        return "another cell"
    steps = one.coordinates - other.coordinates
    return "same" if np.abs(steps - np.round(steps)).max() < 3e-3 else "other coordinates"


# ---- which rule gives similar crystals similar lists


def _standard(crystal: Crystal, symprec: float) -> OrbitCrystal:
    """Return the orbits with moyopy's origin and axes, each by the first site in the file."""
    cell = in_cell("conventional", crystal.lengths, crystal.angles, crystal.numbers, crystal.coordinates, symprec)
    return read_orbits(cell.space_group, cell.lengths, cell.angles, cell.numbers, cell.coordinates)


def _lexical(crystal: Crystal, symprec: float) -> OrbitCrystal:
    """Return the orbits with moyopy's origin and axes, each by the first of its sites in lexical order."""
    listed = _standard(crystal, symprec)
    sites = []
    for letter, place in zip(listed.letters, listed.coordinates, strict=True):
        orbit = listed.group.position(letter).orbit(place) % 1
        sites.append(orbit[canonical_order(np.ones(len(orbit)), orbit)[0]])
    order = canonical_order(listed.numbers, np.array(sites))
    letters = "".join(listed.letters[i] for i in order)
    return OrbitCrystal(
        listed.lengths, listed.angles, listed.space_group, listed.numbers[order], letters, np.array(sites)[order]
    )


def _rules(entries: list[Entry], symprec: float) -> None:
    """Print for each rule how similar the lists of train are, and how many lists of val and test are close to one."""
    rules: dict[str, Callable[[Crystal, float], OrbitCrystal]] = {
        "moyopy's origin, first site in lexical order": _lexical,
        "the list of crystens.symmetry.descriptions": describe,
    }
    for name, rule in rules.items():
        lists: dict[str, list[OrbitCrystal]] = defaultdict(list)
        for entry in entries:
            try:
                lists["train" if entry.split == "train" else "test"].append(rule(entry.crystal, symprec))
            except (SymmetryError, OrbitError):
                continue
        known: dict[tuple[int, str], list[np.ndarray]] = defaultdict(list)
        for listed in lists["train"]:
            known[listed.space_group, listed.letters].append(listed.coordinates)
        of_group = Counter(listed.space_group for listed in lists["train"])
        total = len(lists["train"])
        bits = -sum(len(v) / total * np.log2(len(v) / of_group[group]) for (group, _), v in known.items())
        _say(f"{name}: {total} of train, {len(lists['test'])} of val and test")
        _say(f"  templates (group and letters in order) of train: {len(known)}, {bits:.3f} bits beyond the group")
        shares = np.mean(list(_near(lists["test"], known)), axis=0)
        _say(f"  val and test: template in train {shares[0]:.2%}, coordinates too within {_ALIKE}: {shares[1]:.2%}")


def _near(lists: list[OrbitCrystal], known: dict[tuple[int, str], list[np.ndarray]]) -> Iterator[tuple[bool, bool]]:
    """Yield for each list whether its template is known, and whether a known list has similar coordinates."""
    for listed in lists:
        others = known.get((listed.space_group, listed.letters), [])
        if not others:
            yield False, False
            continue
        steps = np.array(others) - listed.coordinates
        yield True, bool((np.abs(steps - np.round(steps)).max(axis=(1, 2)) < _ALIKE).any())


# ---- images of orbits


def _images(crystals: list[Crystal], symprec: float) -> None:
    """Encode the orbits of each crystal, with and without noise, and count correctly decoded lists."""
    lists = []
    for crystal in crystals:
        try:
            lists.append(describe(crystal, symprec))
        except (SymmetryError, OrbitError):
            continue
    for slots, codes in ((52, _CODES[0]), (20, _CODES[0]), *((20, other) for other in _CODES[1:])):
        kept = [listed for listed in lists if len(listed) <= slots]
        batch = OrbitBatch.from_orbits(kept, slots)
        scaling = OrbitScaling.fit(
            batch, atoms=codes["atoms"], space_groups=codes["space_groups"], wyckoff=codes["wyckoff"]
        )
        _say(f"{slots} slots, {codes}: {len(kept)} of {len(lists)} crystals")
        for sigma in (0.0, 0.003, 0.01, 0.03, 0.05) if slots == 20 else (0.0,):
            _say(f"  sigma {sigma}: " + _decoded(kept, batch, scaling, sigma))


def _decoded(lists: list[OrbitCrystal], batch: OrbitBatch, scaling: OrbitScaling, sigma: float) -> str:
    """Return counts of correctly decoded parts of images, and the time of encoding and decoding."""
    generator = torch.Generator().manual_seed(0)
    counts: Counter[str] = Counter()
    worst, seconds = 0.0, np.zeros(2)
    for start in range(0, len(lists), _CHUNK):
        begin = time.process_time()
        images = scaling.encode(batch[start : start + _CHUNK])
        middle = time.process_time()
        noisy = images + sigma * torch.randn(images.shape, generator=generator)
        second = time.process_time()
        decoded = OrbitDecoder().decode(noisy, scaling)
        seconds += middle - begin, time.process_time() - second
        for expected, made in zip(lists[start : start + _CHUNK], decoded, strict=True):
            counts["repairs"] += sum(made.repairs.values()) > 0
            if made.orbits is None:
                counts["failed"] += 1
                continue
            found = made.orbits
            same_group = found.space_group == expected.space_group
            same_letters = same_group and found.letters == expected.letters
            same = same_letters and found.numbers.tolist() == expected.numbers.tolist()
            counts["group"] += same_group
            counts["group and letters"] += same_letters
            counts["all"] += same
            if same:
                steps = found.coordinates - expected.coordinates
                worst = max(worst, float(np.abs(steps - np.round(steps)).max()))
    shares = ", ".join(f"{name} {count / len(lists):.3%}" for name, count in counts.items())
    times = 1000 * seconds / len(lists)
    return f"{shares}; coordinates within {worst:.2g}; CPU {times[0]:.2f} ms to encode, {times[1]:.2f} ms to decode"


if __name__ == "__main__":
    main()
