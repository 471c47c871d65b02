"""The distance of energy per atom names its model, counts what has no energy, and computes each crystal once."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from crystens import evaluate as evaluate_module
from crystens.cif.write import write_cif
from crystens.crystal import Crystal
from crystens.energies.energies import EnergyOptions
from crystens.energies.potentials import SHIPPED, CHGNet, Potential, shipped
from crystens.energies.relaxation import Relaxation
from crystens.errors import CrystensError
from crystens.evaluate import main
from crystens.metrics.crystal_table import ENERGY_COLUMNS, Row, crystal_row, failed_row
from crystens.protocol.energy_distance import EnergyDistance


class Stub(Potential):
    """Gives minus a (eV an atom, angstrom), and writes down what it was asked; fails at 4.3, no number at 4.4."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.identity = "stub 1"
        self.scales = (self.identity,)

    def calculator(self) -> Any:
        return None

    def energy(self, crystal: Crystal) -> float:
        length = round(float(crystal.lengths[0]), 3)
        with self.log.open("a") as file:
            file.write(f"{length}\n")
        if length == 4.3:
            raise ZeroDivisionError("of the potential")
        return float("nan") if length == 4.4 else -length * len(crystal)

    def asked(self) -> list[float]:
        """Return the lengths of the cells that it was asked for."""
        return [float(line) for line in self.log.read_text().split()] if self.log.exists() else []


def cubic(length: float) -> Crystal:
    """Caesium chloride's two sites."""
    return Crystal([length] * 3, [90] * 3, 221, [55, 17], np.array([[0, 0, 0], [0.5, 0.5, 0.5]]))


def alone(length: float) -> Crystal:
    """One site."""
    return Crystal([length] * 3, [90] * 3, 221, [29], np.zeros((1, 3)))


@pytest.fixture
def stub(tmp_path: Path) -> Stub:
    return Stub(tmp_path / "asked")


def distance(real: Sequence[Crystal], stub: Stub, **options: Any) -> EnergyDistance:
    made = EnergyOptions(**{"workers": 0, "cache": stub.log.with_name("cache")} | options)
    return EnergyDistance(real, "real", stub, made)


def measured(judge: EnergyDistance, samples: Sequence[Crystal | None], drawn: Sequence[int]) -> list[Row]:
    rows = [failed_row(k, "no crystal") if one is None else crystal_row(k, one) for k, one in enumerate(samples)]
    return judge.measured(rows, drawn, {k: one for k, one in enumerate(samples) if one is not None})


def test_the_distance_is_of_drawn_samples_to_all_real_crystals_in_ev_an_atom(stub: Stub) -> None:
    judge = distance([cubic(4.0), cubic(4.1), alone(3.0)], stub)
    rows = measured(judge, [cubic(4.2), None, alone(2.5), cubic(9.0)], [0, 2])
    found = judge.metrics([rows[0], rows[2]], "2 valid samples", {"valid_samples": 3})["wasserstein_energy"]
    assert found["value"] == pytest.approx(wasserstein_distance([-4.2, -2.5], [-4.0, -4.1, -3.0]))
    assert (found["unit"], found["count"], found["reference_count"]) == ("eV/atom", 2, 3)
    assert found["model"] == "stub 1"
    assert "by stub 1, not relaxed, of 2 valid samples and those of real" in found["description"]
    assert found["valid_samples"] == 3
    assert "statement" not in found
    assert [row["energy_per_atom"] for row in rows] == [-4.2, None, -2.5, None]
    assert 9.0 not in stub.asked()  # valid or not, it is not drawn


