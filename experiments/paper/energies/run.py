"""Formation energy and energy above hull of real and generated crystals (the paper's Figs. 8 and 12); see README.md.

python experiments/paper/energies/run.py DIR/mp_3dsc [--generated NAME=DIR_OF_CIFS ...] [--number N] [--relax STEPS]
    [--entries FILE --scale SCALE] [--check] [--out DIR]
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from figure import energy_figure, shares, values

from crystens.crystal import Crystal
from crystens.energies.energies import EnergyOptions, energies
from crystens.energies.entry_files import read_hull_reference
from crystens.energies.hull import HullDistance, hull_distances
from crystens.energies.hull_entries import HullReference, self_consistent
from crystens.energies.potentials import CHGNet
from crystens.energies.relaxation import Energy, Relaxation
from crystens.errors import CrystensError
from crystens.ingest.generated import read_generated
from crystens.ingest.kinds import open_source
from crystens.sources.limits import Limits
from crystens.sources.reasons import category_counts
from crystens.sources.record import Entry, Reject
from crystens.sources.source import read_all

_CHECKED = 20
_MAX_SITES = 255
_RELAXED = ("steps", "converged", "force", "displacement", "volume_change", "pressure_before", "pressure_after")


def main() -> None:
    """Judge, check, draw and write."""
    options = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    potential = CHGNet(options.weights)
    relaxation = Relaxation(steps=options.relax, force=options.force) if options.relax else None
    how = EnergyOptions(relaxation=relaxation, workers=options.workers, time_limit=options.time_limit)
    times: dict[str, float] = {}

    begun = time.perf_counter()
    entries = read_all(open_source(options.real), Limits(max_sites=_MAX_SITES))[0]
    train = [entry for entry in entries if entry.split in (None, "train")]
    held_out = [entry for entry in entries if entry.split == "test"]
    series: dict[str, Sequence[Entry | Reject]] = {
        f"{Path(options.real).name}, train": train,
        f"{Path(options.real).name}, test": held_out,
    }
    generated: dict[str, Sequence[Entry | Reject]] = {}
    for given in options.generated:
        name, _, path = given.rpartition("=")
        generated[name or Path(path).name] = read_generated(path)
    times["reading"] = time.perf_counter() - begun

    begun = time.perf_counter()
    crystals = [entry.crystal for entry in train]
    if options.entries:
        reference = read_hull_reference(options.entries, options.scale)
    else:
        name = f"{len(crystals)} training structures of {Path(options.real).name} and elements, by {potential.identity}"
        # As they stand: they come relaxed by density functional theory, and a minute each is too long.
        compared = [
            item.crystal for items in [held_out, *generated.values()] for item in items if isinstance(item, Entry)
        ]
        reference = self_consistent(
            crystals, potential, replace(how, relaxation=None), name, compared, _told("reference")
        )
    times["reference"] = time.perf_counter() - begun

    report: dict[str, Any] = {"potential": potential.identity, "reference": reference.name}
    report["reference entries"] = len(reference.entries)
    report["reference elements"] = len(reference.elements)
    report["elements, eV/atom"] = {
        symbol: [round(entry.per_atom, 3), entry.label] for symbol, entry in sorted(reference.elements.items())
    }
    report["reference left out"] = reference.left_out
    found: dict[str, list[HullDistance]] = {}
    rows: list[dict[str, Any]] = []
    for name, chosen in {**series, **generated}.items():
        if options.number:
            drawn = np.random.default_rng(0).permutation(len(chosen))[: options.number]
            chosen = [chosen[place] for place in sorted(drawn)]
        if not chosen:
            continue
        begun = time.perf_counter()
        found[name], computed = _judged(chosen, potential, reference, how, name)
        times[name] = time.perf_counter() - begun
        rows += _rows(name, chosen, computed, found[name])
        report[name] = _summary(found[name], computed)
    if options.check:
        report["checks"] = {
            "against the package's calculator": _check_energies(crystals, potential),
            "against PhaseDiagram by hand": _check_hull(held_out or train, potential, reference, how),
        }
    report["seconds"] = {name: round(value, 1) for name, value in times.items()}

    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{options.name}.png").write_bytes(energy_figure(found, reference.name, options.title))
    (options.out / f"{options.name}.json").write_text(json.dumps(report, indent=1) + "\n")
    with (options.table or options.out / f"{options.name}.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    sys.stdout.write(json.dumps(report, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("real", help="source of real crystals; its training split makes the hull")
    parser.add_argument(
        "--generated", action="append", default=[], metavar="NAME=PATH", help="samples, or any source of crystals"
    )
    parser.add_argument("--number", type=int, default=0, help="how many of each series are judged, by seed; 0: all")
    parser.add_argument("--relax", type=int, default=0, metavar="STEPS", help="relax what is judged, not the hull")
    parser.add_argument("--force", type=float, default=0.1, help="force at which a relaxation ends, eV/angstrom")
    parser.add_argument("--entries", help="file of entries that makes the hull instead")
    parser.add_argument("--scale", default="MP2020", help="scale of the energies in that file")
    parser.add_argument("--weights", default="0.3.0", help="weights of CHGNet")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--time-limit", type=float, default=120.0, help="seconds for one crystal")
    parser.add_argument("--check", action="store_true", help="also compare with the package and with pymatgen by hand")
    parser.add_argument("--title", default="", help="stands above the picture, such as what the models are")
    parser.add_argument("--name", default="energies", help="name of the files that are written")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--table", type=Path, help="where the table of all values goes, if not beside the rest")
    return parser.parse_args()


def _judged(
    chosen: Sequence[Entry | Reject], potential: CHGNet, reference: HullReference, how: EnergyOptions, name: str
) -> tuple[list[HullDistance], list[Energy]]:
    """Return where crystals stand; what could not be read as one is unknown, with its reason."""
    there = [item.crystal for item in chosen if isinstance(item, Entry)]
    computed = iter(energies(there, potential, how, _told(name)))
    known = [next(computed) if isinstance(item, Entry) else Energy(None, item.reason) for item in chosen]
    judged = [energy for item, energy in zip(chosen, known, strict=True) if isinstance(item, Entry)]
    places = iter(hull_distances(there, judged, potential, reference))
    found = [
        next(places) if isinstance(item, Entry) else HullDistance(None, None, f"not a crystal: {item.reason}")
        for item in chosen
    ]
    return found, known


def _summary(found: Sequence[HullDistance], computed: Sequence[Energy]) -> dict[str, Any]:
    """Return the numbers of one series."""
    above, formation = values(found, "above_hull"), values(found, "formation_energy")
    relaxed = [energy.relaxed for energy in computed if energy.relaxed is not None]
    told: dict[str, Any] = {"crystals": len(found), "unknown": category_counts(item.reason for item in found)}
    told["no energy"] = category_counts(energy.reason for energy in computed)
    told["shares of all"] = {name: round(value, 4) for name, value in shares(found).items()}
    told["reference entries behind a value, median"] = float(np.median([item.num_entries for item in found]))
    for name, known in (("above hull", above), ("formation energy", formation)):
        told[f"{name}, quantiles 0 5 25 50 75 95 100 %"] = (
            np.round(np.quantile(known, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1]), 3).tolist() if len(known) else None
        )
    told["milliseconds a crystal when computed"] = round(1000 * float(np.mean([e.seconds for e in computed])), 1)
    if relaxed:
        seconds = sum(energy.seconds for energy in computed if energy.relaxed is not None)
        gains = [
            (e.relaxed.energy_before - e.total) / len(e.relaxed.crystal)
            for e in computed
            if e.relaxed is not None and e.total is not None
        ]
        told["relaxation"] = {
            "relaxed": len(relaxed),
            "at rest": sum(item.converged for item in relaxed),
            "steps, mean": round(float(np.mean([item.steps for item in relaxed])), 1),
            "milliseconds a step": round(1000 * seconds / sum(item.steps + 1 for item in relaxed), 1),
            "energy gained, median and largest (eV/atom)": _spread(gains),
            "displacement, median and largest (A)": _spread([item.displacement for item in relaxed]),
            "volume change, median and largest": _spread([abs(item.volume_change) for item in relaxed]),
            "pressure before, median and largest (GPa)": _spread([abs(item.pressure_before) for item in relaxed]),
            "pressure after, median and largest (GPa)": _spread([abs(item.pressure_after) for item in relaxed]),
        }
    return told


def _spread(numbers: Sequence[float]) -> list[float]:
    """Return median and maximum."""
    return [round(float(np.median(numbers)), 4), round(float(np.max(numbers)), 4)]


def _rows(
    name: str, chosen: Sequence[Entry | Reject], computed: Sequence[Energy], found: Sequence[HullDistance]
) -> list[dict[str, Any]]:
    """Return one row a crystal."""
    rows = []
    for item, energy, place in zip(chosen, computed, found, strict=True):
        crystal = item.crystal if isinstance(item, Entry) else None
        row: dict[str, Any] = {"series": name, "entry": f"{item.file} {item.entry}" if isinstance(item, Entry) else ""}
        row |= {"formula": crystal and crystal.formula, "num_sites": crystal and len(crystal), "energy": energy.total}
        row |= {key: getattr(place, key) for key in ("formation_energy", "above_hull", "num_entries", "num_compounds")}
        row["decomposition"] = " ".join(f"{share:.4f} {formula}" for formula, share in place.decomposition)
        row |= {"reason": place.reason, "seconds": round(energy.seconds, 3)}
        for key in (
            "steps",
            "converged",
            "force",
            "displacement",
            "volume_change",
            "pressure_before",
            "pressure_after",
        ):
            row[key] = None if energy.relaxed is None else getattr(energy.relaxed, key)
        rows.append(row)
    return rows


def _check_energies(crystals: Sequence[Crystal], potential: CHGNet) -> dict[str, Any]:
    """Return how far our energies are from those of the package's own calculator, for crystals chosen by seed."""
    import contextlib
    import io

    from chgnet.model.dynamics import CHGNetCalculator
    from pymatgen.io.ase import AseAtomsAdaptor

    rows = np.random.default_rng(0).choice(len(crystals), min(_CHECKED, len(crystals)), replace=False)
    chosen = [crystals[row] for row in rows]
    ours = energies(chosen, potential)
    with contextlib.redirect_stdout(io.StringIO()):
        calculator = CHGNetCalculator(use_device="cpu")
    per_atom, total = [], []
    for crystal, energy in zip(chosen, ours, strict=True):
        atoms = AseAtomsAdaptor.get_atoms(crystal.to_structure())
        atoms.calc = calculator
        theirs = float(atoms.get_potential_energy())
        if energy.total is not None:
            total.append(abs(energy.total - theirs))
            per_atom.append(abs(energy.total - theirs) / len(crystal))
    return {
        "crystals": len(total),
        "largest difference, eV/atom": max(per_atom),
        "largest difference, eV a cell": max(total),
        "largest energy of a cell, eV": max(abs(energy.total or 0) for energy in ours),
    }


