"""Tables of runs of Quantum ESPRESSO (experiments/paper/candidates/dft.py), finished or not, and choice of crystals."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from crystens.candidates.folder import parse_runs
from crystens.cif.write import write_cif
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
    """The module of the tables."""
    return _module("dft")


def _module(name: str) -> ModuleType:
    """Return a module of the experiment."""
    path = TESTS.parent / "experiments" / "paper" / "candidates" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"candidates_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rock_salt(a: float, numbers: Sequence[int] = (11, 9)) -> Crystal:
    """Return the primitive cell of two elements, sodium and fluorine if none are given, with the cubic edge a."""
    return Crystal([a / 2**0.5] * 3, [60] * 3, 225, list(numbers), np.array([[0, 0, 0], [0.5, 0.5, 0.5]]))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Candidates as `parse` leaves them: one is finished, the other was not begun."""
    naf = rock_salt(4.54)
    for candidate in CANDIDATES:
        ESPRESSO.write_inputs(naf, ESPRESSO.inputs(tmp_path, candidate["name"]), "", "as given")
    ranked = {"formation_energy_generated": -2.9, "above_hull_generated": -0.104, "reference_compounds": 1}
    rows = [row | ranked | {"volume_change": 0.05, "displacement": 0} for row in CANDIDATES]
    rows = [row | {"space_group_generated": 225} for row in rows]
    for row in rows:
        (tmp_path / "candidates" / row["name"] / "generated.cif").write_text(write_cif(rock_salt(4.40)))
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


def test_figure_states_energies_and_pressures_of_every_candidate(tables, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["dft.py", "figure", str(folder), "--out", str(tmp_path)])
    tables.main()
    table = json.loads((tmp_path / "dft_figure.json").read_text())
    whole, none = table["rows"]
    assert whole["E4"] - whole["E0"] == pytest.approx(whole["E4 - E0"] / 1000, abs=1e-5)
    assert (whole["E4 - E0"], whole["P1"], whole["P4"]) == (-6.92, 0.01, 0.05)  # meV/atom, kbar
    assert whole["dV"] == pytest.approx(100 * ((2.31 / 2.27) ** 3 - 1), abs=0.1)
    assert whole["dV generated"] == pytest.approx(100 * ((2.31 * 2 / 4.40) ** 3 - 1), abs=0.1)
    assert (whole["same"], whole["above hull CHGNet"]) == (True, -0.1)
    assert "E0" not in none
    assert list(table.values())[1:] == [1, 1]  # with four relaxations; of them as the goal wants
    assert Image.open(tmp_path / "dft_figure.png").width > 500


def test_figure_does_not_count_another_crystal_or_a_pressure_that_stays(tables, folder, tmp_path):
    caesium_chloride = Crystal([2.9] * 3, [90] * 3, 221, [11, 9], np.array([[0, 0, 0], [0.5, 0.5, 0.5]]))
    (folder / "candidates" / "01_NaF" / "generated.cif").write_text(write_cif(caesium_chloride))
    table = tables.figure(folder)
    assert table["rows"][0]["same"] is False
    assert list(table.values())[1:] == [1, 0]
    (folder / "candidates" / "01_NaF" / "generated.cif").write_text(write_cif(rock_salt(4.40)))
    runs = (folder / "dft.csv").read_text()
    (folder / "dft.csv").write_text(runs.replace("run_4,pw.out,finished", "run_4,pw.out,unfinished"))
    assert list(tables.figure(folder).values())[1:] == [0, 0]


def test_candidates_of_the_figure_are_small_plausible_and_new(tmp_path, monkeypatch):
    samples, chosen = tmp_path / "samples", tmp_path / "chosen"
    (samples / "cifs").mkdir(parents=True)
    naf = {"status": "ok", "plausibility": "1", "known_formula": "false", "merged_sites": "0"}
    rows = [naf, naf | {"plausibility": "0.75"}, naf | {"known_formula": "true"}, naf, naf]
    crystals = [rock_salt(4.6)] * 3 + [rock_salt(4.2, [26, 8]), rock_salt(5.0, [58, 7])]  # FeO is magnetic, Ce excluded
    for index, crystal in enumerate(crystals):
        (samples / "cifs" / f"{index:06d}.cif").write_text(write_cif(crystal))
    _write(
        samples / "crystals.csv",
        [{"index": index, "file": f"cifs/{index:06d}.cif", "reason": "", **row} for index, row in enumerate(rows)],
    )
    monkeypatch.setattr(sys, "argv", ["controls.py", "figure", str(chosen), "--samples", str(samples)])
    _module("controls").main()
    assert [path.name for path in chosen.iterdir()] == ["new_000000.cif"]


def test_rank_correlation_needs_three_crystals(tables):
    rows = [{"dE CHGNet": -value, "dE DFT": -(value**2)} for value in (1, 2, 3)]
    assert tables._correlation(rows, "dE") == 1.0
    assert tables._correlation(rows[:2], "dE") is None
    assert tables._correlation([*rows, {"dE CHGNet": 0.0, "dE DFT": None}], "dE") == 1.0
