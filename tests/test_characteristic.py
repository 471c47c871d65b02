"""Positions on which a single orbit has the group, against structures that everybody knows and pymatgen's symmetry."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core import Structure
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from crystens.symmetry.characteristic import characteristic
from crystens.symmetry.wyckoff import space_group

# fcc, bcc, hcp, diamond, alpha-polonium, and the rhombohedral cell of mercury.
KNOWN = {225: "a", 229: "a", 194: "c", 227: "a", 221: "a", 166: "a"}


@pytest.mark.parametrize(("group", "letter"), KNOWN.items())
def test_structures_of_one_orbit_are_characteristic(group: int, letter: str) -> None:
    assert characteristic(group)[space_group(group).letters.index(letter)]


def test_zinc_blende_without_its_second_element_is_no_zinc_blende() -> None:
    assert not any(characteristic(216)[:4])
    assert not any(characteristic(1))


@pytest.mark.parametrize("group", [14, 62, 99, 155, 187, 198, 216])
def test_spglib_finds_the_same(group: int) -> None:
    known = space_group(group)
    vectors = np.linalg.cholesky(known.averaged_metric(np.array([[29, 2.1, 1.7], [2.1, 41, 2.9], [1.7, 2.9, 77.0]])))
    for position, found in zip(known.positions, characteristic(group), strict=True):
        sites = position.orbit(position.linear @ [0.0837, 0.1719, 0.3141] + position.shift)
        structure = Structure(vectors, ["Cu"] * len(sites), sites)
        assert (SpacegroupAnalyzer(structure, 1e-3).get_space_group_number() == group) == found, position.letter
