"""Formation energy and energy above hull of crystals, against a reference that says what it is.

The formation energy of a crystal is its energy less that of its elements, each in the lowest form that the reference
has. The energy above hull is its energy less that of the mixture of reference entries of its composition that lies
lowest, elements and compounds of every sub-system of its elements among them: a ternary crystal may stand above two
binaries. Both are in eV/atom and made of total energies of cells, never of formation energies.

The distance is that to the reference's hull, of which the crystal is not made a part: an entry of the reference has 0
or more, and a crystal that lies below all that the reference knows has a negative value. A hull that knows few
compounds lies too high, so that a value is a lower bound of the true distance; each keeps how many entries stand behind
it, and where no compound does (`only_elements`) it is the formation energy over again.

Where the reference lacks an element of the crystal both values are unknown, with the reason. Energies of different
scales are never compared (`crystens.metrics.energy`).

Source: Ong et al., "Li-Fe-P-O2 phase diagram from first principles calculations", Chem. Mater. 2008, 20, 1798;
pymatgen's PhaseDiagram is that.
"""

from __future__ import annotations

import csv
import gzip
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Composition, Element

from crystens.crystal import Crystal
from crystens.errors import CrystensError, first_line
from crystens.metrics.energies import EnergyOptions, energies
from crystens.metrics.energy import Energy, Relaxation, reason_counts
from crystens.metrics.potentials import Potential

log = logging.getLogger(__name__)

# Of more elements the diagram's convex hull has too many facets; the same minimum is then a linear programme.
_DIAGRAM_ELEMENTS = 6

# How elements are relaxed, whatever is done with the crystals: their cells come from experiments and not from the
# potential, and an element that is too high makes every compound of it look stable.
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
        composition: of its cell, or of any amount that the energy is of.
        energy: total energy of that amount, eV.
        label: what it is, for people.
    """

    composition: Composition
    energy: float
    label: str = ""

    @property
    def per_atom(self) -> float:
        """Energy by atom, eV."""
        return self.energy / self.composition.num_atoms


class HullReference:
    """Phases that crystals are compared with, all of one scale.

    Attributes:
        name: what the reference is, for titles.
        scale: the scale of its energies.
        entries: all phases.
        elements: symbol to the lowest entry of that element alone.
        left_out: how many phases have no energy, by reason.

    Raises:
        CrystensError: if there is no entry.
    """

    def __init__(
        self, entries: Sequence[ReferenceEntry], scale: str, name: str, left_out: dict[str, int] | None = None
    ) -> None:
        """Sort the entries by the elements in them."""
        if not entries:
            raise CrystensError(f"the reference {name} holds no entry with an energy; give one with entries")
        self.name = name
        self.scale = scale
        self.entries = tuple(entries)
        self.left_out = left_out or {}
        self.elements: dict[str, ReferenceEntry] = {}
        self._systems: dict[frozenset[str], list[ReferenceEntry]] = defaultdict(list)
        for entry in entries:
            system = frozenset(element.symbol for element in entry.composition)
            self._systems[system].append(entry)
            if len(system) == 1:
                (symbol,) = system
                if symbol not in self.elements or entry.per_atom < self.elements[symbol].per_atom:
                    self.elements[symbol] = entry

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


@dataclass(frozen=True)
class HullDistance:
    """Where one crystal stands.

    Attributes:
        formation_energy: eV/atom; None if unknown.
        above_hull: energy above the reference's hull, eV/atom, negative below it; None if unknown.
        reason: why they are unknown, `category: details`.
        num_entries: reference entries of the crystal's elements, sub-systems included.
        num_compounds: those of them of two elements and more.
        decomposition: formulas of the lowest mixture, and the share of the atoms in each.
    """

    formation_energy: float | None
    above_hull: float | None
    reason: str | None
    num_entries: int = 0
    num_compounds: int = 0
    decomposition: tuple[tuple[str, float], ...] = ()

    @property
    def only_elements(self) -> bool:
        """Whether the values are known and no compound competes, so that the hull is that of the elements alone."""
        return self.reason is None and self.num_compounds == 0


def hull_distances(
    crystals: Sequence[Crystal], computed: Sequence[Energy], potential: Potential, reference: HullReference
) -> list[HullDistance]:
    """Return where each crystal stands, in order.

    Args:
        crystals: the crystals.
        computed: their energies by the potential, as `energies` gives them.
        potential: what they were computed by.
        reference: what they are compared with.

    Raises:
        CrystensError: if the reference is not on a scale of the potential.
    """
    if reference.scale not in potential.scales:
        raise CrystensError(
            f"{reference.name} holds energies of the scale {reference.scale!r}, which those of {potential.identity} "
            f"cannot be compared with; give a reference of {' or '.join(map(repr, potential.scales))}"
        )
    systems: dict[frozenset[str], list[int]] = defaultdict(list)
    for place, crystal in enumerate(crystals):
        systems[frozenset(Element.from_Z(int(z)).symbol for z in set(crystal.numbers.tolist()))].append(place)
    found: dict[int, HullDistance] = {}
    for system, places in systems.items():
        missing = sorted(system - reference.elements.keys())
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
            composition = _composition(crystal)
            per_atom = energy.total / len(crystal)
            below, mixture = hull.lowest(composition)
            elements = sum(
                composition.get_atomic_fraction(symbol) * reference.elements[symbol].per_atom for symbol in system
            )
            found[place] = HullDistance(per_atom - elements, per_atom - below, None, *counts, mixture)
    return [found[place] for place in range(len(crystals))]


class _Hull:
    """The lower convex hull of the entries of one chemical system."""

    def __init__(self, entries: Sequence[ReferenceEntry], system: frozenset[str]) -> None:
        # Of one composition only the lowest entry can be part of the hull.
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
        """Return the hull's energy at a composition, eV/atom, and the formulas and shares of atoms that make it."""
        shares = self._diagram_shares(composition) if self._diagram is not None else self._programme(composition)
        energy = sum(share * per_atom for _, share, per_atom in shares)
        return energy, tuple((formula, share) for formula, share, _ in shares)

    def _diagram_shares(self, composition: Composition) -> list[tuple[str, float, float]]:
        """Return formula, share of atoms and energy per atom of what the phase diagram has at a composition."""
        parts = self._diagram.get_decomposition(composition)
        return [(entry.reduced_formula, float(share), entry.energy_per_atom) for entry, share in parts.items()]

    def _programme(self, composition: Composition) -> list[tuple[str, float, float]]:
        """Return the same by a linear programme: the mixture of this composition whose energy is lowest."""
        from scipy.optimize import linprog

        amounts = [[e.composition.get_atomic_fraction(symbol) for e in self._entries] for symbol in self._symbols]
        wanted = [composition.get_atomic_fraction(symbol) for symbol in self._symbols]
        shares = linprog([entry.per_atom for entry in self._entries], A_eq=amounts, b_eq=wanted, method="highs").x
        return [
            (entry.composition.reduced_formula, float(share), entry.per_atom)
            for entry, share in zip(self._entries, shares, strict=True)
            if share > 1e-9
        ]


