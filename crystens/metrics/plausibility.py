"""Plausibility of crystals: columns by which samples are sorted, the best first.

- `distance_ratio`: the shortest distance between two atoms, own periodic images included, divided by the sum of the
  two covalent radii. In 16,000 real crystals (mp_52, Perov-5, Carbon-24, mp_3dsc) the minimum is 0.62 and the median
  0.92. Below `MIN_RATIO` atoms overlap. At most 1.8 % of the real crystals of each set are below `CLOSE_RATIO`.
- `charge_neutral`: `crystens.chemistry.charge_neutrality`.
- `known_formula`, `known_template`: whether the reference holds a crystal with this reduced formula, with this Wyckoff
  template; None without a reference.
- `plausibility`, 0 to 1: the share of conditions that hold. The conditions are: the distance ratio is at least
  `CLOSE_RATIO`, the composition is charge neutral, the space group is not P1, the reference holds the formula or the
  template. A crystal with overlapping atoms, or which is not structurally valid, has 0.

Plausibility separates junk from crystals, and does no more: it contains no energy.

Source of the radii: Cordero et al., "Covalent radii revisited", Dalton Trans. 2008, 2832, as ASE holds them.
"""

from __future__ import annotations

from collections.abc import Sequence

from ase.data import covalent_radii

from crystens.crystal import Crystal
from crystens.distances import distance_rows

COLUMNS = ("distance_ratio", "charge_neutral", "known_formula", "known_template", "plausibility")
MIN_RATIO = 0.6
CLOSE_RATIO = 0.75


def distance_ratio(crystal: Crystal) -> float:
    """Return the smallest distance of two atoms, own images included, relative to the sum of their covalent radii."""
    radii = covalent_radii[crystal.numbers]
    return min(
        float((rows / (radii[start : start + len(rows), None] + radii)).min())
        for start, rows in distance_rows(crystal.vectors, crystal.coordinates)
    )


def plausibility(
    structurally_valid: bool, ratio: float, neutral: bool, space_group: int | None, known: Sequence[bool | None]
) -> float:
    """Return the plausibility of a crystal.

    Args:
        structurally_valid: whether it is structurally valid.
        ratio: its `distance_ratio`.
        neutral: whether its composition is charge neutral.
        space_group: space group found in its atoms; None if none is found.
        known: whether the reference holds its formula and its template; None without a reference.
    """
    if not structurally_valid or ratio < MIN_RATIO:
        return 0.0
    answers = [ratio >= CLOSE_RATIO, neutral, space_group not in (None, 1)]
    if any(one is not None for one in known):
        answers.append(any(known))
    return sum(answers) / len(answers)
