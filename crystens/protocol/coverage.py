"""Coverage of real crystals by generated crystals, and the reverse, in the space of fingerprints.

A real crystal is covered if the nearest generated structure is within the structure cut-off and the nearest generated
composition is within the composition cut-off. As in the original code, these may belong to two generated crystals. The
strict variant requires one generated crystal within both cut-offs. Recall is the share of covered real crystals.
Precision exchanges the roles: it is the share of covered generated crystals, among all of them. A crystal without a
fingerprint is not covered.

Source: Xie et al., "Crystal Diffusion Variational Autoencoder for Periodic Material Generation", ICLR 2022, Sec. 5.2,
after Xu et al., "GeoDiff", ICLR 2022 and Ganea et al., "GeoMol", NeurIPS 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

_ROWS_AT_ONCE = 256  # rows of pairwise distances in memory, 8 bytes a value


@dataclass(frozen=True, eq=False)
class Nearest:
    """Distances from the crystals of one set to those of another; infinity without a fingerprint.

    Attributes:
        structure: distance to the nearest structure fingerprint, (n,).
        composition: distance to the nearest composition fingerprint, (n,).
        both: whether a single crystal of the other set is within both cut-offs, (n,).
        cutoffs: cut-offs of the structure and of the composition.
    """

    structure: np.ndarray
    composition: np.ndarray
    both: np.ndarray
    cutoffs: tuple[float, float]

    @property
    def covered(self) -> np.ndarray:
        """Whether the two nearest distances are within their cut-offs, (n,)."""
        return (self.structure <= self.cutoffs[0]) & (self.composition <= self.cutoffs[1])


def nearest(
    samples: tuple[np.ndarray, np.ndarray], references: tuple[np.ndarray, np.ndarray], cutoffs: tuple[float, float]
) -> tuple[Nearest, Nearest]:
    """Return the nearest distances from samples to references, and from references to samples.

    Args:
        samples: structure fingerprints (n, F) and scaled composition fingerprints (n, C); missing ones are rows of NaN.
        references: fingerprints of the real crystals, (m, F) and (m, C).
        cutoffs: cut-offs of the structure and of the composition.
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
    """Return the initial distances of crystals, before any comparison."""
    return np.full(number, np.inf), np.full(number, np.inf), np.zeros(number, dtype=bool)


def _take(found: Nearest, places: np.ndarray, structure: np.ndarray, composition: np.ndarray, both: np.ndarray) -> None:
    """Update the nearest distances with more crystals of the other set."""
    found.structure[places] = np.minimum(found.structure[places], structure)
    found.composition[places] = np.minimum(found.composition[places], composition)
    found.both[places] |= both
