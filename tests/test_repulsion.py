"""Atoms are pushed apart on their Wyckoff positions, and those that are apart stay."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from crystens.errors import CrystensError
from crystens.metrics.validity import shortest_distance
from crystens.networks.orbits.geometry import ListedOrbits
from crystens.networks.orbits.repulsion import pushed_apart
from crystens.networks.row_transformer import RowTransformer
from crystens.symmetry.orbit_crystal import OrbitCrystal
from crystens.symmetry.wyckoff import space_group

CELLS = {225: [5.0, 5.0, 5.0, 90, 90, 90], 62: [6.0, 5.0, 7.0, 90, 90, 90], 194: [4.0, 4.0, 9.0, 90, 90, 120]}


def pushed(group: int, letters: str, places: list[list[float]], numbers: list[int], rounds: int = 40) -> torch.Tensor:
    """Places of one crystal's orbits, in a batch with another that is apart and has fewer orbits."""
    slots = len(letters) + 1
    known = space_group(group).letters
    given = torch.zeros(2, slots, 3)
    given[0, : len(letters)] = torch.tensor(places)
    present = torch.zeros(2, slots, dtype=torch.bool)
    present[0, : len(letters)] = present[1, 0] = True
    index, elements = torch.zeros(2, slots, dtype=torch.long), torch.ones(2, slots, dtype=torch.long)
    index[0, : len(letters)] = torch.tensor([known.index(letter) for letter in letters])
    elements[0, : len(letters)] = torch.tensor(numbers)
    cells = torch.tensor([CELLS[group], CELLS[225]], dtype=torch.float32)
    moved, _ = pushed_apart(
        cells, given, ListedOrbits(present, torch.tensor([group, 225]), index, elements), 0.7, rounds
    )
    assert torch.equal(moved[1], torch.zeros(slots, 3))
    return moved[0, : len(letters)]


def shortest(group: int, letters: str, places: torch.Tensor, numbers: list[int]) -> float:
    cell = np.array(CELLS[group], dtype=float)
    made = OrbitCrystal(cell[:3], cell[3:], group, np.array(numbers), letters, places.double().numpy())
    return shortest_distance(made.to_crystal())


@pytest.mark.parametrize(
    ("group", "letters", "places", "numbers"),
    [
        (62, "cc", [[0.1, 0.25, 0.2], [0.12, 0.25, 0.22]], [8, 26]),
        (62, "dc", [[0.1, 0.2, 0.2], [0.3, 0.25, 0.7]], [8, 26]),  # d is beside the mirror, and meets itself
        (225, "ae", [[0.0, 0.0, 0.0], [0.1, 0.0, 0.0]], [11, 17]),
        (194, "ff", [[1 / 3, 2 / 3, 0.05], [1 / 3, 2 / 3, 0.08]], [16, 16]),
    ],
)
def test_orbits_that_are_too_near_are_pushed_apart_on_their_positions(
    group: int, letters: str, places: list[list[float]], numbers: list[int]
) -> None:
    moved = pushed(group, letters, places, numbers)
    assert shortest(group, letters, torch.tensor(places), numbers) < 0.7
    metric = np.diag(np.square(CELLS[group][:3])).astype(float)
    for letter, place in zip(letters, moved.double().numpy(), strict=True):
        position = space_group(group).position(letter)
        assert position.nearest(place[None], metric).distances[0] < 1e-4


def test_sites_are_put_onto_their_positions_and_not_moved_where_they_are_apart() -> None:
    moved = pushed(225, "ab", [[0.02, 0.99, 0.01], [0.48, 0.52, 0.5]], [11, 17])
    expected = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.5, 0.5]])
    torch.testing.assert_close(moved, expected, atol=1e-4, rtol=0)
    general = [[0.1, 0.1, 0.2]]
    torch.testing.assert_close(pushed(62, "d", general, [1]), torch.tensor(general), atol=1e-6, rtol=0)


def test_cells_that_angles_do_not_form_stay_as_they_are() -> None:
    cells = torch.tensor([[4.0, 4.0, 4.0, 40.0, 40.0, 140.0], [4.0, 4.0, 4.0, 120.0, 120.0, 120.0]])
    places = torch.rand(2, 2, 3)
    present, numbers = torch.ones(2, 2, dtype=torch.bool), torch.full((2, 2), 8)
    orbits = ListedOrbits(present, torch.ones(2).long(), torch.zeros(2, 2).long(), numbers)
    moved, lengths = pushed_apart(cells, places, orbits, 5.0, 4)
    torch.testing.assert_close(moved, places)
    assert torch.equal(lengths, cells[:, :3])


def test_where_sites_cannot_move_the_cell_grows() -> None:
    cells = torch.tensor([[3.0, 3.0, 3.0, 90.0, 90.0, 90.0]])
    places = torch.tensor([[[0.0] * 3, [0.45] * 3]])
    present = torch.ones(1, 2, dtype=torch.bool)
    orbits = ListedOrbits(present, torch.tensor([225]), torch.tensor([[0, 1]]), torch.tensor([[11, 17]]))
    moved, lengths = pushed_apart(cells, places, orbits, 0.8, 60)
    torch.testing.assert_close(moved[0], torch.tensor([[0.0] * 3, [0.5] * 3]), atol=1e-3, rtol=0)
    # A second orbit, half an edge away: 0.8 (1.66 + 1.02) angstrom.
    torch.testing.assert_close(lengths[0], torch.full((3,), 2 * 0.8 * 2.68), atol=0.1, rtol=0)


def test_repulsion_is_of_codes_of_orbits() -> None:
    options = {"image_side": 16, "width": 16, "depth": 1, "heads": 2}
    for more in ({}, {"codes": True}, {"codes": True, "orbits": True}):
        with pytest.raises(CrystensError, match="above 0 it takes codes=true"):
            RowTransformer(**options, **more, repulsion=0.6)
    with pytest.raises(CrystensError, match="must not be negative"):
        RowTransformer(**options, repulsion=-1)
