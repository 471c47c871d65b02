"""Match rate and statistics over K_atom and K_coord; see README.md.

python experiments/paper/clusters/run.py images DIR/mp_3dsc --max-sites 52 --crystals 200 --out SETS/mp_3dsc
python experiments/paper/clusters/run.py sweep SETS/mp_3dsc/0.01 --decode paper --out results.csv
python experiments/paper/clusters/run.py multirun SETS/mp_3dsc/0.01 MULTIRUN --results results.csv
python experiments/paper/clusters/run.py picture results.csv --data mp_3dsc --out match_mp_3dsc.png
"""

from __future__ import annotations

import argparse
import csv
import itertools
import logging
import time
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from matplotlib.figure import Figure
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure
from rich.progress import track
from safetensors.torch import load_file, save_file
from scipy.stats import ks_2samp
from torch import Tensor

from crystens.batch import CrystalBatch
from crystens.clustering import Clusters
from crystens.crystal import Crystal
from crystens.data.datamodule import CrysTensDataModule
from crystens.decoding import DecodedCrystal, Decoder, ImageReading, element_probabilities, read_images
from crystens.encoding import image_side
from crystens.generator import Generator
from crystens.ingest.kinds import open_source
from crystens.metrics.crystal_table import OK, CrystalTable
from crystens.metrics.statistics import STATISTICS, image_statistics
from crystens.metrics.validity import is_structurally_valid
from crystens.samples.folder import IMAGES, Samples, read_samples, sample_to_file
from crystens.scaling import Scaling

SIGMAS = (0.001, 0.003, 0.01)  # standard deviation of the noise, of the scaled range
SEED = 0
TRUTH = "truth.safetensors"

# Everything but K of decode=paper and decode=auto; and auto that knows how common each element is in the training data.
FAMILIES: dict[str, dict[str, Any]] = {
    "paper": {"periodic": False, "merge_distance": 0.01, "merge_unlike": False, "symmetrise": False},
    "auto": {},
    "elements": {},
}
KS: tuple[Clusters, ...] = (*range(1, 13), "auto")

# "strict": cell lengths within 2 %, angles within 1 degree, and no site further from its place than this, angstrom.
STRICT_LENGTH, STRICT_ANGLE, STRICT_PLACE = 0.02, 1.0, 0.1

SITE_BINS = ((1, 4), (5, 10), (11, 20), (21, 52))
ELEMENT_BINS = ((1, 1), (2, 2), (3, 3), (4, 4), (5, 99))
RATES = ("decoded", "sites", "elements", "formula", "match", "strict", "valid")


