"""Sums over neutral rows of elements, beside all rows and states listed one by one."""

from __future__ import annotations

import itertools

import pytest
import torch

from crystens.networks.codes import charge_sums
from crystens.networks.codes.chain import CodeChain
from crystens.networks.codes.charge_sums import neutral_shift

ELEMENTS = 119
LIKELY = (8, 11, 17, 20, 22, 29)  # O, Na, Cl, Ca, Ti, Cu


def listed(chain: CodeChain, logits: torch.Tensor, same: torch.Tensor, amounts: list[int]) -> torch.Tensor:
    """Return the shares of elements at each site of one image, (N, 119), by all rows of likely elements."""
    states, metals = charge_sums._states()
    shares = torch.zeros(3, len(amounts), ELEMENTS, dtype=torch.float64)  # of metals, neutral rows, all other rows
    count = torch.tensor([len(amounts)])
    for row in itertools.product(LIKELY, repeat=len(amounts)):
        weight = float(chain.score(logits[None], count, torch.tensor([row]), same[None]).double().exp())
        # An element that comes back later in the row is a new block, whose state is its own.
        blocks: list[list[int]] = []
        for place, element in enumerate(row):
            if place and row[place - 1] == element:
                blocks[-1][1] += amounts[place]
            else:
                blocks.append([element, amounts[place]])
        choices = [[int(q) for q in states[element].tolist() if q == q] for element, _ in blocks]
        ways = sum(
            sum(q * amount for q, (_, amount) in zip(way, blocks, strict=True)) == 0
            for way in itertools.product(*choices)
        )
        is_metal = bool(metals[list(row)].all())
        for place, element in enumerate(row):
            shares[:, place, element] += torch.tensor([weight * is_metal, weight * ways, weight * (not is_metal)])
    metal, neutral, other = shares
    metal_share = metal.sum() / (metal + other).sum()
    rest = neutral + charge_sums._NOT_NEUTRAL * other
    found = metal_share * metal / metal.sum() + (1 - metal_share) * rest / rest.sum()
    return found / found.sum(dim=1, keepdim=True)


@pytest.mark.parametrize("amounts", [[1, 1], [1, 2, 3], [2, 2, 4, 3]])
def test_the_sum_is_that_over_all_rows_and_states(amounts: list[int]) -> None:
    torch.manual_seed(len(amounts))
    chain = CodeChain(ELEMENTS)
    with torch.no_grad():
        chain.first.normal_()
        chain.pairs.normal_()
    sites = len(amounts)
    logits = torch.full((1, sites + 2, ELEMENTS), -60.0)  # two slots are empty
    logits[:, :, list(LIKELY)] = torch.randn(1, sites + 2, len(LIKELY))
    same = torch.randn(1, sites + 1)
    counts = torch.tensor([sites])
    padded = torch.tensor([[*amounts, 7, 7]])
    with torch.no_grad():
        shift = neutral_shift(chain, logits, counts, same, padded)[0, :sites]
        before = chain.posterior(logits, counts, same)[0][0, :sites]
        expected = listed(chain, logits[0, :sites], same[0, : sites - 1], amounts)
    found = (before + shift).double().exp()[:, list(LIKELY)]
    assert found.sum(dim=1).tolist() == pytest.approx([1.0] * sites, abs=1e-3)
    assert torch.allclose(found, expected[:, list(LIKELY)], atol=2e-4)


def test_what_is_neutral_becomes_likely() -> None:
    chain = CodeChain(ELEMENTS)
    logits = torch.full((1, 2, ELEMENTS), -60.0)
    logits[0, 0, 11] = logits[0, 0, 20] = 0.0  # sodium or calcium
    logits[0, 1, 17] = 0.0  # chlorine
    for amounts, sodium in (([1, 1], True), ([1, 2], False)):
        shift = neutral_shift(chain, logits, torch.tensor([2]), torch.zeros(1, 1), torch.tensor([amounts]))
        shares = (logits + shift)[0, 0].softmax(dim=0)
        assert (float(shares[11]) > 0.9) == sodium
        assert (float(shares[20]) > 0.9) == (not sodium)
