"""Reading a source into a store: parallel, with a time limit for each input, resumable after any interruption.

The source is read in chunks, which worker processes parse. Each parsed chunk is written to one file, atomically. At the
end the chunks are joined into a store (`crystens.ingest.store`). The number of workers and of interruptions does not
change a byte of it. Memory holds the chunks in progress, and never the whole data set.

An input that exceeds the time limit, or that kills its worker process, is set aside
(`crystens.ingest.workers`). The cache key of a store is in `crystens.ingest.recipe`.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from crystens.errors import CrystensError
from crystens.ingest.asked_properties import check_columns, check_found
from crystens.ingest.chunk_files import is_whole, join, write_part
from crystens.ingest.duplicates import without_repeats
from crystens.ingest.recipe import bytes_of, digest, made_from, stamps
from crystens.ingest.store import CrystalStore, DamagedStore
from crystens.ingest.store_source import StoredCrystals
from crystens.ingest.workers import parse, parsed_in_processes
from crystens.processes.atomic_file import whole_file
from crystens.processes.cores import usable_cores
from crystens.processes.progress_bars import ProgressBars
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Record, Reject
from crystens.sources.rejects import describe, write_rejected
from crystens.sources.source import Source

log = logging.getLogger(__name__)

DUPLICATES = ("keep", "set_aside")

_CHUNK_RECORDS = 256
_CHUNK_BYTES = 16 * 2**20  # largest size of the contents of a chunk


@dataclass(frozen=True)
class IngestOptions:
    """Options of reading a source; only `time_limit` and `duplicates` change the content of the store.

    Attributes:
        workers: number of worker processes; "auto" for the cores that this process may use; 0 to parse in this process,
            without limits of time or memory.
        time_limit: limit of processor time for one input, seconds; ten times that in wall time.
        duplicates: "keep", or "set_aside" all but the first of crystals that are the same by
            `crystens.matching.structure_matching.group_matches`.
        cache: folder of the stores; None for `crystens.processes.cache_folder.cache_folder()`.

    Raises:
        CrystensError: if an option is out of range.
    """

    workers: int | str = "auto"
    time_limit: float = 30.0
    duplicates: str = "keep"
    cache: str | Path | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        if self.workers != "auto" and (not isinstance(self.workers, int) or self.workers < 0):
            raise CrystensError(f"data.ingest.workers must be a number of at least 0, or auto; got {self.workers!r}")
        if not isinstance(self.time_limit, int | float) or not self.time_limit > 0:
            raise CrystensError(f"data.ingest.time_limit must be above 0 seconds, got {self.time_limit!r}")
        if self.duplicates not in DUPLICATES:
            allowed = " or ".join(DUPLICATES)
            raise CrystensError(f"data.ingest.duplicates={self.duplicates} is not known; use {allowed}")

    @property
    def num_workers(self) -> int:
        """The number of worker processes."""
        return self.workers if isinstance(self.workers, int) else usable_cores()


def open_store(
    source: Source, limits: Limits, options: IngestOptions | None = None, rejected_path: str | Path | None = None
) -> CrystalStore:
    """Return the store of a source, from the cache if nothing has changed.

    A source without `Source.contents` is read into memory each time. If several processes open the same store at once,
    one of them makes it.

    Args:
        source: the source; `StoredCrystals` are opened, without use of limits and options.
        limits: bounds on usable crystals, and their form.
        options: options of reading.
        rejected_path: path for a copy of `rejected.csv`; None writes only the one in the store.

    Raises:
        CrystensError: if the source cannot be read or has no usable crystal, no crystal has a requested property, or a
            file cannot be written.
    """
    options = options or IngestOptions()
    check_columns(source)
    if isinstance(source, StoredCrystals):
        store = source.store()
    elif (contents := source.contents()) is None:
        store = _in_memory(source, limits, options)
    else:
        store = _cached(source, limits, options, contents)
    where = "" if rejected_path is None else f"; see {write_rejected(store.rejects(), rejected_path)}"
    told = describe(len(store), store.reject_counts)
    if not len(store):
        first = next(store.rejects(), None)
        why = "" if first is None else f"; the first: {first.file}: {first.reason}; {first.advice}"
        raise CrystensError(f"nothing usable in {source}: {told}{why}{where}")
    check_found(source, store)
    log.info("%s: %s%s", source, told, where if store.num_rejects else "")
    return store


def _in_memory(source: Source, limits: Limits, options: IngestOptions) -> CrystalStore:
    """Return a store in memory of a source without `contents`."""
    items: list[Entry | Reject] = []
    with _reading(source) as tell:
        for _, parsed in _parsed_chunks(source, limits, options, set(), (0, 1)):
            items += parsed
            tell(parsed)
    if options.duplicates == "set_aside":
        items = without_repeats(items, options.num_workers)
    return CrystalStore.from_items(items, str(source), source.properties or ())


def _cached(source: Source, limits: Limits, options: IngestOptions, contents: dict[str, str | Path]) -> CrystalStore:
    """Return the store of a source from the cache; it is made if missing or damaged."""
    try:
        return CrystalStore.open(_store_folder(source, limits, options, contents))
    except DamagedStore as error:
        log.warning("%s is damaged and will be made again: %s", error.folder, error)
        shutil.rmtree(error.folder, ignore_errors=True)
        return CrystalStore.open(_store_folder(source, limits, options, contents))


def _store_folder(source: Source, limits: Limits, options: IngestOptions, contents: dict[str, str | Path]) -> Path:
    """Return the folder of a source's store, which is made if missing."""
    root = _cache_folder(options)
    recipe = _recipe(source, limits, options)
    stamp = _stamp(root, recipe, contents)
    folder = _known(root, stamp)
    if folder is None:
        read = {**recipe, "contents": digest(*bytes_of(contents))}
        folder = root / "stores" / digest(json.dumps(read, sort_keys=True))
        _make(source, limits, options, folder, read, (0, 1))
        if _stamp(root, recipe, source.contents() or {}) == stamp:
            _write_text(stamp, folder.name)
        else:
            log.warning("%s changed while it was read; the next run will read it again", source)
    log.debug("%s is stored in %s", source, folder)
    return folder


