"""All kinds of sources by name, and detection of the kind of a path.

The name of a file decides its kind, for JSON also its first value. The content of a folder or archive decides its kind:
CIFs come before everything else; otherwise its structure files must be of one kind.
"""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from crystens.crystal import Crystal
from crystens.datasets.cdvae import CdvaeSplits
from crystens.datasets.huggingface import HuggingFaceDataset
from crystens.datasets.materials_project import MaterialsProject
from crystens.datasets.mp_3dsc import Mp3dsc
from crystens.datasets.mp_52 import Mp52
from crystens.datasets.prototypes import Prototypes
from crystens.errors import CrystensError
from crystens.formats.ase_db import AseDatabase, is_row
from crystens.formats.cdvae_result import RESULT_SUFFIXES, CdvaeResult, results_in
from crystens.formats.cif_folder import CIF_SUFFIXES, CifFolder
from crystens.formats.crystal_dictionary import CrystalDictionary
from crystens.formats.csv_table import CSV_SUFFIXES, CsvTable
from crystens.formats.extxyz import ExtendedXyz, is_xyz
from crystens.formats.json_records import holds_structures
from crystens.formats.poscar import PoscarFolder, is_poscar
from crystens.formats.pymatgen_json import JSON_SUFFIXES, LINES_SUFFIXES, OPTIMADE, PymatgenJson
from crystens.ingest.store_source import StoredCrystals, is_store
from crystens.sources.files import ARCHIVE_DAMAGE, find_files, is_archive
from crystens.sources.json_stream import DAMAGE, JsonText, lines, opened
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Reject, Unusable
from crystens.sources.source import Source, existing

KINDS: dict[str, Callable[[str], Source]] = {
    "prototypes": lambda path: Prototypes(),
    "cif_folder": CifFolder,
    "csv": CsvTable,
    "crystal_dictionary": CrystalDictionary,
    "cdvae": lambda path: CdvaeSplits(path, Path(path).resolve().name),
    "cdvae_result": CdvaeResult,
    "mp_3dsc": Mp3dsc,
    "mp_52": Mp52,
    "extxyz": ExtendedXyz,
    "ase_db": AseDatabase,
    "poscar": PoscarFolder,
    "pymatgen_json": PymatgenJson,
    "store": StoredCrystals,
    "huggingface": HuggingFaceDataset,
    "materials_project": lambda chemsys: MaterialsProject(chemsys=chemsys),
}

IN_FOLDERS = ("cif_folder", "extxyz", "poscar", "pymatgen_json")  # kinds that read a folder or an archive

_FILES = (
    "cif_folder (.cif), csv (.csv), crystal_dictionary (.jsonl), extxyz (.xyz, .extxyz), ase_db (.db, .json), poscar "
    "(POSCAR, CONTCAR, .poscar, .vasp), pymatgen_json (.json, .jsonl), each but .db also with .gz, archives (.zip, "
    ".tar.gz), and cdvae_result (.pt, or the folder of a run with eval_*.pt)"
)
_MEMBERS = 1000  # members of an archive that are examined
_MEMBER_BYTES = 2**28  # bytes of an archive that are examined


def open_source(path: str, kind: str | None = None) -> Source:
    """Return the source at a path; without `kind`, its name or content decides the kind.

    Raises:
        CrystensError: if there is nothing at that path, or no such kind.
    """
    kind = guess_kind(path) if kind is None else kind
    if kind not in KINDS:
        raise CrystensError(f"{kind=} is no kind of source; use one of {', '.join(KINDS)}")
    return KINDS[kind](path)


def read_one(path: str | Path) -> Crystal:
    """Return the crystal of a file that holds one crystal, in the form of the file.

    Raises:
        CrystensError: if the file cannot be read (with reason and advice of its reject), or holds several crystals.
    """
    if not Path(path).is_file():
        raise CrystensError(f"no file at {path}; give a file of one crystal")
    limits = Limits(site_order="given")
    items = list(islice(open_source(str(path)).read(limits), 2))
    if not items:
        raise CrystensError(f"no crystal in {path}")
    for item in items:
        if isinstance(item, Reject):
            where = " ".join(filter(None, [item.file, item.entry]))
            raise CrystensError(f"{where}: {item.reason}; {item.advice}")
    crystals = [item.crystal for item in items if isinstance(item, Entry)]
    if len(crystals) > 1:
        raise CrystensError(f"{path} holds several crystals; give a file of one, or read it as a data set")
    return crystals[0]


