"""S.U.N.: StructureMatcher's own groups for less, flags that may be unknown, a run that goes on where it stopped."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.calculators.lj import LennardJones
from pymatgen.core.structure_matcher import StructureMatcher

from crystens.cif.write import write_cif
from crystens.crystal import Crystal
from crystens.energies.potentials import CHGNet, Potential
from crystens.ingest.kinds import open_source
from crystens.matching import structure_matching as matching
from crystens.matching import unique_pool as sameness
from crystens.matching.known_search import KnownSearch
from crystens.matching.unique_pool import Comparable, Pool, successive_minima
from crystens.sources.limits import Limits
from crystens.sun import judge as judge_module
from crystens.sun.__main__ import main
from crystens.sun.rates import hull_doubts
from crystens.sun.rows import COLUMNS, PARTS, Row, all_of, is_stable, read_sun_rows, verdict

pytestmark = pytest.mark.filterwarnings("ignore:No Pauling electronegativity")


# The same crystals, exactly as StructureMatcher says


def _groups(crystals: Sequence[Crystal]) -> tuple[list[int], Pool]:
    """Return the first member of the group of each crystal, and the pool of these."""
    pool, groups = Pool(), []
    for place, crystal in enumerate(crystals):
        one = Comparable(crystal)
        found = pool.find(one, lowest=True)
        assert found.reason is None
        if found.place is None:
            pool.add(place, one)
        groups.append(place if found.place is None else found.place)
    return groups, pool


def _plain_groups(crystals: Sequence[Crystal]) -> list[int]:
    """Return the same by asking StructureMatcher about every crystal and every unique one before it."""
    matcher, structures = StructureMatcher(), [crystal.to_structure() for crystal in crystals]
    groups: list[int] = []
    for j in range(len(crystals)):
        firsts = [i for i in range(j) if groups[i] == i]
        groups.append(next((i for i in firsts if matcher.fit(structures[i], structures[j])), j))
    return groups


def _on_both_sides_of_the_tolerances(seed: int, number: int) -> list[Crystal]:
    """Return strained and noisy copies of three crystals of one formula, some the same by the rule and some not."""
    generator = np.random.default_rng(seed)
    rutile = [[0, 0, 0], [0.5, 0.5, 0.5], [0.3, 0.3, 0], [0.7, 0.7, 0], [0.2, 0.8, 0.5], [0.8, 0.2, 0.5]]
    fluorite = [[0, 0, 0], [0.25, 0.25, 0.25], [0.75, 0.75, 0.75]]
    layered = [[0, 0, 0], [1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]
    parents = [
        Crystal([4.6, 4.6, 2.96], [90] * 3, 136, [22, 22, 8, 8, 8, 8], np.array(rutile)),
        Crystal([3.6] * 3, [60] * 3, 225, [22, 8, 8], np.array(fluorite)),
        Crystal([3.1, 3.1, 5.0], [90, 90, 120], 164, [22, 8, 8], np.array(layered)),
    ]
    made = []
    for _ in range(number):
        parent = parents[generator.integers(3)]
        lengths = parent.lengths * generator.uniform(0.88, 1.14, 3)
        angles = parent.angles + generator.uniform(-4, 4, 3)
        noise = generator.normal(0, generator.uniform(0, 0.45), parent.coordinates.shape) / parent.lengths
        order = generator.permutation(len(parent))
        coordinates = (parent.coordinates + noise + generator.random(3))[order]
        made.append(Crystal(lengths, angles, 1, parent.numbers[order], coordinates))
    return made


@pytest.mark.parametrize("seed", range(3))
def test_groups_are_those_of_every_pair_asked_on_both_sides_of_the_tolerances(seed):
    crystals = _on_both_sides_of_the_tolerances(seed, 24)
    groups, pool = _groups(crystals)
    assert groups == _plain_groups(crystals)
    assert 3 < len(set(groups)) < 24
    assert pool.counts["compared"] < pool.counts["same content"] < pool.counts["pairs"]


def test_lattices_that_are_told_apart_without_a_comparison_never_match():
    crystals = _on_both_sides_of_the_tolerances(7, 40)
    matcher = StructureMatcher()
    apart = same = 0
    for first, second in itertools.permutations(crystals, 2):
        pool = Pool()
        pool.add(0, Comparable(first))
        pool.find(Comparable(second))
        if pool.counts["same content"] and not pool.counts["compared"]:
            apart += 1
            assert not matcher.fit(first.to_structure(), second.to_structure())
        same += pool.counts["compared"]
        if apart >= 30:
            break
    assert apart == 30
    assert same > 0


def test_groups_of_real_crystals_are_those_of_group_structures(shared_data):
    source = open_source(str(shared_data / "carbon_24" / "test.csv.gz"))
    records = itertools.islice(source.records(), 40)
    crystals = [entry.crystal for record in records for entry in source.parsed(record, Limits())]
    structures = [crystal.to_structure() for crystal in crystals]
    places = {id(structure): place for place, structure in enumerate(structures)}
    groups, _ = _groups(crystals)
    theirs = [0] * len(crystals)
    for group in StructureMatcher().group_structures(structures):
        for structure in group:
            theirs[places[id(structure)]] = places[id(group[0])]
    assert groups == theirs
    assert len(set(groups)) < 40


def test_known_crystal_is_found_in_another_cell_and_an_unknown_one_is_not(nacl, copper_primitive, sites_52):
    supercell = nacl.to_structure()
    supercell.make_supercell([[1, 1, 0], [0, 1, 0], [0, 0, 2]])
    pool = Pool()
    for place, crystal in enumerate([copper_primitive, nacl, sites_52]):
        pool.add(place, Comparable(crystal))
    assert pool.find(Comparable(Crystal.from_structure(supercell, 1))).place == 1
    assert pool.find(Comparable(replace(nacl, numbers=np.where(nacl.numbers == 11, 19, 17)))).place is None
    assert pool.counts["compared"] == 1


def test_search_by_processes_finds_the_same_known_crystals(nacl):
    crystals = _on_both_sides_of_the_tolerances(0, 24)
    known, samples = crystals[:12], [Comparable(crystal) for crystal in (*crystals[12:], nacl)]
    found = KnownSearch(known, workers=2).find(samples)
    assert found == KnownSearch(known).find(samples)
    assert {answer.place is None for answer in found} == {True, False}


def test_formula_that_no_other_crystal_has_is_not_reduced(nacl, copper_primitive, monkeypatch):
    monkeypatch.setattr(sameness, "reduced_cell", lambda crystal: pytest.fail("reduced"))
    assert _groups([nacl, copper_primitive])[0] == [0, 1]


def test_lowest_of_several_places_is_given_when_it_is_asked_for(triclinic):
    moved = triclinic.coordinates + 0.01 * np.sin(np.arange(30).reshape(10, 3))
    pool = Pool()
    for place, crystal in enumerate([replace(triclinic, coordinates=moved), triclinic]):
        pool.add(place, Comparable(crystal))
    assert pool.find(Comparable(triclinic)).place == 1
    assert pool.find(Comparable(triclinic), lowest=True).place == 0


def test_crystal_that_cannot_be_compared_is_unknown_with_its_reason(nacl, monkeypatch):
    pool = Pool()
    pool.add(0, Comparable(nacl))
    monkeypatch.setattr(StructureMatcher, "fit", lambda *given, **options: 1 / 0)
    found = pool.find(Comparable(nacl))
    assert found.place is None
    assert found.reason == "not compared: ZeroDivisionError: division by zero"


def test_comparison_that_hangs_is_given_up_and_unknown(nacl, monkeypatch):
    monkeypatch.setattr(matching, "_SECONDS", 0.1)
    pool = Pool()
    pool.add(0, Comparable(nacl))
    assert pool.find(Comparable(nacl)).place == 0  # imports and reduces
    monkeypatch.setattr(sameness, "_fits", lambda pair: next(_ for _ in itertools.repeat(0) if _))
    assert "TimeoutError" in str(pool.find(Comparable(nacl)).reason)


def test_successive_minima_of_known_lattices():
    np.testing.assert_allclose(successive_minima(np.diag([3.0, 1.0, 2.0])), [1, 2, 3])
    fcc = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    np.testing.assert_allclose(successive_minima(fcc), [0.5**0.5] * 3)
    # Another basis of the same lattice, very skewed.
    np.testing.assert_allclose(successive_minima(np.array([[1, 7, -3], [0, 1, 5], [0, 0, 1]]) @ fcc), [0.5**0.5] * 3)


# Flags


@pytest.mark.parametrize(
    ("flags", "answer"), [([True, True], True), ([True, None], None), ([False, None], False), ([], True)]
)
def test_flags_together_are_false_before_they_are_unknown(flags, answer):
    assert all_of(flags) is answer


def test_stable_is_at_most_the_threshold_up_to_rounding():
    assert is_stable(0.0, 0.0)
    assert is_stable(4e-6, 0.0)
    assert is_stable(2e-5, 0.0) is False
    assert is_stable(0.1, 0.1)
    assert is_stable(0.101, 0.1) is False
    assert is_stable(None, 0.1) is None


def test_verdict_of_a_crystal_that_is_not_at_rest_is_unknown_and_of_no_crystal_false():
    row: Row = dict.fromkeys(COLUMNS)
    row |= {"status": "ok", "relaxed_above_hull": -1.0, "converged": False, "relaxed_unique": True}
    assert verdict(row, "stable", "relaxed_") is None
    assert verdict(row | {"converged": True}, "stable", "relaxed_") is True
    assert verdict(row | {"converged": True}, "sun", "relaxed_") is None  # novelty is unknown
    assert verdict(row | {"relaxed_novel": False}, "sun", "relaxed_") is False
    assert verdict(row | {"status": "failed"}, "stable", "relaxed_") is False


# The command


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


@pytest.fixture
def nacl() -> Crystal:
    """Rocksalt NaCl in its primitive cell: two sites cost less than eight."""
    return Crystal([5.64 / 2**0.5] * 3, [60] * 3, 225, [11, 17], np.array([[0, 0, 0], [0.5, 0.5, 0.5]]))


@pytest.fixture
def train(tmp_path: Path, nacl: Crystal) -> Path:
    """A folder of one known crystal, NaCl."""
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "nacl.cif").write_text(write_cif(nacl))
    return tmp_path / "train"


@pytest.fixture
def samples(tmp_path: Path, nacl: Crystal, copper_primitive: Crystal, single_atom: Crystal) -> Path:
    """A folder of seven samples: NaCl twice, copper twice, KCl, polonium, and a file that is no crystal."""
    folder = tmp_path / "samples"
    folder.mkdir()
    doubled = copper_primitive.to_structure()
    doubled.make_supercell([1, 1, 2])
    potassium = replace(nacl, numbers=np.where(nacl.numbers == 11, 19, 17))
    copies = [nacl, copper_primitive, replace(nacl, lengths=nacl.lengths * 1.02), Crystal.from_structure(doubled, 1)]
    for number, crystal in enumerate([*copies, potassium, single_atom]):
        (folder / f"{number}.cif").write_text(write_cif(crystal))
    (folder / "6.cif").write_text("data_broken\n_cell_length_a 0\n")
    return folder


@pytest.fixture
def entries(tmp_path: Path) -> Path:
    """Energies on which the soft potential's NaCl and copper stand on either side; polonium has no reference."""
    path = tmp_path / "hull.csv"
    path.write_text("formula,energy_per_atom\nNa,0.0\nCl,0.0\nK,0.0\nCu,-5.0\nNaCl,-0.05\n")
    return path


