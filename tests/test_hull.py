"""Hulls: distances that follow by hand, what is unknown and why, and scales that are never mixed."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.calculators.emt import EMT
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition, Element
from pymatgen.entries.computed_entries import (
    CompositionEnergyAdjustment,
    ComputedEntry,
    ConstantEnergyAdjustment,
    TemperatureEnergyAdjustment,
)

from crystens.cif.write import write_cif
from crystens.crystal import Crystal
from crystens.energies import hull as hull_module
from crystens.energies import hull_entries as hull_reference
from crystens.energies.energies import EnergyOptions, energies
from crystens.energies.entry_files import functional_of, read_hull_reference
from crystens.energies.formation_energies import FORMATION, formation_hull, read_formation_energies
from crystens.energies.hull import HullDistance, hull_distances
from crystens.energies.hull_entries import (
    HullReference,
    ReferenceEntry,
    ground_states,
    self_consistent,
)
from crystens.energies.known_crystals import KnownCrystals
from crystens.energies.potentials import MP2020, Potential
from crystens.energies.references import HullSource, reference_of, with_elements
from crystens.energies.relaxation import Energy, Relaxation
from crystens.errors import CrystensError
from crystens.sources.reasons import category_counts

SCALE = "made up"


class Stub(Potential):
    """ASE's EMT, which knows a few metals."""

    identity = "emt"
    scales = (SCALE, identity)

    def calculator(self) -> Any:
        return EMT()


def _crystal(formula: str) -> Crystal:
    """Return a crystal of a composition; where its atoms are does not matter here."""
    numbers = [Element(symbol).Z for symbol, n in Composition(formula).as_dict().items() for _ in range(int(n))]
    places = np.zeros((len(numbers), 3))
    places[:, 0] = np.arange(len(numbers)) / len(numbers)
    return Crystal([3.0 * len(numbers), 3, 3], [90] * 3, 1, numbers, places)


def _entry(formula: str, per_atom: float) -> ReferenceEntry:
    composition = Composition(formula)
    return ReferenceEntry(composition, per_atom * composition.num_atoms, formula)


def _reference(**per_atom: float) -> HullReference:
    return HullReference([_entry(formula, energy) for formula, energy in per_atom.items()], SCALE, "the test's")


def _distance(formula: str, per_atom: float, reference: HullReference) -> HullDistance:
    crystal = _crystal(formula)
    (found,) = hull_distances([crystal], [Energy(per_atom * len(crystal))], Stub(), reference)
    return found


# Distances that follow by hand


def test_entry_on_the_hull_has_0_and_its_formation_energy():
    found = _distance("Na2Cl2", -3.4, _reference(Na=-1.3, Cl=-1.9, NaCl=-3.4))
    assert found.above_hull == pytest.approx(0, abs=1e-12)
    assert found.formation_energy == pytest.approx(-3.4 + (1.3 + 1.9) / 2)
    assert found.num_entries == 3
    assert found.num_compounds == 1
    assert not found.only_elements
    assert found.decomposition == (("NaCl", pytest.approx(1.0)),)


def test_crystal_above_the_hull_is_positive_and_one_below_negative():
    reference = _reference(Na=-1.3, Cl=-1.9, NaCl=-3.4)
    assert _distance("NaCl", -3.3, reference).above_hull == pytest.approx(0.1)
    assert _distance("NaCl", -3.6, reference).above_hull == pytest.approx(-0.2)
    # The crystal is no part of the hull: the distance of one does not depend on the other.
    crystals = [_crystal("NaCl"), _crystal("NaCl")]
    found = hull_distances(crystals, [Energy(-6.6), Energy(-7.2)], Stub(), reference)
    assert [item.above_hull for item in found] == pytest.approx([0.1, -0.2])


def test_ternary_decomposes_into_binaries_of_its_sub_systems():
    reference = _reference(Li=0, Fe=0, O=0, Li2O=-2.0, FeO=-1.5)
    # Li2FeO2 = Li2O + FeO, 3 and 2 of 5 atoms.
    found = _distance("Li2FeO2", -1.7, reference)
    assert found.above_hull == pytest.approx(-1.7 - (3 * -2.0 + 2 * -1.5) / 5)
    assert dict(found.decomposition) == {"Li2O": pytest.approx(0.6), "FeO": pytest.approx(0.4)}
    assert found.formation_energy == pytest.approx(-1.7)
    assert found.num_entries == 5
    assert found.num_compounds == 2


