"""Candidates: what is set aside is counted, what is changed is written down, and what is right is left alone."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.calculators.lj import LennardJones

pytest.importorskip("smact", reason="the extra candidates is not installed")

from crystens.candidates.__main__ import main
from crystens.candidates.changes import largest
from crystens.candidates.cleaning import Cleaned, CleaningOptions, clean, substitutions_of
from crystens.candidates.generated import Sample, read_generated
from crystens.candidates.neutrality import charge_verdict, repairs
from crystens.candidates.ranking import rank
from crystens.candidates.relaxations import relax_successively
from crystens.cif.write import write_cif
from crystens.crystal import Crystal
from crystens.energies import hull_entries
from crystens.energies.energies import EnergyOptions
from crystens.energies.entry_files import read_hull_reference
from crystens.energies.potentials import CHGNet, Potential
from crystens.energies.references import with_elements
from crystens.energies.relaxation import Relaxation
from crystens.errors import CrystensError
from crystens.symmetry.space_groups import group_within, symmetrised

pytestmark = pytest.mark.filterwarnings("ignore:No Pauling electronegativity")

# Energies of elements that any crystal of the soft potential lies below, so that all formation energies are known.
ELEMENTS = ("Na", "Cl", "Ar", "K", "Mg", "O", "Cu", "Al", "Zn", "Si", "Fe", "S")


class Soft(Potential):
    """Lennard-Jones, the same for all elements: only distances count."""

    def __init__(self) -> None:
        self.identity = "soft 1"
        self.scales = (self.identity,)
        self._calculator: Any = None
        self.asked = 0
        self.interrupted_at = -1

    def calculator(self) -> Any:
        self.asked += 1
        if self.asked == self.interrupted_at:
            raise KeyboardInterrupt
        if self._calculator is None:
            self._calculator = LennardJones(sigma=2.4, epsilon=0.1, rc=6.0, smooth=True)
        return self._calculator


def _options(folder: Path) -> EnergyOptions:
    return EnergyOptions(workers=0, cache=folder / "cache")


def _noisy(crystal: Crystal, size: float = 0.03, seed: int = 0) -> Crystal:
    """Move sites by so much, angstrom, at random; the origin too, and the cell a little."""
    noise = np.random.default_rng(seed).normal(0, size / 3**0.5, crystal.coordinates.shape) / crystal.lengths
    stretched = crystal.lengths * [1.003, 1, 0.998]
    return replace(crystal, coordinates=crystal.coordinates + noise + 0.02, lengths=stretched)


def _with(crystal: Crystal, old: int, new: int) -> Crystal:
    return replace(crystal, numbers=np.where(crystal.numbers == old, new, crystal.numbers))


def _cleaned(crystal: Crystal, generated: int | None = None, **options: Any) -> Cleaned:
    chosen = CleaningOptions(**{"found_tolerance": 0.1, **options})
    (substitution,) = substitutions_of([crystal], chosen, lambda tied: ([0.0] * len(tied), "nothing"))
    return clean(Sample("test", crystal, None, generated), crystal, substitution, chosen)


# Cleaning


def test_noisy_rock_salt_comes_back_and_every_change_is_written_down(nacl):
    noisy = _noisy(nacl)
    assert group_within(noisy, 0.01) == 1
    cleaned = _cleaned(noisy, generated=225)
    assert cleaned.crystal.space_group == 225
    assert group_within(cleaned.crystal, 1e-5) == 225
    assert cleaned.charge == "neutral"
    assert np.array_equal(cleaned.crystal.coordinates, nacl.coordinates)  # the simple fractions themselves
    assert len(set(cleaned.crystal.lengths)) == 1
    kinds = [change.what for change in cleaned.changes]
    assert kinds == ["space group", "cell", "origin", *["coordinates"] * 8]
    group = cleaned.changes[0]
    assert (group.before, group.after) == ("P1 (1)", "Fm-3m (225)")
    assert group.why == f"the generated space group, which the atoms have within {cleaned.tolerance} angstrom"
    shift = np.array(cleaned.changes[2].after)
    for site, change in enumerate(cleaned.changes[3:]):
        assert change.where.startswith(f"site {site + 1} ")
        assert change.before == pytest.approx(noisy.coordinates[site], abs=1e-6)
        assert change.after == pytest.approx(nacl.coordinates[site])
        steps = nacl.coordinates[site] + shift - noisy.coordinates[site]
        way = np.linalg.norm((steps - np.round(steps)) @ noisy.lattice.matrix)
        assert change.size == pytest.approx(way, abs=1e-4)
    assert 0.01 < largest(cleaned.changes, "coordinates") < 0.1


def test_generated_group_wins_where_the_atoms_have_it_and_only_there(nacl):
    # At 0.2 angstrom the atoms are 225, at 0.1 they are P1.
    noisy = _noisy(nacl, size=0.07, seed=3)
    wide = _cleaned(noisy, generated=225)
    assert (wide.crystal.space_group, wide.tolerance) == (225, 0.2)
    assert _cleaned(noisy, generated=225, generated_tolerance=0.1).crystal.space_group == 1
    assert _cleaned(noisy, generated=227).crystal.space_group == 1
    assert _cleaned(noisy, generated=227, found_tolerance=0.2).crystal.space_group == 225
    found = _cleaned(_noisy(nacl), generated=227)
    assert found.crystal.space_group == 225
    assert found.changes[0].why.endswith("within 0.1 angstrom; not the generated Fd-3m (227)")


def test_coordinates_that_symmetry_leaves_free_are_not_snapped(quartz):
    # u = 0.4697 of Si is free; one that is nearly a fraction stays where it is too.
    exact = symmetrised(quartz, 0.01).crystal
    cleaned = _cleaned(exact)
    assert largest(cleaned.changes, "coordinates") == 0
    assert cleaned.crystal.space_group == 152
    distances = cleaned.crystal.to_structure().distance_matrix
    assert distances == pytest.approx(exact.to_structure().distance_matrix, abs=1e-8)


def test_nearly_simple_fraction_of_a_free_coordinate_stays():
    # Tetragonal, z of O free: 0.2507 is not made 1/4.
    places = [[0, 0, 0], [0.5, 0.5, 0.5], [0, 0, 0.2507], [0, 0, 0.7493]]
    crystal = Crystal([4.0, 4.0, 8.0], [90] * 3, 123, [22, 22, 8, 8], np.array(places))
    cleaned = _cleaned(crystal)
    assert cleaned.crystal.coordinates[2] == pytest.approx([0, 0, 0.2507], abs=1e-12)
    assert not any(change.what == "coordinates" for change in cleaned.changes)


def test_clean_crystal_is_left_alone(nacl, copper_primitive, sites_52, single_atom):
    for crystal in (nacl, copper_primitive, sites_52, single_atom):
        cleaned = _cleaned(crystal, generated=crystal.space_group)
        assert cleaned.changes == ()
        assert np.array_equal(cleaned.crystal.numbers, crystal.numbers)
        assert cleaned.crystal.coordinates == pytest.approx(crystal.coordinates, abs=1e-9)


def test_merged_sites_are_a_change(nacl):
    cleaned = clean(Sample("test", nacl, None, 225, merged_sites=2), nacl, (None, ""), CleaningOptions())
    assert [(change.what, change.before, change.after) for change in cleaned.changes] == [("merged sites", 10, 8)]


def test_impossible_options_are_refused():
    for wrong in ({"max_shift": -1}, {"generated_tolerance": 0}, {"found_tolerance": 2}, {"oxidation_states": "icsd"}):
        with pytest.raises(CrystensError):
            CleaningOptions(**wrong)


# Charge


def test_argon_in_rock_salt_is_chlorine_and_the_change_says_so(nacl):
    cleaned = _cleaned(_with(nacl, 17, 18), generated=225)
    assert cleaned.charge == "repaired"
    assert cleaned.crystal.formula == "NaCl"
    (change,) = cleaned.changes
    assert (change.what, change.where, change.before, change.after) == ("element", "all 4 sites of Ar", "Ar", "Cl")
    assert change.size == 4
    assert change.why.startswith("NaAr is not neutral (smact, smact14, Pauling), NaCl is")


def test_neutral_compound_element_and_alloy_pass(nacl, single_atom, sites_52, copper_primitive, quartz):
    verdicts = [charge_verdict(crystal) for crystal in (nacl, quartz, single_atom, copper_primitive, sites_52)]
    assert verdicts == ["neutral", "neutral", "element", "element", "alloy"]
    assert charge_verdict(_with(nacl, 17, 19)) == "alloy"  # NaK, not Na- and K+
    for crystal in (nacl, single_atom, sites_52):
        assert not any(change.what == "element" for change in _cleaned(crystal).changes)


def test_repair_takes_the_smallest_change_and_no_alloy(nacl):
    # ArCl: K is one away, at 4 sites. NaAr: Cl is, and K, which would make an alloy and is no repair.
    assert [(item.old, item.new, item.total) for item in repairs(_with(nacl, 11, 18))] == [(18, 19, 4)]
    assert [(item.old, item.new, item.total) for item in repairs(_with(nacl, 17, 18))] == [(18, 17, 4)]
    assert repairs(_with(nacl, 17, 18), max_shift=0) == []


def test_tie_is_settled_by_energy_and_told(nacl):
    options = CleaningOptions()
    asked: list[str] = []

    def energy_of(crystals: list[Crystal]) -> tuple[list[float | None], str]:
        asked.extend(c.formula for c in crystals)
        return [float(-place) for place in range(len(crystals))], "number in the list"

    tied = _tied(nacl)
    ((chosen, why),) = substitutions_of([tied], options, energy_of)
    assert len(asked) > 1
    assert chosen.apply(tied).formula == asked[-1]
    assert why.endswith("lowest number in the list")
    assert all(formula in why for formula in asked)


def _tied(nacl: Crystal) -> Crystal:
    """A crystal that two substitutions of one size make neutral."""
    for first in range(3, 60):
        for second in (8, 9, 16, 17):
            crystal = _with(_with(nacl, 11, first), 17, second) if first != 17 else nacl
            if charge_verdict(crystal) == "not neutral" and len(repairs(crystal)) > 1:
                return crystal
    raise AssertionError("no such crystal")


def test_what_cannot_be_repaired_is_kept_and_says_so(nacl):
    crystal = _with(nacl, 17, 18)
    cleaned = _cleaned(crystal, max_shift=0)
    assert cleaned.charge == "not neutral"
    assert cleaned.crystal.formula == "NaAr"
    assert not any(change.what == "element" for change in cleaned.changes)


# Ranking


@pytest.fixture
def entries(tmp_path) -> Path:
    path = tmp_path / "elements.csv"
    path.write_text("formula,energy_per_atom\n" + "".join(f"{symbol},0.0\n" for symbol in ELEMENTS))
    return path


def _swollen(crystal: Crystal, factor: float) -> Crystal:
    return replace(crystal, lengths=factor * crystal.lengths)


def _many(nacl: Crystal, copper: Crystal, quartz: Crystal) -> list[Sample]:
    """Seven samples: good, the same but higher, alloy, another, too near, unknown element, not there."""
    near = replace(nacl, coordinates=np.concatenate([nacl.coordinates[:7], nacl.coordinates[:1] + 0.01]))
    unknown = _with(copper, 29, 95)
    crystals = [nacl, _swollen(nacl, 1.1), copper, quartz, near, unknown]
    samples = [Sample(f"{place}.cif", crystal) for place, crystal in enumerate(crystals)]
    return [*samples, Sample("sample 6", None, "not decoded: the image holds no site")]


def test_every_sample_is_ranked_or_excluded_with_its_reason(tmp_path, entries, nacl, copper_primitive, quartz):
    samples = _many(nacl, copper_primitive, quartz)
    reference = read_hull_reference(entries, "soft 1")
    ranked, excluded = rank(samples, Soft(), _options(tmp_path), reference, "above_hull")
    assert len(ranked) + len(excluded) == len(samples)
    assert {item.sample.name for item in ranked} == {"0.cif", "2.cif", "3.cif"}
    assert [item.value for item in ranked] == sorted(item.value for item in ranked)
    reasons = {item.sample.name: item.reason for item in excluded}
    assert reasons["1.cif"] == "the same crystal as one of lower energy: 0.cif"
    assert reasons["4.cif"].startswith("not structurally valid: sites 0.0977")
    assert reasons["5.cif"].startswith("no energy (element unknown to the potential): ")
    assert reasons["sample 6"] == "not decoded: the image holds no site"


def test_of_duplicates_the_lowest_stays_whatever_the_order(tmp_path, entries, nacl):
    reference = read_hull_reference(entries, "soft 1")
    high, low = Sample("high", _swollen(nacl, 1.1)), Sample("low", nacl)
    for samples in ([high, low], [low, high]):
        ranked, _ = rank(samples, Soft(), _options(tmp_path), reference, "formation_energy")
        assert [item.sample.name for item in ranked] == ["low"]


def test_bound_on_the_hull_and_missing_elements_exclude(tmp_path, entries, nacl, copper_primitive, single_atom):
    reference = read_hull_reference(entries, "soft 1")
    samples = [Sample("nacl", nacl), Sample("wide", _swollen(copper_primitive, 1.6)), Sample("po", single_atom)]
    ranked, excluded = rank(samples, Soft(), _options(tmp_path), reference, "above_hull", max_hull=-0.2)
    assert [item.sample.name for item in ranked] == ["nacl"]
    reasons = {item.sample.name: item.reason.split(": ")[0] for item in excluded}
    assert reasons == {"wide": "above the bound on the energy above hull", "po": "no elemental reference"}
    # A reference from a file is not filled up with energies of another scale.
    kept = with_elements(replace_scale(reference), [single_atom], Soft(), _options(tmp_path))
    assert kept.elements.keys() == set(ELEMENTS)
    with pytest.raises(CrystensError, match="needs a reference"):
        rank(samples, Soft(), _options(tmp_path), None, "above_hull")
    with pytest.raises(CrystensError, match="no order"):
        rank(samples, Soft(), _options(tmp_path), None, "beauty")


def replace_scale(reference: Any) -> Any:
    reference.scale = "MP2020"
    return reference


def test_generated_group_and_failed_samples_are_read_from_a_folder_of_samples(tmp_path, nacl):
    (tmp_path / "cifs").mkdir()
    stated = {"_crystens_generated_space_group_IT_number": 221}
    for place in (0, 2):
        text = write_cif(symmetrised(nacl, 0.01), extra=stated if place == 0 else {})
        (tmp_path / "cifs" / f"{place:06d}.cif").write_text(text)
    (tmp_path / "crystals.csv").write_text(
        "index,file,status,reason,merged_sites\n0,cifs/000000.cif,ok,,2\n1,,failed,no site,\n2,cifs/000002.cif,ok,,0\n"
    )
    first, failed, second = read_generated(str(tmp_path))
    assert (first.name, first.generated_group, first.merged_sites) == ("000000.cif", 221, 2)
    assert (second.generated_group, second.merged_sites) == (None, 0)
    assert failed.crystal is None
    assert failed.reason == "not decoded: no site"
    assert len(first.crystal) == 8


# Relaxation


def test_four_relaxations_begin_where_the_one_before_ended(tmp_path, nacl, single_atom):
    runs = []
    near = replace(nacl, coordinates=np.zeros((8, 3)))
    crystals = [_swollen(nacl, 1.1), near]
    relaxation = Relaxation(steps=5, force=0.01)
    done, failed = relax_successively(
        crystals, Soft(), relaxation, _options(tmp_path), 4, lambda run, count: runs.append((run, count))
    )
    assert len(done.runs) == 4
    for first, second in zip(done.runs[:-1], done.runs[1:], strict=True):
        assert second.relaxed.energy_before == pytest.approx(first.total, abs=1e-6)
    assert done.energy_after < done.energy_before
    # Of a single run of five steps the rest is not reached; of four it is nearer.
    assert done.energy_after < done.runs[0].total / 8
    volumes = np.prod([1 + run.relaxed.volume_change for run in done.runs])
    assert done.volume_change == pytest.approx(volumes - 1)
    assert failed.reason.startswith("atoms too near")
    assert failed.crystal is failed.energy_after is failed.displacement is None
    assert [run for run, _ in runs][-1] == 4


# The command


def _arguments(tmp_path: Path, entries: Path, *more: str) -> list[str]:
    fixed = ["select", str(tmp_path / "samples"), "--out", str(tmp_path / "out"), "--entries", str(entries)]
    fixed += ["--scale", "soft 1", "--workers", "0", "--cache", str(tmp_path / "cache"), "--steps", "30"]
    return [*fixed, *more]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _write_samples(tmp_path: Path, samples: list[Sample]) -> None:
    folder = tmp_path / "samples"
    folder.mkdir()
    for sample in samples:
        if sample.crystal is not None:
            (folder / sample.name).write_text(write_cif(sample.crystal, name="x"))


def test_command_writes_a_folder_that_accounts_for_every_sample(
    tmp_path, entries, nacl, copper_primitive, quartz, capsys
):
    argon = _with(_noisy(nacl), 17, 18)  # cleaned, it is the same as sample 0
    _write_samples(tmp_path, [*_many(nacl, copper_primitive, quartz), Sample("7.cif", argon)])
    (tmp_path / "samples" / "8.cif").write_text("no cif")
    assert main(_arguments(tmp_path, entries), Soft()) == 0
    told = capsys.readouterr().out
    out = tmp_path / "out"
    candidates, excluded = _rows(out / "candidates.csv"), _rows(out / "excluded.csv")
    summary = json.loads((out / "summary.json").read_text())
    assert len(candidates) + len(excluded) == summary["samples"] == 8
    assert sum(summary["excluded"].values()) == len(excluded) == 5
    assert any(row["reason"].startswith("cleaned, the same crystal as a candidate: ") for row in excluded)
    assert "3 candidates of 8 samples" in told
    assert [row["rank"] for row in candidates] == ["1", "2", "3"]
    for row in candidates:
        folder = out / "candidates" / row["name"]
        changes = json.loads((folder / "changes.json").read_text())
        assert changes["formula"] == row["formula"]
        assert len(changes["changes"]) == int(row["num_changes"])
        for name in ("generated.cif", "cleaned.cif", "relaxed.cif", "vasp/INCAR", "vasp/run.sh", "vasp/POTCAR.spec"):
            assert (folder / name).is_file()
    assert len(_rows(out / "relaxations.csv")) == 12
    assert (out / "candidates.png").read_bytes().startswith(b"\x89PNG")
    # Another selection does not mix with it.
    assert main(_arguments(tmp_path, entries, "--number", "1"), Soft()) == 1
    assert "of another selection" in capsys.readouterr().err


def test_interrupted_run_goes_on_where_it_stopped_and_a_third_asks_nothing(tmp_path, entries, nacl, quartz, capsys):
    _write_samples(tmp_path, [Sample("0.cif", _swollen(nacl, 1.1)), Sample("1.cif", quartz)])
    whole, stopped, again, third = Soft(), Soft(), Soft(), Soft()
    elsewhere = ["--out", str(tmp_path / "whole"), "--cache", str(tmp_path / "other")]
    assert main(_arguments(tmp_path, entries, *elsewhere), whole) == 0
    stopped.interrupted_at = 6  # asked to load, for two energies, to load again, and for one relaxation
    assert main(_arguments(tmp_path, entries), stopped) == 130
    assert "run the same command again to resume" in capsys.readouterr().err
    assert main(_arguments(tmp_path, entries), again) == 0
    # Three answers were there, for which it is loaded once less; the fourth was lost.
    assert again.asked == whole.asked - 4
    assert main(_arguments(tmp_path, entries), third) == 0
    assert third.asked == 0
    tables = [tmp_path / name / "candidates.csv" for name in ("whole", "out")]
    assert tables[0].read_text() == tables[1].read_text()


def test_inputs_of_quantum_espresso_leave_out_what_it_cannot_compute(tmp_path, entries, nacl):
    _write_samples(tmp_path, [Sample("0.cif", _with(nacl, 11, 58)), Sample("1.cif", nacl)])
    assert main(_arguments(tmp_path, entries, "--relaxations", "1", "--dft", "espresso"), Soft()) == 0
    out = tmp_path / "out"
    (row,) = _rows(out / "excluded.csv")
    assert (row["sample"], row["reason"]) == (
        "0.cif",
        "no pseudopotential: PseudoDojo's PBEsol table has none for Ce",
    )
    assert {path.name for path in (out / "candidates" / "01_NaCl").iterdir() if path.is_dir()} == {"espresso"}
    assert os.access(out / "run.sh", os.X_OK)
    assert json.loads((out / "summary.json").read_text())["engine"] == "Quantum ESPRESSO"
    assert main(["parse", str(out)]) == 0
    (row,) = _rows(out / "candidates.csv")
    assert row["dft_status"] == "not begun"


def test_number_is_reached_and_the_rest_is_counted(tmp_path, entries, nacl, copper_primitive, quartz):
    _write_samples(tmp_path, _many(nacl, copper_primitive, quartz))
    assert main(_arguments(tmp_path, entries, "--number", "2", "--relaxations", "1"), Soft()) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["candidates"] == 2
    assert summary["excluded"]["ranked below the 2 asked for"] == 1


def test_wrong_calls_are_told_in_one_line(tmp_path, entries, nacl, capsys):
    _write_samples(tmp_path, [Sample("0.cif", nacl)])
    for more, message in (
        (["--reference", "prototypes"], "are 2 references"),
        (["--max-hull", "-5"], "no candidate among 1 samples: 1 above the bound"),
        (["--number", "0"], "must be at least 1"),
        (["--scale", "MP2020"], "cannot be compared"),
    ):
        assert main(_arguments(tmp_path, entries, *more), Soft()) == 1
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("asked", [["--rank-by", "above_hull"], ["--max-hull", "0.1"]])
def test_an_energy_above_hull_without_a_hull_is_refused(tmp_path, nacl, capsys, asked):
    _write_samples(tmp_path, [Sample("0.cif", nacl)])
    arguments = ["select", str(tmp_path / "samples"), "--out", str(tmp_path / "out"), *asked]
    assert main(arguments, Soft()) == 1
    assert "give --reference, --entries or --hull-energies" in capsys.readouterr().err


def test_relaxed_candidates_stand_against_relaxed_crystals(tmp_path, nacl, monkeypatch):
    monkeypatch.setattr(hull_entries, "_known_forms", lambda: [("Na", "far", _one(11)), ("Cl", "far", _one(17))])
    _write_samples(tmp_path, [Sample("0.cif", _swollen(nacl, 1.05))])
    (tmp_path / "known").mkdir()
    (tmp_path / "known" / "0.cif").write_text(write_cif(_swollen(nacl, 1.1)))
    arguments = _arguments(tmp_path, tmp_path)
    place = arguments.index("--entries")
    arguments[place : place + 2] = ["--reference", str(tmp_path / "known")]
    assert main([*arguments, "--steps", "200"], Soft()) == 0
    (row,) = _rows(tmp_path / "out" / "candidates.csv")
    # The known crystal is the same one, farther from rest: against it as it stands the candidate would gain.
    assert float(row["above_hull_generated"]) < -0.01
    assert float(row["above_hull_relaxed"]) == pytest.approx(0, abs=1e-3)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["relaxed_reference"].startswith("1 of 1 structures of known, those of the samples' elements")


def _one(number: int) -> Crystal:
    """Return atoms too far from each other to attract, and at rest."""
    return Crystal([5.5] * 3, [90] * 3, 1, [number], np.zeros((1, 3)))


@pytest.mark.parametrize("formula", [True, False])
def test_candidates_stand_on_a_hull_of_formation_energies(tmp_path, entries, nacl, monkeypatch, formula):
    monkeypatch.setattr(hull_entries, "_known_forms", lambda: [("Na", "far", _one(11)), ("Cl", "far", _one(17))])
    _write_samples(tmp_path, [Sample("0.cif", nacl)])
    table = tmp_path / "table.csv"
    text = "NaCl" if formula else '"' + write_cif(nacl) + '"'
    table.write_text(f"{'formula' if formula else 'cif'},dft\n{text},-0.03\n")
    arguments = _arguments(tmp_path, entries)
    place = arguments.index("--entries")
    arguments[place : place + 2] = ["--hull-energies", str(table), "--column", "dft"]
    assert main(arguments, Soft()) == 0
    (row,) = _rows(tmp_path / "out" / "candidates.csv")
    difference = float(row["formation_energy_generated"]) - float(row["above_hull_generated"])
    assert difference == pytest.approx(-0.03)
    assert (
        "distances combine two methods" in json.loads((tmp_path / "out" / "summary.json").read_text())["reference_note"]
    )


@pytest.mark.slow
def test_chgnet_repairs_and_relaxes_noisy_rock_salt(tmp_path, nacl):
    pytest.importorskip("chgnet", reason="the extra energy is not installed")
    _write_samples(tmp_path, [Sample("0.cif", _with(_noisy(nacl), 17, 18))])
    arguments = [
        "select",
        str(tmp_path / "samples"),
        "--out",
        str(tmp_path / "out"),
        "--workers",
        "0",
        "--found-tolerance",
        "0.1",
    ]
    assert main([*arguments, "--cache", str(tmp_path / "cache"), "--rank-by", "energy"], CHGNet()) == 0
    (row,) = _rows(tmp_path / "out" / "candidates.csv")
    assert (row["formula"], row["charge"], row["space_group_relaxed"]) == ("NaCl", "repaired", "225")
    assert row["converged"] == "true"
    # PBE's NaCl: 5.70 angstrom.
    assert float(row["volume_relaxed"]) == pytest.approx(5.70**3 / 8, rel=0.03)