def _command(samples: Path, train: Path, entries: Path, out: Path, *more: str) -> list[str]:
    hull = ["--hull-entries", str(entries), "--scale", "soft 1", "--workers", "0", "--cache", str(out.parent / "cache")]
    return [str(samples), "--novel-against", str(train), "--out", str(out), *hull, *more]


def _results(out: Path) -> tuple[list[Row], dict[str, Any]]:
    return read_sun_rows(out / "crystals.csv"), json.loads((out / "metrics.json").read_text())


def test_every_sample_has_a_row_and_every_rate_all_samples(tmp_path, samples, train, entries):
    out = tmp_path / "out"
    assert main(_command(samples, train, entries, out), Soft()) == 0
    rows, metrics = _results(out)
    assert [row["group"] for row in rows] == [0, 1, 0, 1, 4, 5, None]
    assert [row["unique"] for row in rows] == [True, True, False, False, True, True, None]
    assert [row["novel"] for row in rows] == [False, True, False, True, True, True, None]
    assert rows[0]["same_as"] == "nacl.cif nacl" or rows[0]["same_as"].startswith("nacl.cif")
    assert [row["status"] for row in rows] == ["ok"] * 6 + ["failed"]
    assert rows[5]["stability_reason"] == "no elemental reference: Po"
    assert rows[5]["stable_at_0"] is None
    assert metrics["unique_rate"]["value"] == pytest.approx(4 / 7)
    assert metrics["novel_rate"]["value"] == pytest.approx(4 / 7)
    assert metrics["unique_novel_rate"]["value"] == pytest.approx(3 / 7)
    assert metrics["unknown_stability"]["reasons"] == {"no elemental reference": 1}
    assert metrics["failures"]["value"] == 1
    assert metrics["hull"]["value"] == 5
    for name, entry in metrics.items():
        assert {"value", "unit", "description", "count"} <= set(entry), name
        if name.endswith("rate") or "_rate_at_" in name:
            assert entry["count"] == 7
            answers = [row for row in rows if row["status"] == "ok"]
            assert entry["number"] + entry["unknown"] <= len(answers)


