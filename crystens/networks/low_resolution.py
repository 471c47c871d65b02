"""How a CrysTens image becomes the low-resolution image of a cascade, and how that conditions the next stage.

A cascaded diffusion model learns images of side S/2 first, and then images of side S given those of side S/2. Two ways
to go down (`reduce`) and up again (`enlarge`), each under one name:

`nearest`   What imagen-pytorch and so the paper (B.3) do: keep the even rows and columns. On CrysTens this drops x, z,
            b, alpha, gamma and every second site, so the first stage never sees them.

`folded`    Nothing that an atom or the cell is made of is lost. In the strips of attributes (rows, and by symmetry
            columns, 0 to 11 of the image) all four channels hold the same number, so 2 x 2 cells of one channel fit
            into the four channels of one cell. The channel is chosen by the parities of attribute k and site i:

                low[2 (k % 2) + i % 2, k // 2, 6 + i // 2] = image[., k, 12 + i]
                low[2 (k % 2) + i % 2, 6 + i // 2, k // 2] = image[., 12 + i, k]

                rows 0 to 5     (Z x) (y z) (a b) (c alpha) (beta gamma) (space group, empty)
                channels 0, 1   the first of the two, of sites 0 2 4 ... and of sites 1 3 5 ...
                channels 2, 3   the second of the two, likewise

            The block of pairs, whose channels differ, is averaged over 2 x 2 cells, and so is the empty corner. Where
            only one site of two is present, the mean counts the zeros of the absent one: a network that generates does
            not know the number of sites, and the strips, which are exact, tell the next stage what the mean is of.

Shapes: B batch, S image side (even), images in [0, 1], channels first. Shapes are static, nothing depends on values.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from crystens.encoding import HEADER, NUM_CHANNELS
from crystens.errors import CrystensError

_HALF_HEADER = HEADER // 2


class LowResolution(NamedTuple):
    """One way between the two image sides of a cascade; both functions are batched and differentiable."""

    reduce: Callable[[Tensor], Tensor]
    """Images (B, 4, S, S) to low-resolution images (B, 4, S/2, S/2)."""
    enlarge: Callable[[Tensor], Tensor]
    """Low-resolution images (B, 4, S/2, S/2) to the condition (B, 4, S, S) of the next stage."""


def choose_low_resolution(name: str) -> LowResolution:
    """Return the low resolution called `name`: "folded" or "nearest".

    Raises:
        CrystensError: for any other name.
    """
    if name not in _LOW_RESOLUTIONS:
        raise CrystensError(f"low_resolution={name!r} is unknown; it must be one of {sorted(_LOW_RESOLUTIONS)}")
    return _LOW_RESOLUTIONS[name]


def reduce_nearest(images: Tensor) -> Tensor:
    """Keep the even rows and columns, as imagen-pytorch does: (B, 4, S, S) to (B, 4, S/2, S/2)."""
    return images[..., ::2, ::2]


def enlarge_nearest(low: Tensor) -> Tensor:
    """Repeat each cell 2 x 2: (B, 4, S/2, S/2) to (B, 4, S, S)."""
    return functional.interpolate(low, scale_factor=2, mode="nearest")


def reduce_folded(images: Tensor) -> Tensor:
    """Fold the strips of attributes, average the block of pairs: (B, 4, S, S) to (B, 4, S/2, S/2).

    The strips are read from channel 0; their values are copied, bit for bit.
    """
    low = functional.avg_pool2d(images, 2)
    # pixel_unshuffle puts row parity r and column parity c into channel 2r + c. In the left strip rows are sites and
    # columns attributes, so it is folded, and later unfolded, lying down.
    top = functional.pixel_unshuffle(images[:, :1, :HEADER, HEADER:], 2)
    left = functional.pixel_unshuffle(images[:, :1, HEADER:, :HEADER].mT, 2).mT
    return _frame(low, _HALF_HEADER, top, left)


def enlarge_folded(low: Tensor) -> Tensor:
    """Unfold the strips of attributes into all four channels, repeat the rest: (B, 4, S/2, S/2) to (B, 4, S, S)."""
    images = enlarge_nearest(low)
    top = functional.pixel_shuffle(low[..., :_HALF_HEADER, _HALF_HEADER:], 2)
    left = functional.pixel_shuffle(low[..., _HALF_HEADER:, :_HALF_HEADER].mT, 2).mT
    return _frame(images, HEADER, top.expand(-1, NUM_CHANNELS, -1, -1), left.expand(-1, NUM_CHANNELS, -1, -1))


def _frame(images: Tensor, header: int, top: Tensor, left: Tensor) -> Tensor:
    """Replace the strips of images whose header has `header` rows; out of place, as XLA and autograd prefer."""
    upper = torch.cat([images[..., :header, :header], top], dim=-1)
    lower = torch.cat([left, images[..., header:, header:]], dim=-1)
    return torch.cat([upper, lower], dim=-2)


_LOW_RESOLUTIONS = {
    "folded": LowResolution(reduce_folded, enlarge_folded),
    "nearest": LowResolution(reduce_nearest, enlarge_nearest),
}
