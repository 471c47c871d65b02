"""Augmentation: other descriptions of the same crystals, drawn anew for each batch on the training device.

The image of a crystal depends on the choice of its origin, the order of its axes and the order of sites of the same
element; the crystal does not. Each choice can be drawn at random. In the order of application:

1. axes: new axis k is old axis p(k), for lengths, angles and coordinates, with p one of the six permutations. An odd
   permutation makes a right-handed cell left-handed. Lengths and angles hold no handedness, so that the cell would be
   read as the mirror image (quartz of space group 152 would become 154). Therefore all three axes are reversed too
   (x -> -x): lengths and angles stay, the cell is right-handed again, and the crystal is the same.
2. origin: one shift, uniform in the cell, for all sites of a crystal.
3. like sites: a random order among the sites of one element; elements stay ascending. Otherwise sites keep their
   canonical order (`CrystalBatch.in_canonical_order`).

Shapes do not depend on values, nothing is read back from the device, and there is no loop over crystals: a batch takes
the same few operations on CPU, CUDA and XLA.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from crystens.batch import CrystalBatch
from crystens.crystal import MAX_ATOMIC_NUMBER
from crystens.encoding import check_distance
from crystens.errors import CrystensError


@dataclass(frozen=True)
class Augmentation:
    """Draws another description of each crystal of a batch.

    Args:
        origin_shift: whether the origin is drawn.
        permute_like_sites: whether the order of the sites of one element is drawn.
        relabel_axes: whether the order of the axes is drawn.

    Raises:
        CrystensError: if an argument is neither true nor false.
    """

    origin_shift: bool = False
    permute_like_sites: bool = False
    relabel_axes: bool = False

    def __post_init__(self) -> None:
        """Check that all arguments are bool: the text "false" would count as true."""
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, bool):
                raise CrystensError(f"augmentation.{field.name} must be true or false, got {value!r}")

    def __call__(self, batch: CrystalBatch, generator: torch.Generator | None = None) -> CrystalBatch:
        """Return the same crystals in other descriptions, on their device; the batch itself if nothing is drawn.

        Args:
            batch: B crystals with N site slots; not changed.
            generator: draws the random numbers, on its own device; None takes the global generator of the batch's
                device.
        """
        if self.relabel_axes:
            batch = _relabelled(batch, generator)
        if self.origin_shift:
            batch = _shifted(batch, generator)
        if self.permute_like_sites:
            return _permuted(batch, generator)
        return batch.in_canonical_order() if self.relabel_axes or self.origin_shift else batch

    def widened(
        self, ranges: Mapping[str, tuple[float, float]], distance: str = "fractional"
    ) -> dict[str, tuple[float, float]]:
        """Return the ranges of all descriptions of crystals, from the ranges of the crystals as given.

        A scaling fitted to the crystals as given would map a long c that became an a to above 1. The same holds for
        distances of fractional coordinates, which may become larger than in the data.

        Args:
            ranges: (minimum, maximum) of each of the `crystens.encoding.QUANTITIES`, physical.
            distance: distance of the pair block, "fractional" or "cartesian"; Cartesian distances do not change.

        Raises:
            CrystensError: if `distance` is not known.
        """
        check_distance(distance)
        wide = dict(ranges)
        if self.relabel_axes:
            for names in (("a", "b", "c"), ("alpha", "beta", "gamma")):
                shared = (min(ranges[name][0] for name in names), max(ranges[name][1] for name in names))
                wide |= dict.fromkeys(names, shared)
        if self.relabel_axes or self.origin_shift:
            limits = {"x": (0.0, 1.0), "y": (0.0, 1.0), "z": (0.0, 1.0), "difference": (-1.0, 1.0)}
            if distance == "fractional":
                limits["distance"] = (0.0, math.sqrt(3))
            for name, (low, high) in limits.items():
                wide[name] = (min(ranges[name][0], low), max(ranges[name][1], high))
        return wide


def _relabelled(batch: CrystalBatch, generator: torch.Generator | None) -> CrystalBatch:
    """Return crystals with their axes in a random order, all six equally likely."""
    order = _uniform((len(batch), 3), batch, generator).argsort(dim=1)
    first, second, third = order.unbind(dim=1)
    inversions = (first > second).int() + (first > third).int() + (second > third).int()
    odd = (inversions % 2 == 1)[:, None, None]
    coordinates = batch.coordinates.gather(2, order[:, None].expand_as(batch.coordinates))
    return replace(
        batch,
        lengths=batch.lengths.gather(1, order),
        angles=batch.angles.gather(1, order),
        coordinates=_wrapped(torch.where(odd, -coordinates, coordinates), batch.site_mask),
    )


def _shifted(batch: CrystalBatch, generator: torch.Generator | None) -> CrystalBatch:
    """Return crystals seen from a random origin."""
    shift = _uniform((len(batch), 1, 3), batch, generator)
    return replace(batch, coordinates=_wrapped(batch.coordinates + shift, batch.site_mask))


def _permuted(batch: CrystalBatch, generator: torch.Generator | None) -> CrystalBatch:
    """Return crystals with the sites of one element in a random order, elements ascending."""
    order = _uniform(tuple(batch.numbers.shape), batch, generator).argsort(dim=1)
    species = torch.where(batch.site_mask, batch.numbers.to(torch.int64), MAX_ATOMIC_NUMBER + 1)  # empty slots last
    order = order.gather(1, species.gather(1, order).argsort(dim=1, stable=True))
    return replace(
        batch,
        numbers=batch.numbers.gather(1, order),
        coordinates=batch.coordinates.gather(1, order[..., None].expand_as(batch.coordinates)),
    )


def _uniform(shape: tuple[int, ...], batch: CrystalBatch, generator: torch.Generator | None) -> Tensor:
    """Return numbers uniform in [0, 1), float32, on the device of the batch."""
    device = batch.coordinates.device
    drawn = torch.rand(
        shape, generator=generator, device=device if generator is None else generator.device, dtype=torch.float32
    )
    return drawn.to(device)


def _wrapped(coordinates: Tensor, mask: Tensor) -> Tensor:
    """Return coordinates (B, N, 3) moved into [0, 1), exactly 0 where the mask (B, N) is false."""
    coordinates = coordinates - coordinates.floor()
    # The fraction of a tiny negative number is 1 in float32.
    return torch.where(mask[..., None] & (coordinates < 1), coordinates, 0.0)
