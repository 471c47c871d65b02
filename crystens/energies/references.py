"""The hull that samples are compared with: of elements alone, of known crystals, or from a file.

Samples as generated are compared with unrelaxed crystals, relaxed samples with relaxed crystals. Relaxed samples
would appear to lie below a hull of unrelaxed crystals: relaxation lowers real crystals by tenths of an electronvolt per
atom, because their cells are not at the potential's minimum (`experiments/sun`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from crystens.crystal import Crystal
from crystens.energies.energies import EnergyOptions
from crystens.energies.entry_files import read_hull_reference
from crystens.energies.formation_energies import FormationEnergies, formation_hull, with_element_energies
from crystens.energies.hull_entries import HullReference, elements_of, ground_states, self_consistent
from crystens.energies.known_crystals import KnownCrystals
from crystens.energies.potentials import MP2020, Potential


@dataclass(frozen=True)
class HullSource:
    """Energies of a hull: the first field that is not None, or the elements alone if all are None.

    Attributes:
        entries: a file of total energies, see `read_hull_reference`.
        scale: the scale of the energies in that file.
        formation: formation energies.
        known: real crystals; their energies and those of elements, all by the potential.
    """

    entries: str | None = None
    scale: str = MP2020
    formation: FormationEnergies | None = None
    known: KnownCrystals | None = None


def reference_of(
    samples: Sequence[Crystal],
    potential: Potential,
    options: EnergyOptions,
    source: HullSource,
    progress: Callable[[int, int], None] | None = None,
) -> HullReference:
    """Return the hull that samples are compared with.

    Args:
        samples: the crystals that will be compared; a reference by the potential contains all of their elements.
        potential: the potential.
        options: options of the computation. With a relaxation, which should be that of the samples, only the competing
            known crystals are relaxed, whose elements are all in one sample.
        source: energies of the hull. With elements alone the energy above hull equals the formation energy.
        progress: called with the number of finished known crystals, and their total.

    Raises:
        CrystensError: if a file cannot be read, or no entry has an energy.
    """
    if source.entries is not None:
        return read_hull_reference(source.entries, source.scale)
    if source.formation is not None:
        return formation_hull(source.formation, potential, options, samples)
    if (known := source.known) is None:
        found, _ = ground_states(elements_of(samples), potential, options)
        return HullReference(found, potential.identity, f"elements by {potential.identity}")
    crystals: Sequence[Crystal] = known.crystals
    name = f"{known.name} and elements, by {potential.identity}"
    if options.relaxation is not None:
        crystals = competing(crystals, samples)
        name = f"{len(crystals)} of {known.name}, those of the samples' elements, and elements, all relaxed by "
        name += potential.identity
    told = None if progress is None else lambda done: progress(done, len(crystals))
    return self_consistent(crystals, potential, options, name, samples, told)


def competing(crystals: Sequence[Crystal], samples: Sequence[Crystal]) -> list[Crystal]:
    """Return the crystals whose elements are all contained in one sample."""
    systems = {frozenset(sample.numbers.tolist()) for sample in samples}
    own = [frozenset(crystal.numbers.tolist()) for crystal in crystals]
    taken = {system for system in set(own) if any(system <= other for other in systems)}
    return [crystal for crystal, system in zip(crystals, own, strict=True) if system in taken]


def with_elements(
    reference: HullReference, crystals: Sequence[Crystal], potential: Potential, options: EnergyOptions
) -> HullReference:
    """Return a reference extended by the elements of crystals, if its energies are by the potential.

    A reference of total energies from a file is returned unchanged: crystals with missing elements are unknown.
    """
    missing = elements_of(crystals) - reference.known_elements
    if not missing or reference.scale != potential.identity:
        return reference
    if reference.element_energies is not None:
        return with_element_energies(reference, missing, potential, options)
    found, _ = ground_states(missing, potential, options)
    return reference.extended(found)
