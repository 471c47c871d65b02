"""Energies: what a potential may see, what each crystal costs the others (nothing), and what a kill leaves behind."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.calculators.emt import EMT
from pymatgen.core import Lattice

from crystens.crystal import Crystal
from crystens.energies.energies import EnergyOptions, energies
from crystens.energies.potentials import CHGNet, Matgl, Potential, compact, objection
from crystens.energies.relaxation import Energy, Relaxation, displacements
from crystens.errors import CrystensError
from crystens.sources.reasons import category_counts

TESTS = Path(__file__).parent


class Stub(Potential):
    """Gives -1 eV an atom, and writes down what it was asked; some cells (by a, angstrom) do something else."""

    def __init__(self, log: Path | None = None, pause: float = 0.0) -> None:
        self.log = log
        self.pause = pause
        self.identity = "stub 1"
        self.scales = (self.identity,)

    def calculator(self) -> Any:
        return EMT()

    def energy(self, crystal: Crystal) -> float:
        length = round(float(crystal.lengths[0]), 3)
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"{length}\n")
        time.sleep(self.pause)
        match length:
            case 4.001:
                if self.log is not None:
                    self.log.with_name("hangs").write_text(str(os.getpid()))
                while True:
                    pass
            case 4.002:
                os.kill(os.getpid(), signal.SIGSEGV)
            case 4.003:
                raise ZeroDivisionError("of the potential")
            case 4.004:
                return float("nan")
            case 4.005:
                _ = np.ones(2**31).sum()  # 16 GiB
        return -float(len(crystal))


class Broken(Stub):
    """Cannot be loaded."""

    def calculator(self) -> Any:
        raise ImportError("no such network")


def _cubic(length: float, number: int = 29) -> Crystal:
    return Crystal([length] * 3, [90] * 3, 221, [number], np.zeros((1, 3)))


def _options(folder: Path, **options: Any) -> EnergyOptions:
    return EnergyOptions(**{"workers": 0, "cache": folder} | options)


def _asked(log: Path) -> list[float]:
    return [float(line) for line in log.read_text().split()] if log.exists() else []


# What a potential may see


def test_real_crystals_may_be_seen(nacl, copper_primitive, single_atom, triclinic, sites_52, quartz):
    for crystal in (nacl, copper_primitive, single_atom, triclinic, sites_52, quartz):
        assert objection(crystal, Stub()) is None


@pytest.mark.parametrize(
    ("crystal", "category"),
    [
        (_cubic(0.4), "atoms too near"),  # its own images
        (Crystal([4] * 3, [90] * 3, 1, [11, 17], [[0.01, 0, 0], [0.99, 0, 0]]), "atoms too near"),  # over the border
        (Crystal([10] * 3, [5] * 3, 1, [29], np.zeros((1, 3))), None),  # 0.87 angstrom between images
        (Crystal([5] * 3, [5] * 3, 1, [29], np.zeros((1, 3))), "atoms too near"),
        (_cubic(6.1), "isolated atom"),
        (Crystal([20, 4, 20], [90] * 3, 1, [29, 29], [[0, 0, 0], [0.5, 0.5, 0.5]]), None),  # chains see themselves
        (Crystal([20] * 3, [90] * 3, 1, [29, 29, 29], [[0, 0, 0], [0.1, 0, 0], [0.5, 0.5, 0.5]]), "isolated atom"),
        (_cubic(3.0, number=95), "element unknown to the potential"),
        (_cubic(3.0, number=94), None),
    ],
)
def test_guards(crystal, category):
    reason = objection(crystal, Stub())
    assert (reason and reason.split(": ")[0]) == category


def _skewed(crystal: Crystal) -> Crystal:
    structure = crystal.to_structure()
    structure.make_supercell([[1, 3, 0], [0, 1, 0], [2, 0, 1]])
    return Crystal.from_structure(structure, crystal.space_group)


def test_compact_cell_holds_the_same_crystal(sites_52, quartz):
    for crystal in (sites_52, quartz):
        skewed = _skewed(crystal)
        assert skewed.angles.min() < 30
        small = compact(skewed)
        assert small.angles.min() >= 30
        assert small.angles.max() <= 150
        assert small.numbers.tolist() == skewed.numbers.tolist()
        for other in (skewed, small):
            distances = other.to_structure().distance_matrix
            assert np.abs(distances - skewed.to_structure().distance_matrix).max() < 1e-6
        assert np.linalg.det(small.lattice.matrix) == pytest.approx(np.linalg.det(crystal.lattice.matrix))
    assert compact(quartz) is quartz


# What each crystal costs


def test_one_bad_crystal_costs_itself_and_nothing_else(tmp_path):
    lengths = [4.0, 4.001, 4.1, 4.002, 4.003, 0.3, 4.004, 4.005, 4.2]
    crystals = [_cubic(length) for length in lengths]
    found = energies(crystals, Stub(), _options(tmp_path, workers=2, time_limit=2.0, memory_limit=4.0))
    assert [energy.total for energy in found] == [-1, None, -1, None, None, None, None, None, -1]
    assert found[1].reason == "the potential takes too long: more than 2 s"
    assert found[3].reason.startswith("the potential broke down: its process ended with status")
    assert found[4].reason == "the potential failed: ZeroDivisionError: of the potential"
    assert found[5].reason.startswith("atoms too near: 0.3 angstrom")
    assert found[6].reason == "the energy is not a finite number: nan"
    assert found[7].reason.split(": ")[0] in ("the potential failed", "the potential broke down")
    counts = category_counts(energy.reason for energy in found)
    assert sum(counts.values()) == 6


@pytest.mark.parametrize("workers", [0, 1])
def test_potential_that_cannot_be_loaded_is_told_and_ends_and_is_no_failure_of_a_crystal(tmp_path, workers):
    options = _options(tmp_path, workers=workers)
    with pytest.raises(CrystensError, match="stub 1 cannot be loaded: ImportError: no such network"):
        energies([_cubic(4.0)], Broken(), options)
    assert energies([_cubic(4.0)], Stub(), options)[0].total == -1  # of the same identity


def test_threads_are_as_before(tmp_path):
    torch.set_num_threads(2)
    energies([_cubic(4.0)], Stub(), _options(tmp_path))
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


def test_impossible_options_are_refused():
    for wrong in ({"workers": -1}, {"time_limit": 0}, {"memory_limit": 0}):
        with pytest.raises(CrystensError):
            EnergyOptions(**wrong)
    for wrong in ({"steps": 0}, {"force": 0}):
        with pytest.raises(CrystensError):
            Relaxation(**wrong)


# Relaxation, by a real if simple potential


def test_relaxed_copper_has_the_lattice_constant_of_the_potential(tmp_path, copper_primitive):
    pressed = replace(copper_primitive, lengths=0.97 * copper_primitive.lengths)
    (found,) = energies([pressed], Stub(), _options(tmp_path, relaxation=Relaxation(steps=200, force=0.001)))
    done = found.relaxed
    assert done.converged
    assert done.crystal.lengths * 2**0.5 == pytest.approx(np.full(3, 3.59), abs=0.01)  # of ASE's EMT
    assert found.total < done.energy_before
    assert done.pressure_before > 10 > abs(done.pressure_after) * 100
    assert done.volume_change == pytest.approx((done.crystal.lengths[0] / pressed.lengths[0]) ** 3 - 1, rel=1e-4)
    assert done.displacement < 1e-6  # the cell swelled, no site moved in it


def test_displacement_is_the_shortest_way_in_a_skewed_cell() -> None:
    # A cubic lattice of 4 angstrom, its b by 7 a further: rounding fractional differences finds ways of 3.8 angstrom.
    lattice = Lattice([[4.0, 0, 0], [4 * 7.0, 4, 0], [0, 0, 4]])
    numbers, places = np.array([84, 84]), np.array([[0.1, 0.1, 0.1], [0.1, 0.1, 0.6]])
    moved = places + lattice.get_fractional_coords([[0.0, 0.6, 0.0], [0.0, -0.6, 0.0]])
    before, after = (Crystal(lattice.lengths, lattice.angles, 1, numbers, place % 1) for place in (places, moved))
    np.testing.assert_allclose(displacements(before, after), [0.6, 0.6], atol=1e-5)


def test_displacement_is_the_way_of_the_site_that_moved(tmp_path):
    places = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    moved = places.copy()
    moved[0] = [0.98, 0, 0]  # over the border, 0.072 angstrom from its place
    crystal = Crystal([3.59] * 3, [90] * 3, 1, [29] * 4, moved)
    relaxation = Relaxation(steps=200, force=0.001, cell=False)
    (found,) = energies([crystal], Stub(), _options(tmp_path, relaxation=relaxation))
    # The four of them come to rest relative to each other: one by 3/4 of the way, three by 1/4.
    assert found.relaxed.displacement == pytest.approx(0.0718 * 3 / 4, abs=1e-3)
    assert found.relaxed.mean_displacement == pytest.approx(0.0718 * 6 / 16, abs=1e-3)
    assert found.relaxed.volume_change == pytest.approx(0, abs=1e-12)


def test_step_limit_ends_a_relaxation_that_says_so(tmp_path, copper_primitive):
    pressed = replace(copper_primitive, lengths=0.9 * copper_primitive.lengths)
    (found,) = energies([pressed], Stub(), _options(tmp_path, relaxation=Relaxation(steps=3, force=0.001)))
    assert not found.relaxed.converged
    assert found.relaxed.steps == 3
    assert found.total is not None


# The cache


def test_second_run_asks_nothing(tmp_path):
    log = tmp_path / "log"
    crystals = [_cubic(4.0), _cubic(4.1), _cubic(0.3), _cubic(4.0), _cubic(4.003)]
    first = energies(crystals, Stub(log), _options(tmp_path))
    assert sorted(_asked(log)) == [4.0, 4.003, 4.1]  # the same crystal once
    second = energies(crystals, Stub(log), _options(tmp_path))
    assert len(_asked(log)) == 3
    assert [(energy.total, energy.reason) for energy in first] == [(energy.total, energy.reason) for energy in second]


def test_relaxed_crystals_come_back_bit_for_bit(tmp_path, copper_primitive):
    options = _options(tmp_path, relaxation=Relaxation(steps=5))
    pressed = replace(copper_primitive, lengths=0.97 * copper_primitive.lengths)
    (first,), (second,) = (energies([pressed], Stub(), options) for _ in range(2))
    assert first.relaxed is not second.relaxed
    assert _values(first) == _values(second)
    other = energies([pressed], Stub(), _options(tmp_path, relaxation=Relaxation(steps=6)))
    assert other[0].relaxed.steps == 6


def _values(energy: Energy) -> list[Any]:
    relaxed = vars(energy.relaxed).copy()
    crystal = relaxed.pop("crystal")
    return [energy.total, relaxed, *(np.asarray(value).tolist() for value in vars(crystal).values())]


def test_failure_is_tried_again_under_wider_limits_only(tmp_path):
    log = tmp_path / "log"
    for limit, asked in ((1.0, 1), (0.5, 1), (1.5, 2), (1.0, 2)):
        options = _options(tmp_path, workers=1, time_limit=limit)
        (found,) = energies([_cubic(4.001)], Stub(log), options)
        assert found.reason.startswith("the potential takes too long")
        assert len(_asked(log)) == asked


def test_another_potential_has_another_file(tmp_path):
    other = Stub()
    other.identity = "stub 2"
    for potential in (Stub(), other):
        energies([_cubic(4.0)], potential, _options(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stub-1.sqlite", "stub-2.sqlite"]


_SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_energy import Stub, _sixty
from crystens.energies.energies import EnergyOptions, energies
if __name__ == "__main__":
    folder = Path(sys.argv[2])
    options = EnergyOptions(workers=2, cache=folder)
    energies(_sixty(), Stub(folder / "log", pause=0.05), options)
"""


