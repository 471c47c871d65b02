"""`crystens export SAMPLES --to FORMAT --out FILE`: writes crystals in formats for other judges.

| `--to` | what is written | who reads it |
|---|---|---|
| `pt` | the five arrays of `crystens.formats.cdvae_result`, with one evaluation in front | CDVAE, DiffCSP |
| `csv` | `material_id`, `cif`, and `structure`, a pymatgen Structure as JSON | LeMat-GenBench |
| `extxyz` | frames of extended XYZ | MatterGen, ASE |
| `json` | a list of pymatgen Structures | pymatgen |

These formats cannot hold failed samples, which are left out and counted. Rates of other judges then refer to crystals
only; multiply them by the share of crystals to compare with rates of crystens.

Crystals are written with all sites, in their order: `material_id` and the key `sample` of a frame are the index among
all samples, from 0. Numbers keep all digits, except in CIFs (the digits of `crystens.cif.write`) and in extended XYZ
(positions to 1e-8 angstrom, by ASE).
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from crystens.cif.write import write_cif
from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.ingest.generated import read_generated
from crystens.processes.atomic_file import whole_file
from crystens.processes.command import run_command
from crystens.sources.reasons import category_counts
from crystens.sources.record import Entry, Reject

Samples = dict[int, Crystal]  # by index among all samples


def export(samples: Samples, to: str, out: str | Path) -> None:
    """Write crystals to a file, atomically.

    Args:
        samples: crystals by their index among all samples, at least one.
        to: one of the `FORMATS`.
        out: the file; its folder is created if it does not exist.

    Raises:
        CrystensError: if there is no crystal, the format is not known, or the file cannot be written.
    """
    out = Path(out)
    if to not in FORMATS:
        raise CrystensError(f"the format {to!r} is not known; use one of {', '.join(FORMATS)}")
    if not samples:
        raise CrystensError("there is no crystal to write; judge the samples to see why they failed")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(out) as beside:
            FORMATS[to](beside, samples)
    except OSError as error:
        raise CrystensError(f"cannot write {out}: {error.strerror}; choose another file, or make room") from error


def _write_pt(path: Path, samples: Samples) -> None:
    """Write the five arrays: coordinates (1, N, 3) of all N sites, and lengths (1, n, 3) of n crystals, and so on."""
    crystals = list(samples.values())
    arrays = {
        "frac_coords": np.concatenate([crystal.coordinates for crystal in crystals]),
        "atom_types": np.concatenate([crystal.numbers for crystal in crystals]),
        "lengths": np.stack([crystal.lengths for crystal in crystals]),
        "angles": np.stack([crystal.angles for crystal in crystals]),
        "num_atoms": np.array([len(crystal) for crystal in crystals]),
    }
    torch.save({name: torch.from_numpy(array.copy())[None] for name, array in arrays.items()}, path)


def _write_extxyz(path: Path, samples: Samples) -> None:
    """Write a frame for each crystal."""
    from ase.io.extxyz import write_extxyz

    with path.open("w", encoding="utf-8") as file:
        for place, crystal in samples.items():
            atoms = crystal.to_atoms()
            atoms.info = {"sample": place}
            write_extxyz(file, [atoms])


def _write_csv(path: Path, samples: Samples) -> None:
    """Write a row for each crystal."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["material_id", "cif", "structure"])
        for place, crystal in samples.items():
            writer.writerow([place, write_cif(crystal), json.dumps(crystal.to_structure().as_dict())])


def _write_json(path: Path, samples: Samples) -> None:
    """Write a list of Structures, whose property `sample` is the index among all samples."""
    with path.open("w", encoding="utf-8") as file:
        before = "[\n"
        for place, crystal in samples.items():
            structure = crystal.to_structure()
            structure.properties["sample"] = place
            file.write(before + json.dumps(structure.as_dict()))
            before = ",\n"
        file.write("\n]\n")


FORMATS: dict[str, Callable[[Path, Samples], None]] = {
    "pt": _write_pt,
    "extxyz": _write_extxyz,
    "csv": _write_csv,
    "json": _write_json,
}


def main(arguments: Sequence[str] | None = None, prog: str = "crystens export") -> int:
    """Run the command line and return its exit status; `prog` is how the command was called."""
    options = _parser(prog).parse_args(arguments)
    return run_command(lambda: _exported(options), "nothing was written")


def _exported(options: argparse.Namespace) -> str:
    """Write the file, and return the numbers of written crystals and of omitted samples as text."""
    if options.out.resolve() == Path(options.samples).resolve():
        raise CrystensError(f"--out {options.out} is SAMPLES, which would be overwritten; choose another file")
    items = read_generated(options.samples, split=options.split)
    samples = {place: item.crystal for place, item in enumerate(items) if isinstance(item, Entry)}
    if not samples:
        raise CrystensError(f"no sample of {options.samples} is a crystal: {_reasons(items)}")
    export(samples, options.to, options.out)
    text = f"{options.out} holds {len(samples)} crystals\n"
    if len(samples) == len(items):
        return text
    return text + (
        f"{len(items) - len(samples)} of {len(items)} samples are no crystals and are left out: {_reasons(items)}; "
        f"a rate over the file's crystals times {len(samples) / len(items):.4g} is a rate over all samples\n"
    )


def _reasons(items: Sequence[Entry | Reject]) -> str:
    """Return the reasons why samples are no crystals, each with its number."""
    counts = category_counts(item.reason for item in items if isinstance(item, Reject))
    return ", ".join(f"{reason} ({count})" for reason, count in itertools.islice(counts.items(), 5))


def _parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog=prog, description="Writes crystals as other judges read them.")
    parser.add_argument(
        "samples", metavar="SAMPLES", help="a folder that sample.py wrote, or any other source of crystals"
    )
    parser.add_argument(
        "--to",
        choices=sorted(FORMATS),
        required=True,
        help="pt: CDVAE and DiffCSP; csv: LeMat-GenBench; extxyz: MatterGen and ASE; json: pymatgen",
    )
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="the file to write")
    parser.add_argument("--split", help="train, val or test, of a source that has splits; by default all of it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
