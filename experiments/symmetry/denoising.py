"""How far are the places and cells of denoised real crystals off? See README.md.

python experiments/symmetry/denoising.py CHECKPOINT DIR/mp_52 [--number N] [--split SPLIT] [--no-forces]

The network is told the numbers of elements and sites, and reads its own first estimate of the same noisy image, as in
sampling. Places are of sites whose Wyckoff position leaves them free.
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from typing import Any

import torch
from torch import Tensor

import crystens
from crystens.batch import cell_vectors
from crystens.encoding import present_cells
from crystens.errors import CrystensError
from crystens.models.noising import MIDDLE, WIDTH, cell_scales, count_sites
from crystens.networks.facts import counted
from crystens.networks.told import Told
from crystens.samples.references import drawn, read_real

_SIGMAS = (0.03, 0.06, 0.12, 0.25, 0.4, 0.6, 0.9)
_CHUNK = 256


def main() -> None:
    """Print a line for each level of noise."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("data")
    parser.add_argument("--number", type=int, default=600, help="crystals of at least 3 orbits, drawn by seed 0")
    parser.add_argument("--split", choices=("train", "val", "test"), default="test")
    parser.add_argument("--no-forces", action="store_true", help="what the network gives without its forces")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    generator = crystens.load(options.checkpoint, device="cpu")
    model: Any = generator.model
    network = model.average_network
    network.repulsion = 0.0
    if options.no_forces:
        network.forces = None
    crystals = drawn(read_real("mp_52", options.data, options.split)[0], 3 * options.number, 0)
    found = []
    for crystal in crystals:
        try:
            found.append(generator.encode(crystal))
        except CrystensError:  # larger than this model's crystals
            continue
    images = torch.cat(found)
    counts = count_sites(images)
    images, counts = images[counts >= 3][: options.number], counts[counts >= 3][: options.number]
    for sigma in _SIGMAS:
        noise = torch.Generator().manual_seed(1)
        parts = [
            _errors(model, images[start : start + _CHUNK], counts[start : start + _CHUNK], sigma, noise)
            for start in range(0, len(images), _CHUNK)
        ]
        places, lengths = (torch.cat(part) for part in zip(*parts, strict=True))
        row = {
            "sigma": sigma,
            "crystals": len(images),
            "places, angstrom": {
                "root mean square": round(float(places.square().mean().sqrt()), 4),
                "median": round(float(places.median()), 4),
                "90th percentile": round(float(places.quantile(0.9)), 3),
            },
            "lengths, %": round(100 * float(lengths.mean()), 2),
        }
        print(json.dumps(row), flush=True)


@torch.no_grad()
def _errors(model: Any, images: Tensor, counts: Tensor, sigma: float, noise: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return how far free sites are off, (K,) angstrom, and lengths of cells, (B, 3), as shares of them."""
    network = model.average_network
    clean = (images - MIDDLE) / WIDTH
    mask = present_cells(counts, model.image_side, rows=model.rows)[:, None]
    scales = cell_scales(model.image_side, model.scales, images.device)
    noisy = clean * mask * scales + sigma * torch.randn(clean.shape, generator=noise) * mask
    given = noisy / (scales.square() + sigma**2).sqrt()
    facts = counted(network.codes.stated(clean, counts), counts, model.facts.counted)
    told = torch.full((len(images), len(model.facts.names)), torch.nan)
    for place, name in enumerate(model.facts.counted):
        told[:, place] = facts[name]
    level = torch.full((len(images),), math.log(sigma))
    estimate = network(given, level, counts, None, Told(facts=told)) * mask
    estimate = network(given, level, counts, estimate, Told(facts=told)) * mask
    cells, places, orbits = network.read(clean, counts)
    of_estimate, estimated, _ = network.read(estimate, counts)
    free = orbits.representatives()[0].abs().sum(dim=(2, 3)) > 0
    steps = estimated - places
    steps = (steps - steps.round()) @ cell_vectors(cells[:, :3], cells[:, 3:])
    lengths = (of_estimate[:, :3] / cells[:, :3] - 1).abs()
    return steps.norm(dim=2)[free & orbits.present], lengths


if __name__ == "__main__":
    main()
