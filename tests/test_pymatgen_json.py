"""pymatgen's JSON: structures wherever they stand in it, streamed, and no class imported that a file names."""

from __future__ import annotations

import gzip
import json
import sys
import tracemalloc

import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry
from structure_sources import categories_of, items_of, salt_json, write_json

from crystens.formats.pymatgen_json import PymatgenJson
from crystens.ingest.kinds import guess_kind, open_source
from crystens.sources import json_stream as streams
from crystens.sources.record import Record


@pytest.mark.parametrize("file", ["a.json", "a.json.gz"])
@pytest.mark.parametrize(
    ("wrap", "names"),
    [
        (lambda s: s, [""]),
        (lambda s: [s, s], ["item 1", "item 2"]),
        (lambda s: {"mp-1": s, "mp-2": s}, ["mp-1", "mp-2"]),
        (lambda s: {"material_id": "mp-7", "nsites": 2, "structure": s}, ["mp-7"]),
        (lambda s: {"structure": s, "material_id": "mp-7"}, ["mp-7"]),
        (lambda s: [{"material_id": "mp-7", "structure": s}, {"structure": s}], ["mp-7", "item 2"]),
        (lambda s: {"x": {"structure": s, "material_id": "mp-7"}}, ["x"]),
        (
            lambda s: [ComputedStructureEntry(Structure.from_dict(s), -7.0, entry_id="mp-3").as_dict()],
            ["mp-3"],
        ),
        (lambda s: Structure.from_dict(s).as_dict(verbosity=0), [""]),
    ],
)
def test_structures_are_found_wherever_pymatgen_puts_them(tmp_path, file, wrap, names):
    path = write_json(tmp_path / file, wrap(salt_json()))
    assert guess_kind(str(path)) == "pymatgen_json"
    entries, rejects = items_of(PymatgenJson(path))
    assert rejects == []
    assert [e.entry for e in entries] == names
    assert {(e.crystal.formula, e.crystal.space_group) for e in entries} == {("NaCl", 221)}


def test_object_whose_first_value_is_no_structure_gives_the_others(tmp_path):
    entries, rejects = items_of(PymatgenJson(write_json(tmp_path / "a.json", {"mp-1": None, "mp-2": salt_json()})))
    assert [e.entry for e in entries] == ["mp-2"]
    assert [(r.entry, r.category) for r in rejects] == [("mp-1", "no structure")]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_json_lines_of_structures_are_told_from_crystal_dictionaries(tmp_path, name):
    lines = [json.dumps(salt_json()), "", "{", json.dumps({"material_id": "mp-9", "structure": salt_json()})]
    text = "\n".join(lines).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    assert guess_kind(str(path)) == "pymatgen_json"
    entries, rejects = items_of(PymatgenJson(path))
    assert [e.entry for e in entries] == ["line 1", "mp-9"]
    assert [(r.entry, r.category) for r in rejects] == [("line 3", "not JSON")]
    own = {"lattice": [3.4] * 3 + [90] * 3, "sites": [["Na", 0, 0, 0], ["Cl", 0.5, 0.5, 0.5]]}
    (tmp_path / "b.jsonl").write_text(json.dumps(own) + "\n")
    assert guess_kind(str(tmp_path / "b.jsonl")) == "crystal_dictionary"
    assert len(items_of(open_source(str(tmp_path / "b.jsonl")))[0]) == 1


def test_no_class_that_a_file_names_is_imported(tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\nclass Trap:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    hostile = [
        salt_json() | {"@module": "trap", "@class": "Trap"},
        {"@module": "os", "@class": "system", "structure": salt_json() | {"@module": "trap", "@class": "Trap"}},
        {"@module": "os", "@callable": "system", "@bound": None, "command": "true"},
        salt_json() | {"lattice": {"@module": "trap", "@class": "Trap"}},
        salt_json()
        | {"sites": [{"@module": "trap", "@class": "Trap", "species": [{"@module": "trap", "element": "os"}]}]},
    ]
    entries, rejects = items_of(PymatgenJson(write_json(tmp_path / "a.json", hostile)))
    assert [e.entry for e in entries] == ["item 1", "item 2"]
    assert [r.category for r in rejects] == ["no structure", "cell vectors of the wrong shape", "unknown element"]
    assert "trap" not in sys.modules
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("change", "category"),
    [
        ({"lattice": {"matrix": [[3.4, 0, 0], [0, 3.4, 0]]}}, "cell vectors of the wrong shape"),
        ({"lattice": {"matrix": [[3.4, 0, 0], [0, 3.4, 0], [0]]}}, "cell vectors not numbers"),
        ({"lattice": {"matrix": [[3.4, 0, 0], [0, 3.4, 0], [0, 0, float("nan")]]}}, "cell vectors not finite"),
        ({"lattice": {"matrix": [[3.4, 0, 0], [0, 3.4, 0], [0, 0, 0]]}}, "no cell"),
        ({"lattice": salt_json()["lattice"] | {"pbc": [True, True, False]}}, "no cell"),
        ({"lattice": None}, "no structure"),
        ({"sites": []}, "no atoms in the cell"),
        ({"sites": [{"species": [], "abc": [0, 0, 0]}]}, "species not understood"),
        ({"sites": [{"species": [{"element": "Vac"}], "abc": [0, 0, 0]}]}, "unknown element"),
        ({"sites": [{"species": [{"element": ["Na"]}], "abc": [0, 0, 0]}]}, "unknown element"),
        ({"sites": [{"species": [{"element": "Na", "occu": "all"}], "abc": [0, 0, 0]}]}, "occupancy not a number"),
        ({"sites": [{"species": [{"element": "Na", "occu": -1}], "abc": [0, 0, 0]}]}, "occupancy below 0"),
        ({"sites": [{"species": [{"element": "Na", "occu": 2}], "abc": [0, 0, 0]}]}, "occupancy above 1"),
        ({"sites": [{"species": [{"element": "Na", "occu": 1}]}]}, "coordinates of the wrong shape"),
        ({"sites": [{"species": [{"element": "Na"}], "abc": [0, 0, 1e999]}]}, "coordinates not finite"),
        ({"sites": [{"species": [{"element": "Na"}], "abc": [0, 0, "far"]}]}, "coordinates not numbers"),
    ],
)
def test_bad_structure_is_set_aside_and_the_next_one_read(tmp_path, change, category):
    path = write_json(tmp_path / "a.json", [salt_json() | change, salt_json()])
    entries, rejects = items_of(PymatgenJson(path))
    assert [(r.entry, r.category) for r in rejects] == [("item 1", category)]
    assert [e.entry for e in entries] == ["item 2"]


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("", "empty file"),
        ("[]", "no structure in the file"),
        ("{}", "no structure"),
        ('"a text"', "no structure"),
        ("{" + '"a": ' * 3, "not JSON"),
        ("nonsense", "not JSON"),
        ("[" * 200_000, "not JSON"),
        ('{"structure": "data_NaCl"}', "no structure"),
        ('{"columns": ["structure"], "data": [[1]]}', "no structure"),
    ],
)
def test_json_without_a_structure_is_set_aside(tmp_path, text, category):
    (tmp_path / "a.json").write_text(text)
    assert categories_of(PymatgenJson(tmp_path / "a.json")) == [category]