def test_compound_off_the_hull_is_no_end_of_a_mixture():
    # NaCl3 lies above the line from NaCl to Cl, and Na2Cl is judged by Na and NaCl.
    reference = _reference(Na=0, Cl=0, NaCl=-2.0, NaCl3=-0.5)
    assert _distance("NaCl3", -0.5, reference).above_hull == pytest.approx(0.5)
    assert _distance("Na2Cl", -1.0, reference).above_hull == pytest.approx(-1.0 + 2 * 2.0 / 3)


def test_lowest_form_of_an_element_is_the_reference():
    entries = [_entry("C", -9.0), _entry("C4", -9.2), _entry("C2", -9.1)]
    reference = HullReference(entries, SCALE, "carbon")
    found = _distance("C8", -9.0, reference)
    assert found.formation_energy == pytest.approx(0.2)
    assert found.above_hull == pytest.approx(0.2)
    assert found.num_entries == 3
    assert found.only_elements


def test_no_competing_compound_is_told_apart():
    reference = _reference(Na=-1.3, Cl=-1.9, K=-1.1, KCl=-3.4)
    found = _distance("NaCl", -3.4, reference)
    assert found.only_elements
    assert found.above_hull == pytest.approx(found.formation_energy)
    assert not _distance("KCl", -3.4, reference).only_elements


def test_missing_element_is_unknown_with_its_reason():
    found = _distance("NaCl", -3.4, _reference(Na=-1.3, NaCl=-3.4))
    assert found.formation_energy is None
    assert found.above_hull is None
    assert found.reason == "no elemental reference: Cl"
    assert not found.only_elements


def test_crystal_without_energy_is_unknown_with_its_reason():
    energies = [Energy(None, "atoms too near: 0.1 angstrom"), Energy(-6.8)]
    reference = _reference(Na=-1.3, Cl=-1.9)
    found = hull_distances([_crystal("NaCl"), _crystal("NaCl")], energies, Stub(), reference)
    assert found[0].reason == "no energy: atoms too near: 0.1 angstrom"
    assert found[1].reason is None
    counts = category_counts(item.reason for item in found)
    assert counts == {"no energy": 1}


def _random(elements: str, seed: int, compounds: int = 40) -> HullReference:
    generator = np.random.default_rng(seed)
    symbols = elements.split()
    entries = [_entry(symbol, float(generator.uniform(-5, -1))) for symbol in symbols]
    for _ in range(compounds if len(symbols) > 1 else 0):
        chosen = generator.choice(symbols, generator.integers(2, min(len(symbols), 4) + 1), replace=False)
        formula = "".join(f"{symbol}{generator.integers(1, 5)}" for symbol in chosen)
        entries.append(_entry(formula, float(generator.uniform(-6, -2))))
    return HullReference(entries, SCALE, "random")


@pytest.mark.parametrize("elements", ["Na", "Na Cl", "Li Fe O", "Li Fe P O", "Li Na Fe P O"])
def test_distances_are_those_of_the_phase_diagram_of_all_entries(elements):
    reference = _random(elements, seed=len(elements))
    # Entries of other elements must not matter.
    wider = HullReference([*reference.entries, *_random("Xe Kr", 1).entries], SCALE, "wider")
    diagram = PhaseDiagram([PDEntry(entry.composition, entry.energy) for entry in reference.entries])
    formula = "".join(f"{symbol}{k + 1}" for k, symbol in enumerate(elements.split()))
    entry = PDEntry(Composition(formula), -4.0 * Composition(formula).num_atoms)
    found = _distance(formula, -4.0, wider)
    above = diagram.get_decomp_and_e_above_hull(entry, allow_negative=True, check_stable=False)[1]
    assert found.above_hull == pytest.approx(above, abs=1e-9)
    assert found.formation_energy == pytest.approx(diagram.get_form_energy_per_atom(entry), abs=1e-9)
    assert found.num_entries == len(reference.entries)