def test_rates_follow_from_the_energies_above_hull_of_the_rows(tmp_path, samples, train, entries):
    out = tmp_path / "out"
    main(_command(samples, train, entries, out), Soft())
    rows, metrics = _results(out)
    above = {row["index"]: row["above_hull"] for row in rows}
    assert above[1] > 0.1  # copper, of which the reference says -5
    for threshold in (0.0, 0.1):
        stable = {index for index, value in above.items() if value is not None and value <= threshold}
        assert {row["index"] for row in rows if row[f"stable_at_{threshold:g}"]} == stable
        assert metrics[f"stable_rate_at_{threshold:g}"]["number"] == len(stable)
        sun = {row["index"] for row in rows if row["unique"] and row["novel"] and row["index"] in stable}
        assert metrics[f"sun_rate_at_{threshold:g}"]["number"] == len(sun)
        assert metrics[f"sun_rate_at_{threshold:g}"]["unknown"] == 1  # polonium is unique and novel
    assert set(PARTS) == {"unique", "novel", "stable", "unique_novel", "stable_unique", "stable_novel", "sun"}


@pytest.mark.parametrize(
    ("above", "compounds", "told"),
    [
        ([-0.4, 0.0, 0.3], [4, 1, 0], []),  # the crystal without a competitor is not stable
        ([-0.6, 0.0, 0.05], [4, 1, 2], ["1 of 3 samples lie more than 0.5 eV/atom below the hull, the farthest 0.6"]),
        (
            [-0.4, 0.1, None],
            [0, 0, 0],
            ["for 2 of the 2 samples that count as stable at 0.1 the hull has only elements"],
        ),
        ([-2.7, -0.9, 0.2], [0, 3, 3], ["for 1 of the 2 samples", "2 of 3 samples lie more than 0.5 eV/atom below"]),
    ],
)
@pytest.mark.parametrize("state", ["", "relaxed_"])
def test_what_no_crystal_does_against_a_hull_is_not_passed_over(above, compounds, told, state):
    rows = [
        dict.fromkeys(COLUMNS)
        | {"status": "ok", f"{state}above_hull": value, f"{state}hull_compounds": count, "converged": True}
        for value, count in zip(above, compounds, strict=True)
    ]
    doubts = hull_doubts(rows, state)
    assert [doubt.startswith(start) for doubt, start in zip(doubts, told, strict=True)] == [True] * len(told)


