"""Wyckoff templates: what a crystal is without its elements and its numbers.

A template is the space group, the multiset of Wyckoff letters of the orbits, and the number of elements. Rocksalt, and
all that has its structure, is `225 ab of 2 elements`; four orbits on position c and two on d are written `c4d2`.

One crystal may be described from several origins and along other axes, with other letters; of all lists the first in
the alphabet is taken, so that one structure type has one template. Mirror images are not exchanged.
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
    """Return a multiset of letters in the description in which it comes first, with the amounts of each letter."""
    group = space_group(number)
    amounts = Counter(group.letters.index(group.position(letter).letter) for letter in letters)
    found = []
    for others in relettered(number):
        moved = sorted((group.letters.index(others[place]), amount) for place, amount in amounts.items())
        # Of (a, 1), (b, 2) and (a, 2), (b, 1) the second comes first, as aab before abb.
        found.append([(place, -amount) for place, amount in moved])
    return "".join(f"{group.letters[place]}{-amount if amount < -1 else ''}" for place, amount in min(found))
