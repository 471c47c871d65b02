"""The chain of codes against sums over all rows of codes."""

from __future__ import annotations

import itertools

import pytest
import torch

from crystens.networks.codes.chain import CodeChain

COUNTS = torch.tensor([4, 2, 1])


@pytest.fixture
def chain() -> CodeChain:
    torch.manual_seed(0)
    made = CodeChain(3).double()
    torch.nn.init.normal_(made.first)
    torch.nn.init.normal_(made.pairs)
    return made


@pytest.mark.parametrize("with_same", [True, False])
def test_posterior_is_the_sum_over_all_rows_of_codes(chain: CodeChain, with_same: bool) -> None:
    logits = torch.randn(3, 4, 3).double()
    same = torch.randn(3, 3).double() if with_same else None
    found, total = chain.posterior(logits, COUNTS, same)
    for image, count in enumerate(COUNTS.tolist()):
        shares = torch.zeros(count, 3).double()
        for row in itertools.product(range(3), repeat=count):
            codes = torch.zeros(3, 4, dtype=torch.int64)
            codes[image, :count] = torch.tensor(row)
            weight = chain.score(logits, COUNTS, codes, same)[image].exp()
            for site, code in enumerate(row):
                shares[site, code] += weight
        assert float(total[image].exp()) == pytest.approx(float(shares[0].sum()))
        torch.testing.assert_close(found[image, :count].exp(), shares / shares[0].sum())


def test_an_untrained_chain_leaves_sites_as_they_are() -> None:
    logits = torch.randn(3, 4, 5)
    found, _ = CodeChain(5).posterior(logits, COUNTS, torch.zeros(3, 3))
    torch.testing.assert_close(found[0], logits[0].log_softmax(dim=1))
    torch.testing.assert_close(found[1, :2], logits[1, :2].log_softmax(dim=1))


def test_what_is_impossible_stays_so_and_nothing_becomes_infinite(chain: CodeChain) -> None:
    logits = torch.zeros(3, 4, 3).double()
    logits[:, 1, :2] = -1e6
    logits[:, 0, 1:] = -1e4
    same = torch.full((3, 3), 50.0).double()
    same[:, 2] = -50
    found, total = chain.posterior(logits.requires_grad_(), COUNTS, same)
    assert found.isfinite().all()
    assert total.isfinite().all()
    assert float(found[0, 1, 2].exp().detach()) == pytest.approx(1)
    assert float(found[0, 0, 0].exp().detach()) == pytest.approx(1)
    (found.sum() + total.sum()).backward()
    assert logits.grad.isfinite().all()


def test_neighbours_that_are_likely_the_same_share_what_is_known() -> None:
    logits = torch.zeros(1, 3, 4)
    logits[0, 1, 2] = 3.0
    chain = CodeChain(4)
    apart = chain.posterior(logits, torch.tensor([3]), torch.zeros(1, 2))[0].exp()
    together = chain.posterior(logits, torch.tensor([3]), torch.tensor([[4.0, 0.0]]))[0].exp()
    assert float(apart[0, 0, 2]) == pytest.approx(0.25)
    assert float(together[0, 0, 2]) > 0.6
    assert float(together[0, 2, 2]) == pytest.approx(0.25)


def test_so_many_codes_are_drawn_as_are_known(chain: CodeChain) -> None:
    logits, same = torch.randn(3, 4, 3).double(), torch.randn(3, 3).double()
    distinct = torch.tensor([2.0, 2.0, torch.nan]).double()
    found = chain.posterior_of_so_many(logits, COUNTS, same, distinct, strictness=60.0)
    for image, wanted in ((0, 2), (1, 2)):
        count = int(COUNTS[image])
        shares = torch.zeros(count, 3).double()
        for row in itertools.product(range(3), repeat=count):
            if 1 + sum(one != other for one, other in itertools.pairwise(row)) == wanted:
                codes = torch.zeros(3, 4, dtype=torch.int64)
                codes[image, :count] = torch.tensor(row)
                shares[range(count), row] += chain.score(logits, COUNTS, codes, same)[image].exp()
        torch.testing.assert_close(found[image, :count].exp(), shares / shares[0].sum())
    torch.testing.assert_close(found[2, :1], chain.posterior(logits, COUNTS, same)[0][2, :1])
    more = chain.posterior_of_so_many(logits, COUNTS, same, torch.full((3,), 9.0).double(), strictness=60.0)
    assert more.isfinite().all()  # of one site, no two elements
    impossible = logits.clone()
    impossible[:, :, :2] = -1e6
    two = chain.posterior_of_so_many(impossible, COUNTS, same, torch.full((3,), 2.0).double(), strictness=6.0)
    assert (two[0].exp()[:, 2] > 0.99).all()  # evidence that is certain wins
