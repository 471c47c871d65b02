"""The Wyckoff positions and normalisers of all 230 space groups, as `crystens/symmetry/wyckoff.json`; see README.md.

python experiments/wyckoff/run.py crystens/symmetry/wyckoff.json

Positions. The fixed points of an operation (R, t) of the group, up to a lattice translation, form affine subspaces:
points, lines and planes. Two subspaces belong to one Wyckoff position if an operation of the group moves one onto the
other. All of them pass through points with coordinates in 24ths, so the search needs only these points and the
operations of the group. moyopy then names the subspaces: for a crystal with an atom on the subspace and others in
general position it gives letter, site symmetry and the coordinates of International Tables.

Normalisers. A motion x -> W x + w normalises the group if it maps the operations of the group onto themselves. The
table has motions with det W = 1, which keep the hand of a crystal, modulo the group itself: they lead to other origins
and axes that describe the crystal in the same setting. W is a rotation of the lattice of the family, or for
orthorhombic groups a permutation of axes, or for monoclinic groups a change of a and c with coefficients of at most 2;
w is in 24ths. Along polar axes any shift is allowed; they are named, and w is 0 there.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import logging
import sys
from pathlib import Path
from typing import Any

import moyopy
import numpy as np

GRID = 24
GROUPS = 230
_MIRRORED_TRICLINIC = 2  # the last group whose lattice has no symmetry beyond inversion
# Integer vectors, the shortest first, for bases of the directions at a point.
_SMALL = np.array(sorted(itertools.product((0, 1, -1, 2, -2), repeat=3), key=lambda v: sum(map(abs, v)))[1:])
_GENERIC = np.array([0.13717, 0.21093, 0.34791])  # on no special position in any group


def main() -> None:
    """Write the table of all groups, one line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    logging.getLogger("moyo").setLevel(logging.ERROR)
    rows = []
    for number in range(1, GROUPS + 1):
        rows.append(f'"{number}": ' + json.dumps(group_table(number), separators=(",", ":")))
        sys.stdout.write(f"\r{number} of {GROUPS} groups")
        sys.stdout.flush()
    out.write_text("{\n" + ",\n".join(rows) + "\n}\n")
    sys.stdout.write("\n")


def group_table(number: int) -> dict[str, Any]:
    """Return the entry of one group in the file.

    Returns:
        positions: [letter, multiplicity, site symmetry, representative] of each, the general position last.
        polar: the axes (0, 1, 2) along which the origin is free.
        shifts: [x, y, z] in 24ths, translations that normalise the group, modulo lattice and polar axes.
        turns: [W row by row, w in 24ths], one for each W modulo the group's point group; the identity first.
    """
    rotations, translations = operations(number)
    centring = translations[(rotations == np.eye(3, dtype=int)).all(axis=(1, 2))]
    names = _named_positions(number, rotations, translations)
    polar = [axis for axis in range(3) if (rotations[:, axis, axis] == 1).all()]
    shifts, turns = _normaliser(number, rotations, translations, centring, polar)
    return {"positions": names, "polar": polar, "shifts": shifts, "turns": turns}


