"""Data sets of the Hugging Face Hub, as local ones: rows of LeMat-Bulk's columns, splits, and messages offline."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from structure_sources import CRYSTALS, assert_same, items_of

from crystens.crystal import Crystal
from crystens.datasets.huggingface import HuggingFaceDataset
from crystens.errors import CrystensError
from crystens.ingest.ingest import IngestOptions, open_store
from crystens.sources.limits import Limits
from crystens.sources.record import Record

datasets = pytest.importorskip("datasets", reason="needs the package datasets: pip install 'crystens[huggingface]'")


def lemat_row(crystal: Crystal, **change: object) -> dict:
    """Return a row with the columns of LeMat-Bulk."""
    structure = crystal.to_structure()
    symbols = [site.specie.symbol for site in structure]
    elements = sorted(set(symbols))
    count = len(structure)
    row: dict = {
        "elements": elements,
        "nsites": count,
        "chemical_formula_reduced": structure.composition.reduced_formula,
        "nelements": len(elements),
        "dimension_types": [1, 1, 1],
        "nperiodic_dimensions": 3,
        "lattice_vectors": structure.lattice.matrix.tolist(),
        "immutable_id": "mp-22862",
        "cartesian_site_positions": structure.cart_coords.tolist(),
        "species": json.dumps(
            [{"name": e, "chemical_symbols": [e], "concentration": [1], "attached": None} for e in elements]
        ),
        "species_at_sites": symbols,
        "last_modified": "2024-11-16 04:47:00",
        "elements_ratios": [symbols.count(element) / count for element in elements],
        "stress_tensor": [[0.1, 0.0, 0.0]] * 3,
        "energy": -27.0,
        "magnetic_moments": [],
        "forces": [[0.0, 0.0, 0.1]] * count,
        "total_magnetization": None,
        "dos_ef": 1.5,
        "functional": "pbe",
        "cross_compatibility": True,
        "entalpic_fingerprint": "x" * 40,
    }
    return row | change


def write_parquet(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture
def crystals(request: pytest.FixtureRequest) -> list[Crystal]:
    return [request.getfixturevalue(name) for name in CRYSTALS]


def test_rows_of_lemat_bulk_are_its_crystals_by_their_ids(tmp_path: Path, crystals: list[Crystal]) -> None:
    rows = [lemat_row(crystal, immutable_id=f"agm{k}") for k, crystal in enumerate(crystals)]
    rows[1]["immutable_id"] = None
    rows.append(lemat_row(crystals[0], dimension_types=[1, 1, 0], immutable_id="flat"))
    rows.append(lemat_row(crystals[0], species_at_sites=["Xx"] * 8, species=None, immutable_id="odd"))
    path = write_parquet(tmp_path / "lemat" / "train-00000.parquet", rows)
    for where in (path.parent, path):
        source = HuggingFaceDataset(path=where, cache=tmp_path / "cache")
        entries, rejects = items_of(source)
        assert [(e.entry, e.split) for e in entries] == [(n, None) for n in ("agm0", "row 1", "agm2", "agm3")]
        for entry, crystal in zip(entries, crystals, strict=True):
            assert_same(entry.crystal, crystal)
        assert [(r.entry, r.category) for r in rejects] == [("flat", "no cell"), ("odd", "unknown element")]
        assert source.expected() == 6
        (record,) = [r for r in source.records() if isinstance(r, Record) and r.entry == "row 0"]
        assert "forces" not in record.content
        assert "lattice_vectors" in record.content
        assert len(pickle.dumps(source)) < 1000


def test_columns_are_kept_as_properties_and_known_before(tmp_path: Path, nacl: Crystal) -> None:
    write_parquet(tmp_path / "in" / "a.parquet", [lemat_row(nacl), lemat_row(nacl, energy=None)])
    source = HuggingFaceDataset(dataset=str(tmp_path / "in"), cache=tmp_path / "cache").keeping(["energy", "dos_ef"])
    assert {"energy", "dos_ef", "total_magnetization"} <= set(source.columns())
    options = IngestOptions(workers=0, cache=tmp_path / "stores")
    store = open_store(source, Limits(max_sites=52), options)
    np.testing.assert_equal(store.properties(["energy", "dos_ef"]), [[-27.0, 1.5], [np.nan, 1.5]])
    with pytest.raises(CrystensError, match=r"no column gap for data\.properties; there are: .*energy"):
        open_store(source.keeping(["gap"]), Limits(max_sites=52), options)


def test_splits_keep_their_names_and_one_alone_is_none(
    tmp_path: Path, nacl: Crystal, triclinic: Crystal, single_atom: Crystal
) -> None:
    parts = {"train": nacl, "validation": triclinic, "test": single_atom}
    for split, crystal in parts.items():
        write_parquet(tmp_path / "in" / f"{split}.parquet", [lemat_row(crystal)])
    entries, _ = items_of(HuggingFaceDataset(path=tmp_path / "in", cache=tmp_path / "cache"))
    assert [(e.split, e.crystal.formula) for e in entries] == [
        (split, crystal.formula) for split, crystal in zip(("train", "val", "test"), parts.values(), strict=True)
    ]
    for split in ("validation", "validation[:1]"):
        entries, _ = items_of(HuggingFaceDataset(path=tmp_path / "in", cache=tmp_path / "cache", split=split))
        assert [(e.split, e.crystal.formula) for e in entries] == [(None, triclinic.formula)]
    tables = datasets.DatasetDict({name: datasets.Dataset.from_list([lemat_row(nacl)]) for name in ("train", "unique")})
    tables.save_to_disk(tmp_path / "saved")
    with pytest.raises(
        CrystensError, match=r"the splits train, unique, of which unique is neither .*data\.source\.split"
    ):
        HuggingFaceDataset(path=tmp_path / "saved").expected()
    entries, _ = items_of(HuggingFaceDataset(path=tmp_path / "saved", split="unique"))
    assert len(entries) == 1


def test_structures_and_cifs_in_a_column_are_read(tmp_path: Path, nacl: Crystal) -> None:
    structure = nacl.to_structure()
    structure.add_site_property("magmom", [0.5] * len(nacl))
    structure.properties = {"note": "Parquet has no empty objects"}
    for case, cells in enumerate(
        (
            {"structure": structure.as_dict()},
            {"structure": structure.to_json()},
            {"cif": structure.to(fmt="cif"), "note": "x"},
            {"initial_structure": structure.as_dict(), "n": 1.5},
        )
    ):
        folder = tmp_path / str(case)
        write_parquet(folder / "a.parquet", [{"material_id": "mp-1", **cells}, {"material_id": None, **cells}])
        entries, rejects = items_of(HuggingFaceDataset(path=folder, cache=tmp_path / "cache"))
        assert rejects == []
        assert [(e.entry, e.crystal.formula) for e in entries] == [("mp-1", "NaCl"), ("row 1", "NaCl")]
    both = {"initial_structure": structure.as_dict(), "final_structure": structure.as_dict()}
    write_parquet(tmp_path / "both" / "a.parquet", [{"id": "x", **both}])
    _, rejects = items_of(HuggingFaceDataset(path=tmp_path / "both", cache=tmp_path / "cache"))
    assert [(r.entry, r.category) for r in rejects] == [("x", "no key structure")]
    source = HuggingFaceDataset(path=tmp_path / "both", cache=tmp_path / "cache", key="final_structure")
    assert len(items_of(source)[0]) == 1


def test_without_a_network_the_message_says_what_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    source = HuggingFaceDataset("LeMaterial/LeMat-Bulk", "compatible_pbe", cache=tmp_path)
    message = (
        r"cannot load the data set LeMaterial/LeMat-Bulk compatible_pbe: .*reach.*; check the name and the network; "
    )
    with pytest.raises(CrystensError, match=message + r"without one, only what was fetched before .*data\.path=DIR"):
        source.contents()


def test_wrong_arguments_and_folders_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, given in (({}, "none was given"), ({"dataset": "a/b", "path": "c"}, "both were given")):
        with pytest.raises(CrystensError, match=rf"data\.source\.dataset=NAME.*; {given}"):
            HuggingFaceDataset(**arguments)
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(CrystensError, match=r"nowhere does not exist; give|cannot load the data set .*check data"):
            HuggingFaceDataset(path=folder, cache=tmp_path / "cache").expected()
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no table")
    with pytest.raises(CrystensError, match=r"cannot load the data set .*a\.parquet"):
        HuggingFaceDataset(path=tmp_path / "a.parquet", cache=tmp_path / "cache").expected()
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(CrystensError, match=r"needs the package datasets, .*pip install 'crystens\[huggingface\]'"):
        HuggingFaceDataset("a/b").expected()
