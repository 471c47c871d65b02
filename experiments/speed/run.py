"""Speed of encoding and decoding, in microseconds for a crystal; see README.md.

python experiments/speed/run.py DIR/mp_3dsc [--peer FOLDER]    # FOLDER: a clone of the paper's public repository
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from crystens.batch import CrystalBatch
from crystens.cif.write import write_cif
from crystens.decoding import Decoder
from crystens.ingest.kinds import open_source
from crystens.scaling import Scaling
from crystens.sources.limits import Limits
from crystens.sources.record import Entry
from crystens.sources.source import read_all
from crystens.symmetry.space_groups import SymmetryError, space_group_number

sys.path.append(str(Path(__file__).resolve().parent))
from peer import Peer

PAPER = Decoder(3, 6, periodic=False, merge_distance=0.01, merge_unlike=False, symmetrise=False)


def _time(function: Callable[[], object], crystals: int, repeats: int) -> tuple[float, float]:
    """Return the best and the median time of a call, in microseconds for a crystal."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append((time.perf_counter() - start) / crystals * 1e6)
    return min(times), statistics.median(times)


def main() -> None:
    """Time each step on one thread and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="folder, archive or table, or the word prototypes")
    parser.add_argument("--peer", metavar="FOLDER", type=Path, help="a clone of the paper's public repository")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    entries, _ = read_all(open_source(arguments.source), Limits(max_sites=52))
    crystals = [entry.crystal for entry in entries if isinstance(entry, Entry)]
    spread = crystals[:: max(len(crystals) // 256, 1)][:256]
    batch = CrystalBatch.from_crystals(spread, 52).in_canonical_order()
    scaling = Scaling.paper(batch)
    clean = scaling.encode(batch)
    noisy = clean + 0.01 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))

    def to_cifs(decoder: Decoder) -> list[str]:
        decoded = decoder.decode(noisy, scaling)
        return [write_cif(item.symmetry or item.crystal) for item in decoded if item.crystal is not None]

    found = [item.crystal for item in Decoder(symmetrise=False).decode(noisy, scaling) if item.crystal is not None]

    def search_groups() -> None:
        for crystal in found:
            with contextlib.suppress(SymmetryError):
                space_group_number(crystal.lengths, crystal.angles, crystal.numbers, crystal.coordinates, 0.1)

    steps: dict[str, tuple[Callable[[], object], int, int]] = {
        "encode and scale": (lambda: scaling.encode(batch), len(batch), 50),
        "limit of encoding: a copy of the images": (clean.clone, len(batch), 50),
        "decode=paper to CIF, noise 0.01": (lambda: to_cifs(PAPER), len(batch), 5),
        "decode=auto to CIF, noise 0.01": (lambda: to_cifs(Decoder()), len(batch), 3),
        "limit of decode=auto: one search for the space group": (search_groups, len(found), 3),
    }
    counts = {}
    if arguments.peer is not None:
        peer = Peer(arguments.peer)
        some = spread[::4]
        images = peer.encode(some)
        random = np.random.default_rng(0)
        theirs = [image + 0.01 * random.standard_normal(image.shape) for image in images]
        counts["CIFs that the peer made"] = f"{peer.to_cifs(theirs)} of {len(theirs)}"
        steps["peer: encode and scale"] = (lambda: peer.encode(some), len(some), 5)
        steps["peer: decode to CIF, noise 0.01"] = (lambda: peer.to_cifs(theirs), len(theirs), 2)
    results = {
        name: dict(zip(("best", "median"), _time(step, count, n), strict=True))
        for name, (step, count, n) in steps.items()
    }
    print(
        json.dumps(
            {
                "unit": "microseconds a crystal",
                "batch": len(batch),
                "mean_sites": float(batch.counts.float().mean()),
                **results,
                **counts,
            },
            indent=2,
        )
    )
    print(f"at rest: {batch.nbytes / len(batch):.0f} bytes a crystal; as an image: {clean[0].nbytes} bytes")


if __name__ == "__main__":
    main()
