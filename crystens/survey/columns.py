"""The census of a source: its crystals as columns, and quantities derived from them.

Everything here works on whole columns: 50,000 crystals take seconds. M crystals, T sites in all of them together.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from pymatgen.core import Element

from crystens.chemistry.formulas import ReducedComposition, reduced_composition, reduced_formula
from crystens.crystal import MAX_ATOMIC_NUMBER, cell_vectors
from crystens.distances import plane_spacings, shortest_lengths
from crystens.errors import CrystensError
from crystens.ingest.store import CrystalStore
from crystens.sources.record import Reject
from crystens.symmetry.space_groups import CRYSTAL_SYSTEMS

_GRAM_PER_CM3 = 1.66053906660  # one atomic mass unit per cubic angstrom; CODATA 2018
_SHORT = 1.0  # angstrom; nearer atoms are suspicious: only O-H, N-H and H-H are so near
_PAIRS_AT_ONCE = 2**21


@dataclass(frozen=True, eq=False)
class Census:
    """The crystals of a source as columns, in the order of reading, and its rejects.

    Arguments may have any numeric type; the attributes have the types below.

    Args:
        name: name of the source.
        lengths: (M, 3) float64, angstrom.
        angles: (M, 3) float64, degrees.
        space_groups: (M,) int64, 1-230.
        counts: (M,) int64, sites of each crystal.
        numbers: (T,) int64, atomic numbers of all crystals one after the other.
        coordinates: (T, 3) float64, fractional.
        files: M names, see `crystens.sources.record.Entry`.
        entries: M names.
        splits: M names of splits, None where the source gives none.
        rejects: the rejects.
        hydrogens_left_out: number of crystals without some of their hydrogens, and number of these hydrogens.
        properties: properties of the crystals by name, (M,) float64 each, in units of the source, NaN where missing.

    Raises:
        CrystensError: if there is no crystal, or columns do not fit together.
    """

    name: str
    lengths: np.ndarray
    angles: np.ndarray
    space_groups: np.ndarray
    counts: np.ndarray
    numbers: np.ndarray
    coordinates: np.ndarray
    files: Sequence[str]
    entries: Sequence[str]
    splits: Sequence[str | None]
    rejects: Sequence[Reject] = ()
    hydrogens_left_out: tuple[int, int] = (0, 0)
    properties: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the shapes of columns, and convert them to float64 and int64: uint8 would overflow in sums."""
        size, sites = len(self.counts), int(np.sum(self.counts, dtype=np.int64))
        if not size:
            raise CrystensError(f"nothing to summarise: {self.name} has no usable crystal")
        shapes: dict[str, tuple[int, ...]] = {"lengths": (size, 3), "angles": (size, 3), "coordinates": (sites, 3)}
        shapes |= {"space_groups": (size,), "counts": (size,), "numbers": (sites,)}
        for column, shape in shapes.items():
            kind = np.float64 if len(shape) == 2 else np.int64
            values = np.asarray(getattr(self, column), dtype=kind)
            if values.shape != shape:
                raise CrystensError(f"{column} of {self.name} has shape {values.shape}, not {shape}")
            object.__setattr__(self, column, values)
        for name, values in self.properties.items():
            if np.shape(values) != (size,):
                raise CrystensError(f"{size} crystals of {self.name} have {np.shape(values)} values of {name}")
        for column in ("files", "entries", "splits"):
            if len(getattr(self, column)) != size:
                raise CrystensError(f"{size} crystals of {self.name} have {len(getattr(self, column))} {column}")

    @classmethod
    def from_store(cls, store: CrystalStore) -> Census:
        """Return the census of a store that holds at least one crystal."""
        return cls(
            name=store.name,
            lengths=store.array("lengths"),
            angles=store.array("angles"),
            space_groups=store.array("space_group"),
            counts=store.counts,
            numbers=store.array("numbers"),
            coordinates=store.array("coordinates"),
            files=store.column("file"),
            entries=store.column("entry"),
            splits=store.column("split"),
            rejects=list(store.rejects()),
            hydrogens_left_out=store.hydrogens_left_out,
            properties=dict(zip(store.property_names, store.properties(store.property_names).T, strict=True)),
        )

    def __len__(self) -> int:
        """Return the number of crystals M."""
        return len(self.counts)

    @functools.cached_property
    def volumes(self) -> np.ndarray:
        """Volume of each cell: (M,), cubic angstrom."""
        cosines = np.cos(np.radians(self.angles))
        relative = 1 - (cosines**2).sum(axis=1) + 2 * cosines.prod(axis=1)
        return self.lengths.prod(axis=1) * np.sqrt(np.maximum(relative, 0))

    @property
    def volumes_per_site(self) -> np.ndarray:
        """Volume of each cell divided by the number of its sites: (M,), cubic angstrom."""
        return self.volumes / self.counts

    @functools.cached_property
    def densities(self) -> np.ndarray:
        """Density of each crystal: (M,), gram per cubic centimetre."""
        return _GRAM_PER_CM3 * np.bincount(self._owners, _masses()[self.numbers], len(self)) / self.volumes

    @property
    def element_counts(self) -> np.ndarray:
        """Number of crystals with each element, by atomic number: (119,) int64."""
        return np.bincount(self._contents[:, 1], minlength=MAX_ATOMIC_NUMBER + 1)

    @property
    def elements_per_crystal(self) -> np.ndarray:
        """Number of elements of each crystal: (M,) int64."""
        return np.bincount(self._contents[:, 0], minlength=len(self))

    @property
    def crystal_systems(self) -> np.ndarray:
        """Crystal system of each crystal, its index in `crystens.symmetry.space_groups.CRYSTAL_SYSTEMS`: (M,) int64."""
        return np.searchsorted(list(CRYSTAL_SYSTEMS.values()), self.space_groups, side="right") - 1

    @functools.cached_property
    def formulas(self) -> np.ndarray:
        """Reduced formula of each crystal, as the index of the first crystal with it: (M,) int64."""
        firsts: dict[ReducedComposition, int] = {}
        parts = np.split(self.numbers, self._ends[:-1])
        return np.array([firsts.setdefault(reduced_composition(part), k) for k, part in enumerate(parts)])

    @functools.cached_property
    def shortest_contacts(self) -> np.ndarray:
        """Shortest distance of two sites over periodic images, (M,), angstrom; infinite if none is below 1 angstrom."""
        return _shortest_contacts(self)

    def formula(self, index: int) -> str:
        """Return the reduced formula of a crystal, as `Crystal.formula`."""
        start = int(self._ends[index] - self.counts[index])
        return reduced_formula(reduced_composition(self.numbers[start : start + self.counts[index]]))

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        """End of each crystal's sites in the columns of sites: (M,)."""
        return np.cumsum(self.counts)

    @functools.cached_property
    def _owners(self) -> np.ndarray:
        """Crystal of each site: (T,)."""
        return np.repeat(np.arange(len(self)), self.counts)

    @functools.cached_property
    def _contents(self) -> np.ndarray:
        """Rows of crystal, atomic number, amount, sorted."""
        width = MAX_ATOMIC_NUMBER + 1
        keys, amounts = np.unique(self._owners * width + self.numbers, return_counts=True)
        return np.stack([keys // width, keys % width, amounts], axis=1)


@functools.cache
def _masses() -> np.ndarray:
    """Return atomic masses by atomic number: (119,), atomic mass units."""
    return np.array([0.0, *(float(Element.from_Z(z).atomic_mass) for z in range(1, MAX_ATOMIC_NUMBER + 1))])


def _shortest_contacts(census: Census) -> np.ndarray:
    """Return the shortest distance below `_SHORT` of each crystal, (M,), angstrom; infinite where there is none.

    Two sites with a difference d along an axis are at least |d| times the spacing of its lattice planes apart. With d
    in [-1/2, 1/2] this excludes most pairs. If the spacing exceeds twice the bound, no other image can be near.
    """
    shortest = np.full(len(census), np.inf)
    matrices = np.array([cell_vectors(*cell) for cell in zip(census.lengths, census.angles, strict=True)])
    spacings = np.array([plane_spacings(matrix) for matrix in matrices])
    skewed = spacings.min(axis=1) <= 2 * _SHORT
    for first, second in _pairs(census.counts, census._ends):
        for axis in range(3):
            steps = census.coordinates[first, axis] - census.coordinates[second, axis]
            near = np.abs(steps - np.round(steps)) * spacings[census._owners[first], axis] < _SHORT
            first, second = first[near], second[near]
        owners = census._owners[first]
        steps = census.coordinates[first] - census.coordinates[second]
        steps -= np.round(steps)
        distances = np.linalg.norm(np.einsum("pk,pkl->pl", steps, matrices[owners]), axis=1)
        for owner in np.unique(owners[skewed[owners]]):
            pairs = owners == owner
            distances[pairs] = shortest_lengths(matrices[owner], steps[pairs], _SHORT)
        near = distances < _SHORT
        np.minimum.at(shortest, owners[near], distances[near])
    return shortest


def _pairs(counts: np.ndarray, ends: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield all pairs of sites of the same crystal as two columns of site indices, some millions at a time."""
    sites = np.arange(ends[-1])
    partners = np.repeat(ends, counts) - sites - 1  # of each site: those after it in its crystal
    done = np.cumsum(partners)
    start = 0
    while start < len(sites):
        before = done[start] - partners[start]
        stop = max(int(np.searchsorted(done, before + _PAIRS_AT_ONCE, side="right")), start + 1)
        first = np.repeat(sites[start:stop], partners[start:stop])
        offsets = done[start:stop] - partners[start:stop] - before
        yield first, first + 1 + np.arange(len(first)) - np.repeat(offsets, partners[start:stop])
        start = stop
