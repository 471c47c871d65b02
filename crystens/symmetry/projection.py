"""Projection of noisy orbits, as a generator draws them, onto the nearest crystal of their space group.

The cell's metric tensor is averaged over the rotations of the group, and each orbit is moved to the nearest point of
its Wyckoff position. Orbits that are still impossible are repaired, or decoding fails with a reason:

- "taken": two orbits are on the same position without free parameters, which holds only one. The nearer orbit keeps it;
  the other moves to the nearest free position of the same multiplicity.
- "collapsed": sites of one orbit are nearer to each other than `min_distance`. The orbit moves to the nearest position
  of a smaller multiplicity, until its sites are apart.
- "merged": an orbit is nearer than `min_distance` to an earlier orbit, or finds its position taken and no free one. It
  is left out.

Source for averaging a metric tensor over a group: Grosse-Kunstleve and Adams, Acta Cryst. A 58 (2002) 60.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crystens.crystal import cell_vectors
from crystens.distances import shortest_lengths, shortest_translation
from crystens.errors import CrystensError
from crystens.symmetry.orbit_crystal import OrbitCrystal
from crystens.symmetry.space_groups import cell_of_metric
from crystens.symmetry.wyckoff import SpaceGroup, WyckoffPosition, space_group

REPAIRS = ("taken", "collapsed", "merged")


@dataclass(frozen=True, eq=False)
class ProjectedOrbits:
    """The crystal of noisy orbits, or the reason why there is none.

    Attributes:
        crystal: the crystal, with orbits in the given order; None on failure.
        reason: the reason of a failure, otherwise empty.
        moved: (K,) displacement of each given orbit, angstrom; for orbits left out, the distance to their position. NaN
            if it was not computed before a failure.
        repairs: number of repairs of each of the `REPAIRS`.
    """

    crystal: OrbitCrystal | None
    reason: str
    moved: np.ndarray
    repairs: dict[str, int]


@dataclass(frozen=True)
class Projection:
    """Turns noisy orbits into crystals.

    Args:
        min_distance: two sites nearer than this are one, angstrom.
        max_sites: largest number of sites of the primitive cell; None for no bound.
        repair: whether impossible orbits are repaired; otherwise they are a failure.

    Raises:
        CrystensError: if a number is out of range.
    """

    min_distance: float = 0.5
    max_sites: int | None = None
    repair: bool = True

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not self.min_distance >= 0:
            raise CrystensError(f"min_distance must be a distance in angstrom, got {self.min_distance!r}")
        if self.max_sites is not None and self.max_sites < 1:
            raise CrystensError(f"max_sites must be at least 1, or None, got {self.max_sites!r}")

    def __call__(
        self,
        number: int,
        lengths: np.ndarray,
        angles: np.ndarray,
        numbers: np.ndarray,
        letters: str,
        coordinates: np.ndarray,
    ) -> ProjectedOrbits:
        """Return the crystal of orbits.

        Args:
            number: space group, 1-230.
            lengths: (3,), angstrom.
            angles: (3,), degrees.
            numbers: (K,) atomic numbers.
            letters: K Wyckoff letters of the group.
            coordinates: (K, 3), fractional, of any site of each orbit.

        Raises:
            CrystensError: if there is no such group, or it has no such position.
        """
        group = space_group(number)
        work = _Work(group, np.asarray(coordinates, dtype=np.float64), [group.position(z) for z in letters])
        try:
            lengths, angles = self._cell(group, np.asarray(lengths, float), np.asarray(angles, float), work)
            self._share_positions(work)
            kept = self._keep_apart(work)
            crystal = OrbitCrystal(
                lengths,
                angles,
                number,
                np.asarray(numbers, dtype=np.int64)[kept],
                "".join(work.positions[place].letter for place in kept),
                work.representatives[kept],
            )
            count = crystal.num_sites("primitive")
            if self.max_sites is not None and count > self.max_sites:
                raise _Impossible(f"{count} sites in the primitive cell, more than {self.max_sites}")
        except _Impossible as error:
            return ProjectedOrbits(None, str(error), work.moved, work.repairs)
        return ProjectedOrbits(crystal, "", work.moved, work.repairs)

    def _cell(
        self, group: SpaceGroup, lengths: np.ndarray, angles: np.ndarray, work: _Work
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return symmetrised lengths and angles, and move every orbit onto its position."""
        vectors = _vectors(lengths, angles)
        if not np.isfinite(work.coordinates).all():
            raise _Impossible("coordinates that are not finite")
        work.metric = group.averaged_metric(vectors @ vectors.T)
        for place, position in enumerate(work.positions):
            work.put(place, position)
        lengths, angles = cell_of_metric(work.metric)
        work.vectors = _vectors(lengths, angles)
        if (shortest := shortest_translation(work.vectors, self.min_distance)) < self.min_distance:
            raise _Impossible(f"the cell repeats after {shortest:.3g} angstrom")
        return lengths, angles

    def _share_positions(self, work: _Work) -> None:
        """Keep one orbit on each position without free parameters."""
        for letter in dict.fromkeys(position.letter for position in work.positions if not position.freedom):
            here = [place for place, position in enumerate(work.positions) if position.letter == letter]
            here.sort(key=lambda place: work.moved[place])
            for place in here[1:]:
                position = work.positions[place]
                reason = (
                    f"orbits {here[0]} and {place} both stand on position {position.multiplicity}{letter} of space "
                    f"group {work.group.number}, which holds one"
                )
                if work.moved[place] < self.min_distance:
                    self._leave_out(work, place, reason)
                    continue
                free = [
                    p
                    for p in work.group.positions
                    if p.multiplicity == position.multiplicity and p.letter not in work.taken()
                ]
                if not free:
                    raise _Impossible(reason)
                self._count(work, "taken", reason)
                work.put_nearest(place, free)

    def _keep_apart(self, work: _Work) -> list[int]:
        """Return the indices of kept orbits, with all sites apart."""
        kept: list[int] = []
        for place in range(len(work.positions)):
            self._collapse(work, place)
            if place in work.left_out:
                continue
            near = {other: work.distance(place, other) for other in kept}
            nearest = min(near, key=lambda other: near[other], default=None)
            if nearest is not None and near[nearest] < self.min_distance:
                self._leave_out(work, place, f"orbits {nearest} and {place} are {near[nearest]:.2g} angstrom apart")
            else:
                kept.append(place)
        return kept

    def _collapse(self, work: _Work, place: int) -> None:
        """Move an orbit with overlapping sites to a position of higher symmetry."""
        while place not in work.left_out and (near := work.own_distance(place)) < self.min_distance:
            position = work.positions[place]
            reason = (
                f"sites of orbit {place} on position {position.multiplicity}{position.letter} of space group "
                f"{work.group.number} are {near:.2g} angstrom apart"
            )
            smaller = [p for p in work.group.positions if p.multiplicity < position.multiplicity]
            if not smaller:
                raise _Impossible(reason)
            taken = work.taken()
            self._count(work, "collapsed", reason)
            work.put_nearest(place, smaller)
            if work.positions[place].letter in taken:
                self._leave_out(work, place, reason)

    def _leave_out(self, work: _Work, place: int, reason: str) -> None:
        """Leave out an orbit that overlaps another one."""
        self._count(work, "merged", reason)
        work.left_out.add(place)

    def _count(self, work: _Work, repair: str, reason: str) -> None:
        """Count a repair, or fail with the reason for it."""
        if not self.repair:
            raise _Impossible(reason)
        work.repairs[repair] += 1


