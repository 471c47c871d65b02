"""Records of JSON: the structure that each has, named by its own id, in whatever way a file holds them."""

from __future__ import annotations

import bz2
import gzip
import itertools
import json
import math
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry
from pymatgen.io.optimade import OptimadeStructureAdapter
from structure_sources import categories_of, items_of, salt_json, write_json

from crystens.formats.pymatgen_json import PymatgenJson
from crystens.ingest.kinds import guess_kind, open_source
from crystens.sources import json_stream
from crystens.sources.json_stream import JsonText, opened
from crystens.sources.record import Record

SALT = salt_json()
CESIUM = Structure(Lattice.cubic(4.1), ["Cs", "Cl"], [[0, 0, 0], [0.5] * 3]).as_dict()
LEANING = [[4.0, 0.0, 0.0], [0.5, 5.0, 0.0], [1.0, 2.0, 6.0]]
WBM = [
    {"material_id": "wbm-1-1", "formula": "NaCl", "initial_structure": SALT},
    {"material_id": "wbm-1-2", "formula": "CsCl", "initial_structure": CESIUM},
]


def _entry(structure: dict, name: str) -> dict:
    return ComputedStructureEntry(Structure.from_dict(structure), -7.0, entry_id=name).as_dict()


def _optimade(structure: dict) -> dict:
    return OptimadeStructureAdapter.get_optimade_structure(Structure.from_dict(structure))["attributes"]


def _jarvis(structure: dict, cartesian: bool = False) -> dict:
    sites = structure["sites"]
    return {
        "lattice_mat": structure["lattice"]["matrix"],
        "coords": [site["xyz" if cartesian else "abc"] for site in sites],
        "elements": [site["species"][0]["element"] + " " for site in sites],
        "abc": [1, 1, 1],
        "angles": [1, 1, 1],
        "cartesian": cartesian,
        "props": ["", ""],
    }


def _pandas(orient: str, *records: dict) -> Any:
    return json.loads(pd.DataFrame(list(records or WBM)).to_json(orient=orient, default_handler=str))


@pytest.mark.parametrize("suffix", [".json", ".json.gz", ".json.bz2"])
@pytest.mark.parametrize(
    "value",
    [
        WBM,
        *(_pandas(orient) for orient in ("records", "columns", "index", "split", "table")),
        {"columns": ["material_id", "initial_structure"], "data": [["wbm-1-1", SALT], ["wbm-1-2", CESIUM]]},
        {"data": [[SALT], [CESIUM]], "index": ["wbm-1-1", "wbm-1-2"], "columns": ["structure"]},
        {"initial_structure": {"wbm-1-1": SALT, "wbm-1-2": CESIUM}},
        {"materials": {"wbm-1-1": SALT, "wbm-1-2": CESIUM}},
        {"wbm-1-1": {"initial_structure": SALT, "e": 1}, "wbm-1-2": {"initial_structure": CESIUM}},
        {"wbm-1-1": {"0": SALT}, "wbm-1-2": {"0": CESIUM}},
        [{"wbm-1-1": SALT}, {"wbm-1-2": CESIUM}],
        {"entries": [_entry(SALT, "wbm-1-1"), _entry(CESIUM, "wbm-1-2")], "note": "x", "list": [1, 2]},
        {"material_id": {"0": "wbm-1-1", "1": "wbm-1-2"}, "entry": {"0": _entry(SALT, "a"), "1": _entry(CESIUM, "b")}},
        {"entry": {"0": _entry(SALT, "a"), "1": _entry(CESIUM, "b")}, "material_id": {"1": "wbm-1-2", "0": "wbm-1-1"}},
        {
            "links": {"next": None},
            "meta": {"more_data_available": False},
            "data": [
                {"id": name, "type": "structures", "attributes": _optimade(structure)}
                for name, structure in (("wbm-1-1", SALT), ("wbm-1-2", CESIUM))
            ],
        },
        [{"jid": "wbm-1-1", "atoms": _jarvis(SALT)}, {"jid": "wbm-1-2", "atoms": _jarvis(CESIUM, cartesian=True)}],
        [{**_optimade(SALT), "immutable_id": "wbm-1-1"}, {**_optimade(CESIUM), "immutable_id": "wbm-1-2"}],
        [{"task_id": "wbm-1-1", "calcs": [{"output": {"structure": SALT}}]}, _entry(CESIUM, "wbm-1-2")],
    ],
)
def test_every_way_to_hold_records_gives_their_structures_by_their_ids(
    tmp_path: Path, suffix: str, value: object
) -> None:
    path = tmp_path / f"a{suffix}"
    write = {".gz": gzip.compress, ".bz2": bz2.compress}.get(Path(suffix).suffix, bytes)
    path.write_bytes(write(json.dumps(value).encode()))
    assert guess_kind(str(path)) == "pymatgen_json"
    entries, rejects = items_of(PymatgenJson(path))
    assert rejects == []
    names = [(e.entry, e.crystal.formula, e.crystal.space_group) for e in entries]
    if isinstance(value, dict) and isinstance(value.get("wbm-1-1"), dict) and "0" in value["wbm-1-1"]:
        assert names == [("wbm-1-1/0", "NaCl", 221), ("wbm-1-2/0", "CsCl", 221)]
    else:
        assert names == [("wbm-1-1", "NaCl", 221), ("wbm-1-2", "CsCl", 221)]


