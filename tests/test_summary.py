"""metrics.json: values, meanings, units, counts; all samples in the denominators."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from crystens.batch import CrystalBatch
from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.metrics.crystal_table import IMAGE_COLUMNS, Row, crystal_row, failed_row
from crystens.metrics.distributions import QUANTITIES, Reference
from crystens.metrics.metrics_file import generated_values, summarise, write_metrics
from crystens.metrics.statistics import STATISTICS


def image_row(index: int, crystal: Crystal | None, group: int | None = 225, reason: str = "", **more: float) -> Row:
    row: Row = dict.fromkeys(IMAGE_COLUMNS)
    if crystal is None:
        row |= failed_row(index, reason)
    else:
        row |= crystal_row(index, crystal) | {"merged_sites": 0}
    return {name: (row | {"generated_space_group": group} | more)[name] for name in IMAGE_COLUMNS}


@pytest.fixture
def reference(nacl: Crystal, single_atom: Crystal) -> Reference:
    return Reference.from_crystals(CrystalBatch.from_crystals([nacl, single_atom], 8), "two crystals")


@pytest.fixture
def rows(nacl: Crystal, triclinic: Crystal) -> list[Row]:
    tight = Crystal([2, 2, 2], [90, 90, 90], 1, [6, 6], np.array([[0, 0, 0], [0.1, 0, 0]]))
    return [
        image_row(0, nacl, cell_length_variance=1.0, merged_sites=2),
        image_row(1, nacl, cell_length_variance=2.0, merged_sites=0),
        image_row(2, triclinic, group=3, cell_length_variance=6.0),
        image_row(3, tight, group=9),
        image_row(4, None, reason="atomic number must be 1-118, got 120", cell_length_variance=3.0),
        image_row(5, None, reason="atomic number must be 1-118, got -4"),
        image_row(6, None, reason="cell lengths must be > 0 angstrom, got [-1.0, 2.0, 3.0]"),
        image_row(7, None, reason="the image holds no site"),
    ]


def test_rates_are_taken_over_all_samples(rows: list[Row], reference: Reference) -> None:
    metrics = summarise(rows, reference)
    values = {name: entry["value"] for name, entry in metrics.items()}
    assert values["num_samples"] == 8
    assert values["decoded_rate"] == 4 / 8
    assert values["structural_validity"] == 3 / 8
    assert values["unique_formula_rate"] == 3 / 8
    assert values["novel_formula_rate"] == 2 / 8
    assert values["mean_merged_sites"] == 0.5
    assert {metrics[name]["count"] for name in values if name.endswith("_rate")} == {8}


def test_statistics_are_means_over_samples_that_have_them_with_their_spread(rows: list[Row]) -> None:
    entry = summarise(rows)["cell_length_variance"]
    assert (entry["value"], entry["count"], entry["unit"]) == (3.0, 4, "angstrom^2")
    assert entry["standard_deviation"] == pytest.approx(np.std([1, 2, 6, 3], ddof=1))
    nothing = summarise(rows)["coordinate_variance"]
    assert (nothing["value"], nothing["count"], nothing["standard_deviation"]) == (None, 0, None)


def test_every_entry_has_value_unit_description_and_count(rows: list[Row], reference: Reference) -> None:
    metrics = summarise(rows, reference, {"seed": 3})
    expected = {*STATISTICS, "decoded_rate", "structural_validity", "unique_formula_rate", "novel_formula_rate"}
    assert expected | {f"ks_{name}" for name in QUANTITIES} | {"mean_merged_sites", "provenance"} <= set(metrics)
    for name, entry in metrics.items():
        assert {"value", "unit", "description", "count"} <= set(entry), name
        assert entry["description"]


def test_failures_are_counted_by_reason(rows: list[Row]) -> None:
    failures = summarise(rows)["failures"]
    assert failures["value"] == 4
    assert failures["reasons"] == {
        "atomic number must be 1-118": 2,
        "cell lengths must be > 0 angstrom": 1,
        "the image holds no site": 1,
    }


def test_generated_values_are_those_of_decoded_samples(rows: list[Row]) -> None:
    values = generated_values(rows)
    assert values["a"].tolist() == pytest.approx([5.64, 5.64, 7.126, 2])
    assert values["space_group"].tolist() == [225, 225, 2, 123]
    assert sorted(values["Z"].tolist()) == sorted([11, 17] * 8 + [13] * 6 + [8] * 4 + [6] * 2)


def test_ks_statistics_stand_with_their_counts(rows: list[Row], reference: Reference) -> None:
    metrics = summarise(rows, reference)
    assert metrics["ks_a"]["count"] == 4
    # Real 3.345, 5.64; generated 2, 5.64, 5.64, 7.126.
    assert metrics["ks_a"]["value"] == pytest.approx(0.25)
    assert (metrics["ks_Z"]["count"], metrics["ks_Z"]["reference_count"]) == (28, 9)
    failed = summarise(rows[4:], reference)
    assert (failed["ks_a"]["value"], failed["ks_a"]["count"]) == (None, 0)
    assert failed["decoded_rate"]["value"] == 0


def test_without_a_reference_nothing_is_compared(rows: list[Row]) -> None:
    assert not [name for name in summarise(rows) if name.startswith("ks_") or name.startswith("novel")]


def test_crystals_from_files_have_no_image_statistics(nacl: Crystal, reference: Reference) -> None:
    metrics = summarise([crystal_row(0, nacl), failed_row(1, "empty file")], reference)
    assert not set(STATISTICS) & set(metrics)
    assert "mean_merged_sites" not in metrics
    assert metrics["decoded_rate"]["value"] == 0.5
    assert metrics["ks_space_group"]["value"] == 0.5


def test_provenance_names_versions_seed_and_reference(rows: list[Row], reference: Reference, tmp_path: Path) -> None:
    write_metrics(
        tmp_path / "out" / "metrics.json", summarise(rows, reference, {"seed": 0, "checkpoint": Path("x.ckpt")})
    )
    made_with = json.loads((tmp_path / "out" / "metrics.json").read_text())["provenance"]["value"]
    assert {"crystens", "python", "torch", "pymatgen", "numpy"} <= set(made_with)
    assert made_with["seed"] == 0
    assert made_with["checkpoint"] == "x.ckpt"
    assert made_with["reference"] == {"name": "two crystals", "split": "train", "count": 2}


def test_no_sample_at_all_is_refused() -> None:
    with pytest.raises(CrystensError, match="no sample to judge"):
        summarise([])
