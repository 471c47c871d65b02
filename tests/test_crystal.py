"""A crystal checks its values; a batch keeps them, in few bytes."""

import numpy as np
import pytest
import torch

from crystens.batch import CrystalBatch
from crystens.crystal import Crystal, wrap
from crystens.errors import CrystensError


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
