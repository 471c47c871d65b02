"""Shortest distances agree with a search over all images that can be near, in thousands of acute and obtuse cells."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from crystens import distances
from crystens.batch import CrystalBatch
from crystens.batch_distances import reduced, shortest_pair_distances
from crystens.crystal import Crystal
from crystens.decoding import merge_sites
from crystens.distances import nearest_distances, nearest_pair, nearest_steps, pair_distances, shortest_lengths
from crystens.encoding import pair_distances as encoded_distances
from crystens.metrics.validity import shortest_distance
from crystens.sources.limits import Limits
from crystens.sources.record import Unusable
from crystens.survey.columns import Census

_CELLS = 2000
_SITES = 3
_PAIRS = ((0, 1), (0, 2), (1, 2))


def _wide_search(matrix: np.ndarray, step: np.ndarray, other: bool = True) -> float:
    """Return the shortest length of a difference, over every image that can be as near as the one given.

    A vector of length r has a component of at most r / spacing along each axis, so that none outside of the box is
    nearer. The spacing of the planes is the inverse length of a reciprocal vector.
    """
    spacings = 1 / np.linalg.norm(np.linalg.inv(matrix), axis=0)
    if other:
        step = step - np.round(step)
        farthest = np.linalg.norm(step @ matrix)
    else:
        farthest = np.linalg.norm(matrix, axis=1).min()
    reach = farthest / spacings + 1e-6
    box = [np.arange(np.ceil(-x - n), np.floor(-x + n) + 1) for x, n in zip(step, reach, strict=True)]
    images = np.stack(np.meshgrid(*box, indexing="ij"), axis=-1).reshape(-1, 3)
    if not other:
        images = images[np.any(images != 0, axis=1)]
    return float(np.linalg.norm((step + images) @ matrix, axis=1).min())


@functools.cache
def _crystals() -> list[Crystal]:
    """Return crystals of three sites in random cells with angles of 15 to 165 degrees, a third of them close pairs."""
    rng = np.random.default_rng(0)
    found: list[Crystal] = []
    while len(found) < _CELLS:
        lengths, angles = rng.uniform(2, 9, 3), rng.uniform(15, 165, 3)
        cosines = np.cos(np.radians(angles))
        if 1 - (cosines**2).sum() + 2 * cosines.prod() < 0.02**2:
            continue  # no cell, or one so flat that the wide search is too wide
        crystal = Crystal(lengths, angles, 1, [6, 7, 8], rng.random((_SITES, 3)))
        if len(found) % 3 == 0:
            # Near over the border of the cell, often far along a cell vector: a short vector of the lattice's own.
            away = rng.normal(size=3)
            away *= rng.uniform(0.02, 1) / np.linalg.norm(away)
            places = crystal.coordinates.copy()
            places[1] = places[0] + away @ np.linalg.inv(crystal.vectors)
            crystal = Crystal(lengths, angles, 1, [6, 7, 8], places)
        found.append(crystal)
    return found


@functools.cache
def _expected() -> np.ndarray:
    """Return the distances of the three pairs of each crystal: (cells, 3), angstrom."""
    return np.array(
        [[_wide_search(c.vectors, c.coordinates[i] - c.coordinates[j]) for i, j in _PAIRS] for c in _crystals()]
    )


@functools.cache
def _translations() -> np.ndarray:
    """Return the length of the shortest translation of each crystal: (cells,), angstrom."""
    return np.array([_wide_search(c.vectors, np.zeros(3), other=False) for c in _crystals()])


def _of_pairs(matrices: np.ndarray) -> np.ndarray:
    return np.stack([matrices[..., i, j] for i, j in _PAIRS], axis=-1)


def test_the_cells_are_such_that_27_images_of_the_cell_itself_are_not_enough() -> None:
    steps = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3), axis=-1).reshape(-1, 3)
    near = []
    for crystal in _crystals():
        ways = [crystal.coordinates[i] - crystal.coordinates[j] for i, j in _PAIRS]
        near.append([np.linalg.norm((w - np.round(w) + steps) @ crystal.vectors, axis=1).min() for w in ways])
    assert (np.array(near) > _expected() + 1e-6).any(axis=1).sum() > 100


def test_pair_distances_agree_with_the_wide_search() -> None:
    found = np.array([pair_distances(c.vectors, c.coordinates) for c in _crystals()])
    np.testing.assert_allclose(_of_pairs(found), _expected(), atol=1e-9)
    np.testing.assert_array_equal(found, found.swapaxes(1, 2))


def test_a_site_is_as_far_from_itself_as_the_shortest_translation() -> None:
    found = np.array([pair_distances(c.vectors, c.coordinates) for c in _crystals()])
    np.testing.assert_allclose(np.diagonal(found, axis1=1, axis2=2), _translations()[:, None] * np.ones(3), atol=1e-9)


def test_blocks_of_rows_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [pair_distances(c.vectors, c.coordinates) for c in _crystals()[:300]]
    monkeypatch.setattr(distances, "_PAIRS_AT_ONCE", 2 * _SITES)
    for crystal, expected in zip(_crystals()[:300], whole, strict=True):
        np.testing.assert_allclose(pair_distances(crystal.vectors, crystal.coordinates), expected, atol=1e-9)
        steps = crystal.coordinates[:, None] - crystal.coordinates
        np.testing.assert_allclose(_of_pairs(shortest_lengths(crystal.vectors, steps)), _of_pairs(expected), atol=1e-9)


def test_nearest_distances_count_other_sites_and_own_images() -> None:
    expected = np.minimum(_expected()[:, [0, 0, 1]], _expected()[:, [1, 2, 2]])
    expected = np.minimum(expected, _translations()[:, None])
    found = [nearest_distances(c.vectors, c.coordinates) for c in _crystals()]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_nearest_pair_is_the_nearest_of_all_pairs() -> None:
    for crystal, expected in zip(_crystals(), _expected(), strict=True):
        distance, *pair = nearest_pair(crystal.vectors, crystal.coordinates)
        assert distance == pytest.approx(expected.min(), abs=1e-9)
        assert tuple(sorted(pair)) == _PAIRS[expected.argmin()]


@pytest.mark.parametrize("within", [0.05, 0.5, 3.0])
def test_distances_below_a_bound_are_right_and_no_other_falls_below_it(within: float) -> None:
    assert (_expected() < within).sum() > 0
    for crystal, expected in zip(_crystals(), _expected(), strict=True):
        steps = np.array([crystal.coordinates[i] - crystal.coordinates[j] for i, j in _PAIRS])
        found = shortest_lengths(crystal.vectors, steps, within)
        near = expected < within
        np.testing.assert_allclose(found[near], expected[near], atol=1e-9)
        assert (found[~near] >= within - 1e-9).all()
        distance = nearest_pair(crystal.vectors, crystal.coordinates, within)[0]
        assert distance == pytest.approx(expected.min(), abs=1e-9) if near.any() else distance >= within - 1e-9


def test_nearest_steps_lead_to_the_nearest_image_if_they_are_short() -> None:
    short = 0
    for crystal, expected, translation in zip(_crystals(), _expected(), _translations(), strict=True):
        steps = np.array([crystal.coordinates[i] - crystal.coordinates[j] for i, j in _PAIRS])
        within = min(0.3, 0.35 * translation)
        found = nearest_steps(crystal.vectors, steps, within)
        whole = steps - found
        np.testing.assert_allclose(whole, np.round(whole), atol=1e-9)
        near = expected < within
        short += near.sum()
        np.testing.assert_allclose(np.linalg.norm(found[near] @ crystal.vectors, axis=1), expected[near], atol=1e-9)
    assert short > 100


@pytest.mark.parametrize(("kind", "atol"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_distances_of_a_batch_agree_with_the_wide_search(kind: torch.dtype, atol: float) -> None:
    batch = CrystalBatch(
        lengths=torch.tensor(np.array([c.lengths for c in _crystals()]), dtype=kind),
        angles=torch.tensor(np.array([c.angles for c in _crystals()]), dtype=kind),
        space_groups=torch.ones(_CELLS, dtype=torch.uint8),
        counts=torch.full((_CELLS,), _SITES, dtype=torch.uint8),
        numbers=torch.ones(_CELLS, _SITES, dtype=torch.uint8),
        coordinates=torch.tensor(np.array([c.coordinates for c in _crystals()]), dtype=kind),
    )
    found = shortest_pair_distances(batch)
    assert found.dtype == kind
    np.testing.assert_allclose(_of_pairs(found.numpy()), _expected(), atol=atol)
    assert torch.equal(found.diagonal(dim1=1, dim2=2), torch.zeros(_CELLS, _SITES, dtype=kind))
    torch.testing.assert_close(encoded_distances(batch, "cartesian"), found)


def test_a_batch_reduces_the_flattest_cells_that_are_accepted() -> None:
    rng = np.random.default_rng(1)
    shears = np.tile(np.eye(3), (500, 1, 1))
    for _ in range(6):
        for shear in shears:
            row, other = rng.choice(3, 2, replace=False)
            shear[row] += rng.integers(-6, 7) * shear[other]
    cubic = 4 * shears
    defects = np.linalg.norm(cubic, axis=2).prod(axis=1) / 64
    flat = cubic[(defects < 1e4) & (defects > 1e2)]
    assert len(flat) > 50
    basis, change = reduced(torch.tensor(flat))
    # The lattice is cubic: so is its reduced cell.
    np.testing.assert_allclose(basis @ basis.mT, np.tile(16 * np.eye(3), (len(flat), 1, 1)), atol=1e-6)
    places = torch.tensor(rng.random((len(flat), 1, 3)))
    np.testing.assert_allclose(places @ change @ basis, places @ torch.tensor(flat), atol=1e-6)


def test_decoding_merges_near_sites_in_any_cell() -> None:
    near = 0
    for crystal, expected in zip(_crystals(), _expected(), strict=True):
        if abs(expected[0] - 0.5) > 1e-6 and expected[1:].min() > 0.5:
            merged = merge_sites(crystal, 0.5, unlike=True)
            assert len(merged) == (2 if expected[0] < 0.5 else 3)
            near += len(merged) == 2
    assert near > 100


def test_validity_measures_right_in_any_cell() -> None:
    found = [shortest_distance(crystal) for crystal in _crystals()]
    np.testing.assert_allclose(found, _expected().min(axis=1), atol=1e-9)


def test_files_with_near_atoms_are_refused_in_any_cell() -> None:
    limits = Limits(min_distance=0.7)
    refused = 0
    for crystal, expected, own in zip(_crystals()[:600], _expected(), _translations(), strict=False):
        nearest = min(expected.min(), own)
        try:
            limits.crystal(crystal.lengths, crystal.angles, crystal.numbers, crystal.coordinates)
        except Unusable as error:
            said = str(error)
            if "two atoms" in said:
                refused += 1
                assert nearest < 0.7
                assert f"are {expected.min() if own >= 0.7 else own:.3f} angstrom apart" in said
                continue
        assert nearest >= 0.7
    assert refused > 70


def test_the_census_finds_the_shortest_contacts_in_any_cell() -> None:
    crystals = _crystals()
    census = Census(
        name="cells",
        lengths=np.array([c.lengths for c in crystals]),
        angles=np.array([c.angles for c in crystals]),
        space_groups=np.ones(_CELLS),
        counts=np.full(_CELLS, _SITES),
        numbers=np.concatenate([c.numbers for c in crystals]),
        coordinates=np.concatenate([c.coordinates for c in crystals]),
        files=[""] * _CELLS,
        entries=[""] * _CELLS,
        splits=[None] * _CELLS,
    )
    expected = _expected().min(axis=1)
    np.testing.assert_allclose(census.shortest_contacts, np.where(expected < 1, expected, np.inf), atol=1e-9)
