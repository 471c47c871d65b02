"""The store: crystals as columns in memory-mapped Arrow files, some 270 bytes for a crystal of 15 sites.

A store is a folder:

    crystals.arrow    one row a crystal, in the order of reading (columns: `SCHEMA`, then one for each property)
    rejected.csv      the rejects, in the order of reading
    manifest.json     source, options, number of crystals, number of rejects by reason; written last

A folder of shards holds such folders, `00003-of-00016`, each made by one job (`crystens.ingest.ingest`). Opened
together they are one store. Row k of a store is the same crystal on every machine.

Why Arrow files: columns are used in place, so that opening takes no time, any row can be read alone, and processes on
one machine share the pages. Parquet would be half the size, but would have to be unpacked into every process. The
package `datasets` wraps the same files, but adds a second cache with other rules of invalidation.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from crystens.batch import CrystalBatch
from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.orbits.batch import OrbitBatch, listed_orbits, places_of_letters
from crystens.sources.record import SPLITS, Entry, Reject
from crystens.sources.rejects import read_rejected
from crystens.symmetry.orbit_crystal import CrystalWithOrbits

SCHEMA = pa.schema(
    [
        pa.field("file", pa.string(), nullable=False),
        pa.field("entry", pa.string(), nullable=False),
        pa.field("split", pa.string()),
        pa.field("lengths", pa.list_(pa.float32(), 3), nullable=False),  # angstrom
        pa.field("angles", pa.list_(pa.float32(), 3), nullable=False),  # degrees
        pa.field("space_group", pa.uint8(), nullable=False),
        pa.field("numbers", pa.list_(pa.uint8()), nullable=False),  # N atomic numbers
        pa.field("coordinates", pa.list_(pa.float32()), nullable=False),  # 3N fractional, x y z of each site
        # For crystals that keep their K orbits (`Limits.sites`), in the conventional cell; null for others.
        pa.field("orbit_cell", pa.list_(pa.float32())),  # a, b, c, alpha, beta, gamma
        pa.field("orbit_numbers", pa.list_(pa.uint8())),  # K atomic numbers
        pa.field("orbit_positions", pa.list_(pa.uint8())),  # K places of Wyckoff letters in the alphabet: a is 0
        pa.field("orbit_coordinates", pa.list_(pa.float32())),  # 3K fractional, x y z of each representative
    ]
)
PROPERTY = "property."  # prefix of the names of property columns, which come last: float64, NaN where missing
_FIRST_COLUMNS = 8  # number of columns in old stores, without orbits
CRYSTALS, REJECTED, MANIFEST = "crystals.arrow", "rejected.csv", "manifest.json"
_FORMAT = 1
_MOST_NAMED = 5  # missing shards named in an error
_ROWS_AT_ONCE = 8192  # rows held as Python values


class DamagedStore(CrystensError):
    """A store cannot be read; the remedy is to delete its folder and to ingest the source again."""

    def __init__(self, path: Path, problem: str) -> None:
        """Keep the folder; `path` is the file that cannot be read."""
        super().__init__(f"{path} {problem}; delete the folder and ingest the source again")
        self.folder = path.parent


class CrystalStore(Sequence[Crystal]):
    """The crystals of a source, read once; a sequence of `Crystal`, in float32.

    Args:
        blocks: rows of `schema_with` the same properties.
        reject_counts: how many inputs were set aside for each category of reasons.
        rejected: the rejects, or their files.
        name: name of the source, for messages.
        manifests: manifests of the files of the blocks.
        folder: folder that the store was opened from.

    Attributes:
        property_names: names of the properties in the store.
    """

    def __init__(
        self,
        blocks: Sequence[pa.RecordBatch],
        reject_counts: Counter[str],
        rejected: Sequence[Reject] | Sequence[Path],
        name: str,
        manifests: Sequence[dict[str, Any]] = (),
        folder: Path | None = None,
    ) -> None:
        """Use the columns in place; nothing is copied."""
        self.folder = folder
        self.name = name
        self.manifests = tuple(manifests)
        left_out = [manifest.get("hydrogens_left_out", (0, 0)) for manifest in self.manifests]
        # Number of crystals without some of their hydrogens (`Limits.groups`), and number of these hydrogens.
        self.hydrogens_left_out = (sum(pair[0] for pair in left_out), sum(pair[1] for pair in left_out))
        self.reject_counts = reject_counts
        self._rejected = rejected
        self._blocks = [_Block(block) for block in blocks if len(block)]
        columns = self._blocks[0].rows.schema.names if self._blocks else []
        self.property_names = tuple(name.removeprefix(PROPERTY) for name in columns if name.startswith(PROPERTY))
        self._starts = np.cumsum([0, *(len(block) for block in self._blocks)])

    @classmethod
    def open(cls, folder: str | Path) -> CrystalStore:
        """Return the store of a folder, or of all the shards in it.

        Raises:
            CrystensError: if the folder holds no store, a shard is missing, or shards do not belong together.
        """
        folder = Path(folder)
        if (folder / MANIFEST).is_file():
            folders = [folder]
        else:
            folders = sorted(path.parent for path in folder.glob(f"*-of-*/{MANIFEST}"))
            _check_shards(folder, folders)
        manifests = [_read_manifest(path / MANIFEST) for path in folders]
        if len({json.dumps(manifest["made_from"], sort_keys=True) for manifest in manifests}) > 1:
            raise CrystensError(
                f"the shards in {folder} were read from different data, with different options, or by different "
                "versions of crystens or its libraries; make them again with one version"
            )
        blocks = [block for path in folders for block in _mapped(path / CRYSTALS)]
        counts: Counter[str] = Counter()
        for manifest in manifests:
            counts.update(manifest["rejects"])
        return cls(blocks, counts, [path / REJECTED for path in folders], manifests[0]["name"], manifests, folder)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the folder's name only: the other process maps the files again."""
        if self.folder is not None:
            return CrystalStore.open, (self.folder,)
        rows = [block.rows for block in self._blocks]
        return CrystalStore, (rows, self.reject_counts, self._rejected, self.name, self.manifests)

    @classmethod
    def from_items(cls, items: Iterable[Entry | Reject], name: str, properties: Sequence[str] = ()) -> CrystalStore:
        """Return a store in memory of entries, with these of their properties."""
        entries: list[Entry] = []
        rejects: list[Reject] = []
        for item in items:
            if isinstance(item, Entry):
                entries.append(item)
            else:
                rejects.append(item)
        counts = Counter(reject.category for reject in rejects)
        store = cls([to_rows(entries, properties)], counts, rejects, name)
        left_out = [entry.hydrogens_left_out for entry in entries if entry.hydrogens_left_out]
        store.hydrogens_left_out = (len(left_out), sum(left_out))
        return store

    def __len__(self) -> int:
        """Return the number of crystals."""
        return int(self._starts[-1])

    @overload
    def __getitem__(self, index: int) -> Crystal: ...
    @overload
    def __getitem__(self, index: slice) -> list[Crystal]: ...
    def __getitem__(self, index: int | slice) -> Crystal | list[Crystal]:
        """Return one crystal, or those of a slice."""
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"{index=} of {len(self)} crystals")
        index = index % len(self)
        block = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._blocks[block].crystal(index - int(self._starts[block]))

    @property
    def num_rejects(self) -> int:
        """Number of inputs that were set aside."""
        return sum(self.reject_counts.values())

    @property
    def block_sizes(self) -> list[int]:
        """Number of rows in each block of a file; rows of a block are near each other on disk."""
        return [len(block) for block in self._blocks]

    @cached_property
    def counts(self) -> np.ndarray:
        """Number of sites of each crystal, (M,) int64; computed at first use, then kept."""
        return np.concatenate([np.zeros(0, np.int64), *(block.counts() for block in self._blocks)])

    @property
    def most_orbits(self) -> int:
        """Largest number of orbits of a crystal; 0 if crystals keep no orbits."""
        return max((int(block.counts(orbits=True).max()) for block in self._blocks), default=0)

    @property
    def most_sites(self) -> int:
        """Number of sites of the largest crystal; 0 without crystals. Takes no memory for each crystal."""
        return max((int(block.counts().max()) for block in self._blocks), default=0)

    @property
    def nbytes(self) -> int:
        """Size of all columns in bytes, in memory or in files."""
        return sum(block.rows.nbytes for block in self._blocks)

    def rejects(self) -> Iterator[Reject]:
        """Yield the rejects, in the order of reading."""
        for item in self._rejected:
            if isinstance(item, Reject):
                yield item
            else:
                yield from read_rejected(item)

    def column(self, name: str) -> list[Any]:
        """Return a column as Python values, such as "file", "entry" or "split"."""
        return [value for block in self._blocks for value in block.rows.column(name).to_pylist()]

    def texts(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """Yield the values of columns row by row, with a bounded number of rows in memory."""
        for block in self._blocks:
            for start in range(0, len(block), _ROWS_AT_ONCE):
                rows = block.rows.slice(start, _ROWS_AT_ONCE)
                yield from zip(*(rows.column(name).to_pylist() for name in names), strict=True)

    def given_splits(self) -> np.ndarray:
        """Return the index in `SPLITS` of each crystal's split, -1 if the source gives none; (M,) int8."""
        names = pa.array(SPLITS, pa.string())
        # Block by block, because the indices take 4 bytes each at first.
        places = (pc.index_in(block.rows.column("split"), value_set=names).fill_null(-1) for block in self._blocks)
        return np.concatenate([np.zeros(0, np.int8), *(place.to_numpy().astype(np.int8) for place in places)])

    def array(self, name: str) -> np.ndarray:
        """Return a column of numbers of M crystals with T sites in all.

        (M, 3) float32 "lengths" or "angles", (M,) uint8 "space_group", (T,) uint8 "numbers", (T, 3) float32
        "coordinates".
        """
        arrays = [getattr(block, name) for block in self._blocks]
        return np.concatenate(arrays) if arrays else np.zeros(0 if name in ("space_group", "numbers") else (0, 3))

    def properties(self, names: Sequence[str], indices: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Return properties of crystals, NaN where missing: (B, P) float64.

        Args:
            names: names of the P properties.
            indices: rows, shape (B,); None for all.

        Raises:
            CrystensError: if the store has no such property.
        """
        for name in names:
            if name not in self.property_names:
                held = ", ".join(self.property_names) or "none"
                raise CrystensError(
                    f"{self.name} has no property {name}; it has: {held}. Read the source again with the property in "
                    "data.properties, or in --properties of `python -m crystens.data ingest`"
                )
        wanted = np.arange(len(self)) if indices is None else np.asarray(indices, dtype=np.int64)
        values = np.empty((len(wanted), len(names)))
        places = np.searchsorted(self._starts, wanted, side="right") - 1
        for k in np.unique(places):
            rows = np.flatnonzero(places == k)
            for column, name in enumerate(names):
                values[rows, column] = self._blocks[k].property(name)[wanted[rows] - self._starts[k]]
        return values

    def has_values(self, name: str) -> bool:
        """Return whether at least one crystal has a value of a property of the store."""
        return any(not np.isnan(block.property(name)).all() for block in self._blocks)

    def batch(self, indices: Sequence[int] | np.ndarray, max_sites: int) -> CrystalBatch:
        """Return crystals as padded arrays, in the order of `indices`.

        Args:
            indices: rows, shape (B,).
            max_sites: number of site slots N.

        Raises:
            CrystensError: if one of the crystals has more sites.
        """
        columns = self._padded(indices, max_sites, orbits=False)
        return CrystalBatch(**{name: torch.from_numpy(array) for name, array in columns.items()})

    def orbit_batch(self, indices: Sequence[int] | np.ndarray, max_orbits: int) -> OrbitBatch:
        """Return the orbits of crystals as padded arrays, in the order of `indices`; see `batch`.

        Raises:
            CrystensError: if one of the crystals keeps no orbits, or has more.
        """
        columns = self._padded(indices, max_orbits, orbits=True)
        return OrbitBatch(**{name: torch.from_numpy(array) for name, array in columns.items()})

    def listed(
        self, indices: Sequence[int] | np.ndarray, slots: int, sites: str = "all", properties: Sequence[str] = ()
    ) -> CrystalBatch:
        """Return the batch to be encoded: with "all" sites that of `batch`, with "orbits" that of `orbit_batch`.

        Args:
            indices: rows, shape (B,).
            slots: number N of slots for sites or orbits.
            sites: "all" or "orbits".
            properties: names of the properties of the batch.
        """
        batch = self.batch(indices, slots) if sites == "all" else self.orbit_batch(indices, slots)
        if not properties:
            return batch
        return replace(batch, properties=torch.from_numpy(self.properties(properties, indices)).float())

    def _padded(self, indices: Sequence[int] | np.ndarray, slots: int, orbits: bool) -> dict[str, np.ndarray]:
        """Return the columns of a batch of crystals, or of their orbits, padded to `slots`."""
        wanted = np.asarray(indices, dtype=np.int64)
        size = len(wanted)
        places = np.searchsorted(self._starts, wanted, side="right") - 1
        parts = [(self._blocks[k], int(self._starts[k]), np.flatnonzero(places == k)) for k in np.unique(places)]
        counts = np.zeros(size, np.int64)
        for block, start, rows in parts:
            counts[rows] = block.counts(wanted[rows] - start, orbits)
        if size and not counts.min():
            raise CrystensError(f"crystals of {self.name} keep no orbits; read them with encoding.sites=orbits")
        if size and counts.max() > slots:
            worst = int(wanted[counts.argmax()])
            kind, limit = ("orbits", "max_orbits") if orbits else ("sites", "max_sites")
            raise CrystensError(
                f"crystal {worst} of {self.name} ({self[worst].formula}) has {counts.max()} {kind}, more than "
                f"{limit}={slots}"
            )
        columns: dict[str, np.ndarray] = {
            "lengths": np.zeros((size, 3), np.float32),
            "angles": np.zeros((size, 3), np.float32),
            "space_groups": np.zeros(size, np.uint8),
            "counts": counts.astype(np.uint8),
            "numbers": np.zeros((size, slots), np.uint8),
            "coordinates": np.zeros((size, slots, 3), np.float32),
        }
        if orbits:
            columns["positions"] = np.zeros((size, slots), np.uint8)
        for block, start, rows in parts:
            block.fill(columns, rows, wanted[rows] - start)
        return columns


class _Block:
    """A block of rows; its arrays are views of the file."""

    def __init__(self, rows: pa.RecordBatch) -> None:
        self.rows = rows
        self.lengths = _flat(rows.column("lengths")).reshape(-1, 3)
        self.angles = _flat(rows.column("angles")).reshape(-1, 3)
        self.space_group = rows.column("space_group").to_numpy()
        self.numbers = _flat(rows.column("numbers"))
        self.coordinates = _flat(rows.column("coordinates")).reshape(-1, 3)
        self._offsets = rows.column("numbers").offsets.to_numpy()
        self._orbit_cell = _flat(rows.column("orbit_cell")).reshape(-1, 6)
        self._orbit_numbers = _flat(rows.column("orbit_numbers"))
        self._orbit_positions = _flat(rows.column("orbit_positions"))
        self._orbit_coordinates = _flat(rows.column("orbit_coordinates")).reshape(-1, 3)
        self._orbit_offsets = rows.column("orbit_numbers").offsets.to_numpy()
        self._cell_offsets = rows.column("orbit_cell").offsets.to_numpy()

    def __len__(self) -> int:
        return len(self.rows)

    def counts(self, rows: np.ndarray | None = None, orbits: bool = False) -> np.ndarray:
        """Return the number of sites, or of orbits, of rows (default all), int64; 0 if no orbits are kept."""
        offsets = self._orbit_offsets if orbits else self._offsets
        counts = np.diff(offsets) if rows is None else offsets[rows + 1] - offsets[rows]
        return counts.astype(np.int64)

    def property(self, name: str) -> np.ndarray:
        """Return a property of all rows, float64."""
        return self.rows.column(f"{PROPERTY}{name}").to_numpy()

    def crystal(self, row: int) -> Crystal:
        """Return one crystal, with its orbits if it keeps them."""
        sites = slice(self._offsets[row], self._offsets[row + 1])
        crystal = Crystal(
            self.lengths[row],
            self.angles[row],
            int(self.space_group[row]),
            self.numbers[sites],
            self.coordinates[sites],
        )
        orbits = slice(self._orbit_offsets[row], self._orbit_offsets[row + 1])
        if orbits.start == orbits.stop:
            return crystal
        cell = self._orbit_cell[self._cell_offsets[row] // 6]
        return CrystalWithOrbits(
            **vars(crystal),
            orbits=listed_orbits(
                cell[:3],
                cell[3:],
                crystal.space_group,
                self._orbit_numbers[orbits],
                self._orbit_positions[orbits],
                self._orbit_coordinates[orbits],
            ),
        )

    def fill(self, columns: dict[str, np.ndarray], where: np.ndarray, rows: np.ndarray) -> None:
        """Copy rows of the block to the rows `where` of padded columns; columns of orbits have "positions"."""
        columns["space_groups"][where] = self.space_group[rows]
        orbits = "positions" in columns
        if orbits:
            cells = self._orbit_cell[self._cell_offsets[rows] // 6]
            columns["lengths"][where], columns["angles"][where] = cells[:, :3], cells[:, 3:]
        else:
            columns["lengths"][where], columns["angles"][where] = self.lengths[rows], self.angles[rows]
        counts = self.counts(rows, orbits)
        # Site s, counted over the whole batch, has row `owner[s]` and slot `slot[s]`.
        owner = np.repeat(np.arange(len(rows)), counts)
        slot = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        site = (self._orbit_offsets if orbits else self._offsets)[rows][owner] + slot
        columns["numbers"][where[owner], slot] = (self._orbit_numbers if orbits else self.numbers)[site]
        columns["coordinates"][where[owner], slot] = (self._orbit_coordinates if orbits else self.coordinates)[site]
        if orbits:
            columns["positions"][where[owner], slot] = self._orbit_positions[site]


def schema_with(properties: Sequence[str]) -> pa.Schema:
    """Return the schema of rows with these properties."""
    return pa.schema([*SCHEMA, *(pa.field(f"{PROPERTY}{name}", pa.float64(), nullable=False) for name in properties)])


def to_rows(entries: Sequence[Entry], properties: Sequence[str] = ()) -> pa.RecordBatch:
    """Return entries as rows of `SCHEMA`, with these of their properties."""
    crystals = [entry.crystal for entry in entries]
    counts = np.array([len(crystal) for crystal in crystals], dtype=np.int32)
    offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(counts, dtype=np.int32)])
    numbers = np.concatenate([np.zeros(0, np.int64), *(crystal.numbers for crystal in crystals)]).astype(np.uint8)
    sites = np.concatenate([np.zeros((0, 3)), *(crystal.coordinates for crystal in crystals)]).astype(np.float32)
    lengths = np.array([crystal.lengths for crystal in crystals], dtype=np.float32).reshape(-1)
    angles = np.array([crystal.angles for crystal in crystals], dtype=np.float32).reshape(-1)
    columns = [
        pa.array([_text(entry.file) for entry in entries], pa.string()),
        pa.array([_text(entry.entry) for entry in entries], pa.string()),
        pa.array([entry.split for entry in entries], pa.string()),
        pa.FixedSizeListArray.from_arrays(pa.array(lengths), 3),
        pa.FixedSizeListArray.from_arrays(pa.array(angles), 3),
        pa.array([crystal.space_group for crystal in crystals], pa.uint8()),
        pa.ListArray.from_arrays(pa.array(offsets), pa.array(numbers)),
        pa.ListArray.from_arrays(pa.array(3 * offsets), pa.array(sites.reshape(-1))),
        *_orbit_columns(crystals),
    ]
    columns += [
        pa.array(np.array([entry.properties.get(name, np.nan) for entry in entries], dtype=np.float64))
        for name in properties
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema_with(properties))


def _orbit_columns(crystals: Sequence[Crystal]) -> Iterator[pa.Array]:
    """Yield the columns of orbits of `SCHEMA`, null where a crystal keeps none."""
    listed = [crystal.orbits if isinstance(crystal, CrystalWithOrbits) else None for crystal in crystals]
    kinds = {name: SCHEMA.field(name).type for name in SCHEMA.names[_FIRST_COLUMNS:]}
    yield pa.array(
        [None if one is None else np.concatenate([one.lengths, one.angles]).astype(np.float32) for one in listed],
        kinds["orbit_cell"],
    )
    yield pa.array([None if one is None else one.numbers.astype(np.uint8) for one in listed], kinds["orbit_numbers"])
    yield pa.array([None if one is None else places_of_letters(one) for one in listed], kinds["orbit_positions"])
    yield pa.array(
        [None if one is None else one.coordinates.astype(np.float32).reshape(-1) for one in listed],
        kinds["orbit_coordinates"],
    )


def write_manifest(
    folder: Path,
    name: str,
    made_from: dict[str, Any],
    rows: int,
    rejects: Counter[str],
    shard: tuple[int, int],
    hydrogens_left_out: tuple[int, int] = (0, 0),
) -> None:
    """Write the manifest of a store or shard, the last of its files.

    It holds no time and no path, so that reading the same data twice gives the same bytes.
    """
    manifest = {
        "format": _FORMAT,
        "name": name,
        "made_from": made_from,
        "shard": list(shard),
        "crystals": rows,
        "rejects": dict(sorted(rejects.items())),
        "hydrogens_left_out": list(hydrogens_left_out),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _read_manifest(path: Path) -> dict[str, Any]:
    """Return a manifest, after a check of its format."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] == _FORMAT:
            return dict(manifest)
        found = manifest["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedStore(path, f"is no manifest of a store: {error!r}") from error
    raise DamagedStore(path, f"has format {found}, this version reads {_FORMAT}")


def _check_shards(folder: Path, folders: Sequence[Path]) -> None:
    """Raise a CrystensError unless folders are all the shards of a store."""
    if not folders:
        raise CrystensError(f"{folder} is no store: it has no {MANIFEST}, and no finished shards")
    totals = {path.name.partition("-of-")[2] for path in folders}
    if len(totals) > 1:
        raise CrystensError(f"{folder} holds shards of several stores: of {', '.join(sorted(totals))}")
    total = int(totals.pop())
    missing = sorted(set(range(total)) - {int(path.name.partition("-of-")[0]) for path in folders})
    if missing:
        named = ", ".join(map(str, missing[:_MOST_NAMED])) + (" ..." if len(missing) > _MOST_NAMED else "")
        raise CrystensError(
            f"{folder} lacks {len(missing)} of {total} shards: {named}; run their jobs again, they resume where they "
            "stopped"
        )


def _mapped(path: Path) -> list[pa.RecordBatch]:
    """Return the memory-mapped blocks of an Arrow file."""
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        names = [name.removeprefix(PROPERTY) for name in reader.schema.names if name.startswith(PROPERTY)]
        now = schema_with(names)
        before = pa.schema([*list(SCHEMA)[:_FIRST_COLUMNS], *list(now)[len(SCHEMA) :]])
        if reader.schema in (now, before):
            blocks = [reader.get_batch(k) for k in range(reader.num_record_batches)]
            return blocks if reader.schema == now else [_without_orbits(block, now) for block in blocks]
    except (OSError, pa.ArrowInvalid) as error:
        raise DamagedStore(path, f"cannot be read: {error}") from error
    raise DamagedStore(path, "has other columns than this version writes")


def _without_orbits(block: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return rows of an old store, without orbits, as rows of today's schema."""
    columns = [
        block.column(field.name) if field.name in block.schema.names else pa.nulls(len(block), field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _flat(column: pa.Array) -> np.ndarray:
    """Return the values of a list column as one array, without a copy."""
    return column.values.to_numpy(zero_copy_only=True)


def _text(value: str) -> str:
    """Return a text that can be encoded as UTF-8: file names on Linux may hold any bytes."""
    return value.encode("utf-8", errors="backslashreplace").decode("utf-8")
