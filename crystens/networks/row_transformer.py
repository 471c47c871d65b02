"""A diffusion transformer that reads a CrysTens image as its rows.

Patches of a picture are squares, because neighbours in a picture belong together. In a CrysTens image what belongs
together is a row and its mirror image, a column: those of an attribute hold its value at every site, those of a site
its attributes and its place relative to every other site. So a token is row i together with column i, in all four
channels, and an image of side S is S tokens, whatever the attention is between: one token a site, one an attribute.

A cell (i, j) of the output is the sum of what token i says of it as part of its row and token j as part of its column.

The blocks are those of `azula.nn.dit` (Peebles and Xie, "Scalable Diffusion Models with Transformers", 2022).
"""

from __future__ import annotations

import torch
from azula.nn.dit import DiT
from azula.nn.layers import SineEncoding
from torch import Tensor, nn

from crystens.encoding import HEADER, NUM_CHANNELS
from crystens.errors import CrystensError


class RowTransformer(nn.Module):
    """Maps noisy images (B, 4, S, S), their noise level and number of sites to images (B, 4, S, S).

    Args:
        image_side: S.
        width: features of a token; `heads` divides it.
        depth: transformer blocks.
        heads: attention heads.
        dropout: dropout rate in the blocks; None for none.

    Raises:
        CrystensError: if a number is out of range.
    """

    def __init__(
        self, image_side: int, width: int = 192, depth: int = 6, heads: int = 6, dropout: float | None = None
    ) -> None:
        """Check the numbers and build the layers."""
        super().__init__()
        if image_side <= HEADER:
            raise CrystensError(f"{image_side=} of RowTransformer leaves no room for a site; {HEADER} rows are header")
        if heads < 1 or width < heads or width % heads or width % 2:
            raise CrystensError(f"{width=} of RowTransformer must be even and a multiple of {heads=}")
        if depth < 1:
            raise CrystensError(f"{depth=} of RowTransformer must be at least 1")
        self.image_side = image_side
        cells = 2 * NUM_CHANNELS * image_side  # of a row and a column
        self.noise_embedding = nn.Sequential(SineEncoding(width, omega=1e2), nn.Linear(width, width))
        self.count_embedding = nn.Embedding(image_side - HEADER + 1, width)
        self.transformer = DiT(
            in_channels=cells,
            out_channels=cells,
            mod_features=width,
            hid_channels=width,
            hid_blocks=depth,
            attention_heads=heads,
            dropout=dropout,
        )
        nn.init.zeros_(self.transformer.out_proj.weight)
        nn.init.zeros_(self.transformer.out_proj.bias)

    def forward(self, images: Tensor, log_noise: Tensor, counts: Tensor) -> Tensor:
        """Return images (B, 4, S, S).

        Args:
            images: (B, 4, S, S), scaled to a variance of about 1.
            log_noise: logarithm of the noise level, (B,) or ().
            counts: (B,) int64, numbers of sites.
        """
        rows = images.transpose(1, 2).flatten(2)  # (B, S, 4 S)
        columns = images.permute(0, 3, 1, 2).flatten(2)
        embedded = self.noise_embedding(log_noise.expand(len(images))) + self.count_embedding(counts)
        tokens = self.transformer(torch.cat([rows, columns], dim=2), embedded)
        rows, columns = tokens.unflatten(2, (2, NUM_CHANNELS, self.image_side)).unbind(dim=2)
        return rows.transpose(1, 2) + columns.permute(0, 2, 3, 1)
