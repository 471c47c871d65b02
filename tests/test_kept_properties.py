"""Properties on their way from files of every kind through the store into batches, and never a number made up."""

from __future__ import annotations

import csv
import json
import math
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pymatgen.entries.computed_entries import ComputedStructureEntry
from structure_sources import as_atoms, items_of, write_database

from crystens.cif.write import write_cif
from crystens.crystal import Crystal
from crystens.data.__main__ import main
from crystens.data.datamodule import CrysTensDataModule
from crystens.data.split_record import OtherData
from crystens.datasets.cdvae import CdvaeSplits
from crystens.datasets.mp_52 import Mp52
from crystens.datasets.prototypes import Prototypes
from crystens.errors import CrystensError
from crystens.formats.ase_db import AseDatabase
from crystens.formats.cif_folder import CifFolder
from crystens.formats.crystal_dictionary import CrystalDictionary
from crystens.formats.csv_table import CsvTable
from crystens.formats.extxyz import ExtendedXyz
from crystens.formats.pymatgen_json import PymatgenJson
from crystens.ingest import ingest
from crystens.ingest.ingest import IngestOptions, open_store
from crystens.ingest.store import CrystalStore
from crystens.ingest.store_source import StoredCrystals
from crystens.scaling import Scaling
from crystens.sources.limits import Limits
from crystens.sources.properties import kept
from crystens.sources.record import Unusable
from crystens.sources.source import Source
from crystens.survey.columns import Census
from crystens.survey.text import summarise

CONF = Path(__file__).parent.parent / "conf"