class NoisyCrystals:
    """Gives the images of crystals, in order, with Gaussian noise: a sampler whose truth is known."""

    def __init__(self, crystals: CrystalBatch, scaling: Scaling, sigma: float) -> None:
        self.image_side = image_side(scaling.max_sites)
        self.images = scaling.encode(crystals)
        self.sigma = sigma

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return the first n images; all are asked for at once."""
        return self.images[:n] + self.sigma * torch.randn(self.images[:n].shape, generator=generator)


def make_images(source: str, max_sites: int, crystals: int | None, out: Path) -> None:
    """Write OUT/SIGMA/images.safetensors and truth.safetensors for each sigma, from the test split of a source."""
    data = CrysTensDataModule(open_source(source), max_sites, Scaling.fit)
    test = data.test_crystals
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(SEED))
    chosen = test[order[:crystals].sort().values]
    assert data.scaling is not None
    for sigma in SIGMAS:
        folder = out / f"{sigma:g}"
        about = {
            "model": f"{source} test split with noise {sigma:g}",
            "trained": "nothing",
            "training_seed": SEED,
            "data": source,
        }
        noisy = NoisyCrystals(chosen, data.scaling, sigma)
        generator = Generator(noisy, data.scaling, data.reference, data.distance, about=about)
        sample_to_file(generator, folder, len(chosen), len(chosen), SEED)
        save_file({name: tensor.contiguous() for name, tensor in chosen.tensors().items()}, folder / TRUTH)
        print(f"{folder}: {len(chosen)} images")


def sweep(folder: Path, family: str, ks: Sequence[Clusters], out: Path) -> None:
    """Decode the images of a folder at each (K_atom, K_coord) and append one line for each to a CSV."""
    samples = read_samples(folder / IMAGES)
    truth = _truth(folder)
    settings = FAMILIES[family]
    started = time.process_time()
    periodic = settings.get("periodic", True)
    chunks = [read_images(part, samples.scaling, periodic) for part in samples.images.split(64)]
    _append(out.with_name(f"{out.stem}_statistics.csv"), [{"set": _name(folder), **_statistics(samples)}])
    reading = time.process_time() - started
    judge = Judge(truth)
    elements = element_probabilities(samples.reference.values["Z"]) if family == "elements" else None
    points = list(itertools.product(ks, ks))
    for atom, coordinate in track(points, f"{_name(folder)} {family}"):
        decoder = Decoder(atom, coordinate, **settings)
        before = time.process_time()
        decoded = [item for chunk in chunks for item in decoder.decode_reading(chunk, elements)]
        between = time.process_time()
        row: dict[str, Any] = {"data": folder.parent.name, "set": folder.name, "decode": family}
        row |= {"atom_clusters": atom, "coordinate_clusters": coordinate}
        row |= judge.rates(decoded)
        row |= _without_truth(decoded, chunks, samples)
        row |= {"decode_s": between - before, "judge_s": time.process_time() - between}
        _append(out, [row])
    spent = time.process_time() - started
    print(f"{_name(folder)} {family}: {len(points)} points in {spent:.0f} CPU s, reading the images {reading:.1f}")


class Judge:
    """Compares decoded crystals with true ones; what was compared before is remembered.

    Args:
        truth: the true crystals, one for each image; None where there is none.
    """

    def __init__(self, truth: CrystalBatch | None) -> None:
        self.truth = None if truth is None else [truth.crystal(index) for index in range(len(truth))]
        self.structures = [] if self.truth is None else [crystal.to_structure() for crystal in self.truth]
        self.matcher = StructureMatcher()
        self.known: dict[tuple[int, bytes], tuple[bool, ...]] = {}

    def rates(self, decoded: Sequence[DecodedCrystal]) -> dict[str, Any]:
        """Return the share of each of the `RATES`, over all crystals, and of matches by size and elements."""
        found = np.array([self._judged(index, item.crystal) for index, item in enumerate(decoded)], dtype=float)
        row: dict[str, Any] = {"crystals": len(decoded)}
        row |= {name: column.mean() for name, column in zip(RATES, found.T, strict=True)}
        if self.truth is None:
            return row | dict.fromkeys(("sites", "elements", "formula", "match", "strict"))
        match = found[:, RATES.index("match")]
        sizes = np.array([len(crystal) for crystal in self.truth])
        kinds = np.array([len(set(crystal.numbers)) for crystal in self.truth])
        for name, values, bins in (("sites", sizes, SITE_BINS), ("elements", kinds, ELEMENT_BINS)):
            for low, high in bins:
                inside = (values >= low) & (values <= high)
                row[f"match_{name}_{low}_{high}"] = match[inside].mean() if inside.any() else None
                row[f"count_{name}_{low}_{high}"] = int(inside.sum())
        return row

    def _judged(self, index: int, crystal: Crystal | None) -> tuple[bool, ...]:
        """Return which of the `RATES` a decoded crystal counts for."""
        if crystal is None:
            return (False,) * len(RATES)
        parts = (crystal.lengths, crystal.angles, crystal.numbers, crystal.coordinates)
        key = (index, b"".join(part.tobytes() for part in parts))
        if key not in self.known:
            self.known[key] = self._compared(index, crystal)
        return self.known[key]

    def _compared(self, index: int, crystal: Crystal) -> tuple[bool, ...]:
        valid = is_structurally_valid(crystal)
        if self.truth is None:
            return (True, False, False, False, False, False, valid)
        true = self.truth[index]
        sites = len(crystal) == len(true)
        elements = set(crystal.numbers) == set(true.numbers)
        formula = crystal.formula == true.formula
        # A match needs the formula; to ask the matcher for it costs more.
        match = formula and matches(self.matcher, self.structures[index], crystal.to_structure())
        strict = match and sites and bool((crystal.numbers == true.numbers).all()) and _is_near(crystal, true)
        return (True, sites, elements, formula, match, strict, valid)


def matches(matcher: StructureMatcher, true: Structure, decoded: Structure) -> bool:
    """Return whether pymatgen calls two structures the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bool(matcher.fit(true, decoded))


def _is_near(crystal: Crystal, true: Crystal) -> bool:
    """Return whether cell and sites, in the order given, are within the strict bounds; the origin may have moved."""
    if (np.abs(crystal.lengths / true.lengths - 1) > STRICT_LENGTH).any():
        return False
    if (np.abs(crystal.angles - true.angles) > STRICT_ANGLE).any():
        return False
    steps = crystal.coordinates - true.coordinates
    steps -= np.rint(steps)
    steps -= steps.mean(axis=0)
    return bool(np.linalg.norm(steps @ true.lattice.matrix, axis=1).max() <= STRICT_PLACE)


