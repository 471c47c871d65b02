"""All that a network is told of the images that it draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crystens.networks.codes.stated import Allowed


@dataclass(frozen=True, eq=False)
class Told:
    """Facts of B images that are known before they are drawn; None where nothing of a kind is known.

    Attributes:
        allowed: which codes they may state.
        facts: numbers of the whole crystal, (B, F), NaN where hidden, see `crystens.networks.facts`.
        cells: values of cells as they stand in the image, (B, 4, S, S), NaN where they are to be drawn.
    """

    allowed: Allowed | None = None
    facts: Tensor | None = None
    cells: Tensor | None = None

    def of(self, images: Tensor | slice) -> Told:
        """Return what is told of some of the images."""
        return Told(
            None if self.allowed is None else self.allowed.of(images),
            None if self.facts is None else self.facts[images],
            None if self.cells is None else self.cells[images],
        )

    def to(self, device: torch.device) -> Told:
        """Return the same on a device."""
        return Told(
            None if self.allowed is None else self.allowed.to(device),
            None if self.facts is None else self.facts.to(device),
            None if self.cells is None else self.cells.to(device),
        )

    @classmethod
    def cat(cls, parts: Sequence[Told]) -> Told:
        """Return what is told of all images, one part after the other; all parts say the same kinds."""
        allowed = [part.allowed for part in parts if part.allowed is not None]
        facts = [part.facts for part in parts if part.facts is not None]
        cells = [part.cells for part in parts if part.cells is not None]
        return cls(
            Allowed.cat(allowed) if allowed else None,
            torch.cat(facts) if facts else None,
            torch.cat(cells) if cells else None,
        )
