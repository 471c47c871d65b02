"""Broken inputs for every reader, and properties that must always hold; see README.md.

python experiments/fuzz/run.py OUT [--seconds 60] [--seed 0] [--formats cif poscar ...] [--data DIR]

A grammar writes nearly valid inputs with wrong numbers, words and sizes. Other inputs are files of the grammar and real
files whose bytes are flipped, cut, doubled and spliced. Input k of a format depends only on the seed, k and the files
in DIR. Inputs are read in a pool of processes, under limits of time and memory.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import logging
import random
import re
import tarfile
import tempfile
import time
import warnings
from collections import Counter, deque
from concurrent.futures import Future, TimeoutError
from pathlib import Path
from typing import Any

import numpy as np
import pebble
from grammar import FORMATS, broken_input

from crystens.batch import CrystalBatch
from crystens.errors import CrystensError
from crystens.ingest.kinds import KINDS, guess_kind
from crystens.ingest.store import to_rows
from crystens.ingest.workers import WORKER_MEMORY
from crystens.processes.pool import bound_memory
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Reject

LIMITS = (
    Limits(max_sites=52),
    Limits(),
    Limits(max_sites=52, cell="primitive", occupancy="majority", groups="heavy_atom"),
    Limits(max_sites=52, cell="niggli", site_order="given"),
    Limits(max_sites=255, cell="conventional", occupancy="majority", symprec=0.1),
)
SLOW = 5.0  # processor seconds for reading one input
WALL = 60.0  # wall-clock seconds for reading one input, on a busy machine
LONGEST_REASON = 500


def faults(kind: str, path: Path, limits: Limits) -> tuple[list[str], Counter[str]]:
    """Return the faults in reading a file, and the numbers of crystals and of rejects of each category.

    A `CrystensError` that rejects the whole file is no fault.
    """
    found: list[str] = []
    seen: Counter[str] = Counter()
    start = time.process_time()
    try:
        try:
            items = list(KINDS[kind](str(path)).read(limits))
        except CrystensError as error:
            seen["refused as a whole"] += 1
            items = []
            if not str(error).strip():
                found.append("error without a message")
        else:
            if not items and not _may_be_empty(kind):
                found.append("neither an entry nor a reject")
    except BaseException as error:  # panics of Rust libraries do not derive from Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        return [f"raised {type(error).__name__}: {error}"[:200]], seen
    try:
        guess_kind(str(path))
    except CrystensError:
        seen["kind not known"] += 1
    except Exception as error:
        found.append(f"guess_kind raised {type(error).__name__}: {error}"[:200])
    if (took := time.process_time() - start) > SLOW:
        found.append(f"slow: {took:.1f} s")
    for item in items:
        if isinstance(item, Entry):
            seen["crystal"] += 1
            found += _entry_faults(item, limits)
        elif isinstance(item, Reject):
            seen[item.category] += 1
            found += _reject_faults(item)
        else:
            found.append(f"result is {type(item).__name__}")
    return found, seen


def _may_be_empty(kind: str) -> bool:
    """Return whether a source of this kind may be empty without an error, such as a table without rows."""
    return kind in ("csv", "crystal_dictionary", "ase_db")


def _entry_faults(entry: Entry, limits: Limits) -> list[str]:
    """Return the faults of an entry; distances are measured by pymatgen."""
    crystal = entry.crystal
    found = [] if len(entry.entry) <= LONGEST_REASON else [f"name of {len(entry.entry)} letters"]
    if not (
        np.isfinite(crystal.coordinates).all() and (crystal.coordinates >= 0).all() and (crystal.coordinates < 1).all()
    ):
        found.append("coordinates outside of [0, 1)")
    if not (crystal.numbers.min() >= 1 and crystal.numbers.max() <= 118 and 1 <= crystal.space_group <= 230):
        found.append("numbers out of range")
    if not (np.isfinite(crystal.lengths).all() and crystal.lengths.min() > 0 and np.isfinite(crystal.angles).all()):
        found.append("cell out of range")
    if limits.max_sites is not None and len(crystal) > limits.max_sites:
        found.append("more than max_sites")
    if len(crystal) <= 100:
        distances = crystal.to_structure().distance_matrix
        np.fill_diagonal(distances, np.inf)
        shortest = min(distances.min(), *crystal.lattice.get_lll_reduced_lattice().abc)
        # Standardisation symmetrises cells, which moves sites by up to symprec.
        if shortest < limits.min_distance - (1e-6 if limits.cell in ("given", "niggli") else 2 * limits.symprec):
            found.append(f"distance of {shortest:.3f}")
    try:
        to_rows([entry])
        CrystalBatch.from_crystals([crystal], max(len(crystal), 1)).crystal(0) if len(crystal) <= 255 else None
    except Exception as error:
        found.append(f"cannot be stored: {type(error).__name__}: {error}"[:200])
    return found


def _reject_faults(reject: Reject) -> list[str]:
    """Return the faults of a reject."""
    found = []
    if reject.category == "the reader failed":
        found.append(reject.reason[:200])
    if not reject.reason or not reject.reason.isprintable():
        found.append(f"reason is not one printable line: {reject.category[:60]!r}")
    if len(reject.reason) >= LONGEST_REASON or len(reject.category) > 120:
        found.append(f"reason is long: {reject.category[:60]!r}")
    if not reject.advice.isprintable() or not reject.advice:
        found.append("advice is not one printable line")
    if len(reject.entry) > LONGEST_REASON:
        found.append(f"name of {len(reject.entry)} letters")
    return found


# The campaign


def _read_one(name: str, content: bytes, limits: Limits) -> tuple[list[str], Counter[str], float]:
    """Return the result of `faults` for one input, and its time; runs in a worker."""
    kind, file, _ = FORMATS[name]
    if name in ("pymatgen", "records") and content[:1] != b"[" and len(content) % 3 == 0:
        file = "a.jsonl"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / (file + ".gz" if content[:2] == b"\x1f\x8b" and name in ("cif", "csv", "xyz") else file)
        path.write_bytes(content)
        start = time.process_time()
        found, seen = faults(kind, path, limits)
        return found, seen, time.process_time() - start


def _start_worker(name: str) -> None:
    """Limit the memory of a worker as in reading, and hide warnings of overflow."""
    if name == "pt":
        import torch  # noqa: F401  (imported before the time of an input is measured)
    bound_memory(WORKER_MEMORY)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)


def campaign(name: str, seconds: float, seed: int, real: tuple[bytes, ...], out: Path) -> dict[str, Any]:
    """Read inputs of one format for a given time, keep inputs with faults in `out`, and return counts."""
    kept: dict[str, str] = {}
    totals: Counter[str] = Counter()
    problems: Counter[str] = Counter()
    slowest, inputs = (0.0, -1), 0
    end = time.monotonic() + seconds
    waiting: deque[tuple[int, bytes, Future]] = deque()
    with pebble.ProcessPool(2, initializer=_start_worker, initargs=(name,)) as pool:

        def settle() -> None:
            nonlocal slowest
            k, content, future = waiting.popleft()
            try:
                found, seen, took = future.result()
            except TimeoutError:
                found, seen, took = ["takes too long"], Counter(), WALL
            except pebble.ProcessExpired as error:
                found, seen, took = [f"killed its process: {error.exitcode}"], Counter(), 0.0
            totals.update(seen)
            slowest = max(slowest, (round(took, 2), k))
            for fault in found:
                signature = re.sub(
                    r"\d+", "9", re.sub(r"(['\"]).*?\1", "'...'", fault) if "raised" in fault else fault
                )[:90]
                problems[signature] += 1
                if signature not in kept:
                    kept[signature] = f"{name}-{seed}-{k}"
                    (out / kept[signature]).write_bytes(content)

        for k in itertools.count():
            if time.monotonic() > end:
                break
            rng = random.Random(f"{seed} {name} {k}")
            content, limits = broken_input(rng, name, real), rng.choice(LIMITS)
            waiting.append((k, content, pool.schedule(_read_one, (name, content, limits), timeout=WALL)))
            inputs += 1
            if len(waiting) > 16:
                settle()
        while waiting:
            settle()
    return {
        "inputs": inputs,
        "crystals": totals.pop("crystal", 0),
        "set aside": sum(totals.values()),
        "reasons": len(totals),
        "slowest, s": slowest,
        "faults": {signature: [n, kept[signature]] for signature, n in problems.most_common()},
    }


def real_inputs(data: Path | None, name: str) -> tuple[bytes, ...]:
    """Return a few real files of a format from the folder of data."""
    found: list[bytes] = []
    if data is None:
        return ()
    if name in ("cif", "csv"):
        found += [path.read_bytes() for path in sorted((data / "bad_cifs").glob("*.cif"))]
        with tarfile.open(data / "mp_3dsc" / "cifs.tar.gz") as archive:
            members = itertools.islice((m for m in archive if m.isfile() and m.size < 20_000), 0, 2000, 50)
            found += [archive.extractfile(member).read() for member in members]  # type: ignore[union-attr]
    if name == "csv":
        for table in ("carbon_24", "perov_5"):
            with gzip.open(data / table / "val.csv.gz", "rb") as file:
                found.append(file.read(20_000))
    return tuple(found)


def main() -> None:
    """Run the campaign, and print its counts as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for inputs with faults")
    parser.add_argument("--seconds", type=float, default=60, help="for each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--data", type=Path, help="folder of shared data, for real files")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.formats:
        real = real_inputs(arguments.data, name)
        print(json.dumps({name: campaign(name, arguments.seconds, arguments.seed, real, arguments.out)}, indent=1))


if __name__ == "__main__":
    main()