def ingest_shard(
    source: Source, limits: Limits, options: IngestOptions, out: str | Path, shard: int, shards: int
) -> Path:
    """Read one of `shards` parts of a source into a shard, and return the shard's folder.

    The jobs of an array call this with 0 <= shard < shards, on any number of machines; their shards form the store at
    `out`. A job that runs again resumes, or returns at once if its shard is done.
    Duplicates are searched within each shard only.

    Raises:
        CrystensError: if the source cannot be read, the shard cannot be written, or `out` holds another store.
    """
    if not 0 <= shard < shards:
        raise CrystensError(f"shard must be 0 to {shards - 1} of {shards} shards, got {shard}")
    check_columns(source)
    contents = source.contents()
    if contents is None:
        raise CrystensError(f"{source} has no files to identify its contents by, and cannot be split into shards")
    made_from = {**_recipe(source, limits, options), "contents": digest(*bytes_of(contents))}
    folder = Path(out) / f"{shard:05d}-of-{shards:05d}"
    _make(source, limits, options, folder, made_from, (shard, shards))
    return folder


def _make(
    source: Source,
    limits: Limits,
    options: IngestOptions,
    folder: Path,
    made_from: dict[str, Any],
    shard: tuple[int, int],
) -> None:
    """Make the store of a folder, unless it exists."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not _is_made(folder, made_from):
                _ingest(source, limits, options, folder, made_from, shard)
    except OSError as error:
        raise CrystensError(
            f"cannot write the store {folder}: {error.strerror or error}; free space there, or choose another folder "
            "(--out, data.ingest.cache, CRYSTENS_CACHE)"
        ) from error


def _is_made(folder: Path, made_from: dict[str, Any]) -> bool:
    """Return whether a folder holds a store.

    Raises:
        CrystensError: if it was made from other data or options.
    """
    if not folder.exists():
        return False
    store = CrystalStore.open(folder)
    if store.manifests[0]["made_from"] != made_from:
        raise CrystensError(f"{folder} holds a store of other data or options; choose another folder, or delete it")
    return True


def _ingest(
    source: Source,
    limits: Limits,
    options: IngestOptions,
    folder: Path,
    made_from: dict[str, Any],
    shard: tuple[int, int],
) -> None:
    """Read a source into a new folder."""
    partial = folder.with_name(folder.name + ".partial")
    # The folder may hold parts of other data or options, because its name does not depend on them: they are removed.
    parts = partial / digest(json.dumps(made_from, sort_keys=True))
    if partial.exists() and not parts.exists():
        shutil.rmtree(partial)
    parts.mkdir(parents=True, exist_ok=True)
    done = {int(path.stem) for path in parts.glob("*.arrow") if is_whole(path)}
    if done:
        log.info("resuming %s: %d chunks of %d inputs are done", source, len(done), _CHUNK_RECORDS)
    with _reading(source) as tell:
        for number, items in _parsed_chunks(source, limits, options, done, shard):
            if items is not None:
                write_part(parts / f"{number:08d}.arrow", items, source.properties or ())
                tell(items)
    join(
        parts,
        partial,
        str(source),
        made_from,
        shard,
        options.num_workers if options.duplicates == "set_aside" else None,
    )
    shutil.rmtree(parts)
    os.replace(partial, folder)


@contextmanager
def _reading(source: Source) -> Iterator[Callable[[Sequence[Entry | Reject]], None]]:
    """Show the progress of reading a source; yields a function to call with the items of each chunk."""
    log.info("reading %s", source)
    read = rejected = 0
    expected = source.expected()
    with ProgressBars() as bars:

        def tell(items: Sequence[Entry | Reject]) -> None:
            nonlocal read, rejected
            read, rejected = read + len(items), rejected + sum(isinstance(item, Reject) for item in items)
            bars("reading", read, expected, lambda: f"{rejected:,} set aside")

        yield tell
        if read:
            bars("reading", read, read, lambda: f"{rejected:,} set aside")


def _parsed_chunks(
    source: Source, limits: Limits, options: IngestOptions, done: set[int], shard: tuple[int, int]
) -> Iterator[tuple[int, list[Entry | Reject]]]:
    """Yield the number and the items of each chunk that is not done yet, as soon as it is ready."""
    chunks = (
        (number, chunk)
        for number, chunk in enumerate(_chunks(source.records()))
        if number % shard[1] == shard[0] and number not in done
    )
    if options.num_workers == 0:
        for number, chunk in chunks:
            yield number, parse(source, limits, chunk)
        return
    yield from parsed_in_processes(source, limits, chunks, options.num_workers, options.time_limit)


def _chunks(records: Iterable[Record | Reject]) -> Iterator[list[Record | Reject]]:
    """Yield records in chunks; the boundaries depend on the records only."""
    chunk: list[Record | Reject] = []
    size = 0
    for record in records:
        chunk.append(record)
        if isinstance(record, Record) and isinstance(record.content, bytes | str):
            size += len(record.content)
        if len(chunk) == _CHUNK_RECORDS or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _recipe(source: Source, limits: Limits, options: IngestOptions) -> dict[str, Any]:
    """Return everything that a store depends on, apart from the bytes of the source's files."""
    return made_from(source, limits, options.time_limit if options.num_workers else None, options.duplicates)


def _stamp(root: Path, recipe: dict[str, Any], contents: dict[str, str | Path]) -> Path:
    """Return the stamp file for the current names, sizes and times of a source's files."""
    return root / "stamps" / digest(json.dumps(recipe, sort_keys=True), *stamps(contents))


def _known(root: Path, stamp: Path) -> Path | None:
    """Return the store that a stamp file names, if both exist."""
    try:
        folder = root / "stores" / stamp.read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    return folder if folder.is_dir() else None


def _write_text(path: Path, text: str) -> None:
    """Write a small file atomically."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as beside:
            beside.write_text(text, encoding="ascii")
    except OSError as error:
        log.warning("cannot write %s: %s; the next run will hash the source's files again", path, error.strerror)


def _cache_folder(options: IngestOptions) -> Path:
    """Return the folder of stores."""
    from crystens.processes.cache_folder import cache_folder

    return Path(options.cache).expanduser() if options.cache is not None else cache_folder()