class _Impossible(Exception):
    """The orbits make no crystal; the message says why."""


def _vectors(lengths: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Return cell vectors as rows (3, 3), angstrom, or fail with the reason why there are none."""
    try:
        return cell_vectors(lengths, angles)
    except CrystensError as error:
        raise _Impossible(str(error)) from error


class _Work:
    """Orbits during projection: drawn coordinates, present positions, and points on these positions."""

    def __init__(self, group: SpaceGroup, coordinates: np.ndarray, positions: list[WyckoffPosition]) -> None:
        """Store the drawn orbits, which are not on their positions yet."""
        self.group = group
        self.coordinates = coordinates
        self.positions = positions
        self.metric = np.eye(3)
        self.vectors = np.eye(3)
        self.representatives = np.zeros_like(coordinates)
        self.orbits: list[np.ndarray] = [np.zeros((0, 3))] * len(positions)
        self.moved = np.full(len(positions), np.nan)
        self.repairs = dict.fromkeys(REPAIRS, 0)
        self.left_out: set[int] = set()

    def put(self, place: int, position: WyckoffPosition) -> None:
        """Move an orbit to the point of a position that is nearest to its drawn coordinates."""
        nearest = position.nearest(self.coordinates[place][None], self.metric)
        self.positions[place] = position
        self.representatives[place] = nearest.representatives[0]
        self.moved[place] = nearest.distances[0]
        self.orbits[place] = position.orbit(nearest.representatives[0])

    def put_nearest(self, place: int, positions: list[WyckoffPosition]) -> None:
        """Move an orbit to the one of several positions that is nearest to its drawn coordinates."""
        point = self.coordinates[place][None]
        self.put(place, min(positions, key=lambda p: float(p.nearest(point, self.metric).distances[0])))

    def taken(self) -> set[str]:
        """Return the letters of occupied positions without free parameters."""
        places = enumerate(self.positions)
        return {p.letter for place, p in places if not p.freedom and place not in self.left_out}

    def own_distance(self, place: int) -> float:
        """Return the shortest distance of two sites of an orbit, angstrom; infinite if it has one."""
        return self._shortest(self.orbits[place][1:] - self.orbits[place][0])

    def distance(self, place: int, other: int) -> float:
        """Return the shortest distance of sites of two orbits, angstrom."""
        return self._shortest(self.orbits[other] - self.orbits[place][0])

    def _shortest(self, steps: np.ndarray) -> float:
        """Return the shortest length of vectors (P, 3) over lattice translations, angstrom."""
        return float(shortest_lengths(self.vectors, steps).min(initial=np.inf))
