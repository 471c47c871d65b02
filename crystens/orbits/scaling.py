"""Scaling of images of orbits to [0, 1].

The image is that of `crystens.encoding` with a slot for each orbit instead of each site: element and coordinates of the
orbit's representative, the conventional cell, and the pair block of the representatives. Row and column 11, empty in
the paper's image, hold the Wyckoff position, and row and column 10 the space group (`crystens.orbits.codes`). Digits
are scaled like all values: 0 becomes `gap`, 1 becomes 1, an empty cell is 0.

Differs from the paper: its images list all sites of any cell, without their orbits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from crystens.batch import CrystalBatch
from crystens.element_codes import NO_CODE
from crystens.encoding import GROUP_ROW, HEADER, NUM_CHANNELS, POSITION_ROW
from crystens.errors import CrystensError
from crystens.orbits.batch import OrbitBatch
from crystens.orbits.codes import COPIES, check_group_encoding, group_codes, wyckoff_codes
from crystens.scaling import Scaling


class OrbitScaling(Scaling):
    """`Scaling` for images of orbits.

    Args:
        ranges: ranges of the quantities, as for `Scaling`.
        max_sites: number of orbit slots N.
        gap: scaled value of 0 and of the minimum, in [0, 1).
        diagonal: whether the pair block's diagonal holds values.
        atoms: "number", "bits" or "period_group".
        space_groups: encoding of the space group: "number" or "bits".
        wyckoff: encoding of the Wyckoff position: "letter" or "multiplicity".

    Raises:
        CrystensError: as `Scaling`, or if an encoding is not known.
    """

    rows = HEADER

    def __init__(
        self,
        ranges: dict[str, tuple[float, float]],
        max_sites: int,
        gap: float,
        diagonal: bool,
        atoms: str = "bits",
        space_groups: str = "bits",
        wyckoff: str = "letter",
    ) -> None:
        """Store the ranges and codes."""
        super().__init__(ranges, max_sites, gap, diagonal, atoms)
        check_group_encoding(space_groups)
        self.space_groups = space_groups
        self.wyckoff = wyckoff
        self.register_buffer("position_codes", wyckoff_codes(wyckoff), persistent=False)
        self.register_buffer("group_codes", group_codes(), persistent=False)

    position_codes: Tensor
    group_codes: Tensor

    def code_tables(self) -> dict[int, Tensor]:
        """Return the codes of `Scaling`, of positions (231, 27, 8) and, with bits, of groups (231, 8)."""
        positions = self.position_codes
        tables = {POSITION_ROW: torch.where(positions < NO_CODE, positions * (1 - self.gap) + self.gap, NO_CODE)}
        if self.space_groups == "bits":
            groups = self.group_codes * (1 - self.gap) + self.gap
            groups[0] = NO_CODE
            tables[GROUP_ROW] = groups
        return super().code_tables() | tables

    @classmethod
    def fit(
        cls,
        crystals: CrystalBatch | Iterable[CrystalBatch],
        distance: str = "fractional",
        gap: float = 0.1,
        atoms: str = "bits",
        space_groups: str = "bits",
        wyckoff: str = "letter",
    ) -> OrbitScaling:
        """Return the scaling with the smallest and largest values of crystals as ranges, see `Scaling.fit`."""
        fitted = Scaling.fit(crystals, distance, gap, atoms)
        return cls(fitted.ranges, fitted.max_sites, gap, fitted.diagonal, atoms, space_groups, wyckoff)

    @classmethod
    def paper(cls, *_: Any, **__: Any) -> OrbitScaling:
        """Raise: the paper has no images of orbits."""
        raise CrystensError("the paper's scaling exists only for images of all sites; use scaling=fitted with orbits")

    def encode(self, crystals: CrystalBatch, distance: str = "fractional") -> Tensor:
        """Return the scaled images of an `OrbitBatch`: (B, 4, S, S) float32, empty cells 0.

        Raises:
            CrystensError: if the batch holds sites instead of orbits.
        """
        if not isinstance(crystals, OrbitBatch):
            raise CrystensError(f"images of orbits need an OrbitBatch, got a {type(crystals).__name__}")
        images = super().encode(crystals, distance)
        mask = crystals.site_mask[..., None]
        groups = crystals.space_groups.long()
        positions = self.position_codes[groups[:, None], crystals.positions.long()]  # (B, N, 8)
        self._write(images, POSITION_ROW, positions, mask)
        if self.space_groups == "bits":
            digits = self.group_codes[groups][:, None].expand_as(positions)
            self._write(images, GROUP_ROW, digits, mask)
        return images

    def _write(self, images: Tensor, row: int, codes: Tensor, mask: Tensor) -> None:
        """Write codes (B, N, 8) into a row and its column, where the mask (B, N, 1) is true."""
        cells = (codes * (1 - self.gap) + self.gap) * mask
        images[:, :, row, HEADER:] = cells[..., :NUM_CHANNELS].transpose(1, 2)
        images[:, :, HEADER:, row] = cells[..., NUM_CHANNELS:].transpose(1, 2)

    def unscale(self, images: Tensor) -> Tensor:
        """Return scaled images (B, 4, S, S) in physical values, digits between 0 and 1; see `Scaling.unscale`."""
        values = super().unscale(images)
        rows = [POSITION_ROW, GROUP_ROW] if self.space_groups == "bits" else [POSITION_ROW]
        digits = (images - self.gap) / (1 - self.gap)
        values[:, :, rows, HEADER:] = digits[:, :, rows, HEADER:]
        values[:, :, HEADER:, rows] = digits[:, :, HEADER:, rows]
        return values

    def code_cells(self, values: Tensor, row: int) -> Tensor:
        """Return the eight cells of each orbit in a row and its column of physical images: (B, N, 8)."""
        return torch.cat(
            [values[:, :, row, HEADER:].transpose(1, 2), values[:, :, HEADER:, row].transpose(1, 2)], dim=2
        )

    def group_copies(self, copies: Tensor) -> Tensor:
        """Return the space group in the cells of each orbit: (B, 8, N); with bits all eight values are equal.

        With bits it is the sum of digits times powers of two, not rounded: linear in the image, so that noise shows.
        """
        if self.space_groups == "number":
            return copies
        places = 2.0 ** torch.arange(COPIES, device=copies.device, dtype=copies.dtype)
        return (copies * places[:, None]).sum(dim=1, keepdim=True).expand_as(copies)

    def evened(self, images: Tensor) -> Tensor:
        """Return images in which the group digits of each orbit are replaced by their mean."""
        if self.space_groups == "number":
            return images
        images = images.clone()
        mean = self.code_cells(images, GROUP_ROW).mean(dim=2)
        images[:, :, GROUP_ROW, HEADER:] = mean[:, None]
        images[:, :, HEADER:, GROUP_ROW] = mean[:, None]
        return images

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters as plain values, for a checkpoint or a file."""
        return super().to_dict() | {"space_groups": self.space_groups, "wyckoff": self.wyckoff}

    @classmethod
    def from_dict(cls, numbers: dict[str, Any]) -> OrbitScaling:
        """Return the scaling that `to_dict` wrote."""
        plain = Scaling.from_dict(numbers)
        names = ("space_groups", "wyckoff")
        return cls(
            plain.ranges, plain.max_sites, plain.gap, plain.diagonal, plain.atoms, *(numbers[name] for name in names)
        )
