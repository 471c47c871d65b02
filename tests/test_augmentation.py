"""Another description of a crystal is the same crystal."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure
from scipy.stats import chisquare, kstest

from crystens.batch import CrystalBatch
from crystens.crystal import Crystal
from crystens.data.augmentation import Augmentation
from crystens.datasets.mp_3dsc import Mp3dsc
from crystens.decoding import Decoder
from crystens.encoding import pair_distances
from crystens.errors import CrystensError
from crystens.scaling import Scaling
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Record
from crystens.symmetry.space_groups import space_group_number

ALONE = [Augmentation(origin_shift=True), Augmentation(permute_like_sites=True), Augmentation(relabel_axes=True)]
ALL = Augmentation(origin_shift=True, permute_like_sites=True, relabel_axes=True)
EVERY = [*ALONE, Augmentation(origin_shift=True, relabel_axes=True), ALL]
MOVING = [augmentation for augmentation in EVERY if augmentation.origin_shift or augmentation.relabel_axes]


def _name(augmentation: Augmentation) -> str:
    return "+".join(f.name for f in fields(augmentation) if getattr(augmentation, f.name))


every = pytest.mark.parametrize("augmentation", EVERY, ids=_name)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _batch(crystals: list[Crystal], max_sites: int = 52) -> CrystalBatch:
    return CrystalBatch.from_crystals(crystals, max_sites).in_canonical_order()


def _group(crystal: Crystal) -> int:
    return space_group_number(crystal.lengths, crystal.angles, crystal.numbers, crystal.coordinates)


def _same(first: Crystal, second: Crystal) -> bool:
    """Whether two crystals match as they stand, without scaling and in the cells given."""
    matcher = StructureMatcher(ltol=1e-3, stol=1e-2, angle_tol=0.1, primitive_cell=False, scale=False)
    return matcher.fit(first.to_structure(), second.to_structure())


@pytest.fixture
def quartz() -> Crystal:
    """Alpha-quartz, the hand of space group P3_1 2 1 (152); its mirror image has 154."""
    lattice = Lattice.hexagonal(4.9137, 5.4047)
    places = [[0.4697, 0, 1 / 3], [0.4135, 0.2669, 0.7858]]
    return Crystal.from_structure(Structure.from_spacegroup("P3_121", lattice, ["Si", "O"], places), 152)


@pytest.fixture
def handed() -> Crystal:
    """Five different elements at general places of a triclinic cell: each site is known by its element."""
    places = np.random.default_rng(3).uniform(0, 1, (5, 3))
    return Crystal([5.1, 6.3, 8.2], [82.0, 97.0, 74.0], 1, [6, 7, 8, 15, 16], places)


@pytest.fixture
def fixtures(nacl, copper_primitive, single_atom, triclinic, sites_52, quartz, handed) -> list[Crystal]:
    return [nacl, copper_primitive, single_atom, triclinic, sites_52, quartz, handed]


@functools.cache
def _real(folder: Path) -> list[Crystal]:
    """Return 24 crystals of mp_3dsc with at most 20 sites, of many space groups, the lowest first."""
    source, found = Mp3dsc(folder), {}
    for record in itertools.islice(source.records(), 700):
        assert isinstance(record, Record)
        for item in source.parsed(record, Limits(max_sites=20)):
            if isinstance(item, Entry):
                found.setdefault(item.crystal.space_group, item.crystal)
    assert min(found) <= 2
    return [found[group] for group in sorted(found)][:24]


@pytest.fixture
def real(shared_data) -> list[Crystal]:
    return _real(shared_data / "mp_3dsc")


# The crystal stays the same


def _assert_same_crystals(crystals: list[Crystal], augmentation: Augmentation) -> None:
    before = _batch(crystals)
    after = augmentation(before, _generator(5))
    for index, crystal in enumerate(crystals):
        again = after.crystal(index)
        assert _same(crystal, again), crystal.formula
        assert again.space_group == crystal.space_group
        assert _group(again) == _group(before.crystal(index)), crystal.formula
        assert again.formula == crystal.formula
        assert len(again) == len(crystal)
        assert again.lattice.volume == pytest.approx(crystal.lattice.volume, rel=1e-5)


@every
def test_crystals_match_and_keep_their_space_group(fixtures, augmentation):
    _assert_same_crystals(fixtures, augmentation)


@every
def test_real_crystals_match_and_keep_their_space_group(real, augmentation):
    _assert_same_crystals(real, augmentation)


@every
def test_quartz_keeps_its_hand(quartz, augmentation):
    assert _group(quartz) == 152
    after = augmentation(_batch([quartz] * 24), _generator(1))
    assert {_group(after.crystal(index)) for index in range(24)} == {152}


def test_quartz_with_an_odd_order_of_axes_and_no_reversal_would_be_its_mirror_image(quartz):
    # Shows that the test above can fail.
    swapped = [1, 0, 2]
    assert _group(Crystal(quartz.lengths, quartz.angles, 152, quartz.numbers, quartz.coordinates[:, swapped])) == 154


@every
def test_signed_volumes_between_atoms_stay(handed, augmentation):
    # Invariant under proper motions only: in a mirror image each changes its sign. Sites are known by their elements,
    # and the vectors of an atom to the nearest images of three others do not depend on the description.
    def volume(crystal: Crystal) -> float:
        place = dict(zip(crystal.numbers.tolist(), crystal.coordinates, strict=True))
        matrix = crystal.lattice.matrix
        vectors = []
        for number in (7, 8, 15):
            steps = np.array([place[number] - place[6] + shift for shift in itertools.product((-1, 0, 1), repeat=3)])
            vectors.append(min(steps @ matrix, key=np.linalg.norm))
        return float(np.linalg.det(vectors))

    after = augmentation(_batch([handed] * 30), _generator(2))
    assert abs(volume(handed)) > 1
    for index in range(30):
        assert volume(after.crystal(index)) == pytest.approx(volume(handed), rel=1e-4)


@every
def test_distances_over_periodic_images_stay(fixtures, augmentation):
    before = _batch(fixtures)
    after = augmentation(before, _generator(4))
    for index, crystal in enumerate(fixtures):
        pairs = [
            np.sort(pair_distances(batch[[index]], "cartesian")[0, : len(crystal), : len(crystal)].numpy(), axis=None)
            for batch in (before, after)
        ]
        np.testing.assert_allclose(pairs[0], pairs[1], atol=2e-4)


@every
def test_numbers_counts_and_empty_slots_stay(fixtures, augmentation):
    before = _batch(fixtures)
    after = augmentation(before, _generator(6))
    assert torch.equal(after.numbers, before.numbers)  # elements stay ascending
    assert torch.equal(after.counts, before.counts)
    assert torch.equal(after.space_groups, before.space_groups)
    assert (after.coordinates[~after.site_mask] == 0).all()
    assert after.coordinates.min() >= 0
    assert after.coordinates.max() < 1
    for name, tensor in before.tensors().items():
        assert getattr(after, name).dtype == tensor.dtype
        assert getattr(after, name).shape == tensor.shape
    properties = torch.rand(len(before), 2)
    assert torch.equal(augmentation(replace(before, properties=properties), _generator(6)).properties, properties)


@every
def test_the_given_batch_is_not_changed(fixtures, augmentation):
    batch, untouched = _batch(fixtures), _batch(fixtures)
    augmentation(batch, _generator())
    for name, tensor in untouched.tensors().items():
        assert torch.equal(getattr(batch, name), tensor)


@pytest.mark.parametrize("augmentation", [a for a in MOVING if not a.permute_like_sites], ids=_name)
def test_sites_stand_in_canonical_order_again(fixtures, augmentation):
    after = augmentation(_batch(fixtures), _generator(7))
    assert torch.equal(after.coordinates, after.in_canonical_order().coordinates)


def test_nothing_drawn_gives_back_the_batch_itself(nacl):
    batch = _batch([nacl])
    state = torch.get_rng_state()
    assert Augmentation()(batch) is batch
    assert torch.equal(torch.get_rng_state(), state)


@every
def test_image_of_an_augmented_crystal_decodes_to_it(fixtures, augmentation):
    before = _batch(fixtures)
    fitted = Scaling.fit(before)
    scaling = Scaling(augmentation.widened(fitted.ranges), before.max_sites, fitted.gap, fitted.diagonal)
    images = scaling.encode(augmentation(before, _generator(8)))
    assert images.min() >= 0
    assert images.max() <= 1
    for crystal, decoded in zip(fixtures, Decoder().decode(images, scaling), strict=True):
        assert decoded.crystal is not None, decoded.reason
        assert decoded.crystal.space_group == crystal.space_group
        assert _same(crystal, decoded.crystal), crystal.formula


# What is drawn


@every
def test_draws_differ_between_crystals_and_calls_and_repeat_with_a_seed(triclinic, augmentation):
    batch = _batch([triclinic] * 8)
    generator = _generator(9)
    first, second = augmentation(batch, generator), augmentation(batch, generator)
    again = augmentation(batch, _generator(9))
    assert not torch.equal(first.coordinates, second.coordinates)
    assert torch.equal(first.coordinates, again.coordinates)
    assert torch.equal(first.lengths, again.lengths)
    kinds = {tuple(first.coordinates[k].flatten().tolist()) for k in range(8)}
    assert len(kinds) >= 3  # eight draws; there are six orders of the axes
    torch.manual_seed(4)
    by_default = augmentation(batch)
    torch.manual_seed(4)
    assert torch.equal(by_default.coordinates, augmentation(batch).coordinates)


def test_each_order_of_the_axes_is_equally_likely_and_goes_through_cell_and_sites_alike(handed):
    size = 3000
    after = Augmentation(relabel_axes=True)(_batch([handed] * size), _generator(10))
    before = _batch([handed])
    seen = Counter()
    for lengths, angles, numbers, places in zip(
        after.lengths, after.angles, after.numbers, after.coordinates, strict=True
    ):
        order = [before.lengths[0].tolist().index(length) for length in lengths.tolist()]
        assert angles.tolist() == before.angles[0, order].tolist()
        expected = before.coordinates[0][:, order]
        if order in ([1, 0, 2], [0, 2, 1], [2, 1, 0]):
            expected = -expected % 1
        filled = numbers > 0
        torch.testing.assert_close(places[filled], expected[: int(filled.sum())])
        seen[tuple(order)] += 1
    assert len(seen) == 6
    assert chisquare(list(seen.values())).pvalue > 0.01


def test_shift_is_one_for_all_sites_and_uniform_on_each_axis(handed):
    before = _batch([handed] * 4000)
    after = Augmentation(origin_shift=True, permute_like_sites=True)(before, _generator(11))  # elements tell the sites
    shifts = (after.coordinates - before.coordinates)[:, :5]
    shifts = shifts - shifts.floor()
    spread = shifts - shifts[:, :1]
    assert (spread - spread.round()).abs().max() < 1e-6
    for axis in range(3):
        assert kstest(shifts[:, 0, axis].numpy(), "uniform").pvalue > 0.01
    correlations = np.corrcoef(shifts[:, 0].numpy().T)[np.triu_indices(3, 1)]
    assert np.abs(correlations).max() < 0.05


def test_each_order_of_three_like_sites_is_equally_likely():
    places = np.array([[0.1, 0.2, 0.3], [0.4, 0.1, 0.6], [0.7, 0.8, 0.2], [0.5, 0.5, 0.5], [0.25, 0.9, 0.75]])
    crystal = Crystal([6, 7, 8], [90, 90, 90], 1, [8, 8, 8, 14, 14], places)
    after = Augmentation(permute_like_sites=True)(_batch([crystal] * 6000, max_sites=9), _generator(12))
    orders = Counter(tuple(np.round(x, 3)) for x in after.coordinates[:, :3, 0].numpy().tolist())
    assert set(orders) == set(itertools.permutations((0.1, 0.4, 0.7)))
    assert chisquare(list(orders.values())).pvalue > 0.01
    joint = Counter(
        (round(o, 3), round(s, 3)) for o, s in zip(*after.coordinates[:, [0, 3], 0].T.tolist(), strict=True)
    )
    assert len(joint) == 6  # the order of one element says nothing about that of another
    assert chisquare(list(joint.values())).pvalue > 0.01


# Numbers at the edge, devices, arguments


def test_coordinates_never_become_one_in_float32():
    edges = torch.tensor([0.0, 1e-45, 1e-38, 1e-9, 2**-25, 2**-24, 0.5, 1 - 2**-24], dtype=torch.float32)
    places = torch.cartesian_prod(edges, edges, edges)[:255]
    batch = CrystalBatch(
        lengths=torch.tensor([[4.0, 5.0, 6.0]]).repeat(64, 1),
        angles=torch.full((64, 3), 90.0),
        space_groups=torch.ones(64, dtype=torch.uint8),
        counts=torch.full((64,), 255, dtype=torch.uint8),
        numbers=torch.full((64, 255), 8, dtype=torch.uint8),
        coordinates=places.repeat(64, 1, 1),
    )
    for augmentation in EVERY:
        after = augmentation(batch, _generator(13)).coordinates
        assert after.min() >= 0
        assert after.max() < 1
        assert not torch.signbit(after).any()


@every
def test_nothing_is_read_back_and_shapes_are_those_of_the_batch(fixtures, augmentation):
    # Tensors of the meta device have no values: whatever would look at one, or have a shape by it, fails there.
    after = augmentation(_batch(fixtures).to("meta"))
    assert after.coordinates.shape == (len(fixtures), 52, 3)
    assert after.numbers.device.type == "meta"


def test_empty_batch_stays_empty(nacl):
    assert len(ALL(_batch([nacl])[[False]])) == 0


def test_truth_value_in_quotes_is_refused():
    with pytest.raises(CrystensError, match=r"augmentation\.origin_shift must be true or false, got 'false'"):
        Augmentation(origin_shift="false")  # type: ignore[arg-type]


@pytest.mark.parametrize("augmentation", MOVING, ids=_name)
@pytest.mark.parametrize("distance", ["fractional", "cartesian"])
def test_widened_ranges_hold_for_many_draws(fixtures, augmentation, distance):
    batch = _batch(fixtures)
    fitted = Scaling.fit(batch, distance)
    scaling = Scaling(augmentation.widened(fitted.ranges, distance), 52, fitted.gap, fitted.diagonal)
    plain_fails = False
    generator = _generator(14)
    for _ in range(6):
        after = augmentation(batch, generator)
        images = scaling.encode(after, distance)
        assert images.min() >= 0
        assert images.max() <= 1 + 1e-5
        plain_fails |= bool(fitted.encode(after, distance).max() > 1.01)
    assert plain_fails or not (augmentation.relabel_axes or distance == "fractional")


def test_widened_ranges_of_unaugmented_crystals_are_the_given_ones(nacl):
    ranges = Scaling.fit(_batch([nacl])).ranges
    assert Augmentation(permute_like_sites=True).widened(ranges) == ranges
    with pytest.raises(CrystensError, match="distance='miles' is not known"):
        ALL.widened(ranges, "miles")
