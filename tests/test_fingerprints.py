"""Fingerprints are matminer's, kept on disk, and never hang."""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from pymatgen.core import Composition

from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.protocol import fingerprinting, fingerprints
from crystens.protocol.fingerprinting import FingerprintOptions
from crystens.protocol.fingerprints import Fingerprint, composition_fingerprint, fingerprint
from crystens.protocol.magpie_scaling import scaled

pytest.importorskip("matminer", reason="the extra metrics is not installed")


@pytest.fixture
def coincident() -> Crystal:
    return Crystal([4, 4, 4], [90] * 3, 1, [11, 17], np.zeros((2, 3)))


@pytest.fixture
def crowded() -> Crystal:
    """A cell in which neighbours within 7 angstrom are a million."""
    return Crystal([0.8] * 3, [90] * 3, 1, [6] * 60, np.random.default_rng(0).random((60, 3)))


def in_process(folder: Path) -> FingerprintOptions:
    return FingerprintOptions(workers=0, cache=folder)


def test_a_fingerprint_is_the_mean_of_matminers_over_the_sites(triclinic: Crystal) -> None:
    from matminer.featurizers.composition import ElementProperty
    from matminer.featurizers.site import CrystalNNFingerprint

    found = fingerprint(triclinic)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure = triclinic.to_structure()
        sites = CrystalNNFingerprint.from_preset("ops")
        expected = np.mean([sites.featurize(structure, site) for site in range(len(structure))], axis=0)
        magpie = ElementProperty.from_preset("magpie", impute_nan=False).featurize(structure.composition)
    assert np.array_equal(found.structure, expected)
    assert np.array_equal(found.composition, magpie)
    assert (found.structure.shape, found.composition.shape, found.reason) == ((61,), (132,), None)


def test_rocksalt_is_six_coordinate_and_octahedral(nacl: Crystal) -> None:
    labels = fingerprints.featurizers()[0].feature_labels()
    values = dict(zip(labels, fingerprint(nacl).structure, strict=True))
    assert values["wt CN_6"] > 0.9
    assert values["octahedral CN_6"] == pytest.approx(values["wt CN_6"], abs=0.01)
    assert values["wt CN_4"] < 0.05


def test_atoms_on_top_of_each_other_have_a_reason_in_place_of_a_fingerprint(coincident: Crystal) -> None:
    found = fingerprint(coincident)
    assert found.structure is found.composition is None
    assert found.reason.startswith("no fingerprint: ")
    assert "\n" not in found.reason


def test_scaled_compositions_of_real_crystals_are_of_size_1_in_every_property() -> None:
    # The constants stand in the order of the features: of another order some would be a hundred deviations away.
    formulas = ["NaCl", "SrTiO3", "Al2O3", "Fe2O3", "GaAs", "LiCoO2", "CuZn", "BaSO4", "TiN", "MgO", "La2CuO4", "Ni3Al"]
    values = scaled(np.stack([composition_fingerprint(Composition(formula)) for formula in formulas]))
    assert np.abs(values).max() < 12
    assert np.abs(values.mean(axis=0)).max() < 2


def test_unknown_values_are_the_mean_after_scaling() -> None:
    values = np.full((1, 132), np.nan)
    assert scaled(values).tolist() == [[0.0] * 132]


def test_many_are_computed_once_each_and_kept(
    nacl: Crystal, triclinic: Crystal, coincident: Crystal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    crystals = [nacl, coincident, nacl, triclinic]
    first = fingerprinting.fingerprints(crystals, in_process(tmp_path), counts.append)
    assert counts == [0, 2, 3, 4]
    assert [one.reason is None for one in first] == [True, False, True, True]

    def never(crystal: Crystal) -> Fingerprint:
        raise AssertionError("computed again")

    monkeypatch.setattr(fingerprinting, "fingerprint", never)
    counts.clear()
    again = fingerprinting.fingerprints(crystals, in_process(tmp_path), counts.append)
    assert counts == [4]
    for one, other in zip(first, again, strict=True):
        assert one.reason == other.reason
        if one.reason is None:
            assert np.array_equal(one.structure, other.structure)
            assert np.array_equal(one.composition, other.composition, equal_nan=True)


def test_a_fingerprint_comes_back_from_plain_values_bit_for_bit(triclinic: Crystal) -> None:
    found = fingerprint(triclinic)
    found.composition[3] = np.nan  # unknown
    back = Fingerprint.from_plain(json.loads(json.dumps(found.to_plain())))
    assert np.array_equal(back.structure, found.structure)
    assert np.array_equal(back.composition, found.composition, equal_nan=True)


@pytest.mark.slow
def test_a_crystal_that_takes_too_long_costs_itself_alone(nacl: Crystal, crowded: Crystal, tmp_path: Path) -> None:
    started = time.monotonic()
    options = FingerprintOptions(workers=1, time_limit=3, cache=tmp_path)
    found = fingerprinting.fingerprints([crowded, nacl], options)
    assert time.monotonic() - started < 60
    assert found[0].reason == "the fingerprint takes too long: more than 3 s"
    assert np.array_equal(found[1].structure, fingerprint(nacl).structure)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"workers": -1}, "workers"), ({"time_limit": 0}, "time_limit"), ({"memory_limit": -1}, "memory_limit")],
)
def test_options_out_of_range_are_refused(options: dict, message: str) -> None:
    with pytest.raises(CrystensError, match=message):
        FingerprintOptions(**options)


def test_without_matminer_the_extra_is_named(nacl: Crystal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matminer.featurizers.site.fingerprint", None)
    fingerprints.featurizers.cache_clear()
    with pytest.raises(CrystensError, match=r'pip install "crystens\[metrics\]"'):
        fingerprint(nacl)
    fingerprints.featurizers.cache_clear()
