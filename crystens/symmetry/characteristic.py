"""Which Wyckoff positions make a crystal of their group when one orbit of atoms stands on them and nothing else.

On all others a single orbit has more symmetry than the group: one orbit on 4a of group 216 is a face-centred cubic
metal, group 225. International Tables call an orbit characteristic whose symmetry is that of its group.

Source: International Tables for Crystallography, Vol. A (2016), Chapter 1.4.4.4 (eigensymmetry groups and
characteristic orbits).
"""

from __future__ import annotations

import functools

import moyopy
import numpy as np

from crystens.symmetry.wyckoff import GENERIC, space_group

# Of a triclinic cell, angstrom squared; averaged over a group it is a cell without symmetry beyond that of the group.
_METRIC = np.array([[26.3, 1.9, 2.3], [1.9, 45.0, 3.1], [2.3, 3.1, 70.1]])
_SYMPREC = 1e-3  # angstrom


@functools.cache
def characteristic(number: int) -> tuple[bool, ...]:
    """Return of each Wyckoff position of a group, in the order of letters, whether a single orbit has the group.

    Found by moyopy for an orbit with generic parameters in a generic cell of the group.

    Args:
        number: of the space group, 1 to 230.
    """
    group = space_group(number)
    basis = np.linalg.cholesky(group.averaged_metric(_METRIC)).tolist()
    found = []
    for position in group.positions:
        sites = position.orbit(position.linear @ GENERIC + position.shift)
        cell = moyopy.Cell(basis, sites.tolist(), [1] * len(sites))
        found.append(moyopy.MoyoDataset(cell, symprec=_SYMPREC).number == number)
    return tuple(found)
