"""Distances of real crystals above several hulls, side by side; see README.md.

python experiments/hull/run.py DATA [--number N] [--own-hull N] [--cache DIR] [--workers 1] [--out DIR]

DATA is the folder of mp_52. Energies are cached one by one, so a run that was stopped resumes at the same crystal.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from figure import hull_figure
from pymatgen.core import Element
from sklearn.metrics import roc_auc_score

from crystens.crystal import Crystal
from crystens.energies.energies import EnergyOptions, energies
from crystens.energies.formation_energies import COLUMN, FORMATION, formation_hull, read_formation_energies
from crystens.energies.hull import HullDistance, hull_distances
from crystens.energies.hull_entries import self_consistent
from crystens.energies.known_crystals import entries_of
from crystens.energies.potentials import CHGNet, Potential
from crystens.energies.references import competing
from crystens.energies.relaxation import Energy
from crystens.ingest.kinds import open_source
from crystens.processes.progress_bars import ProgressBars
from crystens.sun.rows import ROUNDING

_FILE = "e_above_hull"
_WITHIN = 0.1  # eV/atom
_COMMON = 20  # an element is listed if at least so many crystals have it
_WORST = 8  # elements that are listed


class Given(Potential):
    """Formation energies of a table."""

    identity = FORMATION
    scales = (FORMATION,)

    def calculator(self) -> Any:
        """Compute nothing."""
        raise NotImplementedError


def main() -> None:
    """Compute, print and draw."""
    options = _arguments()
    with ProgressBars() as bars:
        bars("reading", 0, None)
        table = read_formation_energies(options.data / "train.csv.gz")
        path = str(options.data / "test.csv.gz")
        test, _ = entries_of(open_source(path).keeping([COLUMN, _FILE]), path)
        crystals = [entry.crystal for entry in test]
        dft, file = (np.array([entry.properties[name] for entry in test]) for name in (COLUMN, _FILE))
        given = [Energy(float(value) * len(crystal)) for value, crystal in zip(dft, crystals, strict=True)]
        by_dft = hull_distances(crystals, given, Given(), formation_hull(table))
        drawn = np.sort(np.random.default_rng(options.seed).permutation(len(test))[: options.number or None])
        chosen, potential = [crystals[place] for place in drawn], CHGNet()
        how = EnergyOptions(workers=options.workers, cache=options.cache, time_limit=600)
        told = partial(bars, "energies of test")
        computed = energies(chosen, potential, how, lambda done: told(done, len(chosen)))
        bars("elements", 0, None)
        reference = formation_hull(table, potential, how, chosen)
        by_chgnet = hull_distances(chosen, computed, potential, reference)
        above = {
            "DFT, hull of train": _above(by_dft),
            "CHGNet, the same hull": _spread(_above(by_chgnet), drawn, len(test)),
        }
        if options.own_hull:
            few = np.random.default_rng(options.seed + 1).permutation(len(chosen))[: options.own_hull]
            some = [chosen[place] for place in few]
            train = competing(table.crystals, some)
            told = partial(bars, "energies of train")
            own = self_consistent(train, potential, how, "train", some, lambda done: told(done, len(train)))
            distances = _above(hull_distances(some, [computed[place] for place in few], potential, own))
            above["CHGNet, its own hull of train"] = _spread(distances, drawn[few], len(test))
    formation = np.array([np.nan if d.formation_energy is None else d.formation_energy for d in by_chgnet])
    dft_above = next(iter(above.values()))
    alone = sum(place.only_elements for place in by_dft)
    report = {
        "crystals": {"test": len(test), "with CHGNet": len(chosen), "train": len(table.entries)},
        "only elements compete": alone / len(test),
        "seconds of CHGNet": sum(energy.seconds for energy in computed),
        "against the file": {name: _against(values, file) for name, values in above.items()},
        "stable": {name: _stable(values, file) for name, values in {"the file": file, **above}.items()},
        "against DFT, hull of train": {name: _errors(values, dft_above) for name, values in list(above.items())[1:]},
        "formation energies, CHGNet less DFT": _elements(formation - dft[drawn], chosen),
        "decided as by DFT": {name: _agreement(dft_above, values) for name, values in list(above.items())[1:]},
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "hull.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "hull.png").write_bytes(hull_figure(above, file, _WITHIN))
    sys.stdout.write(_markdown(report))


def _above(places: list[HullDistance]) -> np.ndarray:
    """Return energies above hull, eV/atom, NaN where one is unknown."""
    return np.array([np.nan if place.above_hull is None else place.above_hull for place in places])


def _spread(values: np.ndarray, drawn: np.ndarray, total: int) -> np.ndarray:
    """Return the values of drawn crystals in an array of all crystals, NaN elsewhere."""
    spread = np.full(total, np.nan)
    spread[drawn] = values
    return spread


def _errors(values: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Return the errors of values, eV/atom, where both are known."""
    off = (values - truth)[~np.isnan(values - truth)]
    return {
        "count": len(off),
        "mean absolute": float(np.abs(off).mean()),
        "median absolute": float(np.median(np.abs(off))),
        "mean": float(off.mean()),
        "within 0.05": float((np.abs(off) <= 0.05).mean()),
    }


