"""Codes of elements in the eight cells of an image for the atomic number of a site.

Row 0 and column 0 hold eight cells for each site, four channels each. Three encodings fill them:

- "number", the paper's: the atomic number eight times. Neighbouring elements differ by 1/98 of the range.
- "bits": the seven binary digits of the atomic number and their parity, each 0 or 1 (Chen, Zhang, Hinton, "Analog
  Bits", 2022). Two elements differ in at least two cells.
- "period_group": the period (1-7) in four cells and the column of the long periodic table (1-32, lanthanides and
  actinides in separate columns) in four. Neighbours in the table have similar codes.

Decoding takes the element with the nearest code by least squares; for "number" that is the mean.
"""

from __future__ import annotations

import torch
from torch import Tensor

from crystens.crystal import MAX_ATOMIC_NUMBER
from crystens.errors import CrystensError

ATOM_ENCODINGS = ("number", "bits", "period_group")
NO_CODE = 9.0  # placeholder for a missing code, far from every code
COPIES = 8  # cells for each site: four channels in row 0, then four in column 0

_BITS = 7
_NOBLE_GASES = (2, 10, 18, 36, 54, 86, 118)
_COLUMNS = 32


def check_atom_encoding(atoms: str) -> None:
    """Raise a CrystensError unless `atoms` names an encoding."""
    if atoms not in ATOM_ENCODINGS:
        raise CrystensError(f"{atoms=} is not known; use one of {', '.join(ATOM_ENCODINGS)}")


def atom_codes(atoms: str) -> Tensor | None:
    """Return the code of each element, (119, 8) float32 in [0, 1], by atomic number; None for "number".

    Row 0 belongs to no element and is 0.

    Raises:
        CrystensError: if there is no such encoding.
    """
    check_atom_encoding(atoms)
    if atoms == "number":
        return None
    make = _bits if atoms == "bits" else _period_and_column
    rows = [[0.0] * COPIES, *(make(number) for number in range(1, MAX_ATOMIC_NUMBER + 1))]
    return torch.tensor(rows)


def nearest_elements(cells: Tensor, codes: Tensor) -> Tensor:
    """Return the atomic number whose code is nearest: cells (B, 8, N), codes (119, 8) to (B, N) int64."""
    apart = torch.cdist(cells.transpose(1, 2), codes[1:].to(cells))
    return apart.argmin(dim=2) + 1


def _bits(number: int) -> list[float]:
    """Return the binary digits of an atomic number, the least significant first, and their parity."""
    digits = [float(number >> place & 1) for place in range(_BITS)]
    return [*digits, sum(digits) % 2]


def _period_and_column(number: int) -> list[float]:
    """Return period and column in the long table, each scaled to [0, 1] and repeated four times."""
    period = next(place for place, last in enumerate(_NOBLE_GASES, start=1) if number <= last)
    first = 1 if period == 1 else _NOBLE_GASES[period - 2] + 1
    place, length = number - first, _NOBLE_GASES[period - 1] - first + 1
    # The two columns of the s block are at the left; all others are counted from the noble gases at the right.
    column = place if place < (1 if period == 1 else 2) else _COLUMNS - (length - place)
    pair = [(period - 1) / (len(_NOBLE_GASES) - 1), column / (_COLUMNS - 1)]
    return pair * (COPIES // 2)
