"""Bounds on usable crystals, and the form in which crystals are kept.

`Limits.crystal` is the one place where raw numbers become a `Crystal`. First `checked` tests cell, sites and distances.
Then `formed` converts the crystal to the requested cell and finds the space group again, because the number in a file
often belongs to another setting or is wrong. `Limits.occupied` is the one place that decides about partial occupancy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pymatgen.core import Element

from crystens.crystal import Crystal, canonical_order, cell_vectors, wrap
from crystens.distances import nearest_pair, shortest_lengths, shortest_translation
from crystens.errors import CrystensError
from crystens.sources.record import Unusable
from crystens.symmetry.descriptions import OrbitError, describe
from crystens.symmetry.orbit_crystal import CrystalWithOrbits
from crystens.symmetry.space_groups import CELLS, SymmetryError, in_cell

OCCUPANCIES = ("reject", "majority")
GROUPS = ("reject", "heavy_atom")
SITE_ORDERS = ("canonical", "given")
SITES = ("all", "orbits")

_CELL = ("a", "b", "c", "alpha", "beta", "gamma")

_OCCUPANCY_TOLERANCE = 1e-3
_MOST_READ = 5000  # sites of a cell in a file: distances and symmetry of that many take ten seconds
_CELL_TOLERANCE = 1e-3  # angstrom, degree: for rounded values at the edge of a range
_DECIDED = "if pretrained=CHECKPOINT decides this, whose images hold no more, train from nothing (pretrained=null)"
_FARTHEST = 1e6  # cells from the origin: a coordinate keeps 10 decimals there, and none beyond 1e16


@dataclass(frozen=True)
class Limits:
    """Bounds on crystals, and their form; the names are the options under `data.limits`.

    Attributes:
        max_sites: largest number of sites in the kept cell; None for no bound.
        min_distance: two sites nearer than this, over periodic images, are an error of the file; angstrom. The shortest
            bond, H-H, is 0.74.
        max_length: longest cell length, angstrom.
        max_volume_per_site: largest cell volume for each site, cubic angstrom; gas-like cells reach about 1,500.
        merge_distance: symmetry images of one site within this distance are one site on a symmetry element, with
            coordinates rounded in the file; angstrom. With 0 only coinciding images are merged.
        symprec: tolerance of the search for the space group, angstrom.
        cell: the kept cell, one of `crystens.symmetry.space_groups.CELLS`: "given", "primitive", "niggli",
            "conventional".
        occupancy: treatment of partly occupied sites: "reject" the crystal, or keep the "majority" element of each site
            and leave out sites that are mostly empty.
        groups: treatment of a heavy atom whose hydrogens have no coordinates in the file, such as OH as a type symbol:
            "reject" the crystal, or keep the "heavy_atom" alone and count the hydrogens that are left out.
        site_order: "canonical" (`CrystalBatch.in_canonical_order`) or as "given" in the file.
        shift: added to every fractional coordinate of the kept crystal, in [0, 1): the same crystal from another
            origin. Sites on the faces of a cell have coordinates of 0 or of almost 1. A shift moves them inside, where
            near positions have near coordinates. 0 changes nothing.
        sites: "all", or "orbits" for crystals that also keep the list of their orbits (`CrystalWithOrbits`). These have
            the primitive cell and canonical site order, and `shift` does not apply.
        max_orbits: largest number of orbits, with "orbits"; None for no bound.
        cell_ranges: (smallest, largest) value of a, b, c (angstrom), alpha, beta and gamma (degree), by these names, of
            the cell in an image: with "orbits" the conventional cell, else the kept cell. A trained model has such
            ranges, because its images hold no other cells. None for no bound.

    Raises:
        CrystensError: if an option is not known, or cannot be combined with orbits.
    """

    max_sites: int | None = None
    min_distance: float = 0.5
    max_length: float = 1000.0
    max_volume_per_site: float = 2000.0
    merge_distance: float = 0.05
    symprec: float = 0.01
    cell: str = "given"
    occupancy: str = "reject"
    groups: str = "reject"
    site_order: str = "canonical"
    shift: float = 0.0
    sites: str = "all"
    max_orbits: int | None = None
    cell_ranges: Mapping[str, Sequence[float]] | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        least = {"max_sites": 1, "max_orbits": 1, "symprec": 0.0, "max_length": 0.0, "max_volume_per_site": 0.0}
        for name, low in (least | {"min_distance": 0.0, "merge_distance": 0.0}).items():
            value = getattr(self, name)
            if value is None and name in ("max_sites", "max_orbits"):
                continue
            # A size limited to 0 would exclude everything; a distance of 0 means no check.
            good = isinstance(value, int | float) and (value > 0 if name in least else value >= 0)
            if not good:
                wanted = f"at least {low}" if name not in least or name in ("max_sites", "max_orbits") else "above 0"
                raise CrystensError(f"data.limits.{name} must be a number {wanted}, got {value}")
        if not isinstance(self.shift, int | float) or not 0 <= self.shift < 1:
            raise CrystensError(f"data.limits.shift must be a number of at least 0 and below 1, got {self.shift}")
        choices = {"cell": CELLS, "occupancy": OCCUPANCIES, "groups": GROUPS, "site_order": SITE_ORDERS, "sites": SITES}
        for name, allowed in choices.items():
            value = getattr(self, name)
            if value not in allowed:
                raise CrystensError(f"data.limits.{name}={value} is not known; use one of {', '.join(allowed)}")
        for name, pair in (self.cell_ranges or {}).items():
            if name not in _CELL or len(pair) != 2 or not pair[0] <= pair[1]:
                raise CrystensError(
                    f"data.limits.cell_ranges.{name}={pair} must be one of {', '.join(_CELL)}, and [least, largest]"
                )
        if self.sites == "all" and self.max_orbits is not None:
            raise CrystensError(f"data.limits.max_orbits={self.max_orbits} needs sites=orbits, got sites=all")
        if self.sites == "orbits":
            fits = {
                "cell=given": self.cell in ("given", "primitive"),
                "shift=0": self.shift == 0,
                "site_order=canonical": self.site_order == "canonical",
            }
            for kept, holds in fits.items():
                if not holds:
                    raise CrystensError(
                        f"data.limits: sites=orbits needs {kept}, because the space group decides cell, origin and "
                        "order"
                    )

    def for_images(self, slots: int, sites: str) -> Limits:
        """Return the limits for images with this number of slots, for "all" sites or "orbits".

        `max_sites`, if given, remains a bound on the sites of a crystal.
        """
        if sites == "orbits":
            return replace(self, sites="orbits", max_orbits=slots)
        return replace(self, max_sites=slots if self.max_sites is None else min(slots, self.max_sites))

    def check_cell(self, lengths: np.ndarray, angles: np.ndarray) -> np.ndarray:
        """Return cell vectors as rows (3, 3), angstrom, from lengths (3,), angstrom, and angles (3,), degrees.

        Raises:
            Unusable: if they form no cell, or the cell is out of bounds.
        """
        try:
            matrix = cell_vectors(lengths, angles)
        except CrystensError as error:
            raise Unusable(f"impossible cell: {error}", "correct the cell in the file") from error
        shortest, _, longest = sorted(lengths.tolist())
        if shortest < self.min_distance:
            raise Unusable(
                f"two atoms closer than any bond: an atom and its own image are {shortest:g} angstrom apart",
                "check the cell lengths; they are in angstrom",
            )
        if longest > self.max_length:
            raise Unusable(
                f"cell length out of range: {longest:g} angstrom is above {self.max_length:g}",
                "check the unit (angstrom); raise data.limits.max_length if the cell is right",
            )
        return matrix

    def check_read_count(self, count: int) -> None:
        """Raise `Unusable` if a cell in a file has too many sites for any usable crystal."""
        if count == 0 or (self.cell in ("given", "niggli") and self.sites == "all"):
            self.check_count(count)
        elif count > _MOST_READ:
            raise self._too_many(count)

    def _too_many(self, count: int) -> Unusable:
        """Return the error of a cell with too many sites for distances and symmetry to be computed."""
        return Unusable(f"more than {_MOST_READ} atoms in the cell of the file: {count}", "give a smaller cell")

    def check_count(self, count: int) -> None:
        """Raise `Unusable` if a cell has no sites or more than `max_sites`."""
        if count == 0:
            raise Unusable("no atoms in the cell", "give at least one atom")
        if self.max_sites is not None and count > self.max_sites:
            advice = "raise max_sites (the image grows with it)"
            if self.sites == "all" and self.cell != "primitive":
                advice += ", or ask for data.limits.cell=primitive"
            raise Unusable(f"more than {self.max_sites} atoms in the cell: {count}", f"{advice}; {_DECIDED}")

    def ordered(
        self, numbers: np.ndarray, coordinates: np.ndarray, occupancies: np.ndarray, matrix: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return atomic numbers (N,) and coordinates (N, 3) of occupied sites; see `occupied`."""
        rows, numbers = self.occupied(numbers, coordinates, occupancies, matrix)
        return numbers, coordinates[rows]

    def occupied(
        self, numbers: np.ndarray, coordinates: np.ndarray, occupancies: np.ndarray, matrix: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows (N,) and atomic numbers (N,) of sites, each occupied by one element.

        Rows within `merge_distance` share a site: Fe2+ with 0.6 and Fe3+ with 0.4 are one full site of iron. Rows with
        an occupancy of 0 are no sites. Ties between elements go to the lighter element, ties with a vacancy to the
        element.

        Args:
            numbers: atomic number of each pair of a site and an element, shape (n,).
            coordinates: fractional, shape (n, 3).
            occupancies: at least 0, shape (n,).
            matrix: cell vectors as rows, shape (3, 3), angstrom.

        Raises:
            Unusable: if an occupancy exceeds 1, or a site is partly occupied and `occupancy` is "reject".
        """
        partial = np.abs(occupancies - 1) > _OCCUPANCY_TOLERANCE
        if not partial.any():
            return np.arange(len(numbers)), numbers
        worst = int(occupancies.argmax())
        if occupancies[worst] > 1 + _OCCUPANCY_TOLERANCE:
            symbol = Element.from_Z(int(numbers[worst])).symbol
            raise Unusable(f"occupancy above 1: {symbol} has {occupancies[worst]:g}", "correct the occupancy")
        if len(numbers) > _MOST_READ:
            raise Unusable(f"more than {_MOST_READ} sites with occupancies: {len(numbers)}", "give an ordered model")
        there = np.flatnonzero(occupancies > 0)
        sites = np.empty(len(there), dtype=np.int64)
        for place, row in enumerate(there):
            steps = coordinates[there[: place + 1]] - coordinates[row]
            sites[place] = there[(shortest_lengths(matrix, steps, self.merge_distance) <= self.merge_distance).argmax()]
        kept: list[tuple[int, int]] = []
        for site in np.unique(sites):
            rows = there[sites == site]
            shares: dict[int, float] = {}
            for row in rows:
                shares[int(numbers[row])] = shares.get(int(numbers[row]), 0.0) + float(occupancies[row])
            total, tolerance = sum(shares.values()), _OCCUPANCY_TOLERANCE * len(rows) + 1e-9
            if total > 1 + tolerance:
                symbol = Element.from_Z(int(numbers[site])).symbol
                raise Unusable(f"occupancy above 1: the site of {symbol} has {total:g}", "correct the occupancy")
            number = max(sorted(shares), key=lambda z: shares[z])
            if self.occupancy == "reject" and (len(shares) > 1 or total < 1 - tolerance):
                told = " and ".join(f"{Element.from_Z(z).symbol} has {share:g}" for z, share in shares.items())
                raise Unusable(
                    f"partial occupancy (disordered structure): {told}",
                    "give an ordered model of the structure, or ask for data.limits.occupancy=majority",
                )
            if shares[number] >= 1 - total - tolerance:
                kept.append((number, int(site)))
        if not kept:
            raise Unusable("no atoms in the cell: every site is mostly empty", "give an ordered model")
        return np.array([site for _, site in kept]), np.array([number for number, _ in kept])

    def crystal(self, lengths: np.ndarray, angles: np.ndarray, numbers: np.ndarray, coordinates: np.ndarray) -> Crystal:
        """Return the crystal of raw numbers, checked (`checked`) and in the requested form (`formed`).

        Args:
            lengths: a, b, c, shape (3,), angstrom.
            angles: alpha, beta, gamma, shape (3,), degrees.
            numbers: atomic numbers, shape (N,).
            coordinates: fractional, shape (N, 3); any cell.

        Raises:
            Unusable: with the reason, if this is no usable crystal.
        """
        return self.formed(self.checked(lengths, angles, numbers, coordinates))

    def unformed(self) -> Limits:
        """Return the same bounds for crystals that are `checked` now and `formed` later."""
        return _Unformed(**vars(self))

    def checked(self, lengths: np.ndarray, angles: np.ndarray, numbers: np.ndarray, coordinates: np.ndarray) -> Crystal:
        """Return the crystal of raw numbers, unchanged, with space group 1; arguments and errors as for `crystal`."""
        matrix = self.check_cell(lengths, angles)
        self.check_read_count(len(numbers))
        if len(numbers) > _MOST_READ:
            raise self._too_many(len(numbers))
        farthest = float(np.abs(coordinates).max())
        if not math.isfinite(farthest):
            raise Unusable("coordinate is not a finite number", "correct the coordinates in the file")
        if farthest > _FARTHEST:
            far = f"{farthest:g} cells from the origin"
            raise Unusable(f"coordinate out of range: {far}", "correct the coordinates in the file")
        coordinates = wrap(coordinates)
        volume = matrix[0, 0] * matrix[1, 1] * matrix[2, 2] / len(numbers)  # a along x, b in the xy plane
        if volume > self.max_volume_per_site:
            raise Unusable(
                f"volume per atom out of range: {volume:.0f} cubic angstrom is above {self.max_volume_per_site:g}",
                "check that no atoms are missing; raise data.limits.max_volume_per_site if the cell is right",
            )
        self._check_distances(matrix, numbers, coordinates)
        return _crystal(lengths, angles, 1, numbers, coordinates)

    def formed(self, crystal: Crystal) -> Crystal:
        """Return a checked crystal in the requested cell and order, with its space group found again.

        Raises:
            Unusable: if no space group is found, or it has too many sites in that cell.
        """
        if self.sites == "orbits":
            return self._with_orbits(crystal)
        try:
            found = in_cell(
                self.cell, crystal.lengths, crystal.angles, crystal.numbers, crystal.coordinates, self.symprec
            )
        except SymmetryError as error:
            raise _no_space_group(error) from error
        self.check_count(len(found.numbers))
        self._check_ranges(found.lengths, found.angles)
        numbers, coordinates = found.numbers, found.coordinates
        if self.shift or self.cell != "given":
            coordinates = wrap(coordinates + self.shift)
        if self.site_order == "canonical":
            order = canonical_order(numbers, coordinates)
            numbers, coordinates = numbers[order], coordinates[order]
        return _crystal(found.lengths, found.angles, found.space_group, numbers, coordinates)

    def _with_orbits(self, crystal: Crystal) -> CrystalWithOrbits:
        """Return a crystal of any cell in its primitive cell, with its orbits."""
        try:
            found = CrystalWithOrbits.from_orbits(describe(crystal, self.symprec))
        except (SymmetryError, OrbitError) as error:
            raise _no_space_group(error) from error
        self.check_count(len(found))
        if self.max_orbits is not None and len(found.orbits) > self.max_orbits:
            raise Unusable(
                f"more than {self.max_orbits} orbits: {len(found.orbits)}",
                f"raise max_sites (the image grows with it); {_DECIDED}",
            )
        self._check_ranges(found.orbits.lengths, found.orbits.angles)
        return found

    def _check_ranges(self, lengths: np.ndarray, angles: np.ndarray) -> None:
        """Raise `Unusable` if a cell is out of `cell_ranges`."""
        values = dict(zip(_CELL, [*lengths.tolist(), *angles.tolist()], strict=True))
        for name, (least, largest) in (self.cell_ranges or {}).items():
            if not least - _CELL_TOLERANCE <= values[name] <= largest + _CELL_TOLERANCE:
                raise Unusable(
                    f"cell out of range: {name} {values[name]:g} is not from {least:g} to {largest:g}",
                    f"widen data.limits.cell_ranges; {_DECIDED}",
                )

    def _check_distances(self, matrix: np.ndarray, numbers: np.ndarray, coordinates: np.ndarray) -> None:
        """Raise `Unusable` if two sites, or a site and its own image, are nearer than `min_distance`."""
        own = shortest_translation(matrix, self.min_distance)
        if own < self.min_distance:
            raise Unusable(
                f"two atoms closer than any bond: an atom and its own image are {own:.3f} angstrom apart",
                "check the cell lengths and angles",
            )
        distance, first, second = nearest_pair(matrix, coordinates, self.min_distance)
        if distance < self.min_distance:
            raise self._too_near(first, second, numbers, distance)

    def _too_near(self, first: int, second: int, numbers: np.ndarray, distance: float) -> Unusable:
        """Return the error of two sites that are too near."""
        names = [f"{Element.from_Z(int(numbers[i])).symbol} (site {i})" for i in sorted((first, second))]
        which = "two atoms at the same position" if distance < 1e-3 else "two atoms closer than any bond"
        return Unusable(
            f"{which}: {' and '.join(names)} are {distance:.3f} angstrom apart, nearer than {self.min_distance:g}",
            "remove the double atom (a file must not list what its symmetry operations make), or lower "
            "data.limits.min_distance",
        )


class _Unformed(Limits):
    """Limits that keep a crystal in the form of its file."""

    def formed(self, crystal: Crystal) -> Crystal:
        """Return the crystal unchanged."""
        return crystal


def _crystal(
    lengths: np.ndarray, angles: np.ndarray, space_group: int, numbers: np.ndarray, coordinates: np.ndarray
) -> Crystal:
    """Return a crystal, or raise `Unusable` with the reason."""
    try:
        return Crystal(lengths, angles, space_group, numbers, coordinates)
    except CrystensError as error:
        raise Unusable(f"not a crystal: {error}", "correct the file") from error


def _no_space_group(error: CrystensError) -> Unusable:
    """Return the error of a crystal in which no space group is found."""
    return Unusable(f"no space group found: {error}", "look at the structure, or change data.limits.symprec")
