"""Whether a crystal looks like one that could be made: columns by which samples are shown, the best first.

- `distance_ratio`: the shortest distance, of two atoms or of an atom to its own image, divided by the sum of the two
  covalent radii. Of 16,000 real crystals (mp_52, Perov-5, Carbon-24, mp_3dsc) the least has 0.62, the median 0.92;
  below `MIN_RATIO` atoms stand within each other.
- `charge_neutral`: `crystens.charge_neutrality`.
- `known_formula`, `known_template`: whether the reference has a crystal of this reduced formula, of this Wyckoff
  template; None without a reference.
- `plausibility`, 0 to 1: which share of these questions is answered with yes: is the composition neutral, has the
  crystal more symmetry than a lattice (not P1), does the reference know its formula or template; and, always yes, do
  its atoms keep their distances. A crystal whose atoms do not, or which is not structurally valid, has 0.

It tells junk from crystals, and nothing finer: no energy is behind it.

Source of the radii: Cordero et al., "Covalent radii revisited", Dalton Trans. 2008, 2832, as ASE holds them.
"""

from __future__ import annotations

from collections.abc import Sequence

from ase.data import covalent_radii

from crystens.crystal import Crystal
from crystens.distances import distance_rows

COLUMNS = ("distance_ratio", "charge_neutral", "known_formula", "known_template", "plausibility")
MIN_RATIO = 0.6


def distance_ratio(crystal: Crystal) -> float:
    """Return the least distance of two atoms, own images included, divided by the sum of their covalent radii."""
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
        structurally_valid: of its row.
        ratio: its `distance_ratio`.
        neutral: whether its composition is.
        space_group: found in its atoms; None if none is found.
        known: whether its formula and its template are known, None where there is no reference.
    """
    if not structurally_valid or ratio < MIN_RATIO:
        return 0.0
    answers = [True, neutral, space_group not in (None, 1)]
    if any(one is not None for one in known):
        answers.append(any(known))
    return sum(answers) / len(answers)
