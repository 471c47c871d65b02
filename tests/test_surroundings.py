"""What stands around a site: against pymatgen's neighbours, and what it must not depend on."""

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from crystens.networks.surroundings import NUM_SHELLS, surroundings

CELL = [5.0, 6.0, 7.0, 80.0, 95.0, 105.0]
PLACES = [[0.02, 0.5, 0.9], [0.97, 0.4, 0.1], [0.3, 0.3, 0.3]]


def around(places: object = PLACES, count: int = 3, deviation: float = 0.0, cell: object = CELL) -> torch.Tensor:
    sites = torch.tensor(places)
    present = torch.arange(len(sites))[None] < count
    return surroundings(torch.tensor([cell]), sites[None], present, torch.tensor([deviation]))[0]


def test_shells_and_sides_are_those_of_the_neighbours_that_pymatgen_finds() -> None:
    structure = Structure(Lattice.from_parameters(*CELL), ["C"] * 3, PLACES)
    centres = np.linspace(0.25, 3.75, NUM_SHELLS)
    for given, site, neighbours in zip(around().numpy(), structure, structure.get_all_neighbors(6.0), strict=True):
        distances = np.array([one.nn_distance for one in neighbours])
        steps = np.array([site.frac_coords - one.frac_coords for one in neighbours])
        shells = np.exp(-0.5 * ((distances[:, None] - centres) / 0.35) ** 2)
        np.testing.assert_allclose(given[:NUM_SHELLS], shells.sum(axis=0), atol=1e-4)
        np.testing.assert_allclose(given[NUM_SHELLS:].reshape(-1, 3), 3 * shells.T @ steps, atol=1e-4)


def test_the_origin_and_whole_cells_change_nothing() -> None:
    moved = [[x + 0.31, y - 0.17 + 1, z + 0.05] for x, y, z in PLACES]
    torch.testing.assert_close(around(moved), around(), atol=1e-4, rtol=0)
    torch.testing.assert_close(around([[1.02, 0.5, -0.1], *PLACES[1:]]), around(), atol=1e-4, rtol=0)


def test_sites_in_another_order_have_their_own_surroundings() -> None:
    torch.testing.assert_close(around(PLACES[::-1]), around().flip(0), atol=1e-5, rtol=0)


def test_empty_slots_are_no_neighbours() -> None:
    torch.testing.assert_close(around([*PLACES, [0.31, 0.3, 0.3]])[:3], around())
    assert not torch.allclose(around([*PLACES, [0.31, 0.3, 0.3]], count=4)[:3], around())


def test_a_site_sees_its_images_and_not_itself() -> None:
    alone = around([[0.2, 0.2, 0.2]], 1, cell=[3.25, 20.0, 20.0, 90.0, 90.0, 90.0])[0]
    torch.testing.assert_close(alone[:NUM_SHELLS].max(), torch.tensor(2.0), atol=1e-3, rtol=0)
    assert alone[:2].max() < 1e-3  # nothing at 0.25 and 0.75 angstrom
    torch.testing.assert_close(alone[NUM_SHELLS:], torch.zeros(3 * NUM_SHELLS), atol=1e-4, rtol=0)


def test_uncertain_places_fade() -> None:
    # 0.5 angstrom of the mean length of 6 halves them.
    torch.testing.assert_close(around(deviation=0.5 / 6), around() / 2)
    assert around(deviation=100.0).abs().max() < 1e-3


@pytest.mark.parametrize("wild", [1e6, -1e6, 0.0])
def test_noise_of_any_size_gives_finite_numbers(wild: float) -> None:
    assert around([[wild] * 3, [0.0] * 3, [-wild] * 3], cell=[wild] * 6).isfinite().all()
