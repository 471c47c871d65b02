"""Tables of the Wyckoff positions of all space groups, by number of the group and place of the letter in the alphabet.

Number 0 is none, and places beyond the last letter of a group hold 0.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from crystens.networks.codes.stated import NUM_GROUPS
from crystens.networks.orbits.geometry import representatives
from crystens.symmetry.characteristic import characteristic
from crystens.symmetry.wyckoff import MAX_POSITIONS, primitive_multiplicities, space_group

NUM_PLACE_FEATURES = 13


@functools.cache
def primitive_multiplicity_table() -> Tensor:
    """Return how many sites of a primitive cell each Wyckoff position has, (231, 27) int64; 0 where there is none."""
    return _table(primitive_multiplicities, torch.int64)


@functools.cache
def characteristic_table() -> Tensor:
    """Return on which Wyckoff positions a single orbit has the group, (231, 27) bool."""
    return _table(characteristic, torch.bool)


def _table(of_group: Callable[[int], Sequence[int]], dtype: torch.dtype) -> Tensor:
    """Return a table (231, 27) from a function that gives one value for each position of a group."""
    table = torch.zeros(NUM_GROUPS, MAX_POSITIONS, dtype=dtype)
    for number in range(1, NUM_GROUPS):
        values = of_group(number)
        table[number, : len(values)] = torch.tensor(values)
    return table


@functools.cache
def place_features() -> Tensor:
    """Return of each position, (231, 27, 13): linear part and shift of its first representative, and its multiplicity.

    The multiplicity as its binary logarithm, divided by 4. Positions that there are not have zeros.
    """
    places = torch.zeros(NUM_GROUPS, MAX_POSITIONS, NUM_PLACE_FEATURES)
    linear, shift = representatives()
    places[..., :9], places[..., 9:12] = linear.flatten(2), shift
    for number in range(1, NUM_GROUPS):
        for place, position in enumerate(space_group(number).positions):
            places[number, place, 12] = math.log2(position.multiplicity) / 4
    return places


def codes_that_hold_one(codes: Tensor, kinds: int) -> Tensor:
    """Return which codes hold one orbit in each group, (231, K) bool: they mean one position, without freedom.

    Args:
        codes: of each position, (231, 27) int64.
        kinds: K, how many codes there are.
    """
    single = torch.zeros(NUM_GROUPS, kinds, dtype=torch.bool)
    for number in range(1, NUM_GROUPS):
        of_group = codes[number, : len(space_group(number).positions)].tolist()
        for code, position in zip(of_group, space_group(number).positions, strict=True):
            single[number, code] = position.freedom == 0 and of_group.count(code) == 1
    return single