def _against(values: np.ndarray, file: np.ndarray) -> dict[str, float]:
    """Return errors of energies above hull against the file, which has no negative energies, and the ROC areas."""
    known = ~np.isnan(values)
    errors = _errors(np.maximum(values, 0), file)
    for name, good in ((f"within {_WITHIN:g}", file <= _WITHIN), ("on the hull", file <= ROUNDING)):
        errors[f"ROC area, {name}"] = float(roc_auc_score(good[known], -values[known]))
    return errors


def _stable(values: np.ndarray, file: np.ndarray) -> dict[str, float]:
    """Return the share that counts as stable, and the agreement with the file."""
    known = ~np.isnan(values)
    values, file = values[known], file[known]
    told: dict[str, float] = {"count": len(values)}
    for threshold in (0.0, _WITHIN):
        counted, right = values <= threshold + ROUNDING, file <= threshold + ROUNDING
        told[f"counted at {threshold:g}"] = float(counted.mean())
        told[f"right among counted at {threshold:g}"] = float(right[counted].mean())
        told[f"counted though the file has more than {threshold:g}"] = float(counted[~right].mean())
        told[f"found of those that the file has at {threshold:g}"] = float(counted[right].mean())
    return told


def _agreement(dft: np.ndarray, chgnet: np.ndarray) -> dict[str, float]:
    """Return how often DFT and CHGNet agree on one hull."""
    known = ~np.isnan(chgnet)
    return {
        f"at {threshold:g}": float(((dft <= threshold + ROUNDING) == (chgnet <= threshold + ROUNDING))[known].mean())
        for threshold in (0.0, _WITHIN)
    }


def _elements(off: np.ndarray, crystals: list[Crystal]) -> dict[str, Any]:
    """Return errors of formation energies, before and after fitting energies of elements to the table."""
    known = ~np.isnan(off)
    numbers = sorted({z for crystal in crystals for z in crystal.numbers.tolist()})
    shares = np.array([[float((crystal.numbers == z).mean()) for z in numbers] for crystal in crystals])[known]
    fitted, *_ = np.linalg.lstsq(shares, off[known], rcond=None)
    counts = (shares > 0).sum(axis=0)
    common = [place for place in range(len(numbers)) if counts[place] >= _COMMON]
    worst = sorted(common, key=lambda place: -abs(fitted[place]))[:_WORST]
    return {
        **_errors(off, np.zeros(len(off))),
        "mean absolute, elements fitted": float(np.abs(off[known] - shares @ fitted).mean()),
        "fitted, eV/atom": {Element.from_Z(numbers[p]).symbol: round(float(fitted[p]), 3) for p in worst},
    }


def _markdown(report: dict[str, Any]) -> str:
    """Return the tables for README.md."""
    lines = []
    for title in ("against the file", "stable"):
        rows = report[title]
        names = list(next(iter(rows.values())))
        lines += ["", f"| {title} | {' | '.join(rows)} |", "|---" * (len(rows) + 1) + "|"]
        for name in names:
            cells = (f"{row[name]:,}" if name == "count" else f"{row[name]:.3f}" for row in rows.values())
            lines.append(f"| {name} | {' | '.join(cells)} |")
    for title, told in report.items():
        if title not in ("against the file", "stable"):
            lines += ["", f"{title}: {json.dumps(told)}"]
    return "\n".join([*lines, ""])


def _arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="DATA", type=Path, help="folder of mp_52")
    parser.add_argument("--number", type=int, default=0, help="of test crystals that CHGNet judges; by default all")
    parser.add_argument("--seed", type=int, default=0, help="by which they are drawn; by default 0")
    own = "test crystals that are compared with CHGNet's own hull of train too; by default none"
    parser.add_argument("--own-hull", metavar="N", type=int, default=0, help=own)
    parser.add_argument("--cache", metavar="DIR", help="folder of known energies; by default in ~/.cache/crystens")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread; by default 1")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="by default this folder")
    return parser.parse_args()


if __name__ == "__main__":
    main()