def test_linear_programme_for_many_elements_is_the_same(monkeypatch):
    reference = _random("Li Na Fe P O", seed=3)
    formulas = ["LiNaFePO4", "Li2FeO3", "NaP", "Fe2O3P", "Li", "Li3Na2Fe"]
    by_diagram = [_distance(formula, -4.0, reference) for formula in formulas]
    monkeypatch.setattr(hull_module, "_DIAGRAM_ELEMENTS", 0)
    by_programme = [_distance(formula, -4.0, reference) for formula in formulas]
    for one, other in zip(by_diagram, by_programme, strict=True):
        assert one.above_hull == pytest.approx(other.above_hull, abs=1e-7)
        assert dict(one.decomposition) == pytest.approx(dict(other.decomposition), abs=1e-6)


def test_ten_elements_do_not_hang():
    reference = _random("H Li Na K Be Mg Ca Fe P O", seed=5, compounds=300)
    assert _distance("HLiNaKBeMgCaFePO", -4.0, reference).above_hull is not None


# Scales


def test_scales_are_never_mixed():
    reference = HullReference([_entry("Na", -1.3)], "another potential 2", "of elsewhere")
    with pytest.raises(CrystensError, match="'another potential 2', which cannot be compared with energies of emt"):
        hull_distances([_crystal("Na")], [Energy(-1.3)], Stub(), reference)


# References


def test_table_and_json_are_read_alike(tmp_path):
    (tmp_path / "a.csv").write_text("id,formula,energy_per_atom\n1,Na,-1.3\n2,Cl2,-1.9\n3,Na2Cl2,-3.4\n")
    entries = [ComputedEntry("Na3", -3.9), ComputedEntry("Cl2", -3.8), ComputedEntry("NaCl", -6.0, correction=-0.8)]
    text = json.dumps([entry.as_dict() for entry in entries])
    (tmp_path / "b.json").write_text(text)
    (tmp_path / "c.json.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("a.csv", "b.json", "c.json.gz"):
        reference = read_hull_reference(tmp_path / name, SCALE)
        assert reference.name == name
        assert _distance("NaCl", -3.3, reference).above_hull == pytest.approx(0.1)
        assert _distance("NaCl", -3.3, reference).formation_energy == pytest.approx(-1.7)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "formula,energy\nNa,-1\n", "no column energy_per_atom"),
        ("a.csv", "formula,energy_per_atom\nNa,-1\nCl,much\n", "line 3"),
        ("a.csv", "formula,energy_per_atom\nNa,-1\nQq2,-1\n", "line 3"),
        ("a.csv", "formula,energy_per_atom\nNa,nan\n", "line 2"),
        ("a.csv", "formula,energy_per_atom\n", "has no entry"),
        ("a.json", "[1, 2", "is not JSON"),
        ("a.json", "{}", "holds a dict"),
        ("a.json", '[{"energy": 1}]', "entry 0"),
        ("a.json", '[{"energy": -1, "composition": {"Na": "x"}}]', "entry 0"),
        ("a.txt", "", "is no file of entries"),
        ("a.json.gz", "not gzip", "cannot read"),
    ],
)
def test_file_that_is_no_reference_says_what_is_wrong(tmp_path: Path, name: str, text: str, message: str):
    (tmp_path / name).write_text(text)
    with pytest.raises(CrystensError, match=message):
        read_hull_reference(tmp_path / name, MP2020)


# What the entries of a file say of themselves


def _item(formula: str, energy: float, **more: Any) -> dict[str, Any]:
    return {"composition": Composition(formula).as_dict(), "energy": energy, **more}


def _written(folder: Path, *items: dict[str, Any]) -> Path:
    (folder / "entries.json").write_text(json.dumps(items))
    return folder / "entries.json"


def test_energy_of_an_entry_is_that_with_its_adjustments_whether_or_not_they_are_summed(tmp_path):
    adjustments = [
        CompositionEnergyAdjustment(-0.614, 2, name="MP2020 anion correction (Cl)"),
        ConstantEnergyAdjustment(0.1),
        TemperatureEnergyAdjustment(-1e-4, 300, 4),
    ]
    entry = ComputedEntry("Na2Cl2", -13.0, energy_adjustments=adjustments)
    summed = entry.as_dict()
    lacking = {name: value for name, value in summed.items() if name != "correction"}
    alone = {name: value for name, value in summed.items() if name != "energy_adjustments"}
    reference = read_hull_reference(_written(tmp_path, summed, lacking, alone), MP2020)
    assert [item.energy for item in reference.entries] == pytest.approx([entry.energy] * 3)
    assert entry.energy == pytest.approx(-13.0 - 1.228 + 0.1 - 0.12)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"correction": -2.0}, "is not the sum of its energy_adjustments, -1"),
        ({"energy_adjustments": [{"name": "a", "shift": 1}]}, "adjustment without value"),
    ],
)
def test_corrections_that_contradict_each_other_or_are_not_known_are_refused(tmp_path, changed, message):
    item = _item("NaCl", -6.0, energy_adjustments=[{"value": -1.0}]) | changed
    with pytest.raises(CrystensError, match=f"entry 0.*{message}"):
        read_hull_reference(_written(tmp_path, item), MP2020)


