"""Data sets of the Hugging Face Hub, by the package `datasets`, which downloads them once into its cache.

A row holds a crystal in one of the forms of `crystens.formats.json_records`: the columns of OPTIMADE, as LeMat-Bulk
has them (`lattice_vectors`, `cartesian_site_positions`, `species_at_sites`, `species`), a structure of pymatgen as an
object or as JSON (`structure`), or a CIF (`cif`). A row is named by its id (`material_id`, `immutable_id`, ...),
otherwise by its number. Other columns can be kept as properties (`crystens.sources.properties`): `energy` of LeMat-Bulk
is the energy of the cell, eV, by the functional in the name of the configuration.

Splits named train, validation (val, valid, dev) and test are kept. A data set with one split counts as unsplit. Instead
of a name, a Parquet file, a folder of such files, or a folder of `Dataset.save_to_disk` can be given. No code of a data
set is run: `datasets` 4 and later run none.

Source: documentation of `datasets` 5.2, and the card of the data set LeMaterial/LeMat-Bulk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from crystens.errors import CrystensError, first_line
from crystens.formats.json_records import IDS, is_field, read_record, structures_of
from crystens.formats.structure_objects import KEYS, is_structure
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Record, Reject, shown
from crystens.sources.source import Source, existing

_SPLITS = {"train": "train", "validation": "val", "val": "val", "valid": "val", "dev": "val", "test": "test"}
_DEEPEST = 3  # nesting depth of objects whose parts are listed as columns
_AT_ONCE = 200  # rows taken out of the tables at a time
_BUILDERS = {".parquet": "parquet", ".arrow": "arrow", ".csv": "csv", ".json": "json", ".jsonl": "json"}
_SAVED = ("dataset_info.json", "dataset_dict.json")  # files in a folder of save_to_disk


class HuggingFaceDataset(Source):
    """Source of a data set of the Hub, or a local one.

    Args:
        dataset: name of the data set, such as LeMaterial/LeMat-Bulk, or a folder.
        config: its configuration, such as compatible_pbe, if it has several.
        split: one of its splits, or a part of a split, such as train[:10000]; None for all.
        revision: version to read, a tag or a commit; None for the newest.
        key: path to the structure in each row, such as structure; None to search for it.
        cache: folder for downloads; None for that of the package (`HF_HOME`).
        path: a folder, instead of a name.

    Raises:
        CrystensError: if there is no name and no folder, or both.
    """

    gives_properties = True

    def __init__(
        self,
        dataset: str | None = None,
        config: str | None = None,
        split: str | None = None,
        revision: str | None = None,
        key: str | None = None,
        cache: str | Path | None = None,
        path: str | Path | None = None,
    ) -> None:
        """Keep the arguments; nothing is opened or fetched yet."""
        if (dataset is None) == (path is None):
            given = "both were given" if path else "none was given"
            raise CrystensError(
                f"data=huggingface reads data.source.dataset=NAME, such as LeMaterial/LeMat-Bulk with "
                f"data.source.config=compatible_pbe, or a folder, data.path=DIR; {given}"
            )
        self.dataset = str(dataset if path is None else path)
        self.path = path
        self.config = config
        self.split = split
        self.revision = revision
        self.key = key
        self.cache = cache
        self._tables: dict[str, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the tables, which parsing does not need."""
        return self.__dict__ | {"_tables": None}

    def __str__(self) -> str:
        """Return what is read, for messages."""
        parts = (self.dataset, self.config, self.split, self.revision)
        return f"data set {' '.join(part for part in parts if part)}"

    def contents(self) -> dict[str, str | Path] | None:
        """Return the files of the tables, see `Source.contents`; None if they are in memory."""
        files = {
            f"{split}/{number}": file["filename"]
            for split, table in self._loaded().items()
            for number, file in enumerate(table.cache_files)
        }
        return files or None

    def variant(self) -> str:
        """Return the requested rows and key, see `Source.variant`."""
        return "\\0".join(str(part) for part in (self.config, self.split, self.key))

    def expected(self) -> int:
        """Return the number of rows."""
        return sum(table.num_rows for table in self._loaded().values())

    def columns(self) -> list[str]:
        """Return the columns except the name, and parts of objects by their path."""
        names = (name for table in self._loaded().values() for name in _ways(table.features))
        return [name for name in dict.fromkeys(names) if name not in IDS]

    def records(self) -> Iterator[Record]:
        """Yield each row of each split.

        Raises:
            CrystensError: if the data set cannot be loaded.
        """
        tables = self._loaded()
        for split, table in tables.items():
            own = _SPLITS.get(split) if len(tables) > 1 else None
            taken = table.select_columns(self._wanted(table))
            number = 0
            for rows in taken.iter(_AT_ONCE):
                for row in zip(*rows.values(), strict=True):
                    yield Record(f"{self.dataset}/{split}", f"row {number}", dict(zip(rows, row, strict=True)), own)
                    number += 1

    def parse(self, record: Record, limits: Limits) -> list[Entry | Reject]:
        """Return the crystal of one row."""
        items = read_record(record.content, record.file, record.entry, self.key, self.properties, limits)
        return [replace(item, split=record.split) if isinstance(item, Entry) else item for item in items]

    def _wanted(self, table: Any) -> list[str]:
        """Return the columns of a table to read, without large ones such as forces of each site."""
        columns: list[str] = table.column_names
        if self.properties is None or table.num_rows == 0:
            return columns
        first = table[0]
        found = list(KEYS) if is_structure(first) else list(structures_of(first))
        ways = [*found, *self.properties, *([self.key] if self.key else [])]
        wanted = {*IDS, *ways, *(way.split(".")[0] for way in ways)}
        return [column for column in columns if column in wanted or is_field(column)] if found else columns

    def _loaded(self) -> dict[str, Any]:
        """Return the table of each split, downloaded if it is not in the cache.

        Raises:
            CrystensError: if it cannot be loaded.
        """
        if self._tables is None:
            if self.path is not None:
                existing(self.path, "the folder of a data set")
            package = _package()
            try:
                self._tables = self._splits(self._load(package))
            except (
                OSError,
                ValueError,
                RuntimeError,
                LookupError,
                TypeError,
                package.exceptions.DatasetsError,
            ) as error:
                text = shown(first_line(error), 300)
                raise CrystensError(f"cannot load the {self}: {text}; {self._advice(error)}") from error
        return self._tables

    def _load(self, package: Any) -> Any:
        """Return the loaded data set of the package."""
        folder = Path(self.dataset).expanduser()
        if folder.is_dir() and any((folder / name).is_file() for name in _SAVED):
            saved = package.load_from_disk(str(folder))
            return saved if self.split is None else saved[self.split]
        cache = None if self.cache is None else str(Path(self.cache).expanduser())
        if folder.is_file():
            builder = _BUILDERS.get(folder.suffix.lower(), "parquet")
            return package.load_dataset(builder, data_files=str(folder), split=self.split, cache_dir=cache)
        name = str(folder) if folder.exists() else self.dataset
        return package.load_dataset(name, self.config, split=self.split, revision=self.revision, cache_dir=cache)

    def _splits(self, loaded: Any) -> dict[str, Any]:
        """Return the tables by split."""
        if not isinstance(loaded, Mapping):
            return {str(loaded.split or "train").split("[")[0]: loaded}
        unknown = [name for name in loaded if name not in _SPLITS]
        if len(loaded) > 1 and unknown:
            raise CrystensError(
                f"the {self} has the splits {', '.join(loaded)}, of which {', '.join(unknown)} is neither train, "
                "validation nor test; choose one with data.source.split=NAME"
            )
        return dict(loaded)

    def _advice(self, error: Exception) -> str:
        """Return the advice for a data set that cannot be loaded."""
        if isinstance(error, ConnectionError):
            return (
                "check the name and the network; without one, only what was fetched before can be read (HF_HOME), or a "
                "folder, data.path=DIR"
            )
        return "check data.source.dataset, config, split and revision, or give a folder, data.path=DIR"


def _ways(features: Mapping[str, Any], before: str = "", depth: int = 0) -> Iterator[str]:
    """Yield the names of columns, and the paths to parts of objects."""
    for name, feature in features.items():
        if isinstance(feature, Mapping) and depth < _DEEPEST:
            yield from _ways(feature, f"{before}{name}.", depth + 1)
        else:
            yield f"{before}{name}"


def _package() -> Any:
    """Return the package `datasets`, which takes seconds to import."""
    try:
        import datasets
    except ImportError as error:
        raise CrystensError(
            f"data=huggingface needs the package datasets, which cannot be imported ({first_line(error)}): "
            "pip install 'crystens[huggingface]'"
        ) from error
    return datasets