def test_the_warning_stands_beside_the_rates_and_behind_them(tmp_path, samples, train, entries, capsys):
    out = tmp_path / "out"
    main(_command(samples, train, entries, out), Soft())
    metrics = _results(out)[1]
    # KCl has no compound to compete with; rates that do not ask for stability have no warning.
    assert "for 1 of the" in metrics["sun_rate_at_0"]["statement"]
    assert "statement" not in metrics["unique_rate"]
    assert capsys.readouterr().out.count("warning: for 1 of the") == 1


def test_relaxed_crystals_are_compared_and_judged_anew(tmp_path, samples, train, entries):
    out = tmp_path / "out"
    assert main(_command(samples, train, entries, out, "--relax", "--steps", "100"), Soft()) == 0
    rows, metrics = _results(out)
    rest = [row for row in rows if row["converged"]]
    assert rest
    for row in rest:
        assert row["relaxed_above_hull"] is None or row["relaxed_above_hull"] <= row["above_hull"] + 1e-6
        assert row["relaxed_unique"] is not None
    assert metrics["relaxed"]["at_rest"] == len(rest)
    assert "relaxed_sun_rate_at_0.1" in metrics
    assert "at most 0.05 eV/angstrom within 100 steps" in metrics["relaxed_stable_rate_at_0"]["description"]


