"""Limits: the form that crystals are kept in, and what becomes of partial occupancy."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher

from crystens.cif.read import read_cif
from crystens.cif.write import write_cif
from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Reject, Unusable


def _kept(crystal: Crystal, **options: object) -> Crystal:
    return Limits(**options).crystal(crystal.lengths, crystal.angles, crystal.numbers, crystal.coordinates)


@pytest.mark.parametrize("name", ["nacl", "copper_primitive", "triclinic", "sites_52", "single_atom"])
@pytest.mark.parametrize("cell", ["given", "primitive", "niggli", "conventional"])
def test_every_cell_holds_the_same_crystal(name, cell, request):
    crystal = request.getfixturevalue(name)
    kept = _kept(crystal, cell=cell)
    assert StructureMatcher(primitive_cell=True, scale=False).fit(crystal.to_structure(), kept.to_structure())
    density = len(crystal) / crystal.lattice.volume
    assert len(kept) / kept.lattice.volume == pytest.approx(density, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "cell", "sites"),
    [
        ("nacl", "primitive", 2),
        ("nacl", "conventional", 8),
        ("nacl", "niggli", 8),
        ("copper_primitive", "conventional", 4),
        ("sites_52", "primitive", 26),
        ("triclinic", "primitive", 10),
    ],
)
def test_cell_has_its_number_of_sites(name, cell, sites, request):
    assert len(_kept(request.getfixturevalue(name), cell=cell)) == sites


def test_niggli_cell_is_reduced_and_keeps_the_handedness(quartz):
    rng = np.random.default_rng(0)
    places = rng.random((3, 3))
    skewed = Crystal([4.0, 5.0, 11.0], [90, 66.0, 60.0], 1, [6, 7, 8], places)
    kept = _kept(skewed, cell="niggli")
    assert kept.lattice.volume == pytest.approx(skewed.lattice.volume)
    assert sorted(kept.lengths) == pytest.approx(sorted(skewed.lattice.get_niggli_reduced_lattice().abc), abs=1e-4)

    assert (quartz.space_group, _kept(quartz, cell="niggli").space_group) == (152, 152)


def test_shift_moves_the_faces_of_the_cell_and_not_the_crystal(nacl):
    near_faces = Crystal(nacl.lengths, nacl.angles, nacl.space_group, nacl.numbers, nacl.coordinates - 1e-6)
    assert (near_faces.coordinates > 0.99).any()
    shifted = _kept(near_faces, shift=0.125)
    assert set(shifted.coordinates.round(4).flat) == {0.125, 0.625}
    assert shifted.space_group == 225
    assert StructureMatcher(primitive_cell=False).fit(nacl.to_structure(), shifted.to_structure())
    # The canonical order is that of the places that are kept.
    turned = _kept(nacl, shift=0.75)  # 0 becomes 0.75, and 1/2 becomes 1/4
    assert np.array_equal(turned.in_canonical_order().coordinates, turned.coordinates)
    given = _kept(nacl, shift=0.75, site_order="given")
    np.testing.assert_allclose(given.coordinates, (nacl.coordinates + 0.75) % 1)


def test_max_sites_is_of_the_cell_that_is_kept(sites_52):
    assert len(_kept(sites_52, cell="primitive", max_sites=26)) == 26
    with pytest.raises(Unusable, match="more than 26 atoms in the cell: 52"):
        _kept(sites_52, max_sites=26)
    with pytest.raises(Unusable, match="more than 25 atoms in the cell: 26"):
        _kept(sites_52, cell="primitive", max_sites=25)


def test_huge_cell_is_not_reduced_for_ever():
    with pytest.raises(Unusable, match="more than 5000 atoms"):
        Limits(cell="primitive").check_read_count(5001)


def test_crystal_keeps_its_orbits_on_demand(nacl):
    kept = _kept(nacl, sites="orbits", max_sites=2, max_orbits=2)
    assert (len(kept), kept.space_group) == (2, 225)  # the primitive cell
    assert kept.orbits.letters == "ab"
    with pytest.raises(Unusable, match="more than 1 orbits: 2"):
        _kept(nacl, sites="orbits", max_orbits=1)


def test_bounds_on_the_cell_are_of_the_one_that_an_image_states(nacl):
    primitive = _kept(nacl, cell="primitive", cell_ranges={"a": [3.9, 4.1], "alpha": [59.9995, 60]})
    assert len(primitive) == 2
    assert len(_kept(primitive, sites="orbits", cell_ranges={"a": [5.5, 5.7], "alpha": [90, 90]})) == 2
    with pytest.raises(Unusable, match=r"cell out of range: a 3\.98\d* is not from 5.5 to 5.7"):
        _kept(primitive, cell_ranges={"a": [5.5, 5.7]})
    with pytest.raises(Unusable, match=r"cell out of range: gamma 90 is not from 60 to 70"):
        _kept(primitive, sites="orbits", cell_ranges={"gamma": [60, 70]})
    with pytest.raises(CrystensError, match=r"data.limits.cell_ranges.d=\[1, 2\] must be one of a, b, c"):
        Limits(cell_ranges={"d": [1, 2]})


@pytest.mark.parametrize("option", [{"cell": "niggli"}, {"shift": 0.25}, {"site_order": "given"}])
def test_form_that_a_space_group_decides_is_not_asked_of_orbits(option):
    with pytest.raises(CrystensError, match="sites=orbits needs"):
        Limits(sites="orbits", **option)


def test_bound_on_orbits_without_orbits_is_an_error():
    with pytest.raises(CrystensError, match="max_orbits=5 needs sites=orbits"):
        Limits(max_orbits=5)


@pytest.mark.parametrize("option", [{"cell": "unit"}, {"occupancy": "guess"}])
def test_unknown_option_is_an_error(option):
    with pytest.raises(CrystensError, match="is not known; use"):
        Limits(**option)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_sites", 0),
        ("max_sites", -1),
        ("min_distance", -1),
        ("min_distance", float("nan")),
        ("max_length", float("nan")),
        ("max_volume_per_site", 0),
        ("merge_distance", float("nan")),
        ("symprec", 0),
        ("symprec", "fine"),
        ("shift", 1),
        ("shift", -0.25),
        ("shift", float("nan")),
    ],
)
def test_bound_that_makes_no_sense_is_an_error_that_names_it(name, value):
    with pytest.raises(CrystensError, match=rf"data\.limits\.{name} must be a number .*, got {value}"):
        Limits(**{name: value})


# Occupancy


def _disordered(rows: list[tuple[str, float, float]], nacl: Crystal, **options: object) -> Entry | Reject:
    """Read rock salt in which the chlorine at x = 0.5 is replaced by rows (symbol, x, occupancy)."""
    lines = write_cif(nacl).splitlines()
    place = next(k for k, line in enumerate(lines) if line.startswith("Cl1 "))
    lines[place : place + 1] = [f"{s}9 {s} {x} 0.5 0.5 {occupancy}" for s, x, occupancy in rows]
    return read_cif("\n".join(lines), "f", Limits(**options))[0]


@pytest.mark.parametrize(
    ("rows", "formula"),
    [
        ([("Cl", 0.5, 0.7), ("Br", 0.5, 0.3)], "NaCl"),
        ([("Cl", 0.5, 0.3), ("Br", 0.5, 0.7)], "Na4BrCl3"),
        ([("Br", 0.5, 0.5), ("Cl", 0.5, 0.5)], "NaCl"),
        ([("Br", 0.5, 0.4), ("Cl", 0.5, 0.2), ("Br", 0.5, 0.2)], "Na4BrCl3"),
        ([("Cl", 0.5, 0.3)], "Na4Cl3"),
        ([("Cl", 0.5, 0.5)], "NaCl"),
        ([("Cl", 0.5, 0.0)], "Na4Cl3"),
    ],
    ids=["lighter", "heavier", "tie", "sum", "vacancy", "tie_with_vacancy", "empty"],
)
def test_majority_keeps_the_element_that_holds_most_of_a_site(rows, formula, nacl):
    item = _disordered(rows, nacl, occupancy="majority")
    assert isinstance(item, Entry)
    assert item.crystal.formula == formula


def test_default_rejects_a_disordered_site_and_names_the_option(nacl):
    item = _disordered([("Cl", 0.5, 0.7), ("Br", 0.5, 0.3)], nacl)
    assert isinstance(item, Reject)
    assert item.category == "partial occupancy (disordered structure)"
    assert "data.limits.occupancy=majority" in item.advice


@pytest.mark.parametrize("rows", [[("Cl", 0.5, 1.5)], [("Cl", 0.5, 0.7), ("Br", 0.5, 0.7)]])
def test_site_occupied_more_than_once_is_never_a_majority(rows, nacl):
    item = _disordered(rows, nacl, occupancy="majority")
    assert isinstance(item, Reject)
    assert item.category == "occupancy above 1"


def test_crystal_of_empty_sites_is_rejected():
    with pytest.raises(Unusable, match="every site is mostly empty"):
        Limits(occupancy="majority").ordered(np.array([11]), np.zeros((1, 3)), np.array([0.1]), np.eye(3) * 4)
