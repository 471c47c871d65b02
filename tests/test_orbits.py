"""A crystal as its orbits: known crystals, and all sites back."""

from __future__ import annotations

import numpy as np
import pytest
import spglib
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.symmetry.descriptions import OrbitError, describe, read_orbits
from crystens.symmetry.orbit_crystal import OrbitCrystal
from crystens.symmetry.space_groups import space_group_number

pytestmark = pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")  # spglib

CRYSTALS = {
    # space group, lattice, one site of each orbit, letters by atomic number
    "rocksalt NaCl": (225, Lattice.cubic(5.64), {"Na": [(0, 0, 0)], "Cl": [(0.5, 0.5, 0.5)]}, "ab"),
    "fluorite CaF2": (225, Lattice.cubic(5.46), {"Ca": [(0, 0, 0)], "F": [(0.25, 0.25, 0.25)]}, "ca"),
    "diamond": (227, Lattice.cubic(3.567), {"C": [(0, 0, 0)]}, "a"),  # pymatgen: origin choice 1
    "quartz": (
        152,
        Lattice.hexagonal(4.916, 5.405),
        {"Si": [(0.4697, 0, 1 / 3)], "O": [(0.4135, 0.2669, 0.1191)]},
        "ca",
    ),
    "quartz of the other hand": (
        154,
        Lattice.hexagonal(4.916, 5.405),
        {"Si": [(0.4697, 0, 2 / 3)], "O": [(0.4135, 0.2669, -0.1191)]},
        "ca",
    ),
    "rutile": (136, Lattice.tetragonal(4.594, 2.959), {"Ti": [(0, 0, 0)], "O": [(0.3053, 0.3053, 0)]}, "fa"),
    "perovskite SrTiO3": (
        221,
        Lattice.cubic(3.905),
        {"Sr": [(0.5, 0.5, 0.5)], "Ti": [(0, 0, 0)], "O": [(0.5, 0, 0)]},
        "cba",
    ),
    "perovskite CaTiO3": (
        62,
        Lattice.orthorhombic(5.44, 7.64, 5.38),
        {
            "Ca": [(0.0359, 0.25, 0.993)],
            "Ti": [(0, 0, 0.5)],
            "O": [(0.4837, 0.25, 0.0717), (0.2889, 0.0373, 0.7111)],
        },
        "cdca",
    ),
    "wurtzite ZnO": (
        186,
        Lattice.hexagonal(3.25, 5.207),
        {"Zn": [(1 / 3, 2 / 3, 0)], "O": [(1 / 3, 2 / 3, 0.382)]},
        "bb",
    ),
    "hematite": (167, Lattice.hexagonal(5.035, 13.747), {"Fe": [(0, 0, 0.3553)], "O": [(0.3059, 0, 0.25)]}, "ec"),
    "bismuth telluride": (
        166,
        Lattice.hexagonal(4.385, 30.49),
        {"Bi": [(0, 0, 0.4)], "Te": [(0, 0, 0), (0, 0, 0.2097)]},
        "acc",
    ),
    "tenorite CuO": (
        15,
        Lattice.monoclinic(4.684, 3.423, 5.129, 99.54),
        {"Cu": [(0.25, 0.25, 0)], "O": [(0, 0.416, 0.25)]},
        "ec",
    ),
}


def _crystal(name: str) -> Crystal:
    """A crystal with all its sites, as pymatgen makes them."""
    number, lattice, sites, _ = CRYSTALS[name]
    species = [element for element, places in sites.items() for _ in places]
    places = [place for several in sites.values() for place in several]
    structure = Structure.from_spacegroup(number, lattice, species, places)
    return Crystal.from_structure(structure, number)


@pytest.mark.parametrize("name", CRYSTALS)
def test_known_crystals_have_the_letters_of_the_textbook(name):
    number, _, sites, letters = CRYSTALS[name]
    orbits = describe(_crystal(name))
    assert orbits.space_group == number
    assert orbits.letters == letters
    assert len(orbits) == sum(map(len, sites.values()))
    assert orbits.numbers.tolist() == sorted(orbits.numbers.tolist())


@pytest.mark.parametrize("name", CRYSTALS)
@pytest.mark.parametrize("cell", ["conventional", "primitive"])
def test_all_sites_come_back_and_have_the_group(name, cell):
    crystal = _crystal(name)
    orbits = describe(crystal)
    back = orbits.to_crystal(cell)
    assert len(back) == orbits.num_sites(cell)
    assert space_group_number(back.lengths, back.angles, back.numbers, back.coordinates, 1e-4) == crystal.space_group
    assert StructureMatcher(ltol=1e-3, stol=1e-3, angle_tol=0.1, scale=False).fit(
        crystal.to_structure(), back.to_structure()
    )
    found = spglib.get_symmetry_dataset((back.lattice.matrix, back.coordinates, back.numbers), symprec=1e-3)
    assert found.number == crystal.space_group


@pytest.mark.parametrize("name", CRYSTALS)
def test_spglib_gives_the_expanded_cell_the_same_letters_where_it_keeps_the_origin(name):
    orbits = describe(_crystal(name))
    back = orbits.to_crystal()
    hall = next(
        h
        for h in range(1, 531)
        if spglib.get_spacegroup_type(h).number == orbits.space_group
        and spglib.get_spacegroup_type(h).choice in ("", "b1", "H", "2")
    )
    found = spglib.get_symmetry_dataset((back.lattice.matrix, back.coordinates, back.numbers), 1e-3, hall_number=hall)
    moved = back.coordinates @ found.transformation_matrix.T + found.origin_shift
    group = orbits.group
    letters = [group.classified(point, orbits.metric, 1e-2)[0].letter for point in moved]
    assert letters == found.wyckoffs


@pytest.mark.parametrize("name", ["quartz", "perovskite CaTiO3", "tenorite CuO", "bismuth telluride"])
@pytest.mark.parametrize("cell", ["conventional", "primitive"])
def test_the_operations_map_the_sites_of_each_orbit_on_each_other(name, cell):
    orbits = describe(_crystal(name))
    made = orbits.symmetrised(cell)
    crystal = made.crystal
    metric = crystal.lattice.matrix @ crystal.lattice.matrix.T
    for rotation, translation in zip(made.rotations, made.translations, strict=True):
        assert np.allclose(rotation.T @ metric @ rotation, metric)
        steps = crystal.coordinates[None] - (crystal.coordinates @ rotation.T + translation)[:, None]
        target = np.abs(steps - np.round(steps)).max(axis=2)
        assert target.min(axis=1).max() < 1e-6
        assert (made.orbits[target.argmin(axis=1)] == made.orbits).all()
    sizes = np.unique(made.orbits, return_counts=True)[1]
    points = len(orbits.group.centring) if cell == "primitive" else 1
    assert sizes.tolist() == (orbits.multiplicities // points).tolist()


def test_sites_that_are_no_whole_orbit_are_an_error():
    with pytest.raises(OrbitError, match="position 4a of space group 225, but not all sites of its orbit are there"):
        read_orbits(225, np.full(3, 5.64), np.full(3, 90.0), np.array([11]), np.zeros((1, 3)))


def test_a_cell_that_is_not_known_is_an_error(nacl):
    orbits = describe(nacl)
    assert isinstance(orbits, OrbitCrystal)
    with pytest.raises(CrystensError, match="cell='niggli' is not known; use one of conventional, primitive"):
        orbits.to_crystal("niggli")