def test_what_has_no_energy_is_counted_and_said(stub: Stub) -> None:
    judge = distance([cubic(4.0), cubic(4.3)], stub)
    rows = measured(judge, [cubic(4.0), cubic(4.3), cubic(4.4), cubic(50.0)], range(4))
    found = judge.metrics(rows, "4 valid samples", {"statement": "only 4 samples are valid"})
    assert found["wasserstein_energy"]["value"] == 0
    assert (found["wasserstein_energy"]["count"], found["wasserstein_energy"]["reference_count"]) == (1, 1)
    assert found["wasserstein_energy"]["statement"] == (
        "only 4 samples are valid; 3 of 4 drawn samples and 1 of 2 crystals of real have no energy and are left out"
    )
    assert (found["energy_failures"]["value"], found["energy_failures"]["count"]) == (3, 4)
    assert found["energy_failures"]["reasons"] == {
        "the potential failed": 1,
        "the energy is not a finite number": 1,
        "isolated atom": 1,
    }
    assert (found["reference_energy_failures"]["value"], found["reference_energy_failures"]["count"]) == (1, 2)
    assert judge.about()["reference_without_energy"] == 1
    assert rows[1]["energy_reason"] == "the potential failed: ZeroDivisionError: of the potential"
    json.dumps(found, allow_nan=False)


def test_no_energy_at_all_is_null_and_no_crash(stub: Stub) -> None:
    judge = distance([cubic(4.0)], stub)
    failed = judge.metrics(measured(judge, [cubic(4.3)], [0]), "1 valid sample", {})["wasserstein_energy"]
    assert (failed["value"], failed["count"]) == (None, 0)
    nothing = judge.metrics([], "0 valid samples", {})
    assert nothing["wasserstein_energy"]["value"] is None
    assert nothing["energy_failures"]["value"] == 0
    no_reference = distance([cubic(4.4)], stub)
    rows = measured(no_reference, [cubic(4.0)], [0])
    assert no_reference.metrics(rows, "1 valid sample", {})["wasserstein_energy"]["value"] is None


def test_each_size_is_compared_with_its_own(stub: Stub) -> None:
    judge = distance([cubic(4.0), cubic(4.3), alone(3.0)], stub)
    rows = measured(judge, [cubic(4.5), cubic(4.6), None], [0])
    table = judge.by_num_sites([{"num_sites": size} for size in (1, 2, None)], rows)
    names = ("num_sites", "energies", "reference_energies", "wasserstein_energy")
    assert [tuple(line[name] for name in names) for line in table] == [
        (1, 0, 1, None),
        (2, 1, 1, pytest.approx(0.5)),
        (None, 0, 0, None),
    ]