@pytest.mark.slow
def test_killed_run_goes_on_where_it_stopped(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    command = [sys.executable, str(script), str(TESTS), str(tmp_path)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(_stored(tmp_path)) < 10 and time.monotonic() < deadline:
        time.sleep(0.02)
    running.kill()
    running.wait()
    time.sleep(0.5)  # workers end after the crystal that they are at
    stored, asked = len(_stored(tmp_path)), len(_asked(tmp_path / "log"))
    assert 10 <= stored < 60
    found = energies(_sixty(), Stub(tmp_path / "log"), _options(tmp_path))
    assert [energy.total for energy in found] == [-1] * 60
    assert len(_stored(tmp_path)) == 60
    # What is stored is not computed again; what was under way at the kill is.
    assert len(_asked(tmp_path / "log")) - asked == 60 - stored
    assert asked - stored <= 6


_HANGING = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_energy import Stub, _cubic
from crystens.energies.energies import EnergyOptions, energies
if __name__ == "__main__":
    folder = Path(sys.argv[2])
    energies([_cubic(4.001)], Stub(folder / "log"), EnergyOptions(cache=folder))
"""


@pytest.mark.slow
def test_worker_ends_with_the_run_that_was_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(_HANGING)
    command = [sys.executable, str(script), str(TESTS), str(tmp_path)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "hangs").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    worker = int((tmp_path / "hangs").read_text())
    running.kill()
    running.wait()
    deadline = time.monotonic() + 10
    while _is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_alive(worker)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _sixty() -> list[Crystal]:
    return [_cubic(3 + k / 100) for k in range(60)]


def _stored(folder: Path) -> set[str]:
    path = folder / "stub-1.sqlite"
    try:
        return {key for (key,) in sqlite3.connect(f"file:{path}?mode=ro", uri=True).execute("SELECT key FROM results")}
    except sqlite3.OperationalError:  # the file, or its table, is not there yet
        return set()


# CHGNet itself


@pytest.fixture(scope="module")
def chgnet() -> CHGNet:
    pytest.importorskip("chgnet", reason="CHGNet is not installed: pip install 'crystens[energy]'")
    return CHGNet()


def test_chgnet_gives_what_its_own_calculator_gives(tmp_path, chgnet, nacl, triclinic, copper_primitive):
    crystals = [nacl, triclinic, copper_primitive, _skewed(nacl)]
    found = energies(crystals, chgnet, _options(tmp_path))
    for crystal, energy in zip(crystals[:3], found, strict=False):
        own = Potential.energy(chgnet, crystal)  # by ASE
        assert energy.total / len(crystal) == pytest.approx(own / len(crystal), abs=1e-6)
    assert found[3].total == pytest.approx(found[0].total, abs=1e-4)
    # With the Materials Project's correction of chlorine in it, -0.31 eV/atom here.
    assert found[0].total / 8 == pytest.approx(-3.67, abs=0.02)


def test_chgnet_in_a_worker_is_the_same(tmp_path, chgnet, nacl):
    (here,) = energies([nacl], chgnet, _options(tmp_path / "a"))
    (there,) = energies([nacl], chgnet, _options(tmp_path / "b", workers=1))
    assert there.reason is None
    assert there.total == here.total


def test_chgnet_relaxes_rocksalt(tmp_path, chgnet, nacl):
    stretched = replace(nacl, lengths=1.03 * nacl.lengths)
    (found,) = energies([stretched], chgnet, _options(tmp_path, relaxation=Relaxation(steps=30, force=0.05)))
    assert found.relaxed.converged
    assert found.total < found.relaxed.energy_before
    assert found.relaxed.crystal.lengths == pytest.approx(np.full(3, 5.69), abs=0.07)


@pytest.fixture
def small_network(tmp_path) -> Path:
    """Return a folder with an M3GNet of two elements, untrained."""
    pytest.importorskip("matgl", reason="matgl is not installed: pip install 'crystens[matgl]'")
    from matgl.apps.pes import Potential as Network
    from matgl.models import M3GNet

    torch.manual_seed(0)
    size = {"dim_node_embedding": 8, "dim_edge_embedding": 8, "units": 8, "nblocks": 1}
    network = M3GNet(element_types=("Na", "Cl"), is_intensive=False, readout_type="weighted_atom", cutoff=4.0, **size)
    Network(network).save(tmp_path / "small")
    return tmp_path / "small"


def test_matgl_is_read_from_a_folder(tmp_path, small_network, nacl, copper_primitive):
    potential = Matgl(small_network)
    assert potential.scales == (potential.identity,)
    options = _options(tmp_path, workers=1, relaxation=Relaxation(steps=2))
    found = energies([nacl, copper_primitive], potential, options)
    assert found[0].relaxed.steps <= 2
    assert found[0].relaxed.energy_before == pytest.approx(Potential.energy(potential, nacl), abs=1e-5)
    assert found[1].reason == "element unknown to the potential: Cu"
    assert potential.cutoff == 4


def test_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(CrystensError, match="give a folder that matgl saved"):
        Matgl(tmp_path)


def test_unknown_weights_are_refused():
    with pytest.raises(CrystensError, match="are not known for CHGNet"):
        CHGNet("0.9")
