"""Wyckoff templates: one for each structure type, whatever its cell, origin, axes and elements."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.metrics.symmetries import LOOSE_SYMPREC, symmetry_of, template_of, templates
from crystens.metrics.validity import shortest_distance
from crystens.samples.references import read_real
from crystens.symmetry.descriptions import describe
from crystens.symmetry.normaliser import relettered
from crystens.symmetry.space_groups import occupied_positions
from crystens.symmetry.templates import wyckoff_template
from crystens.symmetry.wyckoff import space_group


def perovskite(large: int, small: int, anion: int, centre: bool = False) -> Crystal:
    """ABX3 with the large cation on a corner of the cell, or with the small one there."""
    shift = np.full(3, 0.5 * centre)
    places = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    return Crystal([3.9] * 3, [90] * 3, 221, [large, small] + [anion] * 3, places + shift)


def test_template_is_the_group_the_letters_and_the_number_of_elements(nacl: Crystal, copper_primitive: Crystal) -> None:
    assert template_of(nacl).template == "225 ab of 2 elements"
    assert template_of(copper_primitive).template == "225 a of 1 element"
    assert template_of(replace(nacl, numbers=np.repeat([12, 8], 4))).template == "225 ab of 2 elements"


def test_letters_that_repeat_are_counted_and_stand_in_the_order_of_the_tables() -> None:
    assert wyckoff_template(62, "dcdccc", 3) == "62 c4d2 of 3 elements"
    assert wyckoff_template(47, "Aza", 2) == "47 avA of 2 elements"


def test_other_origins_and_cells_of_one_crystal_have_its_template(nacl: Crystal) -> None:
    shifted = replace(nacl, coordinates=nacl.coordinates + np.array([0.25, 0.5, 0.1]))
    double = Crystal(
        nacl.lengths * [2, 1, 1],
        nacl.angles,
        1,
        np.tile(nacl.numbers, 2),
        np.concatenate([nacl.coordinates / [2, 1, 1], nacl.coordinates / [2, 1, 1] + [0.5, 0, 0]]),
    )
    primitive = Crystal([5.64 / 2**0.5] * 3, [60] * 3, 225, [11, 17], np.array([[0, 0, 0], [0.5, 0.5, 0.5]]))
    assert {template_of(one).template for one in (nacl, shifted, double, primitive)} == {"225 ab of 2 elements"}


def test_structure_types_have_one_template_whichever_atom_stands_at_the_origin() -> None:
    found = [template_of(perovskite(38, 22, 8, centre)).template for centre in (False, True)]
    assert found == [template_of(perovskite(19, 26, 9)).template] * 2 == ["221 abc of 3 elements"] * 2


def test_a_motion_of_the_normaliser_changes_no_template() -> None:
    generator = np.random.default_rng(0)
    for number in (2, 5, 14, 47, 62, 71, 96, 139, 167, 194, 216, 225):
        group = space_group(number)
        ways = relettered(number)
        assert group.letters in ways
        for _ in range(20):
            letters = generator.choice(list(group.letters), size=generator.integers(1, 9))
            way = dict(zip(group.letters, ways[generator.integers(len(ways))], strict=True))
            moved = [way[letter] for letter in letters]
            assert wyckoff_template(number, moved, 2) == wyckoff_template(number, letters, 2)


def test_a_letter_that_a_group_does_not_have_is_an_error() -> None:
    with pytest.raises(CrystensError, match="space group 1 has no Wyckoff position 'b'"):
        wyckoff_template(1, "ab", 1)


def test_the_positions_found_are_those_of_the_orbits(
    nacl: Crystal, triclinic: Crystal, sites_52: Crystal, quartz: Crystal
) -> None:
    for crystal in (nacl, triclinic, sites_52, quartz, perovskite(38, 22, 8)):
        number, letters, numbers = occupied_positions(
            crystal.lengths, crystal.angles, crystal.numbers, crystal.coordinates
        )
        orbits = describe(crystal)
        kinds = len(set(orbits.numbers.tolist()))
        assert number == orbits.space_group
        assert sorted(numbers.tolist()) == sorted(orbits.numbers.tolist())
        assert wyckoff_template(number, letters, kinds) == wyckoff_template(number, orbits.letters, kinds)


def test_a_crystal_a_little_off_has_its_group_at_the_loose_tolerance_alone(nacl: Crystal) -> None:
    moved = nacl.coordinates.copy()
    moved[0, 0] += 0.05 / 5.64
    off = replace(nacl, coordinates=moved)
    found = symmetry_of(off, shortest_distance(off))
    assert (found.space_group, found.loose_space_group) == (99, 225)
    assert found.template is not None
    assert found.template.startswith("99 ")


def test_the_loose_tolerance_is_a_tenth_of_the_shortest_distance() -> None:
    # Two atoms 0.6 angstrom apart, and 0.08 off the axis: within 0.1, not within 0.06.
    near = Crystal([4] * 3, [90] * 3, 1, [6, 8], np.array([[0, 0, 0], [0.02, 0, 0.15]]))
    assert symmetry_of(near, 10 * LOOSE_SYMPREC).loose_space_group != symmetry_of(near, 0.6).loose_space_group
    assert symmetry_of(near, 0.6).loose_space_group == symmetry_of(near, 0.6).space_group


def test_atoms_on_one_place_have_no_template_and_a_reason() -> None:
    double = Crystal([4, 4, 4], [90] * 3, 1, [17, 17], np.full((2, 3), 0.5))
    assert symmetry_of(double, 0.0) == symmetry_of(double, 0.0).__class__(None, None, None)
    assert template_of(double).template is None
    assert template_of(double).reason


def test_templates_are_looked_for_once(nacl: Crystal, triclinic: Crystal, monkeypatch: pytest.MonkeyPatch) -> None:
    double = Crystal([4, 4, 4], [90] * 3, 1, [17, 17], np.full((2, 3), 0.5))
    first = templates([nacl, triclinic, double])
    assert first == ["225 ab of 2 elements", "2 i5 of 2 elements", None]
    monkeypatch.setattr("crystens.metrics.symmetries.template_of", None)
    done: list[int] = []
    assert templates([triclinic, nacl, double, nacl], done.append) == [first[1], first[0], None, first[0]]
    assert done == [4]


@pytest.mark.slow
def test_8_percent_of_the_templates_of_real_test_crystals_are_new(shared_data: Path) -> None:
    found = {}
    for split in ("train", "test"):
        crystals = read_real("mp_52", str(shared_data / "mp_52"), split)[0]
        found[split] = templates([crystal for crystal in crystals if len(crystal) <= 20])
    assert [len(found[split]) for split in ("train", "test")] == [12855, 7342]
    known = set(found["train"])
    assert np.mean([one not in known for one in found["test"]]) == pytest.approx(0.082, abs=5e-4)
