"""The Materials Project structures that the 3DSC database ships, with given splits.

A folder with `cifs.tar.gz` (or the folder `cifs`), one `<id>.cif` for each structure, and `splits.json`, which lists
the ids of train, val and test.

Source: Sommer et al., 3DSC - a dataset of superconductors including crystal structures, Sci. Data 2023, 10, 816; Jain
et al., The Materials Project, APL Materials 2013, 1, 011002. Licence CC BY 4.0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from crystens.cif.read import read_cif
from crystens.errors import CrystensError
from crystens.formats.cif_folder import CifFolder
from crystens.sources.files import read_bytes
from crystens.sources.limits import Limits
from crystens.sources.record import SPLITS, Entry, Record, Reject
from crystens.sources.source import Source, existing

_EXPECTED = "the folder with cifs.tar.gz (or a folder cifs) and splits.json"
_SPLITS = "splits.json"


class Mp3dsc(Source):
    """Source of the CIFs of the folder, with their splits.

    Args:
        path: the folder; None if the user gave none, which reading reports.
    """

    def __init__(self, path: str | Path | None) -> None:
        """Keep the path; nothing is opened yet."""
        self.path = path

    def __str__(self) -> str:
        """Return what is read, for messages."""
        return f"mp_3dsc of {self.path}"

    def contents(self) -> dict[str, str | Path]:
        """Return the CIFs or their archive, and the splits, see `Source.contents`."""
        folder = self._folder()
        return {**self._cifs(folder).contents(), _SPLITS: folder / _SPLITS}

    def records(self) -> Iterator[Record | Reject]:
        """Yield each structure under its id; structures in no split are rejects.

        Raises:
            CrystensError: if one of the files is missing or `splits.json` is not as expected.
        """
        folder = self._folder()
        splits = _splits(folder / _SPLITS)
        for item in self._cifs(folder).records():
            name = item.file.rpartition("/")[2].split(".cif")[0]
            if isinstance(item, Reject):
                yield replace(item, entry=name)
            elif name in splits:
                yield Record(item.file, name, item.content, splits[name])
            else:
                yield Reject(item.file, name, "in no split", "add its id to splits.json")

    def parse(self, record: Record, limits: Limits) -> Iterator[Entry | Reject]:
        """Yield the crystal of one file."""
        for item in read_cif(read_bytes(record.content), record.file, limits):
            if isinstance(item, Entry):
                yield replace(item, entry=record.entry, split=record.split)
            else:
                yield replace(item, entry=record.entry)

    def _folder(self) -> Path:
        """Return the path, checked."""
        return existing(self.path, _EXPECTED)

    def _cifs(self, folder: Path) -> CifFolder:
        """Return the source of the CIFs, without splits."""
        found = [folder / name for name in ("cifs.tar.gz", "cifs") if (folder / name).exists()]
        if not found:
            raise CrystensError(f"neither cifs.tar.gz nor cifs in {folder}; give {_EXPECTED}")
        return CifFolder(found[0])


def _splits(path: Path) -> dict[str, str]:
    """Return the split of each id."""
    expected = "a JSON object with the lists train, val and test"
    try:
        listed = json.loads(existing(path, f"splits.json, {expected}").read_text(encoding="utf-8"))
        return {name: split for split in SPLITS for name in listed[split]}
    except (ValueError, KeyError, TypeError) as error:
        raise CrystensError(f"{path} is not {expected}: {error!r}") from error
