"""A transformer that reads a noisy CrysTens image as its rows and predicts one number of the crystal.

Tokens and blocks are those of `crystens.networks.row_transformer`: a token is row i together with column i, in all four
channels, and slots without a site are no tokens to the others. The number follows from the mean token of sites and the
mean token of the header, as suits properties that do not grow with the cell.

With `codes` it also reads how likely each element, and of orbits each space group and Wyckoff position, is in the noisy
image (`crystens.networks.codes.heads`).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from azula.nn.dit import DiT
from azula.nn.layers import SineEncoding
from torch import Tensor, nn

from crystens.devices.xla import is_xla
from crystens.encoding import HEADER, NUM_CHANNELS
from crystens.errors import CrystensError
from crystens.networks.codes.heads import CodeHeads
from crystens.networks.row_transformer import row_lines, transformed


class RowRegressor(nn.Module):
    """Maps noisy images (B, 4, S, S), their noise level and number of sites to numbers (B,).

    Args:
        image_side: S.
        width: features of a token; `heads` divides it.
        depth: transformer blocks.
        heads: attention heads.
        dropout: dropout rate in the blocks; None for none.
        codes: whether elements, and of orbits groups and positions, are read as codes too. For images whose codes
            `tell_codes` says.
        orbits: whether the sites of an image stand for orbits; without `codes` it changes nothing.
        parts: into how many parts a batch is divided, by number of sites, as by `RowTransformer`.

    Raises:
        CrystensError: if a number is out of range.
    """

    def __init__(
        self,
        image_side: int,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        dropout: float | None = None,
        codes: bool = False,
        orbits: bool = False,
        parts: int = 1,
    ) -> None:
        """Check the numbers and build the layers."""
        super().__init__()
        if image_side <= HEADER:
            raise CrystensError(f"{image_side=} of RowRegressor leaves no room for a site; {HEADER} rows are header")
        if heads < 1 or width < heads or width % heads or width % 2:
            raise CrystensError(f"{width=} of RowRegressor must be even and a multiple of {heads=}")
        if depth < 1 or parts < 1 or not isinstance(parts, int):
            raise CrystensError(f"{depth=} and {parts=} of RowRegressor must be whole and at least 1")
        self.image_side = image_side
        self.orbits = orbits
        self.parts = parts
        self.noise_embedding = nn.Sequential(SineEncoding(width, omega=1e2), nn.Linear(width, width))
        self.count_embedding = nn.Embedding(image_side - HEADER + 1, width)
        self.transformer = DiT(
            in_channels=2 * NUM_CHANNELS * image_side,  # of a row and a column
            out_channels=width,
            mod_features=width,
            hid_channels=width,
            hid_blocks=depth,
            attention_heads=heads,
            dropout=dropout,
        )
        self.codes = CodeHeads(width, orbits, draws=False) if codes else None
        self.head = nn.Sequential(nn.SiLU(), nn.Linear(2 * width, 1))

    def tell_codes(self, codes: Mapping[int, Tensor], scales: Mapping[int, float]) -> None:
        """Say which codes there are, which a network with `codes` has to know, see `CodeHeads.tell`."""
        assert self.codes is not None
        self.codes.tell(codes, scales)

    def forward(self, images: Tensor, log_noise: Tensor, counts: Tensor) -> Tensor:
        """Return a number for each image, (B,).

        Args:
            images: (B, 4, S, S), scaled to a variance of about 1.
            log_noise: logarithm of the noise level, (B,).
            counts: (B,) int64, numbers of sites.
        """
        if self.parts == 1 or is_xla(images.device):
            return self._predicted(images, log_noise, counts)
        order = counts.argsort()
        predicted = []
        for part in order.chunk(self.parts):
            side = HEADER + int(counts[part[-1]])
            predicted.append(self._predicted(images[part, :, :side, :side], log_noise[part], counts[part]))
        return torch.cat(predicted)[order.argsort()]

    def _predicted(self, images: Tensor, log_noise: Tensor, counts: Tensor) -> Tensor:
        """Return the numbers of images (B, 4, s, s) cropped to their first s rows and columns, (B,)."""
        tokens = self.transformer.in_proj(row_lines(images, self.image_side))
        embedded = self.noise_embedding(log_noise) + self.count_embedding(counts)
        if self.codes is not None:
            read, modulation = self.codes.read(self.codes.evidence(images, log_noise, counts), counts)
            tokens = tokens + read.to(tokens.dtype)
            embedded = embedded if modulation is None else embedded + modulation.to(embedded.dtype)
        tokens = self.transformer.out_proj(transformed(self.transformer, tokens, embedded, counts))
        present = torch.arange(tokens.shape[1] - HEADER, device=tokens.device) < counts[:, None]
        of_sites = (tokens[:, HEADER:] * present[..., None]).sum(dim=1) / counts[:, None].clamp(min=1)
        return self.head(torch.cat([tokens[:, :HEADER].mean(dim=1), of_sites], dim=1))[:, 0]