def test_lines_of_records_are_told_from_crystal_dictionaries(tmp_path: Path) -> None:
    header = {"x-optimade": {"meta": {"api_version": "1.1.0"}}}
    for case, start in enumerate(([], [header])):
        path = tmp_path / f"{case}.jsonl.bz2"
        path.write_bytes(bz2.compress("\n".join(map(json.dumps, [*start, *WBM])).encode()))
        assert guess_kind(str(path)) == "pymatgen_json"
        entries, rejects = items_of(open_source(str(path)))
        assert ([e.entry for e in entries], rejects) == (["wbm-1-1", "wbm-1-2"], [])


TASK = {"task_id": "mp-1", "state": "done", "input": {"structure": SALT}, "output": {"structure": CESIUM, "e": 1}}


@pytest.mark.parametrize(
    ("record", "ways"),
    [
        (TASK, "input.structure and output.structure"),
        ({"task_id": "mp-1", "initial_structure": SALT, "final_structure": CESIUM}, "initial_structure and final_str"),
        ({"task_id": "mp-1", "structures": [SALT, CESIUM]}, "structures.0 and structures.1"),
        ({"task_id": "mp-1", "atoms": _jarvis(SALT), "attributes": _optimade(SALT)}, "atoms and attributes"),
        ({"task_id": "mp-1", "steps": [{"structure": SALT}] * 9}, "steps.0.structure and .* and more"),
    ],
)
def test_record_with_several_structures_costs_one_reject_that_names_the_keys(
    tmp_path: Path, record: dict, ways: str
) -> None:
    values = [[record, {"material_id": "x", "structure": SALT}], {"a": [record]}, record]
    for case, value in enumerate(values):
        _, rejects = items_of(PymatgenJson(write_json(tmp_path / f"{case}.json", value)))
        assert [(r.entry, r.category) for r in rejects] == [("mp-1", "no key structure")]
        assert re.search(ways, rejects[0].reason)
        assert "data.source.key=" in rejects[0].advice