def _table(path: Path, crystal: Crystal, *rows: dict[str, str]) -> Path:
    """Write a table with a crystal in each row."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["material_id", *rows[0], "cif"])
        writer.writeheader()
        writer.writerows({"material_id": f"m{k}", "cif": write_cif(crystal), **row} for k, row in enumerate(rows))
    return path


def _options(folder: Path) -> IngestOptions:
    return IngestOptions(workers=0, cache=folder / "cache")


def _store(source: Source, folder: Path) -> CrystalStore:
    return open_store(source, Limits(), _options(folder))


# A value


@pytest.mark.parametrize(
    ("value", "number"),
    [("1.5", 1.5), (" -2e-3 ", -0.002), (".5", 0.5), ("+7.", 7), (0, 0), ("0", 0), (-1 / 3, -1 / 3), (10**30, 1e30)],
)
def test_numbers_and_texts_that_are_numbers_are_kept(value, number):
    assert kept({"x": value}, ["x"]) == {"x": number}


@pytest.mark.parametrize("value", [None, "", "  ", "nan", "NaN", "None", "null", "N/A", "na", "-", "?", math.nan])
def test_missing_values_are_nan_and_never_zero(value):
    assert math.isnan(kept({"x": value}, ["x"])["x"])


def test_name_that_is_not_there_is_missing():
    assert all(math.isnan(kept(fields, ["x"])["x"]) for fields in ({}, {"X": 1}, None, [1], "x"))


@pytest.mark.parametrize("value", ["1,5", "5 eV", "1_000", "one", "0x1f", "1.5(2)", "inf", "1e999", math.inf, 10**400])
def test_text_that_is_no_finite_number_is_refused_with_name_and_value(value):
    with pytest.raises(Unusable, match=r"property not a finite number: gap is .*") as caught:
        kept({"gap": value}, ["gap"])
    assert "data.properties without gap" in caught.value.advice


@pytest.mark.parametrize("value", [True, False, [1.0], {"y": 1}])
def test_truth_values_lists_and_objects_are_refused(value):
    with pytest.raises(Unusable, match=r"property not a finite number: gap is .*") as caught:
        kept({"gap": value}, ["gap"])
    assert "data.properties without gap" in caught.value.advice


def test_names_may_be_paths_and_a_name_as_it_stands_comes_first():
    fields = {"data": {"gap": 1.0, "more": {"deep": 2}}, "data.gap": 3.0, "text": "x", "flag": True, "none": None}
    assert kept(fields, ["data.gap", "data.more.deep"]) == {"data.gap": 3, "data.more.deep": 2}
    assert kept(fields, None) == {"data.gap": 3, "data.more.deep": 2}


# Kinds of files


def _xyz(folder: Path, crystal: Crystal) -> Source:
    a, b, c = crystal.vectors.tolist()
    lattice = " ".join(map(str, [*a, *b, *c]))
    with (folder / "a.extxyz").open("w") as file:
        for info in ("Gap=5.5 energy=-3", "energy=-2.5e0", "Gap=nan energy=-2"):
            head = f'Lattice="{lattice}" Properties=species:S:1:pos:R:3 {info}'
            file.write(f"1\n{head}\nPo 0 0 0\n")
    return ExtendedXyz(folder / "a.extxyz")


def _ase(suffix: str):
    def make(folder: Path, crystal: Crystal) -> Source:
        rows = []
        for energy, pairs in ((-3, {"Gap": 5.5}), (-2.5, {}), (-2, {"note": "none"})):
            atoms = as_atoms(crystal)
            atoms.calc = SinglePointCalculator(atoms, energy=energy)
            rows.append((atoms, pairs))
        return AseDatabase(write_database(folder / f"a{suffix}", rows))

    return make


def _dictionary(folder: Path, crystal: Crystal) -> Source:
    line = {"lengths": [3.3] * 3, "angles": [90] * 3, "elements": ["Po"], "coordinates": [[0, 0, 0]]}
    more = [{"Gap": 5.5, "energy": -3}, {"energy": "-2.5"}, {"Gap": None, "energy": -2.0}]
    (folder / "a.jsonl").write_text("\n".join(json.dumps(line | fields) for fields in more))
    return CrystalDictionary(folder / "a.jsonl")


def _json(folder: Path, crystal: Crystal) -> Source:
    structure = crystal.to_structure().as_dict()
    more = [{"Gap": 5.5, "energy": -3}, {"energy": -2.5}, {"Gap": None, "energy": -2.0}]
    (folder / "a.json").write_text(json.dumps([{"structure": structure, **fields} for fields in more]))
    return PymatgenJson(folder / "a.json")


def _csv(folder: Path, crystal: Crystal) -> Source:
    rows = [{"Gap": "5.5", "energy": "-3"}, {"Gap": "", "energy": "-2.5"}, {"Gap": "nan", "energy": "-2"}]
    return CsvTable(_table(folder / "a.csv", crystal, *rows))


KINDS = [_csv, _xyz, _ase(".db"), _ase(".json"), _dictionary, _json]
NAMES = ["csv", "extxyz", "ase_db", "ase_json", "crystal_dictionary", "pymatgen_json"]
every_kind = pytest.mark.parametrize("make", KINDS, ids=NAMES)


@every_kind
def test_numbers_of_every_kind_of_file_reach_the_store(tmp_path, single_atom, make):
    source = make(tmp_path, single_atom).keeping(["Gap", "energy"])
    entries, rejects = items_of(source)
    assert rejects == []
    assert [sorted(entry.properties) for entry in entries] == [["Gap", "energy"]] * 3
    store = _store(source, tmp_path)
    np.testing.assert_array_equal(store.properties(["energy", "Gap"]), [[-3, 5.5], [-2.5, np.nan], [-2, np.nan]])


@every_kind
def test_nothing_is_kept_that_is_not_asked_for(tmp_path, single_atom, make):
    entries, _ = items_of(make(tmp_path, single_atom))
    assert [dict(entry.properties) for entry in entries] == [{}] * 3
    assert _store(make(tmp_path, single_atom), tmp_path).property_names == ()


@every_kind
def test_name_that_nothing_has_is_an_error_with_the_names_that_are_there(tmp_path, single_atom, make):
    source = make(tmp_path, single_atom).keeping(["energy", "gap_of_band"])
    with pytest.raises(CrystensError, match=r"has (no column )?gap_of_band (for|of) data.properties; there are: .*Gap"):
        _store(source, tmp_path)


def test_entry_of_pymatgen_gives_what_its_data_hold(tmp_path, nacl):
    entry = ComputedStructureEntry(nacl.to_structure(), -7.0, correction=-0.5, data={"band_gap": 5.0})
    (tmp_path / "a.json").write_text(json.dumps(entry.as_dict()))
    entries, _ = items_of(PymatgenJson(tmp_path / "a.json").keeping(["energy", "correction", "data.band_gap"]))
    assert entries[0].properties == {"energy": -7, "correction": -0.5, "data.band_gap": 5}


def test_text_that_is_no_number_sets_its_row_aside_and_no_other(tmp_path, single_atom):
    path = _table(tmp_path / "a.csv", single_atom, {"gap": "1.5"}, {"gap": "1,5"}, {"gap": ""})
    entries, rejects = items_of(CsvTable(path).keeping(["gap"]))
    assert [entry.entry for entry in entries] == ["m0", "m2"]
    assert [(r.entry, r.reason) for r in rejects] == [("m1", "property not a finite number: gap is '1,5'")]
    assert len(items_of(CsvTable(path))[0]) == 3


def test_row_that_ends_early_has_missing_values(tmp_path, single_atom):
    path = tmp_path / "a.csv"
    cif = write_cif(single_atom).replace('"', '""')
    path.write_text(f'cif,gap\n"{cif}",2\n"{cif}"\n')
    store = _store(CsvTable(path).keeping(["gap"]), tmp_path)
    np.testing.assert_array_equal(store.properties(["gap"]), [[2], [np.nan]])


def test_column_without_a_value_is_an_error(tmp_path, single_atom):
    path = _table(tmp_path / "a.csv", single_atom, {"gap": "", "heat": "1"}, {"gap": "nan", "heat": "2"})
    with pytest.raises(CrystensError, match=r"no crystal of table .* has gap of data.properties; there are: gap, heat"):
        _store(CsvTable(path).keeping(["gap"]), tmp_path)


def test_property_may_be_missing_from_a_whole_split_but_not_from_all(tmp_path, single_atom):
    for split, row in (("train", {"other": "1"}), ("val", {"gap": "2"}), ("test", {"gap": "3"})):
        _table(tmp_path / f"{split}.csv", single_atom, row)
    store = _store(CdvaeSplits(tmp_path, "mine").keeping(["gap"]), tmp_path)
    np.testing.assert_array_equal(store.properties(["gap"]), [[np.nan], [2], [3]])
    with pytest.raises(CrystensError, match=r"mine of .* has no column gaps for .*; there are: other, gap"):
        _store(CdvaeSplits(tmp_path, "mine").keeping(["gap", "gaps"]), tmp_path)


@pytest.mark.parametrize("names", ["gap", [""], ["gap", "gap"], [1]])
def test_names_are_a_list_of_different_texts(tmp_path, names):
    with pytest.raises(CrystensError, match=r"data\.properties must be a list of different names"):
        CsvTable(tmp_path / "a.csv").keeping(names)


@pytest.mark.parametrize("source", [CifFolder("cifs"), Prototypes()], ids=["cif_folder", "prototypes"])
def test_source_without_properties_says_so(source):
    with pytest.raises(CrystensError, match=r"data.properties=\[gap,heat\], but .* has no properties"):
        source.keeping(["gap", "heat"])
    assert source.keeping([]).properties == ()


# Stores


def test_list_of_properties_is_a_part_of_the_recipe(tmp_path, single_atom):
    path = _table(tmp_path / "a.csv", single_atom, {"gap": "1", "heat": "2"})
    names = [[], ["gap"], ["gap", "heat"]]
    stores = [_store(CsvTable(path).keeping(wanted), tmp_path) for wanted in names]
    assert len({store.folder for store in stores}) == 3
    assert [list(store.property_names) for store in stores] == names
    assert _store(CsvTable(path).keeping(["gap"]), tmp_path).folder == stores[1].folder


def test_shards_make_the_same_columns(tmp_path, single_atom, monkeypatch):
    monkeypatch.setattr(ingest, "_CHUNK_RECORDS", 4)
    rows = [{"gap": str(k / 7) if k % 3 else ""} for k in range(10)]
    source = CsvTable(_table(tmp_path / "a.csv", single_atom, *rows)).keeping(["gap"])
    expected = [[float(row["gap"] or "nan")] for row in rows]
    np.testing.assert_array_equal(_store(source, tmp_path).properties(["gap"]), expected)
    out, arguments = tmp_path / "out", ["--properties", "gap", "--workers", "0"]
    for k in range(2):
        assert main(["ingest", str(tmp_path / "a.csv"), "--out", str(out), "--shard", f"{k}/2", *arguments]) == 0
    sharded = CrystalStore.open(out)
    assert sharded.block_sizes == [6, 4]
    places = [int(name[1:]) for name in sharded.column("entry")]
    np.testing.assert_array_equal(sharded.properties(["gap"]), np.array(expected)[places])
    assert pickle.loads(pickle.dumps(sharded)).property_names == ("gap",)


def test_duplicates_are_set_aside_with_their_properties(tmp_path, nacl, copper_primitive):
    rows = [("a", nacl, 1), ("b", copper_primitive, 2), ("c", nacl, 3)]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["material_id", "cif", "gap"], *((name, write_cif(c), gap) for name, c, gap in rows)])
    options = replace(_options(tmp_path), duplicates="set_aside")
    store = open_store(CsvTable(tmp_path / "a.csv").keeping(["gap"]), Limits(), options)
    assert store.properties(["gap"]).tolist() == [[1], [2]]


def test_store_gives_the_properties_that_it_holds_and_names_them(tmp_path, single_atom):
    _table(tmp_path / "a.csv", single_atom, {"gap": "1", "heat": "2"})
    arguments = ["ingest", str(tmp_path / "a.csv"), "--out", str(tmp_path / "store"), "--workers", "0"]
    assert main([*arguments, "--properties", "gap", "heat"]) == 0
    source = StoredCrystals(tmp_path / "store")
    assert [dict(item.properties) for item in source.keeping(["heat"]).read(Limits())] == [{"heat": 2}]
    assert [dict(item.properties) for item in source.keeping(None).read(Limits())] == [{"gap": 1, "heat": 2}]
    module = CrysTensDataModule(source, 2, Scaling.fit, properties=["heat"], split="random", split_fractions=(1, 0, 0))
    assert module.train_crystals.properties.tolist() == [[2]]
    with pytest.raises(CrystensError, match=r"store .* has no column gaps for data.properties; there are: gap, heat"):
        CrysTensDataModule(source, 2, Scaling.fit, properties=["gaps"]).setup()


def test_ingest_of_a_name_that_nothing_has_is_one_error(tmp_path, single_atom, capsys):
    source = _xyz(tmp_path, single_atom)
    arguments = ["ingest", str(source.path), "--out", str(tmp_path / "store"), "--workers", "0", "--properties", "gap"]
    assert main(arguments) != 0
    assert "has gap of data.properties; there are: Gap, energy" in capsys.readouterr().err


def test_summary_says_how_many_have_each_property_and_its_range(tmp_path, single_atom):
    path = _table(tmp_path / "a.csv", single_atom, *({"gap": str(k) if k else "", "heat": "-1.25"} for k in range(6)))
    text = summarise(Census.from_store(_store(CsvTable(path).keeping(["gap", "heat"]), tmp_path)))
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.startswith(("  gap", "  heat"))}
    assert lines["gap"][:3] == ["5", "1", "1"]
    assert [float(value) for value in lines["gap"][3:]] == pytest.approx([1.04, 3, 4.96, 5])
    assert lines["heat"] == ["6", "0", *["-1.25"] * 5]
    assert "missing" not in summarise(Census.from_store(_store(CsvTable(path), tmp_path)))


# Batches


def _module(path: Path, properties: list[str], folder: Path) -> CrysTensDataModule:
    return CrysTensDataModule(
        CsvTable(path),
        2,
        Scaling.fit,
        batch_size=2,
        split_fractions=(1, 0, 0),
        ingest=_options(folder),
        properties=properties,
    )


def test_batches_carry_the_properties_of_their_crystals_in_the_order_that_is_asked_for(tmp_path):
    rows = []
    for k in range(6):
        crystal = Crystal([3 + k] * 3, [90] * 3, 221, [84], np.zeros((1, 3)))
        rows.append({"cif": write_cif(crystal), "length": str(3 + k), "gap": "" if k == 2 else "0.1"})
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    module = _module(path, ["gap", "length"], tmp_path)
    seen = 0
    for batch in module.train_dataloader():
        assert batch.properties.shape == (2, 2)
        assert batch.properties.dtype == torch.float32
        torch.testing.assert_close(batch.properties[:, 1], batch.lengths[:, 0])
        assert torch.equal(batch.properties[:, 0].isnan(), batch.lengths[:, 0] == 5)
        assert module.on_after_batch_transfer(batch).shape == (2, 4, 14, 14)
        seen += len(batch)
    assert seen == 6
    assert module.train_crystals.properties.shape == (6, 2)
    assert _module(path, [], tmp_path).train_crystals.properties is None


def test_changed_property_is_other_data_on_resume_and_one_that_is_not_kept_is_not(tmp_path, single_atom):
    before = _table(tmp_path / "a.csv", single_atom, *({"gap": str(k)} for k in range(5)))
    (tmp_path / "b").mkdir()
    after = _table(tmp_path / "b" / "a.csv", single_atom, *({"gap": str(k + (k == 3) / 1e6)} for k in range(5)))
    states = {}
    for names in ((), ("gap",)):
        module = _module(before, list(names), tmp_path)
        module.setup()
        states[names] = module.state_dict()
    resumed = _module(after, [], tmp_path)
    resumed.setup()
    resumed.load_state_dict(states[()])
    resumed = _module(after, ["gap"], tmp_path)
    resumed.setup()
    with pytest.raises(OtherData, match=r"1 with other cells, sites or properties \(a.csv m3\)"):
        resumed.load_state_dict(states["gap",])
    with pytest.raises(OtherData, match=r"data.properties \(\[\], now \['gap'\]\)"):
        resumed.load_state_dict(states[()])


# The config of mp_52


def test_config_of_mp_52_keeps_its_three_properties(tmp_path, single_atom):
    row = {"formation_energy_per_atom": "-0.5", "band_gap": "", "e_above_hull": "0.0"}
    for split in ("train", "val", "test"):
        _table(tmp_path / f"{split}.csv", single_atom, row, row | {"band_gap": "1"})
    with initialize_config_dir(str(CONF / "data"), version_base=None):
        data = compose("mp_52", [f"path={tmp_path}", f"ingest.cache={tmp_path}/cache", "ingest.workers=0"])
    cfg = OmegaConf.create(
        {"max_sites": 52, "encoding": {"distance": "fractional", "sites": "all"}, "seed": 0, "data": data}
    )
    module = instantiate(cfg.data, scaling=Scaling.fit, _convert_="all")
    assert isinstance(module.source, Mp52)
    assert module.properties == ("formation_energy_per_atom", "band_gap", "e_above_hull")
    np.testing.assert_array_equal(module.test_crystals.properties, [[-0.5, np.nan, 0], [-0.5, 1, 0]])


def test_real_mp_52_has_its_stated_numbers(shared_data):
    source = Mp52(shared_data / "mp_52").keeping(["formation_energy_per_atom", "band_gap", "e_above_hull"])
    counts = {"train": 0, "val": 0, "test": 0}
    for record in source.records():
        values = kept(record.fields, source.properties)
        assert not math.isnan(values["formation_energy_per_atom"])
        assert values["e_above_hull"] >= 0
        counts[record.split] += not math.isnan(values["band_gap"])
    assert counts == {"train": 8788, "val": 1000, "test": 7342}
