"""Verdicts hold: junk is called junk, and a few good samples are not called bad for being few."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest, ks_2samp, kstwobign

from crystens.batch import CrystalBatch
from crystens.crystal import Crystal
from crystens.metrics.crystal_table import crystal_row, failed_row
from crystens.metrics.distributions import Reference, critical_ks
from crystens.metrics.entries import Metrics, rate
from crystens.metrics.held_out import MOST, spread, with_held_out
from crystens.metrics.metrics_file import summarise
from crystens.metrics.verdicts import _least, _most, good, shortcomings, summary, verdict


@pytest.fixture
def real(nacl: Crystal) -> list[Crystal]:
    """Salts of the rocksalt type with lengths between 4 and 7 angstrom."""
    lengths = np.linspace(4, 7, 60)
    elements = [(3, 9), (11, 17), (19, 35), (12, 8), (20, 16)]
    return [
        replace(nacl, lengths=np.full(3, length), numbers=np.repeat(elements[place % 5], 4))
        for place, length in enumerate(lengths)
    ]


@pytest.fixture
def reference(real: list[Crystal]) -> Reference:
    whole = Reference.from_crystals(CrystalBatch.from_crystals(real[::2], 8), "salts")
    return with_held_out(whole, real[1::2], "test")


@pytest.fixture
def junk() -> list[Crystal]:
    """Random elements, each atom 0.6 to 0.9 angstrom from the one before, P1."""
    generator, crystals = np.random.default_rng(0), []
    for _ in range(50):
        steps = generator.normal(size=(8, 3))
        steps[:, 0] = np.abs(steps[:, 0]) + 1  # a chain that does not turn back
        steps *= (generator.uniform(0.6, 0.9, 8) / np.linalg.norm(steps, axis=1))[:, None]
        numbers = generator.choice(np.arange(1, 95), 8, replace=False)
        crystals.append(Crystal([9, 8, 7], [88, 93, 97], 1, numbers, steps.cumsum(axis=0) / [9, 8, 7]))
    return crystals


def _judged(crystals: list[Crystal | None], reference: Reference | None) -> Metrics:
    rows = [
        failed_row(place, "no crystal") if one is None else crystal_row(place, one, reference=reference)
        for place, one in enumerate(crystals)
    ]
    return summarise(rows, reference)


def test_a_third_with_atoms_within_each_other_is_a_shortcoming_and_no_junk(
    junk: list[Crystal], real: list[Crystal], reference: Reference
) -> None:
    for broken, told in ((50, True), (2, False)):
        metrics = _judged([*junk[:broken], *real, *real], reference)
        entry = verdict(metrics, reference)["verdict"]
        found = [text for text in entry["shortcomings"] if "atoms overlap" in text]
        assert bool(found) == told
        assert not any("junk" in sentence for sentence in entry["sentences"])


def test_many_crystals_with_close_atoms_are_a_shortcoming(nacl: Crystal, reference: Reference) -> None:
    close = replace(nacl, lengths=np.full(3, 3.75))  # Na-Cl 0.70 of the radii, which are 2.68 angstrom
    roomy = replace(nacl, lengths=np.full(3, 5.6))
    for share, told in ((40, True), (2, False)):
        metrics = _judged([close] * share + [roomy] * (100 - share), reference)
        assert metrics["close_atoms_rate"]["value"] == share / 100
        found = shortcomings(metrics, reference)
        assert any("in 40 % of them the nearest atoms are closer than 0.75" in text for text in found) == told
        assert not any("overlap" in text for text in found)
    assert _judged([None, close], reference)["close_atoms_rate"]["value"] == 0.5  # failures stay in the denominator


@pytest.mark.parametrize("compared", [True, False])
def test_junk_is_called_junk(junk: list[Crystal], reference: Reference, compared: bool) -> None:
    against = reference if compared else None
    metrics = _judged([*junk], against)
    assert metrics["structural_validity"]["value"] > 0.9  # which says nothing
    entry = verdict(metrics, against)["verdict"]
    told = " ".join(entry["sentences"])
    assert "By these numbers they are junk, not usable crystals: in 100 % of them atoms overlap" in told
    assert "100 % have no symmetry" in told
    assert entry["value"] == len(entry["shortcomings"]) >= 3


@pytest.mark.parametrize("number", [1, 2])
def test_a_few_good_samples_are_not_called_bad(real: list[Crystal], reference: Reference, number: int) -> None:
    metrics = _judged([*real[:number]], reference)
    assert metrics["ks_a"]["value"] > 0.5
    assert shortcomings(metrics, reference) == []
    told = " ".join(verdict(metrics, reference)["verdict"]["sentences"])
    assert f"{number} {'sample is' if number == 1 else 'samples are'} too few to judge shares or" in told
    assert "not usable" not in told


def test_a_verdict_beside_few_real_crystals_says_that_it_needs_more(real: list[Crystal]) -> None:
    for count in (1, 3, 10, 11):
        few = Reference.from_crystals(CrystalBatch.from_crystals(real[:count], 8), "salts")
        told = " ".join(verdict(_judged([*real], few), few)["verdict"]["sentences"])
        assert (f"needs more real crystals: the reference (train) has {count}," in told) == (count < 11)
        assert "No shortcoming is shown" not in told or count == 11
        assert (critical_ks(10**9, count) > 0.5) == (count < 11)


def test_many_samples_of_another_distribution_are_told(real: list[Crystal], reference: Reference) -> None:
    assert shortcomings(_judged([*real], reference), reference) == []
    small = [replace(one, lengths=np.full(3, 4.0 + place / 1e4)) for place, one in enumerate(real)]
    found = shortcomings(_judged([*small], reference), reference)
    assert [one for one in found if "not distributed like the training data" in one]
    told = " ".join(verdict(_judged([*small[:9]], reference), reference)["verdict"]["sentences"])
    assert "9 samples are too few to judge distributions by" in told


def test_what_was_asked_for_is_no_shortcoming(real: list[Crystal], reference: Reference) -> None:
    small = [replace(real[0], lengths=np.full(3, 4.0), space_group=1)] * len(real)  # one formula, one cell
    plain = _judged([*small], reference)
    found = " ".join(shortcomings(plain, reference))
    assert "have a formula of their own" in found
    assert "not distributed like" in found
    asked = plain | {"formula_met_rate": rate(len(small), len(small), "asked for")}
    assert shortcomings(asked, reference) == []
    lost = _judged([*small[:30], *([None] * 30)], reference) | {"formula_met_rate": rate(30, 60, "asked for")}
    assert shortcomings(lost, reference) == ["30 of 60 samples could not be decoded"]


def test_a_share_is_judged_by_its_confidence_limit(real: list[Crystal], reference: Reference) -> None:
    assert _most(3, 40) == pytest.approx(binomtest(3, 40, alternative="less").proportion_ci(0.99).high)
    assert _least(3, 40) == pytest.approx(binomtest(3, 40, alternative="greater").proportion_ci(0.99).low)
    assert (_least(0, 5), _most(5, 5)) == (0, 1)
    one_of_two = _judged([real[0], None], reference)
    assert shortcomings(one_of_two, reference) == []
    half = _judged([*real[:30], *([None] * 30)], reference)
    assert shortcomings(half, reference) == ["30 of 60 samples could not be decoded"]


def test_the_critical_value_is_exceeded_by_one_sample_in_a_hundred() -> None:
    assert critical_ks(200, 300) == pytest.approx(kstwobign.isf(0.01) * np.sqrt(1 / 200 + 1 / 300), rel=1e-3)
    assert critical_ks(2, 10_000) > 1
    assert critical_ks(0, 10) == np.inf
    generator = np.random.default_rng(0)
    drawn = [ks_2samp(generator.random(50), generator.random(200)).statistic for _ in range(500)]
    assert np.mean(np.array(drawn) > critical_ks(50, 200)) < 0.02


def test_real_crystals_say_what_good_is(real: list[Crystal], reference: Reference) -> None:
    assert reference.held_out is not None
    assert reference.held_out_name == "test, 30 crystals"
    assert reference.held_out["charge_neutral_rate"] == 1
    assert not {"num_samples", "failures", "num_space_groups"} & set(reference.held_out)
    metrics = _judged([*real[::3]], reference)
    assert metrics["p1_rate"]["held_out"] == 0
    assert good("ks_a", metrics["ks_a"]) == f"{reference.held_out['ks_a']:.4g} (≤ {critical_ks(20, 30):.2g})"
    assert good("charge_neutral_rate", metrics["charge_neutral_rate"]) == "1"
    assert "No shortcoming is shown" in verdict(metrics, reference)["verdict"]["sentences"][1]
    assert "by composition 100 % (100 %)" in summary(metrics, reference)
    assert "in brackets: real crystals outside the reference (test, 30 crystals)" in summary(metrics, reference)


def test_every_metric_says_what_good_is_where_no_real_crystal_is_at_hand(real: list[Crystal]) -> None:
    bare = Reference.from_crystals(CrystalBatch.from_crystals(real, 8), "salts")
    metrics = _judged([*real[:20]], bare)
    assert good("ks_a", metrics["ks_a"]) == f"≤ {critical_ks(20, 60):.2g}"
    assert good("ks_a", _judged([real[0]], bare)["ks_a"]) == "too few"
    silent = [name for name in metrics if not good(name, metrics[name])]
    assert silent == ["num_samples", "failures", "provenance"]


def test_templates_that_are_not_known_are_called_so(real: list[Crystal]) -> None:
    old = replace(Reference.from_crystals(CrystalBatch.from_crystals(real, 8), "salts"), templates=None)
    assert "Wyckoff template known in an unknown share" in summary(_judged([*real[:20]], old), old)


def test_held_out_values_travel_with_the_reference(reference: Reference) -> None:
    for other in (Reference.from_tensors(reference.to_tensors()), Reference.from_state_dict(reference.state_dict())):
        assert other.held_out == reference.held_out
        assert other.held_out_name == reference.held_out_name
    bare = replace(reference, held_out=None, held_out_name="")
    assert Reference.from_tensors(bare.to_tensors()).held_out is None


def test_held_out_crystals_are_evenly_spread() -> None:
    rows = np.arange(10, 10_010)
    assert len(spread(rows)) == MOST
    assert spread(rows)[[0, -1]].tolist() == [10, 10_009]
    assert spread(rows[:5]).tolist() == [10, 11, 12, 13, 14]
