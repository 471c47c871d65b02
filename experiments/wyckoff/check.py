"""Compares `crystens/symmetry/wyckoff.json` with spglib's and pymatgen's tables; see README.md.

python experiments/wyckoff/check.py
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter

import numpy as np
import spglib
from pymatgen.symmetry.groups import SpaceGroup as PymatgenGroup

from crystens.symmetry.wyckoff import SpaceGroup, WyckoffPosition, space_group

# Cells without symmetry beyond that of their family, rows are vectors; and points in general position.
_TRICLINIC = np.array([[10, 0, 0], [1.3, 11, 0], [1.7, 2.1, 13]])
_MONOCLINIC = np.array([[10, 0, 0], [0, 11, 0], [-2.3, 0, 13]])
_HEXAGONAL = np.array([[10, 0, 0], [-5, np.sqrt(75), 0], [0, 0, 13]])
_POINTS = np.array([[0.13717, 0.21093, 0.34791], [0.41, 0.27, 0.181]])


def main() -> None:
    """Compare all groups, and print agreements and differences."""
    warnings.simplefilter("ignore")
    counts: Counter[str] = Counter()
    for number in range(1, 231):
        group = space_group(number)
        hall = _hall_number(group)
        counts["groups with the operations of a setting of spglib"] += hall is not None
        counts["groups with the operations of pymatgen's setting"] += _pymatgen_operations(number) == _keys(group)
        for position in group.positions:
            counts["positions"] += 1
            if hall is not None:
                for question, answer in _against_spglib(group, position, hall).items():
                    counts[f"positions with spglib's {question}"] += answer
            counts["positions with pymatgen's multiplicity"] += _against_pymatgen(group, position)
    for name, count in counts.items():
        sys.stdout.write(f"{count:6d} {name}\n")


def _keys(group: SpaceGroup) -> set[tuple[int, ...]]:
    """Return the operations of a group as whole numbers."""
    return {_key(r, t) for r, t in zip(group.rotations, group.translations, strict=True)}


def _key(rotation: np.ndarray, translation: np.ndarray) -> tuple[int, ...]:
    """Return an operation as whole numbers, its translation in 24ths."""
    return (*np.rint(rotation).astype(int).ravel().tolist(), *(np.rint(translation * 24).astype(int) % 24).tolist())


def _hall_number(group: SpaceGroup) -> int | None:
    """Return spglib's number of the setting with the same operations."""
    for hall in range(1, 531):
        kind, found = spglib.get_spacegroup_type(hall), spglib.get_symmetry_from_database(hall)
        if kind is None or found is None or kind.number != group.number:
            continue
        if {_key(r, t) for r, t in zip(found["rotations"], found["translations"], strict=True)} == _keys(group):
            return hall
    return None


def _pymatgen_operations(number: int) -> set[tuple[int, ...]]:
    """Return the operations of pymatgen's group of a number."""
    operations = PymatgenGroup.from_int_number(number).symmetry_ops
    return {_key(operation.rotation_matrix, operation.translation_vector) for operation in operations}


def _against_spglib(group: SpaceGroup, position: WyckoffPosition, hall: int) -> dict[str, bool]:
    """Return whether spglib agrees on a crystal with atoms on a position and two others in general position."""
    cell = _cell(group.number)
    special = position.linear @ (0.83 * _POINTS[0]) + position.shift
    numbers, places = [], []
    general = group.positions[-1]
    for element, orbit in enumerate((position.orbit(special), *(general.orbit(p) for p in _POINTS)), start=1):
        numbers += [element] * len(orbit)
        places += (orbit % 1).tolist()
    found = spglib.get_symmetry_dataset((cell.tolist(), places, numbers), symprec=1e-4, hall_number=hall)
    if found is None or found.number != group.number:
        return {"group": False}
    # spglib may use another origin; its letters belong to its own coordinates.
    moved = found.transformation_matrix @ places[0] + found.origin_shift
    standard = np.linalg.inv(found.transformation_matrix.T) @ cell
    here, _ = group.classified(moved, standard @ standard.T, 1e-3)
    symmetry = {p.letter: p.site_symmetry for p in group.positions}[here.letter]
    return {
        "group": True,
        "letter": found.wyckoffs[0] == here.letter,
        "multiplicity": Counter(found.wyckoffs)[found.wyckoffs[0]] % here.multiplicity == 0
        and int((found.crystallographic_orbits == found.crystallographic_orbits[0]).sum()) == position.multiplicity,
        "site symmetry": found.site_symmetry_symbols[0] == symmetry,
        "letter, at the same origin": bool(np.allclose(moved, places[0])) and here.letter == position.letter,
    }


def _against_pymatgen(group: SpaceGroup, position: WyckoffPosition) -> bool:
    """Return whether pymatgen's operations give the same number of sites, if its setting is the same."""
    if _pymatgen_operations(group.number) != _keys(group):
        return False
    point = position.linear @ _POINTS[0] + position.shift
    return len(PymatgenGroup.from_int_number(group.number).get_orbit(point)) == position.multiplicity


def _cell(number: int) -> np.ndarray:
    """Return vectors of a cell of the group's family, as rows, angstrom."""
    if number <= 2:
        return _TRICLINIC
    if number <= 15:
        return _MONOCLINIC
    if number <= 74:
        return np.diag([10.0, 11, 13])
    if number <= 142:
        return np.diag([10.0, 10, 13])
    return _HEXAGONAL if number <= 194 else 10 * np.eye(3)


if __name__ == "__main__":
    main()
