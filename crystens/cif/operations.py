"""Symmetry operations: parsing, completion to a group, and comparison with a cell.

An operation maps a site at fractional x (a column) onto R x + t. Translations are kept exactly, as multiples of 1 / D,
so that products can be looked up: rounded decimals such as 0.3333 become the nearest twelfth or eighth.

The operations of a crystal form a group modulo the translations of the lattice, and keep all lengths: a cell of metric
tensor G has R as a symmetry when R^T G R = G.

Source: International Tables for Crystallography A (2016), ch. 1.2, 1.3; core CIF dictionary, `_space_group_symop`.
"""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass
from fractions import Fraction

import gemmi
import numpy as np

from crystens.sources.record import Unusable, quoted

_LONGEST_OPERATION = 200  # letters, which also bounds the size of its numbers
_LARGEST_COEFFICIENT = 1000  # largest coefficient of an operation
_LARGEST_DENOMINATOR = 10**9  # largest common denominator of all translations of a list
_MOST_IN_GROUP = 192  # operations of a space group in its conventional cell; a supercell may have more
_TERM = re.compile(r"([+-]?)(?:(\d*\.?\d+|\d+\.)(?:/(\d+))?)?\*?([xyz]?)")
# Allows lengths to differ by half a per cent and angles by half a degree, because files round. No wrong setting is as
# close.
_METRIC_TOLERANCE = 0.01


@dataclass(frozen=True, eq=False)
class Operations:
    """Symmetry operations in the basis of a cell.

    Attributes:
        rotations: (M, 3, 3) int64.
        translations: (M, 3) float64, fractional.
        keys: keys that distinguish operations modulo lattice translations.
    """

    rotations: np.ndarray
    translations: np.ndarray
    keys: frozenset[tuple[int | Fraction, ...]]

    def __len__(self) -> int:
        """Return the number of operations, M."""
        return len(self.rotations)

    def misfit(self, matrix: np.ndarray) -> str | None:
        """Return an operation that does not keep the lengths of a cell; None if all do.

        Args:
            matrix: cell vectors as rows, shape (3, 3), angstrom.
        """
        metric = matrix @ matrix.T
        lengths = np.sqrt(np.diag(metric))
        moved = self.rotations.transpose(0, 2, 1) @ metric @ self.rotations
        wrong = (np.abs(moved - metric) / np.outer(lengths, lengths)).max(axis=(1, 2)) > _METRIC_TOLERANCE
        if not wrong.any():
            return None
        return self.triplet(int(wrong.argmax()))

    def triplet(self, index: int) -> str:
        """Return an operation in the notation x,y,z."""
        parts = []
        for row, step in zip(self.rotations[index].tolist(), self.translations[index].tolist(), strict=True):
            part = "".join(
                f"{'-' if value < 0 else '+'}{'' if abs(value) == 1 else abs(value)}{axis}"
                for value, axis in zip(row, "xyz", strict=True)
                if value
            )
            fraction = Fraction(step).limit_denominator(1000) % 1
            parts.append((part + (f"+{fraction}" if fraction else "")).removeprefix("+"))
        return ",".join(parts)


IDENTITY = Operations(
    np.eye(3, dtype=np.int64)[None], np.zeros((1, 3)), frozenset([(1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0)])
)


@dataclass(frozen=True, eq=False)
class Listed:
    """The operations that a file lists, and the group that they generate.

    Attributes:
        operations: the distinct operations, always with the identity.
        group: the smallest group that contains them; None if it has more than twice as many operations, and more than
            any space group.
        gap: two listed operations whose product is not listed, and that product; empty if the list is a group.
    """

    operations: Operations
    group: Operations | None
    gap: str


@functools.lru_cache(maxsize=256)
def listed(triplets: tuple[str, ...]) -> Listed:
    """Return the operations of a list, such as "-x+1/2,y,z".

    Raises:
        Unusable: if one of them is no operation.
    """
    steps = [operation(triplet) for triplet in triplets]
    first = dict.fromkeys(rotation + tuple(t % 1 for t in translation) for rotation, translation in steps)
    identity = next(iter(IDENTITY.keys))
    found = _from_keys([identity, *(key for key in first if key != identity)])
    group, gap = _closure(found)
    return Listed(found, group, gap)


