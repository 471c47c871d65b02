"""Codes in a network: elements, space groups and Wyckoff positions are drawn among the codes that exist.

An image states them as digits (`crystens.element_codes`, `crystens.orbits.codes`). A network that draws each digit on
its own draws mostly combinations of digits that are no code. Here each code has a probability:

1. The noise is Gaussian and its level is known. So the likelihood of a code is exact, given its eight noisy cells. For
   the group, the cells of all orbits count.
2. The network adds logits, from the rest of the image. The softmax of the sum is the posterior.
3. The cells that are drawn are the mean of the posterior, as a denoiser needs it.

The network also reads the posterior of step 1. With it, it reads the place to which the likely position confines a site
(the first representative in International Tables) and the multiplicity of that position.

Elements: sites stand in the order of their elements, and a chain gives their joint posterior
(`crystens.networks.codes.chain`). In sampling, crystals that are known to be charge-neutral draw elements whose charges
add up (`crystens.networks.codes.charge_sums`).

Positions: they are weighed by the probable groups. A position without a free parameter holds one orbit, so two orbits
compete for it. The exact posterior is a sum over all matchings of orbits and positions; a few rounds of belief
propagation approximate it. In sampling, a single orbit takes a position on which it has the group that is stated
(`crystens.symmetry.characteristic`).

`Allowed` restricts the codes: to a space group, to the groups of a crystal system, to the elements of a chemical
system, to an element or a position for each orbit. Other codes have no probability at any level of noise.

Sources: Dieleman et al., "Continuous diffusion for categorical data", 2022, for the softmax over codes (there with a
learned likelihood); Chertkov et al., "Inference in particle tracking experiments by passing messages between images",
PNAS 107 (2010) 7663, for belief propagation on matchings.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from crystens.devices.xla import is_xla
from crystens.encoding import GROUP_ROW, HEADER, NUM_CHANNELS, POSITION_ROW
from crystens.networks.codes.chain import CodeChain
from crystens.networks.codes.charge_sums import neutral_shift
from crystens.networks.codes.position_tables import (
    NUM_PLACE_FEATURES,
    characteristic_table,
    codes_that_hold_one,
    place_features,
    primitive_multiplicity_table,
)
from crystens.networks.codes.stated import NUM_ELEMENTS, NUM_GROUPS, Allowed, Evidence, Posterior, Stated
from crystens.symmetry.wyckoff import MAX_POSITIONS

CODED_ROWS = (0, GROUP_ROW, POSITION_ROW)  # of elements, space groups and Wyckoff positions

_CELLS = 2 * NUM_CHANNELS  # of a site in a row and its column
_MOST_POSITIONS = 27 * 4  # different codes of positions: places in the alphabet, and 0 to 3 free parameters
_NONE = 30.0  # in place of a code that there is not, in units of an image's deviation
_IS_NONE = 3.0  # above which cells are no code's
_LEAST_DEVIATION = 0.05  # of the noise, so that a likelihood stays finite
_IMPOSSIBLE = -1e4  # logit
_NOT_ALLOWED = -1e6  # logit: less likely than what is impossible by the cells, which a noisy image may deny
_ROUNDS = 4  # of belief propagation
_LEAST_LEFT = 1e-4  # chance that an orbit takes another position, so that odds stay finite
_LEAST_SHARE = 1e-6  # of a position in groups that do not have it
# Nats by which an element or a site too many or too few is less likely, where their number is known. With 6 for sites,
# which the network is told but not trained to keep to, orbits come to stand on each other.
_STRICT_ELEMENTS = 6.0
_STRICT_SITES = 2.0
_SETTLED = 0.9  # share of a group, and of positions, from which on charges are added up
_DECIDED = 0.999  # share of an element that no charge changes
_CERTAIN = 0.5  # share of a group from which on its positions are added up
_MOST_SITES = 96  # that are added up


class CodeHeads(nn.Module):
    """Reads and draws elements, and of orbits space groups and Wyckoff positions too, as codes.

    Args:
        width: features of a token.
        orbits: whether an image is of orbits, and states group and positions in digits.
        draws: whether codes are drawn too, and not only read.
        facts: whether facts of the whole crystal say how likely elements and groups are.
    """

    element_codes: Tensor
    group_codes: Tensor
    position_codes: Tensor
    positions: Tensor
    allowed: Tensor
    scales: Tensor
    places: Tensor
    single: Tensor
    posterior: Posterior | None

    def __init__(self, width: int, orbits: bool, draws: bool = True, facts: bool = False) -> None:
        super().__init__()
        self.orbits = orbits
        self.posterior = None
        self.register_buffer("scales", torch.zeros(len(CODED_ROWS)))  # 0 until told
        self.register_buffer("element_codes", torch.full((NUM_ELEMENTS, _CELLS), _NONE))
        self.read_elements = nn.Linear(NUM_ELEMENTS, width, bias=False)
        self.chain = CodeChain(NUM_ELEMENTS)
        if draws:
            self.draw_elements = nn.Linear(width, NUM_ELEMENTS)
            self.draw_same = nn.Linear(2 * width, 1)
            self.draw_by_facts = nn.Linear(width, NUM_ELEMENTS + (NUM_GROUPS if orbits else 0)) if facts else None
        if orbits:
            self.register_buffer("group_codes", torch.full((NUM_GROUPS, _CELLS), _NONE))
            self.register_buffer("position_codes", torch.full((_MOST_POSITIONS, _CELLS), _NONE))
            self.register_buffer("positions", torch.zeros(NUM_GROUPS, MAX_POSITIONS, dtype=torch.int16))
            self.register_buffer("allowed", torch.zeros(NUM_GROUPS, _MOST_POSITIONS, dtype=torch.bool))
            self.register_buffer("single", torch.zeros(NUM_GROUPS, _MOST_POSITIONS, dtype=torch.bool))
            self.register_buffer("places", place_features(), persistent=False)
            self.read_groups = nn.Linear(NUM_GROUPS, width, bias=False)
            self.read_positions = nn.Linear(_MOST_POSITIONS, width, bias=False)
            self.read_places = nn.Linear(NUM_PLACE_FEATURES, width, bias=False)
            if draws:
                self.draw_groups = nn.Linear(width, NUM_GROUPS)
                self.draw_positions = nn.Linear(width, _MOST_POSITIONS)
        for name, layer in self.named_children():
            if name.startswith("draw") and isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=1e-2 / width**0.5)
                nn.init.zeros_(layer.bias)

    @property
    def told(self) -> bool:
        """Whether `tell` was called, or a trained state loaded."""
        return bool(self.scales.any())

    def tell(self, codes: Mapping[int, Tensor], scales: Mapping[int, float]) -> None:
        """Say which codes there are, as they stand in an image of variance 1, and how much larger they are made.

        Args:
            codes: by row; of elements (119, 8), of groups (231, 8), of positions (231, 27, 8). Codes that there are
                not are above 3.
            scales: by row, how many times larger than other cells these are when noise is added.
        """
        device = self.scales.device
        self.scales = torch.tensor([scales[row] for row in CODED_ROWS], device=device)
        self.element_codes = _without_none(codes[0]).to(device)
        if self.orbits:
            self.group_codes = _without_none(codes[GROUP_ROW]).to(device)
            known, which = _without_none(codes[POSITION_ROW]).reshape(-1, _CELLS).unique(dim=0, return_inverse=True)
            table = torch.full((_MOST_POSITIONS, _CELLS), _NONE)
            table[: len(known)] = known
            which = which.view(NUM_GROUPS, MAX_POSITIONS)
            allowed = torch.zeros(NUM_GROUPS, _MOST_POSITIONS).scatter_(1, which, 1.0).bool()
            allowed &= (table < _IS_NONE).all(dim=1)
            self.position_codes, self.allowed = table.to(device), allowed.to(device)
            self.positions = which.to(device, torch.int16)
            self.single = codes_that_hold_one(which, _MOST_POSITIONS).to(device)

    def evidence(self, images: Tensor, log_noise: Tensor, counts: Tensor, allowed: Allowed | None = None) -> Evidence:
        """Return what the noisy cells say of codes.

        Args:
            images: (B, 4, s, s) as the network is given them, divided by the root of scale^2 + sigma^2.
            log_noise: (B,), logarithm of sigma.
            counts: (B,), numbers of sites.
            allowed: which codes the images may state; None for all.
        """
        seen = self._seen(images, log_noise, counts, self.scales)
        if allowed is None:
            return seen
        elements = seen.elements.masked_fill(~allowed.elements, _NOT_ALLOWED)
        if seen.groups is None or seen.positions is None:
            return Evidence(elements, None, None)
        return Evidence(
            elements,
            seen.groups.masked_fill(~allowed.groups, _NOT_ALLOWED),
            seen.positions.masked_fill(~self._codes_of(allowed), _NOT_ALLOWED),
        )

    def _seen(self, images: Tensor, log_noise: Tensor, counts: Tensor, scales: Tensor) -> Evidence:
        """Return what noisy cells say of codes whatever is allowed, of cells made larger by scales (3,)."""
        elements = self._likelihood(images, log_noise, 0, self.element_codes, scales)
        if not self.orbits:
            return Evidence(elements, None, None)
        present = torch.arange(images.shape[-1] - HEADER, device=images.device) < counts[:, None]
        groups = self._likelihood(images, log_noise, 1, self.group_codes, scales)
        groups = (groups * present[..., None]).sum(dim=1).clamp(min=_IMPOSSIBLE)
        return Evidence(elements, groups, self._likelihood(images, log_noise, 2, self.position_codes, scales))

    def _codes_of(self, allowed: Allowed) -> Tensor:
        """Return the codes of the positions that are allowed in the groups that are, (B, N, 108) bool."""
        # A code is allowed if any allowed group has it at an allowed place: most images allow all places or one group.
        table = torch.zeros(NUM_GROUPS, MAX_POSITIONS, _MOST_POSITIONS, device=self.positions.device)
        table = table.scatter_(2, self.positions.long()[..., None], 1.0).flatten(1)  # (231, 27 x 108)
        among = (allowed.groups.float() @ table).view(-1, MAX_POSITIONS, _MOST_POSITIONS)
        return (allowed.positions.float() @ among) > 0

    def stated(self, images: Tensor, counts: Tensor) -> Stated:
        """Return what clean images (B, 4, s, s), of variance 1, state.

        Args:
            images: not noisy and not scaled.
            counts: (B,), numbers of sites.
        """
        no_noise = images.new_full((len(images),), -torch.inf)
        found = self._seen(images, no_noise, counts, torch.ones_like(self.scales))
        elements = found.elements.argmax(dim=2)
        if found.groups is None or found.positions is None:
            return Stated(elements, None, None)
        group = found.groups.argmax(dim=1)
        which = self.positions.long()[group]  # (B, 27)
        places = found.positions.gather(2, which[:, None].expand(-1, elements.shape[1], -1)).argmax(dim=2)
        return Stated(elements, group, places)

    def _likelihood(self, images: Tensor, log_noise: Tensor, which: int, codes: Tensor, scales: Tensor) -> Tensor:
        """Return log likelihoods (B, N, K) of codes (K, 8), up to what all of an orbit's have in common."""
        row, scale = CODED_ROWS[which], scales[which]
        with torch.autocast(images.device.type, enabled=False):
            cells = torch.cat([images[:, :, row, HEADER:].mT, images[:, :, HEADER:, row].mT], dim=2).float()
            squared = (2 * log_noise.float()).exp()
            cells = cells * ((scale.square() + squared).sqrt() / scale)[:, None, None]
            variance = (squared / scale.square()).clamp(min=_LEAST_DEVIATION**2)[:, None, None]
            apart = codes.square().sum(dim=1) - 2 * cells @ codes.mT
            apart = apart - apart.amin(dim=2, keepdim=True)
            likelihood = (-apart / (2 * variance)).clamp(min=_IMPOSSIBLE)
            return likelihood.masked_fill((codes > _IS_NONE).any(dim=1), _IMPOSSIBLE)

    def read(self, evidence: Evidence, counts: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return what is added to the tokens, (B, s, width), and to the modulation of all, (B, width) or None."""
        present = torch.arange(evidence.elements.shape[1], device=counts.device) < counts[:, None]
        with torch.autocast(counts.device.type, enabled=False):
            elements = self.chain.posterior(evidence.elements, counts)[0].exp()
        read = _applied(self.read_elements, elements)
        modulation = None
        if evidence.groups is not None and evidence.positions is not None:
            shares = evidence.groups.softmax(dim=1)
            modulation = _applied(self.read_groups, shares)
            seen = self._one_orbit_each(evidence.positions + self._among_groups(shares), shares, present)
            read = read + _applied(self.read_positions, seen.softmax(dim=2))
            group = evidence.groups.argmax(dim=1)
            which = self.positions.long()[group]  # (B, 27)
            exists = self.allowed[group].gather(1, which)
            of_group = seen.gather(2, which[:, None].expand(-1, seen.shape[1], -1))  # (B, N, 27)
            of_group = of_group.masked_fill(~exists[:, None], _IMPOSSIBLE).softmax(dim=2)
            read = read + _applied(self.read_places, of_group @ self.places[group].float())
        return nn.functional.pad(read, (0, 0, HEADER, 0)), modulation

    def draw(
        self,
        tokens: Tensor,
        evidence: Evidence,
        counts: Tensor,
        known: Mapping[str, Tensor] | None = None,
        facts: Tensor | None = None,
    ) -> dict[int, Tensor]:
        """Return the cells of rows and their columns that are drawn, by row: (B, N, 8).

        In training, `posterior` keeps the logits that they are the means of, for `cross_entropy`.

        Args:
            tokens: what the transformer made of them before its last layer, (B, s, width).
            evidence: of the same images.
            counts: (B,), numbers of sites.
            known: `num_elements`, `num_sites` of the primitive cell and `charge_neutral` (1 or 0), (B,), NaN where they
                are not known; in sampling the codes that are drawn have them.
            facts: what the network is told of the whole crystal, (B, width), as `Facts` gives it; None for nothing.
        """
        known = known or {}
        present = torch.arange(evidence.elements.shape[1], device=counts.device) < counts[:, None]
        sites = tokens[:, HEADER:]
        with torch.autocast(tokens.device.type, enabled=False):
            likely = None if facts is None or self.draw_by_facts is None else _applied(self.draw_by_facts, facts)
            drawn: dict[int, Tensor] = {}
            groups = logits = None
            if evidence.groups is not None and evidence.positions is not None:
                groups = _applied(self.draw_groups, tokens[:, GROUP_ROW]) + evidence.groups
                if likely is not None:
                    groups = groups + likely[:, NUM_ELEMENTS:]
                alone = None if self.training else self._characteristic()
                if alone is not None:
                    none = (counts == 1)[:, None] & ~alone.any(dim=1)
                    groups = groups + _IMPOSSIBLE * none
                shares = groups.softmax(dim=1)
                drawn[GROUP_ROW] = (shares @ self.group_codes)[:, None].expand(-1, sites.shape[1], -1)
                logits = _applied(self.draw_positions, sites) + evidence.positions + self._among_groups(shares)
                if alone is not None:
                    likely_alone = (shares @ alone.to(shares.dtype)).clamp(min=_LEAST_SHARE).log()
                    logits = logits + ((counts == 1)[:, None] * likely_alone)[:, None]
                logits = self._one_orbit_each(logits, shares, present)
                if "num_sites" in known:
                    logits = self._adding_up(logits, shares, present, known["num_sites"])
                drawn[POSITION_ROW] = logits.softmax(dim=2) @ self.position_codes
            elements = _applied(self.draw_elements, sites) + evidence.elements
            if likely is not None:
                elements = elements + likely[:, None, :NUM_ELEMENTS]
            same = _applied(self.draw_same, torch.cat([sites[:, :-1], sites[:, 1:]], dim=2))[..., 0]
            chained, total = self.chain.posterior(elements, counts, same)
            if "charge_neutral" in known and groups is not None and logits is not None:
                elements = self._neutral(elements, chained, counts, same, groups, logits, known["charge_neutral"])
                chained = self.chain.posterior(elements, counts, same)[0]
            if "num_elements" in known:
                distinct = known["num_elements"]
                chained = self.chain.posterior_of_so_many(elements, counts, same, distinct, _STRICT_ELEMENTS)
            drawn[0] = chained.exp() @ self.element_codes
        if self.training:
            self.posterior = Posterior(elements, same, total, groups, logits)
        return drawn

    def cross_entropy(self, stated: Stated, counts: Tensor) -> Tensor:
        """Return what the last images drawn in training cost by the codes that are right, (B,), nats.

        It is the cross-entropy of the row of elements, divided by the number of sites, and of orbits the mean of that
        of positions and that of the group too.

        Args:
            stated: what the clean images state.
            counts: (B,), numbers of sites.
        """
        assert self.posterior is not None
        found, self.posterior = self.posterior, None
        present = torch.arange(found.elements.shape[1], device=counts.device) < counts[:, None]

        def of_sites(logits: Tensor, right: Tensor) -> Tensor:
            cost = nn.functional.cross_entropy(logits.mT, right, reduction="none")
            return (cost * present).sum(dim=1) / counts.clamp(min=1)

        right = self.chain.score(found.elements, counts, stated.elements, found.same)
        cost = (found.total - right) / counts.clamp(min=1)
        if found.groups is None or found.positions is None or stated.groups is None or stated.places is None:
            return cost
        codes = self.positions.long()[stated.groups].gather(1, stated.places)
        cost = cost + of_sites(found.positions, codes)
        return cost + nn.functional.cross_entropy(found.groups, stated.groups, reduction="none")

    def _characteristic(self) -> Tensor:
        """Return the codes of positions on which a single orbit has the group, by group, (231, 108) bool."""
        found = torch.zeros(self.allowed.shape, device=self.allowed.device)
        found.scatter_add_(1, self.positions.long(), characteristic_table().to(found))
        return found > 0

    def _among_groups(self, shares: Tensor) -> Tensor:
        """Return what shares of groups (B, 231) say of codes of positions, as logits (B, 1, 108)."""
        return (shares @ self.allowed.to(shares.dtype)).clamp(min=_LEAST_SHARE).log()[:, None]

    def _adding_up(self, logits: Tensor, shares: Tensor, present: Tensor, num_sites: Tensor) -> Tensor:
        """Return logits of positions (B, N, 108), less where the sites of all orbits do not add up to what is known.

        The sum over all other orbits is exact; it is made where one group is nearly certain.

        Args:
            logits: of each orbit on its own.
            shares: of groups, (B, 231).
            present: which orbits there are, (B, N).
            num_sites: of the primitive cell, (B,), NaN where not known.
        """
        certain, group = shares.max(dim=1)
        applies = (certain > _CERTAIN) & num_sites.isfinite()
        of_code = self._sites_of_codes(group).expand_as(logits)  # (B, N, 108)
        chances = torch.zeros(*logits.shape[:2], _MOST_SITES + 1, device=logits.device)
        chances = chances.scatter_add_(2, of_code, logits.softmax(dim=2))
        none = torch.zeros_like(chances[:, 0])
        none[:, 0] = 1
        chances = torch.where(present[..., None], chances, none[:, None])
        before = [none]  # chances of the sum of all orbits before, (B, S + 1)
        for orbit in range(logits.shape[1] - 1):
            before.append(_convolved(before[-1], chances[:, orbit]))
        sums = torch.arange(_MOST_SITES + 1, device=logits.device)
        told = torch.where(applies, num_sites, 0.0)[:, None]
        behind = [(-_STRICT_SITES * (sums - told).abs()).exp()]  # weights of the sum of all orbits up to here
        for orbit in range(logits.shape[1] - 1, 0, -1):
            behind.append(_convolved(behind[-1].flip(1), chances[:, orbit]).flip(1))
        weights = [_convolved(after.flip(1), first).flip(1) for first, after in zip(before, behind[::-1], strict=True)]
        fits = torch.stack(weights, dim=1).clamp(min=_LEAST_SHARE).log().gather(2, of_code)
        return logits + fits * applies[:, None, None]

    def _sites_of_codes(self, group: Tensor) -> Tensor:
        """Return how many sites of the primitive cell each code of positions stands for in groups (B,): (B, 1, 108)."""
        of_codes = torch.zeros_like(self.allowed, dtype=torch.int64)
        of_codes.scatter_(1, self.positions.long(), primitive_multiplicity_table().to(group.device))
        return of_codes[group].clamp(max=_MOST_SITES)[:, None]

    def _neutral(
        self,
        elements: Tensor,
        chained: Tensor,
        counts: Tensor,
        same: Tensor,
        groups: Tensor,
        positions: Tensor,
        neutral: Tensor,
    ) -> Tensor:
        """Return logits of elements (B, N, 119), less where charges do not add up in crystals that are neutral.

        Charges are summed where the sites of all orbits are nearly certain, and their elements are not yet.

        Args:
            elements: logits of each orbit on its own.
            chained: log posterior of them along the chain.
            counts: (B,), numbers of sites.
            same: log weight of two orbits with one element.
            groups: logits of groups, (B, 231).
            positions: logits of positions, (B, N, 108).
            neutral: 1 for a crystal that is charge-neutral, (B,).
        """
        present = torch.arange(elements.shape[1], device=counts.device) < counts[:, None]
        share, code = positions.softmax(dim=2).max(dim=2)
        certain, group = groups.softmax(dim=1).max(dim=1)
        open_elements = ((chained.exp().amax(dim=2) < _DECIDED) & present).any(dim=1)
        applies = (neutral == 1) & (certain > _SETTLED) & ((share > _SETTLED) | ~present).all(dim=1) & open_elements
        if is_xla(elements.device):  # which would compile anew for each number of rows
            rows, most = torch.arange(len(applies), device=elements.device), elements.shape[1]
        else:
            rows = applies.nonzero()[:, 0]
            most = int(counts[rows].max()) if len(rows) else 0
        if most < 2:
            return elements
        amounts = self._sites_of_codes(group[rows])[:, 0].gather(1, code[rows])
        shift = neutral_shift(
            self.chain, elements[rows, :most], counts[rows], same[rows, : most - 1], amounts[:, :most]
        )
        elements = elements.clone()
        elements[rows, :most] += shift * applies[rows, None, None]
        return elements

    def _one_orbit_each(self, logits: Tensor, shares: Tensor, present: Tensor) -> Tensor:
        """Return logits of positions (B, N, 108), less where another orbit takes a position that holds one.

        Args:
            logits: of each orbit on its own.
            shares: of groups, (B, 231), which say how likely a code is that of a position without freedom.
            present: which orbits there are, (B, N).
        """
        holds_one = (shares @ self.single.to(shares.dtype))[:, None]  # (B, 1, 108)
        own = logits.softmax(dim=2)
        free = torch.ones_like(own)  # how free each position is left for each orbit by the others
        for _ in range(_ROUNDS):
            instead = (own * free).sum(dim=2, keepdim=True) - own * free  # what an orbit has but this position
            odds = own / instead.clamp(min=_LEAST_LEFT) * present[..., None]
            free = 1 / (1 + holds_one * (odds.sum(dim=1, keepdim=True) - odds).clamp(min=0))
        return logits + free.log()


def _applied(layer: nn.Linear, given: Tensor) -> Tensor:
    """Return what a layer makes of its input, float32 whatever the precision of its weights."""
    return layer(given.to(layer.weight.dtype)).float()


def _convolved(first: Tensor, second: Tensor) -> Tensor:
    """Return chances of sums up to S of two numbers with these chances, (B, S + 1) each, with a maximum of 1."""
    windows = nn.functional.pad(first, (first.shape[1] - 1, 0)).unfold(1, first.shape[1], 1)  # (B, S + 1, S + 1)
    sums = (windows @ second.flip(1)[..., None])[..., 0]
    return sums / sums.amax(dim=1, keepdim=True).clamp(min=1e-30)


def _without_none(codes: Tensor) -> Tensor:
    """Return codes with those that are none put where no likelihood finds them."""
    return torch.where((codes > _IS_NONE).any(dim=-1, keepdim=True), _NONE, codes.float())
