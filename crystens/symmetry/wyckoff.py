"""Space groups and their Wyckoff positions: possible places of sites, and the equivalent sites that each implies.

Groups are in the standard setting of International Tables A, to which `moyopy` standardises: unique axis b and cell
choice 1 for monoclinic groups, hexagonal axes for rhombohedral groups, origin choice 2 where there are two.

A Wyckoff position is named by its letter. Its first representative in International Tables is an affine map of the
free parameters, for example (x, 2x, 1/4); with W and w for linear part and shift, W p + w for p = (x, y, z). The
operations of the group map that point, line or plane to its other images; their number is the multiplicity. Images on
the same line or plane form a sheet.

Metric: fractional vectors d have the squared length d G d with G = A A^T, rows of A the cell vectors, angstrom.

`experiments/wyckoff/run.py` makes the table `wyckoff.json` beside this module and describes its content.

Source: International Tables for Crystallography, Vol. A (2016), Chapters 1.4 (Wyckoff positions) and 3.5 (normalisers).
"""

from __future__ import annotations

import functools
import itertools
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

import moyopy
import numpy as np

from crystens.crystal import NUM_SPACE_GROUPS, wrap
from crystens.errors import CrystensError

MAX_POSITIONS = 27  # Wyckoff positions of a group, those of Pmmm

_GRID = 24  # translations of the table are in 24ths

# Parameters of a generic point, which lies on no position of higher symmetry, in any group.
GENERIC = np.array([0.13717, 0.21093, 0.34791])

_DECIMALS = 1e5  # resolution at which images of a generic point are distinguished, in steps on each axis

# Short integer vectors, the shortest first.
_SMALL = np.array(sorted(itertools.product((0, 1, -1, 2, -2), repeat=3), key=lambda v: sum(map(abs, v)))[1:])

_ROUNDING = 1e-6  # angstrom

# Lattice translations for the search of the nearest image, after rounding; enough in a reduced or standard cell.
_SHIFTS = np.array(list(itertools.product((0, 1, -1), repeat=3)), dtype=np.float64)

