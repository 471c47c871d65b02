"""Leaks: crystals of val and test that are also in train, and shared formulas.

A score on such crystals measures how well training data are remembered. Two crystals are the same by
`crystens.matching.structure_matching`. Its tolerances are wide: among thousands of crystals of one formula, as in
Carbon-24, different crystals may match. Therefore a report also states a null rate: the share of matches among random
pairs, of one crystal of train and one of val or test with the same number of sites.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.matching.structure_matching import CANDIDATES, Progress, find_matches, match_pairs
from crystens.processes.atomic_file import write_csv
from crystens.processes.engines import PROCESSES

_HELD_OUT = ("val", "test")
_COLUMNS = ("split", "file", "entry", "matches_file", "matches_entry", "formula")


@dataclass(frozen=True)
class Leak:
    """One crystal of val or test that is the same as one of train.

    Attributes:
        split: "val" or "test".
        position: its index among the crystals.
        match: index of the crystal of train.
        formula: reduced formula of both.
    """

    split: str
    position: int
    match: int
    formula: str


@dataclass(frozen=True)
class LeakReport:
    """Crystals that val and test share with train.

    Attributes:
        leaks: crystals that have a match in train, val first, in the order of the crystals.
        sizes: number of crystals of each split.
        candidates: number of crystals of train that each crystal was compared with; None for all that could match.
        shared_formulas: for val and test, number of their formulas that are also in train, and number of formulas.
        in_shared_formulas: for val and test, number of crystals with a formula that is also in train.
        null_pairs: for val and test, number of random pairs that were compared.
        null_matches: for val and test, number of random pairs that matched.
    """

    leaks: list[Leak]
    sizes: dict[str, int]
    candidates: int | None
    shared_formulas: dict[str, tuple[int, int]]
    in_shared_formulas: dict[str, int]
    null_pairs: dict[str, int]
    null_matches: dict[str, int]

    def count(self, split: str) -> int:
        """Return the number of crystals of a split with a match in train."""
        return sum(leak.split == split for leak in self.leaks)

    def describe(self) -> str:
        """Return the summary, lines of text without a newline at the end."""
        lines = [describe_leaks(self.leaks, self.sizes, self.candidates)]
        for split, (shared, formulas) in self.shared_formulas.items():
            lines.append(
                f"{split}: {shared} of {formulas} formulas are in train, with {self.in_shared_formulas[split]} of "
                f"{self.sizes[split]} crystals"
            )
        for split, pairs in self.null_pairs.items():
            if pairs:
                lines.append(
                    f"{split}: {self.null_matches[split]} of {pairs} random pairs with a crystal of train with the "
                    "same number of sites match"
                )
        return "\n".join(lines)


def leak_report(
    crystals: Sequence[Crystal],
    splits: Sequence[str | None],
    candidates: int | None = CANDIDATES,
    workers: int = 1,
    progress: Progress | None = None,
    null_pairs: int = 300,
    seed: int = 0,
    engine: str = PROCESSES,
) -> LeakReport:
    """Return the crystals and formulas that val and test share with train.

    Args:
        crystals: M crystals.
        splits: "train", "val" or "test" for each crystal; None ignores it.
        candidates: as in `crystens.matching.structure_matching.find_matches`; with a number, the leaks are a lower
            bound.
        workers: number of processes.
        progress: called with the number of comparisons so far, without those of the null rate.
        null_pairs: number of random pairs for the null rate of each split.
        seed: seed of these pairs.
        engine: kind of workers, one of `crystens.processes.engines.ENGINES`.

    Raises:
        CrystensError: if train is empty, val and test are both empty, or an option is out of range.
    """
    leaks = find_leaks(crystals, splits, candidates, workers, progress, engine)
    places = _places(splits)
    formulas = [crystal.formula if split else "" for crystal, split in zip(crystals, splits, strict=True)]
    trained = {formulas[k] for k in places["train"]}
    shared, inside, drawn, matched = {}, {}, {}, {}
    for split in _HELD_OUT:
        own = {formulas[k] for k in places[split]}
        shared[split] = (len(own & trained), len(own))
        inside[split] = sum(formulas[k] in trained for k in places[split])
        pairs = _random_pairs(crystals, places[split], places["train"], null_pairs, seed)
        drawn[split] = len(pairs)
        matched[split] = int(match_pairs(pairs, workers, engine=engine).sum())
    sizes = {split: len(positions) for split, positions in places.items()}
    return LeakReport(leaks, sizes, candidates, shared, inside, drawn, matched)


def find_leaks(
    crystals: Sequence[Crystal],
    splits: Sequence[str | None],
    candidates: int | None = CANDIDATES,
    workers: int = 1,
    progress: Progress | None = None,
    engine: str = PROCESSES,
) -> list[Leak]:
    """Return the crystals of val and test that match one of train, val first; arguments as in `leak_report`.

    Raises:
        CrystensError: as `leak_report`.
    """
    places = _places(splits)
    held_out = [(split, k) for split in _HELD_OUT for k in places[split]]
    found = find_matches(
        [crystals[k] for _, k in held_out],
        [crystals[k] for k in places["train"]],
        candidates,
        workers,
        progress,
        engine,
    )
    return [
        Leak(split, k, places["train"][match], crystals[k].formula)
        for (split, k), match in zip(held_out, found.tolist(), strict=True)
        if match >= 0
    ]


def describe_leaks(leaks: Sequence[Leak], sizes: dict[str, int], candidates: int | None = CANDIDATES) -> str:
    """Return one line for each of val and test, with the number of its crystals in train.

    Args:
        leaks: result of `find_leaks`.
        sizes: number of crystals of each split.
        candidates: argument of `find_leaks`.
    """
    lines = []
    for split in _HELD_OUT:
        count, size = sum(leak.split == split for leak in leaks), sizes.get(split, 0)
        if not size:
            lines.append(f"{split}: no crystals")
            continue
        how = "compared with all crystals that could match"
        if candidates is not None:
            how = f"at least: compared with the {candidates} most similar crystals only"
        lines.append(f"{split}: {count} of {size} crystals ({100 * count / size:.1f} %) are in train ({how})")
    return "\n".join(lines)


def write_leaks(leaks: Sequence[Leak], files: Sequence[str], entries: Sequence[str], path: str | Path) -> Path:
    """Write leaks to a CSV file with the columns split, file, entry, matches_file, matches_entry, formula.

    Args:
        leaks: result of `find_leaks`; the header is written even without leaks.
        files: the file of each crystal in the arguments of `find_leaks`, in the same order.
        entries: the entry in its file of each crystal.
        path: file to write; its folder is created.

    Returns:
        The path.

    Raises:
        CrystensError: if the file cannot be written.
    """
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for leak in leaks:
        names = [name for k in (leak.position, leak.match) for name in (files[k], entries[k])]
        rows.append((leak.split, *names, leak.formula))
    write_csv(path, rows)
    return Path(path)


def _places(splits: Sequence[str | None]) -> dict[str, list[int]]:
    """Return the positions of the crystals of each split.

    Raises:
        CrystensError: if there is nothing to compare.
    """
    places: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for position, split in enumerate(splits):
        if split is not None:
            places[split].append(position)
    if not places["train"] or not (places["val"] or places["test"]):
        counts = ", ".join(f"{len(positions)} {split}" for split, positions in places.items())
        raise CrystensError(f"cannot search leaks: the splits hold {counts}; use a source or a split with both")
    return places


def _random_pairs(
    crystals: Sequence[Crystal], held_out: Sequence[int], train: Sequence[int], count: int, seed: int
) -> list[tuple[Crystal, Crystal]]:
    """Return pairs of crystals of `held_out` and `train` with equal numbers of sites, drawn with replacement."""
    by_sites: dict[int, list[int]] = defaultdict(list)
    for k in train:
        by_sites[len(crystals[k])].append(k)
    possible = [k for k in held_out if len(crystals[k]) in by_sites]
    if not possible:
        return []
    generator = np.random.default_rng(seed)
    pairs = []
    for k in generator.choice(possible, size=count):
        others = by_sites[len(crystals[k])]
        pairs.append((crystals[k], crystals[others[generator.integers(len(others))]]))
    return pairs