# References


def self_consistent(
    crystals: Sequence[Crystal],
    potential: Potential,
    options: EnergyOptions | None = None,
    name: str = "the crystals' own hull",
    compared: Sequence[Crystal] = (),
    progress: Callable[[int], None] | None = None,
) -> HullReference:
    """Return a reference of crystals, such as those of training, and of elements, all by one potential.

    The crystals are computed as the options say, which should be what is done with those that are compared. Elements
    are always relaxed (`ground_states`). Crystals without an energy are left out and counted.

    Args:
        crystals: real crystals.
        potential: what gives the energies.
        options: how they are computed.
        name: what the reference is called.
        compared: crystals that will be compared with it: their elements, but not they, are in the reference too.
        progress: called with the number of crystals that are done.

    Raises:
        CrystensError: if no crystal has an energy.
    """
    computed = energies(crystals, potential, options, progress)
    entries = [
        ReferenceEntry(_composition(crystal), energy.total, f"{crystal.formula} of the crystals")
        for crystal, energy in zip(crystals, computed, strict=True)
        if energy.total is not None
    ]
    symbols = {
        Element.from_Z(int(z)).symbol for crystal in [*crystals, *compared] for z in set(crystal.numbers.tolist())
    }
    elements, missing = ground_states(symbols, potential, options, crystals)
    left_out = reason_counts(energy.reason for energy in computed)
    if missing:
        log.warning("no ground state of %s by %s", ", ".join(sorted(missing)), potential.identity)
    return HullReference([*entries, *elements], potential.identity, name, left_out)


