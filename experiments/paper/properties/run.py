"""CGCNN's predictions for real and generated crystals, and a check of them against CHGNet; see README.md.

python experiments/paper/properties/run.py compare REAL [NAME=]GENERATED ... --out DIR [--split test] [--label REAL]
python experiments/paper/properties/run.py check SOURCE --elements FILE --out DIR [--number 300]
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pymatgen.core import Structure
from violins import agreement_plot, property_violins

from crystens.crystal import Crystal
from crystens.energies.energies import EnergyOptions, energies
from crystens.energies.potentials import CHGNet
from crystens.errors import CrystensError
from crystens.ingest.generated import read_generated
from crystens.properties.cgcnn import PROPERTIES, Properties, load_networks
from crystens.properties.crystal_graph import NoGraph, crystal_graph
from crystens.properties.properties import Predictions, PropertyOptions, distances, properties
from crystens.sources.reasons import category_counts
from crystens.sources.record import Entry, Reject

HOW = PropertyOptions(workers=0)  # in this process, whose time is measured


def crystals_of(samples: Sequence[Entry | Reject]) -> list[Crystal]:
    """Return the crystals among samples."""
    return [item.crystal for item in samples if isinstance(item, Entry)]


def predicted(samples: Sequence[Entry | Reject]) -> Predictions:
    """Return the predictions of all samples; one without a crystal has no value and its own reason."""
    known = iter(properties(crystals_of(samples), HOW).found)
    return Predictions(
        [Properties.without(item.reason) if isinstance(item, Reject) else next(known) for item in samples]
    )


def write_values(path: Path, sets: Mapping[str, tuple[Sequence[Entry | Reject], Predictions]]) -> None:
    """Write every value of every sample: one row each, an empty cell and a reason where there is no value."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["set", "file", "entry", "formula", *PROPERTIES, "reason"])
        for label, (samples, predictions) in sets.items():
            for place, item in enumerate(samples):
                found = predictions.found[place]
                formula = item.crystal.formula if isinstance(item, Entry) else ""
                cells = [f"{found.values[name]:.6g}" if name in found.values else "" for name in PROPERTIES]
                writer.writerow([label, item.file, item.entry, formula, *cells, found.reason or ""])


def summary(predictions: Predictions) -> dict[str, Any]:
    """Return quartiles and counts of each property."""
    told: dict[str, Any] = {"crystals": len(predictions), "filled up": sum(one.filled for one in predictions.found)}
    for name, entry in PROPERTIES.items():
        known = predictions.known(name)
        quartiles = np.percentile(known, (25, 50, 75)).round(4).tolist() if len(known) else None
        told[name] = {
            "unit": entry.unit,
            "count": len(known),
            "quartiles": quartiles,
            "without": predictions.categories(name),
        }
    return told


def statistics(real: Predictions, generated: Predictions) -> dict[str, float | None]:
    """Return the Kolmogorov-Smirnov statistic of each property; None where a side has no value."""
    return {name: distances(real, generated, name)[0] for name in PROPERTIES}


