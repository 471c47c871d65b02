"""Speed of encoding and decoding, in microseconds a crystal; see README.md.

python experiments/speed/run.py DIR/mp_3dsc
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch

from crystens.batch import CrystalBatch
from crystens.cif.write import write_cif
from crystens.decoding import Decoder
from crystens.ingest.kinds import open_source
from crystens.scaling import Scaling
from crystens.sources.limits import Limits
from crystens.sources.record import Entry
from crystens.sources.source import read_all

PAPER = Decoder(3, 6, periodic=False, merge_distance=0.01, merge_unlike=False, symmetrise=False)


def _time(function: Callable[[], object], crystals: int, repeats: int) -> tuple[float, float]:
    """Return the best and the median time of a call, in microseconds a crystal."""
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

    steps = {
        "encode and scale": (lambda: scaling.encode(batch), 50),
        "decode=paper to CIF, noise 0.01": (lambda: to_cifs(PAPER), 5),
        "decode=auto to CIF, noise 0.01": (lambda: to_cifs(Decoder()), 3),
    }
    results = {
        name: dict(zip(("best", "median"), _time(step, len(batch), n), strict=True))
        for name, (step, n) in steps.items()
    }
    print(
        json.dumps(
            {
                "unit": "microseconds a crystal",
                "batch": len(batch),
                "mean_sites": float(batch.counts.float().mean()),
                **results,
            },
            indent=2,
        )
    )
    print(f"at rest: {batch.nbytes / len(batch):.0f} bytes a crystal; as an image: {clean[0].nbytes} bytes")


if __name__ == "__main__":
    main()
