"""Every kind of source by name, and the kind of a path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from crystens.data.cdvae import CSV_SUFFIXES, CdvaeSplits, CsvTable
from crystens.data.cif_folder import CifFolder
from crystens.data.dictionary import DICTIONARY_SUFFIXES, CrystalDictionary
from crystens.data.mp_3dsc import Mp3dsc
from crystens.data.prototypes import Prototypes
from crystens.data.sources import Source, existing
from crystens.errors import CrystensError

KINDS: dict[str, Callable[[str], Source]] = {
    "prototypes": lambda path: Prototypes(),
    "cif_folder": CifFolder,
    "csv": CsvTable,
    "crystal_dictionary": CrystalDictionary,
    "cdvae": lambda path: CdvaeSplits(path, Path(path).resolve().name),
    "mp_3dsc": Mp3dsc,
}


def open_source(path: str, kind: str | None = None) -> Source:
    """Return the source at a path, of the kind that its name or content says unless one is given.

    Raises:
        CrystensError: if there is nothing at that path, or no such kind.
    """
    kind = guess_kind(path) if kind is None else kind
    if kind not in KINDS:
        raise CrystensError(f"{kind=} is no kind of source; use one of {', '.join(KINDS)}")
    return KINDS[kind](path)


def guess_kind(source: str) -> str:
    """Return the kind of a source by its name, and for a folder by what stands in it.

    Raises:
        CrystensError: if there is nothing at that path.
    """
    if source == "prototypes":
        return "prototypes"
    path = existing(source, "a folder, an archive, a .csv or .jsonl file, or the word prototypes")
    if path.is_dir():
        if (path / "splits.json").exists():
            return "mp_3dsc"
        return "cdvae" if any((path / f"train{suffix}").exists() for suffix in CSV_SUFFIXES) else "cif_folder"
    if path.name.lower().endswith(CSV_SUFFIXES):
        return "csv"
    return "crystal_dictionary" if path.name.lower().endswith(DICTIONARY_SUFFIXES) else "cif_folder"