@pytest.fixture
def two_elements(monkeypatch) -> None:
    """Sodium and chlorine, of which one form is known: atoms too far from each other to attract, and at rest."""
    from crystens.energies import hull_entries

    def forms() -> list[tuple[str, str, Crystal]]:
        return [(s, "far", Crystal([5.5] * 3, [90] * 3, 1, [z], np.zeros((1, 3)))) for s, z in (("Na", 11), ("Cl", 17))]

    monkeypatch.setattr(hull_entries, "_known_forms", forms)


def test_relaxed_samples_are_compared_with_relaxed_crystals(tmp_path, train, nacl, two_elements):
    (train / "nacl.cif").write_text(write_cif(replace(nacl, lengths=nacl.lengths * 1.1)))
    folder, out = tmp_path / "samples", tmp_path / "out"
    folder.mkdir()
    (folder / "0.cif").write_text(write_cif(nacl))
    command = [str(folder), "--novel-against", str(train), "--out", str(out), "--relax", "--workers", "0"]
    assert main([*command, "--cache", str(tmp_path / "cache"), "--force", "0.001"], Soft()) == 0
    (row,), metrics = _results(out)
    assert row["converged"]
    assert row["above_hull"] < -0.01
    assert row["relaxed_above_hull"] == pytest.approx(0, abs=1e-3)
    assert metrics["relaxed_hull"]["description"].startswith(
        "entries of the hull: 1 of 1 structures of train, those of"
    )
    assert "see relaxed_hull" in metrics["relaxed_sun_rate_at_0"]["description"]


