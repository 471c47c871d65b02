"""The paper's vanilla GAN: a generator and a discriminator of three-dimensional convolutions.

An image (B, 4, 64, 64) is treated as a volume of one feature and depth 4, kept here as (B, 1, 4, 64, 64): torch puts
the depth first where the paper writes (64, 64, 4, 1), so its kernel 5 x 5 x 2 is (2, 5, 5) here. No convolution pads.
Planes that a dense branch makes are added to every depth and every feature of the volume.

Every convolution and every dense layer but the last one carries batch norm and then its activation; convolutions keep
their bias. The dense branch of the generator is one chain that starts from the latent, 484, 484, 784, 784, 784, 1024,
1024, 4096, whose last layer of each width is added as a plane. The paper says neither; both are the only reading of
its layers, among some million tried, that has the 10,462,041 and 21,469,948 parameters of an independent build.

Source: Alverson et al., "Generative adversarial networks and diffusion models in material discovery", Digital
Discovery 2024, 3, 62, appendix B.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from crystens.errors import CrystensError

PAPER_SIDE = 64


def check_paper_side(image_side: int) -> None:
    """Raise a CrystensError unless `image_side` is 64, the only one whose volumes fit the paper's layers."""
    if image_side != PAPER_SIDE:
        raise CrystensError(
            f"the paper's networks need image_side=64 (max_sites=52), got image_side={image_side} "
            f"(max_sites={image_side - 12}); set max_sites=52 or choose the small preset (model=gan, model=wgan)"
        )


class PaperGenerator(nn.Module):
    """Latents (B, latent_dim) to images (B, 4, 64, 64) in [0, 1]; 10,462,041 parameters at latent_dim 128.

    Args:
        image_side: must be 64.
        latent_dim: length of the latent vector.

    Raises:
        CrystensError: if `image_side` is not 64.
    """

    def __init__(self, image_side: int = PAPER_SIDE, latent_dim: int = 128) -> None:
        """Check the side and build the layers."""
        super().__init__()
        check_paper_side(image_side)
        self.image_side = image_side
        self.latent_dim = latent_dim
        self.stem = _dense(latent_dim, 1024, nn.ReLU())  # 16 x 16 x 4
        # Sides 16 to 22, 22 to 28 and 28 to 32; depths 4 to 10, 10 to 16 and 16 to 20.
        self.stages = nn.ModuleList(
            [_transposed([1, 256, 128, 128]), _transposed([128, 128, 64, 64]), _transposed([64, 64, 64])]
        )
        self.branches = nn.ModuleList(
            [
                _dense_chain([latent_dim, 484, 484], nn.ReLU()),  # 22 x 22
                _dense_chain([484, 784, 784, 784], nn.ReLU()),  # 28 x 28
                _dense_chain([784, 1024, 1024], nn.ReLU()),  # 32 x 32
            ]
        )
        self.last_stage = nn.Sequential(
            nn.ConvTranspose3d(64, 32, kernel_size=2, stride=2), nn.BatchNorm3d(32), nn.ReLU()
        )
        self.last_branch = _dense(1024, 4096, nn.ReLU())  # 64 x 64
        self.head = nn.Conv3d(32, 1, kernel_size=(10, 1, 1), stride=(10, 1, 1))

    def forward(self, latents: Tensor) -> Tensor:
        """Return images (B, 4, 64, 64) in [0, 1] for latents (B, latent_dim)."""
        volume = self.stem(latents).unflatten(1, (1, 4, 16, 16))
        branch = latents
        for stage, dense in zip(self.stages, self.branches, strict=True):
            branch = dense(branch)
            volume = stage(volume)
            volume = volume + _plane(branch, volume.shape[-1])
        volume = self.last_stage(volume) + _plane(self.last_branch(branch), PAPER_SIDE)
        return torch.sigmoid(self.head(volume).float()).squeeze(1)


class PaperDiscriminator(nn.Module):
    """Images (B, 4, 64, 64) to logits (B,), high for real; 21,469,948 parameters.

    Differs from the paper: the sigmoid is left to the loss, which is computed on logits and so cannot saturate.

    Args:
        image_side: must be 64.
        dropout: probability of dropout before the last dense layer.

    Raises:
        CrystensError: if `image_side` is not 64.
    """

    def __init__(self, image_side: int = PAPER_SIDE, dropout: float = 0.25) -> None:
        """Check the side and build the layers."""
        super().__init__()
        check_paper_side(image_side)
        self.image_side = image_side
        self.branch = _dense_chain([4 * image_side**2, 1024, 1024, 1024, 1024], nn.LeakyReLU(0.2))  # 32 x 32
        self.last_branch = _dense(1024, 9, nn.LeakyReLU(0.2))  # 3 x 3
        self.stage = nn.Sequential(
            _conv(1, 32, (1, 1, 1)),
            *[_conv(32, 32, (1, 3, 3)) for _ in range(3)],
            _conv(32, 64, (1, 3, 3)),
            *[_conv(64, 64, (1, 7, 7)) for _ in range(4)],  # side 32
        )
        self.last_stage = nn.Sequential(
            _conv(64, 128, (2, 5, 5), stride=(1, 5, 5)),  # 6 x 6 x 3
            _conv(128, 256, (2, 2, 2), stride=(2, 2, 2)),  # 3 x 3 x 1
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(256 * 9, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B,) for images (B, 4, 64, 64)."""
        branch = self.branch(images.flatten(1))
        volume = self.stage(images.unsqueeze(1)) + _plane(branch, 32)
        volume = self.last_stage(volume) + _plane(self.last_branch(branch), 3)
        return self.head(self.dropout(volume.flatten(1))).squeeze(1)


def _plane(branch: Tensor, side: int) -> Tensor:
    """Return a dense branch (B, side * side) as a plane that adds to any volume: (B, 1, 1, side, side)."""
    return branch.unflatten(1, (1, 1, side, side))


def _dense(inputs: int, outputs: int, activation: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), activation)


def _dense_chain(widths: Sequence[int], activation: nn.Module) -> nn.Sequential:
    return nn.Sequential(*[_dense(a, b, activation) for a, b in pairwise(widths)])


def _conv(
    inputs: int, outputs: int, kernel: tuple[int, int, int], stride: tuple[int, int, int] = (1, 1, 1)
) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(inputs, outputs, kernel, stride), nn.BatchNorm3d(outputs), nn.LeakyReLU(0.2))


def _transposed(widths: Sequence[int]) -> nn.Sequential:
    """Return transposed 3 x 3 x 3 convolutions through `widths`, each of which grows every axis by 2."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.ConvTranspose3d(inputs, outputs, kernel_size=3), nn.BatchNorm3d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)
