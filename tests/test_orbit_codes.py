"""Digits of Wyckoff positions and space groups: each told apart from the others, and read back."""

from __future__ import annotations

import pytest
import torch

from crystens.element_codes import NO_CODE
from crystens.errors import CrystensError
from crystens.orbits.codes import (
    check_group_encoding,
    group_codes,
    nearest_groups,
    wyckoff_codes,
)
from crystens.symmetry.wyckoff import space_group


def test_letters_have_different_digits_in_every_group():
    codes = wyckoff_codes("letter")
    for number in (1, 2, 47, 62, 221, 225, 230):
        count = len(space_group(number).positions)
        apart = torch.cdist(codes[number, :count], codes[number, :count], p=1)
        assert (apart + 9 * torch.eye(count) >= 1).all()
        # One letter off flips a digit and the parity, or two digits: never one cell alone.
        assert (apart + 9 * torch.eye(count)).min() >= (2 if count > 1 else 1)
        assert (codes[number, count:] == NO_CODE).all()


def test_a_letter_is_its_place_its_parity_and_its_freedom():
    codes = wyckoff_codes("letter")
    assert codes[62, 2].tolist() == [0, 1, 0, 0, 0, 1, 0, 1]  # 4c of Pnma: place 2, odd digits, two free parameters
    assert codes[47, 26].tolist() == [0, 1, 0, 1, 1, 1, 1, 1]  # 8A of Pmmm: place 26, three free parameters


def test_positions_of_one_multiplicity_and_freedom_share_a_code():
    codes = wyckoff_codes("multiplicity")
    assert torch.equal(codes[225, 0], codes[225, 1])  # 4a and 4b of Fm-3m
    assert not torch.equal(codes[225, 0], codes[225, 2])  # 4a and 8c
    assert not torch.equal(codes[225, 3], codes[225, 4])  # 24d has no freedom, 24e has


def test_every_group_is_read_back_from_its_digits_under_noise():
    noise = 0.15 * torch.randn(231, 8, generator=torch.Generator().manual_seed(0)).clamp(-2, 2)
    assert nearest_groups(group_codes()[1:] + noise[1:]).tolist() == list(range(1, 231))


def test_an_encoding_that_is_not_known_is_an_error():
    with pytest.raises(CrystensError, match="wyckoff='symbol' is not known; use one of letter, multiplicity"):
        wyckoff_codes("symbol")
    with pytest.raises(CrystensError, match="space_groups='symbol' is not known; use one of number, bits"):
        check_group_encoding("symbol")
