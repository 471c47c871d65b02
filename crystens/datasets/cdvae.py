"""The CDVAE benchmarks Perov-5, Carbon-24 and MP-20, each a folder of three tables, train, val and test.

Without a path they are downloaded (`crystens.datasets.benchmarks`).

Source: Xie et al., Crystal Diffusion Variational Autoencoder for Periodic Material Generation, 2022 (arXiv:2110.06197),
and the folder `data` of its public repository.
"""

from __future__ import annotations

from pathlib import Path

from crystens.datasets.benchmarks import ADDRESS, BENCHMARKS, fetch_benchmark
from crystens.datasets.download import Patience
from crystens.datasets.split_tables import SplitTables, tables_in


class CdvaeSplits(SplitTables):
    """Source of train, val and test tables with their splits.

    Args:
        path: the folder of the tables; None to download the benchmark `name` once into the cache.
        name: name of the folder in CDVAE's repository.
        cache: folder for downloads; None for `crystens.processes.cache_folder.cache_folder`.
        address: address above the folder `name`, for mirrors; None for CDVAE's public repository.
        patience: limits of time of the download; None for the defaults.
    """

    def __init__(
        self,
        path: str | Path | None,
        name: str,
        cache: str | Path | None = None,
        address: str | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Keep the arguments; nothing is opened or fetched yet."""
        super().__init__(path)
        self.name = name
        self.cache = cache
        self.address = address
        self.patience = patience

    def __str__(self) -> str:
        """Return what is read, for messages."""
        return f"{self.name} of {self.address or ADDRESS if self.path is None else self.path}"

    def tables(self) -> dict[str, Path]:
        """Return the table of each split, fetched if there is no path."""
        if self.path is None and self.name in BENCHMARKS:
            return fetch_benchmark(self.name, self.cache, self.address, self.patience)
        expected = f"the folder with train.csv, val.csv and test.csv (or .csv.gz) of {self.name}"
        if self.name in BENCHMARKS:
            expected += f", or no data.path at all: they are fetched from {self.address or ADDRESS}/{self.name}"
        return tables_in(self.path, expected)
