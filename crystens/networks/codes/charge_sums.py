"""How probable elements are if a crystal is charge-neutral: an exact sum over elements and charges.

Each element has one of its common oxidation states, the same at all of its sites. A row of elements is neutral if some
choice of states has no total charge, or if all elements are metals. The sum runs along the chain of
`crystens.networks.codes.chain`, whose state here includes the charge up to each site. It covers the elements that are
probable in an image; the others keep almost no probability.

Rows of metals keep their probability. Other rows that are not neutral by common states keep a small part of theirs,
because some real crystals have uncommon states. A row counts once for each way in which its charges add up.

Source: as of `crystens.networks.codes.chain`; common oxidation states and metals are pymatgen's.
"""

from __future__ import annotations

import functools
import warnings

import torch
from pymatgen.core import Element
from torch import Tensor

from crystens.crystal import MAX_ATOMIC_NUMBER
from crystens.networks.codes.chain import CodeChain

_LIKELY = 24  # elements of an image over which the sum runs
_STATES = 48  # states of these
_COVERED = 0.1  # share of each site that these elements have to have, for the sum to say anything
_MOST_CHARGE = 40  # up to which charges along the chain are followed, both ways
_NOT_NEUTRAL = 0.002  # how much less likely rows are that are not neutral by common states
_LEAST = 1e-30
_FARTHEST = 20.0  # shift of a logit, nats


def neutral_shift(chain: CodeChain, logits: Tensor, counts: Tensor, same: Tensor, amounts: Tensor) -> Tensor:
    """Return by how much neutrality changes the logit of each element at each site, (B, N, K), nats.

    Args:
        chain: of the elements.
        logits: what is known of each site on its own, (B, N, K).
        counts: how many sites there are, (B,).
        same: log weight of a site and the next having one element, (B, N - 1).
        amounts: atoms of the primitive cell that each site stands for, (B, N) int64.
    """
    logits = logits + chain.first.to(logits.dtype)
    sites = logits.shape[1]
    present = torch.arange(sites, device=logits.device) < counts[:, None]
    shares = logits.softmax(dim=2)
    best = (shares * present[..., None]).amax(dim=1)
    chosen = best.topk(min(_LIKELY, logits.shape[2]), dim=1).indices  # (B, M)
    weights = shares.gather(2, chosen[:, None].expand(-1, sites, -1))
    covered = ((weights.sum(dim=2) > _COVERED) | ~present).all(dim=1)
    stays = same.exp()[..., None]  # (B, N - 1, 1)
    pairs = chain.pairs.to(logits.dtype).exp()
    states, metals = _states()
    of_chosen = states.to(logits.device)[chosen]  # (B, M, Q), NaN where there is no further state
    is_metal = metals.to(logits.device)[chosen].to(weights.dtype)

    def sums(elements: Tensor, of_sites: Tensor, charges: Tensor, most: int) -> tuple[Tensor, Tensor]:
        """Return `_sums` over states, of elements by their place in the table of pairs, (B, T)."""
        table = pairs[elements[:, :, None], elements[:, None]]
        other = table * (elements[:, :, None] != elements[:, None])
        stay = table.diagonal(dim1=1, dim2=2)[:, None] * stays
        return _sums(of_sites, other, stay, counts, charges[:, None] * amounts[..., None], most)

    none = torch.zeros_like(chosen)
    all_rows, of_all = sums(chosen, weights, none, 0)
    metal_rows, of_metals = sums(chosen, weights * is_metal[:, None], none, 0)
    # States of all chosen elements in one list, the likeliest elements first.
    exists = of_chosen.isfinite().flatten(1)
    order = exists.logical_not().to(torch.uint8).sort(dim=1, stable=True).indices[:, :_STATES]
    place = order // of_chosen.shape[2]  # of the element among the chosen ones, (B, T)
    of_states = (weights.gather(2, place[:, None].expand(-1, sites, -1))) * exists.gather(1, order)[:, None]
    charges = of_chosen.flatten(1).nan_to_num().gather(1, order).long()
    neutral_rows, found = sums(chosen.gather(1, place), of_states, charges, _MOST_CHARGE)
    of_neutral = torch.zeros_like(of_all).scatter_add(2, place[:, None].expand(-1, sites, -1), found)
    # Metals stay as likely as they were: of all other rows, those that are neutral take the place of the rest.
    metal = (metal_rows - all_rows).exp().clamp(max=1)[:, None, None]
    others = (of_all - metal * of_metals).clamp(min=0)  # of share 1 - metal
    ways = (neutral_rows - all_rows).exp()[:, None, None]
    rest = ways * of_neutral + _NOT_NEUTRAL * others
    rest = (1 - metal) * rest / rest.sum(dim=2, keepdim=True).clamp(min=_LEAST)
    now = metal * of_metals + rest
    shift = (now.clamp(min=_LEAST) / of_all.clamp(min=_LEAST)).log().clamp(min=-_FARTHEST, max=_FARTHEST)
    shifts = torch.full_like(logits, -_FARTHEST).scatter(2, chosen[:, None].expand_as(shift), shift)
    return shifts * covered[:, None, None]


