"""Generated crystals for the choice of candidates: `crystens.ingest.generated`, with the stated space group of each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from crystens.crystal import NUM_SPACE_GROUPS, Crystal
from crystens.ingest import generated
from crystens.sources.files import read_bytes, unpacked
from crystens.sources.record import Entry

_GENERATED_GROUP = re.compile(rb"^_crystens_generated_space_group_IT_number\s+(\d{1,3})\s*$", re.MULTILINE)


@dataclass(frozen=True, eq=False)
class Sample:
    """One generated crystal, or the reason why there is none.

    Attributes:
        name: file and entry, or the number of the sample.
        crystal: the crystal in the form of its file, with space group 1 (not searched); None if there is none.
        reason: why there is none, `category: details`; None if there is one.
        generated_group: the space group number that the model stated; None if unknown.
        merged_sites: number of sites that the decoder merged into others.
    """

    name: str
    crystal: Crystal | None
    reason: str | None = None
    generated_group: int | None = None
    merged_sites: int = 0


def read_generated(path: str, kind: str | None = None, split: str | None = None) -> list[Sample]:
    """Return all samples at a path, see `crystens.ingest.generated.read_generated`.

    The generated space group is read from the item `_crystens_generated_space_group_IT_number` of a CIF file (not of
    one in an archive), and the number of merged sites from the table of a folder that sample.py wrote.
    """
    folder, merged = Path(path), {}
    items = generated.read_generated(path, kind, split)
    if kind is None and generated.is_sample_folder(folder):
        rows = generated.read_table(folder)
        merged = {Path(row["file"]).name: int(row["merged_sites"]) for row in rows if row["merged_sites"]}
        folder = folder / "cifs"
    samples = []
    for item in items:
        if not isinstance(item, Entry):
            name = f"sample {item.entry}" if not item.file else f"{item.file} {item.entry}".strip()
            samples.append(Sample(name, None, item.reason))
            continue
        file = folder / item.file
        is_cif = file.suffix in (".cif", ".gz") and file.is_file()
        group = _generated_group(unpacked(read_bytes(file))) if is_cif else None
        name = item.file if is_cif else f"{item.file} {item.entry}".strip()
        samples.append(Sample(name, item.crystal, None, group, merged.get(file.name, 0)))
    return samples


def _generated_group(content: bytes) -> int | None:
    """Return the generated space group number in the text of a CIF; None if there is no valid one."""
    found = _GENERATED_GROUP.search(content)
    number = int(found[1]) if found else 0
    return number if 1 <= number <= NUM_SPACE_GROUPS else None
