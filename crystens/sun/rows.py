"""`crystals.csv` of S.U.N.: one row for each sample, failed samples included, and verdicts from its flags.

A flag is true, false, or unknown (None, an empty cell). Columns with the prefix `relaxed_` refer to the relaxed
crystal, other columns to the crystal as generated; without relaxation they are empty. Units: eV/atom, angstrom.
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
# Energies of the potential are in single precision, and change by some 1e-6 eV/atom when a crystal is rotated. A
# crystal on the hull must stay stable.
ROUNDING = 1e-5  # eV/atom

# Distance below a hull, eV/atom, above which a sample is reported. Of 672 real crystals of mp_52, each compared with
# the hull of the others, 2.4 % lie farther below, where the hull has few or no compounds of all their elements. Of the
# 154 with at least three such compounds the farthest lies 0.21 below (`experiments/sun/depth.py`).
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
    """Return whether an energy above hull, eV/atom, is at most a threshold, up to rounding; None if unknown."""
    return None if above_hull is None else above_hull <= threshold + ROUNDING


def is_credible(formation_energy: float | None) -> bool:
    """Return whether a formation energy, eV/atom, is possible for a crystal; True if unknown."""
    return formation_energy is None or formation_energy >= DEEPEST


def all_of(flags: Iterable[bool | None]) -> bool | None:
    """Return whether all flags are true: false if one is false, else unknown if one is unknown."""
    known = list(flags)
    if any(flag is False for flag in known):
        return False
    return None if None in known else True


def verdict(row: Row, part: str, state: str = "", threshold: float = 0.0) -> bool | None:
    """Return whether a sample meets all criteria of a part of S.U.N.; None if unknown.

    Args:
        row: row of the sample.
        part: one of the `PARTS`.
        state: one of the `STATES`.
        threshold: one of the `THRESHOLDS`; used if the part includes stability.

    A sample that is no crystal meets no criterion.
    """
    if row["status"] != OK:
        return False
    return all_of(
        is_stable(_settled(row, state), threshold) if flag == "stable" else row[f"{state}{flag}"]
        for flag in PARTS[part]
    )


def verdicts(row: Row, states: Iterable[str]) -> Row:
    """Return the columns of stability and of S.U.N. of the given states, derived from the rest of a row."""
    return {
        f"{state}{part}_at_{threshold:g}": verdict(row, part, state, threshold)
        for state in states
        for threshold in THRESHOLDS
        for part in ("stable", "sun")
    }


def read_sun_rows(path: Path) -> list[Row]:
    """Return the rows of a file with their original types; floats have ten digits."""
    return read_rows(path, _TEXTS, _INTEGERS, _FLAGS)


def _settled(row: Row, state: str) -> float | None:
    """Return the energy above hull; None if the relaxation did not converge or the energy is not credible."""
    value: float | None = row[f"{state}above_hull"]
    moving = state == "relaxed_" and row["converged"] is not True
    return None if moving or not is_credible(row[f"{state}formation_energy"]) else value
