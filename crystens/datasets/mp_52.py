"""Materials Project structures of at most 52 sites: the parts of MP-20 and MPTS-52 that public repositories hold.

A folder of three tables, train, val and test. Without a path they are built from eight public files
(`crystens.datasets.mp_52_tables`).
"""

from __future__ import annotations

from pathlib import Path

from crystens.datasets.download import Patience
from crystens.datasets.mp_52_tables import ADDRESS, build_mp_52
from crystens.datasets.split_tables import SplitTables, tables_in


class Mp52(SplitTables):
    """Source of train, val and test tables with their splits.

    Args:
        path: the folder of the tables; None to download their public sources and build them once, in the cache.
        cache: folder of the cache; None for `crystens.processes.cache_folder.cache_folder`.
        address: address above `OWNER/REPOSITORY/COMMIT/FILE`, for mirrors; None for GitHub.
        patience: limits of time of the download; None for the defaults.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        cache: str | Path | None = None,
        address: str | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Keep the arguments; nothing is opened or fetched yet."""
        super().__init__(path)
        self.cache = cache
        self.address = address
        self.patience = patience

    def __str__(self) -> str:
        """Return what is read, for messages."""
        return f"mp_52 of {self.address or ADDRESS if self.path is None else self.path}"

    def tables(self) -> dict[str, Path]:
        """Return the table of each split, built if there is no path."""
        if self.path is None:
            return build_mp_52(self.cache, self.address, self.patience)
        built = f"no data.path at all: they are built of files fetched from {self.address or ADDRESS}"
        return tables_in(
            self.path, f"the folder with train.csv, val.csv and test.csv (or .csv.gz) of mp_52, or {built}"
        )
