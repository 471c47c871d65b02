"""Tables of runs of Quantum ESPRESSO (experiments/paper/candidates/dft.py), finished or not."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from crystens.candidates.folder import parse_runs
from crystens.crystal import Crystal
from crystens.dft.engines import ESPRESSO

TESTS = Path(__file__).parent
RECORDED = TESTS / "recorded" / "espresso"  # a chain of NaF, see tests/test_candidates_espresso.py
CANDIDATES = [  # of select
    {
        "rank": 1,
        "name": "01_NaF",
        "sample": "NaF.cif",
        "formula": "NaF",
        "energy_cleaned": -4.50,
        "energy_relaxed": -4.51,
    },
    {
        "rank": 2,
        "name": "02_NaF",
        "sample": "other.cif",
        "formula": "NaF",
        "energy_cleaned": -4.5,
        "energy_relaxed": "",
    },
]


@pytest.fixture
def tables() -> ModuleType:
    """The module of the experiment."""
    path = TESTS.parent / "experiments" / "paper" / "candidates" / "dft.py"
    spec = importlib.util.spec_from_file_location("candidates_dft", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path) -> Path:
    """Candidates as `parse` leaves them: one is finished, the other was not begun."""
    naf = Crystal([4.54 / 2**0.5] * 3, [60] * 3, 225, [11, 9], np.array([[0, 0, 0], [0.5, 0.5, 0.5]]))
    for candidate in CANDIDATES:
        ESPRESSO.write_inputs(naf, ESPRESSO.inputs(tmp_path, candidate["name"]), "", "as given")
    rows = [row | {"formation_energy_generated": -2.9, "volume_change": 0.05, "displacement": 0} for row in CANDIDATES]
    _write(tmp_path / "candidates.csv", [row | {"volume_relaxed": 12.4} for row in rows])
    _write(tmp_path / "relaxations.csv", [{"name": row["name"], "run": 1, "pressure_before": 3.0} for row in rows])
    inputs = ESPRESSO.inputs(tmp_path, "01_NaF")
    for run in ("run_1", "run_2", "run_3", "run_4", "check"):
        (inputs / run).mkdir()
        (inputs / run / "pw.out").write_text((RECORDED / f"{run}.out").read_text())
        (inputs / run / "pw.in").write_text((inputs / "structure.in").read_text())
        (inputs / run / "structure.out").write_text((inputs / "structure.in").read_text().replace("2.27", "2.31"))
        (inputs / run / "ended").touch()
    (inputs / "run_2" / "memory").write_text("45000\n")
    (inputs / "run_3" / "memory").write_text("")  # as it is while a run goes on
    parse_runs(tmp_path)
    return tmp_path


def _write(path: Path, rows: list[dict]) -> None:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def test_lattices_are_those_of_the_last_relaxation(tables, folder):
    whole, none = tables.lattices(folder)["rows"]
    assert whole["a"] == pytest.approx(4.6302, abs=1e-4)
    assert (whole["relaxations"], whole["flags"], whole["steps"], whole["MB"]) == (4, "", 10, 45)
    assert (whole["P1"], whole["P4"], whole["fresh"]) == (0.01, 0.05, -0.03)  # kbar
    assert whole["E4 - E0"] == -6.92  # meV/atom
    assert whole["seconds"] == 58  # of the processor, with the check
    assert (none["relaxations"], none["flags"], none["seconds"]) == (0, "not begun", 0)


def test_chgnet_stands_beside_dft(tables, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["dft.py", "judged", str(folder), "--out", str(tmp_path)])
    tables.main()
    table = tables.judged(folder)
    whole, none = table["rows"]
    assert (whole["dE CHGNet"], whole["dE DFT"]) == (-10.0, -6.9)  # meV/atom
    assert (whole["P CHGNet"], whole["P DFT"]) == (3.0, 3.28)  # GPa, of the crystal both begin with
    assert (whole["dV CHGNet"], whole["dV DFT"]) == (5.0, pytest.approx(100 * ((2.31 / 2.27) ** 3 - 1), abs=0.1))
    assert whole["way DFT"] == 0
    assert none["dE CHGNet"] is None
    assert table["crystals with four relaxations"] == 1
    assert table["rank correlation of dE"] is None  # of one crystal
    assert "| NaF | NaF | 4 |" in capsys.readouterr().out
    assert (tmp_path / "dft_judged.json").is_file()


def test_rank_correlation_needs_three_crystals(tables):
    rows = [{"dE CHGNet": -value, "dE DFT": -(value**2)} for value in (1, 2, 3)]
    assert tables._correlation(rows, "dE") == 1.0
    assert tables._correlation(rows[:2], "dE") is None
    assert tables._correlation([*rows, {"dE CHGNet": 0.0, "dE DFT": None}], "dE") == 1.0
