"""Entries of a hull, with energies of one scale, computed by the potential or read from a file (`entry_files`).

Energies are in eV for a whole cell, unless a name says per atom. Energies of different scales are never compared
(`crystens.energies.potentials`).
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pymatgen.core import Composition, Element

from crystens.crystal import Crystal
from crystens.energies.energies import EnergyOptions, energies
from crystens.energies.potentials import Potential
from crystens.energies.relaxation import Relaxation
from crystens.errors import CrystensError
from crystens.sources.reasons import category_counts

log = logging.getLogger(__name__)

# The most stable compounds, fluorides and oxides of thorium and lanthanum, have formation energies of -4.2 to -4.4
# eV/atom. Lower energies of a potential are extrapolations: -61 occurred in a relaxation with atoms too near.
DEEPEST = -5.0  # eV/atom

# Elements are always relaxed, even if crystals are not: their cells come from experiments, and an element with too high
# an energy would make all of its compounds look stable.
_ELEMENT_RELAXATION = Relaxation(steps=300, force=0.05)
_ELEMENT_SITES = 32  # as alpha sulphur has; larger forms (clathrates, beta boron) take minutes and are hardly lower
# Elements for which neither ASE nor pymatgen has a ground state: an element of the same structure type, another crystal
# of two-atom molecules or another noble gas, and what its cell is multiplied by to begin with.
_RELATED = {
    "H": ("N", 1.0),
    "He": ("Ne", 0.9),
    "F": ("O", 1.0),
    "Cl": ("I", 0.86),
    "Br": ("I", 0.92),
    "Te": ("Se", 1.1),
    "Pm": ("La", 0.97),
}


@dataclass(frozen=True)
class ReferenceEntry:
    """One phase that crystals are compared with.

    Attributes:
        composition: composition of its cell, or of any other amount.
        energy: total energy of that amount, eV.
        label: name for messages.
    """

    composition: Composition
    energy: float
    label: str = ""

    @property
    def per_atom(self) -> float:
        """Energy per atom, eV."""
        return self.energy / self.composition.num_atoms


class HullReference:
    """Phases that crystals are compared with, all on one scale.

    Attributes:
        name: name for titles.
        scale: the scale of the energies that are compared with it.
        entries: all phases.
        elements: symbol to the lowest entry of that element alone.
        left_out: number of phases without an energy, by reason.
        note: remark on the hull for readers of the distances.
        element_energies: by symbol, the energies of elements that are subtracted from the energies of crystals,
            eV/atom, if the entries are formation energies (`crystens.energies.formation_energies`); None if they are
            total energies.

    Raises:
        CrystensError: if there is no entry.
    """

    def __init__(
        self,
        entries: Sequence[ReferenceEntry],
        scale: str,
        name: str,
        left_out: dict[str, int] | None = None,
        note: str = "",
        element_energies: dict[str, float] | None = None,
    ) -> None:
        """Sort the entries by the elements in them."""
        if not entries:
            raise CrystensError(f"the reference {name} has no entry with an energy; give a reference with entries")
        self.name = name
        self.scale = scale
        self.entries = tuple(entries)
        self.left_out = left_out or {}
        self.note = note
        self.element_energies = element_energies
        self.elements: dict[str, ReferenceEntry] = {}
        self._systems: dict[frozenset[str], list[ReferenceEntry]] = defaultdict(list)
        for entry in entries:
            system = frozenset(element.symbol for element in entry.composition)
            self._systems[system].append(entry)
            if len(system) == 1:
                (symbol,) = system
                if symbol not in self.elements or entry.per_atom < self.elements[symbol].per_atom:
                    self.elements[symbol] = entry

    @property
    def known_elements(self) -> frozenset[str]:
        """Symbols of the elements in the reference; crystals of other elements cannot be compared."""
        known = self.elements.keys() if self.element_energies is None else self.element_energies.keys()
        return frozenset(known) & self.elements.keys()

    def extended(
        self, entries: Sequence[ReferenceEntry], element_energies: dict[str, float] | None = None
    ) -> HullReference:
        """Return this reference with more entries, and with more energies of elements if it has any."""
        energies = None if self.element_energies is None else self.element_energies | (element_energies or {})
        return HullReference([*self.entries, *entries], self.scale, self.name, self.left_out, self.note, energies)

    def of_system(self, system: frozenset[str]) -> list[ReferenceEntry]:
        """Return all entries of a chemical system and of the systems within it."""
        if 2 ** len(system) < len(self._systems):
            symbols = sorted(system)
            within = (
                frozenset(s for place, s in enumerate(symbols) if number >> place & 1)
                for number in range(1, 2 ** len(symbols))
            )
            return [entry for part in within for entry in self._systems.get(part, ())]
        return [entry for part, entries in self._systems.items() if part <= system for entry in entries]


def self_consistent(
    crystals: Sequence[Crystal],
    potential: Potential,
    options: EnergyOptions | None = None,
    name: str = "the crystals' own hull",
    compared: Sequence[Crystal] = (),
    progress: Callable[[int], None] | None = None,
) -> HullReference:
    """Return a reference of crystals (such as the training data) and of elements, all by one potential.

    The options should be those of the crystals that will be compared with it. Elements are always relaxed
    (`ground_states`). Crystals without an energy are left out and counted.

    Args:
        crystals: real crystals.
        potential: the potential.
        options: options of the computation.
        name: name of the reference.
        compared: crystals that will be compared with it; their elements are added to the reference, they are not.
        progress: called with the number of finished crystals.

    Raises:
        CrystensError: if no crystal has an energy.
    """
    computed = energies(crystals, potential, options, progress)
    entries = [
        ReferenceEntry(composition_of(crystal), energy.total, f"{crystal.formula} of the crystals")
        for crystal, energy in zip(crystals, computed, strict=True)
        if energy.total is not None
    ]
    elements, missing = ground_states(elements_of([*crystals, *compared]), potential, options, crystals)
    left_out = category_counts(energy.reason for energy in computed)
    moving = sum(energy.relaxed is not None and not energy.relaxed.converged for energy in computed)
    note = f"{moving} of the hull's {len(crystals)} crystals are not converged, and may go lower" if moving else ""
    if missing:
        log.warning("no ground state of %s by %s", ", ".join(sorted(missing)), potential.identity)
    return HullReference([*entries, *elements], potential.identity, name, left_out, note)


def ground_states(
    symbols: set[str], potential: Potential, options: EnergyOptions | None = None, crystals: Sequence[Crystal] = ()
) -> tuple[list[ReferenceEntry], dict[str, str]]:
    """Return entries of all forms of elements, relaxed by the potential, and the reasons of missing elements by symbol.

    Forms of an element come from the crystals, from pymatgen's AFLOW prototypes, from ASE's reference states that ASE
    can build, and for H, He, F, Cl, Br, Te and Pm from an element of the same kind. Forms of more than 32 sites are
    used only if there is no smaller one. All forms are kept, and the lowest is the reference. Nothing is downloaded.

    Args:
        symbols: symbols of the elements.
        potential: the potential.
        options: options of the computation; their relaxation is ignored.
        crystals: crystals that may contain further forms of elements; compounds among them are ignored.
    """
    forms: dict[str, list[tuple[str, Crystal]]] = {symbol: [] for symbol in sorted(symbols)}
    for crystal in crystals:
        kinds = set(crystal.numbers.tolist())
        if len(kinds) == 1 and (symbol := Element.from_Z(int(kinds.pop())).symbol) in forms:
            forms[symbol].append(("the crystals", crystal))
    for symbol, label, crystal in _known_forms():
        if symbol in forms:
            forms[symbol].append((label, crystal))
        for other, (related, scale) in _RELATED.items():
            if symbol == related and other in forms:
                numbers = np.full(len(crystal), Element(other).Z)
                swapped = replace(crystal, numbers=numbers, lengths=scale * crystal.lengths)
                forms[other].append((f"as {label}", swapped))
    listed = []
    for symbol, found in forms.items():
        small = [(label, crystal) for label, crystal in found if len(crystal) <= _ELEMENT_SITES]
        listed += [(symbol, label, crystal) for label, crystal in small or found]
    options = replace(options or EnergyOptions(), relaxation=_ELEMENT_RELAXATION)
    computed = energies([crystal for *_, crystal in listed], potential, options)
    entries = []
    missing = dict.fromkeys(forms, "no form of it is known here")
    for (symbol, label, crystal), energy in zip(listed, computed, strict=True):
        if energy.total is None:
            missing[symbol] = energy.reason or ""
        else:
            entries.append(ReferenceEntry(Composition({symbol: len(crystal)}), energy.total, f"{symbol}, {label}"))
    for entry in entries:
        missing.pop(entry.composition.chemical_system, None)
    return entries, missing


def _known_forms() -> Iterator[tuple[str, str, Crystal]]:
    """Yield symbol, name and crystal of forms of elements that ASE and pymatgen ship."""
    # Takes seconds to import.
    from ase.build import bulk
    from ase.data import chemical_symbols, reference_states
    from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY

    for prototype in AFLOW_PROTOTYPE_LIBRARY:
        structure = prototype["snl"].structure
        if len(structure.composition) == 1 and structure.is_ordered:
            symbol = next(iter(structure.composition)).symbol
            yield symbol, prototype["tags"]["aflow"], Crystal.from_structure(structure, 1)
    for symbol, state in zip(chemical_symbols, reference_states, strict=False):
        try:
            atoms = bulk(symbol)
        except (ValueError, KeyError, TypeError, NotImplementedError, RuntimeError):
            continue  # a molecule, or a lattice that ASE does not build
        shape = atoms.cell.cellpar()
        label = f"{(state or {}).get('symmetry')} of ASE"
        yield symbol, label, Crystal(shape[:3], shape[3:], 1, atoms.numbers, atoms.get_scaled_positions())


def composition_of(crystal: Crystal) -> Composition:
    """Return the composition of the cell of a crystal."""
    numbers, amounts = np.unique(crystal.numbers, return_counts=True)
    return Composition({Element.from_Z(int(z)): int(n) for z, n in zip(numbers, amounts, strict=True)})


def elements_of(crystals: Iterable[Crystal]) -> set[str]:
    """Return the symbols of all elements in crystals."""
    return {Element.from_Z(z).symbol for z in {z for crystal in crystals for z in crystal.numbers.tolist()}}
