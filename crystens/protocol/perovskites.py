"""Perov-5 in structure prediction: which of the two metals is on the A site, and which on B.

The data set holds every ABX3 of 52 metals A, 52 metals B and 7 sets of anions X. A composition with two metals thus
occurs twice, as polymorphs with A and B exchanged, and a fair coin matches half of the references. If the other
polymorph is in train, "the one that is not in train" is the right answer, without any knowledge of the crystal.

Source: Castelli et al., Energy Environ. Sci. 5, 9034 (2012); counted in the tables of CDVAE.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crystens.chemistry.formulas import ReducedComposition, reduced_composition
from crystens.crystal import Crystal
from crystens.errors import CrystensError

DATA_SET = "perov_5"

_ANIONS = (7, 8, 9, 16)  # N, O, F, S

# Kinds of references, by the split of their other polymorph.
IN_TRAIN, NOT_IN_TRAIN, ONE_METAL = "other_in_train", "other_not_in_train", "one_metal"


def with_metals_exchanged(crystal: Crystal) -> Crystal:
    """Return a perovskite with A and B exchanged; the same crystal if A and B are one metal.

    Raises:
        CrystensError: if the crystal is no ABX3 of Perov-5.
    """
    numbers = crystal.numbers.copy()
    (metals,) = np.nonzero(~np.isin(numbers, _ANIONS))
    if len(numbers) != 5 or len(metals) != 2:
        raise CrystensError(f"{crystal.formula} in a cell of {len(numbers)} sites is no ABX3 of Perov-5")
    numbers[metals] = numbers[metals[::-1]]
    return Crystal(crystal.lengths, crystal.angles, crystal.space_group, numbers, crystal.coordinates)


def kinds(references: Sequence[Crystal], train: Sequence[Crystal]) -> np.ndarray:
    """Return the kind of each reference, (n,) texts."""
    known: set[ReducedComposition] = {reduced_composition(crystal.numbers) for crystal in train}
    found = []
    for reference in references:
        metals = set(reference.numbers.tolist()) - set(_ANIONS)
        has = IN_TRAIN if reduced_composition(reference.numbers) in known else NOT_IN_TRAIN
        found.append(ONE_METAL if len(metals) == 1 else has)
    return np.array(found)
