"""mp_52: built by its rule, verified, and equal to the shared tables row for row."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import re
from pathlib import Path

import pytest
import requests

from crystens.cif.write import write_cif
from crystens.crystal import Crystal
from crystens.datasets import mp_52_tables
from crystens.datasets.download import Patience
from crystens.datasets.mp_52 import Mp52
from crystens.datasets.mp_52_tables import SOURCES, TABLES, SourceTable, build_mp_52, left_out, tables_of
from crystens.errors import CrystensError
from crystens.sources.limits import Limits

FAST = Patience(timeout=0.5, retries=0, wait=0.01)
MP_20 = "material_id,formation_energy_per_atom,band_gap,e_above_hull,cif"
MPTS_52 = "material_id,energy_above_hull,formation_energy_per_atom,cif"


def _cif(sites: int) -> str:
    rows = "\n".join(f" X X{k} 1 0 0 0 1" for k in range(sites))
    return f"# generated using pymatgen\ndata_X\nloop_\n _atom_site_type_symbol\n _atom_site_occupancy\n{rows}\n"


def _source(header: str, *rows: tuple[object, ...]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([header.split(","), *rows])
    return text.getvalue()


def _ids(table: bytes) -> list[str]:
    return [row["material_id"] for row in csv.DictReader(io.StringIO(table.decode(), newline=""))]


def _order(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


@pytest.fixture
def small_rule(monkeypatch) -> None:
    """Rule with two crystals in the place of thousands."""
    for name in ("_TEST_WITH_MANY", "_VAL_OF_MP_20", "_VAL_WITH_MANY"):
        monkeypatch.setattr(mp_52_tables, name, 2)


def test_first_row_of_an_id_stays_and_gains_every_origin():
    sources = [
        (_source(MP_20, ("mp-1", -1.50, "0.70", 0.1, _cif(2))), "mp_20:val"),
        (_source(MPTS_52, ("mp-1", 0.2, -9, _cif(3)), ("mp-2", "1e-05", -3.0, _cif(3))), "mpts_52:test"),
        (_source(MP_20, ("mp-1", -7, 7, 7, _cif(7))), "mp_20:test"),
    ]
    tables = tables_of(sources, set())
    rows = {row["material_id"]: row for text in tables.values() for row in csv.DictReader(io.StringIO(text.decode()))}
    one, two = rows["mp-1"], rows["mp-2"]
    assert one["origin"] == "mp_20:test mp_20:val mpts_52:test"
    assert (one["formation_energy_per_atom"], one["band_gap"], one["e_above_hull"]) == ("-1.5", "0.70", "0.1")
    assert one["cif"] == _cif(2).removeprefix("# generated using pymatgen\n")
    assert (two["formation_energy_per_atom"], two["band_gap"], two["e_above_hull"]) == ("-3.0", "", "1e-05")
    assert _ids(tables["test"]) == ["mp-1"]
    assert _ids(tables["val"]) == []
    assert _ids(tables["train"]) == ["mp-2"]


def test_splits_follow_the_rule_and_the_order_of_hashes(small_rule):
    small = {origin: [f"{origin}-small-{k}" for k in range(5)] for origin in ("mp_20:test", "mp_20:val", "mpts_52:val")}
    large = {origin: [f"{origin}-large-{k}" for k in range(5)] for origin in ("mpts_52:test", "mpts_52:val")}
    sources = [
        (_source(MP_20, *((name, 0, 0, 0, _cif(20)) for name in names)), origin) for origin, names in small.items()
    ]
    sources += [
        (_source(MPTS_52, *((name, 0, 0, _cif(21)) for name in names)), origin) for origin, names in large.items()
    ]
    first = {origin: sorted(names, key=_order) for origin, names in (small | large).items()}
    first_large = sorted([*first["mpts_52:test"][2:], *large["mpts_52:val"]], key=_order)
    left = {small["mpts_52:val"][0], small["mp_20:test"][0]}
    tables = tables_of(sources, left)
    test = [*small["mp_20:test"], *first["mpts_52:test"][:2]]
    val = [*first["mp_20:val"][:2], *first_large[:2]]
    train = [*first["mp_20:val"][2:], *first_large[2:], *small["mpts_52:val"][1:]]
    assert _ids(tables["test"]) == sorted(test, key=_order)
    assert _ids(tables["val"]) == sorted(val, key=_order)
    assert _ids(tables["train"]) == sorted(train, key=_order)


class _Answer:
    """Answer of a server that serves the files of one folder."""

    reason = "Not Found"
    headers: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, path: Path) -> None:
        self.status_code = 200 if path.is_file() else 404
        self._path = path

    def __enter__(self) -> _Answer:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def iter_content(self, size: int) -> list[bytes]:
        return [self._path.read_bytes()]


@pytest.fixture
def served(tmp_path, monkeypatch) -> Path:
    """Folder whose files a server sends that stands in for GitHub, with the number of requests in `asked`."""
    folder = tmp_path / "served"

    def get(session: requests.Session, address: str, **_: object) -> _Answer:
        with (tmp_path / "asked").open("a") as file:
            file.write(f"{address}\n")
        return _Answer(folder / address.removeprefix("https://mirror.example/"))

    monkeypatch.setattr(requests.Session, "get", get)
    return folder


@pytest.fixture
def two_sources(served, monkeypatch, nacl: Crystal, copper_primitive: Crystal, single_atom: Crystal) -> Path:
    """Two small sources in the place of the eight."""
    test = _source(MP_20, ("mp-1", -2, 5.0, 0, write_cif(nacl)), ("mp-2", 0, 0, 0, write_cif(single_atom)))
    val = _source(MP_20, ("mp-3", 0, 0, 0, write_cif(copper_primitive)))
    known = []
    for path, origin, content in (
        ("a/b/c/t.csv.gz", "mp_20:test", gzip.compress(test.encode())),
        ("v.csv", "mp_20:val", val.encode()),
    ):
        (served / path).parent.mkdir(parents=True, exist_ok=True)
        (served / path).write_bytes(content)
        known.append(SourceTable(path, origin, len(content), hashlib.sha256(content).hexdigest()))
    monkeypatch.setattr(mp_52_tables, "SOURCES", tuple(known))
    tables = tables_of([(test, "mp_20:test"), (val, "mp_20:val")], set())
    sums = {split: hashlib.sha256(content).hexdigest() for split, content in tables.items()}
    monkeypatch.setattr(mp_52_tables, "TABLES", sums)
    return served


def test_without_a_path_it_is_fetched_built_and_read_once(two_sources, tmp_path):
    source = Mp52(None, tmp_path / "cache", "https://mirror.example/", FAST)
    assert str(source) == "mp_52 of https://mirror.example/"
    assert not (tmp_path / "asked").exists()
    items = list(source.read(Limits()))
    assert {(item.entry, item.split, item.crystal.formula) for item in items} == {
        ("mp-1", "test", "NaCl"),
        ("mp-2", "test", "Po"),
        ("mp-3", "val", "Cu"),
    }
    assert source.contents() == {f"{s}.csv": tmp_path / "cache" / "mp_52" / f"{s}.csv" for s in TABLES}
    assert len((tmp_path / "asked").read_text().splitlines()) == 2


def test_table_that_was_changed_in_the_cache_is_built_again_without_a_request(two_sources, tmp_path):
    paths = build_mp_52(tmp_path / "cache", "https://mirror.example", FAST)
    right = paths["val"].read_bytes()
    paths["val"].write_bytes(right + b"?")
    assert build_mp_52(tmp_path / "cache", "https://mirror.example", FAST)["val"].read_bytes() == right
    assert len((tmp_path / "asked").read_text().splitlines()) == 2


def test_other_bytes_are_refused_before_and_after_the_build(two_sources, tmp_path, monkeypatch):
    right = (two_sources / "v.csv").read_bytes()
    (two_sources / "v.csv").write_bytes(right[:-1] + b"?")
    with pytest.raises(CrystensError, match=r"v\.csv is not the file that was expected: its SHA-256"):
        build_mp_52(tmp_path / "cache", "https://mirror.example", FAST)
    (two_sources / "v.csv").write_bytes(right)
    monkeypatch.setattr(mp_52_tables, "TABLES", {**mp_52_tables.TABLES, "val": "0" * 64})
    with pytest.raises(CrystensError, match=r"the val table of mp_52 .* should be 0000.*give data\.path=DIR"):
        build_mp_52(tmp_path / "cache", "https://mirror.example", FAST)
    assert not (tmp_path / "cache" / "mp_52" / "val.csv").exists()


def test_missing_source_is_one_error_that_names_the_folder_to_give_instead(two_sources, tmp_path):
    (two_sources / "v.csv").unlink()
    with pytest.raises(CrystensError, match=r"v\.csv: status 404 .*by hand, or give data\.path=DIR"):
        list(Mp52(None, tmp_path / "cache", "https://mirror.example", FAST).records())


def test_missing_table_of_a_folder_is_one_error(tmp_path):
    (tmp_path / "train.csv").write_text("material_id,cif\n")
    with pytest.raises(CrystensError, match=r"no val\.csv or val\.csv\.gz in .* or no data\.path at all"):
        list(Mp52(tmp_path).records())


def test_known_checksums_and_left_out_ids_are_those_of_the_shared_tables(shared_data):
    folder = shared_data / "mp_52"
    for split, known in TABLES.items():
        assert hashlib.sha256(gzip.decompress((folder / f"{split}.csv.gz").read_bytes())).hexdigest() == known
    assert left_out() == set(json.loads((folder / "left_out.json").read_text()))
    assert len(left_out()) == 194
    build = (folder / "BUILD.md").read_text()
    assert all(re.search(r"/([0-9a-f]{40})/", source.path)[1] in build for source in SOURCES)  # type: ignore[index]


def test_folder_is_read_with_its_given_splits(shared_data):
    splits: dict[str | None, int] = {}
    for record in Mp52(shared_data / "mp_52").records():
        splits[record.split] = splits.get(record.split, 0) + 1  # type: ignore[union-attr]
    assert splits == {"train": 18825, "val": 1300, "test": 8342}


@pytest.mark.slow
def test_real_sources_build_the_known_tables():
    """The tables have the checksums of the shared ones, which are those of `TABLES`."""
    folder = os.environ.get("CRYSTENS_MP_52_SOURCES")
    if not folder:
        pytest.skip(
            "set CRYSTENS_MP_52_SOURCES to a folder with OWNER/REPOSITORY/COMMIT/FILE of the eight public files"
        )
    texts = []
    for source in SOURCES:
        content = (Path(folder) / source.path).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (source.size, source.sha256)
        texts.append((mp_52_tables._text(content, source.path), source.origin))
    built = tables_of(texts, left_out())
    assert {split: hashlib.sha256(content).hexdigest() for split, content in built.items()} == TABLES
