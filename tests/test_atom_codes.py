"""Codes of elements: one for each, told apart under noise, and read back from images."""

import numpy as np
import pytest
import torch
from pymatgen.core import Element

from crystens.batch import CrystalBatch
from crystens.crystal import MAX_ATOMIC_NUMBER, Crystal
from crystens.decoding import Decoder, read_images
from crystens.element_codes import COPIES, atom_codes, nearest_elements
from crystens.encoding import HEADER
from crystens.errors import CrystensError
from crystens.scaling import Scaling

CODED = ("bits", "period_group")


@pytest.fixture
def batch(nacl: Crystal, copper_primitive: Crystal, triclinic: Crystal, sites_52: Crystal) -> CrystalBatch:
    heavy = Crystal([4.0, 4.1, 4.2], [60, 70, 80], 1, [1, 118], np.array([[0, 0, 0], [0.5, 0.4, 0.3]]))
    return CrystalBatch.from_crystals([nacl, copper_primitive, triclinic, sites_52, heavy], 52)


def codes_of(atoms: str) -> torch.Tensor:
    codes = atom_codes(atoms)
    assert codes is not None
    return codes[1:]


@pytest.mark.parametrize("atoms", CODED)
def test_no_two_elements_have_one_code_and_all_lie_in_0_to_1(atoms: str) -> None:
    codes = codes_of(atoms)
    assert codes.shape == (MAX_ATOMIC_NUMBER, COPIES)
    assert (codes.min(), codes.max()) == (0, 1)
    assert len(torch.unique(codes, dim=0)) == MAX_ATOMIC_NUMBER


def test_bits_of_any_two_elements_differ_in_two_cells_at_least() -> None:
    codes = codes_of("bits")
    apart = torch.cdist(codes, codes, p=1) + 2 * torch.eye(len(codes))
    assert apart.min() == 2


def test_bits_are_those_of_the_atomic_number() -> None:
    digits = codes_of("bits")[:, :7].long()
    assert (digits * 2 ** torch.arange(7)).sum(dim=1).tolist() == list(range(1, MAX_ATOMIC_NUMBER + 1))


def test_period_and_column_are_those_of_the_periodic_table() -> None:
    codes = codes_of("period_group")
    elements = [Element.from_Z(number) for number in range(1, MAX_ATOMIC_NUMBER + 1)]
    periods = (codes[:, 0] * 6 + 1).round()
    assert periods.tolist() == [element.row for element in elements]
    columns = (codes[:, 1] * 31).round().long().tolist()
    outside = [place for place, e in enumerate(elements) if not (e.is_lanthanoid or e.is_actinoid)]
    # The 32 columns are the 18 groups, with 14 columns of f elements after the second.
    groups = [group if group < 3 else group + 14 for group in (elements[place].group for place in outside)]
    assert [columns[place] + 1 for place in outside if elements[place].symbol not in ("Lu", "Lr")] == [
        group for place, group in zip(outside, groups, strict=True) if elements[place].symbol not in ("Lu", "Lr")
    ]


@pytest.mark.parametrize("atoms", CODED)
def test_each_element_is_read_back_from_its_code_moved_by_less_than_half_the_way_to_another(atoms: str) -> None:
    codes = codes_of(atoms)
    apart = torch.cdist(codes, codes) + torch.eye(len(codes)) * 9
    noise = torch.nn.functional.normalize(torch.randn(len(codes), COPIES, generator=torch.Generator().manual_seed(0)))
    moved = codes + 0.49 * apart.min() * noise
    full = atom_codes(atoms)
    assert full is not None
    assert nearest_elements(moved.T[None], full)[0].tolist() == list(range(1, MAX_ATOMIC_NUMBER + 1))


@pytest.mark.parametrize("atoms", ["number", *CODED])
def test_crystals_come_back_from_images_with_each_encoding(batch: CrystalBatch, atoms: str) -> None:
    scaling = Scaling.from_dict(Scaling.fit(batch, atoms=atoms).to_dict())
    images = scaling.encode(batch)
    assert torch.equal(read_images(images, scaling, True).numbers.round().long(), batch.numbers.long())
    decoded = Decoder(symmetrise=False).decode(images, scaling)
    for index, item in enumerate(decoded):
        assert item.crystal is not None
        assert item.crystal.numbers.tolist() == batch.crystal(index).numbers.tolist()


@pytest.mark.parametrize("atoms", CODED)
def test_codes_stand_in_row_and_column_0_alone(batch: CrystalBatch, atoms: str) -> None:
    coded, plain = (Scaling.fit(batch, atoms=kind).encode(batch) for kind in (atoms, "number"))
    assert not torch.equal(coded[:, :, 0], plain[:, :, 0])
    assert torch.equal(coded[:, :, 1:, 1:], plain[:, :, 1:, 1:])
    assert (coded[:, :, 0, HEADER:][batch.site_mask[:, None].expand(-1, 4, -1)] >= 0.1 - 1e-6).all()
    assert (coded[:, :, HEADER:, 0][~batch.site_mask[:, None].expand(-1, 4, -1)] == 0).all()


def test_an_unknown_encoding_of_atoms_is_refused(batch: CrystalBatch) -> None:
    with pytest.raises(CrystensError, match="number, bits, period_group"):
        Scaling.fit(batch, atoms="letters")


def test_the_papers_scaling_refuses_codes(batch: CrystalBatch) -> None:
    with pytest.raises(CrystensError, match="scaling=fitted"):
        Scaling.paper(batch, atoms="bits")
