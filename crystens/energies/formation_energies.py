"""A hull of formation energies as a table has them, such as those by density functional theory, with elements at 0.

A formation energy is the energy of a crystal less that of its elements, all by one method. Total energies of two
methods are never compared (`crystens.energies.potentials`). Formation energies are, here and nowhere else: the energy
of a crystal by a potential, less that of its elements by the same potential, is put on a hull of a table's formation
energies. An error of the potential about an element is then an error about each of its compounds; `experiments/hull`
measures it.
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
FORMATION = "formation energies, elements at 0"  # the scale of a hull that no potential is put on
_EXPECTED = "a table with the columns formula and {}"
_BELOW_ELEMENTS = -0.01  # eV/atom; an element's form cannot lie below the element at 0, but for rounding


@dataclass(frozen=True)
class FormationEnergies:
    """Formation energies of phases.

    Attributes:
        name: what they are, for titles.
        entries: each phase, with its formation energy as its energy.
        crystals: the phases, where the source gives more than formulas.
        left_out: how many phases have no energy or no crystal, by reason.
    """

    name: str
    entries: tuple[ReferenceEntry, ...]
    crystals: tuple[Crystal, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)


def read_formation_energies(path: str | Path, column: str = COLUMN, split: str | None = None) -> FormationEnergies:
    """Return the formation energies of a file, eV/atom in it.

    Args:
        path: a table with the columns formula and `column` (.csv, .csv.gz), or any source of crystals whose records say
            `column`, such as a table with the column cif, or the folder of `mp_52`.
        column: name of the formation energy, see `data.properties`.
        split: of a source, see `crystens.energies.known_crystals.read_known`.

    Raises:
        CrystensError: if the file cannot be read as that, or holds what are no formation energies: an element below 0,
            or anything below `DEEPEST`.
    """
    path = Path(path).expanduser()
    found = _by_formula(path, column)
    energies = _by_crystal(path, column, split) if found is None else found
    for entry in energies.entries:
        alone = len(entry.composition) == 1
        if entry.per_atom < (_BELOW_ELEMENTS if alone else DEEPEST):
            limit = "an element has 0 or more" if alone else f"no crystal has less than {DEEPEST:g}"
            raise CrystensError(
                f"{path}: {entry.label} has {column} {entry.per_atom:g} eV/atom, which is no formation energy, for "
                f"{limit}; give the column of formation energies, or total energies as entries"
            )
    if not energies.entries:
        told = ", ".join(f"{count} {reason}" for reason, count in energies.left_out.items())
        raise CrystensError(f"{path} holds no formation energy by the name {column}: {told}")
    return energies


def formation_hull(
    table: FormationEnergies,
    potential: Potential | None = None,
    options: EnergyOptions | None = None,
    compared: Sequence[Crystal] = (),
) -> HullReference:
    """Return the hull of formation energies, on which crystals stand by theirs.

    Args:
        table: the formation energies.
        potential: by which crystals are put on the hull, with its own energies of their elements (`ground_states`);
            None for crystals whose formation energies are given as their energies, with the scale `FORMATION`.
        options: how the energies of elements are computed.
        compared: crystals that will be compared with the hull by the potential.

    Crystals of an element of which the potential has no energy are unknown.
    """
    symbols = {element.symbol for entry in table.entries for element in entry.composition}
    entries = [*table.entries, *_at_zero(symbols)]
    name = f"{len(table.entries)} formation energies of {table.name} and elements at 0"
    if potential is None:
        return HullReference(entries, FORMATION, name, table.left_out)
    note = (
        f"two scales meet here: formation energies of samples are by {potential.identity} and its own energies of the "
        "elements, those of the hull are the table's; the potential's errors are in each distance (experiments/hull)"
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
    """Return a hull of formation energies on which crystals of more elements stand; elements are at 0 in it.

    Args:
        reference: the hull.
        symbols: of the elements.
        potential: what gives their energies; an element that it has none of is left out.
        options: how the energies of elements are computed.
        crystals: where elements may be found too.
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
    """Return the formation energies of a table with formulas; None for what is no such table."""
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
            raise CrystensError(f"{path}, line {table.line_num}: {first_line(error)}; mend or delete it") from error
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
