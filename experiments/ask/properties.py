"""Do samples follow requested properties, by a judge that did not train the model? See README.md.

python experiments/ask/properties.py CHECKPOINT DIR/mp_52 [--name NAME] [--targets T ...] [--factors W ...] [--number N]

The judge is CGCNN with its original weights; a crystal that it calls a metal has a band gap of 0.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

import crystens
from crystens.crystal import Crystal
from crystens.processes.progress_bars import ProgressBars
from crystens.properties.cgcnn import predict
from crystens.samples.references import drawn, read_real

_JUDGED = {"band_gap": "band_gap", "formation_energy_per_atom": "formation_energy"}  # names in mp_52


def main() -> None:
    """Print the judged property of samples for each target and factor, without conditions, and of real crystals."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("data")
    parser.add_argument("--name", choices=_JUDGED, default="band_gap")
    parser.add_argument("--targets", type=float, nargs="+", default=[0.0, 1.0, 3.0, 5.0])
    parser.add_argument("--factors", type=float, nargs="+", default=[1.0, 2.0], help="of classifier-free guidance")
    parser.add_argument("--number", type=int, default=64, help="samples for each")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    generator = crystens.load(options.checkpoint, device="cpu")
    real = [crystal for crystal in read_real("mp_52", options.data, "test")[0] if len(crystal) <= 20]
    _print("real test crystals", drawn(real, options.number, options.seed), options.name)
    _print("nothing asked", _samples(generator.sample(options.number, options.seed, "decoded")), options.name)
    for factor in options.factors:
        for target in options.targets:
            asked = {options.name: target}
            samples = generator.sample(options.number, options.seed, "decoded", guidance=factor, **asked)
            _print(f"{target:g}, factor {factor:g}", _samples(samples), options.name, target)


def _samples(decoded: Sequence[Any]) -> list[Crystal | None]:
    """Return the crystals of samples, None where decoding failed."""
    return [item.crystal for item in decoded]


def _print(what: str, crystals: Sequence[Crystal | None], name: str, target: float | None = None) -> None:
    """Print the distribution of a judged property."""
    values: list[float] = []
    with ProgressBars() as bars:
        for done, crystal in enumerate(crystals):
            bars("judging", done, len(crystals))
            if crystal is None:
                continue
            found = predict(crystal)
            value = found.values.get(_JUDGED[name])
            if value is None and name == "band_gap" and found.reason is None:
                value = 0.0
            if value is not None:
                values.append(value)
    row: dict[str, Any] = {"asked": what, "crystals": len(crystals), "judged": len(values)}
    if values:
        row["mean"] = round(float(np.mean(values)), 3)
        row["quartiles"] = np.percentile(values, [25, 50, 75]).round(3).tolist()
        if target is not None:
            row["mean absolute error"] = round(float(np.abs(np.array(values) - target).mean()), 3)
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
