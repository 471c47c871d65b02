"""A crystal checks its values; a batch keeps them, in few bytes."""

import numpy as np
import pytest
import torch
from ase import Atoms
from pymatgen.core import DummySpecies, Structure

from crystens.batch import CrystalBatch
from crystens.crystal import Crystal, wrap
from crystens.errors import CrystensError
from crystens.symmetry.space_groups import SymmetryError


def test_coordinates_are_wrapped_into_the_cell_even_where_float32_rounds_up_to_one() -> None:
    wrapped = wrap(np.array([-0.25, 1.0, 1.75, -1e-12, 0.99999999999]))
    assert wrapped.tolist() == [0.75, 0.0, 0.75, 0.0, 0.0]
    assert (wrapped.astype(np.float32) < 1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lengths": [5, 0, 5]}, "cell lengths must be > 0"),
        ({"lengths": [5, np.nan, 5]}, "not finite"),
        ({"angles": [90, 180, 90]}, "strictly between 0 and 180"),
        ({"angles": [30, 30, 100]}, "cannot form a cell"),
        ({"space_group": 231}, "space group number must be 1-230, got 231"),
        ({"numbers": [0]}, "atomic number must be 1-118, got 0"),
        ({"numbers": [119]}, "got 119"),
        ({"numbers": []}, "at least one site"),
        ({"coordinates": [[0, 0, 0], [0.5, 0.5, 0.5]]}, "1 atomic numbers for 2 coordinates"),
        ({"coordinates": [[0, np.inf, 0]]}, "site 0 is not a finite number"),
    ],
)
def test_a_wrong_value_is_refused_by_name(change: dict, message: str) -> None:
    values = {
        "lengths": [5, 5, 5],
        "angles": [90, 90, 90],
        "space_group": 1,
        "numbers": [6],
        "coordinates": [[0, 0, 0]],
    }
    if change.get("numbers") == []:
        change["coordinates"] = np.zeros((0, 3))
    with pytest.raises(CrystensError, match=message):
        Crystal(**{**values, **change})


def test_structure_and_crystal_are_inverses(triclinic: Crystal) -> None:
    again = Crystal.from_structure(triclinic.to_structure(), triclinic.space_group)
    np.testing.assert_allclose(again.coordinates, triclinic.coordinates, atol=1e-12)
    np.testing.assert_allclose(again.lengths, triclinic.lengths, atol=1e-9)
    assert again.formula == "Al3O2"


def test_disordered_structure_is_refused(nacl: Crystal) -> None:
    structure = nacl.to_structure()
    structure[0] = {"Na": 0.5}
    with pytest.raises(CrystensError, match="disordered"):
        Crystal.from_structure(structure, 1)


def test_a_batch_gives_its_crystals_back(nacl: Crystal, sites_52: Crystal) -> None:
    batch = CrystalBatch.from_crystals([nacl, sites_52], max_sites=52)
    for index, crystal in enumerate((nacl, sites_52)):
        again = batch.crystal(index)
        assert again.numbers.tolist() == crystal.numbers.tolist()
        np.testing.assert_allclose(again.coordinates, crystal.coordinates, atol=1e-7)
        assert again.space_group == crystal.space_group
    assert batch.nbytes / len(batch) < 1024
    assert len(batch[[1]]) == 1
    assert batch[1:].crystal(0).formula == sites_52.formula


def test_too_many_sites_are_refused_with_the_count(sites_52: Crystal) -> None:
    with pytest.raises(CrystensError, match="has 52 sites, more than max_sites=20"):
        CrystalBatch.from_crystals([sites_52], max_sites=20)


def test_canonical_order_does_not_depend_on_the_order_of_the_file(triclinic: Crystal, sites_52: Crystal) -> None:
    generator = np.random.default_rng(0)
    for crystal in (triclinic, sites_52):
        batch = CrystalBatch.from_crystals([crystal], 60).in_canonical_order()
        order = generator.permutation(len(crystal))
        # Rounding in a file moves 0 to just below 1.
        moved = np.where(crystal.coordinates[order] == 0, 1 - 1e-5, crystal.coordinates[order])
        other = Crystal(crystal.lengths, crystal.angles, crystal.space_group, crystal.numbers[order], moved)
        shuffled = CrystalBatch.from_crystals([other], 60).in_canonical_order()
        assert torch.equal(batch.numbers, shuffled.numbers)
        gap = batch.coordinates - shuffled.coordinates
        assert (gap - gap.round()).abs().max() < 1e-4
        filled = batch.numbers[0, : len(crystal)].int()
        assert (filled.diff() >= 0).all()
        assert (batch.numbers[0, len(crystal) :] == 0).all()


def test_a_structure_gets_the_space_group_of_its_sites(nacl, quartz):
    assert Crystal.from_structure(nacl.to_structure()).space_group == 225
    assert Crystal.from_atoms(quartz.to_atoms()).space_group == 152
    with pytest.raises(SymmetryError, match=r"no space group found|the search for a space group"):
        Crystal.from_structure(Structure(nacl.lattice, ["Na", "Na"], [[0, 0, 0], [0, 0, 1e-6]]))


def test_atoms_and_back_are_the_same_crystal(triclinic, quartz):
    for crystal in (triclinic, quartz):
        again = Crystal.from_atoms(crystal.to_atoms(), crystal.space_group)
        assert np.allclose(again.lengths, crystal.lengths)
        assert np.allclose(again.angles, crystal.angles)
        assert np.allclose(again.coordinates, crystal.coordinates)
        assert again.numbers.tolist() == crystal.numbers.tolist()


def test_a_left_handed_cell_of_atoms_keeps_its_hand(quartz):
    atoms = quartz.to_atoms()
    atoms.set_cell(atoms.cell[[1, 0, 2]])
    atoms.set_scaled_positions(quartz.coordinates[:, [1, 0, 2]])
    assert Crystal.from_atoms(atoms).space_group == 152


def test_atoms_that_are_not_periodic_and_dummy_species_are_refused(nacl):
    with pytest.raises(
        CrystensError, match=r"periodic in three directions, these Atoms have pbc=\[False, False, False\]"
    ):
        Crystal.from_atoms(Atoms("Na", positions=[[0, 0, 0]], cell=[3, 3, 3]))
    with pytest.raises(CrystensError, match=r"X0\+ is no element"):
        Crystal.from_structure(Structure(nacl.lattice, [DummySpecies("X")], [[0, 0, 0]]))


def test_a_file_of_one_crystal_is_that_crystal(tmp_path, nacl):
    path = tmp_path / "nacl.cif"
    path.write_text(nacl.to_cif())
    read = Crystal.from_file(path)
    assert read.formula == "NaCl"
    assert read.space_group == 225
    nacl.to_atoms().write(tmp_path / "POSCAR")
    assert Crystal.from_file(tmp_path / "POSCAR").space_group == 225


def test_a_file_without_one_crystal_is_refused_with_its_reason(tmp_path, nacl):
    path = tmp_path / "two.cif"
    path.write_text(nacl.to_cif() + "\n" + nacl.to_cif().replace("data_NaCl", "data_again"))
    with pytest.raises(CrystensError, match="holds several crystals"):
        Crystal.from_file(path)
    path.write_text(nacl.to_cif().replace("_cell_length_a 5.64000000", "_cell_length_a 0.0"))
    with pytest.raises(CrystensError, match=r"two\.cif NaCl: .*cell.*0"):
        Crystal.from_file(path)
    with pytest.raises(CrystensError, match="no file at"):
        Crystal.from_file(tmp_path / "missing.cif")
