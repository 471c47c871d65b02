"""Files of parsed chunks (parts): written atomically, and joined into a store at the end.

A part holds the crystals of a chunk as rows, and its rejects in the metadata of the schema. The same parts give the
same bytes when they are joined.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from crystens.ingest.duplicates import repeats_in
from crystens.ingest.store import CRYSTALS, REJECTED, SCHEMA, CrystalStore, to_rows, write_manifest
from crystens.processes.atomic_file import whole_file
from crystens.sources.record import Entry, Reject
from crystens.sources.rejects import write_rejected

_BLOCK_ROWS = 65_536  # rows of a block of the store: some 20 MB, in memory while parts are joined


def write_part(path: Path, items: Sequence[Entry | Reject], properties: Sequence[str] = ()) -> None:
    """Write the part of a chunk: crystals as rows with these properties, rejects in the metadata of the schema."""
    rows = to_rows([item for item in items if isinstance(item, Entry)], properties)
    rejects = [[r.file, r.entry, r.reason, r.advice] for r in items if isinstance(r, Reject)]
    left_out = [item.hydrogens_left_out for item in items if isinstance(item, Entry) and item.hydrogens_left_out]
    schema = rows.schema.with_metadata({"rejects": json.dumps(rejects), "hydrogens_left_out": json.dumps(left_out)})
    with whole_file(path) as beside, pa.OSFile(str(beside), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_batch(rows.replace_schema_metadata(schema.metadata))


def hydrogens_left_out(path: Path) -> list[int]:
    """Return the number of hydrogens left out of each crystal of a part that lacks some."""
    with pa.memory_map(str(path)) as file:
        return list(json.loads(pa.ipc.open_file(file).schema.metadata[b"hydrogens_left_out"]))


def is_whole(path: Path) -> bool:
    """Return whether a part is readable: after a power failure a renamed file may be empty."""
    try:
        read_part(path)
    except (OSError, pa.ArrowInvalid, ValueError, KeyError):
        return False
    return True


def read_part(path: Path) -> tuple[pa.RecordBatch, list[Reject]]:
    """Return the rows and the rejects of a part."""
    with pa.memory_map(str(path)) as file:
        reader = pa.ipc.open_file(file)
        rejects = [Reject(*row) for row in json.loads(reader.schema.metadata[b"rejects"])]
        return reader.get_batch(0).replace_schema_metadata(None), rejects


def join(
    parts: Path, out: Path, name: str, made_from: dict[str, Any], shard: tuple[int, int], workers: int | None
) -> None:
    """Join parts into a store.

    Args:
        parts: folder of the parts.
        out: folder of the store.
        name: name of the source, for messages.
        made_from: see `crystens.ingest.recipe`.
        shard: index of the shard and number of shards.
        workers: number of processes that search for duplicates, which are set aside; None keeps duplicates.
    """
    paths = sorted(parts.glob("*.arrow"))
    repeats = {}
    if workers is not None:
        repeats = repeats_in(CrystalStore([read_part(path)[0] for path in paths], Counter(), [], name), workers)
    counts: Counter[str] = Counter()

    def rejects() -> Iterator[Reject]:
        for path in paths:
            for reject in read_part(path)[1]:
                counts[reject.category] += 1
                yield reject
        for reject in repeats.values():
            counts[reject.category] += 1
            yield reject

    write_rejected(rejects(), out / REJECTED)
    total = row = 0
    schema = read_part(paths[0])[0].schema if paths else SCHEMA
    with pa.OSFile(str(out / CRYSTALS), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        waiting: list[pa.RecordBatch] = []
        for path in paths:
            rows = read_part(path)[0]
            kept = [k not in repeats for k in range(row, row + len(rows))]
            row += len(rows)
            waiting.append(rows if all(kept) else rows.filter(pa.array(kept)))
            if sum(map(len, waiting)) >= _BLOCK_ROWS:
                total += _write_block(writer, waiting)
                waiting = []
        total += _write_block(writer, waiting)
    left_out = [count for path in paths for count in hydrogens_left_out(path)]
    write_manifest(out, name, made_from, total, counts, shard, (len(left_out), sum(left_out)))


def _write_block(writer: pa.RecordBatchWriter, rows: Sequence[pa.RecordBatch]) -> int:
    """Write rows as one block, and return their number."""
    if not any(len(batch) for batch in rows):
        return 0
    block = pa.Table.from_batches(rows).combine_chunks().to_batches()
    for batch in block:
        writer.write_batch(batch)
    return sum(map(len, block))
