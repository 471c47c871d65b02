"""The CIF reader of crystens compared with those of pymatgen and ASE, and the files that it rejects; see README.md.

python experiments/cif_readers/run.py price DATA                 all files of the data sets, and symmetric CIFs of ours
python experiments/cif_readers/run.py compare DATA [--step 10]   crystal by crystal with pymatgen and ASE
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import tarfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import ase.io
import gemmi
import numpy as np
from pymatgen.core import Structure
from pymatgen.io.cif import CifParser, CifWriter
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

from crystens.cif.read import read_cif
from crystens.cif.write import write_cif
from crystens.crystal import Crystal
from crystens.datasets.prototypes import Prototypes
from crystens.sources.limits import Limits
from crystens.sources.record import Entry
from crystens.symmetry.space_groups import SymmetryError, symmetrised

Atoms = tuple[float, np.ndarray, np.ndarray]  # volume, atomic numbers (N,), fractional coordinates (N, 3)
LIMITS = Limits()
ANY_SIZE = Limits(min_distance=0.0, max_volume_per_site=1e9)  # for two atoms in the cell of any group
SETTING = "data_setting"
NEAR = 2e-3  # fractional; pymatgen rounds coordinates near thirds by 1e-4


def mp_3dsc(data: Path, step: int = 1) -> Iterator[tuple[str, bytes]]:
    """Yield name and text of the files of mp_3dsc."""
    with tarfile.open(data / "mp_3dsc" / "cifs.tar.gz") as archive:
        for number, member in enumerate(m for m in archive if m.isfile()):
            if number % step == 0:
                yield member.name, archive.extractfile(member).read()  # type: ignore[union-attr]


def price(data: Path) -> None:
    """Read files that earlier versions of crystens accepted; print how many are rejected, and why."""
    refused: dict[str, Counter[str]] = {}

    def note(source: str, name: str, text: bytes | str) -> Crystal | None:
        counts = refused.setdefault(source, Counter())
        (item,) = read_cif(text, name, LIMITS)
        counts["files"] += 1
        if isinstance(item, Entry):
            return item.crystal
        counts[item.category] += 1
        print(source, name, item.reason)
        return None

    csv.field_size_limit(2**30)
    crystals = [note("mp_3dsc", *item) for item in mp_3dsc(data)]
    for split in ("train", "val", "test"):
        with gzip.open(data / "mp_52" / f"{split}.csv.gz", "rt", newline="") as file:
            for row in csv.DictReader(file):
                note(f"mp_52 {split}", row["material_id"], row["cif"])
    prototypes = [entry.crystal for entry in Prototypes().read(LIMITS) if isinstance(entry, Entry)]
    for name, kept in (("prototypes", prototypes), ("mp_3dsc", crystals[::4])):
        for number, crystal in enumerate(kept):
            try:
                text = write_cif(symmetrised(crystal, 0.01))  # type: ignore[arg-type]
            except SymmetryError:
                continue
            back = note(f"our symmetric CIFs of {name}", str(number), text)
            if back is not None and (len(back) != len(crystal) or back.formula != crystal.formula):  # type: ignore
                print("DIFFERENT", name, number)
    print(json.dumps(refused, indent=1))


# Files, by kind


def files(data: Path, step: int) -> Iterator[tuple[str, str, str]]:
    """Yield kind, name and text of the files to compare."""
    for name, content in mp_3dsc(data, step):
        yield "mp_3dsc", name, content.decode()
    for path in sorted((data / "bad_cifs").glob("*.cif")):
        yield "bad_cifs", path.name, path.read_bytes().decode("latin-1")
    for path in sorted((data / "cases").glob("*/*.cif")):
        yield "cases", f"{path.parent.name}/{path.name}", path.read_bytes().decode("latin-1")
    for name, content in mp_3dsc(data, 6 * step):
        structure = Structure.from_str(content.decode(), fmt="cif")
        yield "pymatgen, symprec", name, str(CifWriter(structure, symprec=0.01))
        analyzer = SpacegroupAnalyzer(structure, symprec=0.01)
        for what in (analyzer.get_conventional_standard_structure(), analyzer.get_primitive_standard_structure()):
            yield "pymatgen, standardised", name, str(CifWriter(what, symprec=0.01))
        text = io.BytesIO()
        ase.io.write(text, structure.to_ase_atoms(), format="cif")
        yield "ASE", name, text.getvalue().decode()
        entry = read_cif(content, name, LIMITS)[0]
        if isinstance(entry, Entry):
            yield "ours, symmetric", name, write_cif(symmetrised(entry.crystal, 0.01))
    for group in gemmi.spacegroup_table():
        for form in ("list", "symbol", "Hall symbol", "number and code"):
            yield f"settings, {form}", f"{group.xhm()} ({group.qualifier})", setting_file(group, form)


def setting_file(group: gemmi.SpaceGroup, form: str) -> str:
    """Return a CIF with two atoms in general positions of a setting, without a formula."""
    cell: tuple[float, ...] = {
        "triclinic": (7.1, 8.2, 9.3, 83, 77, 71),
        "monoclinic": (7.1, 8.2, 9.3, 90, 90, 90),
        "orthorhombic": (7.1, 8.2, 9.3, 90, 90, 90),
        "tetragonal": (7.1, 7.1, 9.3, 90, 90, 90),
        "trigonal": (7.1, 7.1, 9.3, 90, 90, 120),
        "hexagonal": (7.1, 7.1, 9.3, 90, 90, 120),
        "cubic": (17.1, 17.1, 17.1, 90, 90, 90),
    }[group.crystal_system_str()]
    if group.ext == "R":
        cell = (7.1, 7.1, 7.1, 77, 77, 77)
    if group.crystal_system_str() == "monoclinic":
        angle = 3 + "abc".index(group.monoclinic_unique_axis())
        cell = (*cell[:angle], 103, *cell[angle + 1 :])
    lines = [SETTING]
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    lines += [
        f"_cell_{name} {value * (3 if k < 3 else 1)}" for k, (name, value) in enumerate(zip(names, cell, strict=True))
    ]
    if form == "list":
        lines += [f"_space_group_IT_number {group.number}", "loop_", "_space_group_symop_operation_xyz"]
        lines += [f"'{operation.triplet()}'" for operation in group.operations()]
    elif form == "symbol":
        lines.append(f"_space_group_name_H-M_alt '{group.xhm()}'")
    elif form == "Hall symbol":
        lines.append(f"_space_group_name_Hall '{group.hall}'")
    else:
        code = (group.ext.strip("\0").lower() + group.qualifier) or "abc"
        lines += [f"_space_group_IT_number {group.number}", f"_space_group_IT_coordinate_system_code {code}"]
    lines += ["loop_", *(f"_atom_site_{name}" for name in ("label", "type_symbol", "fract_x", "fract_y", "fract_z"))]
    return "\n".join([*lines, "Na1 Na 0.07 0.11 0.19", "Cl1 Cl 0.031 0.143 0.217", ""])


# Readers


def by_us(text: str) -> Atoms:
    """Read the first crystal with crystens."""
    item = read_cif(text, "", ANY_SIZE if text.startswith(SETTING) else LIMITS)[0]
    if not isinstance(item, Entry):
        raise ValueError(item.reason)
    return item.crystal.lattice.volume, item.crystal.numbers, item.crystal.coordinates


def by_pymatgen(text: str) -> Atoms:
    """Read the first crystal with pymatgen."""
    structure = CifParser.from_str(text, frac_tolerance=0).parse_structures(primitive=False)[0]
    if not structure.is_ordered:
        raise ValueError("disordered")
    return structure.volume, np.array([getattr(s.specie, "Z", 0) for s in structure]), structure.frac_coords


def by_ase(text: str) -> Atoms:
    """Read the first crystal with ASE."""
    (atoms,) = ase.io.read(io.StringIO(text), index=slice(0, 1), format="cif")
    return atoms.get_volume(), atoms.numbers, atoms.get_scaled_positions()


def difference(mine: Atoms, other: Atoms) -> str:
    """Return the difference of two readings; empty if there is none. Both have the cell of the file."""
    if sorted(mine[1].tolist()) != sorted(other[1].tolist()):
        return f"{len(mine[1])} and {len(other[1])} atoms" if len(mine[1]) != len(other[1]) else "elements"
    if abs(mine[0] - other[0]) > 1e-4 * mine[0]:
        return "cell"
    steps = mine[2][:, None] - other[2][None]
    steps = np.abs(steps - np.round(steps)).max(axis=2)
    steps[mine[1][:, None] != other[1][None]] = np.inf
    nearest = steps.argmin(axis=1)
    return "" if steps.min(axis=1).max() < NEAR and len(set(nearest.tolist())) == len(nearest) else "places"


def compare(data: Path, step: int) -> None:
    """Read every file with all readers, and print each disagreement and a table."""
    table: dict[str, Counter[str]] = {}
    for kind, name, text in files(data, step):
        counts = table.setdefault(kind, Counter())
        counts["files"] += 1
        try:
            mine: Atoms | None = by_us(text)
            told = ""
        except ValueError as error:
            mine, told = None, str(error)[:120]
            counts["refused by us"] += 1
        for reader, read in (("pymatgen", by_pymatgen), ("ASE", by_ase)):
            try:
                other: Atoms | None = read(text)
            except Exception as error:  # readers raise any exception
                other, why = None, f"{type(error).__name__}: {error}"[:80].replace("\n", " ")
            if mine is None:
                if other is not None:
                    counts[f"refused by us, read by {reader}"] += 1
                    print(f"{kind} | {name} | we refuse ({told}), {reader} reads {len(other[1])} atoms")
            elif other is None:
                counts[f"refused by {reader}"] += 1
                print(f"{kind} | {name} | we read {len(mine[1])} atoms, {reader} refuses ({why})")
            elif wrong := difference(mine, other):
                counts[f"differs from {reader}"] += 1
                print(f"{kind} | {name} | {reader} differs: {wrong}")
    print(json.dumps(table, indent=1))


def main() -> None:
    """Run one of the parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("price", "compare"))
    parser.add_argument("data", type=Path, help="folder of shared data")
    parser.add_argument("--step", type=int, default=10, help="take every N-th file of mp_3dsc")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.part == "price":
        price(arguments.data)
    else:
        compare(arguments.data, arguments.step)


if __name__ == "__main__":
    main()
