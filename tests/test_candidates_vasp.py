"""Inputs of VASP hold the paper's numbers when pymatgen reads them, and its runs come back, ended or not."""

from __future__ import annotations

import csv
import gzip
import os
import re
import shutil
import subprocess
from pathlib import Path

import ase
import pytest
from pymatgen.io.vasp.inputs import Incar, Kpoints, Poscar

from crystens.candidates.folder import parse_runs
from crystens.crystal import Crystal
from crystens.dft.engines import VASP
from crystens.dft.local_runs import run_here
from crystens.dft.vasp import write_inputs
from crystens.dft.vasp_runs import read_runs
from crystens.errors import CrystensError
from crystens.symmetry.space_groups import space_group_number

# Real output of VASP, which ASE ships for its own tests.
RECORDED = Path(ase.__file__).parent / "test" / "testdata" / "vasp"
ROCK_SALT = RECORDED / "vasprun_dfpt.xml"  # NaCl, 2 sites, static
DIAMOND = RECORDED / "vasprun_pstress.xml"  # C2, static, under pressure

recorded = pytest.mark.skipif(not DIAMOND.is_file(), reason="this ASE does not ship the output of VASP")


@pytest.fixture(autouse=True)
def _no_licence(monkeypatch) -> None:
    """Let no setting of the user's pymatgen decide."""
    monkeypatch.setattr("pymatgen.io.vasp.inputs.SETTINGS", {})


# Inputs


def test_files_hold_the_papers_numbers_when_read_back(tmp_path, nacl, quartz, sites_52):
    for name, crystal in (("nacl", nacl), ("quartz", quartz), ("brass", sites_52)):
        folder = tmp_path / name
        write_inputs(crystal, folder, name, "as cleaned")
        incar = Incar.from_file(folder / "INCAR")
        expected = {"ENCUT": 400, "EDIFF": 1e-5, "ISMEAR": 0, "SIGMA": 0.1, "IBRION": 2, "ISIF": 3, "NSW": 100}
        mixing = {"LMAXMIX": 4} if name == "brass" else {}  # pymatgen's for d electrons; no energy depends on it
        assert {key: value for key, value in incar.items() if key != "GGA"} == expected | mixing
        assert "GGA = PS\n" in (folder / "INCAR").read_text()
        grid = Kpoints.from_file(folder / "KPOINTS")
        assert grid.kpts == [(3, 3, 3)]
        assert grid.style.name == "Gamma"
        structure = Poscar.from_file(folder / "POSCAR", check_for_potcar=False).structure
        assert len(structure) == len(crystal)
        read = Crystal.from_structure(structure, 1)
        assert space_group_number(read.lengths, read.angles, read.numbers, read.coordinates) == crystal.space_group
        # One pseudopotential for each element, in the order of POSCAR, in one block each.
        elements = (folder / "POSCAR").read_text().splitlines()[5].split()
        spec = (folder / "POTCAR.spec").read_text().split()
        assert [symbol.split("_")[0] for symbol in spec] == elements
        assert len(elements) == len(set(elements)) == len(set(crystal.numbers.tolist()))


def test_without_a_licence_nothing_fails_and_the_folder_says_what_is_missing(tmp_path, nacl):
    missing = write_inputs(nacl, tmp_path, "nacl", "as cleaned")
    assert "PMG_VASP_PSP_DIR is not set" in missing
    text = (tmp_path / "README.txt").read_text()
    assert "make POTCAR of Na_pv Cl (PBE_54)" in text
    assert not (tmp_path / "POTCAR").exists()
    done = _run(tmp_path, "true")
    assert done.returncode == 1
    assert "no POTCAR here; see README.txt" in done.stderr


def test_licence_folder_without_these_files_does_not_fail_either(tmp_path, nacl, monkeypatch):
    monkeypatch.setattr("pymatgen.io.vasp.inputs.SETTINGS", {"PMG_VASP_PSP_DIR": str(tmp_path)})
    assert "cannot read your licensed files" in write_inputs(nacl, tmp_path / "out", "nacl", "as cleaned")


# A stand-in for VASP: lengthens the cell by 1 % and counts its runs.
_VASP = """#!/bin/sh
sed '2s/.*/'"$(awk 'NR==2 {print $1 * 1.01}' POSCAR)"'/' POSCAR > CONTCAR
echo x >> ../count
[ ! -e ../fail ] || rm CONTCAR
"""


