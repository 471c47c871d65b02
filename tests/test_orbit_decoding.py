"""Images of orbits: what stands where, and decode(encode(crystal)) is the crystal, under noise too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pymatgen.analysis.structure_matcher import StructureMatcher

from crystens.batch import CrystalBatch
from crystens.decoding import count_sites
from crystens.errors import CrystensError
from crystens.orbits.batch import OrbitBatch
from crystens.orbits.codes import group_codes, wyckoff_codes
from crystens.orbits.decoding import OrbitDecoder
from crystens.orbits.scaling import OrbitScaling
from crystens.symmetry.descriptions import describe
from crystens.symmetry.orbit_crystal import OrbitCrystal
from crystens.symmetry.space_groups import space_group_number

NAMES = ("nacl", "copper_primitive", "single_atom", "triclinic", "sites_52", "quartz")
CODES = [
    {"atoms": "bits", "space_groups": "bits", "wyckoff": "letter"},
    {"atoms": "bits", "space_groups": "number", "wyckoff": "multiplicity"},
    {"atoms": "number", "space_groups": "bits", "wyckoff": "letter"},
]


@pytest.fixture
def crystals(request):
    return [request.getfixturevalue(name) for name in NAMES]


@pytest.fixture
def lists(crystals) -> list[OrbitCrystal]:
    return [describe(crystal) for crystal in crystals]


def _assert_same(found: OrbitCrystal, expected: OrbitCrystal, tolerance: float) -> None:
    assert found.space_group == expected.space_group
    assert found.letters == expected.letters
    assert found.numbers.tolist() == expected.numbers.tolist()
    assert np.allclose(found.lengths, expected.lengths, rtol=tolerance)
    steps = found.coordinates - expected.coordinates
    assert np.abs(steps - np.round(steps)).max() < tolerance


def test_a_batch_holds_the_lists_and_slices_keep_the_positions(lists):
    batch = OrbitBatch.from_orbits(lists, 20)
    for index, expected in enumerate(lists):
        _assert_same(batch.orbits(index), expected, 1e-5)
    part = batch[2:5].to("cpu")
    assert isinstance(part, OrbitBatch)
    _assert_same(part.orbits(0), lists[2], 1e-5)
    with pytest.raises(CrystensError, match="has 5 orbits, more than max_orbits=4"):
        OrbitBatch.from_orbits(lists, 4)
    with pytest.raises(CrystensError, match="fixed order"):
        batch.in_canonical_order()


def test_codes_stand_in_row_and_column_10_and_11(lists):
    batch = OrbitBatch.from_orbits(lists, 20)
    scaling = OrbitScaling.fit(batch)
    images = scaling.encode(batch)
    assert images.shape == (6, 4, 32, 32)
    quartz = images[NAMES.index("quartz")]
    group = group_codes()[152]
    oxygen = wyckoff_codes("letter")[152, 2]  # 6c, in slot 0
    assert torch.allclose(quartz[:, 10, 12], 0.1 + 0.9 * group[:4])
    assert torch.allclose(quartz[:, 12, 10], 0.1 + 0.9 * group[4:])
    assert torch.allclose(quartz[:, 11, 12], 0.1 + 0.9 * oxygen[:4])
    assert torch.allclose(quartz[:, 12, 11], 0.1 + 0.9 * oxygen[4:])
    assert (quartz[:, 10:12, 14:] == 0).all()
    assert (quartz[:, :12, :12] == 0).all()
    assert images.min() == 0
    assert images.max() <= 1 + 1e-3  # alpha of all six is 89.99 or 90: float32 is coarse in such a range


def test_rows_of_elements_coordinates_and_cell_are_those_of_the_image_of_sites(lists):
    batch = OrbitBatch.from_orbits(lists, 20)
    plain = CrystalBatch(**{name: getattr(batch, name) for name in CrystalBatch.__dataclass_fields__})
    scaling = OrbitScaling.fit(batch, space_groups="number")
    images, expected = scaling.encode(batch), super(OrbitScaling, scaling).encode(plain)
    images[:, :, 11, :] = images[:, :, :, 11] = 0
    assert torch.equal(images, expected)


@pytest.mark.parametrize("codes", CODES, ids=str)
@pytest.mark.parametrize("cell", ["conventional", "primitive"])
def test_decode_inverts_encode(lists, crystals, codes, cell):
    batch = OrbitBatch.from_orbits(lists, 20)
    scaling = OrbitScaling.fit(batch, **codes)
    for decoded, expected, crystal in zip(
        OrbitDecoder(cell=cell).decode(scaling.encode(batch), scaling), lists, crystals, strict=True
    ):
        _assert_same(decoded.orbits, expected, 1e-4)
        assert decoded.reason == ""
        assert decoded.num_sites == len(expected)
        made = decoded.crystal
        assert space_group_number(made.lengths, made.angles, made.numbers, made.coordinates, 1e-4) == made.space_group
        assert StructureMatcher(scale=False).fit(crystal.to_structure(), made.to_structure())


def test_decode_inverts_encode_with_every_slot_filled(lists):
    batch = OrbitBatch.from_orbits(lists, max(map(len, lists)))
    scaling = OrbitScaling.fit(batch)
    for decoded, expected in zip(OrbitDecoder().decode(scaling.encode(batch), scaling), lists, strict=True):
        _assert_same(decoded.orbits, expected, 1e-4)


@pytest.mark.parametrize("sigma", [0.01, 0.03])
def test_noise_leaves_group_letters_and_elements(lists, sigma):
    batch = OrbitBatch.from_orbits(lists, 20)
    scaling = OrbitScaling.fit(batch)
    images = scaling.encode(batch)
    noisy = images + sigma * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    before = noisy.clone()
    for decoded, expected in zip(OrbitDecoder().decode(noisy, scaling), lists, strict=True):
        _assert_same(decoded.orbits, expected, 5 * sigma)
        made = decoded.crystal
        assert space_group_number(made.lengths, made.angles, made.numbers, made.coordinates, 1e-4) == made.space_group
    assert torch.equal(noisy, before)


def test_orbits_are_counted_where_no_digit_of_the_group_is_set(lists):
    # P1 has one digit of eight: its row holds seven zeros.
    batch = OrbitBatch.from_orbits(
        [
            OrbitCrystal(
                np.array([4.0, 5, 6]), np.full(3, 60.0), 1, np.array([1, 1]), "aa", np.array([[0, 0, 0], [0.3, 0, 0]])
            )
        ],
        5,
    )
    scaling = OrbitScaling.fit(OrbitBatch.from_orbits(lists, 5 if max(map(len, lists)) <= 5 else 20))
    wide = OrbitScaling(scaling.ranges, 5, 0.1, True)
    assert count_sites(wide.encode(batch), wide).tolist() == [2]


def test_an_image_without_orbits_or_with_nan_is_a_failure_with_its_reason(lists):
    batch = OrbitBatch.from_orbits(lists, 20)
    scaling = OrbitScaling.fit(batch)
    images = torch.zeros(2, 4, 32, 32)
    images[1] = scaling.encode(batch)[0]
    images[1, 0, 1, 12] = float("nan")
    empty, broken = OrbitDecoder().decode(images, scaling, counts=torch.tensor([0, 2]))
    assert empty.crystal is None
    assert empty.reason == "the image holds no site"
    assert broken.crystal is None
    assert broken.reason == "the image has values that are not finite"


def test_too_many_sites_are_a_failure_with_its_reason(lists):
    batch = OrbitBatch.from_orbits(lists, 20)
    scaling = OrbitScaling.fit(batch)
    decoder = OrbitDecoder(max_sites=20)
    reasons = [decoded.reason for decoded in decoder.decode(scaling.encode(batch), scaling)]
    assert reasons[NAMES.index("sites_52")] == "26 sites in the primitive cell, more than 20"
    assert [reason for reason in reasons if reason] == ["26 sites in the primitive cell, more than 20"]


@pytest.mark.parametrize("codes", CODES, ids=str)
def test_a_scaling_survives_its_own_dictionary(lists, codes):
    batch = OrbitBatch.from_orbits(lists, 20)
    scaling = OrbitScaling.fit(batch, **codes)
    again = OrbitScaling.from_dict(scaling.to_dict())
    assert torch.equal(again.encode(batch), scaling.encode(batch))


def test_what_cannot_be_encoded_or_decoded_is_an_error(lists, nacl):
    scaling = OrbitScaling.fit(OrbitBatch.from_orbits(lists, 20))
    with pytest.raises(CrystensError, match="need an OrbitBatch, got a CrystalBatch"):
        scaling.encode(CrystalBatch.from_crystals([nacl], 20))
    with pytest.raises(CrystensError, match="exists only for images of all sites"):
        OrbitScaling.paper(OrbitBatch.from_orbits(lists, 20))
    with pytest.raises(CrystensError, match=r"decode\.cell='niggli' is not known; use one of conventional, primitive"):
        OrbitDecoder(cell="niggli")
