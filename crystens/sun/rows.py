"""`crystals.csv` of S.U.N.: one row a sample, failed ones too, and what follows from its flags.

A flag is true, false, or unknown (None, an empty cell): a crystal whose stability is unknown is not called unstable.
Columns that begin with `relaxed_` say of the relaxed crystal what the column without it says of the crystal as it was
generated; they are empty without relaxing. Units: eV/atom, angstrom.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from crystens.energies.hull_entries import DEEPEST
from crystens.metrics.crystal_table import OK, Row, read_rows

THRESHOLDS = (0.0, 0.1)  # eV/atom above the hull
STATES = ("", "relaxed_")  # as generated, and relaxed
PARTS = {
    "unique": ("unique",),
    "novel": ("novel",),
    "stable": ("stable",),
    "unique_novel": ("unique", "novel"),
    "stable_unique": ("stable", "unique"),
    "stable_novel": ("stable", "novel"),
    "sun": ("stable", "unique", "novel"),
}
# An energy of the potential is in single precision, and changes by some 1e-6 eV/atom when a crystal is turned: one that
# is itself part of the hull must not fall off it.
ROUNDING = 1e-5  # eV/atom

# How far below a hull, eV/atom, a sample may lie without a word. Of 672 real crystals of mp_52, each left out of the
# hull of the others, 2.4 % lie farther below it, where it has few compounds of all their elements or none; of 154 with
# at least three such compounds the farthest lies 0.21 below (`experiments/sun/depth.py`).
FAR_BELOW = 0.5

_STATE_COLUMNS = (
    "group",
    "unique",
    "novel",
    "same_as",
    "sameness_reason",
    "energy",
    "formation_energy",
    "above_hull",
    "hull_entries",
    "hull_compounds",
    "stability_reason",
    *(f"{part}_at_{threshold:g}" for threshold in THRESHOLDS for part in ("stable", "sun")),
)
_RELAXATION_COLUMNS = ("relaxation_steps", "converged", "displacement", "volume_change")
COLUMNS = (
    "index",
    "file",
    "entry",
    "status",
    "reason",
    "formula",
    "num_sites",
    "structurally_valid",
    *_STATE_COLUMNS,
    *_RELAXATION_COLUMNS,
    *(f"relaxed_{name}" for name in _STATE_COLUMNS),
)

_STATED_TEXTS = ("same_as", "sameness_reason", "stability_reason")
_STATED_INTEGERS = ("group", "hull_entries", "hull_compounds")
_STATED_FLOATS = ("energy", "formation_energy", "above_hull")
_TEXTS = {"file", "entry", "status", "reason", "formula", *(f"{s}{name}" for s in STATES for name in _STATED_TEXTS)}
_INTEGERS = {"index", "num_sites", "relaxation_steps", *(f"{s}{name}" for s in STATES for name in _STATED_INTEGERS)}
_FLOATS = {"displacement", "volume_change", *(f"{s}{name}" for s in STATES for name in _STATED_FLOATS)}
_FLAGS = set(COLUMNS) - _TEXTS - _INTEGERS - _FLOATS


def is_stable(above_hull: float | None, threshold: float) -> bool | None:
    """Return whether an energy above hull, eV/atom, is at most a threshold, up to rounding; None if it is unknown."""
    return None if above_hull is None else above_hull <= threshold + ROUNDING


def is_credible(formation_energy: float | None) -> bool:
    """Return whether a crystal can have a formation energy, eV/atom; an unknown one is not objected to."""
    return formation_energy is None or formation_energy >= DEEPEST


def all_of(flags: Iterable[bool | None]) -> bool | None:
    """Return whether all flags are true: false if one is false, else unknown if one is unknown."""
    known = list(flags)
    if any(flag is False for flag in known):
        return False
    return None if None in known else True


def verdict(row: Row, part: str, state: str = "", threshold: float = 0.0) -> bool | None:
    """Return whether a sample has all that a part of S.U.N. asks for; None if that is unknown.

    Args:
        row: of the sample.
        part: one of the `PARTS`.
        state: one of the `STATES`.
        threshold: one of the `THRESHOLDS`; it matters where the part asks for stability.

    A sample that is no crystal has nothing.
    """
    if row["status"] != OK:
        return False
    return all_of(
        is_stable(_settled(row, state), threshold) if flag == "stable" else row[f"{state}{flag}"]
        for flag in PARTS[part]
    )


def verdicts(row: Row, states: Iterable[str]) -> Row:
    """Return the columns of stability and of S.U.N. of the given states, which follow from the rest of a row."""
    return {
        f"{state}{part}_at_{threshold:g}": verdict(row, part, state, threshold)
        for state in states
        for threshold in THRESHOLDS
        for part in ("stable", "sun")
    }


def read_sun_rows(path: Path) -> list[Row]:
    """Return the rows of a file, typed as they were written; floats have ten digits."""
    return read_rows(path, _TEXTS, _INTEGERS, _FLAGS)


def _settled(row: Row, state: str) -> float | None:
    """Return the energy above hull; None of a crystal that did not come to rest or whose energy is not credible."""
    value: float | None = row[f"{state}above_hull"]
    moving = state == "relaxed_" and row["converged"] is not True
    return None if moving or not is_credible(row[f"{state}formation_energy"]) else value