def _sums(
    weights: Tensor, other: Tensor, stay: Tensor, counts: Tensor, added: Tensor, most: int
) -> tuple[Tensor, Tensor]:
    """Return the logarithm of the sum over rows of states with no charge, (B,), and the shares of states, (B, N, T).

    Args:
        weights: of each state at each site, (B, N, T).
        other: of a state and another that follows, (B, T, T).
        stay: of a state that follows itself, (B, N - 1, T).
        counts: how many sites there are, (B,).
        added: the charge that each state brings at each site, (B, N, T) int64.
        most: charge up to which sums are followed.
    """
    images, sites, states = weights.shape
    charges = torch.arange(2 * most + 1, device=weights.device)

    def moved(message: Tensor, site: int, sign: int) -> Tensor:
        """Return a message (B, T, C) by the charge after a site, of that before it; with sign -1 the other way."""
        if most == 0:
            return message
        place = charges - sign * added[:, site, :, None]
        return message.gather(2, place.clamp(0, 2 * most)) * ((place >= 0) & (place <= 2 * most))

    def scaled(message: Tensor) -> tuple[Tensor, Tensor]:
        largest = message.amax(dim=(1, 2)).clamp(min=_LEAST)
        return message / largest[:, None, None], largest.log()

    start = weights.new_zeros(images, states, len(charges))
    start[..., most] = 1
    message, scale = scaled(moved(start * weights[:, 0, :, None], 0, 1))
    forward = [message]
    for site in range(1, sites):
        led = other.mT @ message + message * stay[:, site - 1, :, None]
        step, more = scaled(moved(led * weights[:, site, :, None], site, 1))
        there = site < counts
        message = torch.where(there[:, None, None], step, message)
        scale = scale + torch.where(there, more, 0.0)
        forward.append(message)
    backward = [start]
    for site in range(sites - 1, 0, -1):
        behind = moved(backward[-1], site, -1) * weights[:, site, :, None]
        step = scaled(other @ behind + behind * stay[:, site - 1, :, None])[0]
        backward.append(torch.where((site < counts)[:, None, None], step, start))
    shares = torch.stack([(a * b).sum(dim=2) for a, b in zip(forward, backward[::-1], strict=True)], dim=1)
    total = message[..., most].sum(dim=1).clamp(min=_LEAST).log() + scale
    return total, shares / shares.sum(dim=2, keepdim=True).clamp(min=_LEAST)


@functools.cache
def _states() -> tuple[Tensor, Tensor]:
    """Return the common oxidation states of each element, (119, Q), NaN behind the last, and which are metals, (119,).

    An element without common ones has all that are known of it, or none but 0.
    """
    found: list[tuple[int, ...]] = [(0,)]
    metals = [False]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymatgen warns of elements without data
        for number in range(1, MAX_ATOMIC_NUMBER + 1):
            element = Element.from_Z(number)
            states = element.common_oxidation_states or element.oxidation_states or (0,)
            found.append(tuple(int(state) for state in states))
            metals.append(bool(element.is_metal))
    longest = max(map(len, found))
    table = [[*states, *[float("nan")] * (longest - len(states))] for states in found]
    return torch.tensor(table), torch.tensor(metals)