def test_hull_of_formation_energies_says_that_two_scales_meet(tmp_path, samples, train, entries, two_elements, capsys):
    table = tmp_path / "formation.csv"
    table.write_text("formula,dft\nNaCl,-0.05\nKCl,-0.05\nNa,0.1\n")
    out = tmp_path / "out"
    command = _command(samples, train, entries, out, "--relax", "--steps", "4")
    place = command.index("--hull-entries")
    command[place : place + 2] = ["--hull-energies", str(table), "--column", "dft"]
    assert main(command, Soft()) == 0
    rows, metrics = _results(out)
    for state in ("", "relaxed_"):
        place_of = rows[0][f"{state}above_hull"] - rows[0][f"{state}formation_energy"]
        assert place_of == pytest.approx(0.05)
    assert rows[4]["stability_reason"] == "no elemental reference: K"
    assert metrics["hull"]["value"] == 6  # three of the table and three elements at 0
    assert metrics["hull"]["note"] in capsys.readouterr().out
    assert "distances combine two methods" in metrics["hull"]["note"]


def test_crystal_that_is_not_at_rest_is_unknown_with_its_reason(tmp_path, samples, train, entries):
    out = tmp_path / "out"
    main(_command(samples, train, entries, out, "--relax", "--steps", "1", "--force", "1e-6"), Soft())
    rows, metrics = _results(out)
    assert rows[0]["relaxed_stability_reason"] == "not at rest: after 1 steps"
    assert rows[0]["relaxed_stable_at_0"] is None
    assert rows[0]["relaxed_above_hull"] is not None
    assert rows[0]["relaxed_unique"] is None
    assert metrics["relaxed_stable_rate_at_0.1"]["unknown"] == 6
    assert metrics["relaxed_unknown_stability"]["reasons"] == {"not at rest": 5, "no elemental reference": 1}


def test_energy_that_no_crystal_can_have_is_unknown_and_not_stable(tmp_path, samples, train, entries):
    entries.write_text(entries.read_text().replace("Cu,-5.0", "Cu,61.0"))
    out = tmp_path / "out"
    main(_command(samples, train, entries, out), Soft())
    rows, metrics = _results(out)
    assert rows[1]["above_hull"] < -60
    assert rows[1]["stable_at_0"] is None
    assert rows[1]["stability_reason"].startswith("energy not credible: a formation energy of -61")
    assert metrics["unknown_stability"]["reasons"] == {"energy not credible": 2, "no elemental reference": 1}


@pytest.mark.parametrize("stop", [3, 8])
def test_interrupted_run_goes_on_to_the_same_end(tmp_path, samples, train, entries, monkeypatch, stop):
    monkeypatch.setattr(judge_module, "_RELAXED_CHUNK", 2)
    more = ("--relax", "--steps", "4")
    whole, halved = tmp_path / "a" / "out", tmp_path / "b" / "out"
    assert main(_command(samples, train, entries, whole, *more), Soft()) == 0
    potential = Soft()
    potential.interrupted_at = stop
    assert main(_command(samples, train, entries, halved, *more), potential) == 130
    assert not (halved / "metrics.json").exists()
    with (halved / "crystals.csv").open("a") as file:
        file.write("4,torn")
    again = Soft()
    assert main(_command(samples, train, entries, halved, *more), again) == 0
    assert (halved / "crystals.csv").read_bytes() == (whole / "crystals.csv").read_bytes()
    first, second = (_results(out)[1] for out in (whole, halved))
    assert {k: v for k, v in first.items() if k != "provenance"} == {
        k: v for k, v in second.items() if k != "provenance"
    }


def test_run_that_is_done_computes_nothing_again(tmp_path, samples, train, entries):
    command = _command(samples, train, entries, tmp_path / "out", "--relax", "--steps", "4")
    main(command, Soft())
    before = (tmp_path / "out" / "crystals.csv").read_bytes()
    potential = Soft()
    assert main(command, potential) == 0
    assert potential.asked == 0
    assert (tmp_path / "out" / "crystals.csv").read_bytes() == before


def test_folder_of_other_options_is_left_alone(tmp_path, samples, train, entries, capsys):
    command = _command(samples, train, entries, tmp_path / "out")
    main(command, Soft())
    assert main([*command, "--number", "3"], Soft()) == 1
    assert "holds results with other samples; choose another folder" in capsys.readouterr().err
    assert main([*command, "--relax"], Soft()) == 1
    assert "other relax" in capsys.readouterr().err


