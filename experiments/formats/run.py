"""Crystals written by other programs, and read back; see README.md.

python experiments/formats/run.py DATA [--number 500] [--ways xyz_ase ...]

The crystals of mp_3dsc are written in several ways, one file for each. The source is guessed from the file name. Each
crystal is then compared with the crystal of the CIF: formula, space group, cell and coordinates of each site.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pandas as pd
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from pymatgen.core import Structure
from pymatgen.io.cif import CifWriter

from crystens.crystal import Crystal
from crystens.datasets.mp_3dsc import Mp3dsc
from crystens.ingest.kinds import open_source
from crystens.sources.limits import Limits
from crystens.sources.record import Entry, Reject

LIMITS = Limits()
NEAR = 1e-6  # fractional for coordinates; angstrom and degree for cells
Crystals = dict[str, Crystal]


# Extended XYZ


def xyz_ase(crystals: Crystals, path: Path) -> None:
    """Write frames as ASE does, with nothing but the crystal and its id."""
    ase.io.write(path.with_suffix(".xyz"), [_atoms(name, crystal) for name, crystal in crystals.items()])


def xyz_ase_columns(crystals: Crystals, path: Path) -> None:
    """Write frames as ASE does, with columns and pairs of many kinds."""
    frames = []
    for name, crystal in crystals.items():
        atoms, count = _atoms(name, crystal), len(crystal)
        atoms.arrays["labels"] = np.array([f"{symbol}{k}" for k, symbol in enumerate(atoms.get_chemical_symbols())])
        atoms.arrays["fixed"] = np.arange(count) % 2 == 0
        atoms.set_tags(range(count))
        atoms.set_initial_magnetic_moments(np.full(count, 0.5))
        atoms.set_velocities(np.ones((count, 3)))
        atoms.info |= {"note": 'a "b" [c] {d} = e\\', "matrix": np.eye(3), "flags": np.array([True, False]), "x y": 1}
        atoms.info |= {"doc": {"Lattice": "9 0 0 0 9 0 0 0 9", "list": [1, "]"]}, "none": None, "bare": "a=b"}
        forces, stress = np.full((count, 3), np.nan), np.full(6, -1e-9)
        atoms.calc = SinglePointCalculator(atoms, energy=-1.5, forces=forces, stress=stress, magmoms=np.ones(count))
        frames.append(atoms)
    ase.io.write(path.with_suffix(".xyz"), frames)


def xyz_ase_numbers(crystals: Crystals, path: Path) -> None:
    """Write frames as ASE does, with atomic numbers behind the positions, and gaps between the frames."""
    frames = [_atoms(name, crystal) for name, crystal in crystals.items()]
    with path.with_suffix(".xyz").open("w") as file:
        for atoms in frames:
            ase.io.write(file, atoms, format="extxyz", columns=["symbols", "positions", "numbers"])
            file.write("\n \n")


def xyz_pymatgen(crystals: Crystals, path: Path) -> None:
    """Write pymatgen's structures as their ASE adaptor does."""
    from pymatgen.io.ase import AseAtomsAdaptor

    frames = []
    for name, crystal in crystals.items():
        structure = crystal.to_structure()
        structure.add_site_property("magmom", [0.5] * len(crystal))
        structure.properties["material_id"] = name
        frames.append(AseAtomsAdaptor.get_atoms(structure))
    ase.io.write(path.with_suffix(".xyz"), frames, format="extxyz")


def xyz_specification(crystals: Crystals, path: Path) -> None:
    """Write frames in notations that ASE does not write: arrays, quotes, Fortran's numbers."""
    with path.with_suffix(".xyz").open("w") as file:
        for name, crystal in crystals.items():
            atoms = _atoms(name, crystal)
            rows = ", ".join("[" + ", ".join(_fortran(value) for value in row) + "]" for row in atoms.cell)
            file.write(
                f' {len(crystal)} \n"Lattice" = [{rows}] pbc = [T, True, TRUE] material_id="{name}" note="\\"a=\\"" '
                "Properties=aux::label:S:1:pos:R:3:species:S:1:mtt::aux::q:R:2\n"
            )
            for k, (symbol, place) in enumerate(zip(atoms.get_chemical_symbols(), atoms.positions, strict=True)):
                file.write(f'"site {k}" {" ".join(map(_fortran, place))} {symbol} 1 nan\n')
            file.write("\n")