def _without_truth(
    decoded: Sequence[DecodedCrystal], chunks: Iterable[ImageReading], samples: Samples
) -> dict[str, Any]:
    """Return what can be said without the true crystals.

    "moved" is how far decoding takes a coordinate from the mean of its votes, shortest way, fractional: mean over axes,
    sites and the crystals of which no site was merged.
    """
    votes = [row.numpy() for chunk in chunks for row in chunk.coordinates]
    moved = []
    for item, places in zip(decoded, votes, strict=True):
        if item.crystal is not None and item.merged_sites == 0:
            steps = item.crystal.coordinates - places[: len(item.crystal)]
            moved.append(np.abs(steps - np.rint(steps)).mean())
    crystals = [item.crystal for item in decoded if item.crystal is not None]
    numbers = np.concatenate([np.zeros(0), *(crystal.numbers for crystal in crystals)])
    ks = ks_2samp(numbers, samples.reference.values["Z"], method="asymp").statistic if len(numbers) else None
    return {
        "whole": len(moved) / len(decoded),
        "merged_sites": float(np.mean([item.merged_sites for item in decoded])),
        "moved": float(np.mean(moved)) if moved else None,
        "unique_formulas": len({crystal.formula for crystal in crystals}) / len(decoded),
        "ks_Z": ks,
    }


def _statistics(samples: Samples) -> dict[str, float]:
    """Return the six statistics of the images, mean over them: they are measured before any clustering."""
    found = image_statistics(samples.images, samples.scaling, distance=samples.distance)
    return {name: float(found[name].nanmean()) for name in STATISTICS}


def check_multirun(folder: Path, multirun: Path, results: Path) -> None:
    """Compare the jobs of a `sample.py -m` over the images of a folder with the lines of a sweep over them."""
    with results.open(newline="") as file:
        lines = {
            (row["atom_clusters"], row["coordinate_clusters"]): row
            for row in csv.DictReader(file)
            if (row["data"], row["set"], row["decode"]) == (folder.parent.name, folder.name, "auto")
        }
    truth = _truth(folder)
    matcher = StructureMatcher()
    worst, jobs = 0.0, 0
    decided: dict[tuple[int, str], bool] = {}
    for job in track(sorted(path.parent for path in multirun.glob("*/crystals.csv"))):
        overrides = yaml.safe_load((job / "metrics.json").read_text())["provenance"]["value"]["decode"]
        line = lines[str(overrides["atom_clusters"]), str(overrides["coordinate_clusters"])]
        rows = CrystalTable(job / "crystals.csv").rows()
        decoded = sum(row["status"] == OK for row in rows)
        worst, jobs = max(worst, abs(decoded / len(rows) - float(line["decoded"]))), jobs + 1
        if truth is None:
            continue
        matched = 0
        for row in rows:
            true = truth.crystal(row["index"])
            if row["status"] != OK or row["formula"] != true.formula:
                continue
            text = (job / row["file"]).read_text()
            key = (row["index"], text)
            if key not in decided:
                decided[key] = matches(matcher, true.to_structure(), Structure.from_str(text, fmt="cif"))
            matched += decided[key]
        worst = max(worst, abs(matched / len(rows) - float(line["match"])))
    print(f"{jobs} jobs: rates differ from those of the sweep by at most {worst:.2g}")


def draw(results: Path, data: str, family: str, value: str, out: Path) -> None:
    """Draw a heat map of a rate over K_atom and K_coord for each noise; auto is the last of each axis."""
    with results.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row["data"], row["decode"]) == (data, family)]
    sets = sorted({row["set"] for row in rows})
    figure = Figure(figsize=(5.2 * len(sets), 5.0), layout="constrained")
    labels = [str(k) for k in KS]
    place = {label: index for index, label in enumerate(labels)}
    for axis, name in zip(figure.subplots(1, len(sets), squeeze=False).flat, sets, strict=True):
        grid = np.full((len(KS), len(KS)), np.nan)
        for row in rows:
            if row["set"] == name:
                grid[place[row["atom_clusters"]], place[row["coordinate_clusters"]]] = float(row[value])
        shown = axis.pcolormesh(grid, cmap="viridis", vmin=0, vmax=1, edgecolors="white", linewidth=0.3)
        for (y, x), rate in np.ndenumerate(grid):
            if np.isfinite(rate):
                dark = "white" if rate < 0.6 else "black"
                axis.text(x + 0.5, y + 0.5, f"{100 * rate:.0f}", ha="center", va="center", fontsize=7, color=dark)
        axis.axhline(len(KS) - 1, color="red", linewidth=1.5)
        axis.axvline(len(KS) - 1, color="red", linewidth=1.5)
        fixed = grid[:-1, :-1]
        y, x = np.unravel_index(np.nanargmax(fixed), fixed.shape)
        best = f"best fixed {100 * fixed[y, x]:.1f} at ({KS[y]}, {KS[x]})"
        others = f"(3, 6) {100 * grid[2, 5]:.1f}, auto {100 * grid[-1, -1]:.1f}"
        axis.set_title(f"noise {name}\n{best}, {others}", fontsize=10)
        axis.set_xticks(np.arange(len(KS)) + 0.5, labels)
        axis.set_yticks(np.arange(len(KS)) + 0.5, labels)
        axis.set_xlabel("K_coord")
        axis.set_ylabel("K_atom")
        axis.set_aspect("equal")
        figure.colorbar(shown, ax=axis, shrink=0.7, label=f"{value}, share of all crystals")
    count = rows[0]["crystals"]
    figure.suptitle(f"{data}, decode={family} but for K: {value} in percent of {count} crystals, failures included")
    figure.savefig(out, dpi=100)


