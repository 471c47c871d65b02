"""python -m crystens.evaluate judges files as they are."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from crystens.cif import write_cif
from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.evaluate import main, read_reference
from crystens.metrics.statistics import STATISTICS


@pytest.fixture
def cifs(nacl: Crystal, triclinic: Crystal, tmp_path: Path) -> Path:
    """A folder with two good crystals, one with an atom listed twice, one with two near atoms, and two broken files."""
    double = Crystal([4, 4, 4], [90] * 3, 1, [55, 17, 17], np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]))
    near = Crystal([4, 4, 4], [90] * 3, 1, [6, 8], np.array([[0, 0, 0], [0.1, 0, 0]]))
    folder = tmp_path / "cifs"
    folder.mkdir()
    for name, crystal in {"a": nacl, "b": triclinic, "c": double, "d": near}.items():
        (folder / f"{name}.cif").write_text(write_cif(crystal))
    (folder / "e.cif").write_text("")
    (folder / "f.cif").write_text("no cif at all\n")
    return folder


def entries(out: Path) -> dict:
    return json.loads((out / "metrics.json").read_text())


def test_files_become_rows_metrics_and_a_report(cifs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main([str(cifs), "--out", str(out)]) == 0
    with (out / "crystals.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [f"{name}.cif" for name in "abcdef"]
    assert [row["status"] for row in rows] == ["ok"] * 4 + ["failed"] * 2
    assert rows[0]["space_group"] == "225"
    assert rows[4]["reason"]
    metrics = entries(out)
    assert metrics["decoded_rate"]["value"] == 4 / 6
    assert metrics["structural_validity"]["value"] == 2 / 6
    assert not set(STATISTICS) & {*metrics, *rows[0]}
    assert "6 samples were judged" in (out / "report.html").read_text()


def test_judging_again_starts_again(cifs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main([str(cifs), "--out", str(out)]) == 0
    first = (out / "crystals.csv").read_bytes()
    assert main([str(cifs), "--out", str(out)]) == 0
    assert (out / "crystals.csv").read_bytes() == first


def test_crystals_judged_against_themselves_have_distance_0(nacl: Crystal, triclinic: Crystal, tmp_path: Path) -> None:
    folder = tmp_path / "cifs"
    folder.mkdir()
    for name, crystal in {"a": nacl, "b": triclinic}.items():
        (folder / f"{name}.cif").write_text(write_cif(crystal))
    assert main([str(folder), "--out", str(tmp_path / "out"), "--reference", str(folder)]) == 0
    metrics = entries(tmp_path / "out")
    assert {metrics[name]["value"] for name in metrics if name.startswith("ks_")} == {0.0}
    assert metrics["novel_formula_rate"]["value"] == 0
    assert metrics["provenance"]["value"]["reference"]["split"] == "all"


def test_reference_of_a_table_without_splits_is_all_of_it(shared_data: Path) -> None:
    folder = shared_data / "perov_5"
    reference = read_reference("perov_5", str(folder / "val.csv.gz"))
    assert (reference.name, reference.count) == ("perov_5", 3787)
    assert len(reference.values["Z"]) == 5 * 3787
    assert set(reference.values["alpha"].tolist()) == {90.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["{cifs}", "--reference", "perov_5"], "--reference perov_5 needs its data: give --data-path PATH"),
        (["{cifs}", "--reference", "elsewhere"], "elsewhere does not exist"),
        (["{cifs}", "--data-path", "x"], "give --reference NAME too"),
        (["{cifs}", "--reference", "{cifs}", "--split", "val"], "gives no splits"),
    ],
)
def test_mistakes_are_one_line_and_exit_status_1(
    arguments: list[str], message: str, cifs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    filled = [argument.format(cifs=cifs) for argument in arguments]
    assert main([*filled, "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert error.count("\n") == 1


def test_folder_without_a_cif_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "empty"), "--out", str(tmp_path / "out")]) == 1
    assert "no CIF file in" in capsys.readouterr().err


def test_reference_with_splits_is_the_train_split(shared_data: Path) -> None:
    reference = read_reference(str(shared_data / "mp_3dsc"))
    assert (reference.split, reference.count) == ("train", 3763)
    with pytest.raises(CrystensError, match="needs its data"):
        read_reference("mp_3dsc")
