"""Codes of a batch of images: those that may be drawn, how probable they are, and those that images state.

Codes are those of elements by atomic number (119), of space groups by number (231) and of Wyckoff positions. Number 0
is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from crystens.crystal import MAX_ATOMIC_NUMBER, NUM_SPACE_GROUPS
from crystens.symmetry.wyckoff import MAX_POSITIONS

NUM_ELEMENTS, NUM_GROUPS = MAX_ATOMIC_NUMBER + 1, NUM_SPACE_GROUPS + 1


@dataclass(frozen=True, eq=False)
class Allowed:
    """Which codes images may state; True where all may.

    Attributes:
        elements: (B, N, 119) bool, by site.
        groups: (B, 231) bool.
        positions: (B, N, 27) bool, by site and place of the letter among those of the group.
    """

    elements: Tensor
    groups: Tensor
    positions: Tensor

    @classmethod
    def everything(cls, images: int, sites: int, device: torch.device | None = None) -> Allowed:
        """Return what says nothing, for images of `sites` slots."""
        return cls(
            torch.ones(images, sites, NUM_ELEMENTS, dtype=torch.bool, device=device),
            torch.ones(images, NUM_GROUPS, dtype=torch.bool, device=device),
            torch.ones(images, sites, MAX_POSITIONS, dtype=torch.bool, device=device),
        )

    @classmethod
    def cat(cls, parts: Sequence[Allowed]) -> Allowed:
        """Return what is allowed in all images, one part after the other."""
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def of(self, images: Tensor | slice, sites: int | None = None) -> Allowed:
        """Return what is allowed in some of the images, and of those in their first sites."""
        return Allowed(self.elements[images, :sites], self.groups[images], self.positions[images, :sites])

    def to(self, device: torch.device) -> Allowed:
        """Return the same on a device."""
        return Allowed(self.elements.to(device), self.groups.to(device), self.positions.to(device))


@dataclass(frozen=True, eq=False)
class Evidence:
    """Log likelihoods of codes by the noisy cells, and of those that are not allowed none.

    Attributes:
        elements: (B, N, 119).
        groups: (B, 231); None where an image states no group in digits.
        positions: (B, N, 108), of the different codes; None as `groups`.
    """

    elements: Tensor
    groups: Tensor | None
    positions: Tensor | None


@dataclass(frozen=True, eq=False)
class Posterior:
    """Logits of codes that were drawn in training.

    Attributes:
        elements: of each site on its own, (B, N, 119).
        same: of a site and the next having one element, (B, N - 1).
        total: logarithm of the sum over all rows of elements, (B,).
        groups: (B, 231), or None.
        positions: (B, N, 108), or None.
    """

    elements: Tensor
    same: Tensor
    total: Tensor
    groups: Tensor | None
    positions: Tensor | None


@dataclass(frozen=True, eq=False)
class Stated:
    """Codes that clean images state: elements (B, N), and of orbits groups (B,) and places of letters (B, N), int64."""

    elements: Tensor
    groups: Tensor | None
    places: Tensor | None