@pytest.mark.parametrize(
    ("key", "formula"), [("input.structure", "NaCl"), ("output.structure", "CsCl"), ("output", "CsCl")]
)
def test_key_chooses_a_structure_and_its_lack_is_told(tmp_path: Path, key: str, formula: str) -> None:
    other = {"task_id": "mp-2", "orig_inputs": {"structure": SALT}}
    table = {"columns": list(TASK), "data": [list(TASK.values())]}
    for case, value in enumerate(([TASK, other], {"rows": [TASK, other]}, table)):
        entries, rejects = items_of(PymatgenJson(write_json(tmp_path / f"{case}.json", value), key))
        assert [(e.entry, e.crystal.formula) for e in entries] == [("mp-1", formula)]
        reasons = [(r.entry, r.reason) for r in rejects]
        expected = [("mp-2", f"no structure: no key {key} in the record that has orig_inputs.structure")]
        assert reasons == (expected if case < 2 else [])


def test_several_columns_of_structures_cost_one_reject_a_row_unless_one_is_chosen(tmp_path: Path) -> None:
    rows = [{**row, "final_structure": row["initial_structure"]} for row in WBM]
    path = write_json(tmp_path / "a.json", _pandas("columns", *rows))
    entries, rejects = items_of(PymatgenJson(path))
    assert entries == []
    assert [r.entry for r in rejects] == ["wbm-1-1", "wbm-1-2"]
    assert {r.reason for r in rejects} == {"no key structure: a record that has initial_structure and final_structure"}
    entries, rejects = items_of(PymatgenJson(path, "final_structure"))
    assert ([e.entry for e in entries], rejects) == (["wbm-1-1", "wbm-1-2"], [])
    named = [{**row, "structure": row["initial_structure"]} for row in WBM]
    entries, rejects = items_of(PymatgenJson(write_json(tmp_path / "b.json", _pandas("columns", *named))))
    assert ([e.entry for e in entries], rejects) == (["wbm-1-1", "wbm-1-2"], [])


@pytest.mark.parametrize("orient", ["records", "columns", "index", "split", "table"])
def test_numbers_beside_the_structures_are_kept_in_every_layout(tmp_path: Path, orient: str) -> None:
    rows = [{**row, "gap": gap, "entry": {"energy": -7.0}} for row, gap in zip(WBM, (1.5, None), strict=True)]
    path = write_json(tmp_path / "a.json", _pandas(orient, *rows))
    entries, rejects = items_of(PymatgenJson(path).keeping(["gap", "volume"]))
    assert rejects == []
    gaps = [entry.properties["gap"] for entry in entries]
    assert gaps[0] == 1.5
    assert math.isnan(gaps[1])
    assert all(math.isnan(entry.properties["volume"]) for entry in entries)
    entries, _ = items_of(PymatgenJson(path).keeping(None))
    assert entries[0].properties["gap"] == 1.5


def test_structures_as_texts_are_read(tmp_path: Path) -> None:
    cif = Structure.from_dict(SALT).to(fmt="cif")
    records = [
        {"material_id": "a", "structure": json.dumps(SALT)},
        {"material_id": "b", "cif": cif},
        {"material_id": "c", "structure": json.dumps({"structure": SALT})},
        {"material_id": "d", "structure": '{"lattice": '},
        {"material_id": "e", "cif": cif.replace("Na", "Xx")},
        {"material_id": "f", "note": cif},
    ]
    entries, rejects = items_of(PymatgenJson(write_json(tmp_path / "a.json", records)))
    assert [(e.entry, e.crystal.formula) for e in entries] == [(name, "NaCl") for name in "abc"]
    assert [(r.entry, r.category) for r in rejects] == [
        ("d", "not JSON"),
        ("e", "unknown element"),
        ("f", "no structure"),
    ]


# Forms


def test_cell_vectors_are_rows_in_every_form(tmp_path: Path) -> None:
    structure = Structure(LEANING, ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.4, 0.3]]).as_dict()
    forms = [structure, _jarvis(structure), _jarvis(structure, cartesian=True), _optimade(structure)]
    entries, _ = items_of(PymatgenJson(write_json(tmp_path / "a.json", forms)), site_order="given")
    assert len(entries) == 4
    for entry in entries:
        assert entry.crystal.lengths.tolist() == pytest.approx([4, 5.0249378, 6.4031242])
        assert entry.crystal.coordinates.ravel().tolist() == pytest.approx([0, 0, 0, 0.5, 0.4, 0.3])