def guess_kind(source: str) -> str:
    """Return the kind of a source, from its name, or for a folder or an archive from its content.

    Raises:
        CrystensError: if the path does not exist, or its kind is not clear.
    """
    if source == "prototypes":
        return "prototypes"
    path = existing(source, "a folder, an archive, a file of crystals, or the word prototypes")
    if path.is_dir():
        if is_store(path):
            return "store"
        if (path / "splits.json").exists():
            return "mp_3dsc"
        if any((path / f"train{suffix}").exists() for suffix in CSV_SUFFIXES):
            return "cdvae"
        return _run_kind(path) or _folder_kind(path)
    if is_archive(path.name):
        return _archive_kind(path)
    if path.name.lower().endswith(RESULT_SUFFIXES):
        return "cdvae_result"
    kind = kind_by_name(path.name)
    if kind is None:
        raise CrystensError(f"the name of {path} matches no kind of source; known are {_FILES}; or give its kind")
    return _kind_by_content(path) or kind


def kind_by_name(name: str) -> str | None:
    """Return the kind of a file by its name; None if it is not known. JSON may turn out to be another kind."""
    lower = name.lower()
    suffixes = {
        "cif_folder": CIF_SUFFIXES,
        "csv": CSV_SUFFIXES,
        "crystal_dictionary": LINES_SUFFIXES,
        "ase_db": (".db",),
        "pymatgen_json": JSON_SUFFIXES,
    }
    for kind, endings in suffixes.items():
        if lower.endswith(endings):
            return kind
    if is_xyz(name):
        return "extxyz"
    return "poscar" if is_poscar(name) else None


def _kind_by_content(path: Path) -> str | None:
    """Return the kind of a JSON file by its first value; None for other files, or if it is not clear."""
    name = path.name.lower()
    try:
        if name.endswith(JSON_SUFFIXES):
            with opened(path) as file:
                text = JsonText(file)
                value = next(text.values("]"))[1] if text.peek() == "[" else text.beginning()[0]
            if is_row(value) or (isinstance(value, dict) and any(map(is_row, value.values()))):
                return "ase_db"
        elif name.endswith(LINES_SUFFIXES):
            with opened(path) as file:
                value = json.loads(next(line for line in lines(file) if isinstance(line, bytes) and line.strip()))
        else:
            return None
    except (Unusable, StopIteration, ValueError, RecursionError, *DAMAGE):
        return None  # reading the source will report the problem
    return "pymatgen_json" if holds_structures(value) or (isinstance(value, dict) and OPTIMADE in value) else None


def _run_kind(path: Path) -> str | None:
    """Return the kind of a run folder of CDVAE or DiffCSP; None for other folders, whose .pt files are weights."""
    if not (results := results_in(path)):
        return None
    found = find_files(path, lambda name: kind_by_name(name) in ("cif_folder", "extxyz", "poscar"))[0]
    if (file := next((name for name in found if not is_archive(name)), None)) is not None:
        raise CrystensError(
            f"{path} holds a result ({results[0].name}) and files of crystals ({file}), which may be copies: give one "
            "of them"
        )
    return "cdvae_result"


def _folder_kind(path: Path) -> str:
    """Return the kind of the files in a folder."""
    found = find_files(path, lambda name: kind_by_name(name) is not None)[0]
    kinds: dict[str, list[Path]] = {}
    for file in map(Path, found.values()):
        if not is_archive(file.name):
            kinds.setdefault(kind_by_name(file.name) or "", []).append(file)
    if "cif_folder" in kinds or not kinds:
        return "cif_folder"
    if "pymatgen_json" in kinds and len(kinds) > 1 and _kind_by_content(kinds["pymatgen_json"][0]) is None:
        del kinds["pymatgen_json"]  # notes beside the structures
    kind, files = next(iter(kinds.items()))
    if len(kinds) == 1:
        kind = _kind_by_content(files[0]) or kind
        if kind in IN_FOLDERS:
            return kind
    raise _several_kinds(path, {kind: len(files) for kind, files in kinds.items()})


def _archive_kind(path: Path) -> str:
    """Return the kind of the files in an archive, from its first members."""
    counts = Counter(kind for kind in map(kind_by_name, _members(path)) if kind in IN_FOLDERS)
    if "cif_folder" in counts or not counts:
        return "cif_folder"
    if len(counts) > 1:
        raise _several_kinds(path, counts)
    return next(iter(counts))


def _several_kinds(path: Path, counts: Mapping[str, int]) -> CrystensError:
    """Return the error of a folder or archive without CIFs that holds several kinds, or an unsupported one."""
    held = ", ".join(f"{count} of kind {kind}" for kind, count in sorted(counts.items()))
    return CrystensError(
        f"no CIF file in {path}, but {held}; give one of the files, or the kind to read: for folders and archives "
        f"{', '.join(IN_FOLDERS)}"
    )


def _members(path: Path) -> Iterator[str]:
    """Yield the names of the first members of an archive, as far as it can be read."""
    try:
        if path.name.lower().endswith(".zip"):
            with zipfile.ZipFile(path) as zipped:
                yield from zipped.namelist()[:_MEMBERS]
        else:
            with tarfile.open(path) as packed:
                for member in islice(packed, _MEMBERS):
                    yield member.name
                    if member.offset_data + member.size > _MEMBER_BYTES:
                        return
    except ARCHIVE_DAMAGE:
        return  # reading the source will report the problem
