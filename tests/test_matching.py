"""Matching: the cell does not matter, the candidates and the processes change the price and not the answer."""

from __future__ import annotations

import itertools
import json
import logging
import os
import time
from collections import Counter

import numpy as np
import pytest

from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.ingest.kinds import open_source
from crystens.matching import structure_matching as matching
from crystens.matching.structure_matching import find_matches, fingerprint, group_matches, match_pairs
from crystens.sources.limits import Limits
from crystens.sources.source import read_all

# mp_3dsc, all pairs with the same reduced formula, compared by pymatgen alone; see the README of the shared data.
KNOWN = {
    ("mp-10711", "mp-11190"),
    ("mp-1071274", "mp-1077017"),
    ("mp-11192", "mp-517"),
    ("mp-1191117", "mp-755404"),
    ("mp-12104", "mp-2478"),
    ("mp-1079570", "mp-605060"),
    ("mp-1198573", "mp-578628"),
    ("mp-19", "mp-567313"),
    ("mp-1275876", "mp-867537"),
    ("mp-20461", "mp-22230"),
}


def _disguised(crystal: Crystal, matrix: list[list[int]], shift: float = 0.13, scale: float = 1.0) -> Crystal:
    """Return the same crystal in another cell, with another origin and volume, its sites in another order."""
    structure = crystal.to_structure()
    structure.make_supercell(matrix)
    structure.scale_lattice(structure.volume * scale)
    lengths, angles = np.array(structure.lattice.abc), np.array(structure.lattice.angles)
    order = np.random.default_rng(0).permutation(len(structure))
    coordinates = structure.frac_coords + np.array([shift, -shift, 2 * shift])
    return Crystal(lengths, angles, 1, np.array(structure.atomic_numbers)[order], coordinates[order])


DOUBLE = [[1, 1, 0], [0, 1, 0], [0, 0, 2]]


@pytest.fixture
def crystals(nacl, copper_primitive, triclinic, single_atom) -> list[Crystal]:
    """Four crystals, three of them again in another cell, and NaCl in the structure of CsCl."""
    caesium_chloride = Crystal([3.4] * 3, [90] * 3, 221, [11, 17], np.array([[0, 0, 0], [0.5, 0.5, 0.5]]))
    originals = [nacl, copper_primitive, triclinic, single_atom, caesium_chloride]
    return [*originals, *(_disguised(crystal, DOUBLE) for crystal in originals[:3])]


def _fingerprint(crystal: Crystal) -> np.ndarray:
    return fingerprint(crystal.lattice.matrix, crystal.numbers, crystal.coordinates)


@pytest.mark.parametrize("name", ["nacl", "copper_primitive", "triclinic", "single_atom", "sites_52"])
def test_fingerprint_does_not_depend_on_cell_origin_site_order_and_volume(name, request):
    crystal = request.getfixturevalue(name)
    other = _disguised(crystal, DOUBLE, scale=1.3)
    assert len(other) == 2 * len(crystal)
    np.testing.assert_allclose(_fingerprint(other), _fingerprint(crystal), atol=1e-6)


def test_fingerprint_of_a_simple_cubic_crystal_is_known():
    # Its first four shells, in cell lengths, which is 1 where the volume for each atom is 1.
    cubic = Crystal([4.0] * 3, [90] * 3, 221, [84], np.zeros((1, 3)))
    np.testing.assert_allclose(_fingerprint(cubic), [1] * 6 + [2**0.5] * 12 + [3**0.5] * 8 + [2] * 6, atol=1e-9)


def test_fingerprint_finds_neighbours_in_a_flat_cell():
    # Layers far apart: every neighbour lies in the own layer, several cells away, at multiples of the short length.
    flat = Crystal([1.0, 1.0, 60.0], [90] * 3, 123, [6], np.zeros((1, 3)))
    distances = sorted(np.hypot(*step) for step in itertools.product(range(-4, 5), repeat=2))[1:33]
    np.testing.assert_allclose(_fingerprint(flat), np.array(distances) / 60 ** (1 / 3), atol=1e-9)


def test_group_holds_a_crystal_in_all_its_cells(crystals):
    assert group_matches(crystals).tolist() == [0, 1, 2, 3, 4, 0, 1, 2]


def test_groups_do_not_depend_on_the_order_of_reading(crystals):
    labels = group_matches(crystals[::-1])
    pairs = {(i, j) for i, j in itertools.combinations(range(8), 2) if labels[7 - i] == labels[7 - j]}
    assert pairs == {(0, 5), (1, 6), (2, 7)}


def test_probe_finds_the_first_reference_that_is_the_same(crystals):
    assert find_matches(crystals[5:], crystals[:5]).tolist() == [0, 1, 2]
    assert find_matches(crystals[:5], crystals[5:]).tolist() == [0, 1, 2, -1, -1]


def test_most_similar_reference_is_compared_first(nacl, triclinic):
    generator = np.random.default_rng(0)
    moved = [
        Crystal(
            triclinic.lengths,
            triclinic.angles,
            1,
            triclinic.numbers,
            triclinic.coordinates + generator.normal(0, noise, (10, 3)),
        )
        for noise in (0.02, 0.01, 0.001)
    ]
    compared = []
    assert find_matches([triclinic], [nacl, *moved], candidates=1, progress=compared.append).tolist() == [3]
    assert compared == [1]


