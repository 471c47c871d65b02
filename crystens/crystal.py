"""One crystal, and a batch of them as compact arrays.

A crystal is a cell (lengths a, b, c in angstrom; angles alpha, beta, gamma in degrees), an international space group
number (1-230) and N sites, each an atomic number (1-118) and fractional coordinates in [0, 1). Every site is fully
occupied by one element; disorder is refused where files are read.

Letters used for shapes throughout the package: B crystals in a batch, N site slots (`max_sites`) of which the first
`counts[b]` are filled, S = 12 + N side of an image.

Source: Alverson et al., "Generative adversarial networks and diffusion models in material discovery", Digital
Discovery 2024, 3, 62, Sec. 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from pymatgen.core import Composition, Element, Lattice, Structure
from torch import Tensor

from crystens.errors import CrystensError

MAX_ATOMIC_NUMBER = 118
NUM_SPACE_GROUPS = 230

# Two coordinates nearer than this are the same when sites are put into order: it is above the rounding of files that
# write 1/3 as 0.3333 and below any real difference that would decide an order.
_ORDER_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Crystal:
    """One ordered crystal.

    Args:
        lengths: cell lengths a, b, c, shape (3,), angstrom, positive.
        angles: cell angles alpha, beta, gamma, shape (3,), degrees; they must be able to form a cell.
        space_group: international number, 1-230.
        numbers: atomic numbers, shape (N,), 1-118.
        coordinates: fractional coordinates, shape (N, 3); wrapped into [0, 1).

    Raises:
        CrystensError: if a value is not finite or out of range, or if the angles cannot form a cell.
    """

    lengths: np.ndarray
    angles: np.ndarray
    space_group: int
    numbers: np.ndarray
    coordinates: np.ndarray

    def __post_init__(self) -> None:
        """Check every value once, here at the border; the rest of the package trusts them."""
        lengths = np.asarray(self.lengths, dtype=np.float64).reshape(3)
        angles = np.asarray(self.angles, dtype=np.float64).reshape(3)
        numbers = np.asarray(self.numbers, dtype=np.int64).reshape(-1)
        coordinates = np.asarray(self.coordinates, dtype=np.float64).reshape(-1, 3)
        check_cell(lengths, angles)
        if not 1 <= self.space_group <= NUM_SPACE_GROUPS:
            raise CrystensError(f"space group number must be 1-{NUM_SPACE_GROUPS}, got {self.space_group}")
        if len(numbers) == 0:
            raise CrystensError("a crystal needs at least one site, got none")
        if len(numbers) != len(coordinates):
            raise CrystensError(f"got {len(numbers)} atomic numbers for {len(coordinates)} coordinates")
        if numbers.min() < 1 or numbers.max() > MAX_ATOMIC_NUMBER:
            bad = numbers[(numbers < 1) | (numbers > MAX_ATOMIC_NUMBER)][0]
            raise CrystensError(f"atomic number must be 1-{MAX_ATOMIC_NUMBER}, got {bad}")
        if not np.isfinite(coordinates).all():
            site = int(np.flatnonzero(~np.isfinite(coordinates).all(axis=1))[0])
            raise CrystensError(f"coordinate of site {site} is not a finite number: {coordinates[site].tolist()}")
        object.__setattr__(self, "lengths", lengths)
        object.__setattr__(self, "angles", angles)
        object.__setattr__(self, "space_group", int(self.space_group))
        object.__setattr__(self, "numbers", numbers)
        object.__setattr__(self, "coordinates", wrap(coordinates))

    def __len__(self) -> int:
        """Return the number of sites."""
        return len(self.numbers)

    def in_canonical_order(self) -> Crystal:
        """Return the crystal with its sites in the order of `CrystalBatch.in_canonical_order`."""
        order = canonical_order(self.numbers, self.coordinates)
        return replace(self, numbers=self.numbers[order], coordinates=self.coordinates[order])

    @property
    def formula(self) -> str:
        """The reduced formula, elements in pymatgen's (electronegativity) order."""
        numbers, amounts = np.unique(self.numbers, return_counts=True)
        return Composition(
            {Element.from_Z(int(z)).symbol: int(n) for z, n in zip(numbers, amounts, strict=True)}
        ).reduced_formula

    @property
    def lattice(self) -> Lattice:
        """The cell as a pymatgen lattice (angstrom)."""
        return Lattice.from_parameters(*self.lengths, *self.angles)

    def to_structure(self) -> Structure:
        """Return the crystal as a pymatgen Structure; the space group number is not part of it."""
        return Structure(self.lattice, self.numbers.tolist(), self.coordinates)

    @classmethod
    def from_structure(cls, structure: Structure, space_group: int) -> Crystal:
        """Make a crystal of an ordered pymatgen Structure.

        Args:
            structure: every site fully occupied by one element (isotopes and oxidation states are dropped). Of a
                left-handed lattice the coordinates change their sign, or the crystal would become its mirror image.
            space_group: international number; `crystens.symmetry.space_group_number` finds it.

        Raises:
            CrystensError: if the structure is disordered or a value is out of range.
        """
        if not structure.is_ordered:
            raise CrystensError("partial occupancy (disordered structure): only ordered crystals can be encoded")
        return cls(
            lengths=np.array(structure.lattice.abc),
            angles=np.array(structure.lattice.angles),
            space_group=space_group,
            numbers=np.array([site.specie.Z for site in structure]),
            coordinates=structure.frac_coords * np.sign(np.linalg.det(structure.lattice.matrix)),
        )


