"""The field's protocol counts every sample, and a set judged against itself is perfect."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.metrics.by_num_sites import write_by_num_sites
from crystens.metrics.crystal_table import CRYSTAL_COLUMNS, PROTOCOL_COLUMNS, CrystalTable, crystal_row, failed_row
from crystens.protocol.cdvae_protocol import CUTOFFS, CdvaeProtocol, ProtocolOptions
from crystens.protocol.fingerprinting import FingerprintOptions
from crystens.protocol.judgement import Judgement

pytest.importorskip("matminer", reason="the extra metrics is not installed")
pytest.importorskip("smact", reason="the extra metrics is not installed")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fingerprints")


def cubic(length: float, *numbers: int) -> Crystal:
    """A perovskite's five sites, in the order A, B and three X."""
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return Crystal([length] * 3, [90] * 3, 1, list(numbers), np.array(sites))


@pytest.fixture
def titanate() -> Crystal:
    return cubic(3.9, 38, 22, 8, 8, 8)


@pytest.fixture
def zirconate() -> Crystal:
    return cubic(4.2, 56, 40, 8, 8, 8)


@pytest.fixture
def coincident() -> Crystal:
    """Neutral in its composition, and without a structure."""
    return Crystal([4, 4, 4], [90] * 3, 1, [11, 17], np.zeros((2, 3)))


@pytest.fixture
def charged() -> Crystal:
    """A sound structure whose composition, Li F3 F, does not balance."""
    return cubic(4.0, 3, 9, 9, 9, 9)


def options(cache: Path, **changes: object) -> ProtocolOptions:
    made = ProtocolOptions(CUTOFFS["perov_5"], fingerprints=FingerprintOptions(workers=0, cache=cache))
    return replace(made, **changes)


def judged(real: list[Crystal], samples: list[Crystal | None], chosen: ProtocolOptions) -> Judgement:
    rows = [
        failed_row(index, "no crystal") if crystal is None else crystal_row(index, crystal)
        for index, crystal in enumerate(samples)
    ]
    crystals = {index: crystal for index, crystal in enumerate(samples) if crystal is not None}
    return CdvaeProtocol(real, "real", chosen).judge(rows, crystals)


def values(judgement: Judgement) -> dict[str, float]:
    return {name: one["value"] for name, one in judgement.metrics.items()}


def test_a_set_judged_against_itself_is_covered_at_distance_0(
    titanate: Crystal, zirconate: Crystal, nacl: Crystal, cache: Path
) -> None:
    found = values(judged([titanate, zirconate, nacl], [nacl, titanate, zirconate], options(cache)))
    for name in ("compositional_validity", "validity", "reference_structural_validity"):
        assert found[name] == 1
    for name in ("cov_recall", "cov_precision", "cov_recall_strict", "cov_precision_strict"):
        assert found[name] == 1
    for name in ("density", "density_all", "num_elements", "num_elements_all"):
        assert found[f"wasserstein_{name}"] == 0
    for name in ("amsd_recall", "amsd_precision", "amcd_recall", "amcd_precision"):
        assert found[name] == 0


def test_every_sample_stands_in_every_denominator(
    titanate: Crystal, coincident: Crystal, charged: Crystal, cache: Path
) -> None:
    judgement = judged([titanate], [titanate, coincident, charged, None], options(cache))
    found = values(judgement)
    assert found["compositional_validity"] == 2 / 4  # the coincident one too
    assert found["validity"] == 1 / 4
    assert found["cov_precision"] == 1 / 4
    assert found["cov_recall"] == 1
    assert [row["valid"] for row in judgement.rows] == [True, False, False, False]
    assert [row["composition_verdict"] for row in judgement.rows] == ["neutral", "neutral", "not neutral", None]
    assert judgement.rows[1]["fingerprint_reason"].startswith("no fingerprint: ")
    assert judgement.metrics["fingerprint_failures"]["value"] == 1
    assert judgement.metrics["fingerprint_failures"]["reasons"] == {judgement.rows[1]["fingerprint_reason"]: 1}


