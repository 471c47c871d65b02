from types import SimpleNamespace

import numpy as np
import pytest
from pymatgen.entries.computed_entries import ComputedEntry

from crystens.crystal import Crystal
from crystens.energies.entry_files import read_hull_reference
from crystens.energies.materials_project_entries import chemical_systems, fetch_entries
from crystens.errors import CrystensError


class Rester:
    """Gives an entry of each element and one of all of them; fails at the system that it is told."""

    def __init__(self, fails_at: str | None = None) -> None:
        self.asked: list[str] = []
        self.criteria: list[dict] = []
        self.fails_at = fails_at

    def get_entries_in_chemsys(self, elements: list[str], additional_criteria: dict) -> list[ComputedEntry]:
        system = "-".join(elements)
        if system == self.fails_at:
            raise ValueError("status code 500, key secret")
        self.asked.append(system)
        self.criteria.append(additional_criteria)
        found = [ComputedEntry(element, -1.0, entry_id=f"mp-{element}") for element in elements]
        return [*found, ComputedEntry("".join(elements), -5.0, correction=-0.5, entry_id=f"mp-{system}")]


def _crystal(*numbers: int) -> Crystal:
    places = np.linspace(0, 1, len(numbers), endpoint=False)[:, None] * np.ones(3)
    return Crystal(np.full(3, 9.0), np.full(3, 90.0), 1, np.array(numbers), places)


def test_systems_are_those_that_are_within_no_other():
    crystals = [_crystal(11, 17), _crystal(11), _crystal(8, 26), _crystal(26, 8, 8), _crystal(3, 8, 26)]
    assert chemical_systems(crystals) == [("Cl", "Na"), ("Fe", "Li", "O")]
    with pytest.raises(CrystensError, match="has 10 elements"):
        chemical_systems([_crystal(*range(1, 11))])


def test_entries_are_written_once_each_with_their_corrections_and_read_as_a_reference(tmp_path):
    rester = Rester()
    assert fetch_entries([("Cl", "Na"), ("Na", "O")], tmp_path / "entries.json", rester=rester) == 5
    assert rester.criteria == [{"thermo_types": ["GGA_GGA+U"]}] * 2
    reference = read_hull_reference(tmp_path / "entries.json", "MP2020")
    energies = {entry.label: entry.energy for entry in reference.entries}
    assert energies["mp-Cl-Na"] == pytest.approx(-5.5)
    assert len(energies) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["entries.json"]


def test_an_answer_of_another_functional_is_refused(tmp_path):
    class Mixed(Rester):
        def get_entries_in_chemsys(self, elements: list[str], additional_criteria: dict) -> list[ComputedEntry]:
            return [ComputedEntry("Na", -7.1, parameters={"run_type": "r2SCAN"}, entry_id="mp-1-r2SCAN")]

    with pytest.raises(CrystensError, match=r"answer for Na: 1 entries.*of run type r2SCAN: no MP2020 energies"):
        fetch_entries([("Na",)], tmp_path / "entries.json", rester=Mixed())
    assert not (tmp_path / "entries.json").exists()


def test_an_interrupted_fetch_goes_on_where_it_stopped_and_does_not_tell_the_key(tmp_path, monkeypatch):
    monkeypatch.setenv("MP_API_KEY", "secret")
    systems = [("Cl", "Na"), ("Na", "O")]
    with pytest.raises(CrystensError, match=r"Na-O.*key \*\*\*.*run the same command again to resume"):
        fetch_entries(systems, tmp_path / "entries.json", rester=Rester(fails_at="Na-O"))
    part = tmp_path / "entries.json.part"
    part.write_bytes(part.read_bytes() + b'{"system": "Na-')  # torn by a kill
    rester = Rester()
    fetch_entries(systems, tmp_path / "entries.json", rester=rester)
    assert rester.asked == ["Na-O"]


def test_a_missing_key_and_a_wrong_name_are_told(tmp_path, monkeypatch):
    monkeypatch.delenv("MP_API_KEY", raising=False)
    with pytest.raises(CrystensError, match="needs a key"):
        fetch_entries([("Cl",)], tmp_path / "entries.json")
    with pytest.raises(CrystensError, match=r"ends with \.json"):
        fetch_entries([("Cl",)], tmp_path / "entries.csv", rester=SimpleNamespace())