def table(results: Path, data: str) -> None:
    """Print a line of Markdown for auto, for the paper's K and for the best fixed K, for each noise and family."""
    with results.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["data"] == data]
    by_size = [name for name in rows[0] if name.startswith("match_") and rows[0][name]]
    columns = [*RATES, *by_size]
    print("| noise | decode | K_atom, K_coord |", " | ".join(columns), "|")
    print("|---" * (3 + len(columns)) + "|")
    for name, family in itertools.product(sorted({row["set"] for row in rows}), FAMILIES):
        here = {
            (row["atom_clusters"], row["coordinate_clusters"]): row
            for row in rows
            if (row["set"], row["decode"]) == (name, family)
        }
        if not here:
            continue
        lines = [(("auto", "auto"), "")]
        if fixed := {key: row for key, row in here.items() if "auto" not in key}:
            best = max(fixed, key=lambda key: (float(fixed[key]["match"]), float(fixed[key]["strict"])))
            lines = [(("3", "6"), ""), (best, " (best fixed)"), *lines]
        for key, what in lines:
            cells = [f"{100 * float(here[key][column]):.1f}" if here[key][column] else "" for column in columns]
            print(f"| {name} | {family} | {', '.join(key)}{what} |", " | ".join(cells), "|")


def _truth(folder: Path) -> CrystalBatch | None:
    """Return the true crystals of a folder of images, if it has them."""
    return CrystalBatch(**load_file(folder / TRUTH)) if (folder / TRUTH).exists() else None


def _clusters(text: str) -> Clusters:
    """Return a K of the command line."""
    return "auto" if text == "auto" else int(text)


def _name(folder: Path) -> str:
    """Return the name of a set of images."""
    return f"{folder.parent.name} {folder.name}"


def _append(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Append rows to a CSV; make it with its header where it is not there."""
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        if file.tell() == 0:
            writer.writeheader()
        writer.writerows(
            {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()} for row in rows
        )


def main() -> None:
    """Run one of the commands at the top."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("images", help="write noisy images of the test split of a source")
    command.add_argument("source")
    command.add_argument("--max-sites", type=int, required=True)
    command.add_argument("--crystals", type=int, help="so many, chosen with seed 0; all if left out")
    command.add_argument("--out", type=Path, required=True)
    command = commands.add_parser("sweep", help="decode a folder of images at every K")
    command.add_argument("folder", type=Path)
    command.add_argument("--decode", choices=FAMILIES, default="paper", help="everything but K")
    command.add_argument("--clusters", nargs="*", default=KS, type=_clusters, help="every K: numbers and auto")
    command.add_argument("--out", type=Path, required=True, help="CSV to append to")
    command = commands.add_parser("multirun", help="compare a multirun of sample.py with a sweep")
    command.add_argument("folder", type=Path)
    command.add_argument("multirun", type=Path)
    command.add_argument("--results", type=Path, required=True)
    command = commands.add_parser("picture", help="draw a heat map and print the table")
    command.add_argument("results", type=Path)
    command.add_argument("--data", required=True)
    command.add_argument("--decode", choices=FAMILIES, default="paper")
    command.add_argument("--value", default="match")
    command.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.WARNING)
    if arguments.command == "images":
        make_images(arguments.source, arguments.max_sites, arguments.crystals, arguments.out)
    elif arguments.command == "sweep":
        sweep(arguments.folder, arguments.decode, arguments.clusters, arguments.out)
    elif arguments.command == "multirun":
        check_multirun(arguments.folder, arguments.multirun, arguments.results)
    else:
        draw(arguments.results, arguments.data, arguments.decode, arguments.value, arguments.out)
        table(arguments.results, arguments.data)


if __name__ == "__main__":
    main()
