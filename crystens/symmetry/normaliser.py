"""Motions that keep the operations of a space group (its normaliser), and their effect on Wyckoff positions.

A motion is a change of axes (`SpaceGroup.turns`) followed by a shift of the origin (`SpaceGroup.shifts`). A crystal has
one description for each motion, and the letters of its orbits may differ between descriptions.

Source: International Tables for Crystallography, Vol. A (2016), Chapter 3.5 (Euclidean normalisers, and equivalent
descriptions of one structure).
"""

from __future__ import annotations

import functools
import itertools

import numpy as np

from crystens.symmetry.wyckoff import GENERIC, SpaceGroup, space_group


def motion(group: SpaceGroup, turn: int, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """Return linear part (3, 3) and translation (3,) of a motion of the normaliser."""
    return group.turns[turn], group.turn_shifts[turn] + group.shifts[shift]


@functools.cache
def returned(number: int, turn: int, shift: int, letter: str) -> tuple[str, np.ndarray, np.ndarray]:
    """Return the image of a position under a motion of the normaliser: its new letter, and its representative.

    Returns:
        The new letter; rotation (3, 3) and translation (3,) of the group that take a moved point of the old first
        representative onto the new one.
    """
    group = space_group(number)
    position = group.position(letter)
    linear, step = motion(group, turn, shift)
    images = group.rotations @ (linear @ (position.linear @ GENERIC + position.shift) + step) + group.translations
    for other in group.positions:
        if (other.freedom, other.multiplicity) == (position.freedom, position.multiplicity):
            values = (images - other.shift) @ other.outside.T
            there = np.flatnonzero((np.abs(values - np.round(values)) < 1e-7).all(axis=1))
            if len(there):
                return other.letter, group.rotations[there[0]], group.translations[there[0]]
    raise AssertionError(f"no position of space group {number} is where {letter} moves by turn {turn}, shift {shift}")


def letters_after(number: int, turn: int, shift: int, letters: str) -> str:
    """Return the letters of orbits after a motion of the normaliser."""
    return "".join(returned(number, turn, shift, letter)[0] for letter in letters)


@functools.cache
def relettered(number: int) -> tuple[str, ...]:
    """Return the distinct lists of letters of a group's positions (in the order a, b, ...) after each motion."""
    group = space_group(number)
    motions = itertools.product(range(len(group.turns)), range(len(group.shifts)))
    return tuple(sorted({letters_after(number, turn, shift, group.letters) for turn, shift in motions}))
