"""Learned forces know all sites of all orbits, and no directions but those between atoms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from crystens.errors import CrystensError
from crystens.networks.orbits.forces import Forces
from crystens.networks.orbits.geometry import ListedOrbits, operations, site_operations
from crystens.networks.row_transformer import RowTransformer
from crystens.symmetry.wyckoff import space_group

WIDTH = 8
CELL = [6.0, 5.0, 7.0, 90.0, 90.0, 90.0]
PLACES = [[0.11, 0.15, 0.2], [0.3, 0.12, 0.7], [0.1, 0.25, 0.45]]
NUMBERS = [8, 26, 11]


@pytest.fixture
def forces() -> Forces:
    torch.manual_seed(0)
    made = Forces(WIDTH, rounds=2, hidden=16)
    for one in made.rounds:
        torch.nn.init.normal_(one.coefficients.weight, std=0.03)
        torch.nn.init.normal_(one.coefficients.bias, std=0.03)
    return made


def moved(
    forces: Forces,
    places: list[list[float]],
    letters: str = "ddc",
    group: int = 62,
    cell: list[float] = CELL,
    slots: int = 3,
    numbers: list[int] = NUMBERS,
) -> tuple[Tensor, Tensor]:
    """Moves (N, 3) and changes of the lengths (3,) of one crystal, in a batch behind another."""
    given = torch.zeros(2, slots, 3)
    given[1, : len(letters)] = torch.tensor(places)
    present = torch.zeros(2, slots, dtype=torch.bool)
    present[1, : len(letters)] = present[0, 0] = True
    index, elements = torch.zeros(2, slots, dtype=torch.long), torch.ones(2, slots, dtype=torch.long)
    index[1, : len(letters)] = torch.tensor([space_group(group).letters.index(letter) for letter in letters])
    elements[1, : len(letters)] = torch.tensor(numbers)
    tokens = torch.linspace(-1, 1, 2 * slots * WIDTH).view(2, slots, WIDTH)
    tokens[1] = torch.linspace(-1, 1, 4 * WIDTH)[: 3 * WIDTH].view(3, WIDTH).repeat(2, 1)[:slots]
    cells = torch.tensor([[5.0, 5.0, 5.0, 90, 90, 90], cell], dtype=torch.float32)
    orbits = ListedOrbits(present, torch.tensor([225, group]), index, elements)
    moves, grown = forces(tokens, torch.tensor([-1.0, -2.0]), cells, given, orbits)
    return moves[1, : len(letters)].detach(), grown[1].detach()


def test_a_network_starts_without_forces() -> None:
    moves, grown = moved(Forces(WIDTH), PLACES)
    assert not moves.any()
    assert not grown.any()


def test_another_site_of_an_orbit_moves_as_the_operation_turns_it(forces: Forces) -> None:
    expected, grown = moved(forces, PLACES)
    assert expected.abs().amax(dim=1).min() > 1e-3
    rotations, translations, exists = (table[62] for table in operations())
    for rotation, translation in zip(rotations[exists], translations[exists], strict=True):
        other = rotation @ torch.tensor(PLACES[1]) + translation
        moves, of_cell = moved(forces, [PLACES[0], other.tolist(), PLACES[2]])
        turned = torch.stack([expected[0], rotation @ expected[1], expected[2]])
        torch.testing.assert_close(moves, turned, atol=1e-4, rtol=0)
        torch.testing.assert_close(of_cell, grown, atol=1e-4, rtol=0)


def test_empty_slots_and_whole_cells_change_nothing(forces: Forces) -> None:
    expected, grown = moved(forces, PLACES)
    shifted = [[x + 1, y - 1, z] for x, y, z in PLACES]
    for moves, of_cell in (moved(forces, PLACES, slots=6), moved(forces, shifted)):
        torch.testing.assert_close(moves, expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(of_cell, grown, atol=1e-4, rtol=0)


def test_sites_move_as_their_positions_let_them(forces: Forces) -> None:
    moves, _ = moved(forces, PLACES)
    assert moves[2, 1].abs() < 1e-6  # 4c of group 62 is on the mirror at y = 1/4
    places = [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.2, 0.0, 0.0]]
    moves, grown = moved(forces, places, "abe", 225, [5.0, 5.0, 5.0, 90.0, 90.0, 90.0])
    assert moves[:2].abs().max() < 1e-6
    assert moves[2, 0].abs() > 1e-4
    assert moves[2, 1:].abs().max() < 1e-6
    torch.testing.assert_close(grown, grown.mean().expand(3))
    _, grown = moved(forces, PLACES, "aaa", 76, [5.0, 5.0, 9.0, 90.0, 90.0, 90.0])
    assert grown[0] == grown[1] != grown[2]


def test_a_pair_that_attracts_comes_nearer(forces: Forces) -> None:
    with torch.no_grad():
        for one in forces.rounds:
            one.coefficients.weight.zero_()
            one.coefficients.bias.fill_(-0.02)  # towards every neighbour, at all distances
    cell = np.array([12.0, 13.0, 14.0, 90.0, 90.0, 90.0])
    places = np.array([[0.2, 0.2, 0.2], [0.3, 0.25, 0.2]])  # 1.4 angstrom apart
    moves, _ = moved(forces, places.tolist(), "aa", 1, cell.tolist(), 3, [8, 26])
    step, after = places[1] - places[0], places[1] + moves[1].numpy() - places[0] - moves[0].numpy()
    assert np.linalg.norm(after * cell[:3]) < np.linalg.norm(step * cell[:3]) - 0.01


def test_cells_without_volume_and_orbits_on_one_spot_give_numbers(forces: Forces) -> None:
    flat = [4.0, 4.0, 4.0, 40.0, 40.0, 140.0]
    for places, cell in ((PLACES, flat), ([[0.1, 0.2, 0.3]] * 3, CELL)):
        moves, grown = moved(forces, places, "ddd", cell=cell)
        assert moves.isfinite().all()
        assert grown.isfinite().all()


def test_forces_are_of_codes_of_orbits() -> None:
    options = {"image_side": 16, "width": 16, "depth": 1, "heads": 2}
    for more in ({}, {"codes": True}, {"codes": True, "orbits": True}):
        with pytest.raises(CrystensError, match="above 0 it takes codes=true"):
            RowTransformer(**options, **more, forces=1)


@pytest.mark.parametrize("number", [1, 14, 62, 148, 194, 225, 227, 230])
def test_each_site_of_each_position_is_made_once(number: int) -> None:
    which, exists = (table[number] for table in site_operations())
    rotations, translations, _ = (table[number] for table in operations())
    for place, position in enumerate(space_group(number).positions):
        made = which[place][exists[place]].long()
        assert len(made) == position.multiplicity
        assert made[0] == 0
        site = torch.from_numpy(position.linear @ [0.127, 0.31, 0.278] + position.shift).float()
        given = (rotations[made] @ site + translations[made]).double().numpy()
        apart = given[:, None] - position.orbit(site.double().numpy())
        assert (np.abs(apart - np.round(apart)).max(axis=2).min(axis=1) < 1e-4).all()


def test_cells_shorter_than_any_real_one_are_made_longer() -> None:
    for length in (-0.7, 0.5):
        _, grown = moved(Forces(WIDTH), PLACES, cell=[6.0, 5.0, length, 90.0, 90.0, 90.0])
        torch.testing.assert_close(grown, torch.tensor([0.0, 0.0, 2.0 - length]))