def test_a_real_crystal_without_a_fingerprint_is_not_covered_and_told(
    titanate: Crystal, coincident: Crystal, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failures = judged([titanate, coincident], [titanate], options(cache)).metrics["reference_fingerprint_failures"]
    assert (failures["value"], failures["count"]) == (1, 2)
    assert next(iter(failures["reasons"])).startswith("no fingerprint: ")
    assert "1 of 2 crystals of real have no fingerprint and count as not covered: 1 no fingerprint" in caplog.text


def test_an_invalid_sample_with_a_fingerprint_covers_as_in_the_original(titanate: Crystal, cache: Path) -> None:
    odd = cubic(3.9, 71, 57, 9, 9, 9)  # Lu +3, La +2 or +3, F -1: no charges that balance
    judgement = judged([titanate], [odd], options(cache, cutoffs=(1.0, 100.0)))
    assert not judgement.rows[0]["valid"]
    assert values(judgement)["cov_recall"] == values(judgement)["cov_precision"] == 1


def test_cutoffs_decide_on_both_sides(titanate: Crystal, zirconate: Crystal, cache: Path) -> None:
    away = judged([titanate], [zirconate], options(cache)).rows[0]
    assert away["structure_distance"] > 0
    assert away["composition_distance"] > 0
    at = away["structure_distance"] * (1 + 1e-9), away["composition_distance"] * (1 + 1e-9)
    assert judged([titanate], [zirconate], options(cache, cutoffs=at)).rows[0]["covered"]
    for below in ((at[0] * 0.999, at[1]), (at[0], at[1] * 0.999)):
        assert not judged([titanate], [zirconate], options(cache, cutoffs=below)).rows[0]["covered"]


def test_fewer_valid_samples_than_asked_are_said_and_more_are_drawn_by_seed(
    titanate: Crystal, zirconate: Crystal, nacl: Crystal, cache: Path
) -> None:
    samples: list[Crystal | None] = [titanate, zirconate, nacl, None]
    few = judged([titanate], samples, options(cache)).metrics["wasserstein_density"]
    assert few["statement"] == "only 3 samples are valid, of 1000 in the protocol: all of them are taken"
    assert "of all 3 valid samples (the protocol asks for 1000) and" in few["description"]
    assert (few["count"], few["valid_samples"]) == (3, 3)
    densities = [crystal.to_structure().density for crystal in (titanate, zirconate, nacl)]
    assert few["value"] == pytest.approx(wasserstein_distance(densities, densities[:1]))
    drawn = {
        judged([titanate], samples, options(cache, valid_samples=1, seed=seed)).metrics["wasserstein_density"]["value"]
        for seed in range(8)
    }
    assert len(drawn) == 3
    assert (
        "statement" not in judged([titanate], samples, options(cache, valid_samples=3)).metrics["wasserstein_density"]
    )


def test_no_valid_sample_is_a_statement_and_no_crash(titanate: Crystal, coincident: Crystal, cache: Path) -> None:
    judgement = judged([titanate], [coincident, None], options(cache))
    found = judgement.metrics["wasserstein_density"]
    assert (found["value"], found["count"]) == (None, 0)
    assert "only 0 samples are valid" in found["statement"]
    assert values(judgement)["cov_recall"] == 0
    assert values(judgement)["amsd_recall"] is None
    json.dumps(judgement.metrics, allow_nan=False)


def test_sizes_add_up_to_all_samples(
    titanate: Crystal, zirconate: Crystal, nacl: Crystal, coincident: Crystal, cache: Path, tmp_path: Path
) -> None:
    judgement = judged([titanate, nacl], [titanate, zirconate, coincident, None, None], options(cache))
    sizes = judgement.by_num_sites
    assert [row["num_sites"] for row in sizes] == [2, 5, 8, None]
    assert sum(row["samples"] for row in sizes) == 5
    assert sum(row["reference_crystals"] for row in sizes) == 2
    five, eight = sizes[1], sizes[2]
    assert (five["samples"], five["validity"], five["reference_crystals"], five["cov_recall"]) == (2, 1, 1, 1)
    assert (eight["samples"], eight["validity"], eight["cov_recall"]) == (0, None, 0)
    assert sizes[3]["validity"] == 0
    write_by_num_sites(tmp_path / "sizes.csv", sizes)
    with (tmp_path / "sizes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["num_sites"] for row in rows] == ["2", "5", "8", ""]
    assert rows[2]["validity"] == ""


def test_rows_go_to_a_table_and_come_back_typed(
    titanate: Crystal, charged: Crystal, cache: Path, tmp_path: Path
) -> None:
    judgement = judged([titanate], [titanate, charged, None], options(cache))
    table = CrystalTable(tmp_path / "crystals.csv", CRYSTAL_COLUMNS + PROTOCOL_COLUMNS)
    table.append(judgement.rows)
    for name in PROTOCOL_COLUMNS:
        if name not in ("structure_distance", "composition_distance"):
            assert [row[name] for row in table.rows()] == [row[name] for row in judgement.rows]


def test_settings_are_told(titanate: Crystal, cache: Path) -> None:
    about = judged([titanate], [titanate], options(cache)).about["protocol"]
    assert about["cutoffs"] == {"structure": 0.2, "composition": 4.0}
    assert about["oxidation_states"].startswith("smact14 of smact ")
    assert "CDVAE's constants" in about["composition_fingerprint"]
    assert "matminer" in about["fingerprints_by"]


def test_options_out_of_range_are_refused(titanate: Crystal, cache: Path) -> None:
    for changes in ({"cutoffs": (0.0, 4.0)}, {"valid_samples": 0}, {"oxidation_states": "x"}):
        with pytest.raises(CrystensError):
            options(cache, **changes)
    with pytest.raises(CrystensError, match="holds no crystal"):
        CdvaeProtocol([], "nothing", options(cache))