@functools.lru_cache(maxsize=8192)
def operation(triplet: str) -> tuple[tuple[int, ...], tuple[Fraction, ...]]:
    """Return the rotation, row by row, and the translation of one operation.

    gemmi's own reader refuses decimals and denominators that do not divide 24.

    Raises:
        Unusable: if the operation is not understood, or cannot map a lattice onto itself.
    """
    if len(triplet) > _LONGEST_OPERATION:
        raise _bad_operation(triplet)
    rotation: list[int] = []
    translation: list[Fraction] = []
    for part in triplet.lower().replace(" ", "").split(","):
        row, step, rest = [Fraction(0)] * 3, Fraction(0), part
        while rest:
            term = _TERM.match(rest)
            if term is None or not (term[2] or term[4]) or (term[3] and not int(term[3])):
                raise _bad_operation(triplet)
            value = Fraction(term[2] or 1) / int(term[3] or 1) * (-1 if term[1] == "-" else 1)
            if term[4]:
                row["xyz".index(term[4])] += value
            else:
                step += value if term[3] else _exact(term[2], value)
            rest = rest[term.end() :]
        if any(value.denominator > 1 for value in row) or max(map(abs, [*row, step])) > _LARGEST_COEFFICIENT:
            raise _bad_operation(triplet)
        rotation += map(int, row)
        translation.append(step)
    if len(translation) != 3 or abs(round(np.linalg.det(np.array(rotation, dtype=float).reshape(3, 3)), 3)) != 1:
        raise _bad_operation(triplet)
    return tuple(rotation), tuple(translation)


def _exact(text: str, value: Fraction) -> Fraction:
    """Return the twelfth or eighth whose rounding is a decimal of at least two places, otherwise the decimal."""
    places = len(text.partition(".")[2])
    if places < 2:
        return value
    near = [Fraction(round(value * base), base) for base in (12, 8)]
    nearest = min(near, key=lambda fraction: abs(fraction - value))
    return nearest if abs(nearest - value) <= Fraction(6, 10 ** (places + 1)) else value


def _bad_operation(triplet: str) -> Unusable:
    """Return the error of an invalid operation."""
    return Unusable(f"symmetry operation not understood: {quoted(triplet)}", "write it like -x+1/2,y,z")


def _from_keys(keys: list[tuple]) -> Operations:
    """Return operations from rows of twelve numbers, rotation and translation."""
    rotations = np.array([key[:9] for key in keys], dtype=np.int64).reshape(-1, 3, 3)
    translations = np.array([[float(t) for t in key[9:]] for key in keys])
    return Operations(rotations, translations, frozenset(keys))


def _closure(found: Operations) -> tuple[Operations | None, str]:
    """Return the group that operations generate, or None if it is too large, and a missing product."""
    denominator = math.lcm(*(Fraction(t).denominator for key in found.keys for t in key[9:]))
    if denominator > _LARGEST_DENOMINATOR:
        return None, "their translations have no common fraction"
    rotations = found.rotations
    translations = np.round(found.translations * denominator).astype(np.int64) % denominator
    most = max(_MOST_IN_GROUP, 2 * len(found))
    rows = _rows(rotations, translations)
    given = set(rows)
    known = {rows[0]: None}  # the identity
    elements = (rotations[:1], translations[:1])
    generators: list[int] = []
    gap = ""
    for index, row in enumerate(rows):
        if row in known:
            continue
        generators.append(index)
        frontier = elements
        while len(frontier[0]):
            fresh: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
            for generator in generators:
                products = frontier[0] @ rotations[generator]
                steps = (frontier[0] @ translations[generator] + frontier[1]) % denominator
                for k, key in enumerate(_rows(products, steps)):
                    if key in known:
                        continue
                    known[key] = None
                    fresh[0].append(products[k])
                    fresh[1].append(steps[k])
                    if not gap and key not in given:
                        gap = " ".join(
                            (
                                _triplet(frontier[0][k], frontier[1][k], denominator),
                                "after",
                                _triplet(rotations[generator], translations[generator], denominator),
                                "is",
                                _triplet(products[k], steps[k], denominator),
                            )
                        )
                if len(known) > most:
                    return None, gap
            if not fresh[0]:
                break
            frontier = (np.array(fresh[0]), np.array(fresh[1]))
            elements = (np.concatenate([elements[0], frontier[0]]), np.concatenate([elements[1], frontier[1]]))
    if len(known) == len(found):
        return found, ""
    keys = [
        (*rotation.ravel().tolist(), *(Fraction(int(t), denominator) for t in step))
        for rotation, step in zip(*elements, strict=True)
    ]
    return _from_keys(keys), gap


def _rows(rotations: np.ndarray, translations: np.ndarray) -> list[bytes]:
    """Return each operation as bytes."""
    table = np.concatenate([rotations.reshape(-1, 9), translations], axis=1)
    return [row.tobytes() for row in table]


def _triplet(rotation: np.ndarray, step: np.ndarray, denominator: int) -> str:
    """Return one operation in the notation x,y,z."""
    return Operations(rotation[None], step[None] / denominator, frozenset()).triplet(0)


@functools.lru_cache(maxsize=1024)
def of_group(hall: str) -> Operations:
    """Return the operations of a Hall symbol.

    Raises:
        RuntimeError: if gemmi does not know the symbol.
    """
    group = [
        (*np.array(op.rot).ravel() // gemmi.Op.DEN, *(Fraction(t, gemmi.Op.DEN) % 1 for t in op.tran))
        for op in gemmi.symops_from_hall(hall)
    ]
    return _from_keys([tuple(int(v) if k < 9 else v for k, v in enumerate(key)) for key in group])
