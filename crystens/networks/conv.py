"""Small networks for images of any side from 16 up, which learn something in minutes on two CPU cores.

Most of their work is done on a grid of 4 x 4 pixel patches, since convolutions at full resolution cost more than all
else. A generator unfolds the patches at the end, a discriminator folds them at the start; sides that 4 does not divide
are padded. In an image of a crystal a place means something (row 0 is not row 1), so both add learned numbers to every
place of the grid. Nothing of the layout of an image is fixed: a generator must learn that rows repeat one value and
that empty cells are empty.

Not from the paper, whose networks are in `crystens.networks.paper_gan` and `crystens.networks.paper_wgan`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, pad, pixel_shuffle
from torch.nn.utils import parametrizations

from crystens.errors import CrystensError

_PATCH = 4
_CHANNELS = 4
_SMALLEST_SIDE = 16
_PLACE_SCALE = 0.1  # standard deviation of the learned numbers of a place before training
_EMPTY_LOGIT = -2.0  # an untrained generator starts from nearly empty images


class ConvGenerator(nn.Module):
    """Latents (B, latent_dim) to images (B, 4, S, S) in [0, 1].

    A dense stem makes one vector for every row and one for every column of the patch grid; their sums are the grid,
    which residual convolutions, and two steps of unfolding by 2, turn into pixels.

    Args:
        image_side: S, at least 16.
        latent_dim: length of the latent vector.
        width: features of the patch grid, even.
        hidden: width of the dense stem.
        blocks: residual 3 x 3 convolutions on the patch grid.

    Raises:
        CrystensError: if `image_side` is below 16, or `width` is not even.
    """

    def __init__(
        self, image_side: int, latent_dim: int = 128, width: int = 48, hidden: int = 256, blocks: int = 1
    ) -> None:
        """Check the side and build the layers for it."""
        super().__init__()
        _check_side(image_side)
        if width < 2 or width % 2:
            raise CrystensError(f"{width=} of ConvGenerator must be even and at least 2")
        self.image_side = image_side
        self.latent_dim = latent_dim
        self.grid_side = _grid_side(image_side)
        half = width // 2
        self.stem = nn.Sequential(
            nn.Linear(latent_dim, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, 2 * width * self.grid_side),
            nn.Unflatten(1, (2, width, self.grid_side)),
        )
        self.grid_places = nn.Parameter(_PLACE_SCALE * torch.randn(width, self.grid_side, self.grid_side))
        self.blocks = nn.ModuleList([_normed_conv(width, width, 3) for _ in range(blocks)])
        self.unfold = _normed_conv(width, 4 * half, 1)
        self.half_places = nn.Parameter(_PLACE_SCALE * torch.randn(half, 2 * self.grid_side, 2 * self.grid_side))
        self.head = _normed_conv(half, 4 * _CHANNELS, 3)
        self.pixel_places = nn.Parameter(torch.full((_CHANNELS, image_side, image_side), _EMPTY_LOGIT))

    def forward(self, latents: Tensor) -> Tensor:
        """Return images (B, 4, S, S) in [0, 1] for latents (B, latent_dim)."""
        rows, columns = self.stem(latents).unbind(1)
        grid = rows[:, :, :, None] + columns[:, :, None, :] + self.grid_places
        for block in self.blocks:
            grid = grid + block(grid)
        half = pixel_shuffle(self.unfold(grid), 2) + self.half_places
        pixels = pixel_shuffle(self.head(half), 2)[:, :, : self.image_side, : self.image_side]
        return torch.sigmoid(pixels.float() + self.pixel_places)


class ConvDiscriminator(nn.Module):
    """Images (B, 4, S, S) to scores (B,), unbounded, high for real: logits of a GAN, or a critic of a WGAN.

    Args:
        image_side: S, at least 16.
        width: features of the patch grid; each halving of the grid doubles them.
        hidden: width of the dense layer before the score.
        dropout: probability of dropout before the dense layers.
        batch_norm: normalise over the batch. It shows a GAN's discriminator that a batch holds one image many times;
            a critic under gradient penalty must do without.
        spectral_norm: keep every layer's largest singular value at 1.

    Raises:
        CrystensError: if `image_side` is below 16, or `width` below 1.
    """

    def __init__(
        self,
        image_side: int,
        width: int = 32,
        hidden: int = 256,
        dropout: float = 0.0,
        batch_norm: bool = False,
        spectral_norm: bool = False,
    ) -> None:
        """Check the side and build the layers for it."""
        super().__init__()
        _check_side(image_side)
        if width < 1:
            raise CrystensError(f"{width=} of ConvDiscriminator must be at least 1")
        self.image_side = image_side
        grid_side = _grid_side(image_side)
        last_side = _half(_half(grid_side))
        limit = parametrizations.spectral_norm if spectral_norm else nn.Identity()
        self.margin = grid_side * _PATCH - image_side
        self.fold = limit(nn.Conv2d(_CHANNELS, width, _PATCH, stride=_PATCH))
        self.grid_places = nn.Parameter(_PLACE_SCALE * torch.randn(width, grid_side, grid_side))
        self.body = nn.Sequential(
            limit(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)),
            nn.BatchNorm2d(2 * width) if batch_norm else nn.Identity(),
            nn.LeakyReLU(0.2),
            limit(nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1)),
            nn.BatchNorm2d(4 * width) if batch_norm else nn.Identity(),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Dropout(dropout),
            limit(nn.Linear(4 * width * last_side**2, hidden)),
            nn.BatchNorm1d(hidden) if batch_norm else nn.Identity(),
            nn.LeakyReLU(0.2),
            limit(nn.Linear(hidden, 1)),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return scores (B,) for images (B, 4, S, S)."""
        grid = self.fold(pad(images, (0, self.margin, 0, self.margin)))
        return self.body(leaky_relu(grid + self.grid_places, 0.2)).squeeze(1)


def _check_side(image_side: int) -> None:
    if image_side < _SMALLEST_SIDE:
        raise CrystensError(
            f"{image_side=} is too small: at least {_SMALLEST_SIDE}; it is 12 + max_sites, so set max_sites=4 or more"
        )


def _grid_side(image_side: int) -> int:
    """Return how many patches cover a side."""
    return -(-image_side // _PATCH)


def _half(side: int) -> int:
    """Return the side after a convolution of stride 2, kernel 3 and padding 1."""
    return -(-side // 2)


def _normed_conv(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2))
