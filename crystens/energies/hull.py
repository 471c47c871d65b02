"""Formation energy and energy above hull of crystals, relative to a reference.

The formation energy of a crystal is its energy minus that of its elements, each in its lowest form in the reference.
The energy above hull is its energy minus that of the lowest mixture of reference entries with its composition. The
mixture may contain elements and compounds of sub-systems: a ternary crystal may decompose into two binaries. Both are
in eV/atom and computed from total energies, except with a hull of formation energies
(`crystens.energies.formation_energies`).

Distances refer to the hull of the reference alone; the crystal is not added to it. Entries of the reference have
distances of at least 0, and a crystal below the hull has a negative distance. A hull with few compounds is too high, so
that a distance is a lower bound. Each distance therefore has its number of competing entries. Without a competing
compound (`only_elements`) the distance equals the formation energy.

If the reference lacks an element of the crystal, both values are unknown, with a reason. Energies of different scales
are never compared (`crystens.energies.potentials`).

Source: Ong et al., "Li-Fe-P-O2 phase diagram from first principles calculations", Chem. Mater. 2008, 20, 1798,
implemented in pymatgen's PhaseDiagram.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pymatgen.core import Composition, Element

from crystens.crystal import Crystal
from crystens.energies.hull_entries import HullReference, ReferenceEntry, composition_of
from crystens.energies.potentials import Potential
from crystens.energies.relaxation import Energy
from crystens.errors import CrystensError

# With more elements the convex hull has too many facets; a linear programme finds the same minimum.
_DIAGRAM_ELEMENTS = 6


@dataclass(frozen=True)
class HullDistance:
    """Formation energy and energy above hull of one crystal.

    Attributes:
        formation_energy: eV/atom; None if unknown.
        above_hull: energy above the reference's hull, eV/atom, negative below it; None if unknown.
        reason: why they are unknown, `category: details`.
        num_entries: number of reference entries in the crystal's chemical system, sub-systems included.
        num_compounds: number of these entries with two or more elements.
        decomposition: formulas of the lowest mixture, and the share of atoms in each.
    """

    formation_energy: float | None
    above_hull: float | None
    reason: str | None
    num_entries: int = 0
    num_compounds: int = 0
    decomposition: tuple[tuple[str, float], ...] = ()

    @property
    def only_elements(self) -> bool:
        """Whether the values are known and no compound competes: the hull consists of the elements alone."""
        return self.reason is None and self.num_compounds == 0


def hull_distances(
    crystals: Sequence[Crystal], computed: Sequence[Energy], potential: Potential, reference: HullReference
) -> list[HullDistance]:
    """Return the distances of crystals to the hull, in order.

    Args:
        crystals: the crystals.
        computed: their energies by the potential, from `energies`.
        potential: the potential.
        reference: the hull.

    Raises:
        CrystensError: if the scale of the reference is none of the potential's.
    """
    if reference.scale not in potential.scales:
        raise CrystensError(
            f"{reference.name} has energies of the scale {reference.scale!r}, which cannot be compared with energies "
            f"of {potential.identity}; give a reference of {' or '.join(map(repr, potential.scales))}"
        )
    systems: dict[frozenset[str], list[int]] = defaultdict(list)
    for place, crystal in enumerate(crystals):
        systems[frozenset(Element.from_Z(int(z)).symbol for z in set(crystal.numbers.tolist()))].append(place)
    found: dict[int, HullDistance] = {}
    for system, places in systems.items():
        missing = sorted(system - reference.known_elements)
        entries = reference.of_system(system)
        counts = len(entries), sum(len(entry.composition) > 1 for entry in entries)
        if missing:
            reason = f"no elemental reference: {', '.join(missing)}"
            found |= dict.fromkeys(places, HullDistance(None, None, reason, *counts))
            continue
        hull = _Hull(entries, system)
        for place in places:
            energy, crystal = computed[place], crystals[place]
            if energy.total is None:
                found[place] = HullDistance(None, None, f"no energy: {energy.reason}", *counts)
                continue
            composition = composition_of(crystal)
            per_atom = energy.total / len(crystal)
            if reference.element_energies is not None:
                per_atom -= sum(
                    composition.get_atomic_fraction(symbol) * reference.element_energies[symbol] for symbol in system
                )
            below, mixture = hull.lowest(composition)
            elements = sum(
                composition.get_atomic_fraction(symbol) * reference.elements[symbol].per_atom for symbol in system
            )
            found[place] = HullDistance(per_atom - elements, per_atom - below, None, *counts, mixture)
    return [found[place] for place in range(len(crystals))]


class _Hull:
    """The lower convex hull of the entries of one chemical system."""

    def __init__(self, entries: Sequence[ReferenceEntry], system: frozenset[str]) -> None:
        # Only the lowest entry of a composition can be on the hull.
        lowest: dict[str, ReferenceEntry] = {}
        for entry in entries:
            formula = entry.composition.reduced_formula
            if formula not in lowest or entry.per_atom < lowest[formula].per_atom:
                lowest[formula] = entry
        self._entries = list(lowest.values())
        self._symbols = sorted(system)
        self._diagram: Any = None
        if len(system) <= _DIAGRAM_ELEMENTS:
            # Takes seconds to import.
            from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram

            self._diagram = PhaseDiagram([PDEntry(entry.composition, entry.energy) for entry in self._entries])

    def lowest(self, composition: Composition) -> tuple[float, tuple[tuple[str, float], ...]]:
        """Return the hull's energy at a composition, eV/atom, and its mixture as formulas and shares of atoms."""
        shares = self._diagram_shares(composition) if self._diagram is not None else self._programme(composition)
        energy = sum(share * per_atom for _, share, per_atom in shares)
        return energy, tuple((formula, share) for formula, share, _ in shares)

    def _diagram_shares(self, composition: Composition) -> list[tuple[str, float, float]]:
        """Return formula, share of atoms and energy per atom of the phases in the decomposition of a composition."""
        parts = self._diagram.get_decomposition(composition)
        return [(entry.reduced_formula, float(share), entry.energy_per_atom) for entry, share in parts.items()]

    def _programme(self, composition: Composition) -> list[tuple[str, float, float]]:
        """Return the same by a linear programme: the mixture with this composition and the lowest energy."""
        from scipy.optimize import linprog

        amounts = [[e.composition.get_atomic_fraction(symbol) for e in self._entries] for symbol in self._symbols]
        wanted = [composition.get_atomic_fraction(symbol) for symbol in self._symbols]
        shares = linprog([entry.per_atom for entry in self._entries], A_eq=amounts, b_eq=wanted, method="highs").x
        return [
            (entry.composition.reduced_formula, float(share), entry.per_atom)
            for entry, share in zip(self._entries, shares, strict=True)
            if share > 1e-9
        ]
