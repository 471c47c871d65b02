"""Reading crystals from CIF text.

The listed atoms are the asymmetric unit; symmetry operations (`crystens.cif.symmetry`) generate the others. Images of a
site within `Limits.merge_distance` are merged at their mean, so that 1/3 rounded to 0.3333 gives one atom and not two.
Otherwise coordinates are kept, and wrapped into [0, 1). CrysTens images hold ordered crystals only: `Limits` decides
about partial occupancy and about hydrogens without coordinates.

The crystal must be the one that the file describes: its composition is compared with `_chemical_formula_sum`. An
ambiguous or contradictory file is rejected with a reason, and never read as one of several possible crystals.

Each data block is one entry. Blocks without a cell and without atoms (the text of a publication) are skipped if another
block holds a crystal.

Source: core CIF dictionary, International Tables for Crystallography G (2005), ch. 4.1.
"""

from __future__ import annotations

import math

import numpy as np
from gemmi import cif

from crystens.cif.formula_sum import FormulaSum, check_composition, formula_sum, formula_units
from crystens.cif.items import Items, is_null, plain
from crystens.cif.operations import Operations
from crystens.cif.settings import stated_number
from crystens.cif.sites import HEAVY_ATOM, Sites, sites_of
from crystens.cif.symmetry import Symmetry, symmetry
from crystens.cif.syntax import data_blocks
from crystens.crystal import Crystal
from crystens.distances import nearest_steps
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Reject, Unusable, quoted
from crystens.sources.texts import decoded, plain_lines

_CELL_TAGS = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
_CELL_NAMES = tuple(f"_cell_{tag}" for tag in _CELL_TAGS)
_MAX_WORK = 10**8  # pairs of operations, times atoms: 192 operations on 100 atoms need 4 % of it
_NO_CIF = "export the structure as CIF again"


def read_cif(content: bytes | str, file: str, limits: Limits) -> list[Entry | Reject]:
    """Return one entry or reject for each data block of a CIF, or one reject for a text that is no CIF.

    Args:
        content: the text, or its bytes: UTF-8, UTF-16 or Latin-1, with or without a byte order mark, gzipped or not.
        file: name to report.
        limits: bounds on usable crystals.
    """
    try:
        blocks = data_blocks(plain_lines(content if isinstance(content, str) else decoded(content)))
        holding = [block for block in blocks if isinstance(block.items, Unusable) or _holds_a_crystal(block.items)]
        if not holding:
            raise Unusable("no crystal in the file: no data block with a cell and atoms", _NO_CIF)
    except Unusable as error:
        return [Reject(file, "", error.reason, error.advice)]
    results: list[Entry | Reject] = []
    for block in holding:
        try:
            if isinstance(block.items, Unusable):
                raise block.items
            crystal, hydrogens = _crystal(block.items, limits)
            stated = stated_number(block.items)
            results.append(Entry(file, block.name, crystal, hydrogens_left_out=hydrogens, stated_space_group=stated))
        except Unusable as error:
            results.append(Reject(file, block.name, error.reason, error.advice))
    return results


def _holds_a_crystal(items: Items) -> bool:
    """Return whether a block has a cell or atoms."""
    return any(any(items.column(name)[:1]) for name in (*_CELL_NAMES, "_atom_site_fract_x"))


def _crystal(items: Items, limits: Limits) -> tuple[Crystal, int]:
    """Return the crystal of one data block, and the number of left out hydrogens in its cell."""
    lengths, angles = _cell(items)
    matrix = limits.check_cell(lengths, angles)
    formula = formula_sum(items)
    sites = sites_of(items, formula, limits)
    if not len(sites):
        raise Unusable("no atoms in the cell: every row is a dummy site, empty or without a place", _NO_CIF)
    numbers, coordinates = sites.numbers, sites.coordinates
    if sites.is_disordered:
        rows, numbers = limits.occupied(numbers, coordinates, sites.occupancies, matrix)
        coordinates = coordinates[rows]
    operations = _decided(symmetry(items, matrix), sites, formula, formula_units(items), matrix, limits)
    counts = np.ones(len(numbers), dtype=np.int64)
    if len(operations) > 1:
        coordinates, counts = _expanded(coordinates, operations, matrix, limits)
        numbers = np.repeat(numbers, counts)
    multiplicities = counts if len(counts) == len(sites) else _multiplicities(sites, operations, matrix, limits)
    hydrogens = _hydrogens_left_out(sites, multiplicities, formula, limits)
    if limits.occupancy == "reject" or not sites.is_disordered:
        check_composition(formula, _amounts(sites, multiplicities), hydrogens > 0)
    return limits.crystal(lengths, angles, numbers, coordinates), hydrogens


def _amounts(sites: Sites, multiplicities: np.ndarray) -> dict[int, float]:
    """Return the number of atoms of each atomic number in the cell."""
    amounts: dict[int, float] = {}
    for number, amount in zip(sites.numbers.tolist(), (multiplicities * sites.occupancies).tolist(), strict=True):
        amounts[number] = amounts.get(number, 0.0) + amount
    return amounts


