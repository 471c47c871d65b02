"""Match rate of decode(encode(crystal)) over whole data sets; see README.md.

python experiments/round_trip/run.py DIR/mp_3dsc --out results.csv
"""

from __future__ import annotations

import argparse
import csv
import logging
import multiprocessing
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from pymatgen.analysis.structure_matcher import StructureMatcher
from rich.progress import track

from crystens.batch import CrystalBatch
from crystens.crystal import Crystal
from crystens.decoding import DecodedCrystal, Decoder
from crystens.ingest.kinds import open_source
from crystens.scaling import Scaling
from crystens.sources.limits import Limits
from crystens.sources.record import Entry
from crystens.sources.source import read_all

DECODERS = {
    "auto": Decoder(),
    "paper, K auto": Decoder(periodic=False, merge_distance=0.01, merge_unlike=False, symmetrise=False),
    "paper, K = 3, 6": Decoder(3, 6, periodic=False, merge_distance=0.01, merge_unlike=False, symmetrise=False),
}
SCALINGS: dict[str, Callable[[CrystalBatch], Scaling]] = {"fitted": Scaling.fit, "paper": Scaling.paper}
CASES = [
    ("fitted", "auto", 0.0),
    ("paper", "auto", 0.0),
    ("paper", "paper, K auto", 0.0),
    ("paper", "paper, K = 3, 6", 0.0),
    ("fitted", "auto", 0.001),
    ("paper", "auto", 0.001),
    ("fitted", "auto", 0.003),
    ("fitted", "auto", 0.01),
    ("fitted", "paper, K = 3, 6", 0.01),
]
BINS = ((1, 4), (5, 10), (11, 20), (21, 52))  # sites
SEED = 0
CHUNK = 64


def _match(pair: tuple[Crystal, DecodedCrystal]) -> str:
    """Return "" if the decoded crystal matches the original by StructureMatcher (default tolerances), else a reason."""
    warnings.filterwarnings("ignore")
    original, decoded = pair
    if decoded.crystal is None:
        return "failed to decode"
    if decoded.num_sites != len(original):
        return "number of sites"
    if decoded.crystal.formula != original.formula:
        return "formula"
    if not StructureMatcher().fit(original.to_structure(), decoded.crystal.to_structure()):
        return "structure"
    return "" if decoded.crystal.space_group == original.space_group else "space group only"


def _pairs(
    batch: CrystalBatch, scaling: Scaling, decoder: Decoder, sigma: float
) -> Iterator[tuple[Crystal, DecodedCrystal]]:
    """Yield each crystal of a batch with the crystal decoded from its noisy image."""
    generator = torch.Generator().manual_seed(SEED)
    for start in range(0, len(batch), CHUNK):
        part = batch[start : start + CHUNK]
        images = scaling.encode(part)
        images = images + sigma * torch.randn(images.shape, generator=generator)
        for index, decoded in enumerate(decoder.decode(images, scaling)):
            yield part.crystal(index), decoded


def main() -> None:
    """Run all cases over a data set, and write one line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="folder, archive or table, or the word prototypes")
    parser.add_argument("--split", help="only this split of the source")
    parser.add_argument("--out", type=Path, required=True, help="CSV to append to")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--cases", type=int, nargs="*", default=range(len(CASES)), help="places in the list of cases")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.WARNING)

    entries, rejects = read_all(open_source(arguments.source), Limits(max_sites=52))
    crystals = [e.crystal for e in entries if isinstance(e, Entry) and arguments.split in (None, e.split)]
    batch = CrystalBatch.from_crystals(crystals, 52).in_canonical_order()
    name = Path(arguments.source).name + (f" {arguments.split}" if arguments.split else "")
    print(f"{name}: {len(batch)} crystals, {len(rejects)} set aside")

    with arguments.out.open("a", newline="") as file, multiprocessing.Pool(arguments.processes) as pool:
        writer = csv.writer(file)
        if file.tell() == 0:
            bins = [f"matched_{low}_{high}_sites" for low, high in BINS]
            writer.writerow(
                ["data", "scaling", "decode", "sigma", "crystals", "match_rate", *bins, "space_group_rate", "misses"]
            )
        for scaling_name, decoder_name, sigma in (CASES[i] for i in arguments.cases):
            pairs = _pairs(batch, SCALINGS[scaling_name](batch), DECODERS[decoder_name], sigma)
            title = f"{scaling_name} {decoder_name} {sigma}"
            results = list(track(pool.imap(_match, pairs, chunksize=16), title, total=len(batch)))
            matched = torch.tensor([why in ("", "space group only") for why in results]).double()
            rates = [f"{matched[(batch.counts >= low) & (batch.counts <= high)].mean():.4f}" for low, high in BINS]
            misses = {why: results.count(why) for why in sorted(set(results)) if why not in ("", "space group only")}
            groups = sum(why == "" for why in results) / len(results)
            row = [
                name,
                scaling_name,
                decoder_name,
                sigma,
                len(batch),
                f"{matched.mean():.4f}",
                *rates,
                f"{groups:.4f}",
                misses,
            ]
            writer.writerow(row)
            file.flush()
            print(*row)


if __name__ == "__main__":
    main()
