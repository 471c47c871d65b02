"""Structures of the Materials Project, downloaded once with the user's key and then read from the cache.

The package `mp-api` (extra `mp`) requests `material_id`, `structure` and the kept properties, such as `band_gap`
(`crystens.sources.properties`), from the summary documents, page by page. Pages are stored as they arrive, so that an
interrupted download resumes. Together they become one gzipped file of crystal dictionaries
(`crystens.formats.crystal_dictionary`), named by the query and the version of the database. If that file exists, no
request is made.

The key comes from the environment variable MP_API_KEY and is sent to the server only, never to files, logs or messages.

Source: Jain et al., The Materials Project, APL Materials 2013, 1, 011002. Licence of the data: CC BY 4.0; that of the
materials found by GNoME is CC BY-NC 4.0, which is why they are left out unless asked for.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from pymatgen.core import Element, Structure

from crystens.errors import CrystensError, first_line
from crystens.formats.crystal_dictionary import CrystalDictionary
from crystens.processes.atomic_file import write_whole
from crystens.processes.cache_folder import CACHE_VARIABLE, cache_folder
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Record, Reject, Unusable
from crystens.sources.source import Source

log = logging.getLogger(__name__)

ADDRESS = "https://api.materialsproject.org/"
KEY_VARIABLE = "MP_API_KEY"

_PAGE = 1000  # documents in one request, the server's limit
_IDS_AT_ONCE = 100  # ids in one request, by the limit on the length of an address
_FIELDS = ["material_id", "structure"]
_KEY_PAGE = "https://next-gen.materialsproject.org/api"
_UNUSABLE = "unusable"  # key of a line whose structure no crystal dictionary can hold


class MaterialsProject(Source):
    """Source of the materials that match all conditions of a query of the Materials Project.

    Args:
        elements: symbols that must all be there.
        exclude_elements: symbols that must not be there.
        chemsys: chemical system or systems, such as Na-Cl; `*` stands for any element.
        formula: reduced or anonymous formula or formulas, such as NaCl or ABO3.
        num_elements: number of elements, or minimum and maximum.
        num_sites: number of sites in the primitive cell, or minimum and maximum.
        energy_above_hull: minimum and maximum, eV/atom.
        is_stable: whether the material is on the convex hull.
        theoretical: whether the material is not known from experiment.
        spacegroup_number: international number.
        material_ids: ids such as mp-149.
        include_gnome: whether to include GNoME's materials; mind their licence.
        limit: largest number of materials, the first in the order of their ids as texts; None for all.
        database_version: version to read, such as 2025.09.25; None for the newest in the cache, or the server's if
            there is none; "latest" for the server's newest.
        cache: folder for downloads; None for `crystens.processes.cache_folder.cache_folder`.
        address: address of the API, for tests.
        timeout: seconds to wait for the first response of the server.
        path: must be None, so that a path given with this source is an error.

    Raises:
        CrystensError: if there is no condition, or one is not valid.
    """

    gives_properties = True

    def __init__(
        self,
        elements: Sequence[str] | None = None,
        exclude_elements: Sequence[str] | None = None,
        chemsys: str | Sequence[str] | None = None,
        formula: str | Sequence[str] | None = None,
        num_elements: int | Sequence[int] | None = None,
        num_sites: int | Sequence[int] | None = None,
        energy_above_hull: Sequence[float] | None = None,
        is_stable: bool | None = None,
        theoretical: bool | None = None,
        spacegroup_number: int | None = None,
        material_ids: str | Sequence[str] | None = None,
        include_gnome: bool = False,
        limit: int | None = None,
        database_version: str | None = None,
        cache: str | Path | None = None,
        address: str | None = None,
        timeout: float = 30.0,
        path: str | Path | None = None,
    ) -> None:
        """Check the query; no request is made yet."""
        if path is not None:
            raise CrystensError(
                f"data=materials_project reads no path, but data.path={path}; choose data=crystal_dictionary or "
                "cif_folder as well to read files"
            )
        conditions = {
            "elements": _symbols("elements", elements),
            "exclude_elements": _symbols("exclude_elements", exclude_elements),
            "chemsys": _texts("chemsys", chemsys),
            "formula": _texts("formula", formula),
            "num_elements": _bounds("num_elements", num_elements),
            "num_sites": _bounds("num_sites", num_sites),
            "energy_above_hull": _bounds("energy_above_hull", energy_above_hull),
            "is_stable": is_stable,
            "theoretical": theoretical,
            "spacegroup_number": _space_group(spacegroup_number),
            "material_ids": _texts("material_ids", material_ids),
        }
        self.query = {name: value for name, value in conditions.items() if value is not None}
        if limit is not None and limit < 1:
            raise CrystensError(f"data.source.limit must be at least 1, got {limit}")
        if not self.query and limit is None:
            raise CrystensError(
                "data=materials_project without a condition would fetch the whole database; give for example "
                "'data.source.num_sites=[1,20]' 'data.source.energy_above_hull=[0,0.1]', or data.source.limit=1000"
            )
        self.include_gnome = include_gnome
        self.limit = limit
        self.database_version = database_version
        self.cache = cache
        self.address = (address or ADDRESS).rstrip("/") + "/"
        self.timeout = timeout

    def __str__(self) -> str:
        """Return what is read, for messages."""
        options = self.query | ({} if self.limit is None else {"limit": self.limit})
        return f"Materials Project ({', '.join(f'{name}={_short(value)}' for name, value in options.items())})"

    def contents(self) -> dict[str, str | Path]:
        """Return the downloaded file, see `Source.contents`."""
        path = self._file()
        return {path.name: path}

    def records(self) -> Iterator[Record | Reject]:
        """Yield a record for each material, in the order of the ids.

        Raises:
            CrystensError: if it cannot be fetched.
        """
        return CrystalDictionary(self._file()).records()

    def parse(self, record: Record, limits: Limits) -> list[Entry | Reject]:
        """Return the crystal of one material."""
        if _UNUSABLE.encode() in record.content:
            line = json.loads(record.content)
            return [Reject(record.file, line["id"], line[_UNUSABLE], "none: it cannot be encoded")]
        return CrystalDictionary(None).keeping(self.properties).parse(record, limits)

    @property
    def _fields(self) -> list[str]:
        """The requested fields of a summary document."""
        return [*_FIELDS, *(self.properties or ())]

    def _file(self) -> Path:
        """Return the file of the query, downloaded unless it is in the cache."""
        folder = (cache_folder() if self.cache is None else Path(self.cache).expanduser()) / "materials_project"
        # The name depends on the query, but not on the order of lists.
        asked = self.query | {"include_gnome": self.include_gnome, "limit": self.limit, "fields": self._fields}
        name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
        version = self.database_version
        if version != "latest":
            found = sorted(folder.glob(f"{name}-{_file_name(version) if version else '*'}.jsonl.gz"), key=_numbers)
            if found:
                return found[-1]
        key = api_key()
        server_version = self._server_version()
        if version not in (None, "latest", server_version):
            raise CrystensError(
                f"the Materials Project at {self.address} has database version {server_version}, not {version}, and "
                f"none of that version was fetched before to {folder}; give data.source.database_version=latest"
            )
        path = folder / f"{name}-{_file_name(server_version)}.jsonl.gz"
        # Takes a moment to import, and a cached file does not need it.
        from filelock import FileLock

        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / f".{path.name}.lock"):
                if not path.exists():
                    self._fetch(path, key)
        except (OSError, NotImplementedError) as error:
            raise CrystensError(
                f"cannot write to {folder}: {error}; free some space, or choose another cache folder with "
                f"data.source.cache=DIR or {CACHE_VARIABLE}=DIR"
            ) from error
        return path

    def _server_version(self) -> str:
        """Return the version of the database behind the API."""
        with self._asking(""):
            answer = requests.get(f"{self.address}heartbeat", timeout=self.timeout)
            answer.raise_for_status()
            beat = answer.json()
            if not isinstance(beat, dict):
                raise ValueError(f"its heartbeat is not understood: {beat!r}")
            return str(beat.get("db_version") or "unknown")

    def _fetch(self, path: Path, key: str) -> None:
        """Download the missing pages, and join all pages."""
        pages = path.with_name(f"{path.name}.pages")
        pages.mkdir(exist_ok=True)
        log.info("fetching %s from %s to %s", self, self.address, path)
        for number, documents in enumerate(self._pages(pages, key), start=1):
            if documents is not None:
                text = "".join(json.dumps(_line(document, self.properties or ())) + "\n" for document in documents)
                write_whole(_page_file(pages, number), text.encode())
        lines = [line for page in sorted(pages.glob("*.jsonl")) for line in page.read_bytes().splitlines(keepends=True)]
        lines = sorted(dict.fromkeys(lines), key=lambda line: json.loads(line)["id"])[: self.limit]
        if not lines:
            shutil.rmtree(pages)
            raise CrystensError(f"nothing found: {self}; loosen the conditions")
        write_whole(path, gzip.compress(b"".join(lines), mtime=0))  # the same bytes for the same materials
        shutil.rmtree(pages)
        log.info("%s: %d materials in %s", self, len(lines), path)

    def _pages(self, pages: Path, key: str) -> Iterator[list[dict[str, Any]] | None]:
        """Yield the documents of each page in order, and None for a page that exists already."""
        query: dict[str, Any] = dict(self.query)
        ids: list[str] = query.pop("material_ids", [])
        size = min(_PAGE, self.limit or _PAGE)
        requested: Iterable[dict[str, Any]]
        if ids:
            starts = range(0, len(ids), _IDS_AT_ONCE)
            requested = ({"material_ids": ids[start : start + _IDS_AT_ONCE], "chunk_size": _PAGE} for start in starts)
        else:
            # Pages need the same order in each request.
            endless = iter(range(1, 2**31))
            requested = ({"_page": page, "_sort_fields": "material_id", "chunk_size": size} for page in endless)
        rester: Any = None
        total = 0
        for number, request in enumerate(requested, start=1):
            there = _page_file(pages, number)
            if there.exists():
                count = there.read_bytes().count(b"\n")
                yield None
            else:
                client = api_client()
                with self._asking(key, client.MPRestError):
                    rester = rester or client.MPRester(
                        key, endpoint=self.address, use_document_model=False, mute_progress_bars=True
                    )
                    documents = rester.materials.summary.search(
                        **query, **request, num_chunks=1, include_gnome=self.include_gnome, fields=self._fields
                    )
                count = len(documents)
                yield documents
            total += count
            log.info("page %d: %d materials so far", number, total)
            if not ids and (count < size or total >= (self.limit or total + 1)):
                return

    @contextmanager
    def _asking(self, key: str, *errors: type[Exception]) -> Iterator[None]:
        """Convert errors of the server into a CrystensError, without the key."""
        expected: tuple[type[Exception], ...] = (*errors, requests.RequestException, ValueError, KeyError)
        try:
            yield
        except expected as error:
            text = str(error) or type(error).__name__
            shown = " ".join(text.replace(key, "***").split() if key else text.split())[:300]
            # Not `from error`: its text could hold the key.
            if re.search(r"status code 40[13]\b|API key", text):
                raise CrystensError(
                    f"the Materials Project refuses the key of {KEY_VARIABLE}: {shown}; get a key at {_KEY_PAGE} and "
                    f"set {KEY_VARIABLE}"
                ) from None
            raise CrystensError(
                f"cannot fetch {self} from {self.address}: {shown}; check the network and start again: it goes on "
                "with the next page"
            ) from None


def api_client() -> Any:
    """Return the module of the API's client, which takes seconds to import."""
    try:
        import mp_api.client
    except ImportError as error:
        raise CrystensError(
            f"the Materials Project needs the package mp-api, which cannot be imported ({first_line(error)}): "
            "pip install 'crystens[mp]'"
        ) from error
    return mp_api.client


