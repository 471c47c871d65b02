"""The benchmarks of CDVAE: Perov-5, Carbon-24 and MP-20, each a folder of three tables, train, val and test.

Without a path they are fetched (`crystens.datasets.benchmarks`). Rows are read by `crystens.formats.csv_table`.

Source: Xie et al., Crystal Diffusion Variational Autoencoder for Periodic Material Generation, 2022 (arXiv:2110.06197),
and the folder `data` of its public repository.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crystens.datasets.benchmarks import ADDRESS, BENCHMARKS, fetch_benchmark
from crystens.datasets.download import Patience
from crystens.errors import CrystensError
from crystens.formats.csv_table import CSV_SUFFIXES, CsvTable
from crystens.sources.limits import Limits
from crystens.sources.record import SPLITS, Entry, Record, Reject
from crystens.sources.source import Source, existing


class CdvaeSplits(Source):
    """Source: train, val and test tables, whose splits are kept.

    Args:
        path: the folder they are in; None to fetch the benchmark `name` once and read it from the cache.
        name: name of the folder in CDVAE's repository.
        cache: folder to keep what is fetched; None for `crystens.processes.cache_folder.cache_folder`.
        address: where the folder `name` is found, for mirrors; None for CDVAE's public repository.
        patience: how long fetching is tried; None for the defaults.
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
        self.path = path
        self.name = name
        self.cache = cache
        self.address = address
        self.patience = patience

    def __str__(self) -> str:
        """Return what is read, for messages."""
        return f"{self.name} of {self.address or ADDRESS if self.path is None else self.path}"

    def contents(self) -> dict[str, str | Path]:
        """Return the three tables, see `Source.contents`."""
        return {path.name: path for path in self._tables().values()}

    def records(self) -> Iterator[Record | Reject]:
        """Yield the rows of the three tables.

        Raises:
            CrystensError: if one of the tables is not there, or cannot be fetched.
        """
        for split, path in self._tables().items():
            yield from CsvTable(path, split).records()

    def parse(self, record: Record, limits: Limits) -> Iterator[Entry | Reject]:
        """Yield what the CIF text of one row holds."""
        return CsvTable(self.path).parse(record, limits)

    def _tables(self) -> dict[str, Path]:
        """Return the table of each split, fetched if there is no path."""
        if self.path is None and self.name in BENCHMARKS:
            return fetch_benchmark(self.name, self.cache, self.address, self.patience)
        expected = f"the folder with train.csv, val.csv and test.csv (or .csv.gz) of {self.name}"
        if self.name in BENCHMARKS:
            expected += f", or no data.path at all: they are fetched from {self.address or ADDRESS}/{self.name}"
        folder = existing(self.path, expected)
        tables = {}
        for split in SPLITS:
            found = [folder / f"{split}{suffix}" for suffix in CSV_SUFFIXES if (folder / f"{split}{suffix}").is_file()]
            if not found:
                raise CrystensError(f"no {split}.csv or {split}.csv.gz in {folder}; give {expected}")
            tables[split] = found[0]
        return tables