@pytest.mark.parametrize(
    ("more", "functional"),
    [
        ({"parameters": {"run_type": "GGA+U"}}, "GGA(+U)"),
        ({"parameters": {"run_type": "PBE_U"}}, "GGA(+U)"),
        ({"run_type": "R2SCAN"}, "r2SCAN"),
        ({"entry_id": "mp-1-GGA"}, "GGA(+U)"),
        ({"entry_id": "mp-1-r2SCAN"}, "r2SCAN"),
        ({"run_type": "GGA_GGA+U"}, "GGA(+U)"),
        ({"run_type": "GGA_GGA+U_R2SCAN"}, "mixture"),
        ({"run_type": "HSE06"}, "HSE06"),
        ({"entry_id": "mp-1"}, None),
        ({}, None),
    ],
)
def test_functional_is_that_of_the_run_type_or_the_name(more, functional):
    assert functional_of(_item("Na", -1.3, **more)) == functional


def test_entries_of_another_functional_are_no_mp2020_energies(tmp_path):
    wrong = [_item("Na", -7.1, entry_id=f"x-{place}-r2SCAN") for place in range(4)]
    path = _written(tmp_path, _item("Na", -1.3, entry_id="x-9-GGA"), *wrong)
    message = r"4 entries \(x-0-r2SCAN, x-1-r2SCAN, x-2-r2SCAN, \.\.\.\) are of run type r2SCAN: no MP2020 energies"
    with pytest.raises(CrystensError, match=message):
        read_hull_reference(path, MP2020)
    with pytest.raises(CrystensError, match=r"1 entries \(x-9-GGA\).*beside 4 of r2SCAN; a hull takes energies of one"):
        read_hull_reference(path, SCALE)
    assert len(read_hull_reference(_written(tmp_path, *wrong), SCALE).entries) == 4
    (tmp_path / "a.csv").write_text("formula,energy_per_atom,run_type\nNa,-1.3,GGA\nNa,-7.1,r2SCAN\n")
    with pytest.raises(CrystensError, match="run type r2SCAN"):
        read_hull_reference(tmp_path / "a.csv", MP2020)


def test_energies_moved_between_hulls_are_no_mp2020_energies(tmp_path):
    moved = [{"name": "MP GGA(+U)/r2SCAN mixing adjustment", "value": -20.0}]
    item = _item("NaCl", -6.8, entry_id="mp-1-GGA", energy_adjustments=moved)
    for scale in (MP2020, SCALE):
        with pytest.raises(CrystensError, match=r"mp-1-GGA.*mixed from several functionals"):
            read_hull_reference(_written(tmp_path, item), scale)


def test_case_of_two_functionals_is_refused_and_its_control_is_read(shared_data):
    folder = shared_data / "cases" / "16-hull-of-two-functionals"
    reference = read_hull_reference(folder / "gga.json", MP2020)
    assert {entry.label: entry.energy for entry in reference.entries}["x-3-GGA"] == pytest.approx(-7.394)
    with pytest.raises(CrystensError, match=r"x-1-r2SCAN.*are of run type r2SCAN: no MP2020 energies"):
        read_hull_reference(folder / "mixed.json", MP2020)


def test_missing_file_says_so(tmp_path):
    with pytest.raises(CrystensError, match="cannot read"):
        read_hull_reference(tmp_path / "none.csv", MP2020)


# Formation energies


def _cu_au(place: float = 0.5) -> Crystal:
    """Return a cubic crystal of copper and gold."""
    return Crystal([2.9] * 3, [90] * 3, 1, [29, 79], np.array([[0, 0, 0], [place, 0.5, 0.5]]))