def _decided(
    found: Symmetry, sites: Sites, formula: FormulaSum | None, units: int | None, matrix: np.ndarray, limits: Limits
) -> Operations:
    """Return the operations of the reading of the symmetry that agrees with the number of atoms.

    Raises:
        Unusable: if the number of atoms excludes the only reading, or does not decide between several.
    """
    first = found.readings[0].operations
    if not found.doubt:
        return first
    by_formula = formula is not None and units is not None
    if found.default and not by_formula:
        return first
    verdicts = []
    for reading in found.readings:
        try:
            multiplicities = _multiplicities(sites, reading.operations, matrix, limits)
        except Unusable:
            verdicts.append(False)
            continue
        if by_formula:
            verdicts.append(formula.counts(_amounts(sites, multiplicities), units))  # type: ignore[union-attr, arg-type]
        else:
            verdicts.append(sites.has_multiplicities(multiplicities))
    if found.default:
        # Z is often wrong: it excludes a reading only if another one has the right number of atoms, or if the file
        # states no symmetry and atoms are missing.
        silent = len(found.readings) == 1
        lacking = silent and sum(_amounts(sites, np.ones(len(sites))).values()) < formula.total * units - 0.5  # type: ignore[union-attr, operator]
        if verdicts[0] or not (any(verdicts) or lacking):
            return first
    elif verdicts.count(True) == 1:
        return found.readings[verdicts.index(True)].operations
    raise Unusable(found.doubt, found.advice)


def _multiplicities(sites: Sites, operations: Operations, matrix: np.ndarray, limits: Limits) -> np.ndarray:
    """Return the number of images of each row of atoms in the cell, (n,)."""
    if len(operations) == 1:
        return np.ones(len(sites), dtype=np.int64)
    return _expanded(sites.coordinates, operations, matrix, limits)[1]


def _hydrogens_left_out(sites: Sites, multiplicities: np.ndarray, formula: FormulaSum | None, limits: Limits) -> int:
    """Return the number of hydrogens without coordinates in the cell.

    Hydrogens that a file attaches to an atom do not count if its formula shows that all atoms are listed.

    Raises:
        Unusable: if there are any, and `Limits.groups` is "reject".
    """
    counted = sites.groups
    if sites.attached.any():
        listed = formula is not None and "H" in formula.elements and formula.agrees(_amounts(sites, multiplicities))
        if not listed and limits.groups == "reject":
            row = int(sites.attached.argmax())
            found = f"{sites.name(row)} has {sites.attached[row]:g}"
            raise Unusable(f"hydrogens without a place: {found} by _atom_site_attached_hydrogens", HEAVY_ATOM)
        counted = counted if listed else counted + sites.attached
    if not counted.any():
        return sites.lost
    return max(1, round(float((counted * multiplicities * sites.occupancies).sum()))) + sites.lost


def _cell(items: Items) -> tuple[np.ndarray, np.ndarray]:
    """Return lengths (3,), angstrom, and angles (3,), degrees."""
    values = []
    for tag in _CELL_TAGS:
        texts = items.column(f"_cell_{tag}")
        if not texts or is_null(texts[0]):
            raise Unusable(f"_cell_{tag} missing", "complete the cell in the file")
        text = plain(texts[0])
        value = cif.as_number(text)
        if not math.isfinite(value):
            raise Unusable(f"cell is not a number: _cell_{tag} is {quoted(text)}", "correct the cell")
        if tag.startswith("length") and value <= 0:
            raise Unusable(f"cell length must be > 0: _cell_{tag} is {value:g}", "correct the cell in the file")
        if tag.startswith("angle") and not 0 < value < 180:
            raise Unusable(
                f"cell angle must lie strictly between 0 and 180 degrees: _cell_{tag} is {value:g}",
                "correct the cell in the file",
            )
        values.append(value)
    return np.array(values[:3]), np.array(values[3:])


def _expanded(
    coordinates: np.ndarray, operations: Operations, matrix: np.ndarray, limits: Limits
) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates (N, 3) of all images of sites (n, 3), one site after the other, and their numbers (n,)."""
    if len(operations) ** 2 * len(coordinates) > _MAX_WORK:
        raise Unusable(
            f"too many symmetry operations: {len(operations)} for {len(coordinates)} atoms",
            "list all atoms under x,y,z instead",
        )
    sites: list[np.ndarray] = []
    counts: list[int] = []
    for site in coordinates:
        images = operations.rotations @ site + operations.translations
        steps = nearest_steps(matrix, (images - images[:, None]).reshape(-1, 3), limits.merge_distance)
        x, y, z = (steps @ matrix).T
        near = (x * x + y * y + z * z <= limits.merge_distance**2).reshape(len(images), len(images))
        firsts = np.flatnonzero(near.argmax(axis=1) == np.arange(len(images)))
        if len(images) % len(firsts):
            place = ", ".join(f"{x:.5g}" for x in site)
            raise Unusable(
                f"two atoms closer than any bond: of {len(images)} images of the site at {place} some coincide within "
                f"{limits.merge_distance:g} angstrom and others do not",
                "give the coordinates of special positions more exactly",
            )
        if len(firsts) < len(images):
            weights = near[firsts] / near[firsts].sum(axis=1, keepdims=True)
            images = images[firsts] + np.einsum("ij,ijk->ik", weights, steps.reshape(*near.shape, 3)[firsts])
        sites.append(images)
        counts.append(len(firsts))
        limits.check_read_count(sum(counts))
    return np.concatenate(sites), np.array(counts)