def _run(folder: Path, command: str | None) -> subprocess.CompletedProcess[str]:
    variables = {key: value for key, value in os.environ.items() if key != "VASP_COMMAND"}
    if command is not None:
        variables["VASP_COMMAND"] = command
    return subprocess.run([str(folder / "run.sh")], env=variables, capture_output=True, text=True, check=False)


def test_script_runs_four_in_a_row_and_goes_on_after_a_failure(tmp_path, nacl):
    folder, vasp = tmp_path / "a folder", tmp_path / "vasp"
    vasp.write_text(_VASP)
    write_inputs(nacl, folder, "nacl", "as cleaned")
    (folder / "POTCAR").write_text("stands for one\n")
    assert "set VASP_COMMAND" in _run(folder, None).stderr
    (folder / "fail").touch()
    failed = _run(folder, f"sh {vasp}")
    assert failed.returncode == 1
    assert "run_1 left no CONTCAR" in failed.stderr
    (folder / "fail").unlink()
    assert _run(folder, f"sh {vasp}").returncode == 0
    assert (folder / "count").read_text().count("x") == 5
    for run in range(1, 5):
        scale = float((folder / f"run_{run}" / "CONTCAR").read_text().splitlines()[1])
        assert scale == pytest.approx(1.01**run, rel=1e-4)
        assert (folder / f"run_{run}" / "INCAR").read_text() == (folder / "INCAR").read_text()
    assert _run(folder, f"sh {vasp}").returncode == 0  # nothing is left to run
    assert (folder / "count").read_text().count("x") == 5


def test_vasp_is_run_by_the_same_command(tmp_path, nacl, monkeypatch):
    vasp, folder = tmp_path / "vasp", VASP.inputs(tmp_path, "01_NaCl")
    vasp.write_text(_VASP)
    VASP.write_inputs(nacl, folder, "nacl", "as cleaned")
    monkeypatch.delenv("VASP_COMMAND", raising=False)
    with pytest.raises(CrystensError, match="VASP_COMMAND is not set; set VASP_COMMAND to the command"):
        run_here(tmp_path, ["01_NaCl"], VASP)
    monkeypatch.setenv("VASP_COMMAND", f"sh {vasp}")
    with pytest.raises(CrystensError, match=r"01_NaCl: no POTCAR in .*; see README\.txt there"):
        run_here(tmp_path, ["01_NaCl"], VASP)
    (folder / "POTCAR").write_text("stands for one\n")
    (folder / "KPOINTS").rename(folder / "away")
    with pytest.raises(CrystensError, match=r"no KPOINTS in .*; write it again with"):
        run_here(tmp_path, ["01_NaCl"], VASP)
    (folder / "away").rename(folder / "KPOINTS")
    (done,) = run_here(tmp_path, ["01_NaCl"], VASP)
    assert (done.done, done.reason) == (4, None)
    assert (folder / "count").read_text().count("x") == 4


def test_runs_of_another_crystal_are_not_mixed_with_new_inputs(tmp_path, nacl, quartz):
    write_inputs(nacl, tmp_path, "nacl", "as cleaned")
    (tmp_path / "run_1").mkdir()
    write_inputs(nacl, tmp_path, "nacl", "as cleaned")
    with pytest.raises(CrystensError, match="runs of VASP of another POSCAR"):
        write_inputs(quartz, tmp_path, "quartz", "as cleaned")


# Runs


def _place(folder: Path, run: str, content: bytes, name: str = "vasprun.xml") -> None:
    (folder / run).mkdir(parents=True)
    (folder / run / name).write_bytes(content)


@recorded
def test_finished_run_has_the_numbers_of_its_file(tmp_path):
    _place(tmp_path, "run_1", DIAMOND.read_bytes())
    _place(tmp_path, "run_2", gzip.compress(DIAMOND.read_bytes()), "vasprun.xml.gz")
    first, second = read_runs(tmp_path)
    assert (first.run, first.status, first.reason, first.formula) == ("run_1", "finished", None, "C")
    assert first.energy == pytest.approx(-20.24010135)
    assert first.energy_per_atom == pytest.approx(-10.120050675)
    assert first.pressure == pytest.approx(-16.59956258)  # -165.9956258 kB in the file
    assert first.pressure_before == first.pressure  # of a single ionic step
    assert first.volume == pytest.approx(11.37482325)
    assert first.converged is True
    assert first.space_group == 227
    assert {**second.to_dict(), "run": "", "file": ""} == {**first.to_dict(), "run": "", "file": ""}