# JSON


def json_pymatgen(crystals: Crystals, path: Path) -> None:
    """Write an object of structures by their ids, as pymatgen writes them."""
    _dump(path, {name: structure.as_dict() for name, structure in _structures(crystals).items()})


def json_wbm(crystals: Crystals, path: Path) -> None:
    """Write the records of WBM, one on each line."""
    with path.with_suffix(".jsonl").open("w") as file:
        for record in _records(crystals):
            file.write(json.dumps(record) + "\n")


def json_pandas_columns(crystals: Crystals, path: Path) -> None:
    """Write the same as a table of pandas, column by column, as Matbench Discovery has its entries."""
    pd.DataFrame(_records(crystals)).to_json(path.with_suffix(".json"))


def json_pandas_split(crystals: Crystals, path: Path) -> None:
    """Write the same as a table of pandas, row by row, as Matbench has its data sets."""
    pd.DataFrame(_records(crystals)).to_json(path.with_suffix(".json"), orient="split")


def json_entries(crystals: Crystals, path: Path) -> None:
    """Write computed entries, as Alexandria has them."""
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    entries = [ComputedStructureEntry(s, -1.0, entry_id=name) for name, s in _structures(crystals).items()]
    _dump(path, {"entries": [entry.as_dict() for entry in entries]})


def json_optimade(crystals: Crystals, path: Path) -> None:
    """Write an answer of OPTIMADE."""
    from pymatgen.io.optimade import OptimadeStructureAdapter

    data = [
        {"id": name, "type": "structures", **OptimadeStructureAdapter.get_optimade_structure(structure)}
        for name, structure in _structures(crystals).items()
    ]
    _dump(path, {"links": {"next": None}, "meta": {"data_returned": len(data)}, "data": data})


def json_jarvis(crystals: Crystals, path: Path) -> None:
    """Write a list of records of JARVIS."""
    records = [
        {
            "jid": name,
            "formula": structure.composition.reduced_formula,
            "atoms": {
                "lattice_mat": structure.lattice.matrix.tolist(),
                "coords": structure.frac_coords.tolist(),
                "elements": [site.specie.symbol for site in structure],
                "abc": list(structure.lattice.abc),
                "angles": list(structure.lattice.angles),
                "cartesian": False,
                "props": [""] * len(structure),
            },
        }
        for name, structure in _structures(crystals).items()
    ]
    _dump(path, records)


def _structures(crystals: Crystals) -> dict[str, Structure]:
    """Return crystals as pymatgen has them."""
    return {name: crystal.to_structure() for name, crystal in crystals.items()}


def _records(crystals: Crystals) -> list[dict[str, Any]]:
    """Return crystals as WBM's initial structures."""
    return [
        {"material_id": name, "formula_from_cse": s.formula, "initial_structure": s.as_dict()}
        for name, s in _structures(crystals).items()
    ]


def _dump(path: Path, value: Any) -> None:
    """Write a value as JSON."""
    path.with_suffix(".json").write_text(json.dumps(value))


# Tables and arrays


def csv_structure(crystals: Crystals, path: Path) -> None:
    """Write a table of structures as JSON, as LeMat-GenBench reads it."""
    rows = {"material_id": list(crystals), "structure": [s.to_json() for s in _structures(crystals).values()]}
    pd.DataFrame(rows).to_csv(path.with_suffix(".csv"), index=False)