def test_formation_energies_are_read_by_formula_and_by_crystal_and_missing_ones_are_counted(tmp_path):
    (tmp_path / "a.csv").write_text("formula,dft\nCu,0.0\nCu2Au2,-0.06\nAu3Cu,\n")
    crystal = f'"{write_cif(_cu_au())}"'
    (tmp_path / "b.csv").write_text(f"material_id,cif,dft\na,{crystal},-0.06\nb,{crystal},\n")
    for name, count in (("a.csv", 2), ("b.csv", 1)):
        table = read_formation_energies(tmp_path / name, "dft")
        assert len(table.entries) == count
        assert table.entries[-1].per_atom == pytest.approx(-0.06)
        assert table.left_out == {"no dft": 1}
    assert len(table.crystals) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("formula,dft\nCu,-3.7\n", r"Cu has dft -3.7 eV/atom, which is no formation energy \(an element has 0"),
        ("formula,dft\nCuAu,-6.5\n", r"no crystal has less than -5\); give the column of formation energies"),
        ("formula,pbe\nCu,0\n", "has no column dft; there are: .*pbe"),
        ("formula,dft\nCu,0\nAu,much\n", "line 3: property not a finite number"),
        ("formula,dft\nQq,0\n", "line 2"),
        ("formula,dft\nCu,\n", "has no formation energies in dft: 1 no dft"),
        ("cif,pbe\nx,0\n", "has no column dft; there are: pbe"),
    ],
)
def test_table_that_holds_no_formation_energies_says_what_is_wrong(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(CrystensError, match=message):
        read_formation_energies(tmp_path / "a.csv", "dft")


def test_potential_stands_on_formation_energies_by_its_own_elements_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(hull_reference, "_known_forms", _four_forms)
    (tmp_path / "a.csv").write_text("formula,dft\nCuAu,-0.06\nCu3Au,-0.04\nZr,0\nZrCu,-0.2\n")
    table, options = read_formation_energies(tmp_path / "a.csv", "dft"), EnergyOptions(workers=0, cache=tmp_path)
    crystals = [_cu_au(), _crystal("ZrCu")]
    computed = energies(crystals, Stub(), options)
    reference = formation_hull(table, Stub(), options, crystals)
    first, unknown = hull_distances(crystals, computed, Stub(), reference)
    forms, _ = ground_states({"Cu", "Au"}, Stub(), options)
    lowest = {
        symbol: min(f.per_atom for f in forms if f.composition.chemical_system == symbol) for symbol in ("Cu", "Au")
    }
    assert first.formation_energy == pytest.approx((computed[0].total - sum(lowest.values())) / 2)
    assert first.above_hull == pytest.approx(first.formation_energy + 0.06)
    assert (first.num_entries, first.num_compounds) == (4, 2)
    assert unknown.reason == "no elemental reference: Zr"
    assert "distances combine two methods" in reference.note
    # More elements can be asked about later, such as those that cleaning a crystal brings.
    silver = replace(_cu_au(), numbers=np.array([47, 79]))
    (energy,) = energies([silver], Stub(), options)
    wider = with_elements(reference, [silver], Stub(), options)
    (found,) = hull_distances([silver], [energy], Stub(), wider)
    assert found.only_elements
    assert found.above_hull == pytest.approx(found.formation_energy)


def test_given_formation_energies_stand_on_their_own_hull(tmp_path):
    (tmp_path / "a.csv").write_text("formula,dft\nLi2O,-2.0\nFeO,-1.5\n")
    reference = formation_hull(read_formation_energies(tmp_path / "a.csv", "dft"))

    class Given(Stub):
        scales = (FORMATION,)

    crystal = _crystal("Li2FeO2")
    (found,) = hull_distances([crystal], [Energy(-1.7 * 5)], Given(), reference)
    assert found.above_hull == pytest.approx(-1.7 - (3 * -2.0 + 2 * -1.5) / 5)
    with pytest.raises(CrystensError, match="cannot be compared"):
        hull_distances([crystal], [Energy(-1.7 * 5)], Stub(), reference)


def test_train_of_mp_52_is_a_hull_of_density_functional_theory(shared_data):
    table = read_formation_energies(shared_data / "mp_52" / "val.csv.gz")
    assert len(table.entries) == len(table.crystals) == 1300
    assert not table.left_out


def test_self_consistent_hull_holds_the_crystals_and_their_elements(tmp_path, monkeypatch):
    monkeypatch.setattr(hull_reference, "_known_forms", _four_forms)
    ordered = Crystal(
        [3.75] * 3, [90] * 3, 221, [79, 29, 29, 29], [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    )
    near = Crystal([0.3] * 3, [90] * 3, 221, [29], np.zeros((1, 3)))
    reference = self_consistent([ordered, near], Stub(), EnergyOptions(workers=0, cache=tmp_path))
    assert reference.scale == "emt"
    assert reference.left_out == {"atoms too near": 1}
    assert set(reference.elements) == {"Au", "Cu"}
    # Of two forms of copper the lower one is the reference: fcc, and not bcc.
    assert reference.elements["Cu"].label == "Cu, fcc"
    assert sorted(entry.composition.reduced_formula for entry in reference.entries) == ["Au", "Cu", "Cu", "Cu3Au"]


def test_relaxed_samples_stand_against_relaxed_crystals_of_their_own_elements(tmp_path, monkeypatch):
    monkeypatch.setattr(hull_reference, "_known_forms", _four_forms)
    silver = Crystal([2.9] * 3, [90] * 3, 1, [47, 79], np.array([[0, 0, 0], [0.5, 0.5, 0.5]]))
    ordered = [29, 29, 29, 79], [[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0], [0, 0, 0]]
    near, far = (Crystal([length] * 3, [90] * 3, 221, *ordered) for length in (3.7, 3.85))
    known = KnownCrystals("2 structures", ("a", "b"), (far, silver))
    options = EnergyOptions(workers=0, cache=tmp_path)
    relaxing = replace(options, relaxation=Relaxation(steps=200, force=0.02))
    sample = [near]
    plain = reference_of(sample, Stub(), options, HullSource(known=known))
    relaxed = reference_of(sample, Stub(), relaxing, HullSource(known=known))
    assert {entry.composition.reduced_formula for entry in plain.entries} == {"Cu3Au", "AgAu", "Cu", "Au", "Ag"}
    assert {entry.composition.reduced_formula for entry in relaxed.entries} == {"Cu3Au", "Cu", "Au"}
    assert relaxed.name.startswith("1 of 2 structures, those of the samples' elements")
    assert relaxed.note == ""
    computed = energies(sample, Stub(), relaxing)
    (against_plain,) = hull_distances(sample, computed, Stub(), plain)
    (against_relaxed,) = hull_distances(sample, computed, Stub(), relaxed)
    assert against_plain.above_hull < -0.01  # what relaxing takes off any crystal that is not at rest
    assert against_relaxed.above_hull >= -1e-4
    short = replace(options, relaxation=Relaxation(steps=1, force=1e-6))
    assert (
        "1 of the hull's 1 crystals are not converged"
        in reference_of(sample, Stub(), short, HullSource(known=known)).note
    )


def test_elements_of_crystals_that_are_compared_are_in_the_reference_and_they_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(hull_reference, "_known_forms", _four_forms)
    copper, silver = (form[2] for form in _four_forms()[1::2])
    options = EnergyOptions(workers=0, cache=tmp_path)
    reference = self_consistent([copper], Stub(), options, compared=[silver, _crystal("AgCu")])
    assert set(reference.elements) == {"Ag", "Cu"}
    assert all(len(entry.composition) == 1 for entry in reference.entries)


def _four_forms() -> list[tuple[str, str, Crystal]]:
    def primitive(length: float, angle: float, number: int) -> Crystal:
        return Crystal([length] * 3, [angle] * 3, 1, [number], np.zeros((1, 3)))

    return [
        ("Cu", "bcc", primitive(2.5, 109.4712, 29)),
        ("Cu", "fcc", primitive(2.55, 60, 29)),
        ("Au", "fcc", primitive(2.88, 60, 79)),
        ("Ag", "fcc", primitive(2.88, 60, 47)),
    ]


def test_element_without_a_form_is_missing_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(hull_reference, "_known_forms", _four_forms)
    entries, missing = ground_states({"Cu", "Zr"}, Stub(), EnergyOptions(workers=0, cache=tmp_path))
    assert {entry.composition.chemical_system for entry in entries} == {"Cu"}
    assert missing == {"Zr": "no form of it is known here"}


def test_every_element_up_to_plutonium_but_the_rare_has_a_form():
    there = {symbol for symbol, *_ in hull_reference._known_forms()} | set(hull_reference._RELATED)
    lacking = {Element.from_Z(z).symbol for z in range(1, 95)} - there
    assert lacking <= {"At", "Rn", "Fr", "Ra"}
