"""Cleaning of generated crystals, with a list of all changes.

1. An element is replaced if the composition is not neutral and becomes neutral with a neighbour in atomic number
   (`crystens.candidates.neutrality`).
2. The crystal is symmetrised. The generated space group is imposed if the atoms have it within `generated_tolerance`,
   at the smallest of several tolerances. Otherwise the group with the most operations is imposed that the atoms have
   within `found_tolerance`. Tolerances are at most a tenth of the shortest distance, because larger ones confuse
   neighbouring sites.
3. Coordinates that the group fixes become exact fractions (`crystens.candidates.special_positions`).

Elements are replaced first, because two sites may be equivalent once they have the same element.

Source: Alverson et al., Digital Discovery 2024, 3, 62, Sec. 6, where this was done by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pymatgen.symmetry.groups import sg_symbol_from_int_number

from crystens.candidates.changes import Change
from crystens.candidates.generated import Sample
from crystens.candidates.neutrality import OXIDATION_STATES, Substitution, charge_verdict, repairs, symbol
from crystens.candidates.special_positions import on_special_positions
from crystens.crystal import Crystal
from crystens.distances import shortest_lengths
from crystens.errors import CrystensError
from crystens.symmetry.space_groups import TOLERANCES, SymmetrisedCrystal, group_within, imposed

_SMALLEST_CHANGE = 1e-3  # angstrom and degree; smaller changes are rounding in a file
_AS_WRITTEN = 0.01  # angstrom: tolerance for the group of a crystal as generated


@dataclass(frozen=True)
class CleaningOptions:
    """Options of cleaning.

    Attributes:
        oxidation_states: smact's list, one of `OXIDATION_STATES`.
        max_shift: largest change in atomic number when an element is replaced; 0 replaces none.
        generated_tolerance: tolerance for the generated space group, angstrom.
        found_tolerance: tolerance for any other space group, angstrom.

    Raises:
        CrystensError: if an option is out of range.
    """

    oxidation_states: str = "smact14"
    max_shift: int = 2
    generated_tolerance: float = 0.3
    found_tolerance: float = 0.01

    def __post_init__(self) -> None:
        """Check the options."""
        if self.oxidation_states not in OXIDATION_STATES:
            raise CrystensError(
                f"oxidation_states={self.oxidation_states!r} are not known; use one of {', '.join(OXIDATION_STATES)}"
            )
        if self.max_shift < 0:
            raise CrystensError(f"max_shift must be at least 0, got {self.max_shift}")
        for name in ("generated_tolerance", "found_tolerance"):
            if not 0 < getattr(self, name) <= 1:
                raise CrystensError(f"{name} must be above 0 and at most 1 angstrom, got {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class Cleaned:
    """A cleaned crystal.

    Attributes:
        crystal: the crystal; its space group is the imposed one, or that found at 0.01 angstrom, or 1.
        changes: the changes, in order.
        charge: "neutral", "element", "alloy", "repaired", "not neutral" or "not tested".
        symmetry: the imposed symmetry; None if none could be imposed.
        group_before: space group number as generated, at 0.01 angstrom; None if none is found.
        tolerance: tolerance at which the atoms had the imposed group, angstrom; None without one.
    """

    crystal: Crystal
    changes: tuple[Change, ...]
    charge: str
    symmetry: SymmetrisedCrystal | None
    group_before: int | None
    tolerance: float | None


def substitutions_of(
    crystals: Sequence[Crystal],
    options: CleaningOptions,
    energy_of: Callable[[list[Crystal]], tuple[list[float | None], str]],
) -> list[tuple[Substitution | None, str]]:
    """Return the substitution that makes each crystal neutral, with the reason for its choice, or None.

    Args:
        crystals: the crystals.
        options: options of cleaning.
        energy_of: function that returns energies of crystals, eV/atom or None, and their name; it breaks ties.
    """
    ties: list[list[Substitution]] = []
    for crystal in crystals:
        lacking = options.max_shift > 0 and charge_verdict(crystal, options.oxidation_states) == "not neutral"
        ties.append(repairs(crystal, options.oxidation_states, options.max_shift) if lacking else [])
    tried = [item.apply(crystal) for crystal, tie in zip(crystals, ties, strict=True) if len(tie) > 1 for item in tie]
    computed, kind = energy_of(tried) if tried else ([], "")
    waiting = iter(computed)
    chosen: list[tuple[Substitution | None, str]] = []
    for crystal, tie in zip(crystals, ties, strict=True):
        values = [next(waiting) for _ in tie] if len(tie) > 1 else [0.0] * len(tie)
        if not tie:
            chosen.append((None, ""))
            continue
        best = min(range(len(tie)), key=lambda place: (values[place] is None, values[place] or 0.0, place))
        item, new = tie[best], tie[best].apply(crystal).formula
        why = (
            f"{crystal.formula} is not neutral (smact, {options.oxidation_states}, Pauling), {new} is, at the smallest "
            f"total change in atomic number ({item.total})"
        )
        if len(tie) > 1:
            others = ", ".join(other.apply(crystal).formula for other in tie if other is not item)
            why += f"; of the same change were {others}: lowest {kind}"
        chosen.append((item, why))
    return chosen


def clean(
    sample: Sample, crystal: Crystal, substitution: tuple[Substitution | None, str], options: CleaningOptions
) -> Cleaned:
    """Return a cleaned crystal.

    Args:
        sample: the sample, for its generated group and the sites that the decoder merged.
        crystal: its crystal.
        substitution: the element to replace and why, see `substitutions_of`.
        options: options of cleaning.
    """
    changes: list[Change] = []
    if sample.merged_sites:
        before, after = len(crystal) + sample.merged_sites, len(crystal)
        why = "the decoder merged sites that stood within another"
        changes.append(Change("merged sites", "", before, after, sample.merged_sites, "sites", why))
    charge = charge_verdict(crystal, options.oxidation_states)
    group_before = _group(crystal)
    item, why = substitution
    if item is not None:
        old, new = symbol(item.old), symbol(item.new)
        where = f"all {item.sites} sites of {old}"
        changes.append(Change("element", where, old, new, item.total, "total change in atomic number", why))
        crystal, charge = item.apply(crystal), "repaired"
    symmetry, tolerance, why = _symmetry_of(crystal, sample.generated_group, options)
    if symmetry is None:
        group = _group(crystal) or 1
        crystal = Crystal(crystal.lengths, crystal.angles, group, crystal.numbers, crystal.coordinates)
        return Cleaned(crystal, tuple(changes), charge, None, group_before, None)
    placed = on_special_positions(symmetry)
    made = placed.symmetry.crystal
    changes += _changes(crystal, made, placed.shift, placed.fixed, group_before, why)
    return Cleaned(made, tuple(changes), charge, placed.symmetry, group_before, tolerance)


def group_name(number: int | None) -> str:
    """Return symbol and number of a space group."""
    return "none found" if number is None else f"{sg_symbol_from_int_number(number)} ({number})"


def _group(crystal: Crystal) -> int | None:
    """Return the space group number of a crystal as generated."""
    return group_within(crystal, _AS_WRITTEN)


def _symmetry_of(
    crystal: Crystal, generated: int | None, options: CleaningOptions
) -> tuple[SymmetrisedCrystal | None, float | None, str]:
    """Return the symmetry to impose, the tolerance at which the atoms have it, and the reason for its choice."""
    tolerances = sorted({*TOLERANCES, options.generated_tolerance, options.found_tolerance})
    found = imposed(crystal, generated, options.generated_tolerance, options.found_tolerance, tolerances)
    if found is None:
        return None, None, ""
    symmetry, within = found
    if symmetry.crystal.space_group == generated and within <= options.generated_tolerance:
        return symmetry, within, f"the generated space group, which the atoms have within {within} angstrom"
    stated = "none was generated" if generated is None else f"not the generated {group_name(generated)}"
    return symmetry, within, f"the space group that the atoms have within {within} angstrom; {stated}"


def _changes(
    old: Crystal, new: Crystal, shift: np.ndarray, fixed: np.ndarray, group_before: int | None, why: str
) -> list[Change]:
    """Return the changes by symmetrisation and by the shift of the origin; sites keep their order."""
    changes: list[Change] = []
    group = group_name(new.space_group)
    if new.space_group != group_before:
        changes.append(Change("space group", "", group_name(group_before), group, 1, "group", why))
    cell = np.concatenate([new.lengths - old.lengths, new.angles - old.angles])
    if np.abs(cell).max() > _SMALLEST_CHANGE:
        before, after = ([*c.lengths.round(5).tolist(), *c.angles.round(5).tolist()] for c in (old, new))
        told = f"made that of {group}; angles changed by {np.abs(cell[3:]).max():.3g} degrees"
        changes.append(Change("cell", "", before, after, float(np.abs(cell[:3]).max()), "angstrom", told))
    matrix = old.lattice.matrix
    away = float(np.linalg.norm(shift @ matrix))
    if away > _SMALLEST_CHANGE:
        told = f"moved onto that of {group}; the crystal is the same"
        changes.append(Change("origin", "all sites", [0, 0, 0], shift.round(6).tolist(), away, "angstrom", told))
    steps = new.coordinates + shift - old.coordinates
    ways = shortest_lengths(matrix, steps)
    for site in np.flatnonzero(ways > _SMALLEST_CHANGE):
        axes = " ".join(axis for axis, held in zip("xyz", fixed[site], strict=True) if held)
        told = (
            f"special position of {group}, which fixes {axes}" if axes else f"averaged over the operations of {group}"
        )
        where = f"site {site + 1} ({symbol(int(new.numbers[site]))})"
        before, after = old.coordinates[site].round(6).tolist(), new.coordinates[site].round(6).tolist()
        changes.append(Change("coordinates", where, before, after, float(ways[site]), "angstrom", told))
    return changes
