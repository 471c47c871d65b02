"""The Materials Project source, against a small server that answers as its API does with five textbook structures.

`tests/recorded/materials_project.json` was written by hand after the API's documents: no record of a real answer.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import logging
import math
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from crystens.datasets import materials_project
from crystens.datasets.materials_project import MaterialsProject
from crystens.errors import CrystensError
from crystens.sources.limits import Limits
from crystens.sources.record import Entry

KEY = "k3y" + "0" * 29  # 32 characters, as the client wants it
RECORDED = Path(__file__).parent / "recorded" / "materials_project.json"

needs_client = pytest.mark.skipif(importlib.util.find_spec("mp_api") is None, reason="mp-api (extra mp) is missing")


class Api(ThreadingHTTPServer):
    """Serves the recorded documents; `failing` answers a page, counted from 1 over all requests, with that status."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        recorded = json.loads(RECORDED.read_text())
        self.heartbeat: dict[str, Any] = recorded["heartbeat"]
        self.documents: list[dict[str, Any]] = recorded["documents"]
        self.failing: dict[int, int] = {}
        self.beats = 0
        self.asked: list[dict[str, str]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Api

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        api, url = self.server, urlsplit(self.path)
        if url.path == "/heartbeat":
            api.beats += 1
            self._answer(200, api.heartbeat)
            return
        assert url.path == "/materials/summary/"
        query = dict(parse_qsl(url.query))
        api.asked.append(query)
        if self.headers.get("x-api-key") != KEY:
            self._answer(401, {"message": "Unauthorized", "detail": f"no such key: {self.headers.get('x-api-key')}"})
        elif status := api.failing.get(len(api.asked)):
            self._answer(status, {"detail": "out of order"})
        else:
            found = sorted((d for d in api.documents if _matches(d, query)), key=lambda d: d["material_id"])
            size = int(query.get("_per_page", query["_limit"]))
            start = (int(query.get("_page", 1)) - 1) * size
            fields = query["_fields"].split(",")
            page = [{name: document[name] for name in fields} for document in found[start : start + size]]
            self._answer(200, {"data": page, "meta": {"total_doc": len(found)}})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _matches(document: dict[str, Any], query: dict[str, str]) -> bool:
    """Return whether a document is asked for; of the conditions, those that the tests use."""
    sites = (document["structure"] or {"sites": []})["sites"]
    elements = {species["element"] for site in sites for species in site["species"]}
    return (
        ("chemsys" not in query or "-".join(sorted(elements)) in query["chemsys"].split(","))
        and float(query.get("nsites_min", 0)) <= len(sites) <= float(query.get("nsites_max", 1000))
        and ("material_ids" not in query or document["material_id"] in query["material_ids"].split(","))
    )


@pytest.fixture
def api(monkeypatch) -> Iterator[Api]:
    monkeypatch.setenv("MP_API_KEY", KEY)
    with Api() as api:
        threading.Thread(target=api.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield api
        api.shutdown()


def _source(api: Api, cache: Path, **query: Any) -> MaterialsProject:
    return MaterialsProject(cache=cache, address=api.address, **query)


def _formulas(source: MaterialsProject) -> dict[str, str]:
    return {item.entry: item.crystal.formula for item in source.read(Limits()) if isinstance(item, Entry)}


# Fetching


@needs_client
def test_query_is_fetched_once_and_read_from_the_cache_without_a_request(api, tmp_path, monkeypatch):
    source = _source(api, tmp_path, num_sites=[1, 2])
    assert api.beats == 0
    found = {"mp-149": "Si", "mp-22851": "NaCl", "mp-22862": "NaCl", "mp-2534": "GaAs", "mp-30": "Cu"}
    assert _formulas(source) == found
    assert len(api.asked) == 1
    assert api.asked[0].items() >= {"_fields": "material_id,structure", "nsites_min": "1", "nsites_max": "2"}.items()
    monkeypatch.delenv("MP_API_KEY")
    beats = api.beats
    again = _source(api, tmp_path, num_sites=(1, 2))
    assert list(_formulas(again)) == list(found)
    (name, path), *others = again.contents().items()
    assert others == []
    assert name == path.name
    assert name.endswith("-2025.09.25.jsonl.gz")
    assert (len(api.asked), api.beats) == (1, beats)


@needs_client
def test_crystals_are_those_of_the_documents(api, tmp_path):
    crystals = {item.entry: item.crystal for item in _source(api, tmp_path, num_sites=[1, 2]).read(Limits())}
    groups = {name: crystal.space_group for name, crystal in crystals.items()}
    # Diamond, CsCl, rocksalt, zincblende, fcc.
    assert groups == {"mp-149": 227, "mp-22851": 221, "mp-22862": 225, "mp-2534": 216, "mp-30": 225}
    assert crystals["mp-149"].lengths == pytest.approx(5.431 / 2**0.5)
    assert crystals["mp-149"].angles == pytest.approx(60)


@needs_client
def test_properties_are_asked_for_and_kept_and_are_a_part_of_the_query(api, tmp_path):
    for document, gap in zip(api.documents, (0.61, None, 0.5, 0, 4.2), strict=True):
        document["band_gap"] = gap
    source = _source(api, tmp_path, num_sites=[1, 2]).keeping(["band_gap"])
    found = {item.entry: item.properties["band_gap"] for item in source.read(Limits())}
    expected = {document["material_id"]: document["band_gap"] for document in api.documents}
    assert found == pytest.approx(
        {name: math.nan if gap is None else gap for name, gap in expected.items()}, nan_ok=True
    )
    assert api.asked[0]["_fields"] == "material_id,structure,band_gap"
    assert all(item.properties == {} for item in _source(api, tmp_path, num_sites=[1, 2]).read(Limits()))
    assert [query["_fields"] for query in api.asked[1:]] == ["material_id,structure"]


@needs_client
def test_pages_are_put_together_and_the_limit_cuts(api, tmp_path, monkeypatch):
    monkeypatch.setattr(materials_project, "_PAGE", 2)
    assert list(_formulas(_source(api, tmp_path, num_sites=[1, 2]))) == [
        "mp-149",
        "mp-22851",
        "mp-22862",
        "mp-2534",
        "mp-30",
    ]
    assert [(query["_page"], query["_per_page"]) for query in api.asked] == [("1", "2"), ("2", "2"), ("3", "2")]
    assert {query["_sort_fields"] for query in api.asked} == {"material_id"}
    assert list(_formulas(_source(api, tmp_path, limit=3))) == ["mp-149", "mp-22851", "mp-22862"]
    assert len(api.asked) == 5


@needs_client
def test_interrupted_fetch_goes_on_with_the_next_page(api, tmp_path, monkeypatch):
    monkeypatch.setattr(materials_project, "_PAGE", 2)
    api.failing = {2: 500}
    with pytest.raises(CrystensError, match=r"cannot fetch .*num_sites=\[1,2\].*500.*goes on with the next page"):
        _formulas(_source(api, tmp_path, num_sites=[1, 2]))
    assert list((tmp_path / "materials_project").glob("*.gz")) == []
    assert len(_formulas(_source(api, tmp_path, num_sites=[1, 2]))) == 5
    assert [query["_page"] for query in api.asked] == ["1", "2", "2", "3"]
    assert [path.suffix for path in (tmp_path / "materials_project").iterdir() if path.suffix != ".lock"] == [".gz"]


@needs_client
def test_many_ids_are_asked_in_several_requests(api, tmp_path, monkeypatch):
    monkeypatch.setattr(materials_project, "_IDS_AT_ONCE", 2)
    ids = ["mp-30", "mp-149", "mp-2534", "mp-999999"]
    assert list(_formulas(_source(api, tmp_path, material_ids=ids))) == ["mp-149", "mp-2534", "mp-30"]
    assert [query["material_ids"] for query in api.asked] == ["mp-149,mp-2534", "mp-30,mp-999999"]
    _formulas(_source(api, tmp_path, material_ids=ids[::-1]))
    assert len(api.asked) == 2


@needs_client
def test_every_condition_reaches_the_server_under_its_name(api, tmp_path):
    query = {"elements": ["Na", "Cl"], "exclude_elements": ["O"], "chemsys": ["Na-Cl", "Cl-Na"], "formula": "NaCl"}
    query |= {"num_elements": 2, "num_sites": [1, 8], "energy_above_hull": [0, 0.1], "is_stable": True}
    query |= {"theoretical": False, "spacegroup_number": 225}
    _formulas(_source(api, tmp_path, **query))
    expected = {"elements": "Cl,Na", "exclude_elements": "O", "chemsys": "Cl-Na,Na-Cl", "formula": "NaCl"}
    expected |= {"nelements_min": "2", "nelements_max": "2", "nsites_max": "8", "energy_above_hull_max": "0.1"}
    expected |= {"is_stable": "True", "theoretical": "False", "spacegroup_number": "225"}
    expected |= {"batch_id_not_eq": "gnome_r2scan_statics"}
    assert api.asked[0].items() >= expected.items()


@needs_client
def test_same_materials_give_the_same_bytes(api, tmp_path):
    paths = [*_source(api, tmp_path / "a", limit=9).contents().values()]
    paths += _source(api, tmp_path / "b", limit=9).contents().values()
    assert paths[0].read_bytes() == paths[1].read_bytes()


@needs_client
def test_newer_database_is_fetched_only_when_asked_for(api, tmp_path):
    names = [*_source(api, tmp_path, limit=9).contents()]
    api.heartbeat = api.heartbeat | {"db_version": "2025.10.1"}
    api.documents = api.documents[:1]
    names += _source(api, tmp_path, limit=9).contents()
    assert len(api.asked) == 1
    names += _source(api, tmp_path, limit=9, database_version="latest").contents()
    names += _source(api, tmp_path, limit=9).contents()
    names += _source(api, tmp_path, limit=9, database_version="2025.09.25").contents()
    versions = [name.split("-")[1].removesuffix(".jsonl.gz") for name in names]
    assert versions == ["2025.09.25", "2025.09.25", "2025.10.1", "2025.10.1", "2025.09.25"]
    with pytest.raises(CrystensError, match=r"has database version 2025\.10\.1, not 2024\.1"):
        _source(api, tmp_path, limit=9, database_version="2024.1").contents()


@needs_client
def test_disordered_and_missing_structures_are_set_aside(api, tmp_path):
    api.documents[0]["structure"]["sites"][0]["species"] = [
        {"element": "Si", "occu": 0.5},
        {"element": "Ge", "occu": 0.5},
    ]
    api.documents[1]["structure"] = None
    api.documents[2]["structure"] = {"sites": []}
    items = list(_source(api, tmp_path, limit=9).read(Limits()))
    reasons = {item.entry: item.category for item in items if not isinstance(item, Entry)}
    assert reasons == {
        "mp-149": "partial occupancy (disordered structure)",
        "mp-22862": "no structure in the document",
        "mp-2534": "structure not understood",
    }
    assert len(items) == 5


@needs_client
def test_nothing_found_is_an_error_and_is_not_kept(api, tmp_path):
    with pytest.raises(CrystensError, match=r"nothing found: Materials Project \(chemsys=\[He\]\)"):
        _source(api, tmp_path, chemsys="He").contents()
    assert {path.suffix for path in (tmp_path / "materials_project").iterdir()} <= {".lock"}


# The key, the package, the network


def test_missing_key_is_one_error_that_says_where_to_get_one(api, tmp_path, monkeypatch):
    monkeypatch.delenv("MP_API_KEY")
    with pytest.raises(CrystensError, match=r"needs a key .* get one at https://.*/api and set the .* MP_API_KEY$"):
        _source(api, tmp_path, limit=1).contents()
    assert api.beats == 0


@needs_client
@pytest.mark.parametrize("key", ["s3cret" + "0" * 26, "s3cret-too-short"])
def test_refused_key_is_one_error_without_the_key(api, tmp_path, monkeypatch, key):
    monkeypatch.setenv("MP_API_KEY", key)
    with pytest.raises(CrystensError, match=r"refuses the key of MP_API_KEY: .*; get a key at https://") as caught:
        _source(api, tmp_path, limit=1).contents()
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


@needs_client
def test_key_is_in_no_file_and_no_log(api, tmp_path, caplog, monkeypatch, capfd):
    monkeypatch.setattr(materials_project, "_PAGE", 2)
    api.failing = {2: 500}
    source = _source(api, tmp_path, num_sites=[1, 2])
    with caplog.at_level(logging.DEBUG):
        with pytest.raises(CrystensError) as caught:
            source.contents()
        contents = [path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()]
        (path,) = source.contents().values()
    contents.append(gzip.decompress(path.read_bytes()))
    assert len(contents) >= 2
    assert not any(KEY.encode() in content for content in contents)
    assert KEY not in str(caught.value)
    assert KEY not in caplog.text
    assert KEY not in "".join(capfd.readouterr())
    assert KEY not in repr(vars(source))


def test_missing_package_is_one_error_that_says_what_to_install(api, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mp_api", None)
    monkeypatch.setitem(sys.modules, "mp_api.client", None)
    with pytest.raises(CrystensError, match=r"needs the package mp-api.*pip install 'crystens\[mp\]'$"):
        _source(api, tmp_path, limit=1).contents()


def test_no_network_is_one_error_with_the_address(tmp_path, monkeypatch):
    monkeypatch.setenv("MP_API_KEY", KEY)
    with pytest.raises(
        CrystensError, match=r"cannot fetch .* from http://127\.0\.0\.1:1/: .*; check the network"
    ) as caught:
        MaterialsProject(limit=1, cache=tmp_path, address="http://127.0.0.1:1").contents()
    assert "\n" not in str(caught.value)


def test_server_that_answers_something_else_is_one_error(api, tmp_path):
    api.heartbeat = ["maintenance"]  # type: ignore[assignment]
    with pytest.raises(CrystensError, match="cannot fetch"):
        _source(api, tmp_path, limit=1).contents()


def test_unwritable_cache_is_one_error(api, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CrystensError, match=r"cannot write to .*file.*data\.source\.cache=DIR"):
        _source(api, tmp_path / "file", limit=1).contents()


# The query


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({}, "without a condition would fetch the whole database"),
        ({"elements": ["Xx"]}, "elements has 'Xx', which is no element"),
        ({"num_sites": [5, 2]}, r"num_sites must be \[least,most\], got \[5, 2\]"),
        ({"energy_above_hull": ["a", 1]}, r"energy_above_hull must be \[least,most\]"),
        ({"spacegroup_number": 231}, "spacegroup_number must be 1-230, got 231"),
        ({"chemsys": []}, "chemsys must be one or several texts"),
        ({"limit": 0}, "limit must be at least 1, got 0"),
        ({"limit": 1, "path": "/some/where"}, r"reads no path, but data\.path=/some/where"),
    ],
)
def test_query_that_makes_no_sense_is_refused_before_anything_is_asked(query, message):
    with pytest.raises(CrystensError, match=message):
        MaterialsProject(**query)


def test_name_of_the_source_says_the_query():
    source = MaterialsProject(elements=["Na", "Cl"], energy_above_hull=[0, 0.1], limit=5)
    assert str(source) == "Materials Project (elements=[Cl,Na], energy_above_hull=[0,0.1], limit=5)"
