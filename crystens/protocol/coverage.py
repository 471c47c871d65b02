"""Coverage of real crystals by generated ones, and of generated ones by real ones, in the space of fingerprints.

A real crystal is covered if the generated structure nearest to it is within the structure cut-off and the generated
composition nearest to it is within the composition cut-off. The two need not belong to the same generated crystal: so
the original code counts. The strict variant asks for one generated crystal that is within both. Recall is the share of
real crystals that are covered; precision is the same with the roles exchanged, over all generated crystals, those
without a fingerprint too, which are not covered.

Source: Xie et al., "Crystal Diffusion Variational Autoencoder for Periodic Material Generation", ICLR 2022, Sec. 5.2,
after Xu et al., "GeoDiff", ICLR 2022 and Ganea et al., "GeoMol", NeurIPS 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

_ROWS_AT_ONCE = 256  # of pairwise distances, 8 bytes each


@dataclass(frozen=True, eq=False)
class Nearest:
    """How far the crystals of one set are from those of another; infinity where either has no fingerprint.

    Attributes:
        structure: distance to the nearest structure fingerprint, (n,).
        composition: distance to the nearest composition fingerprint, (n,).
        both: whether one crystal of the other set is within both cut-offs, (n,).
        cutoffs: those of the structure and of the composition.
    """

    structure: np.ndarray
    composition: np.ndarray
    both: np.ndarray
    cutoffs: tuple[float, float]

    @property
    def covered(self) -> np.ndarray:
        """Whether both distances are within their cut-offs, each to its own nearest, (n,)."""
        return (self.structure <= self.cutoffs[0]) & (self.composition <= self.cutoffs[1])


def nearest(
    samples: tuple[np.ndarray, np.ndarray], references: tuple[np.ndarray, np.ndarray], cutoffs: tuple[float, float]
) -> tuple[Nearest, Nearest]:
    """Return how far samples are from references, and references from samples.

    Args:
        samples: structure fingerprints (n, F) and scaled composition fingerprints (n, C), rows of NaN where there is
            none.
        references: the same of the real crystals, (m, F) and (m, C).
        cutoffs: of the structure and of the composition.
    """
    found = Nearest(*_none(len(samples[0])), cutoffs), Nearest(*_none(len(references[0])), cutoffs)
    rows, columns = (np.flatnonzero(np.isfinite(part[0]).all(axis=1)) for part in (samples, references))
    if len(columns) == 0:
        return found
    real = references[0][columns], references[1][columns]
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        block = rows[start : start + _ROWS_AT_ONCE]
        structure, composition = (cdist(part[block], other) for part, other in zip(samples, real, strict=True))
        both = (structure <= cutoffs[0]) & (composition <= cutoffs[1])
        _take(found[0], block, structure.min(axis=1), composition.min(axis=1), both.any(axis=1))
        _take(found[1], columns, structure.min(axis=0), composition.min(axis=0), both.any(axis=0))
    return found


def _none(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what is known of crystals that have met no other."""
    return np.full(number, np.inf), np.full(number, np.inf), np.zeros(number, dtype=bool)


def _take(found: Nearest, places: np.ndarray, structure: np.ndarray, composition: np.ndarray, both: np.ndarray) -> None:
    """Let crystals meet some more of the other set."""
    found.structure[places] = np.minimum(found.structure[places], structure)
    found.composition[places] = np.minimum(found.composition[places], composition)
    found.both[places] |= both