def test_folder_that_sample_py_wrote_is_not_overwritten(tmp_path, samples, train, entries, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "crystals.csv").write_text("index,file\n")
    assert main(_command(samples, train, entries, out), Soft()) == 1
    assert "holds a crystals.csv of another command" in capsys.readouterr().err


def test_without_a_hull_uniqueness_and_novelty_are_judged_alone(tmp_path, samples, train):
    out = tmp_path / "out"
    command = [str(samples), "--novel-against", str(train), "--out", str(out), "--hull-reference", "none"]
    assert main(command) == 0
    rows, metrics = _results(out)
    assert metrics["unique_novel_rate"]["number"] == 3
    assert not any("stable" in name or "sun" in name or name == "hull" for name in metrics)
    assert all(row["stable_at_0"] is None and row["energy"] is None for row in rows)


def test_known_crystals_are_compared_with_however_bad_and_those_that_are_none_are_counted(
    tmp_path, train, nacl, caplog
):
    close = Crystal([4, 4, 4], [90] * 3, 1, [1, 1], np.array([[0, 0, 0], [0.07, 0, 0]]))  # 0.28 angstrom
    large = nacl.to_structure()
    large.make_supercell([7, 6, 5])  # 420 sites
    for name, crystal in {"close": close, "large": Crystal.from_structure(large, 1)}.items():
        (train / f"{name}.cif").write_text(write_cif(crystal))
    (train / "nacl.cif").unlink()
    (train / "broken.cif").write_text("data_broken\n_cell_length_a 0\n")
    folder, out = tmp_path / "samples", tmp_path / "out"
    folder.mkdir()
    for name, crystal in {"close": close, "nacl": nacl}.items():
        (folder / f"{name}.cif").write_text(write_cif(crystal))
    assert main([str(folder), "--novel-against", str(train), "--out", str(out), "--hull-reference", "none"]) == 0
    metrics = _results(out)[1]
    assert metrics["novel_rate"]["number"] == 0
    assert (metrics["known_left_out"]["value"], sum(metrics["known_left_out"]["reasons"].values())) == (1, 1)
    assert "1 entries of" in caplog.text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--hull-reference", "none", "--relax"], "--relax judges stability"),
        (["--hull-reference", "x", "--hull-entries", "y"], "are 2 hulls"),
        (["--split", "val"], "has no crystals of the split val"),
        (["--number", "-5"], "--number -5 and --seed 0 must be at least 0"),
        (["--number", "2", "--seed", "-1"], "--number 2 and --seed -1 must be at least 0"),
        (["--workers", "-3", "--hull-reference", "none"], "workers must be at least 0"),
        (["--steps", "-4", "--hull-reference", "none"], "at least 1 step"),
        (["--source-split", "test"], "no crystal of the split test"),
    ],
)
def test_options_that_do_not_fit_are_one_line(tmp_path, samples, train, capsys, more, message):
    if "--source-split" in more:
        (samples / "6.cif").unlink()
    command = [str(samples), "--novel-against", str(train), "--out", str(tmp_path / "out"), *more]
    assert main(command, Soft()) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_results_do_not_go_among_the_samples(samples, train, capsys):
    before = sorted(samples.iterdir())
    assert main([str(samples), "--novel-against", str(train), "--out", str(samples)], Soft()) == 1
    assert "is the folder of SOURCE" in capsys.readouterr().err
    assert sorted(samples.iterdir()) == before


