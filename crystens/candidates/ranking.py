"""Which generated crystals are taken first: valid ones, each once, by their energy; the rest is set aside and counted.

A crystal is set aside because it was not decoded or read, because two sites are nearer than 0.5 angstrom
(`crystens.metrics.validity`), because the potential gives it no energy, because it lacks a reference, because it lies
too far above the hull, or because it is the same as one of lower energy (`crystens.matching.structure_matching`).
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
    """One crystal in its place.

    Attributes:
        sample: what was generated.
        crystal: its crystal.
        energy: by the potential, as it stands.
        place: where it stands against the reference.
        value: what it is ranked by, eV/atom.
    """

    sample: Sample
    crystal: Crystal
    energy: Energy
    place: HullDistance
    value: float


@dataclass(frozen=True, eq=False)
class Excluded:
    """One sample that is set aside, and why: `category: details`."""

    sample: Sample
    reason: str


def judged_places(
    crystals: Sequence[Crystal], computed: Sequence[Energy], potential: Potential, reference: HullReference | None
) -> list[HullDistance]:
    """Return where crystals stand; everywhere unknown without a reference."""
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
    """Return the crystals that may become candidates, the lowest first, and all others; together all samples.

    Args:
        samples: what was generated.
        potential: what gives energies.
        options: how energies are computed; crystals are taken as they stand.
        reference: what they are compared with; None for an order by the energy itself.
        by: one of the `ORDERS`: energy above the reference's hull, formation energy, or energy per atom, which says
            little between different compositions.
        max_hull: highest energy above hull of one that is kept, eV/atom.
        progress: called with the number of crystals whose energy is known.

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
    """Return what a crystal is ranked by, eV/atom; None if it is unknown."""
    if energy.total is None:
        return None
    if by == "energy":
        return energy.total / len(crystal)
    return place.above_hull if by == "above_hull" else place.formation_energy
