"""Tables of finished runs of Quantum ESPRESSO: beside published lattices, beside CHGNet, or as Fig. 13; see README.md.

python experiments/paper/candidates/dft.py lattices FOLDER
python experiments/paper/candidates/dft.py judged FOLDER
python experiments/paper/candidates/dft.py figure FOLDER

FOLDER is one that `crystens.candidates select` wrote and `crystens.candidates parse` has read. A table is printed, and
written as JSON beside this file; `figure` adds a picture.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.image import imread
from pymatgen.core import Structure
from scipy.stats import spearmanr

from crystens.candidates.folder import read_candidates
from crystens.crystal import Crystal
from crystens.dft.engines import ESPRESSO
from crystens.dft.espresso_runs import crystals_of
from crystens.dft.runs import CHECK, FINISHED
from crystens.energies.relaxation import displacements
from crystens.errors import CrystensError
from crystens.matching.structure_matching import match_pairs
from crystens.processes.atomic_file import write_whole
from crystens.report.pictures import crystal_picture, figure_png

Row = dict[str, Any]

_KILOBAR = 10.0  # in a GPa
_ABREAST = 3  # candidates in a row of the picture
_CELLS = {2: 4, 5: 1}  # primitive cells in the cubic one, by sites: face-centred lattices and perovskites

# Angstrom, PBEsol, all electrons: mean of WIEN2k, FLEUR and SIRIUS/CP2K, from the files
# 0-preliminary-do-not-run/*/*-verification-PBEsol-v1.json of github.com/aiidateam/acwf-verification-scripts (commits
# 6f5c9bf9 for oxides, 34cf0aea for elements), of Bosoni et al., Nat. Rev. Phys. 2024, 6, 45.
_PUBLISHED = {"MgO": 4.2137, "Si": 5.4328}


def main() -> None:
    """Make one of the tables."""
    options = _arguments()
    make: dict[str, Callable[[Path], Row]] = {"lattices": lattices, "judged": judged, "figure": figure}
    table = make[options.which](options.folder)
    if options.which == "figure":
        write_whole(options.out / "dft_figure.png", _picture(options.folder, table["rows"]))
    write_whole(options.out / f"dft_{options.which}.json", json.dumps(table, indent=1) + "\n")
    sys.stdout.write(_markdown(table["rows"]))
    sys.stdout.write("".join(f"{name}: {value}\n" for name, value in table.items() if name != "rows"))


def lattices(folder: Path) -> Row:
    """Return edges of cubic cells, angstrom, pressures, kbar, and the cost of each crystal of a folder."""
    rows = []
    for candidate, runs in _chains(folder):
        row = _progress(candidate["formula"], runs)
        relaxations = _finished(runs)
        if relaxations:
            last = relaxations[-1]
            cells = _CELLS[int(last["num_sites"])]
            edge = (float(last["volume"]) * cells) ** (1 / 3)
            published = _PUBLISHED.get(candidate["formula"])
            row |= {
                "a": round(edge, 4),
                "a published": published,
                "difference %": None if published is None else round(100 * (edge / published - 1), 2),
                **_paper(relaxations),
            }
        rows.append(row | _cost(folder, candidate["name"], runs))
    return {"rows": rows}


def judged(folder: Path) -> Row:
    """Return for each crystal of a folder what CHGNet and DFT make of it, and how far they agree.

    Energies are changes by relaxing, meV/atom, for total energies of both have different zeros. The pressures, GPa, are
    those of the crystal both begin with; volumes are changes, %; displacements, angstrom, are the largest of a site.
    """
    with (folder / "relaxations.csv").open(newline="") as file:
        first = {row["name"]: row for row in csv.DictReader(file) if row["run"] == "1"}
    rows = []
    for candidate, runs in _chains(folder):
        name = candidate["name"]
        row: Row = {"sample": Path(candidate["sample"]).stem} | _progress(candidate["formula"], runs)
        row |= {
            "formation CHGNet": _rounded(candidate["formation_energy_generated"], 3),
            "dE CHGNet": _rounded(candidate["energy_relaxed"], 1, 1000, candidate["energy_cleaned"]),
            "P CHGNet": _rounded(first[name]["pressure_before"], 2),
            "dV CHGNet": _rounded(candidate["volume_change"], 1, 100),
            "way CHGNet": _rounded(candidate["displacement"], 3),
        }
        relaxations = _finished(runs)
        if relaxations:
            ended = crystals_of(ESPRESSO.inputs(folder, name))
            change = ended[1].lattice.volume / ended[0].lattice.volume - 1
            row |= {
                "dE DFT": _rounded(_energy_change(relaxations), 1, 1000),
                "P DFT": _rounded(relaxations[0]["pressure_before"], 2),
                "dV DFT": _rounded(change, 1, 100),
                "way DFT": _rounded(displacements(*ended).max(), 3),
                **_paper(relaxations),
            }
        rows.append(row | _cost(folder, name, runs))
    whole = [row for row in rows if row["relaxations"] == ESPRESSO.relaxations]
    agree = {f"rank correlation of {what}": _correlation(whole, what) for what in ("dE", "P", "dV")}
    return {"rows": rows, "crystals with four relaxations": len(whole), **agree}


def figure(folder: Path) -> Row:
    """Return the numbers of the paper's Fig. 13 for each candidate of a folder.

    E0 and E4, eV/atom, are the energies before the first and after the last relaxation; their zero is that of the
    pseudopotentials. P1 and P4 are kbar. Volumes, %, are changes since the start of DFT and since the crystal as
    generated. `same` says whether StructureMatcher finds the crystal as generated and the relaxed one to be the same.
    """
    rows = []
    for candidate, runs in _chains(folder):
        name = candidate["name"]
        row: Row = {"sample": Path(candidate["sample"]).stem} | _progress(candidate["formula"], runs)
        row |= {
            "space group": candidate["space_group_generated"],
            "above hull CHGNet": _rounded(candidate["above_hull_generated"], 2),
            "compounds in the hull": candidate["reference_compounds"],
        }
        relaxations = _finished(runs)
        if relaxations:
            begun, ended = crystals_of(ESPRESSO.inputs(folder, name))
            generated = _generated(folder, name)
            last = float(relaxations[-1]["energy_per_atom"])
            volumes = [crystal.lattice.volume / len(crystal) for crystal in (generated, begun, ended)]
            row |= {
                "E0": round(last - _energy_change(relaxations), 5),
                "E4": round(last, 5),
                **_paper(relaxations),
                "dV": _rounded(volumes[2] / volumes[1] - 1, 1, 100),
                "dV generated": _rounded(volumes[2] / volumes[0] - 1, 1, 100),
                "same": bool(match_pairs([(generated, ended)])[0]),
            }
        rows.append(row | _cost(folder, name, runs))
    whole = [row for row in rows if row["relaxations"] == ESPRESSO.relaxations]
    good = [abs(row["P4"]) < 1 and row["E4 - E0"] < 0 and row["same"] and not row["flags"] for row in whole]
    return {
        "rows": rows,
        "candidates with four relaxations": len(whole),
        "of them |P4| below 1 kbar, the energy fell, the same crystal, no flag": sum(good),
    }


def _generated(folder: Path, name: str) -> Crystal:
    """Return a candidate as generated."""
    return Crystal.from_structure(Structure.from_file(folder / "candidates" / name / "generated.cif"), 1)


def _picture(folder: Path, rows: Sequence[Row]) -> bytes:
    """Return the candidates as generated and as relaxed by DFT, with their energies and pressures, as PNG."""
    lines = math.ceil(len(rows) / _ABREAST)
    drawn = Figure(figsize=(3.4 * _ABREAST, 2.4 * lines), layout="constrained")
    grid = drawn.add_gridspec(lines, 2 * _ABREAST)
    for place, (row, candidate) in enumerate(zip(rows, read_candidates(folder), strict=True)):
        line, column = divmod(place, _ABREAST)
        name = candidate["name"]
        shown = [(_generated(folder, name), f"{place + 1}. {row['formula']}, generated\n\n")]
        if row["relaxations"]:
            done = row["relaxations"]
            told = f"after {done} relaxations\nE{done} - E0 = {row['E4 - E0']:.2f} meV/atom\n"
            told += f"P1 = {row['P1']:.2f}, P{done} = {row['P4']:.2f} kbar"
            shown.append((crystals_of(ESPRESSO.inputs(folder, name))[1], told))
        for side, (crystal, label) in enumerate(shown):
            axes = drawn.add_subplot(grid[line, 2 * column + side])
            axes.imshow(imread(io.BytesIO(crystal_picture(crystal))), interpolation="antialiased")
            axes.set_axis_off()
            axes.set_title(label, fontsize=6.5, pad=2)
    return figure_png(drawn, dots=90, colours=256)


def _chains(folder: Path) -> list[tuple[Row, list[Row]]]:
    """Return each candidate with its runs, in order, the check at a higher cutoff last."""
    path = folder / "dft.csv"
    if not path.is_file():
        raise CrystensError(f"no dft.csv in {folder}; make it with python -m crystens.candidates parse {folder}")
    with path.open(newline="") as file:
        runs = list(csv.DictReader(file))
    return [
        (candidate, [run for run in runs if run["name"] == candidate["name"]]) for candidate in read_candidates(folder)
    ]


def _finished(runs: Sequence[Row]) -> list[Row]:
    """Return the relaxations that are finished."""
    return [run for run in runs if run["status"] == FINISHED and run["run"] != CHECK]


def _progress(formula: str, runs: Sequence[Row]) -> Row:
    """Return how many relaxations of a crystal are finished, and what speaks against its runs."""
    told = dict.fromkeys(flag for run in runs if (flag := run["flags"]))
    return {"formula": formula, "relaxations": len(_finished(runs)), "flags": "; ".join(told)}


def _energy_change(relaxations: Sequence[Row]) -> float:
    """Return the energy after all relaxations less that before, eV/atom."""
    first, last = relaxations[0], relaxations[-1]
    before = float(first["energy_per_atom"]) - float(first["energy_change"])
    return float(last["energy_per_atom"]) - before


def _paper(relaxations: Sequence[Row]) -> Row:
    """Return what the paper's Fig. 13 shows: energy gained, meV/atom, and pressures after the first and last, kbar."""
    return {
        "E4 - E0": _rounded(_energy_change(relaxations), 2, 1000),
        "P1": _rounded(relaxations[0]["pressure"], 2, _KILOBAR),
        "P4": _rounded(relaxations[-1]["pressure"], 2, _KILOBAR),
        "fresh": _rounded(relaxations[-1]["pressure_fresh"], 2, _KILOBAR),
    }


