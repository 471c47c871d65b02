"""Wyckoff templates: the symmetry of a crystal without its elements, cell parameters and coordinates.

A template is the space group, the multiset of Wyckoff letters of the orbits, and the number of elements. All crystals
with the rocksalt structure have `225 ab of 2 elements`; four orbits on position c and two on d are written `c4d2`.

The letters depend on the choice of origin and axes. The alphabetically first list is taken, so that a structure type
has one template. Mirror images are not exchanged.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable

from crystens.symmetry.normaliser import relettered
from crystens.symmetry.wyckoff import space_group


def wyckoff_template(number: int, letters: Iterable[str], num_elements: int) -> str:
    """Return the template of a crystal.

    Args:
        number: space group, 1-230.
        letters: the Wyckoff letter of each orbit, in any order.
        num_elements: number of different elements.

    Raises:
        CrystensError: if the group has no such position.
    """
    elements = "1 element" if num_elements == 1 else f"{num_elements} elements"
    return f"{number} {_first_letters(number, ''.join(sorted(letters)))} of {elements}"


@functools.lru_cache(maxsize=65536)
def _first_letters(number: int, letters: str) -> str:
    """Return the alphabetically first multiset of letters over all descriptions, with the amount of each letter."""
    group = space_group(number)
    amounts = Counter(group.letters.index(group.position(letter).letter) for letter in letters)
    found = []
    for others in relettered(number):
        moved = sorted((group.letters.index(others[place]), amount) for place, amount in amounts.items())
        # (a, 2), (b, 1) comes before (a, 1), (b, 2), as aab before abb.
        found.append([(place, -amount) for place, amount in moved])
    return "".join(f"{group.letters[place]}{-amount if amount < -1 else ''}" for place, amount in min(found))
