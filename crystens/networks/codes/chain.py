"""A chain of elements: which element follows which, from site to site of a crystal.

Sites stand in the order of their elements, so sites of one element are neighbours in the list. Drawn site by site,
elements would be independent of each other. Here each site has log weights of its own, and each pair of neighbours has
learned log weights. The forward-backward algorithm gives the joint posterior exactly.

Sources: Rabiner, "A tutorial on hidden Markov models", Proc. IEEE 77 (1989) 257, for the algorithm; Lafferty, McCallum,
Pereira, "Conditional random fields", ICML 2001, for a chain as the output of a network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LEAST = 1e-30  # share of an element that no other leads to, so that logarithms stay finite


class CodeChain(nn.Module):
    """Learned log weights of pairs of neighbours.

    Args:
        codes: number K of codes.
    """

    def __init__(self, codes: int) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.zeros(codes))  # of a code on its own
        self.pairs = nn.Parameter(torch.zeros(codes, codes))  # of a code, and of the next

    def posterior(self, logits: Tensor, counts: Tensor, same: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the log posterior of each site, (B, N, K), and the logarithm of the sum over all rows of codes, (B,).

        Args:
            logits: what is known of each site on its own, (B, N, K).
            counts: how many sites there are, (B,).
            same: log weight of a site and the next having one code, (B, N - 1); None for 0.
        """
        logits, pairs = logits + self.first.to(logits.dtype), self.pairs.to(logits.dtype)  # float32, whatever theirs is
        weights, stay = pairs.exp(), pairs.diagonal().exp()
        last = logits.shape[1] - 1
        more = None if same is None else same.expm1()[..., None]  # (B, N - 1, 1)

        def passed(message: Tensor, edge: int, table: Tensor) -> Tensor:
            """Return a message (B, K) after one step along the chain."""
            most = message.amax(dim=1, keepdim=True)
            shares = (message - most).exp()
            led = shares @ table
            if more is not None:
                led = led + shares * stay * more[:, edge]
            return led.clamp(min=_LEAST).log() + most

        forward = [logits[:, 0]]
        for site in range(1, last + 1):
            forward.append(passed(forward[-1], site - 1, weights) + logits[:, site])
        backward = [torch.zeros_like(logits[:, 0])]
        for site in range(last, 0, -1):
            there = (site < counts)[:, None]
            backward.append(torch.where(there, passed(backward[-1] + logits[:, site], site - 1, weights.mT), 0.0))
        ahead = torch.stack(forward, dim=1)
        end = (counts - 1).clamp(min=0)
        total = ahead.gather(1, end[:, None, None].expand(-1, 1, ahead.shape[2]))[:, 0].logsumexp(dim=1)
        return (ahead + torch.stack(backward[::-1], dim=1)).log_softmax(dim=2), total

    def posterior_of_so_many(
        self, logits: Tensor, counts: Tensor, same: Tensor, distinct: Tensor, strictness: float
    ) -> Tensor:
        """Return the log posterior of each site, (B, N, K), where it is known how many codes differ.

        Neighbours that differ are counted along the chain: of sites that stand in order, it is one less than there are
        codes.

        Args:
            logits: what is known of each site on its own, (B, N, K).
            counts: how many sites there are, (B,).
            same: log weight of a site and the next having one code, (B, N - 1).
            distinct: how many codes there are, (B,); NaN where that is not known.
            strictness: how much less likely a row is for each code too many or too few, in nats.
        """
        logits, pairs = logits + self.first.to(logits.dtype), self.pairs.to(logits.dtype)
        weights, stay = pairs.exp(), pairs.diagonal().exp()
        other = weights - torch.diag(stay)
        images, sites, codes = logits.shape
        changes = torch.arange(sites, device=logits.device)
        wanted = torch.minimum(distinct, counts.to(distinct.dtype)) - 1
        end = torch.where(wanted.isnan()[:, None], 0.0, -strictness * (changes - wanted[:, None]).abs())  # (B, C)
        end = end[..., None].expand(-1, -1, codes)

        def passed(message: Tensor, edge: int, table: Tensor, step: int) -> Tensor:
            """Return a message (B, C, K) after one step, with one change more or, backwards, less."""
            most = message.amax(dim=(1, 2), keepdim=True)
            shares = (message - most).exp()
            kept = shares * (stay * same[:, edge].exp()[:, None])[:, None]
            changed = (shares @ table).roll(step, dims=1)
            changed[:, 0 if step > 0 else -1] = 0
            return (kept + changed).clamp(min=_LEAST).log() + most

        start = logits.new_full((images, sites, codes), -torch.inf)
        start[:, 0] = logits[:, 0]
        forward = [start]
        for site in range(1, sites):
            forward.append(passed(forward[-1], site - 1, other, 1) + logits[:, site, None])
        backward = [end]
        for site in range(sites - 1, 0, -1):
            there = (site < counts)[:, None, None]
            step = passed(backward[-1] + logits[:, site, None], site - 1, other.mT, -1)
            backward.append(torch.where(there, step, end))
        both = torch.stack(forward, dim=1) + torch.stack(backward[::-1], dim=1)  # (B, N, C, K)
        return both.logsumexp(dim=2).log_softmax(dim=2)

    def score(self, logits: Tensor, counts: Tensor, codes: Tensor, same: Tensor | None = None) -> Tensor:
        """Return the log weight of one row of codes (B, N) in the sum that `posterior` returns, (B,)."""
        present = torch.arange(codes.shape[1], device=counts.device) < counts[:, None]
        own = ((logits + self.first.to(logits.dtype)).gather(2, codes[..., None])[..., 0] * present).sum(dim=1)
        steps = self.pairs.to(logits.dtype)[codes[:, :-1], codes[:, 1:]]
        if same is not None:
            steps = steps + same * (codes[:, :-1] == codes[:, 1:])
        return own + (steps * present[:, 1:]).sum(dim=1)
