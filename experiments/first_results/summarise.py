"""Tables, training curves and pictures of ten crystals from finished run folders; see README.md.

python experiments/first_results/summarise.py RUN [RUN ...] --out experiments/first_results
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections import defaultdict
from pathlib import Path

import matplotlib.image
import torch
from matplotlib.figure import Figure

from crystens.decoding import Decoder
from crystens.metrics.statistics import STATISTICS
from crystens.report.page import chosen_samples
from crystens.report.pictures import crystal_picture
from crystens.samples.folder import read_samples

ROWS = (
    "num_samples",
    "decoded_rate",
    "structural_validity",
    "structural_validity_after_merging",
    "unique_formula_rate",
    "novel_formula_rate",
    "mean_merged_sites",
    *STATISTICS,
    "ks_a",
    "ks_b",
    "ks_c",
    "ks_alpha",
    "ks_beta",
    "ks_gamma",
    "ks_space_group",
    "ks_generated_space_group",
    "ks_Z",
)


def _table(runs: list[Path]) -> str:
    """Return the metrics of runs side by side, in Markdown."""
    metrics = [json.loads((run / "samples" / "metrics.json").read_text()) for run in runs]
    lines = ["| metric | " + " | ".join(run.name for run in runs) + " |", "|---|" + "---|" * len(runs)]
    for name in ROWS:
        cells = []
        for entry in (found[name] for found in metrics):
            spread = f" ± {entry['standard_deviation']:.3g}" if entry.get("standard_deviation") is not None else ""
            cells.append(f"{entry['value']:.4g}{spread}" if entry["value"] is not None else "none")
        unit = metrics[0][name]["unit"]
        lines.append(f"| {name} ({unit}) | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _curves(run: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Return the epoch averages of the losses, and the metrics of samples during training, by epoch."""
    found: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for path in sorted(run.glob("csv/version_*/metrics.csv")):
        for row in csv.DictReader(path.open()):
            for name, text in row.items():
                if text and (
                    name.endswith("_loss_epoch") or name in ("val/mean_ks", "train/wasserstein_distance_epoch")
                ):
                    found[name][0].append(float(row["epoch"]))
                    found[name][1].append(float(text))
    return found


def _draw_curves(runs: list[Path], path: Path) -> None:
    """Draw the curves of each run, losses above and the distance to the training data below."""
    figure = Figure(figsize=(4.2 * len(runs), 6), layout="constrained")
    axes = figure.subplots(2, len(runs), squeeze=False)
    for column, run in enumerate(runs):
        for name, (epochs, values) in sorted(_curves(run).items()):
            place = axes[1 if name.startswith("val/") else 0, column]
            place.plot(epochs, values, label=name.removesuffix("_epoch"))
        axes[0, column].set_title(run.name)
        for place in axes[:, column]:
            place.set_xlabel("epoch")
            place.legend(fontsize=7)
        if "diffusion" in run.name:
            axes[0, column].set_yscale("log")
        axes[1, column].set_ylim(0, 1)
    figure.savefig(path, dpi=80)


def _draw_crystals(runs: list[Path], path: Path, seed: int) -> None:
    """Draw ten crystals of each run, chosen by the seed."""
    figure = Figure(figsize=(15, 2 * len(runs)), layout="constrained")
    axes = figure.subplots(len(runs), 10, squeeze=False)
    for line, run in zip(axes, runs, strict=True):
        samples = read_samples(run / "samples" / "images.safetensors")
        table = list(csv.DictReader((run / "samples" / "crystals.csv").open()))
        chosen = chosen_samples([{**row, "index": int(row["index"])} for row in table], seed)
        line[0].set_title(run.name, loc="left", fontsize=9)
        for place in line:
            place.axis("off")
        for place, index in zip(line, chosen, strict=False):
            (decoded,) = Decoder().decode(samples.images[index : index + 1], samples.scaling)
            if decoded.crystal is not None:
                place.imshow(matplotlib.image.imread(io.BytesIO(crystal_picture(decoded.crystal))))
                place.text(
                    0.5, -0.05, decoded.crystal.formula, transform=place.transAxes, ha="center", va="top", fontsize=7
                )
    figure.savefig(path, dpi=70)


def main() -> None:
    """Write table.md, curves.png and crystals.png."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run folders of train.py")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", default="results", help="beginning of the files' names")
    parser.add_argument("--seed", type=int, default=0, help="which crystals are drawn")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = _table(arguments.runs)
    (arguments.out / f"{arguments.name}_table.md").write_text(table)
    _draw_curves(arguments.runs, arguments.out / f"{arguments.name}_curves.png")
    _draw_crystals(arguments.runs, arguments.out / f"{arguments.name}_crystals.png", arguments.seed)
    print(table)


if __name__ == "__main__":
    main()