def api_key() -> str:
    """Return the user's key."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key:
        raise CrystensError(
            f"the Materials Project needs a key of yours: get one at {_KEY_PAGE} and set the environment variable "
            f"{KEY_VARIABLE}"
        )
    return key


def _line(document: dict[str, Any], properties: Sequence[str] = ()) -> dict[str, Any]:
    """Return a summary document as a crystal dictionary with these properties, or the reason why it is unusable."""
    name = str(document.get("material_id"))
    try:
        structure = _structure(document.get("structure"))
    except Unusable as error:
        return {"id": name, _UNUSABLE: error.reason}
    return {name: document.get(name) for name in properties} | {
        "id": name,
        "lengths": list(structure.lattice.abc),
        "angles": list(structure.lattice.angles),
        "elements": [site.specie.symbol for site in structure],
        "coordinates": structure.frac_coords.tolist(),
    }


def _structure(value: Any) -> Structure:
    """Return the ordered structure of a document."""
    if value is None:
        raise Unusable("no structure in the document", "")
    try:
        structure = value if isinstance(value, Structure) else Structure.from_dict(value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unusable(f"structure not understood: {error!r}", "") from error
    if not structure.is_ordered:
        raise Unusable("partial occupancy (disordered structure)", "")
    return structure


def _page_file(folder: Path, number: int) -> Path:
    """Return the file of a page."""
    return folder / f"{number:06d}.jsonl"


def _file_name(version: str) -> str:
    """Return a version in the form for file names."""
    return re.sub(r"[^\w.]", "_", version)


def _numbers(path: Path) -> list[int]:
    """Return the numbers in the version of a file, as a sort key."""
    return [int(number) for number in re.findall(r"\d+", path.name.split("-", 1)[1].removesuffix(".jsonl.gz"))]


def _texts(name: str, value: str | Sequence[str] | None) -> list[str] | None:
    """Return one or several texts as a sorted list."""
    if value is None:
        return None
    values = [value] if isinstance(value, str) else list(value)
    if not values or not all(isinstance(item, str) and item for item in values):
        raise CrystensError(f"data.source.{name} must be one or several texts, got {value!r}")
    return sorted(set(values))


def _symbols(name: str, value: Sequence[str] | None) -> list[str] | None:
    """Return element symbols as a sorted list."""
    symbols = _texts(name, value)
    for symbol in symbols or []:
        if not Element.is_valid_symbol(symbol):
            raise CrystensError(f"data.source.{name} has {symbol!r}, which is no element; give symbols such as [Na,Cl]")
    return symbols


def _bounds(name: str, value: float | Sequence[float] | None) -> list[float] | None:
    """Return minimum and maximum; a single number is both."""
    if value is None:
        return None
    bounds = [value, value] if isinstance(value, int | float) else list(value)
    if len(bounds) != 2 or not all(isinstance(bound, int | float) for bound in bounds) or bounds[0] > bounds[1]:
        raise CrystensError(f"data.source.{name} must be [least,most], got {value!r}")
    return bounds


def _space_group(value: int | None) -> int | None:
    """Return a space group number, checked."""
    if value is not None and not 1 <= value <= 230:
        raise CrystensError(f"data.source.spacegroup_number must be 1-230, got {value}")
    return value


def _short(value: Any) -> str:
    """Return a value of the query, long lists shortened."""
    if isinstance(value, list) and len(value) > 4:
        return f"{len(value)} values"
    return str(value).replace(" ", "").replace("'", "")