def _cost(folder: Path, name: str, runs: Sequence[Row]) -> Row:
    """Return steps, seconds of the processor, and the largest resident memory, MB, of all runs of a crystal.

    The memory is that which GNU time wrote into the file `memory` of a run, in kB; None without one.
    """
    written = [path.read_text().split() for path in ESPRESSO.inputs(folder, name).glob("*/memory")]
    memory = [int(words[-1]) for words in written if words]  # empty while a run goes on
    return {
        "steps": sum(int(run["steps"]) for run in _finished(runs)),
        "seconds": round(sum(float(run["seconds"]) for run in runs if run["status"] == FINISHED)),
        "MB": round(max(memory) / 1000) if memory else None,
    }


def _rounded(value: Any, digits: int, scale: float = 1.0, less: Any = 0.0) -> float | None:
    """Return (value - less) * scale, rounded; None if a value is missing."""
    if value in (None, "") or less in (None, ""):
        return None
    return round((float(value) - float(less)) * scale, digits) + 0.0  # no -0.0


def _correlation(rows: Sequence[Row], what: str) -> float | None:
    """Return Spearman's rank correlation between CHGNet and DFT; None for fewer than three crystals."""
    pairs = [(row[f"{what} CHGNet"], row[f"{what} DFT"]) for row in rows]
    pairs = [pair for pair in pairs if None not in pair]
    return round(float(spearmanr(*zip(*pairs, strict=True)).statistic), 2) if len(pairs) > 2 else None


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a table in Markdown."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [["" if row.get(name) is None else str(row[name]) for name in columns] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _arguments() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("which", choices=("lattices", "judged", "figure"), help="which table")
    parser.add_argument("folder", type=Path, help="folder that select wrote")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where the JSON goes")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except CrystensError as error:
        sys.exit(f"error: {error}")