def cell_vectors(lengths: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Return cell vectors as rows (3, 3), angstrom, right-handed: a along x, b in the xy plane.

    Args:
        lengths: a, b, c, shape (3,), angstrom.
        angles: alpha, beta, gamma, shape (3,), degrees; they must be able to form a cell (`check_cell`).
    """
    # In plain numbers: arrays of three cost more than what is done with them.
    a, b, c = (float(length) for length in lengths)
    cos_alpha, cos_beta, cos_gamma = (_cosine(float(angle)) for angle in angles)
    sin_gamma = math.sqrt(1 - cos_gamma**2)
    y = (cos_alpha - cos_beta * cos_gamma) / sin_gamma
    z = math.sqrt(max(1 - cos_beta**2 - y**2, 0.0))
    return np.array([[a, 0, 0], [b * cos_gamma, b * sin_gamma, 0], [c * cos_beta, c * y, c * z]])


def _cosine(angle: float) -> float:
    """Return the cosine of an angle in degrees; that of 90 is 0, not 6e-17."""
    return 0.0 if angle == 90 else math.cos(math.radians(angle))


def check_cell(lengths: np.ndarray, angles: np.ndarray) -> None:
    """Raise a CrystensError unless lengths (3,), angstrom, and angles (3,), degrees, form a cell with a volume."""
    # In plain numbers, as in `cell_vectors`: this is done several times for every file that is read.
    abc, degrees = lengths.tolist(), angles.tolist()
    if not all(map(math.isfinite, abc + degrees)):
        raise CrystensError(f"cell has values that are not finite: {abc}, {degrees}")
    if min(abc) <= 0:
        raise CrystensError(f"cell lengths must be > 0 angstrom, got {abc}")
    if min(degrees) <= 0 or max(degrees) >= 180:
        raise CrystensError(f"cell angles must lie strictly between 0 and 180 degrees, got {degrees}")
    x, y, z = map(_cosine, degrees)
    relative_volume_squared = 1 - x * x - y * y - z * z + 2 * x * y * z  # negative where no such cell exists
    if relative_volume_squared <= 1e-8:
        raise CrystensError(f"the three cell angles cannot form a cell: {degrees} degrees")


def canonical_order(numbers: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """Return the order (N,) of sites that `CrystalBatch.in_canonical_order` puts them into.

    Args:
        numbers: atomic numbers, shape (N,).
        coordinates: fractional, in [0, 1), shape (N, 3).
    """
    ranks = np.round(coordinates.astype(np.float32) / np.float32(_ORDER_TOLERANCE)).astype(np.int64)
    ranks %= round(1 / _ORDER_TOLERANCE)
    return np.lexsort((ranks[:, 2], ranks[:, 1], ranks[:, 0], numbers))


def wrap(coordinates: np.ndarray) -> np.ndarray:
    """Return fractional coordinates moved into [0, 1).

    Values that float32 cannot tell from 1 become 0, so that no later conversion leaves the interval.
    """
    wrapped = coordinates - np.floor(coordinates)
    return np.where(wrapped.astype(np.float32) >= 1.0, 0.0, wrapped)


@dataclass(frozen=True, eq=False)
class CrystalBatch:
    """B crystals as padded arrays: 3 + 3 floats, a space group, a count, and N x (1 byte + 3 floats) a crystal.

    Empty slots hold atomic number 0 and coordinates 0. Tensors of one batch stand on one device; Lightning moves a
    batch through `to`. At 52 site slots a crystal takes 702 bytes, its float32 image 65,536.

    Attributes:
        lengths: (B, 3) float32, angstrom.
        angles: (B, 3) float32, degrees.
        space_groups: (B,) uint8.
        counts: (B,) uint8, number of sites.
        numbers: (B, N) uint8, atomic numbers.
        coordinates: (B, N, 3) float32, fractional, in [0, 1).
    """

    lengths: Tensor
    angles: Tensor
    space_groups: Tensor
    counts: Tensor
    numbers: Tensor
    coordinates: Tensor

    @classmethod
    def from_crystals(cls, crystals: Sequence[Crystal], max_sites: int) -> CrystalBatch:
        """Stack crystals, in the order and with the site order given.

        Raises:
            CrystensError: if a crystal has more than `max_sites` sites.
        """
        if not 1 <= max_sites <= 255:
            raise CrystensError(f"max_sites must be 1-255, got {max_sites}")
        counts = np.array([len(crystal) for crystal in crystals], dtype=np.int64)
        if len(counts) and counts.max() > max_sites:
            worst = int(counts.argmax())
            raise CrystensError(
                f"crystal {worst} ({crystals[worst].formula}) has {counts[worst]} sites, more than {max_sites=}"
            )
        size = len(crystals)
        numbers = np.zeros((size, max_sites), dtype=np.uint8)
        coordinates = np.zeros((size, max_sites, 3), dtype=np.float32)
        for row, crystal in enumerate(crystals):
            numbers[row, : len(crystal)] = crystal.numbers
            coordinates[row, : len(crystal)] = crystal.coordinates
        stack = {
            "lengths": np.array([c.lengths for c in crystals], dtype=np.float32).reshape(size, 3),
            "angles": np.array([c.angles for c in crystals], dtype=np.float32).reshape(size, 3),
            "space_groups": np.array([c.space_group for c in crystals], dtype=np.uint8),
            "counts": counts.astype(np.uint8),
            "numbers": numbers,
            "coordinates": coordinates,
        }
        return cls(**{name: torch.from_numpy(array) for name, array in stack.items()})

    def __len__(self) -> int:
        """Return the number of crystals."""
        return len(self.counts)

    def __getitem__(self, index: Tensor | Sequence[int] | slice) -> CrystalBatch:
        """Return the crystals at a slice, a list of positions or a boolean mask, as a batch."""
        where = index if isinstance(index, slice) else torch.as_tensor(index, device=self.counts.device)
        return CrystalBatch(**{f.name: getattr(self, f.name)[where] for f in fields(self)})

    @property
    def max_sites(self) -> int:
        """The number of site slots N."""
        return self.numbers.shape[1]

    @property
    def site_mask(self) -> Tensor:
        """Which slots are filled: (B, N) bool."""
        return torch.arange(self.max_sites, device=self.counts.device) < self.counts[:, None]

    @property
    def nbytes(self) -> int:
        """Size of all tensors in bytes."""
        return sum(getattr(self, f.name).nbytes for f in fields(self))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> CrystalBatch:
        """Return the batch on another device."""
        return CrystalBatch(
            **{f.name: getattr(self, f.name).to(device, non_blocking=non_blocking) for f in fields(self)}
        )

    def pin_memory(self) -> CrystalBatch:
        """Return the batch in page-locked memory, for fast copies to a GPU."""
        return CrystalBatch(**{f.name: getattr(self, f.name).pin_memory() for f in fields(self)})

    def crystal(self, index: int) -> Crystal:
        """Return one crystal (float32 precision)."""
        count = int(self.counts[index])
        return Crystal(
            lengths=self.lengths[index].numpy(force=True),
            angles=self.angles[index].numpy(force=True),
            space_group=int(self.space_groups[index]),
            numbers=self.numbers[index, :count].numpy(force=True),
            coordinates=self.coordinates[index, :count].numpy(force=True),
        )

    def in_canonical_order(self) -> CrystalBatch:
        """Return the crystals with sites sorted by atomic number, then x, then y, then z.

        A site order that depends on the file would be noise to learn. Coordinates within 0.001 count as equal, and
        those within 0.001 below 1 as 0, so that rounding in a file does not decide the order.
        """
        ranks = torch.round(self.coordinates / _ORDER_TOLERANCE).to(torch.int64) % round(1 / _ORDER_TOLERANCE)
        species = torch.where(self.site_mask, self.numbers.to(torch.int64), MAX_ATOMIC_NUMBER + 1)
        order = torch.arange(self.max_sites, device=species.device).expand_as(species)
        # A lexicographic sort is a stable sort by each key in turn, the least important first.
        for key in (ranks[..., 2], ranks[..., 1], ranks[..., 0], species):
            order = order.gather(1, key.gather(1, order).argsort(dim=1, stable=True))
        return CrystalBatch(
            lengths=self.lengths,
            angles=self.angles,
            space_groups=self.space_groups,
            counts=self.counts,
            numbers=self.numbers.gather(1, order),
            coordinates=self.coordinates.gather(1, order[..., None].expand_as(self.coordinates)),
        )
