"""Codes of Wyckoff positions and space groups, in eight cells of an image of orbits for each orbit.

Row and column 11, which are empty in the paper's image, hold the Wyckoff position in eight cells for each orbit, four
channels each. Two encodings fill them with digits 0 and 1, so that a little noise does not change the position (Chen,
Zhang, Hinton, "Analog Bits", 2022):

- "letter": the five binary digits of the letter's index in the alphabet (a is 0, A of Pmmm is 26), their parity, and
  the two digits of the number of free parameters.
- "multiplicity": the same with the index of the multiplicity among all that occur. The coordinates distinguish
  positions with the same code.

Row and column 10 hold the space group in eight cells for each orbit: with "number" the number eight times, as in the
paper; with "bits" its eight binary digits.

Decoding takes the nearest code by least squares, for positions among those of the group.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from crystens.crystal import NUM_SPACE_GROUPS
from crystens.element_codes import NO_CODE
from crystens.errors import CrystensError
from crystens.symmetry.wyckoff import MAX_POSITIONS, WyckoffPosition, space_group

WYCKOFF_ENCODINGS = ("letter", "multiplicity")
GROUP_ENCODINGS = ("number", "bits")
COPIES = 8  # cells: four channels of the row, then four of the column

_MULTIPLICITIES = (1, 2, 3, 4, 6, 8, 9, 12, 16, 18, 24, 32, 36, 48, 64, 96, 192)
_DIGITS = 5
_FREEDOM_DIGITS = 2


@functools.cache
def wyckoff_codes(wyckoff: str) -> Tensor:
    """Return the code of each position, (231, 27, 8) float32, by space group and index of the letter.

    Group 0 and positions that a group does not have are `NO_CODE`.

    Raises:
        CrystensError: if there is no such encoding.
    """
    if wyckoff not in WYCKOFF_ENCODINGS:
        raise CrystensError(f"{wyckoff=} is not known; use one of {', '.join(WYCKOFF_ENCODINGS)}")
    codes = torch.full((NUM_SPACE_GROUPS + 1, MAX_POSITIONS, COPIES), NO_CODE)
    for number in range(1, NUM_SPACE_GROUPS + 1):
        for place, position in enumerate(space_group(number).positions):
            codes[number, place] = torch.tensor(_position_code(wyckoff, place, position))
    return codes


def _position_code(wyckoff: str, place: int, position: WyckoffPosition) -> list[float]:
    """Return the eight digits of a position."""
    value = place if wyckoff == "letter" else _MULTIPLICITIES.index(position.multiplicity)
    digits = _digits(value, _DIGITS)
    return [*digits, sum(digits) % 2, *_digits(position.freedom, _FREEDOM_DIGITS)]


@functools.cache
def group_codes() -> Tensor:
    """Return the binary digits of each space group's number, the least significant first: (231, 8) float32."""
    return torch.tensor([_digits(number, COPIES) for number in range(NUM_SPACE_GROUPS + 1)])


def nearest_groups(cells: Tensor) -> Tensor:
    """Return the space groups with the nearest digits: cells (B, 8) to (B,) int64."""
    return torch.cdist(cells, group_codes()[1:].to(cells)).argmin(dim=1) + 1


def check_group_encoding(space_groups: str) -> None:
    """Raise a CrystensError unless `space_groups` names an encoding."""
    if space_groups not in GROUP_ENCODINGS:
        raise CrystensError(f"{space_groups=} is not known; use one of {', '.join(GROUP_ENCODINGS)}")


def _digits(value: int, count: int) -> list[float]:
    """Return binary digits, the least significant first."""
    return [float(value >> place & 1) for place in range(count)]
