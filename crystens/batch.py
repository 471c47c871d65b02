"""A batch of crystals as compact arrays.

Letters used for shapes throughout the package: B crystals in a batch, N site slots (`max_sites`) of which the first
`counts[b]` are filled, S = 12 + N side of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from crystens.crystal import MAX_ATOMIC_NUMBER, ORDER_TOLERANCE, Crystal
from crystens.errors import CrystensError


@dataclass(frozen=True, eq=False)
class CrystalBatch:
    """B crystals as padded arrays; a crystal has 3 + 3 floats, a space group, a count, and N x (1 byte + 3 floats).

    Empty slots hold atomic number 0 and coordinates 0. All tensors of a batch are on one device; Lightning moves a
    batch by `to`. With 52 site slots a crystal takes 702 bytes, its float32 image 65,536.

    Attributes:
        lengths: (B, 3) float32, angstrom.
        angles: (B, 3) float32, degrees.
        space_groups: (B,) uint8.
        counts: (B,) uint8, number of sites.
        numbers: (B, N) uint8, atomic numbers.
        coordinates: (B, N, 3) float32, fractional, in [0, 1).
        properties: (B, P) float32, in the units of their source, NaN where missing; None unless requested
            (`crystens.ingest.store.CrystalStore.properties`).
    """

    lengths: Tensor
    angles: Tensor
    space_groups: Tensor
    counts: Tensor
    numbers: Tensor
    coordinates: Tensor
    properties: Tensor | None = field(default=None, kw_only=True)

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

    def __getitem__(self, index: Tensor | Sequence[int] | slice) -> Self:
        """Return the crystals at a slice, a list of positions or a boolean mask, as a batch."""
        where = index if isinstance(index, slice) else torch.as_tensor(index, device=self.counts.device)
        return type(self)(**{name: tensor[where] for name, tensor in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name, without None."""
        return {f.name: tensor for f in fields(self) if (tensor := getattr(self, f.name)) is not None}

    @property
    def max_sites(self) -> int:
        """The number of site slots N."""
        return self.numbers.shape[1]

    @property
    def site_mask(self) -> Tensor:
        """Whether each slot is filled: (B, N) bool."""
        return torch.arange(self.max_sites, device=self.counts.device) < self.counts[:, None]

    @property
    def nbytes(self) -> int:
        """Size of all tensors in bytes."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return the batch on another device."""
        moved = {name: tensor.to(device, non_blocking=non_blocking) for name, tensor in self.tensors().items()}
        return type(self)(**moved)

    def pin_memory(self) -> Self:
        """Return the batch in page-locked memory, for fast copies to a GPU."""
        return type(self)(**{name: tensor.pin_memory() for name, tensor in self.tensors().items()})

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

        A model would have to learn a site order that depends on the file. Coordinates within 0.001 count as equal, and
        coordinates within 0.001 below 1 as 0, so that rounding in a file does not change the order.
        """
        ranks = torch.round(self.coordinates / ORDER_TOLERANCE).to(torch.int64) % round(1 / ORDER_TOLERANCE)
        species = torch.where(self.site_mask, self.numbers.to(torch.int64), MAX_ATOMIC_NUMBER + 1)
        order = torch.arange(self.max_sites, device=species.device).expand_as(species)
        # A lexicographic sort is a stable sort by each key in turn, the least important first.
        for key in (ranks[..., 2], ranks[..., 1], ranks[..., 0], species):
            order = order.gather(1, key.gather(1, order).argsort(dim=1, stable=True))
        return replace(
            self,
            numbers=self.numbers.gather(1, order),
            coordinates=self.coordinates.gather(1, order[..., None].expand_as(self.coordinates)),
        )


class ImageBatch(NamedTuple):
    """Images of crystals, (B, 4, S, S) in [0, 1], and their properties, (B, P), NaN where one is missing."""

    images: Tensor
    properties: Tensor


def cell_vectors(lengths: Tensor, angles: Tensor) -> Tensor:
    """Return cell vectors as rows, as `crystens.crystal.cell_vectors`: (B, 3), (B, 3) to (B, 3, 3), angstrom.

    Impossible angles give a cell without volume.
    """
    cos_alpha, cos_beta, cos_gamma = torch.deg2rad(angles).cos().unbind(dim=1)
    sin_gamma = torch.deg2rad(angles[:, 2]).sin()
    cy = (cos_alpha - cos_beta * cos_gamma) / sin_gamma
    cz = (1 - cos_beta.square() - cy.square()).clamp(min=0).sqrt()
    zero, one = torch.zeros_like(cz), torch.ones_like(cz)
    rows = [
        torch.stack([one, zero, zero], dim=1),
        torch.stack([cos_gamma, sin_gamma, zero], dim=1),
        torch.stack([cos_beta, cy, cz], dim=1),
    ]
    return torch.stack(rows, dim=1) * lengths[:, :, None]
