"""Writing crystals as CIF text.

A crystal is written in its given cell, without conversion. There are two forms:

- All sites with the identity operation, which every reader understands. The standard tags state P 1, because they must
  agree with the listed operations; `_crystens_space_group_IT_number` holds the group that was found.
- The asymmetric unit with the operations of the space group, in the basis of the given cell, with the group in the
  standard tags and the origin at the group's conventional origin (a rigid shift of all sites). No Hermann-Mauguin
  symbol is written, because it would claim a standard setting.

The second form is used only if pymatgen, ASE and gemmi all read it as the same crystal. It needs rotations with entries
-1, 0, 1 only (pymatgen silently reads "2*x+y" as x+y), translations that are multiples of 1/24 (gemmi rejects and ASE
misreads others), and the number in `_space_group_IT_number` (ASE raises without it). For cells with other operations,
such as skewed cells and supercells, the first form is written.

Source: core CIF dictionary, International Tables for Crystallography G (2005), ch. 4.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import moyopy
import numpy as np
from pymatgen.core import Element

from crystens.chemistry.formulas import formula_sum, reduced_composition
from crystens.crystal import Crystal, wrap
from crystens.symmetry.space_groups import SymmetrisedCrystal

# Tag of the stated space group of an image, which may differ from the group of the atoms; 0 if none is stated.
GENERATED_GROUP = "_crystens_generated_space_group_IT_number"

_DENOMINATOR = 24  # every translation of a space group in a conventional or primitive cell is a multiple of 1/24


def write_cif(
    crystal: Crystal | SymmetrisedCrystal,
    name: str | None = None,
    operations: bool = True,
    extra: Mapping[str, str | float] | None = None,
) -> str:
    """Return the CIF text of one crystal; the text begins with `data_`.

    Args:
        crystal: a crystal, written with all its sites, or a symmetrised one, written with its operations.
        name: name of the data block; by default the reduced formula.
        operations: False writes all sites of a symmetrised crystal too.
        extra: further items, tag (with its underscore) to value.
    """
    symmetry = _asymmetric_unit(crystal) if operations and isinstance(crystal, SymmetrisedCrystal) else None
    if isinstance(crystal, SymmetrisedCrystal):
        crystal = crystal.crystal
    found = crystal.space_group
    sites = (crystal.numbers, crystal.coordinates)
    if symmetry is None:
        group = ["_symmetry_space_group_name_H-M 'P 1'", *_numbers(1), f"_crystens_space_group_IT_number {found}"]
        listed = ["x,y,z"]
    else:
        listed, sites = symmetry
        group = [*_numbers(found), f"_crystens_space_group_IT_number {found}"]
    items = [f"{tag} {_quoted(value)}" for tag, value in (extra or {}).items()]
    return "\n".join(
        [
            f"data_{_block_name(name or crystal.formula)}",
            *_formula(crystal),
            *(f"_cell_length_{axis} {value:.8f}" for axis, value in zip("abc", crystal.lengths, strict=True)),
            *(
                f"_cell_angle_{angle} {value:.8f}"
                for angle, value in zip(("alpha", "beta", "gamma"), crystal.angles, strict=True)
            ),
            *group,
            *items,
            "loop_",
            "_space_group_symop_operation_xyz",
            *(f"'{triplet}'" for triplet in listed),
            "loop_",
            "_atom_site_label",
            "_atom_site_type_symbol",
            "_atom_site_fract_x",
            "_atom_site_fract_y",
            "_atom_site_fract_z",
            "_atom_site_occupancy",
            *_atom_rows(*sites),
            "",
        ]
    )


def _asymmetric_unit(symmetry: SymmetrisedCrystal) -> tuple[list[str], tuple[np.ndarray, np.ndarray]] | None:
    """Return the operations as triplets, and the atomic number and coordinates of one site of each orbit.

    None if some reader would misread the operations.
    """
    rotations, origin = symmetry.rotations, symmetry.origin
    steps = (rotations @ origin + symmetry.translations - origin) * _DENOMINATOR
    point_group = np.unique(rotations, axis=0)
    expected = len(moyopy.operations_from_number(symmetry.crystal.space_group, primitive=True))
    if np.abs(rotations).max() > 1 or np.abs(steps - np.round(steps)).max() > 1e-5 or len(point_group) != expected:
        return None
    steps = np.round(steps).astype(np.int64) % _DENOMINATOR
    # The identity comes first, as readers expect.
    order = np.argsort(
        [not (np.array_equal(r, np.eye(3)) and not t.any()) for r, t in zip(rotations, steps, strict=True)]
    )
    firsts = np.unique(symmetry.orbits)
    coordinates = wrap(symmetry.crystal.coordinates[firsts] - origin)
    return [_triplet(rotations[k], steps[k]) for k in order], (symmetry.crystal.numbers[firsts], coordinates)


def _triplet(rotation: np.ndarray, steps: np.ndarray) -> str:
    """Return an operation in the notation x,y,z; steps (3,) are translations in units of 1/24."""
    parts = []
    for row, step in zip(rotation.tolist(), steps.tolist(), strict=True):
        part = "".join("+-"[value < 0] + axis for value, axis in zip(row, "xyz", strict=True) if value)
        if step:
            divisor = int(np.gcd(step, _DENOMINATOR))
            part += f"+{step // divisor}/{_DENOMINATOR // divisor}"
        parts.append(part.removeprefix("+"))
    return ",".join(parts)


def _numbers(space_group: int) -> list[str]:
    """Return the space group number under its new and its old tag, because some readers know only one of them."""
    return [f"_space_group_IT_number {space_group}", f"_symmetry_Int_Tables_number {space_group}"]


def _formula(crystal: Crystal) -> list[str]:
    """Return the items for the formula unit and for the number of formula units in the cell."""
    composition = reduced_composition(crystal.numbers)
    units = len(crystal) // sum(amount for _, amount in composition)
    return [f"_chemical_formula_sum '{formula_sum(composition)}'", f"_cell_formula_units_Z {units}"]


def _atom_rows(numbers: np.ndarray, coordinates: np.ndarray) -> list[str]:
    """Return the rows of the atom_site loop; labels count the sites of each element."""
    seen: dict[str, int] = {}
    rows = []
    for number, (x, y, z) in zip(numbers, coordinates.tolist(), strict=True):
        symbol = _symbol(number)
        seen[symbol] = seen.get(symbol, 0) + 1
        rows.append(f"{symbol}{seen[symbol]} {symbol} {x:.10f} {y:.10f} {z:.10f} 1")
    return rows


def _symbol(number: int | np.integer) -> str:
    """Return the element symbol of an atomic number."""
    return Element.from_Z(int(number)).symbol


def _block_name(name: str) -> str:
    """Return a name as a CIF block code: printable, no blanks, at most 75 characters."""
    return re.sub(r"[^!-~]", "_", name)[:75]


def _quoted(value: str | float) -> str:
    """Return a value as CIF text on one line; single quotes inside become backticks."""
    text = " ".join(str(value).split())
    if re.fullmatch(r"[A-Za-z0-9.+-][!-~]*", text) and not re.match(r"(?i)data_|save_|loop_|stop_|global_", text):
        return text
    return "'" + text.replace("'", "`") + "'"
