"""The store: columns mapped from a file give back what was put in, batch by batch."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from crystens.batch import CrystalBatch
from crystens.cif.write import write_cif
from crystens.crystal import Crystal
from crystens.data import split_groups as groups
from crystens.data.split_groups import crystal_groups
from crystens.errors import CrystensError
from crystens.formats.cif_folder import CifFolder
from crystens.ingest.ingest import IngestOptions, open_store
from crystens.ingest.store import CRYSTALS, MANIFEST, SCHEMA, CrystalStore
from crystens.orbits.batch import OrbitBatch
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Reject
from crystens.symmetry.descriptions import describe
from crystens.symmetry.orbit_crystal import CrystalWithOrbits


@pytest.fixture
def crystals(nacl, copper_primitive, triclinic, single_atom) -> list[Crystal]:
    return [nacl, copper_primitive, triclinic, single_atom]


@pytest.fixture
def store(crystals) -> CrystalStore:
    """A store in memory, of two blocks."""
    halves = [
        CrystalStore.from_items([Entry("f", str(k), crystal, split) for k, crystal in part], "test")
        for part, split in (
            (list(enumerate(crystals))[:3], "train"),
            (list(enumerate(crystals))[3:], None),
        )
    ]
    rows = [block.rows for half in halves for block in half._blocks]
    return CrystalStore(rows, halves[0].reject_counts, [], "test")


def test_batch_is_what_the_crystals_make(store, crystals):
    chosen = [3, 0, 0, 2]
    batch = store.batch(chosen, 12)
    expected = CrystalBatch.from_crystals([crystals[k] for k in chosen], 12)
    for name in ("lengths", "angles", "space_groups", "counts", "numbers", "coordinates"):
        assert torch.equal(getattr(batch, name), getattr(expected, name)), name
        assert getattr(batch, name).dtype == getattr(expected, name).dtype


def test_empty_batch_and_empty_store_have_their_shapes(store):
    assert store.batch([], 5).numbers.shape == (0, 5)
    empty = CrystalStore.from_items([Reject("f", "", "bad: it", "mend it")], "nothing")
    assert (len(empty), empty.num_rejects, empty.batch([], 5).coordinates.shape) == (0, 1, (0, 5, 3))


def test_crystal_with_too_many_sites_is_an_error(store):
    with pytest.raises(CrystensError, match=r"crystal 2 of test \(Al3O2\) has 10 sites, more than max_sites=9"):
        store.batch([1, 2], 9)


def test_store_is_a_sequence_of_crystals(store, crystals):
    assert [crystal.formula for crystal in store] == [crystal.formula for crystal in crystals]
    assert store[-1].formula == "Po"
    assert [crystal.formula for crystal in store[1:3]] == ["Cu", "Al3O2"]
    with pytest.raises(IndexError):
        store[4]


def test_columns_are_those_of_the_entries(store, crystals):
    assert store.column("entry") == ["0", "1", "2", "3"]
    assert store.column("split") == ["train", "train", "train", None]
    assert store.array("lengths").shape == (4, 3)
    assert store.array("numbers").tolist() == [z for crystal in crystals for z in crystal.numbers]
    assert store.counts.tolist() == [8, 1, 10, 1]
    assert store.block_sizes == [3, 1]


def test_store_travels_to_another_process(store):
    copy = pickle.loads(pickle.dumps(store))
    assert [crystal.formula for crystal in copy] == [crystal.formula for crystal in store]


def test_properties_are_columns_of_the_store_and_missing_ones_are_nan(crystals):
    given = [{"band_gap": 5.0, "energy": -1 / 3}, {"energy": 2.0}, {"band_gap": np.nan}, {"other": 9.0}]
    entries = [Entry("f", str(k), c, properties=p) for k, (c, p) in enumerate(zip(crystals, given, strict=True))]
    halves = [CrystalStore.from_items(part, "gaps", ["energy", "band_gap"]) for part in (entries[:3], entries[3:])]
    store = CrystalStore([block.rows for half in halves for block in half._blocks], halves[0].reject_counts, [], "gaps")
    assert store.property_names == ("energy", "band_gap")
    np.testing.assert_array_equal(
        store.properties(["band_gap", "energy"]), [[5, -1 / 3], [np.nan, 2], [np.nan, np.nan], [np.nan, np.nan]]
    )
    np.testing.assert_array_equal(store.properties(["energy"], [3, 1, 0, 1]), [[np.nan], [2], [-1 / 3], [2]])
    assert store.properties([], [1, 2]).shape == (2, 0)
    assert store.properties(["energy"], []).shape == (0, 1)
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(store)).properties(["energy"]), store.properties(["energy"])
    )
    with pytest.raises(
        CrystensError, match=r"gaps has no property gap; it has: energy, band_gap. Read the source again"
    ):
        store.properties(["gap"])


def test_store_without_properties_has_the_columns_that_it_always_had(store):
    assert store.property_names == ()
    assert all(block.rows.schema.equals(SCHEMA) for block in store._blocks)
    with pytest.raises(CrystensError, match="test has no property energy; it has: none"):
        store.properties(["energy"])


def test_batch_takes_its_properties_along(store):
    batch = replace(store.batch([0, 1, 2], 12), properties=torch.tensor([[1.0], [torch.nan], [3.0]]))
    assert batch[[2, 0]].properties.tolist() == [[3], [1]]
    assert batch.in_canonical_order().properties is batch.properties
    assert batch.to("cpu").properties.isnan().tolist() == [[False], [True], [False]]
    assert batch.to("meta").properties.device.type == "meta"
    assert batch.nbytes == store.batch([0, 1, 2], 12).nbytes + 12
    assert store.batch([0], 12)[:1].to("cpu").properties is None


def test_file_names_of_any_bytes_can_be_stored(nacl):
    store = CrystalStore.from_items([Entry("caf\udce9.cif", "", nacl)], "odd")
    assert store.column("file") == ["caf\\udce9.cif"]


def test_formula_groups_are_of_reduced_formulas(nacl, copper_primitive):
    primitive = Crystal([3.99] * 3, [60] * 3, 225, [11, 17], np.array([[0, 0, 0], [0.5, 0.5, 0.5]]))
    store = CrystalStore.from_items([Entry("f", "", c) for c in (nacl, copper_primitive, primitive)], "salts")
    assert crystal_groups(store, "formula").tolist() == [0, 1, 0]
    assert crystal_groups(store, "structure").tolist() == [0, 1, 0]
    assert crystal_groups(store, "random") is None


@pytest.mark.parametrize("content", ["", "{}", '{"format": 99}', "[]"])
def test_folder_without_a_good_manifest_is_an_error(tmp_path: Path, content):
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(CrystensError, match="ingest the source again"):
        CrystalStore.open(tmp_path)
    with pytest.raises(CrystensError, match=r"is no store: it has no manifest\.json"):
        CrystalStore.open(tmp_path / "nowhere")


def test_single_crystals_and_batches_have_one_canonical_order(crystals, sites_52):
    rng = np.random.default_rng(0)
    for crystal in [*crystals, sites_52]:
        order = rng.permutation(len(crystal))
        mixed = Crystal(
            crystal.lengths,
            crystal.angles,
            crystal.space_group,
            crystal.numbers[order],
            crystal.coordinates[order] + rng.choice([0, 1e-5, -1e-5], size=(len(crystal), 3)),
        )
        alone = mixed.in_canonical_order()
        together = CrystalBatch.from_crystals([mixed], 52).in_canonical_order().crystal(0)
        assert np.array_equal(alone.numbers, together.numbers)
        np.testing.assert_allclose(alone.coordinates, together.coordinates, atol=1e-6)


def test_groups_are_looked_for_once_and_kept_beside_the_store(tmp_path, nacl, copper_primitive, monkeypatch):
    for name, crystal in (("a", nacl), ("b", copper_primitive), ("c", nacl)):
        (tmp_path / f"{name}.cif").write_text(write_cif(crystal))
    store = open_store(CifFolder(tmp_path), Limits(), IngestOptions(workers=0, cache=tmp_path / "cache"))
    options = IngestOptions(workers=1)
    assert crystal_groups(store, "structure", options).tolist() == [0, 1, 0]
    monkeypatch.setattr(groups, "group_matches", None)
    assert crystal_groups(CrystalStore.open(store.folder), "structure", options).tolist() == [0, 1, 0]


# ---- crystals that keep their orbits


@pytest.fixture
def with_orbits(nacl, quartz, triclinic) -> list[CrystalWithOrbits]:
    return [CrystalWithOrbits.from_orbits(describe(crystal)) for crystal in (nacl, quartz, triclinic)]


def test_store_keeps_orbits_beside_all_sites_of_the_primitive_cell(with_orbits):
    store = CrystalStore.from_items([Entry("f", str(k), c) for k, c in enumerate(with_orbits)], "test")
    batch, expected = (
        store.orbit_batch([2, 0, 1], 12),
        OrbitBatch.from_crystals([with_orbits[k] for k in (2, 0, 1)], 12),
    )
    for name, tensor in expected.tensors().items():
        assert torch.equal(getattr(batch, name), tensor), name
        assert getattr(batch, name).dtype == tensor.dtype
    assert store.batch([0], 12).counts.tolist() == [2]  # NaCl's primitive cell
    assert store.most_orbits == max(len(crystal.orbits) for crystal in with_orbits)
    again = store[1]
    assert isinstance(again, CrystalWithOrbits)
    assert again.orbits.letters == with_orbits[1].orbits.letters
    np.testing.assert_allclose(again.orbits.coordinates, with_orbits[1].orbits.coordinates, atol=1e-6)


def test_orbits_of_a_store_that_keeps_none_are_an_error(store):
    with pytest.raises(CrystensError, match="keep no orbits; read them with"):
        store.orbit_batch([0], 12)


def test_store_of_a_version_that_knew_no_orbits_is_read(nacl, tmp_path):
    folder = CifFolder(tmp_path / "cifs")
    (tmp_path / "cifs").mkdir()
    (tmp_path / "cifs" / "nacl.cif").write_text(write_cif(nacl))
    now = open_store(folder, Limits(), IngestOptions(workers=0, cache=tmp_path / "cache"))
    path, numbers = now.folder / CRYSTALS, now[0].numbers.tolist()
    before = pa.schema([field for field in SCHEMA if not field.name.startswith("orbit_")])
    table = pa.ipc.open_file(path.read_bytes()).read_all().select(before.names).cast(before)
    path.unlink()  # and not written over: it is mapped
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, before) as writer:
        writer.write_table(table)
    old = CrystalStore.open(now.folder)
    assert old[0].numbers.tolist() == numbers
    assert (len(old), old.most_orbits) == (1, 0)