def csv_cif_string(crystals: Crystals, path: Path) -> None:
    """Write a table of CIFs of pymatgen."""
    cifs = [str(CifWriter(structure, significant_figures=12)) for structure in _structures(crystals).values()]
    pd.DataFrame({"id": list(crystals), "cif_string": cifs}).to_csv(path.with_suffix(".csv"))


def pt_numpy(crystals: Crystals, path: Path) -> None:
    """Write the five arrays of CDVAE as NumPy has them, angles in radians."""
    values = list(crystals.values())
    arrays = {
        "frac_coords": np.concatenate([crystal.coordinates for crystal in values]),
        "atom_types": np.concatenate([crystal.numbers for crystal in values]),
        "num_atoms": np.array([len(crystal) for crystal in values]),
        "lengths": np.stack([crystal.lengths for crystal in values]),
        "angles": np.radians(np.stack([crystal.angles for crystal in values])),
    }
    torch.save(arrays, path.with_suffix(".pt"))


def _atoms(name: str, crystal: Crystal) -> Atoms:
    """Return a crystal as ASE has it, with its name."""
    atoms = crystal.to_atoms()
    atoms.info["material_id"] = name
    return atoms


def _fortran(value: float) -> str:
    """Return a number as Fortran writes doubles."""
    return f"{value:.12E}".replace("E", "d")


WAYS: dict[str, Callable[[Crystals, Path], None]] = {
    function.__name__: function
    for function in (
        *(xyz_ase, xyz_ase_columns, xyz_ase_numbers, xyz_pymatgen, xyz_specification),
        *(json_pymatgen, json_wbm, json_pandas_columns, json_pandas_split, json_entries, json_optimade, json_jarvis),
        *(csv_structure, csv_cif_string, pt_numpy),
    )
}


def compare(crystals: Crystals, path: Path) -> Counter[str]:
    """Return the number of crystals that are read correctly, and the numbers of rejects and of each difference."""
    counts: Counter[str] = Counter()
    items = list(open_source(str(path)).read(LIMITS))
    counts["too many or too few items"] += abs(len(items) - len(crystals))
    for (name, crystal), item in zip(crystals.items(), items, strict=False):
        if isinstance(item, Reject):
            counts[f"refused: {item.reason}"[:150]] += 1
        elif item.entry != name and path.suffix != ".pt":  # which has no names
            counts["another name"] += 1
        else:
            counts[_difference(item.crystal, crystal) or "same"] += 1
    return +counts


def _difference(read: Crystal, written: Crystal) -> str:
    """Return the difference of two crystals; empty if there is none."""
    if read.formula != written.formula or len(read) != len(written):
        return "another formula"
    if max(abs(read.lengths - written.lengths).max(), abs(read.angles - written.angles).max()) > NEAR:
        return "another cell"
    steps = read.coordinates[:, None] - written.coordinates[None]
    near = (abs(steps - np.round(steps)).max(axis=2) < NEAR) & (read.numbers[:, None] == written.numbers[None])
    if not ((near.sum(axis=0) == 1).all() and (near.sum(axis=1) == 1).all()):
        return "other places"
    return "" if read.space_group == written.space_group else "another space group"


def main() -> None:
    """Write and read the crystals in each way, and print the counts as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of shared data")
    parser.add_argument("--number", type=int, default=500, help="of crystals of mp_3dsc")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    arguments = parser.parse_args()
    entries = (item for item in Mp3dsc(arguments.data / "mp_3dsc").read(LIMITS) if isinstance(item, Entry))
    crystals = {Path(entry.file).stem: entry.crystal for entry in itertools.islice(entries, arguments.number)}
    for way in arguments.ways:
        with tempfile.TemporaryDirectory() as folder:
            WAYS[way](crystals, Path(folder) / way)
            (path,) = Path(folder).iterdir()
            start = time.process_time()
            counts = compare(crystals, path)
            print(json.dumps({way: counts, "seconds": round(time.process_time() - start, 2)}), flush=True)


if __name__ == "__main__":
    main()