# Cell vectors of a primitive cell, in the basis of the conventional one, by the centring vectors.
_PRIMITIVE = {
    "P": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "A": ((1, 0, 0), (0, 1 / 2, -1 / 2), (0, 1 / 2, 1 / 2)),
    "C": ((1 / 2, -1 / 2, 0), (1 / 2, 1 / 2, 0), (0, 0, 1)),
    "I": ((-1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (1 / 2, 1 / 2, -1 / 2)),
    "F": ((0, 1 / 2, 1 / 2), (1 / 2, 0, 1 / 2), (1 / 2, 1 / 2, 0)),
    "R": ((2 / 3, 1 / 3, 1 / 3), (-1 / 3, 1 / 3, 1 / 3), (-1 / 3, -2 / 3, 1 / 3)),
}


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest points of one Wyckoff position to P given points.

    Attributes:
        points: (P, 3) fractional, next to the given points, not wrapped.
        representatives: (P, 3) fractional, the same points mapped by the group onto the first representative, in
            [0, 1).
        distances: (P,) distance of each given point to its nearest point, angstrom.
    """

    points: np.ndarray
    representatives: np.ndarray
    distances: np.ndarray


@dataclass(frozen=True, eq=False)
class WyckoffPosition:
    """One Wyckoff position of a space group; m is its multiplicity in the conventional cell.

    Attributes:
        letter: a to z, and A for the 27th position of Pmmm.
        multiplicity: number of sites in the conventional cell.
        site_symmetry: symbol of the point group of a site, oriented, for example "mm2..".
        freedom: number of free parameters, 0 to 3.
        linear: (3, 3), linear part W of the first representative; columns of absent parameters are 0.
        shift: (3,), constant part w of the first representative.
        rotations: (m, 3, 3), operations that map the first representative onto each image, the identity first.
        translations: (m, 3), their translations.
        sheets: (m,) int: for each image the first image on the same point, line or plane, up to lattice translations.
        outside: (3 - f, 3) int: a point x is on the first representative, up to lattice translations, if
            `outside @ (x - shift)` is an integer vector.
    """

    letter: str
    multiplicity: int
    site_symmetry: str
    freedom: int
    linear: np.ndarray
    shift: np.ndarray
    rotations: np.ndarray
    translations: np.ndarray
    sheets: np.ndarray
    outside: np.ndarray

    def orbit(self, representative: np.ndarray) -> np.ndarray:
        """Return all sites (m, 3) equivalent to a site (3,) on the first representative, fractional, not wrapped."""
        return self.rotations @ representative + self.translations

    def alternatives(self, representative: np.ndarray) -> np.ndarray:
        """Return the sites (k, 3) of the orbit that are also on the first representative, fractional, in [0, 1)."""
        kept = self.sheets == 0
        return wrap(self.rotations[kept] @ representative + self.translations[kept])

    def nearest(self, points: np.ndarray, metric: np.ndarray) -> Nearest:
        """Return the nearest point of this position, over all images and lattice translations, to each point.

        Args:
            points: (P, 3), fractional.
            metric: (3, 3), angstrom squared; the group's rotations must keep it.
        """
        points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        if self.freedom == 3:
            return Nearest(points, wrap(points), np.zeros(len(points)))
        first = np.flatnonzero(self.sheets == np.arange(self.multiplicity))
        directions = self.rotations[first] @ self.linear[:, self.linear.any(axis=0)]  # (k, 3, f)
        origins = self.rotations[first] @ self.shift + self.translations[first]  # (k, 3)
        along = directions.transpose(0, 2, 1) @ metric  # (k, f, 3)
        onto = directions @ np.linalg.solve(along @ directions, along)  # (k, 3, 3), projections on sheets
        away = np.eye(3) - onto
        steps = points[:, None] - origins
        steps = steps - np.round(steps)
        # Steps from each given point to each sheet, over lattice translations: (P, k, 27, 3).
        misses = np.einsum("kij,pkj->pki", away, steps)[:, :, None] + (away @ _SHIFTS.T).transpose(0, 2, 1)
        squares = ((misses @ metric) * misses).sum(axis=3)
        best = squares.reshape(len(points), -1).argmin(axis=1)
        sheet, shift = np.unravel_index(best, squares.shape[1:])
        every = np.arange(len(points))
        found = points - misses[every, sheet, shift]
        inverses = np.round(np.linalg.inv(self.rotations[first]))
        back = np.einsum("pij,pj->pi", inverses[sheet], found - self.translations[first][sheet])
        return Nearest(found, wrap(back), np.sqrt(np.maximum(squares[every, sheet, shift], 0)))


@dataclass(frozen=True, eq=False)
class SpaceGroup:
    """One space group in its standard setting; M operations in the conventional cell, centring included.

    Attributes:
        number: international number, 1-230.
        rotations: (M, 3, 3) int.
        translations: (M, 3), fractional, in [0, 1).
        centring: (c, 3), translations of the lattice within the conventional cell, 0 first.
        primitive: (3, 3), vectors of a primitive cell as rows, in the basis of the conventional cell.
        positions: the Wyckoff positions from a on, the general position last.
        polar: axes (0, 1, 2) along which the origin is free.
        shifts: (s, 3), origin shifts that keep the operations, apart from shifts along polar axes.
        turns: (t, 3, 3) int, changes of axes x -> W x, det W = 1, that keep the operations, modulo the group, the
            identity first. A monoclinic cell allows infinitely many; here coefficients are at most 2.
        turn_shifts: (t, 3), the origin shift of each of `turns`.
    """

    number: int
    rotations: np.ndarray
    translations: np.ndarray
    centring: np.ndarray
    primitive: np.ndarray
    positions: tuple[WyckoffPosition, ...]
    polar: tuple[int, ...]
    shifts: np.ndarray
    turns: np.ndarray
    turn_shifts: np.ndarray

    @functools.cached_property
    def letters(self) -> str:
        """The letters of the positions, in order."""
        return "".join(position.letter for position in self.positions)

    def position(self, letter: str) -> WyckoffPosition:
        """Return the Wyckoff position of a letter.

        Raises:
            CrystensError: if the group has no such position.
        """
        place = self.letters.find(letter) if len(letter) == 1 else -1
        if place < 0:
            raise CrystensError(f"space group {self.number} has no Wyckoff position {letter!r}, only {self.letters}")
        return self.positions[place]

    def classified(self, point: np.ndarray, metric: np.ndarray, tolerance: float) -> tuple[WyckoffPosition, Nearest]:
        """Return the position of a point, and its nearest point on that position.

        It is the position with the fewest free parameters within the tolerance, and of these the nearest.

        Args:
            point: (3,), fractional.
            metric: (3, 3), angstrom squared.
            tolerance: angstrom.
        """
        steps = self.rotations @ point + self.translations - point
        steps = steps - np.round(steps)
        # Site operations move a point within the tolerance of a sheet by at most twice the tolerance.
        still = int((((steps @ metric) * steps).sum(axis=1) <= (2 * tolerance + _ROUNDING) ** 2).sum())
        most = len(self.rotations) // still  # no site here has a smaller multiplicity
        for freedom in range(4):
            here = [p for p in self.positions if p.freedom == freedom and p.multiplicity >= most]
            near = [(p, found) for p in here if (found := p.nearest(point[None], metric)).distances[0] <= tolerance]
            if near:
                return min(near, key=lambda pair: float(pair[1].distances[0]))
        raise AssertionError("the general position is everywhere")

    def averaged_metric(self, metric: np.ndarray) -> np.ndarray:
        """Return the nearest metric tensor (3, 3) that all rotations keep: the mean over the rotations."""
        return np.einsum("mki,kl,mlj->ij", self.rotations, metric, self.rotations, optimize=True) / len(self.rotations)


@functools.cache
def space_group(number: int) -> SpaceGroup:
    """Return a space group by its international number.

    Raises:
        CrystensError: if there is no such group.
    """
    if not 1 <= number <= NUM_SPACE_GROUPS:
        raise CrystensError(f"space group number must be 1-{NUM_SPACE_GROUPS}, got {number}")
    row = _table()[str(number)]
    found = moyopy.operations_from_number(number, setting=moyopy.Setting.standard())
    rotations = np.array(found.rotations, dtype=np.int64)
    translations = np.rint(np.array(found.translations) * _GRID) % _GRID / _GRID
    centring = translations[(rotations == np.eye(3, dtype=np.int64)).all(axis=(1, 2))]
    centring = centring[np.lexsort(centring.T[::-1])]
    return SpaceGroup(
        number=number,
        rotations=rotations,
        translations=translations,
        centring=centring,
        primitive=np.array(_PRIMITIVE[_centring_letter(centring)]),
        positions=tuple(_position(rotations, translations, *entry) for entry in row["positions"]),
        polar=tuple(row["polar"]),
        shifts=np.array(row["shifts"]) / _GRID,
        turns=np.array([turn for turn, _ in row["turns"]]).reshape(-1, 3, 3),
        turn_shifts=np.array([shift for _, shift in row["turns"]]) / _GRID,
    )


@functools.cache
def _table() -> dict[str, Any]:
    """Return the shipped table."""
    return json.loads(resources.files("crystens.symmetry").joinpath("wyckoff.json").read_text())


def _position(
    rotations: np.ndarray,
    translations: np.ndarray,
    letter: str,
    multiplicity: int,
    site_symmetry: str,
    representative: str,
) -> WyckoffPosition:
    """Return a position from a row of the table and the group's operations."""
    linear, shift = affine_map(representative)
    # Operations with the same image of a generic point of the position differ by the site symmetry.
    images = rotations @ (linear @ GENERIC + shift) + translations
    first = np.unique(np.rint(images * _DECIMALS) % _DECIMALS, axis=0, return_index=True)[1]
    kept = np.sort(first)  # moyopy's first operation is the identity
    if len(kept) != multiplicity:
        raise AssertionError(f"{len(kept)} images of {representative}, the table says {multiplicity}")
    used = linear.any(axis=0)
    directions = np.rint(rotations[kept] @ linear[:, used]).astype(np.int64)  # (m, 3, f)
    places = rotations[kept] @ shift + translations[kept]
    keys = [_sheet(along, place) for along, place in zip(directions, places, strict=True)]
    sheets = np.array([keys.index(key) for key in keys])
    return WyckoffPosition(
        letter=letter,
        multiplicity=multiplicity,
        site_symmetry=site_symmetry,
        freedom=int(used.sum()),
        linear=linear,
        shift=shift,
        rotations=rotations[kept],
        translations=translations[kept],
        sheets=sheets,
        outside=_outside(directions[0].tobytes()),
    )


def _sheet(directions: np.ndarray, place: np.ndarray) -> tuple[bytes, tuple[int, ...]]:
    """Return a key that identifies a sheet: its equations, and their values modulo 1."""
    outside = _outside(directions.tobytes())
    return outside.tobytes(), tuple((np.rint(outside @ place * _GRID).astype(int) % _GRID).tolist())


@functools.cache
def _outside(directions: bytes) -> np.ndarray:
    """Return a basis (3 - f, 3) of all integer vectors perpendicular to directions (3, f) of int64.

    A step is a lattice translation plus a step along the directions if its products with the basis are integers.
    """
    along = np.frombuffer(directions, dtype=np.int64).reshape(3, -1)
    small = _SMALL[~(_SMALL @ along).any(axis=1)]
    for basis in itertools.combinations(small, 3 - along.shape[1]):
        outside = np.array(basis, dtype=np.int64).reshape(-1, 3)
        # The basis is complete if its largest minors have no common factor.
        columns = itertools.combinations(range(3), len(outside))
        minors = [round(float(np.linalg.det(outside[:, list(c)]))) for c in columns]
        if len(outside) == 0 or np.gcd.reduce(minors) == 1:
            return outside
    raise AssertionError(f"no small basis perpendicular to {along.tolist()}")


def affine_map(coordinates: str) -> tuple[np.ndarray, np.ndarray]:
    """Return linear part (3, 3) and shift (3,) of coordinates such as "x,2x,z+1/4"."""
    linear, shift = np.zeros((3, 3)), np.zeros(3)
    for row, term in enumerate(coordinates.replace(" ", "").split(",")):
        for part in term.replace("-", "+-").split("+"):
            sign, part = (-1, part[1:]) if part.startswith("-") else (1, part)
            if part and part[-1] in "xyz":
                linear[row, "xyz".index(part[-1])] += sign * float(part[:-1] or 1)
            elif part:
                over, _, under = part.partition("/")
                shift[row] += sign * float(over) / float(under or 1)
    return linear, shift


def _centring_letter(centring: np.ndarray) -> str:
    """Return P, A, C, I, F or R for the centring vectors of a standard setting."""
    if len(centring) in (1, 3, 4):
        return {1: "P", 3: "R", 4: "F"}[len(centring)]
    return {(0, 12, 12): "A", (12, 12, 0): "C", (12, 12, 12): "I"}[tuple(np.rint(centring[1] * _GRID).astype(int))]


@functools.cache
def primitive_multiplicities(number: int) -> tuple[int, ...]:
    """Return the number of sites in a primitive cell for each Wyckoff position, by index of the letter."""
    group = space_group(number)
    return tuple(position.multiplicity // len(group.centring) for position in group.positions)
