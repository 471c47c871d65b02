"""Selection of candidates from samples: ranked, cleaned, relaxed, with inputs for density functional theory.

    candidates.csv      one row for each candidate
    relaxations.csv     one row for each candidate and relaxation
    excluded.csv        all other samples, with reasons
    summary.json        counts, options, and the reference of the energies
    candidates.png      the candidates and their energies
    candidates/01_NaCl  generated.cif, cleaned.cif, relaxed.cif, changes.json, and inputs of DFT in vasp/ or espresso/

The same command resumes a killed run: energies and relaxations are cached one by one (`crystens.energies.energies`),
and everything else takes seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from crystens.candidates.cleaning import Cleaned, CleaningOptions, clean, substitutions_of
from crystens.candidates.generated import Sample
from crystens.candidates.ranking import Excluded, Ranked, judged_places, rank
from crystens.candidates.relaxations import RUNS, Relaxations, relax_successively
from crystens.crystal import Crystal
from crystens.energies.energies import EnergyOptions, energies
from crystens.energies.hull import HullDistance
from crystens.energies.hull_entries import HullReference
from crystens.energies.known_crystals import KnownCrystals
from crystens.energies.potentials import Potential
from crystens.energies.references import with_elements
from crystens.energies.relaxation import Energy, Relaxation
from crystens.errors import CrystensError
from crystens.matching.structure_matching import find_matches, group_matches
from crystens.sources.reasons import category_counts

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class SelectionOptions:
    """Options of the selection.

    Attributes:
        number: number of candidates.
        by: one of `crystens.candidates.ranking.ORDERS`.
        max_hull: largest energy above hull as generated, eV/atom.
        cleaning: options of cleaning.
        relaxation: options of each successive relaxation.
        runs: number of relaxations.

    Raises:
        CrystensError: if a number is below 1.
    """

    number: int = 20
    by: str = "above_hull"
    max_hull: float = math.inf
    cleaning: CleaningOptions = field(default_factory=CleaningOptions)
    relaxation: Relaxation = field(default_factory=lambda: Relaxation(steps=200, force=0.05))
    runs: int = RUNS

    def __post_init__(self) -> None:
        """Check the options."""
        if self.number < 1 or self.runs < 1:
            raise CrystensError(f"number={self.number} of candidates and runs={self.runs} must be at least 1")


@dataclass(frozen=True, eq=False)
class Candidate:
    """One candidate.

    Attributes:
        rank: rank, from 1.
        ranked: the crystal as generated, and its energy.
        cleaned: the cleaned crystal.
        relaxations: results of the relaxations.
        place: formation energy and energy above hull after the last relaxation.
        known: name of a known crystal that is the same as the relaxed one (the cleaned one if relaxation failed), or
            None.
    """

    rank: int
    ranked: Ranked
    cleaned: Cleaned
    relaxations: Relaxations
    place: HullDistance
    known: str | None

    @property
    def name(self) -> str:
        """Name of its folder: rank and formula."""
        return f"{self.rank:02d}_{self.cleaned.crystal.formula}"

    @property
    def final(self) -> Crystal:
        """The relaxed crystal; the cleaned one if relaxation failed."""
        return self.relaxations.crystal or self.cleaned.crystal


@dataclass(frozen=True, eq=False)
class Selection:
    """Candidates, excluded samples, and the references of energies as generated and relaxed."""

    candidates: tuple[Candidate, ...]
    excluded: tuple[Excluded, ...]
    reference: HullReference | None
    relaxed_reference: HullReference | None


def select(
    samples: Sequence[Sample],
    potential: Potential,
    energy_options: EnergyOptions,
    options: SelectionOptions,
    reference: HullReference | None = None,
    known: KnownCrystals | None = None,
    progress: Progress | None = None,
    relaxed_reference: Callable[[Sequence[Crystal]], HullReference] | None = None,
) -> Selection:
    """Return the candidates; every other sample is excluded with a reason.

    Args:
        samples: the samples.
        potential: the potential for energies and relaxation.
        energy_options: options of the computation; their relaxation is ignored.
        options: options of the selection.
        reference: the hull; None for ranking by energy per atom.
        known: known crystals, to recognise candidates that are not new.
        progress: called with the name of the stage, the number done and the total.
        relaxed_reference: function from relaxed crystals to their hull; None for `reference`.

    Raises:
        CrystensError: if all samples are excluded.
    """
    told = progress or (lambda what, done, total: None)
    there = sum(sample.crystal is not None for sample in samples)
    ranked, excluded = rank(
        samples,
        potential,
        energy_options,
        reference,
        options.by,
        options.max_hull,
        lambda count: told("energies", count, there),
    )
    if not ranked:
        counts = ", ".join(f"{count} {reason}" for reason, count in exclusion_counts(excluded).items())
        raise CrystensError(f"no candidate among {len(samples)} samples: {counts}")
    chosen: list[tuple[Ranked, Cleaned]] = []
    start = 0
    while start < len(ranked) and len(chosen) < options.number:
        batch = ranked[start : start + options.number - len(chosen)]
        start += len(batch)
        told("cleaning", len(chosen), options.number)
        chosen, repeated = _cleaned(batch, chosen, potential, energy_options, options.cleaning, reference)
        excluded += repeated
    told("cleaning", options.number, options.number)
    excluded += [
        Excluded(item.sample, f"ranked below the {options.number} asked for: {item.value:.3f} eV/atom")
        for item in ranked[start:]
    ]
    crystals = [cleaned.crystal for _, cleaned in chosen]
    relaxations = relax_successively(
        crystals,
        potential,
        options.relaxation,
        energy_options,
        options.runs,
        lambda run, count: told(f"relaxation {run} of {options.runs}", count, len(crystals)),
    )
    relaxed = reference if relaxed_reference is None else relaxed_reference(crystals)
    if relaxed is not None:
        relaxed = with_elements(relaxed, crystals, potential, energy_options)
    last = [Energy(item.runs[-1].total, item.runs[-1].reason) for item in relaxations]
    places = judged_places(crystals, last, potential, relaxed)
    finals = [item.crystal or crystal for item, crystal in zip(relaxations, crystals, strict=True)]
    same = find_matches(finals, known.crystals, candidates=None) if known else np.full(len(finals), -1)
    candidates = [
        Candidate(place + 1, item, cleaned, runs, where, None if match < 0 or known is None else known.names[match])
        for place, ((item, cleaned), runs, where, match) in enumerate(
            zip(chosen, relaxations, places, same, strict=True)
        )
    ]
    return Selection(tuple(candidates), tuple(excluded), reference, relaxed)


def exclusion_counts(excluded: Sequence[Excluded]) -> dict[str, int]:
    """Return the number of exclusions in each category of reasons, the most frequent first."""
    return category_counts(item.reason for item in excluded)


def _cleaned(
    batch: Sequence[Ranked],
    chosen: Sequence[tuple[Ranked, Cleaned]],
    potential: Potential,
    energy_options: EnergyOptions,
    options: CleaningOptions,
    reference: HullReference | None,
) -> tuple[list[tuple[Ranked, Cleaned]], list[Excluded]]:
    """Return the chosen crystals with a cleaned batch added, and the crystals of it that repeat a chosen one."""

    def energy_of(crystals: list[Crystal]) -> tuple[list[float | None], str]:
        computed = energies(crystals, potential, energy_options)
        if reference is not None:
            compared = with_elements(reference, crystals, potential, energy_options)
            places = judged_places(crystals, computed, potential, compared)
            return [place.formation_energy for place in places], "formation energy"
        pairs = zip(computed, crystals, strict=True)
        return [None if e.total is None else e.total / len(crystal) for e, crystal in pairs], "energy per atom"

    kept, repeated = list(chosen), []
    substitutions = substitutions_of([item.crystal for item in batch], options, energy_of)
    for item, substitution in zip(batch, substitutions, strict=True):
        cleaned = clean(item.sample, item.crystal, substitution, options)
        crystals = [*(other.crystal for _, other in kept), cleaned.crystal]
        first = int(group_matches(crystals, candidates=None)[-1])
        if first < len(kept):
            reason = f"cleaned, the same crystal as a candidate: {kept[first][0].sample.name}"
            repeated.append(Excluded(item.sample, reason))
        else:
            kept.append((item, cleaned))
    return kept, repeated
