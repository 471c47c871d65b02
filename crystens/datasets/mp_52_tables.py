"""The tables of mp_52, built from eight public files; the files and the tables are verified.

Sources, at fixed commits: parts of MP-20 (its binary and ternary crystals of test and val, and samples of its three
splits) and of MPTS-52 (test and val).

Rule:

1. The files are read in the order of `SOURCES`. For a repeated `material_id` the first row is kept, and the origin of
   the new row is added to it. This gives 28,661 crystals.
2. "First" below means: in the order of the SHA-256 of the `material_id`. Test: all of MP-20's test split, and the first
   1,000 crystals of MPTS-52's test split with more than 20 sites.
3. Val: the first 1,000 remaining crystals of MP-20's val split, and the first 300 of the rest with more than 20 sites.
4. Train: the rest, without the 194 ids of `mp_52_left_out.json`, which are the same crystals as one of val or test by
   pymatgen's StructureMatcher with its default tolerances.
5. Rows are in the order of that SHA-256: 18,825 of train, 1,300 of val and 8,342 of test. Numbers are unchanged.

The 7,342 test crystals with at most 20 sites are a part of MP-20's test split (9,046), nearly all of them binary and
ternary. Train differs from MP-20's train: of its 12,855 crystals with at most 20 sites, 2,542 are in MP-20's train and
6,246 in its val. A model trained on mp_52 was therefore not trained on MP-20.

Columns: `material_id`; `cif`; `formation_energy_per_atom`, eV/atom; `band_gap`, eV, empty for MPTS-52, which has none;
`e_above_hull`, eV/atom, above the hull of the whole Materials Project; `origin`, such as "mp_20:test mpts_52:val".

Source: Xie et al., Crystal Diffusion Variational Autoencoder for Periodic Material Generation, 2022 (arXiv:2110.06197,
MP-20); Baird et al., mp-time-split (MPTS-52); Jain et al., APL Materials 2013, 1, 011002 (structures and energies of
the Materials Project, CC BY 4.0). Repositories: SymmetryAdvantage/WyckoffTransformer (Apache-2.0) and
xiaohang007/SLICES (LGPL-2.1).
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import logging
from collections.abc import Iterator, Mapping
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from crystens.datasets.download import Patience, RemoteFile, fetch
from crystens.errors import CrystensError
from crystens.processes.atomic_file import write_whole
from crystens.processes.cache_folder import CACHE_VARIABLE, cache_folder
from crystens.sources.files import MAX_BYTES
from crystens.sources.record import SPLITS

log = logging.getLogger(__name__)

ADDRESS = "https://raw.githubusercontent.com"

_WYCKOFF = "SymmetryAdvantage/WyckoffTransformer/507e8f147a0e87905c2574ebfbbfc9fa21c2fb09/data"
_WYCKOFF_PILOT = "SymmetryAdvantage/WyckoffTransformer/85bd47b33a7b55d418b1de10dad297fcf73b9b44/data/mp_20_pilot"
_SLICES = "xiaohang007/SLICES/b3719d74ad253fc9baadf2e875470f686d259694/MatterGPT"


class SourceTable(NamedTuple):
    """A public table, and the benchmark split of its rows."""

    path: str
    origin: str
    size: int
    sha256: str


# In reading order. Sizes and SHA-256 were computed from the files of the commits.
SOURCES = (
    SourceTable(
        f"{_WYCKOFF}/mp_20_biternary/test.csv.gz",  # 7,118 rows
        "mp_20:test",
        1_452_762,
        "e96144ffbad7fc61b0012456ead22d2c8f6993282a4fef584fbf906581086e02",
    ),
    SourceTable(
        f"{_WYCKOFF_PILOT}/test.csv.gz",  # 1,000
        "mp_20:test",
        212_469,
        "c0b5922164322338d0e282d4429b2dc8ab31ffa39d456d05e102b6ec88ea7262",
    ),
    SourceTable(
        f"{_WYCKOFF}/mp_20_biternary/val.csv.gz",  # 7,140
        "mp_20:val",
        1_460_439,
        "f0a1743241ade50592ce24dd3efc8b5e4d4d84c6a72e827c16699e83ce254f07",
    ),
    SourceTable(
        f"{_WYCKOFF_PILOT}/val.csv.gz",  # 1,000
        "mp_20:val",
        216_406,
        "b03d4aeb363a7ec3018cea66e2e69fce3ca3b518c900531a03a1266d5d392eb6",
    ),
    SourceTable(
        f"{_SLICES}/raw_mp20_dataset_mini.csv",  # 2,573
        "mp_20:train",
        3_310_051,
        "889dfda365876656d8782a560eacf703fafaec5182a3162d087cf6c914aa6d96",
    ),
    SourceTable(
        f"{_WYCKOFF_PILOT}/train.csv.gz",  # 1,000
        "mp_20:train",
        215_380,
        "a89a708d16d80401fe256d6742680f2e02ed5746f1a685cfea1b509754fe728e",
    ),
    SourceTable(
        f"{_WYCKOFF}/mpts_52/test.csv.gz",  # 8,096
        "mpts_52:test",
        3_197_100,
        "5c082d8cd8b5398bb9971f076e2f459771e01b45b1a2d206f665bd99a1369feb",
    ),
    SourceTable(
        f"{_WYCKOFF}/mpts_52/val.csv.gz",  # 5,000
        "mpts_52:val",
        1_930_984,
        "af56fcaa2ed7f36e9ec0ce95ae409c73f4c909644153c3d441c76f87a4d1c11d",
    ),
)

# SHA-256 of the tables.
TABLES = {
    "train": "45668500281b604ab012d9f5c2cbcada00cf181ef53f69c862ebcdf691d27c57",
    "val": "784c17d1e82162d3a5ce635ca81117c8371f59de91ada0e7502eac3c5fcb9810",
    "test": "80f03adcef3492fe4867d5ecb839ff9e11792eacae10b4ef8b7aaf1d89787fed",
}

COLUMNS = ("material_id", "cif", "formation_energy_per_atom", "band_gap", "e_above_hull", "origin")

_MANY_SITES = 20  # MP-20 ends here
_TEST_WITH_MANY, _VAL_OF_MP_20, _VAL_WITH_MANY = 1000, 1000, 300  # crystals


def build_mp_52(
    cache: str | Path | None = None, address: str | None = None, patience: Patience | None = None
) -> dict[str, Path]:
    """Return the tables by split, built unless they are in the cache.

    Args:
        cache: folder to keep the sources (12 MB) and the tables (44 MB) in, below it `mp_52`; None for
            `cache_folder()`.
        address: address above the paths of `SOURCES`; None for GitHub. The files must be the same.
        patience: limits of time.

    Raises:
        CrystensError: if a file cannot be downloaded or written, or is not the expected file.
    """
    folder = (cache_folder() if cache is None else Path(cache).expanduser()) / "mp_52"
    paths = {split: folder / f"{split}.csv" for split in SPLITS}
    if all(path.is_file() and _sha256(path.read_bytes()) == TABLES[split] for split, path in paths.items()):
        return paths
    otherwise = "give data.path=DIR, the folder with train.csv, val.csv and test.csv (or .csv.gz) of mp_52"
    base = (address or ADDRESS).rstrip("/")
    texts = []
    for source in SOURCES:
        name = source.path.replace("/", "_")
        remote = RemoteFile(f"{base}/{source.path}", name, source.size, source.sha256)
        texts.append((_text(fetch(remote, folder / "sources", patience, otherwise).read_bytes(), name), source.origin))
    for split, content in tables_of(texts, left_out()).items():
        found = _sha256(content)
        if found != TABLES[split]:
            raise CrystensError(
                f"the {split} table of mp_52 that was built of {base} is not the known one: its SHA-256 should be "
                f"{TABLES[split]}, got {found}; nothing of it was kept; report this, or {otherwise}"
            )
        write_whole(paths[split], content, f"choose another cache folder with {CACHE_VARIABLE}=DIR")
    log.info("%s: built of %d public files, SHA-256 as expected", folder, len(SOURCES))
    return paths


def left_out() -> set[str]:
    """Return the ids in no split, which are the same crystals as one of val or test."""
    listed = json.loads((files("crystens.datasets") / "mp_52_left_out.json").read_text(encoding="utf-8"))
    return set(listed["material_ids"])


def tables_of(sources: list[tuple[str, str]], left_out: set[str]) -> dict[str, bytes]:
    """Return the table of each split, by the rule above.

    Args:
        sources: text of each source table and the origin of its rows, in reading order.
        left_out: ids to leave out of train.
    """
    rows: dict[str, dict[str, str]] = {}
    origins: dict[str, set[str]] = {}
    for text, origin in sources:
        for row in _rows(text):
            rows.setdefault(row["material_id"], row)
            origins.setdefault(row["material_id"], set()).add(origin)
    ids = sorted(rows, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    splits = _splits(ids, origins, {name for name in ids if _num_sites(rows[name]["cif"]) > _MANY_SITES})
    return {
        split: _table(
            {**rows[name], "origin": " ".join(sorted(origins[name]))}
            for name in ids
            if splits[name] == split and not (split == "train" and name in left_out)
        )
        for split in SPLITS
    }


def _splits(ids: list[str], origins: Mapping[str, set[str]], many_sites: set[str]) -> dict[str, str]:
    """Return the split of each id; `ids` are sorted."""
    splits = {name: "test" for name in ids if "mp_20:test" in origins[name]}
    test = (name for name in ids if name in many_sites and "mpts_52:test" in origins[name])
    splits |= dict.fromkeys(islice(test, _TEST_WITH_MANY), "test")
    for wanted, number in (
        ({name for name in ids if "mp_20:val" in origins[name]}, _VAL_OF_MP_20),
        (many_sites, _VAL_WITH_MANY),
    ):
        val = [name for name in ids if name in wanted and name not in splits]
        splits |= dict.fromkeys(val[:number], "val")
    return {name: splits.get(name, "train") for name in ids}


def _rows(text: str) -> Iterator[dict[str, str]]:
    """Yield the rows of a source table with `COLUMNS`, except the origin."""
    csv.field_size_limit(MAX_BYTES)
    for row in csv.DictReader(io.StringIO(text, newline="")):
        yield {
            "material_id": row["material_id"],
            "cif": row["cif"].replace("# generated using pymatgen\n", "", 1),
            "formation_energy_per_atom": row["formation_energy_per_atom"],
            "band_gap": row.get("band_gap", ""),
            "e_above_hull": row["e_above_hull"] if "e_above_hull" in row else row["energy_above_hull"],
        }


def _num_sites(cif: str) -> int:
    """Return the number of rows of the atom loop, the last part of a CIF by pymatgen."""
    lines = cif.splitlines()
    last = max(place for place, line in enumerate(lines) if line.strip().startswith("_atom_site_"))
    return sum(bool(line.strip()) for line in lines[last + 1 :])


def _table(rows: Iterator[dict[str, str]]) -> bytes:
    """Return rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _text(content: bytes, name: str) -> str:
    """Return the text of a source table."""
    return (gzip.decompress(content) if name.endswith(".gz") else content).decode("utf-8")


def _sha256(content: bytes) -> str:
    """Return the SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()
