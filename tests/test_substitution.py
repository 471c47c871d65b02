"""The baseline of structure prediction takes the crystal of the most alike elements, and says where there is none."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np

from crystens.asking.known import unlikeness
from crystens.crystal import Crystal
from crystens.protocol.substitution import substituted

_PEROVSKITE = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])


def perovskite(length: float, *numbers: int, shift: float = 0.0) -> Crystal:
    return Crystal([length] * 3, [90] * 3, 221, list(numbers), _PEROVSKITE + shift)


def cost(crystal: Crystal, amounts: dict[int, int]) -> float:
    """The least cost of all exchanges that keep amounts, tried one by one."""
    have = Counter(crystal.numbers.tolist())
    return min(
        sum(unlikeness()[a, b] * have[a] for a, b in zip(have, order, strict=True))
        for order in itertools.permutations(amounts)
        if all(have[a] == amounts[b] for a, b in zip(have, order, strict=True))
    )


def test_the_most_alike_crystal_of_the_kind_is_taken_and_scaled(nacl: Crystal) -> None:
    titanate = perovskite(3.9, 38, 22, 8, 8, 8, shift=0.1)
    fluoride = perovskite(4.1, 19, 30, 9, 9, 9)
    zirconate = perovskite(4.2, 56, 40, 8, 8, 8)
    (own,) = substituted([nacl, fluoride, titanate], [zirconate], 3)
    assert own[2] is None
    # Barium stands for strontium and zirconium for titanium, though the fluoride stands first.
    assert own[0].numbers.tolist() == zirconate.numbers.tolist()
    np.testing.assert_allclose(own[0].coordinates, titanate.coordinates)
    assert 4.0 < own[0].lengths[0] < 4.4  # and not 3.9
    assert sorted(own[1].numbers.tolist()) == sorted(zirconate.numbers.tolist())


def test_a_kind_that_train_lacks_has_no_answer(nacl: Crystal) -> None:
    done: list[int] = []
    assert substituted([nacl], [perovskite(4.0, 38, 22, 8, 8, 8)], 2, done.append) == [[None, None]]
    assert done[-1] == 1


def test_the_order_is_that_of_all_exchanges_tried_one_by_one() -> None:
    draw = np.random.default_rng(0)
    numbers = [draw.choice(np.arange(3, 84), 4, replace=False).tolist() for _ in range(40)]
    train = [perovskite(4.0, a, b, c, c, d, shift=place / 100) for place, (a, b, c, d) in enumerate(numbers)]
    reference = perovskite(4.0, 56, 22, 8, 8, 7)
    amounts = Counter(reference.numbers.tolist())
    expected = sorted(train, key=lambda crystal: cost(crystal, amounts))[:5]
    (own,) = substituted(train, [reference], 5)
    for made, taken in zip(own, expected, strict=True):
        np.testing.assert_allclose(made.coordinates, taken.coordinates)
        table = dict(zip(taken.numbers.tolist(), made.numbers.tolist(), strict=True))
        have = Counter(taken.numbers.tolist())
        assert sum(unlikeness()[a, b] * have[a] for a, b in table.items()) == cost(taken, amounts)
