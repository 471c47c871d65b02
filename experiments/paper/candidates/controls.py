"""Crystals for a density functional code, as CIFs for `crystens.candidates select`; see README.md.

python experiments/paper/candidates/controls.py lattices FOLDER
python experiments/paper/candidates/controls.py judged FOLDER --data DIR/mp_52 --samples SAMPLES
python experiments/paper/candidates/controls.py figure FOLDER --samples SAMPLES

`figure` writes the samples that may be candidates of Fig. 13: at most 4 sites, at least two elements, none of them a
lanthanide or magnetic, plausibility 1 and a formula that is not in the training data, by SAMPLES/crystals.csv.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols

from crystens.candidates.generated import Sample, read_generated
from crystens.candidates.ranking import rank
from crystens.cif.write import write_cif
from crystens.crystal import Crystal
from crystens.dft import espresso
from crystens.energies.energies import EnergyOptions
from crystens.energies.potentials import CHGNet
from crystens.energies.references import HullSource, reference_of
from crystens.errors import CrystensError
from crystens.ingest.generated import read_table
from crystens.ingest.kinds import open_source
from crystens.sources.limits import Limits
from crystens.sources.source import read_all

_MAX_SITES = 4  # of a drawn crystal: four relaxations then take minutes
_LANTHANIDES = range(57, 72)

_CENTRE, _FACES = [0.5, 0.5, 0.5], [[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]


def face_centred(a: float, numbers: Sequence[int], second: Sequence[float]) -> Crystal:
    """Return the primitive cell of two elements on face-centred cubic lattices.

    Args:
        a: edge of the conventional cell, angstrom.
        numbers: atomic numbers of both sites.
        second: fractional coordinates of the second site; the first is at the origin.
    """
    return Crystal(np.full(3, a / 2**0.5), np.full(3, 60.0), 1, np.array(numbers), np.array([[0, 0, 0], second]))


def perovskite(a: float, corner: int, centre: int, faces: int) -> Crystal:
    """Return a cubic perovskite: its edge, angstrom, and the atomic numbers at the corner, the centre and the faces."""
    numbers = np.array([corner, centre, faces, faces, faces])
    return Crystal(np.full(3, a), np.full(3, 90.0), 1, numbers, np.array([[0, 0, 0], _CENTRE, *_FACES]))


# Each begins at the edge that is measured at room temperature, rounded.
LATTICES = {
    "NaF": face_centred(4.63, [11, 9], _CENTRE),
    "NaCl": face_centred(5.64, [11, 17], _CENTRE),
    "MgO": face_centred(4.21, [12, 8], _CENTRE),
    "Si": face_centred(5.43, [14, 14], [0.25, 0.25, 0.25]),
    "SrTiO3": perovskite(3.905, 38, 22, 8),
}

# The paper names SnYF3 and NaF. It prints no coordinates of SnYF3: the ideal perovskite is a guess. So is its edge, by
# the ionic radii of Y3+ and F- in sixfold coordination: 2 (0.90 + 1.33) angstrom.
NAMED = {"NaF": face_centred(4.63, [11, 9], _CENTRE), "SnYF3": perovskite(4.46, 50, 39, 9)}


def main() -> None:
    """Write one of the sets."""
    options = _arguments()
    if options.which == "lattices":
        crystals = LATTICES
    elif options.which == "judged":
        crystals = NAMED | _known(options) | _worst(options)
    else:
        crystals = _new(options)
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, crystal in crystals.items():
        (options.folder / f"{name}.cif").write_text(write_cif(crystal, name))
        sys.stdout.write(f"{name}: {crystal.formula}, {len(crystal)} sites\n")


def _is_small(crystal: Crystal) -> bool:
    """Return whether a crystal may be drawn: the same rule for known crystals and for samples."""
    numbers = set(crystal.numbers.tolist())
    return (
        len(crystal) <= _MAX_SITES
        and len(numbers) > 1
        and numbers.isdisjoint(_LANTHANIDES)
        and not any(chemical_symbols[number] in espresso.MAGNETIC for number in numbers)
        and espresso.refused(crystal) is None
    )


def _known(options: argparse.Namespace) -> dict[str, Crystal]:
    """Return known crystals of the test split: the first of a random order of those that may be drawn."""
    entries, _ = read_all(open_source(options.data), Limits(max_sites=_MAX_SITES))
    small = [entry for entry in entries if entry.split == "test" and _is_small(entry.crystal)]
    order = np.random.default_rng(options.seed).permutation(len(small))
    return {f"known_{small[place].entry}": small[place].crystal for place in order[: options.number]}


def _worst(options: argparse.Namespace) -> dict[str, Crystal]:
    """Return the samples of the highest formation energy by CHGNet, as generated, of those that may be drawn."""
    read = read_generated(options.samples)
    samples: list[Sample] = [item for item in read if item.crystal is not None and _is_small(item.crystal)]
    potential, energy_options = CHGNet(), EnergyOptions()
    crystals = [sample.crystal for sample in samples if sample.crystal is not None]
    reference = reference_of(crystals, potential, energy_options, HullSource())
    ranked, excluded = rank(samples, potential, energy_options, reference, "formation_energy")
    sys.stdout.write(f"{len(read)} samples, {len(samples)} may be drawn, {len(ranked)} ranked, {len(excluded)} not\n")
    for item in reversed(ranked[-options.number :]):
        sys.stdout.write(f"{item.sample.name}: {item.value:.3f} eV/atom\n")
    return {f"worst_{Path(item.sample.name).stem}": item.crystal for item in ranked[: -options.number - 1 : -1]}


def _new(options: argparse.Namespace) -> dict[str, Crystal]:
    """Return the samples that may be candidates of Fig. 13."""
    table = {Path(row["file"]).stem: row for row in read_table(Path(options.samples)) if row["file"]}
    crystals = {}
    for sample in read_generated(options.samples):
        stem = Path(sample.name).stem
        if sample.crystal is None or not _is_small(sample.crystal):
            continue
        if float(table[stem]["plausibility"]) == 1 and table[stem]["known_formula"] == "false":
            crystals[f"new_{stem}"] = sample.crystal
    return crystals


def _arguments() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("which", choices=("lattices", "judged", "figure"), help="which set is written")
    parser.add_argument("folder", type=Path, help="where the CIFs go")
    parser.add_argument("--data", help="source of known crystals, of which those of the split test are drawn")
    parser.add_argument("--samples", help="folder that sample.py wrote")
    parser.add_argument("--number", type=int, default=3, help="of known crystals, and of samples; by default 3")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.which == "judged" and not (options.data and options.samples):
        parser.error("judged needs --data and --samples")
    if options.which == "figure" and not options.samples:
        parser.error("figure needs --samples")
    return options


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        main()
    except CrystensError as error:
        sys.exit(f"error: {error}")