def test_json_that_ends_early_or_goes_on_keeps_what_was_read(tmp_path):
    text = json.dumps([salt_json()] * 4)
    for broken in (text[:-40], text[:-1], text + "{}", text[:-1] + text[1:]):
        (tmp_path / "a.json").write_text(broken)
        entries, rejects = items_of(PymatgenJson(tmp_path / "a.json"))
        assert len(entries) >= 3
        assert [r.category for r in rejects] == ["not JSON"]


def test_partial_occupancy_follows_the_policy_and_oxidation_states_do_not_make_disorder(tmp_path):
    lattice = Lattice.cubic(3.4)
    sites = [[0, 0, 0], [0.5] * 3]
    valence = Structure(lattice, [{"Fe2+": 1 / 3, "Fe3+": 2 / 3}, {"D": 0.4, "H": 0.6}], sites)
    mixed = Structure(lattice, [{"Na": 0.6, "K": 0.4}, "Cl"], sites)
    path = write_json(tmp_path / "a.json", [valence.as_dict(), mixed.as_dict()])
    entries, rejects = items_of(PymatgenJson(path))
    assert [e.crystal.formula for e in entries] == ["FeH"]
    assert [r.category for r in rejects] == ["partial occupancy (disordered structure)"]
    entries, _ = items_of(PymatgenJson(path), occupancy="majority")
    assert [e.crystal.formula for e in entries] == ["FeH", "NaCl"]


def test_long_json_is_streamed_and_a_large_entry_named(tmp_path, monkeypatch):
    text = json.dumps(salt_json())
    path = tmp_path / "a.json"
    with path.open("w") as file:
        file.write("[" + text)
        for _ in range(20_000):
            file.write(", \n" + text)
        file.write("]")
    assert path.stat().st_size > 12e6
    tracemalloc.start()
    count = sum(isinstance(record, Record) for record in PymatgenJson(path).records())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_001
    assert peak < 10e6
    monkeypatch.setattr(streams, "MAX_BYTES", 2000)
    big = salt_json() | {"properties": {"note": "x" * 3000}}
    (tmp_path / "b.json").write_text(json.dumps([salt_json(), big, salt_json()]))
    entries, rejects = items_of(PymatgenJson(tmp_path / "b.json"))
    assert len(entries) == 1
    assert rejects[0].category == "entry too large"
    assert "JSON lines" in rejects[0].advice


def test_values_across_the_borders_of_what_is_read_at_once_stay_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "_CHUNK", 7)
    value = [12345678901, "a\\u00e9b", {"a": [1.25e-10, True]}, None, -0.5]
    (tmp_path / "a.json").write_text("\n  " + json.dumps(value, indent=3) + "  \n", encoding="utf-8-sig")
    with streams.opened(tmp_path / "a.json") as file:
        items = list(streams.json_items(file, lambda key, first: True))
    assert [(name, json.loads(text)) for name, text in items] == [(f"item {k}", v) for k, v in enumerate(value, 1)]
    (tmp_path / "a.json").write_text(json.dumps({"x": 1234567890, "y": 2}))
    for split, expected in ((True, [("x", 1234567890), ("y", 2)]), (False, [("", {"x": 1234567890, "y": 2})])):
        with streams.opened(tmp_path / "a.json") as file:
            items = list(streams.json_items(file, lambda key, first, split=split: split))
        assert [(name, json.loads(text)) for name, text in items] == expected