def operations(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rotations (M, 3, 3) and translations (M, 3) in 24ths of a group in its standard setting."""
    found = moyopy.operations_from_number(number, setting=moyopy.Setting.standard())
    translations = np.array(found.translations) * GRID
    whole = np.rint(translations).astype(int)
    assert np.abs(translations - whole).max() < 1e-6
    return np.array(found.rotations), whole % GRID


def _named_positions(number: int, rotations: np.ndarray, translations: np.ndarray) -> list[list[Any]]:
    """Return [letter, multiplicity, site symmetry, representative] of each Wyckoff position, the general one last."""
    known: dict[str, moyopy.WyckoffPosition] = {}
    subspaces = _subspaces(rotations, translations)
    for point, directions in subspaces:
        known |= {name.letter: name for name in _probed(number, rotations, translations, point, directions)}
    # Every subspace has one name, every name one subspace.
    found = []
    for point, directions in subspaces:
        letters = [
            letter
            for letter, name in known.items()
            if _same_position(rotations, translations, (point, directions), _affine(name.coordinates))
        ]
        assert len(letters) == 1, (number, point, directions, letters)
        found += letters
    assert sorted(found) == sorted(known), (number, found, list(known))
    order = sorted(known.values(), key=lambda name: ("A" <= name.letter <= "Z", name.letter))
    return [[name.letter, name.multiplicity, name.site_symmetry, name.coordinates] for name in order]


def _subspaces(rotations: np.ndarray, translations: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return one point (3,), in 24ths, and the directions (f, 3) of one subspace of each Wyckoff position."""
    axis = np.arange(GRID)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    images = (np.einsum("mij,pj->mpi", rotations, grid) + translations[:, None]) % GRID
    places = images @ [GRID**2, GRID, 1]
    fixed = places == np.arange(len(grid))  # (M, P)
    first = places.min(axis=0) == np.arange(len(grid))  # one point of each orbit
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for place in np.flatnonzero(first & (fixed.sum(axis=0) > 1)):
        for directions in _kept_spaces(rotations[fixed[:, place]]):
            candidate = (grid[place], directions)
            if not any(_same_position(rotations, translations, candidate, other) for other in found):
                found.append(candidate)
    if not any(len(directions) == 3 for _, directions in found):
        found.append((np.zeros(3, dtype=int), np.eye(3, dtype=int)))
    return found


def _kept_spaces(rotations: np.ndarray) -> list[np.ndarray]:
    """Return the directions of all intersections of spaces that the rotations keep, each (f, 3) of whole numbers."""
    equations = {_reduced(rotation - np.eye(3, dtype=int)) for rotation in rotations}
    while True:
        both = {_reduced(np.array(one + other)) for one, other in itertools.combinations(equations, 2)}
        if both <= equations:
            break
        equations |= both
    return [_kernel(np.array(rows).reshape(-1, 3)) for rows in sorted(equations)]


def _reduced(rows: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """Return the reduced row echelon form of whole rows, each row scaled to whole numbers without a common factor."""
    rows = rows.astype(int).copy()
    top = 0
    for column in range(rows.shape[1]):
        pivots = np.flatnonzero(rows[top:, column]) + top
        if not len(pivots):
            continue
        rows[[top, pivots[0]]] = rows[[pivots[0], top]]
        rows[top] *= np.sign(rows[top, column])
        for other in range(len(rows)):
            if other != top:
                rows[other] = rows[other] * rows[top, column] - rows[top] * rows[other, column]
        top += 1
        if top == len(rows):
            break
    return tuple(tuple((row // np.gcd.reduce(row)).tolist()) for row in rows[:top])


def _kernel(rows: np.ndarray) -> np.ndarray:
    """Return a basis (f, 3) of the lattice of whole vectors v with rows @ v = 0."""
    return _kernel_of(_reduced(rows.reshape(-1, 3)))


@functools.cache
def _kernel_of(rows: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """Return the kernel of rows that `_reduced` made."""
    inside = _SMALL[~(_SMALL @ np.array(rows, dtype=int).reshape(-1, 3).T).any(axis=1)]
    for basis in itertools.combinations(inside, 3 - len(rows)):
        found = np.array(basis, dtype=int).reshape(-1, 3)
        if _minors_gcd(found) == 1:
            return found
    raise AssertionError(f"no small basis of the kernel of {rows}")


def _minors_gcd(basis: np.ndarray) -> int:
    """Return the greatest common divisor of the largest minors of a basis (f, 3): 1 if no lattice vector is missed."""
    if len(basis) == 0:
        return 1
    minors = [round(np.linalg.det(basis[:, list(c)])) for c in itertools.combinations(range(3), len(basis))]
    return int(np.gcd.reduce(minors))


def _same_position(
    rotations: np.ndarray,
    translations: np.ndarray,
    one: tuple[np.ndarray, np.ndarray],
    other: tuple[np.ndarray, np.ndarray],
) -> bool:
    """Return whether an operation moves one subspace onto the other."""
    (point, directions), (target, wanted) = one, other
    if len(directions) != len(wanted):
        return False
    # The other's directions solve `outside @ v = 0`; a vector is one of them plus a lattice vector if `outside @ v` is
    # whole, because `outside` is a basis of all whole equations.
    outside = _kernel(wanted)
    steps = np.einsum("mij,j->mi", rotations, point) + translations - target
    moved = np.einsum("mij,fj->mfi", rotations, directions)
    return bool((((steps @ outside.T) % GRID == 0).all(axis=1) & ((moved @ outside.T) == 0).all(axis=(1, 2))).any())


def _affine(coordinates: str) -> tuple[np.ndarray, np.ndarray]:
    """Return point (3,), in 24ths, and directions (f, 3) of coordinates such as "x,2x,1/4"."""
    values = []
    for variables in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]:
        values.append([_value(term, dict(zip("xyz", variables, strict=True))) for term in coordinates.split(",")])
    point = np.array(values[0])
    directions = np.array(values[1:]) - point
    directions = directions[directions.any(axis=1)]
    whole = np.rint(point * GRID).astype(int)
    assert np.abs(whole - point * GRID).max() < 1e-9
    directions = np.rint(directions).astype(int)
    return whole, _kernel(_kernel(directions)) if len(directions) else directions.reshape(0, 3)


def _value(term: str, variables: dict[str, int]) -> float:
    """Return the value of one coordinate, a sum of terms such as x, -y, 2x, 1/4."""
    total, sign, text = 0.0, 1, term.replace(" ", "")
    for part in text.replace("-", "+-").split("+"):
        if not part:
            continue
        sign, part = (-1, part[1:]) if part.startswith("-") else (1, part)
        if part[-1] in variables:
            total += sign * (float(part[:-1]) if part[:-1] else 1.0) * variables[part[-1]]
        else:
            over, _, under = part.partition("/")
            total += sign * float(over) / float(under or 1)
    return total


def _probed(
    number: int, rotations: np.ndarray, translations: np.ndarray, point: np.ndarray, directions: np.ndarray
) -> list[moyopy.WyckoffPosition]:
    """Return the positions that moyopy names in a crystal with one atom on the subspace and two in general position."""
    special = point / GRID + 0.83 * _GENERIC[: len(directions)] @ directions
    numbers, places = [], []
    for element, site in enumerate((special, _GENERIC, 1.31 * _GENERIC[::-1]), start=1):
        images = (rotations @ site + translations / GRID) % 1
        orbit = images[np.unique(np.round(images, 6) % 1, axis=0, return_index=True)[1]]
        numbers += [element] * len(orbit)
        places += orbit.tolist()
    basis = 20 * np.eye(3) @ _family_basis(number)
    dataset = moyopy.MoyoDataset(
        moyopy.Cell(basis.tolist(), places, numbers), symprec=1e-4, setting=moyopy.Setting.standard()
    )
    assert dataset.number == number, (dataset.number, number)
    wyckoffs = dataset.normalizer_wyckoff_positions()
    return [*wyckoffs.wyckoffs, *(name for _, names in wyckoffs.coset_representatives for name in names)]


def _family_basis(number: int) -> np.ndarray:
    """Return basis vectors as rows (3, 3) of a cell of the group's family without any further symmetry."""
    if number <= _MIRRORED_TRICLINIC:
        return np.array([[1, 0, 0], [0.13, 1.1, 0], [0.17, 0.21, 1.3]])
    if number <= 15:
        return np.array([[1, 0, 0], [0, 1.1, 0], [-0.23, 0, 1.3]])
    if number <= 74:
        return np.diag([1, 1.1, 1.3])
    if number <= 142:
        return np.diag([1, 1, 1.3])
    if number <= 194:
        return np.array([[1, 0, 0], [-0.5, np.sqrt(3) / 2, 0], [0, 0, 1.3]])
    return np.eye(3)


def _normaliser(
    number: int, rotations: np.ndarray, translations: np.ndarray, centring: np.ndarray, polar: list[int]
) -> tuple[list[list[int]], list[list[Any]]]:
    """Return shifts and turns, see `group_table`."""
    free = [axis for axis in range(3) if axis not in polar]
    grid = np.zeros((GRID ** len(free), 3), dtype=int)
    for column, axis in zip(itertools.product(range(GRID), repeat=len(free)), range(len(grid)), strict=True):
        grid[axis, free] = column
    keys = {rotation.tobytes(): place for place, rotation in enumerate(rotations)}
    turns: list[list[Any]] = []
    seen: set[bytes] = set()
    shifts: list[list[int]] = []
    for turn in _turns(number):
        if turn.tobytes() in seen:
            continue
        if not (((turn @ centring.T).T[:, None] - centring) % GRID == 0).all(axis=2).any(axis=1).all():
            continue
        inverse = np.rint(np.linalg.inv(turn)).astype(int)
        good = np.ones(len(grid), dtype=bool)
        for rotation, translation in zip(rotations, translations, strict=True):
            image = turn @ rotation @ inverse
            place = keys.get(image.tobytes())
            if place is None:
                good[:] = False
                break
            step = grid + turn @ translation - grid @ image.T - translations[place]
            good &= ((step[:, None] - centring) % GRID == 0).all(axis=2).any(axis=1)
        if not good.any():
            continue
        seen |= {(turn @ rotation).tobytes() for rotation in rotations}
        allowed = grid[good]
        if not turns:
            shifts = _modulo(allowed, centring, rotations, translations, polar)
        turns.append([turn.ravel().tolist(), allowed[0].tolist()])
    return shifts, turns


def _modulo(
    allowed: np.ndarray, centring: np.ndarray, rotations: np.ndarray, translations: np.ndarray, polar: list[int]
) -> list[list[int]]:
    """Return one of each class of shifts that differ by a translation of the lattice or along a polar axis."""
    kept: list[list[int]] = []
    seen: set[tuple[int, ...]] = set()
    free = [axis for axis in range(3) if axis not in polar]
    for shift in allowed:
        if tuple(shift[free]) in seen:
            continue
        kept.append(shift.tolist())
        seen |= {tuple(other) for other in ((shift + centring) % GRID)[:, free]}
    return kept


def _turns(number: int) -> list[np.ndarray]:
    """Return the matrices W with det W = 1 that may normalise a group, the identity first, then small ones."""
    whole = (0, 1, -1)
    if number <= _MIRRORED_TRICLINIC:
        return [np.eye(3, dtype=int)]
    if number <= 15:
        found = []
        for p, q, r, s in itertools.product((0, 1, -1, 2, -2), repeat=4):
            if abs(p * s - q * r) == 1:
                found.append(np.array([[p, 0, q], [0, p * s - q * r, 0], [r, 0, s]]))
    else:
        basis = _family_basis(number)
        metric = basis @ basis.T
        candidates = (np.array(rows).reshape(3, 3) for rows in itertools.product(whole, repeat=9))
        found = [w for w in candidates if round(np.linalg.det(w)) == 1 and _fits(w, metric, number)]
    return sorted(found, key=lambda w: (not (w == np.eye(3)).all(), int(np.abs(w).sum()), (-w).ravel().tolist()))


def _fits(turn: np.ndarray, metric: np.ndarray, number: int) -> bool:
    """Return whether a matrix keeps the metric of its family, or permutes the axes of an orthorhombic one."""
    if 16 <= number <= 74:
        return bool((np.abs(turn).sum(axis=0) == 1).all() and (np.abs(turn).sum(axis=1) == 1).all())
    return bool(np.allclose(turn.T @ metric @ turn, metric))


if __name__ == "__main__":
    main()
