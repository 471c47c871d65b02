"""A diffusion transformer whose tokens are the rows of a CrysTens image.

A vision transformer cuts a picture into square patches, because neighbouring pixels belong together. In a CrysTens
image a row and its mirror image, a column, belong together. The row of an attribute holds its value at every site. The
row of a site holds its attributes, and its differences to all other sites. So token i is row i together with column i,
in all four channels. An image of side S has S tokens: one for each attribute and one for each site.

A cell that a site shares with an attribute is the sum of two parts. The attribute's token gives a part that is the same
for all sites, and the site's token gives the other. A cell of two sites is, in each channel, the scalar product of two
vectors, one from each site. So all sites share the weights, and sites that only the largest crystals have are drawn as
well as the first. Each copy of a value has its own weights: the network learns that copies agree.

Slots without a site are masked in the attention. So a batch can be divided by size, and each part cropped to its
largest crystal. The result is the same, and most of the work is saved if crystals have many sizes.

Options:

- `average_skip`: the average of the noisy copies of a coordinate or a lattice parameter goes past the tokens, and the
  tokens only give a correction. This is the preconditioning of Karras et al. for the noise of an average of n copies,
  sigma / sqrt(n). Without it the tokens hand on each value, and make it less precise than little noise does.
- `geometric_pairs`: the pair block follows from the coordinates that the same image states, so that both agree. The
  expected difference is the difference of the expected coordinates. The expected distance is not; a scalar product
  corrects it, the less the lower the noise.
- `surroundings`: the token of each site also reads its neighbours (`crystens.networks.surroundings`) in the noisy
  image, from the averages of cell and coordinates. A denoiser divides its input by sqrt(1 + sigma^2), so these are
  nearer to the middle of their ranges than the values themselves.
- `self_conditioning`: the tokens also read the estimate of the step before; in its absence, zeros. So digits of
  elements, groups and positions stay once they are decided (Chen, Zhang, Hinton, "Analog Bits", ICLR 2023).
- `forces`: learned forces between atoms move them where there is little noise (`crystens.networks.orbits.forces`).
- `repulsion`: in sampling, atoms that overlap are moved apart (`crystens.networks.orbits.repulsion`).
- `facts`: all tokens read known numbers of the whole crystal, such as its number of elements.
- `known_cells`: lattice parameters and coordinates can be given. They stand in the estimate, their tokens carry a mark,
  and the network returns them unchanged.
- `codes`: elements, groups and positions are drawn among the codes that exist, not digit by digit
  (`crystens.networks.codes.heads`).

The blocks are those of `azula.nn.dit` (Peebles and Xie, "Scalable Diffusion Models with Transformers", 2022).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from azula.nn.dit import DiT
from azula.nn.layers import SineEncoding
from torch import Tensor, nn

from crystens.devices.xla import is_xla
from crystens.encoding import COORDINATE_ROWS, HEADER, NUM_CHANNELS, QUANTITIES, average_mirror_images
from crystens.errors import CrystensError
from crystens.networks.codes.heads import CodeHeads
from crystens.networks.facts import Facts
from crystens.networks.orbits.forces import Forces
from crystens.networks.orbits.geometry import ListedOrbits
from crystens.networks.orbits.repulsion import pushed_apart
from crystens.networks.surroundings import NUM_FEATURES, surroundings
from crystens.networks.told import Told

_LENGTH_ROWS = slice(4, 7)
_ANGLE_ROWS = slice(7, 10)

_FORCES_BELOW = 2.0  # sigma below which forces move atoms
_CLEAR = 0.5  # sigma below which atoms are moved apart; above, places are too uncertain
_ROUNDS = 8  # of pushing atoms apart, at most, in one call
_TINY = 1e-6  # keeps the gradient of a site's distance from itself finite


class RowTransformer(nn.Module):
    """Maps noisy images (B, 4, S, S), their noise level and number of sites to images (B, 4, S, S).

    Args:
        image_side: S.
        width: features of a token; `heads` divides it.
        depth: transformer blocks.
        heads: attention heads.
        dropout: dropout rate in the blocks; None for none.
        rank: numbers in the vectors whose scalar product is a cell of the pair block.
        geometric_pairs: whether the pair block follows from the coordinates drawn. For images whose distances are
            fractional, and whose scales `tell_scales` says.
        average_skip: whether the averages of the noisy copies of coordinates and cell are added to what is drawn of
            them, more the less noise there is. For coordinates and cells that are as large as the other cells when
            noise is added, as in all models here.
        surroundings: whether sites read what stands around them. For images whose scales `tell_scales` says; not with
            `orbits`, `self_conditioning` and `known_cells`.
        orbits: whether the sites of an image stand for orbits of a space group in bits.
        parts: into how many parts a batch is divided, by number of sites, each cropped to its largest crystal. Only
            time depends on it, rounding and the draws of `dropout` apart. Shapes then depend on the data, for which XLA
            would compile every batch anew: there a batch stays whole.
        symmetric: whether attributes, but for atoms, and distances are averaged with their mirror images. It has no
            weights: a trained network can be asked for what it gives with or without it.
        self_conditioning: whether the tokens also read an estimate of the clean image.
        codes: whether elements, and of orbits space groups and positions, are read and drawn as codes and not digit by
            digit. For images whose codes `tell_codes` says.
        repulsion: share of the sum of the covalent radii below which atoms of orbits are moved apart where there is
            little noise; 0 for not. As `symmetric`, it has no weights, and it is not done in training.
        forces: rounds in which learned forces between the atoms of orbits move them where there is little noise; above
            0 only with `codes`, `orbits` and `geometric_pairs`.
        facts: names of what can be told of a whole crystal, see `crystens.networks.facts`; only with `codes`.
        known_cells: whether lattice parameters and coordinates can be told; only with `self_conditioning` and
            `geometric_pairs`.

    Raises:
        CrystensError: if a number is out of range, or options do not fit each other.
    """

    def __init__(
        self,
        image_side: int,
        width: int = 192,
        depth: int = 6,
        heads: int = 6,
        dropout: float | None = None,
        rank: int = 16,
        geometric_pairs: bool = False,
        average_skip: bool = False,
        surroundings: bool = False,
        parts: int = 1,
        symmetric: bool = False,
        orbits: bool = False,
        self_conditioning: bool = False,
        codes: bool = False,
        repulsion: float = 0.0,
        forces: int = 0,
        facts: Sequence[str] = (),
        known_cells: bool = False,
    ) -> None:
        """Check the numbers and build the layers."""
        super().__init__()
        if image_side <= HEADER:
            raise CrystensError(f"{image_side=} of RowTransformer leaves no room for a site; {HEADER} rows are header")
        if heads < 1 or width < heads or width % heads or width % 2:
            raise CrystensError(f"{width=} of RowTransformer must be even and a multiple of {heads=}")
        if depth < 1 or rank < 1 or parts < 1 or not isinstance(parts, int):
            raise CrystensError(f"{depth=}, {rank=} and {parts=} of RowTransformer must be whole and at least 1")
        if repulsion < 0 or (repulsion > 0 and not (codes and orbits and geometric_pairs)):
            raise CrystensError(
                f"{repulsion=} of RowTransformer must not be negative, and above 0 it takes codes=true, "
                "geometric_pairs=true and images of orbits"
            )
        if not isinstance(forces, int) or forces < 0 or (forces and not (codes and orbits and geometric_pairs)):
            raise CrystensError(
                f"{forces=} of RowTransformer must be a number of rounds, and above 0 it takes codes=true, "
                "geometric_pairs=true and images of orbits"
            )
        if facts and not codes:
            raise CrystensError("facts of RowTransformer take codes=true, which say what an image states")
        if known_cells and not (self_conditioning and geometric_pairs):
            raise CrystensError("known_cells of RowTransformer takes self_conditioning=true and geometric_pairs=true")
        if surroundings and (orbits or self_conditioning):
            raise CrystensError(
                "surroundings of RowTransformer take images of all sites and self_conditioning=false; with "
                "encoding.sites=orbits take model.network.forces=3"
            )
        self.image_side = image_side
        self.width = width
        self.rank = rank
        self.parts = parts
        self.symmetric = symmetric
        self.geometric_pairs = geometric_pairs
        self.average_skip = average_skip
        self.surroundings = surroundings
        self.orbits = orbits
        self.self_conditioning = self_conditioning
        self.needs_scales = geometric_pairs or surroundings
        self.products = 1 if geometric_pairs else NUM_CHANNELS  # channels that are scalar products
        self.sizes = [2 * NUM_CHANNELS, 2 * NUM_CHANNELS * HEADER, self.products * rank, self.products * rank]
        self.noise_embedding = nn.Sequential(SineEncoding(width, omega=1e2), nn.Linear(width, width))
        self.count_embedding = nn.Embedding(image_side - HEADER + 1, width)
        self.transformer = DiT(
            in_channels=(2 if self_conditioning else 1) * 2 * NUM_CHANNELS * image_side,  # of a row and a column
            out_channels=sum(self.sizes),
            cond_channels=NUM_FEATURES if surroundings else 0,
            mod_features=width,
            hid_channels=width,
            hid_blocks=depth,
            attention_heads=heads,
            dropout=dropout,
        )
        nn.init.normal_(self.transformer.out_proj.weight, std=1e-2 / width**0.5)
        nn.init.zeros_(self.transformer.out_proj.bias)
        self.repulsion = repulsion
        self.codes = CodeHeads(width, orbits, facts=bool(facts)) if codes else None
        self.forces = Forces(width, forces) if forces else None
        self.facts = Facts(facts, width) if facts else None
        self.known_mark = nn.Parameter(torch.zeros(width)) if known_cells else None
        if self.needs_scales:
            self.register_buffer("slopes", torch.ones(len(QUANTITIES)))
            self.register_buffer("offsets", torch.zeros(len(QUANTITIES)))
            self.register_buffer("limits", torch.tensor([-torch.inf, torch.inf]))

    slopes: Tensor
    offsets: Tensor
    limits: Tensor

    def tell_scales(self, slopes: Tensor, offsets: Tensor, limits: tuple[float, float]) -> None:
        """Set the scales of the image, which geometric pairs and surroundings need.

        Args:
            slopes: (13,), of each of the `QUANTITIES`; a value is slope * quantity + offset.
            offsets: (13,).
            limits: what a value is cut to in the end.
        """
        # Not copied into what is there, which has 16 bits under trainer.precision=bf16-true.
        device = self.limits.device
        self.slopes, self.offsets = (part.to(device, torch.float32) for part in (slopes, offsets))
        self.limits = torch.tensor(limits, device=device)

    def tell_codes(self, codes: Mapping[int, Tensor], scales: Mapping[int, float]) -> None:
        """Set the codes that exist, which a network with `codes` needs, see `CodeHeads.tell`."""
        assert self.codes is not None
        self.codes.tell(codes, scales)

    def forward(
        self,
        images: Tensor,
        log_noise: Tensor,
        counts: Tensor,
        estimate: Tensor | None = None,
        told: Told | None = None,
    ) -> Tensor:
        """Return images (B, 4, S, S).

        Args:
            images: (B, 4, S, S), scaled to a variance of about 1.
            log_noise: logarithm of the noise level, (B,) or ().
            counts: (B,) int64, numbers of sites.
            estimate: (B, 4, S, S), of the clean images, 0 where there is none; only with `self_conditioning`.
            told: what is known of the images; codes only with `codes`, facts with `facts`, cells with `known_cells`.
        """
        told = told or Told()
        log_noise = log_noise.expand(len(images))
        facts = None
        added: list[Tensor] = []  # to the tokens, (B, S, width)
        modulations: list[Tensor] = []  # (B, width)
        if told.cells is not None:
            estimate = torch.zeros_like(images) if estimate is None else estimate
            estimate = torch.where(told.cells.isfinite(), told.cells, estimate)
            added.append(self._marks(told.cells))
        if told.facts is not None and self.facts is not None:
            facts = self.facts(told.facts)
            modulations.append(facts)
        if self.codes is None:
            drawn = self._drawn(images, log_noise, counts, estimate, _summed(added), _summed(modulations))[0]
            return self._with_known(drawn, told.cells)
        evidence = self.codes.evidence(images, log_noise, counts, told.allowed)
        read, modulation = self.codes.read(evidence, counts)
        modulations += [] if modulation is None else [modulation]
        drawn, tokens = self._drawn(images, log_noise, counts, estimate, _summed([read, *added]), _summed(modulations))
        drawn = drawn.clone()
        stated = {} if self.facts is None or self.training else self.facts.known(told.facts)
        for row, cells in self.codes.draw(tokens, evidence, counts, stated, facts).items():
            drawn[:, :, row, HEADER:] = cells[..., :NUM_CHANNELS].mT.to(drawn.dtype)
            drawn[:, :, HEADER:, row] = cells[..., NUM_CHANNELS:].mT.to(drawn.dtype)
        if self.forces is not None:
            drawn = self._moved_by_forces(drawn, tokens, log_noise, counts)
        if self.repulsion > 0 and not self.training:
            drawn = self._pushed_apart(drawn, log_noise, counts)
        return self._with_known(drawn, told.cells)

    def _with_known(self, drawn: Tensor, cells: Tensor | None) -> Tensor:
        """Return drawn images (B, 4, S, S) in which known cells stand unchanged; the pair block follows them.

        Args:
            drawn: (B, 4, S, S).
            cells: (B, 4, S, S), NaN where they are not known.
        """
        if cells is None:
            return drawn
        known = torch.where(cells.isfinite(), cells.to(drawn.dtype), drawn)
        before, after = self._copies(drawn.float()), self._copies(known.float())
        nothing = before.new_zeros(len(drawn), 1, before.shape[2], before.shape[2])
        moved = self._geometry(after, nothing) - self._geometry(before, nothing)
        pairs = known[:, :, HEADER:, HEADER:] + moved.to(known.dtype)
        below = torch.cat([known[:, :, HEADER:, :HEADER], pairs], dim=3)
        return torch.cat([known[:, :, :HEADER], below], dim=2)

    @staticmethod
    def _copies(images: Tensor) -> Tensor:
        """Return the copies of coordinates that images state, (B, 8, N, 3)."""
        in_row, in_column = images[:, :, HEADER:, COORDINATE_ROWS], images[:, :, COORDINATE_ROWS, HEADER:].mT
        return torch.cat([in_row, in_column], dim=1)

    def _marks(self, cells: Tensor) -> Tensor:
        """Return the mark of the tokens (B, S, width) of lattice parameters and sites that are known."""
        assert self.known_mark is not None
        known = cells.isfinite().any(dim=1)
        of_attributes, of_sites = known[:, :HEADER, HEADER:], known[:, HEADER:, COORDINATE_ROWS]
        marked = torch.cat([of_attributes.any(dim=2), of_sites.any(dim=2)], dim=1)
        marked[:, COORDINATE_ROWS] = False  # one site's coordinates say little of those of all
        return marked[..., None] * self.known_mark

    def _moved_by_forces(self, drawn: Tensor, tokens: Tensor, log_noise: Tensor, counts: Tensor) -> Tensor:
        """Return drawn images (B, 4, S, S) moved by learned forces where there is little noise.

        Args:
            drawn: images.
            tokens: that they were made of, (B, S, width).
            log_noise: (B,), and so are the counts.
            counts: numbers of orbits.
        """
        assert self.forces is not None
        if self.training and is_xla(drawn.device):
            raise CrystensError(
                "XLA would compile each step of a training with forces anew: take model.network.forces=0"
            )
        share = (1 - (log_noise.float().exp() / _FORCES_BELOW).square()).clamp(min=0)
        rows = share.nonzero()[:, 0]
        if not len(rows):
            return drawn
        images, counts, share = drawn[rows].float(), counts[rows], share[rows]
        most = HEADER + int(counts.max())
        cropped = images[:, :, :most, :most]
        with torch.no_grad():
            cells, places, orbits = self.read(cropped, counts)
        moves, grown = self.forces(tokens[rows, HEADER:most], log_noise[rows], cells, places, orbits)
        moved = self._moved(cropped, moves * share[:, None, None], grown * share[:, None], orbits.present)
        images = nn.functional.pad(moved, (0, images.shape[-1] - most) * 2)
        return drawn.index_copy(0, rows, images.to(drawn.dtype))

    def _pushed_apart(self, drawn: Tensor, log_noise: Tensor, counts: Tensor) -> Tensor:
        """Return drawn images (B, 4, S, S) whose atoms are apart, as far as there is little noise."""
        clear = log_noise < math.log(_CLEAR)
        if not clear.any():
            return drawn
        images = drawn[clear].float()
        cells, places, orbits = self.read(images, counts[clear])
        pushed, lengths = pushed_apart(cells, places, orbits, self.repulsion, _ROUNDS)
        share = (1 - (log_noise[clear].float().exp() / _CLEAR).square())[:, None]
        moves, grown = (pushed - places) * share[..., None], (lengths - cells[:, :3]) * share
        drawn[clear] = self._moved(images, moves, grown, orbits.present).to(drawn.dtype)
        return drawn

    def read(self, images: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, ListedOrbits]:
        """Return what clean images (B, 4, s, s) of orbits state.

        Returns:
            Cells (B, 6), angstrom and degrees; fractional coordinates (B, N, 3); and the orbits.
        """
        assert self.codes is not None
        cells, places, present = self._averages(images, counts)
        stated = self.codes.stated(images, counts)
        assert stated.groups is not None
        assert stated.places is not None
        return cells, places, ListedOrbits(present, stated.groups, stated.places, stated.elements)

    def _moved(self, images: Tensor, moves: Tensor, grown: Tensor, present: Tensor) -> Tensor:
        """Return images (B, 4, s, s) whose sites and lengths are changed; the pair block follows the coordinates.

        Args:
            images: clean ones.
            moves: fractional, (B, N, 3).
            grown: of the lengths, (B, 3), angstrom.
            present: which sites there are, (B, N).
        """
        moves = moves * present[..., None] * self.slopes[COORDINATE_ROWS]
        before = self._copies(images)
        after = (before + moves[:, None]).clamp(*self.limits)
        nothing = images.new_zeros(len(images), 1, present.shape[1], present.shape[1])
        changed = images.new_zeros(len(images), 2 * NUM_CHANNELS, present.shape[1], HEADER)  # (B, 8, N, 12)
        of_lengths = (grown * self.slopes[_LENGTH_ROWS])[:, None] * present[..., None]  # (B, N, 3)
        changed[..., _LENGTH_ROWS] = of_lengths[:, None]
        changed[..., COORDINATE_ROWS] = after - before
        in_row, in_column = changed.chunk(2, dim=1)
        upper = torch.cat([images.new_zeros(len(images), NUM_CHANNELS, HEADER, HEADER), in_column.mT], dim=3)
        pairs = self._geometry(after, nothing) - self._geometry(before, nothing)
        return images + torch.cat([upper, torch.cat([in_row, pairs], dim=3)], dim=2)

    def _drawn(
        self,
        images: Tensor,
        log_noise: Tensor,
        counts: Tensor,
        estimate: Tensor | None,
        added: Tensor | None,
        modulation: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Return images as `_cropped` does, part by part, and the tokens that they were made of, (B, S, width).

        Args:
            images: as in `forward`, and so are the next three; log_noise is (B,).
            log_noise: of each image.
            counts: of each image.
            estimate: of the clean images.
            added: to the tokens, (B, S, width).
            modulation: added to that of noise and number of sites, (B, width).
        """
        if self.parts == 1 or is_xla(images.device):
            return self._cropped(images, log_noise, counts, estimate, added, modulation)
        given = torch.zeros_like(images)
        tokens = images.new_zeros(len(images), self.image_side, self.width)
        for part in counts.argsort().chunk(self.parts):
            side = HEADER + int(counts[part[-1]])
            known = None if estimate is None else estimate[part, :, :side, :side]
            of_part = (None if added is None else added[part, :side], None if modulation is None else modulation[part])
            cropped, made = self._cropped(images[part, :, :side, :side], log_noise[part], counts[part], known, *of_part)
            given[part, :, :side, :side] = cropped.to(given.dtype)
            tokens[part, :side] = made.to(tokens.dtype)
        return given, tokens

    def _cropped(
        self,
        images: Tensor,
        log_noise: Tensor,
        counts: Tensor,
        estimate: Tensor | None,
        added: Tensor | None,
        modulation: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Return images (B, 4, s, s) of images cropped to their first s rows and columns, and their tokens."""
        lines = row_lines(images, self.image_side)
        if self.self_conditioning:
            known = torch.zeros_like(lines) if estimate is None else row_lines(estimate, self.image_side)
            lines = torch.cat([lines, known.to(lines.dtype)], dim=2)
        if self.surroundings:
            lines = torch.cat([lines, self._neighbours(images, log_noise, counts)], dim=2)
        embedded = self.noise_embedding(log_noise) + self.count_embedding(counts)
        tokens = self.transformer.in_proj(lines)
        if added is not None:
            tokens = tokens + added.to(tokens.dtype)
        if modulation is not None:
            embedded = embedded + modulation.to(embedded.dtype)
        tokens = transformed(self.transformer, tokens, embedded, counts)
        parts = self.transformer.out_proj(tokens)
        shared, own, left, right = parts.split(self.sizes, dim=2)
        shared, own, left, right = shared[:, :HEADER], own[:, HEADER:], left[:, HEADER:], right[:, HEADER:]
        shared = shared.unflatten(2, (2, NUM_CHANNELS)).permute(2, 0, 3, 1)  # (2, B, 4, 12)
        own = own.unflatten(2, (2, NUM_CHANNELS, HEADER)).permute(2, 0, 3, 1, 4)  # (2, B, 4, N, 12)
        in_row, in_column = own + shared[..., None, :]
        if self.average_skip:
            in_row, in_column = _with_averages(in_row, in_column, images, log_noise, counts)
        left, right = (part.unflatten(2, (self.products, self.rank)).transpose(1, 2) for part in (left, right))
        pairs = left @ right.mT / self.rank**0.5  # (B, 4 or 1, N, N)
        if self.geometric_pairs:
            copies = torch.cat([in_row, in_column], dim=1)[..., COORDINATE_ROWS]  # (B, 8, N, 3)
            share = torch.sigmoid(2 * log_noise).sqrt()  # sigma / sqrt(1 + sigma^2)
            pairs = self._geometry(copies.float(), pairs * share[:, None, None, None])
        corner = pairs.new_zeros(len(images), NUM_CHANNELS, HEADER, HEADER)
        upper = torch.cat([corner, in_column.mT], dim=3)
        drawn = torch.cat([upper, torch.cat([in_row, pairs], dim=3)], dim=2)
        return average_mirror_images(drawn) if self.symmetric else drawn, tokens

    def _neighbours(self, images: Tensor, log_noise: Tensor, counts: Tensor) -> Tensor:
        """Return what stands around the site of each token by an image as it is given, (B, S, F); 0 around attributes.

        Undoing the division by the root of 1 + sigma^2 first made samples no better (`experiments/frontier`).
        """
        cells, places, present = self._averages(images.float(), counts)
        deviation = log_noise.exp() / (2 * NUM_CHANNELS) ** 0.5 / self.slopes[COORDINATE_ROWS.start]
        found = surroundings(cells, places, present, deviation)
        return nn.functional.pad(found, (0, 0, HEADER, 0)).to(images.dtype)

    def _averages(self, images: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the copies of images (B, 4, s, s) say in the mean, and which sites there are.

        Returns:
            Cells (B, 6), angstrom and degrees; fractional coordinates (B, N, 3); and (B, N) bool.
        """
        rows = slice(COORDINATE_ROWS.start, _ANGLE_ROWS.stop)
        copies = torch.cat([images[:, :, HEADER:, rows], images[:, :, rows, HEADER:].mT], dim=1)  # (B, 8, N, 9)
        values = (copies.mean(dim=1) - self.offsets[rows]) / self.slopes[rows]
        present = torch.arange(values.shape[1], device=images.device) < counts[:, None]
        cells = (values[..., 3:] * present[..., None]).sum(dim=1) / counts[:, None].clamp(min=1)
        return cells, values[..., :3], present

    def _geometry(self, copies: Tensor, correction: Tensor) -> Tensor:
        """Return the pair block (B, 4, N, N) of coordinates.

        Args:
            copies: the copies of coordinates, as they stand in the image, (B, 8, N, 3).
            correction: of the distances, (B, 1, N, N).
        """
        places = copies.clamp(*self.limits).mean(dim=1)  # (B, N, 3)
        places = (places - self.offsets[COORDINATE_ROWS]) / self.slopes[COORDINATE_ROWS]
        differences = (places[:, :, None] - places[:, None]).permute(0, 3, 1, 2)
        others = 1 - torch.eye(differences.shape[-1], device=differences.device)
        distances = (differences.square().sum(dim=1, keepdim=True) + _TINY).sqrt() * others
        difference, distance = (QUANTITIES.index(name) for name in ("difference", "distance"))
        return torch.cat(
            [
                self.slopes[distance] * distances + self.offsets[distance] + correction,
                self.slopes[difference] * differences + self.offsets[difference],
            ],
            dim=1,
        )


def _with_averages(
    in_row: Tensor, in_column: Tensor, images: Tensor, log_noise: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what is drawn of sites, coordinates and cell as corrections of the averages of noisy copies.

    An average of n copies of a value of variance 1 has the variance 1 + sigma^2 / n.

    Args:
        in_row: what is drawn, (B, 4, N, 12).
        in_column: the same of the mirror image.
        images: the noisy ones, (B, 4, s, s), divided by the root of 1 + sigma^2.
        log_noise: (B,), logarithm of sigma, and so are the counts.
        counts: numbers of sites.
    """
    rows = slice(COORDINATE_ROWS.start, _ANGLE_ROWS.stop)
    squared = (2 * log_noise.float()).exp()
    copies = torch.cat([images[:, :, HEADER:, rows], images[:, :, rows, HEADER:].mT], dim=1).float()
    means = copies.mean(dim=1) * (1 + squared).sqrt()[:, None, None]  # (B, N, 9)
    present = torch.arange(means.shape[1], device=images.device) < counts[:, None]
    times = counts.clamp(min=1)
    of_cells = (means[..., 3:] * present[..., None]).sum(dim=1) / times[:, None]
    means = torch.cat([means[..., :3], of_cells[:, None].expand(-1, means.shape[1], -1)], dim=2)
    variance = (squared / copies.shape[1])[:, None].expand(-1, means.shape[2]).clone()  # (B, 9), of averages
    variance[:, 3:] /= times[:, None]
    skipped = (means / (1 + variance)[:, None])[:, None]
    share = (variance / (1 + variance)).sqrt()[:, None, None]

    def corrected(cells: Tensor) -> Tensor:
        middle = (skipped + share * cells[..., rows].float()).to(cells.dtype)
        return torch.cat([cells[..., : rows.start], middle, cells[..., rows.stop :]], dim=-1)

    return corrected(in_row), corrected(in_column)


def row_lines(images: Tensor, side: int) -> Tensor:
    """Return row i and column i of images (B, 4, s, s) as token i, (B, s, 8 S), S being `side`."""
    lines = torch.cat([images.transpose(1, 2), images.permute(0, 3, 1, 2)], dim=2)  # (B, s, 8, s)
    return nn.functional.pad(lines, (0, side - images.shape[-1])).flatten(2)


def transformed(transformer: DiT, tokens: Tensor, modulation: Tensor, counts: Tensor) -> Tensor:
    """Return what a transformer's blocks make of tokens (B, s, width), of which those without a site are not looked at.

    It is the transformer's own forward between its first and last layer, which hands no mask on to its blocks.

    Args:
        transformer: whose blocks they are.
        tokens: (B, s, width), of the header and of slots of sites.
        modulation: of all tokens, (B, width).
        counts: (B,), numbers of sites.
    """
    places = torch.arange(tokens.shape[1], device=tokens.device)
    looked_at = (places < HEADER + counts[:, None])[:, None, None]  # (B, 1, 1, s), for all heads and queries
    places = places[:, None].to(tokens.dtype)
    tokens = tokens + transformer.pos_embedding(places)
    for block in transformer.blocks:
        tokens = block(tokens, modulation, pos=places, mask=looked_at)
    return tokens


def _summed(parts: Sequence[Tensor]) -> Tensor | None:
    """Return the sum of tensors of one shape, None of none."""
    return sum(parts[1:], parts[0]) if parts else None
