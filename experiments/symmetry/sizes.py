"""Do crystals have the numbers of elements and sites that the network is told? See README.md.

python experiments/symmetry/sizes.py CHECKPOINT [--orbits N] [--number N]
"""

from __future__ import annotations

import argparse
import json
import warnings

import numpy as np
import torch

import crystens
from crystens.networks.told import Told

_TOLD = ((2, 8), (3, 8), (5, 8), (2, 14), (3, 14))  # elements, sites of the primitive cell


def main() -> None:
    """Print the numbers of the samples for each pair of asked numbers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--orbits", type=int, default=5, help="orbits of each sample")
    parser.add_argument("--number", type=int, default=48, help="samples for each pair")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    generator = crystens.load(options.checkpoint, device="cpu")
    model = generator.model
    facts = model.facts  # type: ignore[attr-defined]
    for elements, sites in _TOLD:
        told = torch.full((options.number, len(facts.names)), torch.nan)
        told[:, facts.names.index("num_elements")] = elements
        told[:, facts.names.index("num_sites")] = sites
        counts = torch.full((options.number,), options.orbits)
        images = model.sample(
            options.number,
            torch.Generator().manual_seed(0),
            counts=counts,
            told=Told(facts=told),  # type: ignore[call-arg]
        )
        drawn = [item.crystal for item in generator.decode(images)]
        found = np.array([(len(set(one.numbers.tolist())), len(one)) for one in drawn if one is not None])
        print(
            json.dumps(
                {
                    "told": {"elements": elements, "sites": sites},
                    "decoded": len(found),
                    "mean": dict(zip(("elements", "sites"), found.mean(axis=0).round(2).tolist(), strict=True)),
                    "as told": dict(
                        zip(
                            ("elements", "sites"),
                            ((found == (elements, sites)).sum(axis=0) / options.number).round(3).tolist(),
                            strict=True,
                        )
                    ),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