def _species(name: str, symbols: list[str], shares: list[float], **more: object) -> dict:
    return {"name": name, "chemical_symbols": symbols, "concentration": shares, **more}


@pytest.mark.parametrize(
    ("change", "category"),
    [
        ({"dimension_types": [1, 1, 0]}, "no cell"),
        ({"structure_features": ["implicit_atoms"]}, "atoms without sites"),
        ({"structure_features": ["assemblies"]}, "atoms without sites"),
        ({"species_at_sites": ["Na"]}, "species_at_sites and cartesian_site_positions do not fit each other"),
        ({"species_at_sites": ["Na", ["Cl"]]}, "unknown element"),
        ({"cartesian_site_positions": None}, "species_at_sites and cartesian_site_positions do not fit each other"),
        ({"lattice_vectors": [[3.4, 0, 0], [0, 3.4, 0], [None] * 3]}, "cell vectors not numbers"),
        ({"species": [_species("Cl", ["X"], [1.0])]}, "unknown element"),
        ({"species": [_species("Cl", ["Cl", "H"], [1.0])]}, "chemical_symbols and concentration do not fit each other"),
        ({"species": [_species("Cl", ["Cl"], [1.0], attached=["H"], nattached=[1])]}, "atoms without sites"),
        ({"species": [_species("Cl", ["Cl", "vacancy"], [0.5, 0.5])]}, "partial occupancy (disordered structure)"),
        ({"species": [_species("Cl", ["Cl", "Br"], [0.5, 0.5])]}, "partial occupancy (disordered structure)"),
        ({"species": [["Cl"]]}, "species not understood"),
    ],
)
def test_bad_entry_of_optimade_is_set_aside(tmp_path: Path, change: dict, category: str) -> None:
    path = write_json(tmp_path / "a.json", [_optimade(SALT) | change])
    found = categories_of(PymatgenJson(path))
    assert found == [category] or (category == "cell vectors not numbers" and found == ["cell vectors not finite"])


def test_species_of_optimade_are_what_they_list_and_symbols_without_a_list(tmp_path: Path) -> None:
    sites = {"species_at_sites": ["cation", "anion"]}
    listed = [_species("cation", ["Na"], [1.0], attached=None), _species("anion", ["Cl", "vacancy"], [0.9, 0.1])]
    empty = [*listed[:1], _species("anion", ["vacancy"], [1.0])]
    records = [
        _optimade(SALT) | sites | {"species": listed},
        _optimade(SALT) | sites | {"species": json.dumps(listed)},  # as in LeMat-Bulk
        _optimade(SALT) | {"species": None},
        _optimade(SALT) | {"species": "[{'name': None}]"},
        _optimade(SALT) | sites | {"species": empty},
    ]
    entries, rejects = items_of(PymatgenJson(write_json(tmp_path / "a.json", records)), occupancy="majority")
    assert [e.crystal.formula for e in entries] == ["NaCl"] * 4 + ["Na"]
    assert rejects == []


@pytest.mark.parametrize(
    ("change", "category"),
    [
        ({"lattice_mat": [[3.4, 0, 0]]}, "cell vectors of the wrong shape"),
        ({"coords": [[0, 0, 0]]}, "elements and coords do not fit each other"),
        ({"coords": [[0, 0, 0], [0, 0]]}, "coordinates not numbers"),
        ({"elements": ["Na", "Vac"]}, "unknown element"),
        ({"elements": []}, "elements and coords do not fit each other"),
        ({"elements": [], "coords": []}, "no atoms in the cell"),
        ({"cartesian": "yes"}, "cartesian not understood"),
    ],
)
def test_bad_atoms_of_jarvis_are_set_aside(tmp_path: Path, change: dict, category: str) -> None:
    assert categories_of(PymatgenJson(write_json(tmp_path / "a.json", [{"atoms": _jarvis(SALT) | change}]))) == [
        category
    ]