def test_each_crystal_is_computed_once_also_after_an_interruption(stub: Stub) -> None:
    def stop(done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    options = EnergyOptions(workers=0, cache=stub.log.with_name("cache"))
    real = [cubic(4.0), cubic(4.1), cubic(4.2)]
    with pytest.raises(KeyboardInterrupt):
        EnergyDistance(real, "real", stub, options, stop)
    assert stub.asked() == [4.0, 4.1]
    seen: list[int] = []
    EnergyDistance(real, "real", stub, options, seen.append)
    assert stub.asked() == [4.0, 4.1, 4.2]
    assert seen == [2, 3]


def test_a_relaxation_is_refused_and_so_is_an_unknown_name(stub: Stub) -> None:
    with pytest.raises(CrystensError, match="unrelaxed crystals; leave out Relaxation"):
        distance([cubic(4.0)], stub, relaxation=Relaxation())
    with pytest.raises(CrystensError, match="potential 'x' is not known; use one of chgnet, "):
        shipped("x")


# The command line


@pytest.fixture
def sound(nacl: Crystal, tmp_path: Path) -> Path:
    """A folder with three crystals, all valid; the potential fails at the last one."""
    pytest.importorskip("matminer", reason="the extra metrics is not installed")
    pytest.importorskip("smact", reason="the extra metrics is not installed")
    folder = tmp_path / "sound"
    folder.mkdir()
    for name, crystal in {"a": nacl, "b": cubic(4.1), "c": cubic(4.3)}.items():
        (folder / f"{name}.cif").write_text(write_cif(crystal))
    return folder


def command(sound: Path, out: Path, *more: str) -> list[str]:
    protocol = ["--protocol", "cdvae", "--cutoffs", "0.2", "4", "--workers", "0"]
    return [str(sound), "--out", str(out), "--reference", str(sound), *protocol, *more]


def read(out: Path) -> tuple[dict[str, Any], list[dict[str, str]], list[dict[str, str]]]:
    tables = []
    for name in ("crystals.csv", "by_num_sites.csv"):
        with (out / name).open(newline="") as file:
            tables.append(list(csv.DictReader(file)))
    return json.loads((out / "metrics.json").read_text()), tables[0], tables[1]


def test_the_command_adds_energies_and_changes_nothing_else(
    sound: Path, stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(evaluate_module, "shipped", {"chgnet": stub}.__getitem__)
    monkeypatch.setenv("CRYSTENS_CACHE", str(tmp_path / "cache"))
    assert main(command(sound, tmp_path / "with", "--energy-model", "chgnet")) == 0
    assert "wasserstein_energy" in capsys.readouterr().out
    assert main(command(sound, tmp_path / "without")) == 0
    assert "energy" not in capsys.readouterr().out
    metrics, rows, sizes = read(tmp_path / "with")
    plain, plain_rows, plain_sizes = read(tmp_path / "without")

    assert metrics["wasserstein_energy"]["value"] == 0
    assert metrics["wasserstein_energy"]["count"] == metrics["wasserstein_energy"]["reference_count"] == 2
    assert [row["energy_per_atom"] for row in rows] == ["-5.64", "-4.1", ""]
    assert rows[2]["energy_reason"].startswith("the potential failed: ")
    assert [(line["energies"], line["wasserstein_energy"]) for line in sizes] == [("1", "0"), ("1", "0")]
    assert sorted(stub.asked()) == [4.1, 4.3, 5.64]  # real crystals and samples are the same, and computed once
    about = metrics["provenance"]["value"]["protocol"].pop("energies")
    assert about["model"] == "stub 1"

    for name in ("wasserstein_energy", "energy_failures", "reference_energy_failures"):
        assert metrics.pop(name)
    assert metrics == plain
    for table, without in ((rows, plain_rows), (sizes, plain_sizes)):
        added = {*ENERGY_COLUMNS, "energies", "reference_energies", "wasserstein_energy"}
        assert [{name: cell for name, cell in row.items() if name not in added} for row in table] == without


def test_energies_need_the_protocol(sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(sound), "--out", str(tmp_path / "out"), "--energy-model", "chgnet"]) == 1
    assert capsys.readouterr().err == (
        "error: --energy-model adds to what --protocol cdvae compares: give --protocol cdvae too\n"
    )


# CHGNet itself


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_potentials_are_named_with_their_version_and_weights(name: str) -> None:
    pytest.importorskip("chgnet", reason="CHGNet is not installed: pip install 'crystens[energy]'")
    assert shipped(name).identity.startswith("chgnet 0.4")
    assert shipped(name).identity.endswith(f"weights {SHIPPED[name]}")


@pytest.mark.slow
def test_chgnet_tells_strained_rocksalt_from_rocksalt(nacl: Crystal, copper_primitive: Crystal, tmp_path: Path) -> None:
    pytest.importorskip("chgnet", reason="CHGNet is not installed: pip install 'crystens[energy]'")
    judge = EnergyDistance([nacl, copper_primitive], "real", CHGNet(), EnergyOptions(workers=0, cache=tmp_path))
    same = judge.metrics(measured(judge, [copper_primitive, nacl], [0, 1]), "2 valid samples", {})
    assert same["wasserstein_energy"]["value"] == 0
    strained = replace(nacl, lengths=1.05 * nacl.lengths)
    rows = measured(judge, [copper_primitive, strained], [0, 1])
    away = judge.metrics(rows, "2 valid samples", {})["wasserstein_energy"]
    assert rows[0]["energy_per_atom"] == pytest.approx(-4.1, abs=0.1)  # the Materials Project's is -4.10
    assert 0.005 < away["value"] < 0.1
    assert away["model"].startswith("chgnet ")