@recorded
def test_unfinished_and_broken_runs_stay_with_their_reason(tmp_path):
    whole = DIAMOND.read_bytes()
    _place(tmp_path, "run_1", whole[: len(whole) * 3 // 4])
    _place(tmp_path, "run_2", b"not XML")
    _place(tmp_path, "run_3", b"")
    (tmp_path / "run_4").mkdir()
    _place(tmp_path, "run_10", gzip.compress(whole)[:3000], "vasprun.xml.gz")
    found = read_runs(tmp_path)
    assert [run.run for run in found] == ["run_1", "run_2", "run_3", "run_4", "run_10"]
    assert [run.status for run in found] == ["unfinished", "broken", "broken", "unfinished", "unfinished"]
    assert found[0].reason.startswith("the file ends before the run did: ")
    assert found[1].reason.startswith("cannot be read: ")
    assert found[3].reason.startswith("no output: ")
    assert all(run.energy is run.pressure is run.converged is None for run in found)


@recorded
def test_run_that_is_not_converged_says_so(tmp_path):
    # The same electronic steps, but only as many as NELM allows: VASP stopped without reaching EDIFF.
    text = DIAMOND.read_text()
    steps = text.count("<scstep>")
    assert steps > 1
    changed, times = re.subn(r'(name="NELM">)\s*\d+', rf"\g<1>{steps}", text)
    assert times == 1
    _place(tmp_path, "run_1", changed.encode())
    (run,) = read_runs(tmp_path)
    assert (run.status, run.converged) == ("finished", False)


@recorded
def test_outcar_is_read_where_there_is_no_vasprun(tmp_path):
    outcar, poscar = RECORDED / "OUTCAR_example_1", RECORDED / "POSCAR_example_1"
    _place(tmp_path, "run_1", outcar.read_bytes(), "OUTCAR")
    shutil.copy(poscar, tmp_path / "run_1" / "CONTCAR")
    _place(tmp_path, "run_2", outcar.read_bytes()[:100_000], "OUTCAR")
    _place(tmp_path, "run_3", outcar.read_bytes(), "OUTCAR")
    first, short, bare = read_runs(tmp_path)
    assert first.status == "finished"
    assert first.energy == pytest.approx(-68.23102426)
    assert (first.pressure_before, first.pressure) == (pytest.approx(-0.446), pytest.approx(-0.446))
    assert first.converged is True
    assert short.status == bare.status == "unfinished"
    assert "without a CONTCAR" in bare.reason


@recorded
def test_parse_writes_every_candidate_beside_the_potentials_values(tmp_path):
    names = ["01_NaCl", "02_NaCl", "03_NaCl"]
    with (tmp_path / "candidates.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["rank", "name", "formula", "energy_relaxed", "volume_relaxed"])
        table.writerows([rank, name, "NaCl", -3.4, 22.0] for rank, name in enumerate(names, 1))
    text = ROCK_SALT.read_bytes()
    _place(tmp_path / "candidates" / names[0] / "vasp", "run_1", text)
    _place(tmp_path / "candidates" / names[0] / "vasp", "run_2", text[:30_000])
    _place(tmp_path / "candidates" / names[1] / "vasp", "run_1", DIAMOND.read_bytes())
    for _ in range(2):  # twice, and the same
        rows = parse_runs(tmp_path)
    assert [(row["name"], row["run"], row["status"]) for row in rows] == [
        ("01_NaCl", "run_1", "finished"),
        ("01_NaCl", "run_2", "unfinished"),
        ("02_NaCl", "run_1", "finished"),
        ("03_NaCl", "", "not begun"),
    ]
    assert rows[0]["minus_potential_energy"] == pytest.approx(rows[0]["energy_per_atom"] + 3.4)
    assert rows[0]["minus_potential_volume"] == pytest.approx(rows[0]["volume"] / 2 - 22)
    assert rows[1]["minus_potential_energy"] is None
    assert rows[2]["reason"] == "of another composition: C, the candidate is NaCl"
    with (tmp_path / "candidates.csv").open(newline="") as file:
        candidates = list(csv.DictReader(file))
    assert [row["dft_status"] for row in candidates] == ["unfinished", "finished", "not begun"]
    assert candidates[0]["energy_relaxed"] == "-3.4"
    with (tmp_path / "dft.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 4
    with pytest.raises(CrystensError, match=r"no candidates\.csv"):
        parse_runs(tmp_path / "candidates")