# Long files


def _wide(count: int) -> dict:
    return {
        "material_id": {str(k): f"wbm-1-{k}" for k in range(count)},
        "initial_structure": {str(k): SALT for k in range(count)},
        "volume": {str(k): 39.3 for k in range(count)},
    }


@pytest.mark.parametrize(
    "make",
    [
        _wide,
        lambda n: {f"wbm-1-{k}": SALT for k in range(n)},
        lambda n: {"meta": {"x": ["a]}"] * 9}, "data": [{"id": f"wbm-1-{k}", "structure": SALT} for k in range(n)]},
        lambda n: {"columns": ["id", "structure"], "data": [[f"wbm-1-{k}", SALT] for k in range(n)]},
    ],
)
def test_long_file_of_any_layout_is_told_by_its_beginning_and_streamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[int], dict]
) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", 10_000)
    monkeypatch.setattr(json_stream, "_BEGINNING", 10_000)
    count = 400
    path = write_json(tmp_path / "a.json", make(count))
    assert path.stat().st_size > 2e5
    assert guess_kind(str(path)) == "pymatgen_json"
    tracemalloc.start()
    records = list(itertools.islice(PymatgenJson(path).records(), count - 1, None))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(records) == 1
    (last,) = records
    assert isinstance(last, Record)
    assert f"wbm-1-{count - 1}" in (last.entry, json.loads(last.content).get("id"))
    assert peak < 2e5
    entries, rejects = items_of(PymatgenJson(write_json(tmp_path / "b.json", make(5))))
    assert ([e.entry for e in entries], rejects) == ([f"wbm-1-{k}" for k in range(5)], [])


@pytest.mark.parametrize("cut", [300, 60])
def test_long_file_that_ends_early_keeps_what_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", 5000)
    monkeypatch.setattr(json_stream, "_BEGINNING", 5000)
    path = write_json(tmp_path / "a.json", {f"mp-{k}": SALT for k in range(30)})
    path.write_bytes(path.read_bytes()[:-cut])
    entries, rejects = items_of(PymatgenJson(path))
    assert len(entries) == 29
    assert [r.category for r in rejects] == ["not JSON"]


def test_beginning_of_a_long_value_is_its_first_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", 1000)
    monkeypatch.setattr(json_stream, "_BEGINNING", 1000)
    value = {"a": {"b": [1, 2, {"c": 'quote " and ] \\'}], "d": None}, "e": list(range(100, 1000))}
    path = write_json(tmp_path / "a.json", value)
    with opened(path) as file:
        text = JsonText(file)
        beginning, whole = text.beginning()
        assert not whole
        assert beginning["a"] == value["a"]
        assert beginning["e"] == value["e"][: len(beginning["e"])]
        assert 100 < len(beginning["e"]) < 300
        assert text.value()[0] == value


@pytest.mark.parametrize(
    ("start", "beginning"),
    [
        ('{"a": "', {}),
        ('{"a": [1, 2}', {"a": [1]}),
        ('{"a": [1, 2], "b": ', {"a": [1, 2]}),
        ('"', None),
        ("x", None),
        ("[1, 2, ", [1, 2]),
    ],
)
def test_beginning_of_a_text_without_an_end_is_what_is_sure(tmp_path: Path, start: str, beginning: object) -> None:
    (tmp_path / "a.json").write_text(start + ("[" if start != "[1, 2, " else "x") * 2**20)
    with opened(tmp_path / "a.json") as file:
        found, whole = JsonText(file).beginning()
    assert not whole
    if isinstance(found, dict):
        found.pop("b", None)  # a list in lists
    assert found == beginning