def stage_prices(crystals: list[Crystal]) -> dict[str, float]:
    """Return the milliseconds of the processor for a crystal, by stage; the networks are loaded already."""
    start = time.process_time()
    graphs = []
    for crystal in crystals:
        try:
            graphs.append(crystal_graph(crystal))
        except NoGraph:
            continue
    stages = {"graph": time.process_time() - start}
    networks = load_networks()
    start = time.process_time()
    for network in networks.values():
        for graph in graphs:
            network(graph)
    stages["eight networks"] = time.process_time() - start
    return {name: round(seconds / max(len(crystals), 1) * 1e3, 3) for name, seconds in stages.items()}


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Predict, draw and return the numbers."""
    clock = [time.process_time()]
    sets = {options.label: read_generated(options.real, split=options.split)}
    for given in options.generated:
        label, _, path = given.rpartition("=")
        sets[label or Path(path).name] = read_generated(path, split=options.generated_split)
    if len(sets) < 1 + len(options.generated):
        raise CrystensError("two sets have the same name; give NAME=PATH with a name for each")
    clock.append(time.process_time())
    predictions = {label: predicted(samples) for label, samples in sets.items()}
    clock.append(time.process_time())
    (options.out / f"{options.name}.png").write_bytes(property_violins(predictions, options.title))
    clock.append(time.process_time())
    pairs = zip(sets.values(), predictions.values(), strict=True)
    write_values(options.out / f"{options.name}.csv", dict(zip(sets, pairs, strict=True)))
    real, *generated = predictions.values()
    some = crystals_of(sets[options.label])[:300]
    stages = zip(("reading", "predicting", "drawing"), np.diff(clock).round(1).tolist(), strict=True)
    return {
        "ks": {
            label: {name: None if value is None else round(value, 4) for name, value in statistics(real, one).items()}
            for label, one in zip(list(sets)[1:], generated, strict=True)
        },
        "sets": {label: summary(one) for label, one in predictions.items()},
        "seconds of the processor": dict(stages),
        "milliseconds a real crystal": stage_prices(some),
        "sites of a real crystal": round(float(np.mean([len(crystal) for crystal in some])), 1),
    }


def check(options: argparse.Namespace) -> dict[str, Any]:
    """Compare formation energies with those that CHGNet's total energies give, and return the numbers."""
    samples = read_generated(options.source, split=options.split)
    crystals = crystals_of(samples)
    generator = np.random.default_rng(options.seed)
    chosen = generator.choice(len(crystals), min(options.number, len(crystals)), replace=False)
    crystals = [crystals[place] for place in sorted(chosen)]
    potential, how = CHGNet(), EnergyOptions(workers=0)
    references = element_energies(options.elements, potential, how)
    totals = energies(crystals, potential, how)
    pairs, reasons = [], []
    for crystal, energy, found in zip(crystals, totals, properties(crystals, HOW).found, strict=True):
        value, reason = found.values.get("formation_energy"), found.reasons.get("formation_energy")
        lacking = [number for number in crystal.numbers.tolist() if number not in references]
        reason = reason or energy.reason or (f"no reference of an element: Z = {lacking[0]}" if lacking else None)
        reasons.append(reason)
        if reason is None and energy.total is not None:
            apart = energy.total - sum(references[number] for number in crystal.numbers.tolist())
            pairs.append((apart / len(crystal), value))
    if not pairs:
        raise CrystensError(f"no crystal of {options.source} has both energies: {category_counts(reasons)}")
    chgnet, cgcnn = np.array(pairs).T
    difference = cgcnn - chgnet
    (options.out / f"{options.name}.png").write_bytes(agreement_plot(chgnet, cgcnn))
    return {
        "crystals": len(crystals),
        "compared": len(pairs),
        "without": category_counts(reasons),
        "median of CHGNet and of CGCNN (eV/atom)": [round(float(np.median(each)), 3) for each in (chgnet, cgcnn)],
        "mean absolute difference (eV/atom)": round(float(np.abs(difference).mean()), 4),
        "median absolute difference (eV/atom)": round(float(np.median(np.abs(difference))), 4),
        "mean difference, CGCNN - CHGNet (eV/atom)": round(float(difference.mean()), 4),
        "above 0.5 eV/atom": int((np.abs(difference) > 0.5).sum()),
        "correlation": round(float(np.corrcoef(chgnet, cgcnn)[0, 1]), 4),
    }


def element_energies(path: Path, potential: CHGNet, how: EnergyOptions) -> dict[int, float]:
    """Return the potential's own energy of each element's ground state, eV/atom, by atomic number.

    Args:
        path: a JSON file, plain or gzipped: for each element `structure`, a list of pymatgen structures, the lowest of
            which counts.
        potential: what gives the energies.
        how: how they are computed.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        table = json.load(file)
    crystals = [
        Crystal.from_structure(Structure.from_dict(structure), space_group=1)
        for entry in table.values()
        for structure in entry["structure"]
    ]
    lowest: dict[int, float] = {}
    for crystal, energy in zip(crystals, energies(crystals, potential, how), strict=True):
        number = int(crystal.numbers[0])
        if energy.total is not None:
            lowest[number] = min(lowest.get(number, np.inf), energy.total / len(crystal))
    return lowest


def main() -> int:
    """Run one of the two and write its numbers beside its picture."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    compared = commands.add_parser("compare", help="real against generated crystals")
    compared.add_argument("real", help="any source of crystals")
    compared.add_argument("generated", nargs="+", metavar="[NAME=]PATH", help="folders of sample.py, or any source")
    compared.add_argument("--split", help="of the real crystals, such as test")
    compared.add_argument("--generated-split", help="of the generated ones, if they are a data set")
    compared.add_argument("--label", default="real", help="name of the real crystals")
    compared.add_argument("--title", default="")
    compared.set_defaults(function=compare, name="properties")
    checked = commands.add_parser("check", help="formation energies against CHGNet's")
    checked.add_argument("source", help="any source of crystals")
    checked.add_argument("--split")
    checked.add_argument("--elements", type=Path, required=True, help="structures of the elements, see README.md")
    checked.add_argument("--number", type=int, default=300)
    checked.add_argument("--seed", type=int, default=0)
    checked.set_defaults(function=check, name="chgnet")
    for command in (compared, checked):
        command.add_argument("--out", type=Path, required=True)
        command.add_argument("--name", help="of the files that are written")
    options = parser.parse_args()
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        options.name = options.name or {"compare": "properties", "check": "chgnet"}[options.command]
        numbers = options.function(options)
    except CrystensError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    (options.out / f"{options.name}.json").write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(numbers, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