def test_pairs_are_the_same_either_way(crystals):
    pairs = [(crystals[0], crystals[5]), (crystals[5], crystals[0]), (crystals[0], crystals[4])]
    assert match_pairs(pairs).tolist() == [True, True, False]


@pytest.mark.parametrize("candidates", [1, 8, None])
def test_nothing_given_gives_nothing(candidates, nacl):
    assert group_matches([], candidates).shape == (0,)
    assert find_matches([], [nacl], candidates).shape == (0,)
    assert find_matches([nacl], [], candidates).tolist() == [-1]
    assert match_pairs([]).shape == (0,)


def test_processes_do_not_change_the_result(crystals):
    many = [*crystals, *(_disguised(crystal, [[2, 0, 0], [1, 1, 0], [0, 0, 1]]) for crystal in crystals[:5])]
    here, spread = [], []
    np.testing.assert_array_equal(group_matches(many, progress=here.append), group_matches(many, 8, 2, spread.append))
    assert here[-1] == spread[-1] > 0


def test_pair_in_one_group_is_not_compared_again(nacl):
    copies = [_disguised(nacl, DOUBLE, shift) for shift in np.linspace(0, 0.4, 6)]
    compared = [0]
    assert group_matches(copies, None, progress=compared.append).tolist() == [0] * 6
    assert compared[-1] < 15


def test_pair_that_fails_is_no_match_and_is_told(crystals, monkeypatch, caplog):
    from pymatgen.core.structure_matcher import StructureMatcher

    fit = StructureMatcher.fit

    def failing(self, first, second, **options):
        if first.composition.reduced_formula == "Cu":
            raise ValueError("no lattice")
        return fit(self, first, second, **options)

    monkeypatch.setattr(StructureMatcher, "fit", failing)
    with caplog.at_level(logging.WARNING):
        assert group_matches(crystals).tolist() == [0, 1, 2, 3, 4, 0, 6, 2]
    assert "1 crystals or pairs could not be compared and count as no match; the first: ValueError" in caplog.text


def _compute_for_20_s(pair: object) -> None:
    """Compute for longer than a comparison may, in time of the processor."""
    start = time.process_time()
    while time.process_time() - start < 20:
        pass


def test_pair_that_hangs_is_given_up(crystals, monkeypatch, caplog):
    monkeypatch.setattr(matching, "_SECONDS", 0.1)
    monkeypatch.setattr(matching, "_same", _compute_for_20_s)
    start = time.monotonic()
    assert find_matches(crystals[5:6], crystals[:1]).tolist() == [-1]
    assert time.monotonic() - start < 10
    assert "TimeoutError: given up after 0.1 s" in caplog.text


def _die_of_three(chunk: list[int]) -> list[int]:
    """End the process of a 3, as one that runs out of memory ends."""
    if 3 in chunk:
        os._exit(1)
    return chunk


def test_process_that_dies_costs_its_pair_alone():
    with matching._Comparer(2, None, "processes") as comparer:
        found = [answer for made in comparer._spread(_die_of_three, list(range(40))) for answer in made]
    assert found[3] == "broke down: its process ended with status 1"
    assert found[:3] + found[4:] == [*range(3), *range(4, 40)]


@pytest.mark.parametrize(("options", "message"), [((0, 1), "candidates=0 must be"), ((8, 0), "workers=0 must be")])
def test_option_out_of_range_is_an_error(options, message, nacl):
    with pytest.raises(CrystensError, match=message):
        group_matches([nacl], *options)
    with pytest.raises(CrystensError, match=message):
        find_matches([nacl], [nacl], *options)


def _pairs(names: list[str], labels: np.ndarray) -> set[tuple[str, ...]]:
    """Return the names of each member of a group with those of its first."""
    return {tuple(sorted((names[first], names[k]))) for k, first in enumerate(labels) if first != k}


def test_known_pairs_of_mp_3dsc_are_found(shared_data):
    source = open_source(str(shared_data / "mp_3dsc"))
    ids = {name for pair in KNOWN for name in pair}
    records = [record for record in source.records() if record.entry in ids]
    entries = [entry for record in records for entry in source.parsed(record, Limits(max_sites=None))]
    labels = group_matches([entry.crystal for entry in entries])
    assert _pairs([entry.entry for entry in entries], labels) == {tuple(sorted(pair)) for pair in KNOWN}


@pytest.mark.slow
def test_mp_3dsc_has_these_pairs_and_no_others_whatever_the_candidates(shared_data):
    entries, _ = read_all(open_source(str(shared_data / "mp_3dsc")), Limits(max_sites=None))
    formulas = [entry.crystal.formula for entry in entries]
    counts = Counter(formulas)
    several = [entry for entry, formula in zip(entries, formulas, strict=True) if counts[formula] > 1]
    for candidates in (8, None):
        labels = group_matches([entry.crystal for entry in several], candidates)
        assert _pairs([entry.entry for entry in several], labels) == {tuple(sorted(pair)) for pair in KNOWN}


def test_labels_are_plain_numbers(crystals):
    labels = group_matches(crystals[:2])
    assert labels.dtype == np.int64
    assert json.dumps(labels.tolist()) == "[0, 1]"
