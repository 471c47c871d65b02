"""Decoding of images of orbits into crystals with exactly the space group that the image states.

1. The number of orbits is counted and the copies of each value are averaged, with votes on coordinates, as for images
   of all sites (`crystens.decoding`).
2. The space group is the nearest code to the mean over the cells of all orbits, or the rounded mean.
3. The Wyckoff position of each orbit is the nearest code among those of the group; the coordinates decide between
   positions with the same code.
4. `crystens.symmetry.projection` moves cell and coordinates to the nearest crystal of the group, and repairs or rejects
   impossible orbits. The result lists all sites, in the conventional or a primitive cell, with the group's operations.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from crystens.clustering import Clusters, cluster
from crystens.crystal import MAX_ATOMIC_NUMBER, NUM_SPACE_GROUPS, cell_vectors
from crystens.decoding import DecodedCrystal, ImageCopies, average_copies, read_copies
from crystens.encoding import GROUP_ROW, POSITION_ROW
from crystens.errors import CrystensError
from crystens.orbits.codes import nearest_groups
from crystens.orbits.scaling import OrbitScaling
from crystens.scaling import Scaling
from crystens.symmetry.orbit_crystal import CELLS, OrbitCrystal
from crystens.symmetry.projection import Projection
from crystens.symmetry.wyckoff import space_group

_NUMBER_RESOLUTION = 0.1  # in atomic numbers: neighbours in the periodic table stay distinct
_SAME_CODE = 1e-6
_ALL_ELEMENTS = np.full(MAX_ATOMIC_NUMBER, 1 / MAX_ATOMIC_NUMBER)


@dataclass(frozen=True, eq=False)
class DecodedOrbits(DecodedCrystal):
    """One decoded image of orbits: a `DecodedCrystal` whose `num_sites` is the number of orbits in the image.

    Every repair counts in `merged_sites`: without it sites would overlap.

    Attributes:
        orbits: the crystal as orbits; None if decoding failed.
        repairs: number of repairs of each kind in `crystens.symmetry.projection.REPAIRS`.
    """

    orbits: OrbitCrystal | None = None
    repairs: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class OrbitDecoder:
    """Turns scaled images of orbits into crystals; all arguments are config values of `decode=orbits`.

    Args:
        cell: cell of the crystals, "conventional" or "primitive".
        atom_clusters: K of atomic numbers, or "auto"; used only if the image holds numbers instead of codes.
        merge_distance: two sites nearer than this are one, angstrom.
        repair: whether impossible orbits are repaired; otherwise decoding fails.
        max_sites: largest number of sites of the primitive cell, beyond which decoding fails; None for no bound.

    Raises:
        CrystensError: if a value is out of range.
    """

    cell: str = "primitive"
    atom_clusters: Clusters = "auto"
    merge_distance: float = 0.5
    repair: bool = True
    max_sites: int | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if self.cell not in CELLS:
            raise CrystensError(f"decode.cell={self.cell!r} is not known; use one of {', '.join(CELLS)}")
        _ = self.projection

    @property
    def periodic(self) -> bool:
        """Whether coordinates are read periodically: always."""
        return True

    @property
    def projection(self) -> Projection:
        """The step from noisy orbits to a crystal."""
        return Projection(self.merge_distance, self.max_sites, self.repair)

    def decode(
        self,
        images: Tensor,
        scaling: Scaling,
        counts: Tensor | None = None,
        elements: np.ndarray | None = None,
    ) -> list[DecodedOrbits]:
        """Return one crystal for each scaled image (B, 4, S, S), or a failure with its reason.

        Args:
            images: scaled images, of any device; not changed.
            scaling: the scaling of the images.
            counts: (B,) numbers of orbits, if they are known; otherwise they are counted.
            elements: (118,) probabilities of the elements, see `crystens.decoding.element_probabilities`.

        Raises:
            CrystensError: if the images are not of orbits.
        """
        return self.decode_copies(read_copies(images, scaling, counts), elements)

    def decode_copies(self, images: ImageCopies, elements: np.ndarray | None = None) -> list[DecodedOrbits]:
        """Return the crystals of a batch whose copies are already read, see `decode`."""
        scaling = images.scaling
        if not isinstance(scaling, OrbitScaling):
            raise CrystensError("decode=orbits needs images of orbits, and these are of all sites; use decode=auto")
        reading = average_copies(images, periodic=True)
        codes = scaling.code_cells(images.values, POSITION_ROW)
        if scaling.space_groups == "bits":
            cells = (scaling.code_cells(images.values, GROUP_ROW) * images.mask[..., None]).sum(dim=1)
            groups = nearest_groups(torch.nan_to_num(cells / reading.counts.clamp(min=1)[:, None]))
        else:
            groups = torch.nan_to_num(reading.cells[:, -1]).round().clamp(1, NUM_SPACE_GROUPS).long()
        apart = torch.cdist(codes, scaling.position_codes.to(codes)[groups])  # (B, N, 27)
        rows = zip(
            reading.counts.tolist(),
            groups.tolist(),
            reading.cells.numpy(force=True),
            reading.numbers.numpy(force=True),
            reading.coordinates.numpy(force=True),
            reading.number_spread.tolist(),
            apart.numpy(force=True),
            [_ALL_ELEMENTS if elements is None else elements] * len(groups),
            strict=True,
        )
        projection = self.projection
        return [self._decode_one(projection, *row) for row in rows]

    def _decode_one(
        self,
        projection: Projection,
        count: int,
        group: int,
        cell: np.ndarray,
        numbers: np.ndarray,
        coordinates: np.ndarray,
        number_spread: float,
        apart: np.ndarray,
        elements: np.ndarray,
    ) -> DecodedOrbits:
        """Project the reading of one image; apart (N, 27) holds distances between cells and codes of positions."""
        if count == 0:
            return DecodedOrbits(None, "the image holds no site", 0, None)
        numbers, coordinates, apart = numbers[:count], coordinates[:count], apart[:count]
        if not all(np.isfinite(array).all() for array in (cell, numbers, coordinates, apart)):
            return DecodedOrbits(None, "the image has values that are not finite", count, None)
        spread = max(number_spread, _NUMBER_RESOLUTION)
        atoms = np.rint(cluster(numbers, self.atom_clusters, spread, elements)).astype(np.int64)
        if atoms.min() < 1 or atoms.max() > MAX_ATOMIC_NUMBER:
            bad = atoms[(atoms < 1) | (atoms > MAX_ATOMIC_NUMBER)][0]
            return DecodedOrbits(None, f"atomic number must be 1-{MAX_ATOMIC_NUMBER}, got {bad}", count, group)
        lengths, angles = cell[:3], cell[3:6]
        try:
            vectors = cell_vectors(lengths, angles)
        except CrystensError as error:
            return DecodedOrbits(None, str(error), count, group)
        letters = _letters(group, vectors, coordinates, apart)
        made = projection(group, lengths, angles, atoms, letters, coordinates)
        if made.crystal is None:
            return DecodedOrbits(None, made.reason, count, group, moved=made.moved, repairs=made.repairs)
        symmetry = made.crystal.symmetrised(self.cell)
        return DecodedOrbits(
            symmetry.crystal,
            "",
            count,
            group,
            sum(made.repairs.values()),
            symmetry,
            moved=made.moved,
            orbits=made.crystal,
            repairs=made.repairs,
        )


def _letters(number: int, vectors: np.ndarray, coordinates: np.ndarray, apart: np.ndarray) -> str:
    """Return the letter of each orbit: the nearest code, and among positions with that code the nearest position."""
    group = space_group(number)
    metric = group.averaged_metric(vectors @ vectors.T)
    letters = []
    for point, row in zip(coordinates, apart[:, : len(group.positions)], strict=True):
        near = [group.positions[place] for place in np.flatnonzero(row <= row.min() + _SAME_CODE)]
        if len(near) > 1:
            near.sort(key=lambda position: float(position.nearest(point[None], metric).distances[0]))
        letters.append(near[0].letter)
    return "".join(letters)
