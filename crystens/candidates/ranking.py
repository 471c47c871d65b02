"""Ranking of generated crystals: valid and distinct crystals by their energy; all others are excluded and counted.

A crystal is excluded if it was not decoded or read, if two sites are nearer than 0.5 angstrom
(`crystens.metrics.validity`), if the potential gives no energy, if the reference lacks one of its elements, if it is
too far above the hull, or if it is the same as a crystal of lower energy (`crystens.matching.structure_matching`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from crystens.candidates.generated import Sample
from crystens.crystal import Crystal
from crystens.energies.energies import EnergyOptions, energies
from crystens.energies.hull import HullDistance, hull_distances
from crystens.energies.hull_entries import HullReference
from crystens.energies.potentials import Potential
from crystens.energies.relaxation import Energy
from crystens.errors import CrystensError
from crystens.matching.structure_matching import group_matches
from crystens.metrics.validity import is_structurally_valid, shortest_distance

ORDERS = ("above_hull", "formation_energy", "energy")


@dataclass(frozen=True, eq=False)
class Ranked:
    """One ranked crystal.

    Attributes:
        sample: the sample.
        crystal: its crystal.
        energy: energy by the potential, unrelaxed.
        place: its formation energy and energy above hull.
        value: the energy that it is ranked by, eV/atom.
    """

    sample: Sample
    crystal: Crystal
    energy: Energy
    place: HullDistance
    value: float


@dataclass(frozen=True, eq=False)
class Excluded:
    """An excluded sample, with the reason as `category: details`."""

    sample: Sample
    reason: str


def judged_places(
    crystals: Sequence[Crystal], computed: Sequence[Energy], potential: Potential, reference: HullReference | None
) -> list[HullDistance]:
    """Return the distances of crystals to the hull; unknown without a reference."""
    if reference is None:
        return [HullDistance(None, None, "no reference") for _ in crystals]
    return hull_distances(crystals, computed, potential, reference)


def rank(
    samples: Sequence[Sample],
    potential: Potential,
    options: EnergyOptions,
    reference: HullReference | None,
    by: str,
    max_hull: float = math.inf,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[Ranked], list[Excluded]]:
    """Return the crystals that may become candidates, the lowest energy first, and all other samples as excluded.

    Args:
        samples: the samples.
        potential: the potential.
        options: options of the computation of energies; crystals are not relaxed.
        reference: the hull; None for ranking by energy per atom.
        by: one of the `ORDERS`: energy above hull, formation energy, or energy per atom, which hardly compares
            different compositions.
        max_hull: largest energy above hull of a candidate, eV/atom.
        progress: called with the number of finished energies.

    Raises:
        CrystensError: if there is no such order, or it needs a reference.
    """
    if by not in ORDERS:
        raise CrystensError(f"{by=} is no order of candidates; use one of {', '.join(ORDERS)}")
    if reference is None and (by != "energy" or max_hull < math.inf):
        raise CrystensError(f"an order by {by} with {max_hull=} needs a reference; give one, or order by energy")
    excluded = [Excluded(sample, sample.reason or "no crystal") for sample in samples if sample.crystal is None]
    valid: list[tuple[Sample, Crystal]] = []
    for sample in samples:
        if sample.crystal is None:
            continue
        if is_structurally_valid(sample.crystal):
            valid.append((sample, sample.crystal))
        else:
            nearest = f"sites {shortest_distance(sample.crystal):.3g} angstrom apart"
            excluded.append(Excluded(sample, f"not structurally valid: {nearest}"))
    crystals = [crystal for _, crystal in valid]
    computed = energies(crystals, potential, options, progress)
    places = judged_places(crystals, computed, potential, reference)
    ranked: list[Ranked] = []
    for (sample, crystal), energy, place in zip(valid, computed, places, strict=True):
        value = _value(crystal, energy, place, by)
        if energy.total is None:
            excluded.append(Excluded(sample, f"no energy ({(energy.reason or '').split(': ')[0]}): {energy.reason}"))
        elif value is None:
            excluded.append(Excluded(sample, place.reason or "no reference"))
        elif place.above_hull is not None and place.above_hull > max_hull:
            excluded.append(
                Excluded(sample, f"above the bound on the energy above hull: {place.above_hull:.3f} eV/atom")
            )
        else:
            ranked.append(Ranked(sample, crystal, energy, place, value))
    ranked.sort(key=lambda item: (item.value, item.sample.name))
    firsts = group_matches([item.crystal for item in ranked], candidates=None)
    kept = []
    for row, item in enumerate(ranked):
        if firsts[row] == row:
            kept.append(item)
        else:
            lower = ranked[firsts[row]]
            excluded.append(Excluded(item.sample, f"the same crystal as one of lower energy: {lower.sample.name}"))
    return kept, excluded


def _value(crystal: Crystal, energy: Energy, place: HullDistance, by: str) -> float | None:
    """Return the energy that a crystal is ranked by, eV/atom; None if unknown."""
    if energy.total is None:
        return None
    if by == "energy":
        return energy.total / len(crystal)
    return place.above_hull if by == "above_hull" else place.formation_energy