def test_missing_potential_says_what_to_install_or_to_leave_out(tmp_path, samples, train, capsys, monkeypatch):
    from crystens.energies import potentials

    def absent(name: str) -> str:
        raise potentials.PackageNotFoundError(name)

    monkeypatch.setattr(potentials, "version", absent)
    assert main([str(samples), "--novel-against", str(train), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "pip install 'crystens[energy]'" in error
    assert "--hull-reference none" in error


def test_samples_of_sample_py_keep_their_failures(tmp_path, train, nacl):
    folder = tmp_path / "samples"
    (folder / "cifs").mkdir(parents=True)
    (folder / "cifs" / "000000.cif").write_text(write_cif(nacl))
    with (folder / "crystals.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["index", "file", "status", "reason", "merged_sites"])
        table.writerows([[0, "cifs/000000.cif", "ok", "", 0], [1, "", "failed", "no sites", ""]])
    out = tmp_path / "out"
    command = [str(folder), "--novel-against", str(train), "--out", str(out), "--hull-reference", "none"]
    assert main(command) == 0
    rows, metrics = _results(out)
    assert metrics["num_samples"]["value"] == 2
    assert metrics["unique_rate"]["value"] == 0.5
    assert rows[1]["reason"] == "not decoded: no sites"
    assert metrics["structural_validity"]["value"] == 0.5


def test_sample_in_which_decoding_merged_sites_is_not_valid(tmp_path, train, nacl):
    folder = tmp_path / "samples"
    (folder / "cifs").mkdir(parents=True)
    for name in ("000000", "000002"):
        (folder / "cifs" / f"{name}.cif").write_text(write_cif(nacl))
    with (folder / "crystals.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["index", "file", "status", "reason", "merged_sites"])
        rows = [[0, "cifs/000000.cif", "ok", "", 0], [1, "", "failed", "no sites", ""]]
        table.writerows([*rows, [2, "cifs/000002.cif", "ok", "", 1]])
    out = tmp_path / "out"
    command = [str(folder), "--novel-against", str(train), "--out", str(out), "--hull-reference", "none"]
    assert main(command) == 0
    rows, metrics = _results(out)
    assert [row["structurally_valid"] for row in rows] == [True, None, False]
    assert metrics["structural_validity"]["value"] == 1 / 3


def test_folder_of_other_samples_that_are_no_crystals_is_left_alone(tmp_path, train, nacl, capsys):
    folder, out = tmp_path / "samples", tmp_path / "out"
    folder.mkdir()
    (folder / "a.cif").write_text(write_cif(nacl))
    (folder / "b.cif").write_text("nothing of a crystal")
    command = [str(folder), "--novel-against", str(train), "--out", str(out), "--hull-reference", "none"]
    assert main(command) == 0
    (folder / "b.cif").rename(folder / "c.cif")
    assert main(command) == 1
    assert "other samples" in capsys.readouterr().err


def test_chgnet_puts_a_known_crystal_on_its_own_hull(tmp_path, train, nacl, monkeypatch):
    pytest.importorskip("chgnet", reason="the extra energy is not installed")
    from crystens.energies import hull_entries as hull_reference

    def forms() -> list[tuple[str, str, Crystal]]:
        bcc = Crystal([3.6] * 3, [109.4712] * 3, 1, [11], np.zeros((1, 3)))
        pair = Crystal([4.4, 5.0, 8.0], [90] * 3, 1, [17, 17], np.array([[0, 0, 0], [0, 0.4, 0]]))
        return [("Na", "bcc", bcc), ("Cl", "pairs", pair)]

    monkeypatch.setattr(hull_reference, "_known_forms", forms)
    monkeypatch.setattr(hull_reference, "_ELEMENT_RELAXATION", hull_reference.Relaxation(steps=1, force=10))
    out = tmp_path / "out"
    command = [str(train), "--novel-against", str(train), "--out", str(out), "--workers", "0", "--cache", str(tmp_path)]
    assert main(command, CHGNet()) == 0
    rows, metrics = _results(out)
    assert rows[0]["above_hull"] == pytest.approx(0, abs=1e-5)
    assert metrics["stable_rate_at_0"]["value"] == 1
    assert metrics["novel_rate"]["value"] == 0
    assert metrics["sun_rate_at_0"]["value"] == 0
    assert "CHGNet" in metrics["provenance"]["value"]["potential"] or "chgnet" in metrics["hull"]["description"]