def _check_hull(
    chosen: Sequence[Entry], potential: CHGNet, reference: HullReference, how: EnergyOptions
) -> dict[str, Any]:
    """Return how far our distances are from PhaseDiagram called by hand with every entry of the reference."""
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram

    rows = np.random.default_rng(1).choice(len(chosen), min(_CHECKED, len(chosen)), replace=False)
    crystals = [chosen[row].crystal for row in rows]
    computed = energies(crystals, potential, how)
    ours = hull_distances(crystals, computed, potential, reference)
    differences, formation, spread = [], [], []
    for crystal, energy, place in zip(crystals, computed, ours, strict=True):
        if place.above_hull is None or place.formation_energy is None or energy.total is None:
            continue
        composition = crystal.to_structure().composition
        within = [PDEntry(e.composition, e.energy) for e in reference.entries if set(e.composition) <= set(composition)]
        diagram, own = PhaseDiagram(within), PDEntry(composition, energy.total)
        above = diagram.get_decomp_and_e_above_hull(own, allow_negative=True, check_stable=False)[1]
        formed = diagram.get_form_energy_per_atom(own)
        if above is None or formed is None:
            raise RuntimeError(f"PhaseDiagram has no distance for {composition}")
        differences.append(abs(above - place.above_hull))
        formation.append(abs(formed - place.formation_energy))
        spread.append(place.above_hull)
    return {
        "crystals": len(differences),
        "largest difference above hull, eV/atom": max(differences),
        "largest difference of formation energies, eV/atom": max(formation),
        "distances from and to, eV/atom": [min(spread), max(spread)],
    }


def _told(name: str) -> Any:
    """Return a function that logs progress now and then."""
    last = [time.monotonic()]

    def tell(count: int) -> None:
        if time.monotonic() > last[0] + 15:
            last[0] = time.monotonic()
            logging.info("%s: %d done", name, count)

    return tell


if __name__ == "__main__":
    try:
        main()
    except CrystensError as error:
        sys.exit(f"error: {error}")
