"""The paper's WGAN: a generator and a critic of three-dimensional convolutions.

The volume is that of `crystens.networks.paper_gan`: (B, 1, 4, 64, 64), depth first, no padding. Every convolution and
dense layer is under spectral norm; every one but the last carries layer norm and Leaky ReLU (0.2). Layer norm is taken
over all features and positions of one image, with a gain and a bias for each feature, so that a critic still sees how
large a cell's value is. So built they have the 1,060,129 and 508,113 parameters of an independent build.

Source: Alverson et al., "Generative adversarial networks and diffusion models in material discovery", Digital
Discovery 2024, 3, 62, appendix B.2.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from crystens.networks.paper_gan import PAPER_SIDE, check_paper_side


class PaperWGANGenerator(nn.Module):
    """Latents (B, latent_dim) to images (B, 4, 64, 64) in [0, 1]; 1,060,129 parameters at latent_dim 128.

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
        self.stem = _block(nn.Linear(latent_dim, 1024), 1024)  # 16 x 16 x 4
        widths = [1, 128, 128, 64, 64, 32, 32, 32, 32]  # side 16 to 32, depth 4 to 20
        self.stages = nn.Sequential(
            *[
                _block(nn.ConvTranspose3d(inputs, outputs, kernel_size=3), outputs)
                for inputs, outputs in pairwise(widths)
            ],
            _block(nn.ConvTranspose3d(32, 32, kernel_size=2, stride=2), 32),  # side 64, depth 40
        )
        self.head = spectral_norm(nn.Conv3d(32, 1, kernel_size=(10, 1, 1), stride=(10, 1, 1)))

    def forward(self, latents: Tensor) -> Tensor:
        """Return images (B, 4, 64, 64) in [0, 1] for latents (B, latent_dim)."""
        volume = self.stem(latents).unflatten(1, (1, 4, 16, 16))
        return torch.sigmoid(self.head(self.stages(volume)).float()).squeeze(1)


class PaperCritic(nn.Module):
    """Images (B, 4, 64, 64) to scores (B,), unbounded, high for real; 508,113 parameters.

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
        layers = [
            nn.Conv3d(1, 16, 1),
            nn.Conv3d(16, 16, 1),
            *[nn.Conv3d(16, 16, (1, 3, 3)) for _ in range(4)],  # side 56
            nn.Conv3d(16, 32, (1, 7, 7)),
            nn.Conv3d(32, 32, (1, 7, 7)),
            nn.Conv3d(32, 32, (1, 7, 7)),
            nn.Conv3d(32, 64, (1, 7, 7)),  # side 32
            nn.Conv3d(64, 64, (2, 5, 5), stride=(1, 5, 5)),  # 6 x 6 x 3
            nn.Conv3d(64, 128, 2, stride=2),  # 3 x 3 x 1
        ]
        self.stages = nn.Sequential(*[_block(layer, layer.out_channels) for layer in layers])
        self.dropout = nn.Dropout(dropout)
        self.head = spectral_norm(nn.Linear(128 * 9, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return scores (B,) for images (B, 4, 64, 64)."""
        volume = self.stages(images.unsqueeze(1))
        return self.head(self.dropout(volume.flatten(1))).squeeze(1)


def _block(layer: nn.Module, features: int) -> nn.Sequential:
    norm = nn.LayerNorm(features) if isinstance(layer, nn.Linear) else nn.GroupNorm(1, features)
    return nn.Sequential(spectral_norm(layer), norm, nn.LeakyReLU(0.2))