def ground_states(
    symbols: set[str], potential: Potential, options: EnergyOptions | None = None, crystals: Sequence[Crystal] = ()
) -> tuple[list[ReferenceEntry], dict[str, str]]:
    """Return entries of elements, each form relaxed by the potential, and why elements have none, by symbol.

    Forms of an element are those among the crystals, pymatgen's AFLOW prototypes that are that element, ASE's
    reference state where ASE can build it, and for H, He, F, Cl, Br, Te and Pm the forms of an element of the same
    kind. Forms of more than 32 sites count only where there is no smaller one. All are kept: the lowest is the
    reference. Nothing is fetched.

    Args:
        symbols: of the elements.
        potential: what gives the energies.
        options: of which all but the relaxation counts.
        crystals: where elements may be found too; the rest of them is passed over.
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


def read_reference(path: str | Path, scale: str, name: str | None = None) -> HullReference:
    """Return the reference of a file of entries.

    Args:
        path: `.json` or `.json.gz`, a list of pymatgen's ComputedEntry or ComputedStructureEntry as dictionaries (such
            as mp-api's MPRester gives and monty's dumpfn writes), of which the corrected energy counts; or `.csv` or
            `.csv.gz` with the columns formula and energy_per_atom, eV/atom.
        scale: what the energies may be compared with: `MP2020` for those of the Materials Project with its corrections
            of 2020, or the identity of the potential that they are by. The file cannot tell.
        name: what the reference is called; None for the file's name.

    Raises:
        CrystensError: if the file cannot be read as that.
    """
    path = Path(path).expanduser()
    expected = "pymatgen entries (.json) or a table with formula and energy_per_atom (.csv)"
    plain = path.name.removesuffix(".gz")
    if not plain.endswith((".json", ".csv")):
        raise CrystensError(f"{path} is no file of entries; give {expected}")
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.name.endswith(".gz") else content).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise CrystensError(f"cannot read {path}: {first_line(error)}; give {expected}") from error
    entries = list(_json_entries(text, path) if plain.endswith(".json") else _csv_entries(text, path))
    return HullReference(entries, scale, name or path.name)


def _json_entries(text: str, path: Path) -> Iterator[ReferenceEntry]:
    """Yield the entries of a JSON file."""
    try:
        items = json.loads(text)
    except ValueError as error:
        raise CrystensError(f"{path} is not JSON: {error}; write it with monty's dumpfn") from error
    if not isinstance(items, list):
        raise CrystensError(f"{path} holds a {type(items).__name__}; give a list of entries")
    for number, item in enumerate(items):
        try:
            # The energy there is without the correction.
            energy = float(item["energy"]) + float(item.get("correction") or 0.0)
            composition = item["composition"] if "composition" in item else _sites(item["structure"])
            entry = _entry(composition, energy, str(item.get("entry_id") or ""))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise CrystensError(
                f"{path}, entry {number}: {error!r}; an entry needs composition and energy, as ComputedEntry has them"
            ) from error
        yield entry


def _csv_entries(text: str, path: Path) -> Iterator[ReferenceEntry]:
    """Yield the entries of a table."""
    table = csv.DictReader(text.splitlines())
    lacking = {"formula", "energy_per_atom"} - set(table.fieldnames or ())
    if lacking:
        raise CrystensError(f"{path} has no column {' and no '.join(sorted(lacking))}; name them on its first line")
    for row in table:
        try:
            composition = Composition(row["formula"])
            entry = _entry(composition, float(row["energy_per_atom"]) * composition.num_atoms, row["formula"])
        except (TypeError, ValueError) as error:
            raise CrystensError(f"{path}, line {table.line_num}: {first_line(error)}; mend or delete it") from error
        yield entry


def _entry(composition: Any, energy: float, label: str) -> ReferenceEntry:
    """Return an entry whose values are checked."""
    plain = Composition(composition).element_composition
    if not plain.num_atoms > 0 or not np.isfinite(energy):
        raise ValueError(f"composition {plain.formula!r} with energy {energy}")
    if any(not Element.is_valid_symbol(element.symbol) for element in plain):
        raise ValueError(f"composition {plain.formula!r} holds what is no element")
    return ReferenceEntry(plain, energy, label)


def _sites(structure: dict[str, Any]) -> dict[str, float]:
    """Return the composition of a structure's dictionary."""
    amounts: dict[str, float] = defaultdict(float)
    for site in structure["sites"]:
        for species in site["species"]:
            amounts[species["element"]] += species["occu"]
    return amounts


def _composition(crystal: Crystal) -> Composition:
    """Return the composition of the cell of a crystal."""
    numbers, amounts = np.unique(crystal.numbers, return_counts=True)
    return Composition({Element.from_Z(int(z)): int(n) for z, n in zip(numbers, amounts, strict=True)})
