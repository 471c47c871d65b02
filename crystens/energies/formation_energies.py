"""A hull of formation energies from a table, such as those of density functional theory, with elements at 0.

A formation energy is the energy of a crystal minus that of its elements, by the same method. Total energies of two
methods are never compared (`crystens.energies.potentials`). Formation energies are compared, only in this module: the
formation energy of a crystal by a potential, with the potential's own energies of the elements, is compared with a hull
of formation energies from a table. The potential's error for an element then enters all compounds of that element;
`experiments/hull` measures this error.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pymatgen.core import Composition

from crystens.crystal import Crystal
from crystens.energies.energies import EnergyOptions
from crystens.energies.entry_files import checked_entry, file_text
from crystens.energies.hull_entries import (
    DEEPEST,
    HullReference,
    ReferenceEntry,
    composition_of,
    elements_of,
    ground_states,
)
from crystens.energies.known_crystals import entries_of
from crystens.energies.potentials import Potential
from crystens.errors import CrystensError, first_line
from crystens.formats.csv_table import CSV_SUFFIXES, CsvTable
from crystens.ingest.kinds import open_source
from crystens.sources.files import MAX_BYTES
from crystens.sources.properties import kept
from crystens.sources.record import Unusable, shown

COLUMN = "formation_energy_per_atom"
FORMATION = "formation energies, elements at 0"  # scale of a hull that is used without a potential
_EXPECTED = "a table with the columns formula and {}"
_BELOW_ELEMENTS = -0.01  # eV/atom; a form of an element cannot lie below 0, except by rounding


@dataclass(frozen=True)
class FormationEnergies:
    """Formation energies of phases.

    Attributes:
        name: name for titles.
        entries: the phases, with formation energies as energies.
        crystals: crystals of the phases, if the source has them.
        left_out: number of phases without an energy or a crystal, by reason.
    """

    name: str
    entries: tuple[ReferenceEntry, ...]
    crystals: tuple[Crystal, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)


def read_formation_energies(path: str | Path, column: str = COLUMN, split: str | None = None) -> FormationEnergies:
    """Return the formation energies of a file, eV/atom in it.

    Args:
        path: a table with the columns formula and `column` (.csv, .csv.gz), or any source of crystals with the property
            `column`, such as a table with a column cif, or the folder of `mp_52`.
        column: name of the formation energy, see `data.properties`.
        split: split of a source, see `crystens.energies.known_crystals.read_known`.

    Raises:
        CrystensError: if the file cannot be read, or holds impossible formation energies: an element below 0, or
            anything below `DEEPEST`.
    """
    path = Path(path).expanduser()
    found = _by_formula(path, column)
    energies = _by_crystal(path, column, split) if found is None else found
    for entry in energies.entries:
        alone = len(entry.composition) == 1
        if entry.per_atom < (_BELOW_ELEMENTS if alone else DEEPEST):
            limit = "an element has 0 or more" if alone else f"no crystal has less than {DEEPEST:g}"
            raise CrystensError(
                f"{path}: {entry.label} has {column} {entry.per_atom:g} eV/atom, which is no formation energy "
                f"({limit}); give the column of formation energies, or total energies as entries"
            )
    if not energies.entries:
        told = ", ".join(f"{count} {reason}" for reason, count in energies.left_out.items())
        raise CrystensError(f"{path} has no formation energies in {column}: {told}")
    return energies


def formation_hull(
    table: FormationEnergies,
    potential: Potential | None = None,
    options: EnergyOptions | None = None,
    compared: Sequence[Crystal] = (),
) -> HullReference:
    """Return a hull of formation energies, to compare the formation energies of crystals with.

    Args:
        table: the formation energies.
        potential: potential for crystals and their elements (`ground_states`); None for crystals whose energies are
            given as formation energies, with the scale `FORMATION`.
        options: options of the computation of the elements' energies.
        compared: crystals that will be compared with the hull by the potential.

    Crystals with an element for which the potential has no energy are unknown.
    """
    symbols = {element.symbol for entry in table.entries for element in entry.composition}
    entries = [*table.entries, *_at_zero(symbols)]
    name = f"{len(table.entries)} formation energies of {table.name} and elements at 0"
    if potential is None:
        return HullReference(entries, FORMATION, name, table.left_out)
    note = (
        f"distances combine two methods: formation energies of samples are by {potential.identity}, with its energies "
        "of the elements, and those of the hull come from the table; errors of the potential enter (experiments/hull)"
    )
    reference = HullReference(entries, potential.identity, name, table.left_out, note, {})
    return with_element_energies(reference, elements_of(compared), potential, options, table.crystals)


def with_element_energies(
    reference: HullReference,
    symbols: set[str],
    potential: Potential,
    options: EnergyOptions | None = None,
    crystals: Sequence[Crystal] = (),
) -> HullReference:
    """Return a hull of formation energies extended by elements, which are at 0.

    Args:
        reference: the hull.
        symbols: symbols of the elements.
        potential: potential for their energies; an element without an energy is left out.
        options: options of the computation of the elements' energies.
        crystals: crystals that may contain further forms of elements.
    """
    forms, _ = ground_states(symbols, potential, options, crystals)
    lowest: dict[str, float] = {}
    for form in forms:
        symbol = form.composition.chemical_system
        lowest[symbol] = min(form.per_atom, lowest.get(symbol, math.inf))
    return reference.extended(_at_zero(lowest.keys() - reference.elements.keys()), lowest)


def _at_zero(symbols: set[str]) -> list[ReferenceEntry]:
    """Return entries of elements with a formation energy of 0."""
    return [ReferenceEntry(Composition(symbol), 0.0, f"{symbol}, at 0") for symbol in sorted(symbols)]


def _by_formula(path: Path, column: str) -> FormationEnergies | None:
    """Return the formation energies of a table with formulas; None for any other file."""
    if not path.name.lower().endswith(CSV_SUFFIXES) or "formula" not in (CsvTable(path).columns() or ()):
        return None
    csv.field_size_limit(MAX_BYTES)
    table = csv.DictReader(file_text(path, _EXPECTED.format(column)).splitlines(keepends=True))
    _check_column(path, column, table.fieldnames or ())
    entries, left_out = [], Counter[str]()
    for row in table:
        try:
            value = kept(row, [column])[column]
            if math.isnan(value):
                left_out[f"no {column}"] += 1
                continue
            composition = Composition(row["formula"])
            entries.append(checked_entry(composition, value * composition.num_atoms, row["formula"]))
        except (TypeError, ValueError, Unusable) as error:
            raise CrystensError(f"{path}, line {table.line_num}: {first_line(error)}; correct or delete it") from error
    return FormationEnergies(path.name, tuple(entries), left_out=dict(left_out))


def _by_crystal(path: Path, column: str, split: str | None) -> FormationEnergies:
    """Return the formation energies of a source of crystals."""
    source = open_source(str(path)).keeping([column])
    if (columns := source.columns()) is not None:
        _check_column(path, column, columns)
    found, left_out = entries_of(source, str(path), split)
    there = [item for item in found if not math.isnan(item.properties[column])]
    left_out = Counter(left_out) + Counter({f"no {column}": len(found) - len(there)})
    entries = tuple(
        ReferenceEntry(
            composition_of(item.crystal),
            item.properties[column] * len(item.crystal),
            f"{item.entry or item.file} {item.crystal.formula}",
        )
        for item in there
    )
    name = f"{path.resolve().name}{'' if split is None else f', {split}'}"
    return FormationEnergies(name, entries, tuple(item.crystal for item in there), dict(left_out))


def _check_column(path: Path, column: str, columns: Sequence[str]) -> None:
    """Raise a CrystensError if a file has no such column."""
    if column not in columns:
        raise CrystensError(f"{path} has no column {column}; there are: {shown(', '.join(columns), 300)}")
