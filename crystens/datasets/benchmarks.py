"""Download of the public tables of the CDVAE benchmarks Perov-5, Carbon-24 and MP-20.

Each benchmark is `train.csv`, `val.csv` and `test.csv` in the folder `data` of CDVAE's public repository, at a fixed
commit, with a CIF text in each row. The files are kept unchanged; `crystens.formats.csv_table` reads the rows.

Sources of size and SHA-256 of the nine files. Perov-5 and Carbon-24, val and test: computed from the files. MP-20: two
independent public lists agree (for train also a third, which names the public address). Perov-5 and Carbon-24, train:
Git LFS pointers of a public copy of the benchmarks, whose pointers for val and test agree with CDVAE's files; the sizes
agree with estimates from the same structures written again (11,017,495 +- 296 and 6,969,178 +- 480 bytes).

Source: Xie et al., Crystal Diffusion Variational Autoencoder for Periodic Material Generation, 2022 (arXiv:2110.06197).
The structures are of Castelli et al., Energy Environ. Sci. 2012, 5, 5814 and 9034 (Perov-5); Pickard, Materials Cloud
2020.0026/v1 (Carbon-24); Jain et al., APL Materials 2013, 1, 011002 (MP-20). Licence of the repository: MIT.
"""

from __future__ import annotations

from pathlib import Path

from crystens.datasets.download import Patience, RemoteFile, fetch
from crystens.processes.cache_folder import cache_folder

ADDRESS = "https://raw.githubusercontent.com/txie-93/cdvae/f857f598d6f6cca5dc1ea0582d228f12dcc2c2ea/data"

# Size in bytes and SHA-256 of each table.
BENCHMARKS: dict[str, dict[str, tuple[int, str]]] = {
    "perov_5": {
        "train": (11_017_473, "99cc012c21f5670a3d70d53781e1c4f20a9748a2f54945012db7bec5b563af4c"),  # 11,356 rows
        "val": (3_673_814, "326f401219901270374b71e2faff63df3a29a99fd26f469993b9f476b693daf2"),  # 3,787
        "test": (3_671_842, "a85878c685037f0a578257f6d4fcdde00e968dbab73c5f1e90ecef65218513f6"),  # 3,785
    },
    "carbon_24": {
        "train": (6_969_022, "de142c40617954a8b56c66a98bffb1a541abba69c79020067083c74dc445fa5f"),  # 6,091
        "val": (2_321_923, "36c00689cd63073c954a58bc6ed6e2adb7aeed5a630c994970959a1babffd50e"),  # 2,032
        "test": (2_319_350, "386b17c08816f434818d51e46687bf72ff3f92348f3ba24823e4758f1fe8a969"),  # 2,030
    },
    "mp_20": {
        "train": (34_975_028, "133bab58dba02d316f9f91174839f17802dce648be4e8659d1a42b32b97fa01d"),  # 27,136
        "val": (11_617_279, "7b5f4085464b3eac9fd2123acee97ec372214004ce7e983b535b33395abc3e29"),  # 9,047
        "test": (11_599_133, "dd605c7543cf95a13e150aed630d0915e74edc8dea17e85301ee6fbfeb7f500a"),  # 9,046
    },
}


def fetch_benchmark(
    name: str, cache: str | Path | None = None, address: str | None = None, patience: Patience | None = None
) -> dict[str, Path]:
    """Return the tables of a benchmark by split, downloaded unless they are in the cache.

    Args:
        name: perov_5, carbon_24 or mp_20.
        cache: folder of the cache, with `cdvae/NAME` below it; None for `cache_folder()`.
        address: address above the folder `NAME`; None for CDVAE's public repository. The files must be the same.
        patience: limits of time.

    Raises:
        CrystensError: if a table cannot be downloaded, or differs from the published one.
    """
    folder = (cache_folder() if cache is None else Path(cache).expanduser()) / "cdvae" / name
    base = f"{(address or ADDRESS).rstrip('/')}/{name}"
    otherwise = f"give data.path=DIR, the folder with train.csv, val.csv and test.csv (or .csv.gz) of {name}"
    return {
        split: fetch(RemoteFile(f"{base}/{split}.csv", f"{split}.csv", *known), folder, patience, otherwise)
        for split, known in BENCHMARKS[name].items()
    }
