"""Metrics of symmetry: all samples in the denominators, whatever became of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crystens.batch import CrystalBatch
from crystens.crystal import Crystal
from crystens.metrics.by_num_sites import by_num_sites, by_size
from crystens.metrics.crystal_table import Row, crystal_row, failed_row
from crystens.metrics.distributions import Reference
from crystens.metrics.metrics_file import summarise
from crystens.metrics.symmetry_metrics import system_shares


@pytest.fixture
def reference(nacl: Crystal, single_atom: Crystal) -> Reference:
    return Reference.from_crystals(CrystalBatch.from_crystals([nacl, single_atom], 8), "two crystals")


@pytest.fixture
def rows(nacl: Crystal, triclinic: Crystal) -> list[Row]:
    """Rocksalt as stated, a little off, and stated wrongly; a new template; P1; on top of each other; failed."""
    moved = nacl.coordinates.copy()
    moved[0, 0] += 0.05 / 5.64
    random = Crystal([5, 6, 7], [80, 85, 95], 1, [3, 9, 9, 9], np.random.default_rng(0).random((4, 3)))
    double = Crystal([4, 4, 4], [90] * 3, 1, [17, 17], np.full((2, 3), 0.5))
    return [
        crystal_row(0, nacl, stated=225),
        crystal_row(1, replace(nacl, coordinates=moved), stated=225),
        crystal_row(2, nacl, stated=1),
        crystal_row(3, triclinic),
        crystal_row(4, random),
        crystal_row(5, double, stated=225),
        failed_row(6, "no crystal"),
        failed_row(7, "no crystal"),
    ]


def test_shares_are_those_of_all_samples(rows: list[Row], reference: Reference) -> None:
    metrics = summarise(rows, reference)
    values = {name: entry["value"] for name, entry in metrics.items()}
    assert (values["p1_rate"], values["p1_rate_at_0.1"]) == (1 / 8, 1 / 8)
    assert values["stated_space_group_rate"] == 1 / 8
    assert values["stated_space_group_rate_at_0.1"] == 2 / 8
    assert metrics["stated_space_group_rate"]["stating"] == 4
    assert (values["unknown_space_group"], metrics["unknown_space_group"]["count"]) == (1, 6)
    assert values["num_space_groups"] == 4
    assert values["num_wyckoff_templates"] == 4
    assert metrics["p1_rate"]["count"] == metrics["novel_template_rate"]["count"] == 8


def test_a_small_distortion_that_is_stated_is_not_overlooked_at_the_loose_tolerance() -> None:
    places = np.array([[0, 0, 0], [0.5, 0.5, 0.51], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    row = crystal_row(0, Crystal([4] * 3, [90] * 3, 1, [56, 22, 8, 8, 8], places), stated=99)
    assert (row["space_group"], row["space_group_at_0.1"]) == (99, 221)
    metrics = summarise([row])
    assert metrics["stated_space_group_rate"]["value"] == metrics["stated_space_group_rate_at_0.1"]["value"] == 1


def test_a_new_template_is_one_of_a_valid_sample_that_the_reference_lacks(
    rows: list[Row], reference: Reference
) -> None:
    assert reference.templates == ("221 a of 1 element", "225 ab of 2 elements")
    entry = summarise(rows, reference)["novel_template_rate"]
    assert (entry["value"], entry["number"], entry["valid"]) == (3 / 8, 3, 5)
    assert entry["share_of_valid"] == 3 / 5
    judged = [{**row, "valid": row["index"] == 0} for row in rows]
    assert summarise(judged, reference)["novel_template_rate"]["number"] == 0


def test_crystal_systems_are_shares_of_all_samples(rows: list[Row], reference: Reference) -> None:
    entry = summarise(rows, reference)["crystal_systems"]
    assert entry["value"] == 3
    assert {name: share for name, share in entry["shares"].items() if share} == {
        "triclinic": 2 / 8,
        "tetragonal": 1 / 8,
        "cubic": 2 / 8,
    }
    assert sum(system_shares(reference.values["space_group"]).values()) == 1
    assert set(system_shares(np.zeros(0)).values()) == {0.0}


def test_the_groups_that_files_state_are_compared_where_one_states_any(rows: list[Row], reference: Reference) -> None:
    metrics = summarise(rows, reference)
    assert metrics["ks_generated_space_group"]["count"] == 4
    assert metrics["ks_space_group"]["count"] == 5
    silent = summarise([row | {"generated_space_group": None} for row in rows], reference)
    assert not [name for name in silent if "stated" in name or "generated" in name]


def test_a_reference_from_before_templates_knows_none(rows: list[Row], reference: Reference) -> None:
    old = replace(reference, templates=None)
    entry = summarise(rows, old)["novel_template_rate"]
    assert (entry["value"], entry["count"]) == (None, 0)
    assert {row["novel_template_rate"] for row in by_num_sites(rows, old)} == {None}


@pytest.mark.parametrize("known", [True, False])
def test_a_reference_keeps_its_templates_on_the_way_to_files_and_checkpoints(reference: Reference, known: bool) -> None:
    kept = reference if known else replace(reference, templates=None)
    assert Reference.from_tensors(kept.to_tensors()).templates == kept.templates
    assert Reference.from_state_dict(kept.state_dict()).templates == kept.templates
    none_found = replace(reference, templates=())
    assert Reference.from_tensors(none_found.to_tensors()).templates == ()


def test_every_size_has_a_row_and_failed_samples_have_one(rows: list[Row], reference: Reference) -> None:
    table = {row["num_sites"]: row for row in by_num_sites(rows, reference)}
    assert list(table) == [2, 4, 8, 10, None]
    assert sum(row["samples"] for row in table.values()) == len(rows)
    assert table[4]["p1_rate"] == 1
    assert table[8]["stated_space_group_rate"] == 1 / 3
    assert table[8]["novel_template_rate"] == 1 / 3
    assert table[10]["stated_space_group_rate"] is None
    assert table[None]["structural_validity"] == table[None]["p1_rate"] == 0


def test_columns_of_others_stand_in_the_table_with_sizes_that_no_sample_has(
    rows: list[Row], reference: Reference
) -> None:
    more = [{"num_sites": size, "samples": 0, "structural_validity": None, "recall": 0.5} for size in (1, 2)]
    more += [{"num_sites": size, "samples": 1, "structural_validity": 1.0, "recall": None} for size in (4, 8, 10, None)]
    table = by_num_sites(rows, reference, more)
    assert [row["num_sites"] for row in table] == [1, 2, 4, 8, 10, None]
    assert (table[0]["recall"], table[0]["p1_rate"]) == (0.5, None)
    assert len({tuple(row) for row in table}) == 1


def test_ranges_of_sizes_hold_each_crystal_once(rows: list[Row], reference: Reference, nacl: Crystal) -> None:
    big = crystal_row(8, Crystal([50] * 3, [90] * 3, 1, [6] * 60, np.random.default_rng(1).random((60, 3))))
    table = by_size([*rows, big], reference)
    assert [(row["sites"], row["samples"]) for row in table] == [
        ("2", 1),
        ("3-4", 1),
        ("5-8", 3),
        ("9-12", 1),
        ("53 and more", 1),
    ]
