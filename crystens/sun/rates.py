"""`metrics.json` of S.U.N.: rates over all samples, each with its definition, tolerance, hull and number of unknowns.

The denominator of every rate is the number of all samples. A sample that is no crystal, that could not be compared, or
whose stability is unknown does not count as meeting a criterion. `number` counts the samples that meet it, and
`unknown` those that might: (number + unknown) / count is an upper bound of the rate.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from crystens import __version__
from crystens.energies.hull_entries import DEEPEST
from crystens.energies.known_crystals import KnownCrystals
from crystens.errors import CrystensError
from crystens.matching.unique_pool import MATCHER
from crystens.metrics.crystal_table import OK
from crystens.metrics.entries import Metrics
from crystens.sources.reasons import category_counts
from crystens.sun.judge import Stability
from crystens.sun.rows import FAR_BELOW, PARTS, ROUNDING, STATES, THRESHOLDS, Row, verdict

_LIBRARIES = ("pymatgen", "numpy", "ase")


def rates(
    rows: Sequence[Row],
    known: KnownCrystals,
    stability: Stability | None = None,
    about: Mapping[str, Any] | None = None,
) -> Metrics:
    """Return the metrics of the rows of all samples.

    Args:
        rows: rows of all samples, failed samples included.
        known: known crystals for novelty.
        stability: settings of stability; None if it was left out.
        about: origin of the samples, in plain values; kept in `provenance`.

    Raises:
        CrystensError: if there is no row.
    """
    if not rows:
        raise CrystensError("there is no sample to judge; give at least one")
    total = len(rows)
    crystals = [row for row in rows if row["status"] == OK]
    metrics: Metrics = {
        "num_samples": _entry(total, "samples", "all samples, those that are no crystal included", total)
    }
    reasons = category_counts(row["reason"] for row in rows)
    metrics["failures"] = _entry(total - len(crystals), "samples", "no crystals, by reason", total, reasons=reasons)
    valid = sum(row["structurally_valid"] for row in crystals)
    description = (
        "share of all samples with no two atoms nearer than 0.5 angstrom and at least 0.1 angstrom^3, in which "
        "decoding merged no sites"
    )
    metrics["structural_validity"] = _entry(valid / total, "1", description, total, number=valid)
    metrics["known_left_out"] = _entry(
        sum(known.left_out.values()),
        "entries",
        "entries of the known crystals' source that are no ordered crystal, by reason: a sample that is the same as "
        "one of them counts as novel",
        len(known.crystals),
        reasons=known.left_out,
    )
    states = STATES[: 1 if stability is None or stability.relaxation is None else 2]
    for state in states:
        metrics |= _state_rates(rows, state, known, stability)
        if stability is not None:
            metrics[f"{state}hull"] = _hull(crystals, state, stability)
    made_with = {"crystens": __version__, "python": platform.python_version(), "torch": torch.__version__}
    made_with |= {name: version(name) for name in _LIBRARIES}
    made_with |= {"matcher": MATCHER, "known": known.name} | ({} if stability is None else _how(stability))
    metrics["provenance"] = _entry({**made_with, **(about or {})}, "", "what the numbers were made with", total)
    return metrics


def _state_rates(rows: Sequence[Row], state: str, known: KnownCrystals, stability: Stability | None) -> Metrics:
    """Return the rates of crystals as generated, or relaxed."""
    crystals = [row for row in rows if row["status"] == OK]
    which = (
        "crystals as they were generated" if state == "" else f"crystals relaxed by the potential, {_rest(stability)}"
    )
    texts = {
        "unique": "the same as no earlier unique sample (the first of each group is unique)",
        "novel": f"the same as none of {known.name}",
    }
    same = f"two crystals are the same by {MATCHER}"
    metrics: Metrics = {}
    for part, flags in PARTS.items():
        if stability is None and "stable" in flags:
            continue
        for threshold in THRESHOLDS if "stable" in flags else THRESHOLDS[:1]:
            told = [texts[flag] for flag in flags if flag in texts]
            if "stable" in flags:
                near = f"at most {threshold:g} eV/atom above the hull (see {state}hull; {ROUNDING:g} is rounding)"
                told.insert(0, near)
            compared = f"; {same}" if set(flags) & set(texts) else ""
            description = f"share of all samples that are {', and '.join(told)}; {which}{compared}"
            name = f"{state}{part}_rate" + (f"_at_{threshold:g}" if "stable" in flags else "")
            answers = [verdict(row, part, state, threshold) for row in rows]
            number, unknown = sum(answer is True for answer in answers), sum(answer is None for answer in answers)
            metrics[name] = _entry(number / len(rows), "1", description, len(rows), number=number, unknown=unknown)
    metrics[f"{state}unknown_sameness"] = _unknown(crystals, f"{state}sameness_reason", "uniqueness or novelty", which)
    if stability is not None:
        what = f"stability (not credible: a formation energy below {DEEPEST:g} eV/atom)"
        metrics[f"{state}unknown_stability"] = _unknown(crystals, f"{state}stability_reason", what, which)
        above = [row[f"{state}above_hull"] for row in crystals if row[f"{state}above_hull"] is not None]
        description = f"median energy above the hull where it is known, negative below it; {which}"
        if state:
            description += ", unconverged relaxations included"
        doubts = hull_doubts(crystals, state)
        for name, one in metrics.items():
            if doubts and "stable" in PARTS.get(name.removeprefix(state).partition("_rate")[0], ()):
                one["statement"] = "; ".join(doubts)
        value = float(np.median(above)) if above else None
        metrics[f"{state}median_energy_above_hull"] = _entry(value, "eV/atom", description, len(above))
    if state:
        metrics |= _relaxing(crystals)
    return metrics


def hull_doubts(crystals: Sequence[Row], state: str) -> list[str]:
    """Return reasons to doubt that samples which count as stable are stable, in words; empty if there is none.

    Args:
        crystals: rows of the samples that are crystals.
        state: one of the `STATES`.
    """
    stable = [row for row in crystals if verdict(row, "stable", state, THRESHOLDS[-1])]
    alone = sum(not row[f"{state}hull_compounds"] for row in stable)
    found = []
    if alone:
        found.append(
            f"for {alone} of the {len(stable)} samples that count as stable at {THRESHOLDS[-1]:g} the hull has only "
            "elements and no competing compound: their stability is not shown"
        )
    above = [row[f"{state}above_hull"] for row in crystals if row[f"{state}above_hull"] is not None]
    below = [-value for value in above if value < -FAR_BELOW]
    if below:
        found.append(
            f"{len(below)} of {len(above)} samples lie more than {FAR_BELOW:g} eV/atom below the hull, the farthest "
            f"{max(below):.1f}: the hull lacks competing compounds, or the energies are wrong"
        )
    return found


def _relaxing(crystals: Sequence[Row]) -> Metrics:
    """Return the metrics of relaxation."""
    relaxed = [row for row in crystals if row["relaxation_steps"] is not None]
    rest = sum(row["converged"] for row in relaxed)
    ways = [row["displacement"] for row in relaxed]
    return {
        "relaxed": _entry(len(relaxed), "samples", "crystals that were relaxed", len(crystals), at_rest=rest),
        "median_displacement": _entry(
            float(np.median(ways)) if ways else None,
            "angstrom",
            "largest displacement of a site in relaxation, median over relaxed crystals",
            len(ways),
        ),
    }


def _hull(crystals: Sequence[Row], state: str, stability: Stability) -> dict[str, Any]:
    """Return the entry of the hull's composition."""
    reference = stability.hull(state)
    alone = sum(row[f"{state}above_hull"] is not None and not row[f"{state}hull_compounds"] for row in crystals)
    scale = reference.scale if reference.element_energies is None else "formation energies (see note)"
    description = (
        f"entries of the hull: {reference.name}; scale {scale}. Samples are not part of it. Unknown compounds could "
        "lower the hull, so that a distance is a lower bound and a stable rate an upper bound. only_elements: samples "
        "without a competing compound; left_out: crystals of the reference without an energy"
    )
    return _entry(
        len(reference.entries),
        "entries",
        description,
        len(crystals),
        elements=len(reference.elements),
        only_elements=alone,
        left_out=reference.left_out,
        note=reference.note,
    )


def _how(stability: Stability) -> dict[str, Any]:
    """Return the settings of stability in plain values."""
    return {
        "potential": stability.potential.identity,
        "relaxation": None if stability.relaxation is None else _rest(stability),
    }


def _rest(stability: Stability | None) -> str:
    """Return the relaxation in words."""
    if stability is None or stability.relaxation is None:
        return ""
    relaxation = stability.relaxation
    return (
        f"atoms and cell, to at most {relaxation.force:g} eV/angstrom within {relaxation.steps} steps; unconverged "
        "relaxations are unknown"
    )


def _unknown(crystals: Sequence[Row], column: str, what: str, which: str) -> dict[str, Any]:
    """Return the number of crystals with an unknown result, by reason."""
    reasons = category_counts(row[column] for row in crystals)
    description = f"crystals whose {what} is unknown, by reason; {which}"
    return _entry(sum(reasons.values()), "samples", description, len(crystals), reasons=reasons)


def _entry(value: Any, unit: str, description: str, count: int, **more: Any) -> dict[str, Any]:
    """Return one metric."""
    return {"value": value, "unit": unit, "description": description, "count": count, **more}
