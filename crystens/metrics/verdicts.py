"""Verdicts on samples in words: shares, compared with those of real crystals, and shortcomings.

A verdict is given only if the number of samples allows it: on a share by its confidence limit at 99 %, on a
distribution by the critical value of its Kolmogorov-Smirnov statistic at 1 %. So two good samples are not called bad
for not being distributed like thousands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from scipy.stats import beta

from crystens.metrics.crystal_table import ASKED
from crystens.metrics.distributions import Reference, critical_ks
from crystens.metrics.entries import Metrics, entry
from crystens.metrics.plausibility import CLOSE_RATIO, MIN_RATIO
from crystens.metrics.statistics import STATISTICS

_CONFIDENCE = 0.99
_FAR = 0.5  # Kolmogorov-Smirnov statistic above which samples are not distributed like the training data
_FEWEST = 11  # reference crystals: with fewer, the critical value is above _FAR, whatever the number of samples
_HALF = 0.5  # least share of samples that are crystals at all
_SOUND = 0.8  # least share of decoded samples without overlapping atoms; 1 for real crystals
_LACKING = 0.3  # largest difference between a share of samples and that of real crystals
_NEUTRAL = 0.8  # share of neutral compositions of real crystals where it is not known: that of mp_52 and mp_3dsc
_CLOSE = 0.02  # share of real crystals with close atoms where it is not known
_MORE_CLOSE = 0.1  # by how much more samples may have them
_FAILING = 0.05  # largest share of failed samples

# Conditions (`ASKED`) on the composition of a sample, and on its space group.
_COMPOSITIONS = ("formula", "chemical_system", "elements", "num_elements", "charge_neutral")
_GROUPS = ("space_group", "crystal_system")

# Variances whose root counts as a shortcoming above a bound: metric, bound, quantity, unit. The variances of a real
# crystal's image are 0. Above these bounds the decoded crystal depends on the choice among the copies of a value.
_CONSISTENT = (
    ("cell_length_variance", 0.3, "cell length", "angstrom"),
    ("cell_angle_variance", 3.0, "cell angle", "degrees"),
    ("coordinate_variance", 0.03, "coordinate", "of the cell"),
)

# Ideal value of a metric where none of real crystals is known, by the beginning of its name.
_AS_REAL = "as real"
_BEST = {
    "decoded_rate": "1",
    "structural_validity": "1",
    "compositional_validity": _AS_REAL,
    "validity": _AS_REAL,
    "plausible_distance_rate": "1",
    "charge_neutral_rate": _AS_REAL,
    "valid_and_neutral_rate": _AS_REAL,
    "mean_plausibility": "1",
    "stated_space_group_rate": "1",
    "unknown_space_group": "0",
    "fingerprint_failures": "0",
    "mean_merged_sites": "0",
    "mean_largest_move": "0",
    "repaired_rate": "0",
    "cov_": "1",
    "wasserstein_": "0",
    "ams": "0",
    "amc": "0",
    **dict.fromkeys(STATISTICS, "0"),
    **dict.fromkeys(("novel_", "known_", "unique_", "close_", "p1_rate", "num_", "crystal_systems", "ks_"), _AS_REAL),
}
_NO_TARGET = ("num_samples", "reference_")


def good(name: str, entry: dict[str, Any]) -> str:
    """Return a good value of a metric: that of held-out real crystals, else an ideal or a word, else an empty text."""
    real = "" if entry.get("held_out") is None else f"{entry['held_out']:.4g}"
    if entry.get("critical_value") is not None:
        if entry["critical_value"] >= 1:
            return "too few"
        within = f"≤ {entry['critical_value']:.2g}"
        return f"{real} ({within})" if real else within
    if real:
        return real
    if name.startswith(_NO_TARGET):
        return ""
    return next((best for start, best in _BEST.items() if name.startswith(start)), "")


def summary(metrics: Metrics, reference: Reference | None = None) -> str:
    """Return the main shares, with those of held-out real crystals, as a sentence."""
    composition, both = _names(metrics)
    parts = [
        _part(metrics, "structural_validity", "valid by structure"),
        _part(metrics, composition, "by composition"),
        _part(metrics, both, "by both"),
        _part(metrics, "p1_rate", "P1"),
        _part(metrics, "known_formula_rate", "formula known"),
        _part(metrics, "known_template_rate", "Wyckoff template known"),
    ]
    told = f"Of all samples: {', '.join(part for part in parts if part)}"
    if reference is not None and reference.held_out is not None:
        told += f"; in brackets: real crystals outside the reference ({reference.held_out_name})"
    return f"{told}."


def shortcomings(metrics: Metrics, reference: Reference | None = None) -> list[str]:
    """Return the shortcomings of samples in words; empty if none is shown.

    Samples may repeat formulas as the reference does: all of Carbon-24 are C. Samples under conditions need not be
    distributed like the reference, and meeting a condition is no shortcoming.
    """
    found = []
    for name, bound, what, unit in _CONSISTENT if _CONSISTENT[0][0] in metrics else ():
        value = metrics[name]["value"]
        if value is not None and math.sqrt(value) > bound:
            found.append(f"copies of one {what} in an image differ by {math.sqrt(value):.2g} {unit} (real crystals: 0)")
    merged = metrics["mean_merged_sites"]["value"] if "mean_merged_sites" in metrics else None
    if merged is not None and merged > 0.5:
        found.append(f"{merged:.2g} sites a crystal stood within another and were merged")
    found += _poor_shares(metrics, reference)
    if reference is not None and not _asked(metrics):
        formulas, decoded = metrics["unique_formula_rate"]["value"], metrics["decoded_rate"]["value"]
        if decoded and formulas < 0.2 * decoded * len(reference.formulas) / reference.count:
            found.append(f"only {formulas / decoded:.0%} of the decoded samples have a formula of their own")
    far = [name for name, one in metrics.items() if name.startswith("ks_") and _is_far(one)]
    if far and not _asked(metrics):
        found.append(
            f"not distributed like the training data (Kolmogorov-Smirnov statistic over {_FAR:g}): {', '.join(far)}"
        )
    return found


def verdict(metrics: Metrics, reference: Reference | None = None) -> Metrics:
    """Return one more metric: the number of shortcomings, with the verdict in `sentences`."""
    found, told = shortcomings(metrics, reference), [summary(metrics, reference)]
    if found:
        kind = "junk, not usable crystals" if _is_junk(metrics) else "not usable crystals"
        told.append(f"By these numbers they are {kind}: {'; '.join(found)}.")
    total = metrics["num_samples"]["value"]
    few = _most(0, total) > _HALF
    lacks_real = reference is not None and reference.count < _FEWEST
    critical = math.inf if reference is None else critical_ks(total, reference.count)
    if few:
        samples = "1 sample is" if total == 1 else f"{total} samples are"
        told.append(f"{samples} too few to judge shares or distributions by: look at each crystal.")
    elif not found and not lacks_real:
        told.append("No shortcoming is shown by these numbers.")
    if reference is not None and lacks_real:
        told.append(
            f"A verdict needs more real crystals: the reference ({reference.split}) has {reference.count}, and "
            f"distributions are compared with at least {_FEWEST}."
        )
    elif not few and reference is not None and critical > _FAR:
        told.append(
            f"{total} samples are too few to judge distributions by: the Kolmogorov-Smirnov statistic of as many real "
            f"crystals can be {min(critical, 1):.2g}."
        )
    description = "shortcomings that keep samples from being usable crystals, as far as their number can show any"
    return {"verdict": entry(len(found), "shortcomings", description, total, shortcomings=found, sentences=told)}


def _names(metrics: Metrics) -> tuple[str, str]:
    """Return the names of the metrics of composition and of overall validity: the protocol's, if it was used."""
    if "compositional_validity" in metrics:
        return "compositional_validity", "validity"
    return "charge_neutral_rate", "valid_and_neutral_rate"


def _part(metrics: Metrics, name: str, what: str) -> str:
    """Return one share in words, with that of real crystals in brackets; an empty text if it is not known."""
    entry = metrics.get(name)
    if entry is None or entry["value"] is None:
        return "" if entry is None else f"{what} in an unknown share"
    real = f" ({_percent(entry['held_out'])})" if entry.get("held_out") is not None else ""
    return f"{what} {_percent(entry['value'])}{real}"


def _percent(share: float) -> str:
    """Return a share in percent, with a decimal if it is small."""
    return f"{100 * share:.1f} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


def _poor_shares(metrics: Metrics, reference: Reference | None) -> list[str]:
    """Return shortcomings in shares of samples, by their confidence limits; failed samples are a shortcoming apart."""
    found, decoded = [], metrics["decoded_rate"]["value"]
    if _at_most(metrics["plausible_distance_rate"]) < _SOUND * decoded:
        within = decoded - metrics["plausible_distance_rate"]["value"]
        found.append(
            f"in {_percent(within)} of them atoms overlap (nearer than {MIN_RATIO:g} of the sum of their covalent "
            "radii, as in no real crystal)"
        )
    close = metrics["close_atoms_rate"]
    real_close = _real(close, _CLOSE)
    if _at_least(close) > real_close + _MORE_CLOSE:
        found.append(
            f"in {_percent(close['value'])} of them the nearest atoms are closer than {CLOSE_RATIO:g} of the sum of "
            f"their covalent radii (real: {_percent(real_close)})"
        )
    if _at_most(metrics["structural_validity"]) < _SOUND * decoded:
        found.append(f"only {_percent(metrics['structural_validity']['value'])} are structurally valid")
    composition = metrics[_names(metrics)[0]]
    neutral = _real(composition, _NEUTRAL)
    if not _asked(metrics, _COMPOSITIONS) and _at_most(composition) < (neutral - _LACKING) * decoded:
        found.append(f"only {_percent(composition['value'])} have a neutral composition (real: {_percent(neutral)})")
    known = 0.0 if reference is None else float((reference.values["space_group"] == 1).mean())
    p1 = metrics["p1_rate"]
    lattices = _real(p1, known)
    if not _asked(metrics, _GROUPS) and _at_least(p1) > lattices + _LACKING:
        found.append(f"{_percent(p1['value'])} have no symmetry (P1; real: {_percent(lattices)})")
    failed, total = metrics["failures"]["value"], metrics["num_samples"]["value"]
    if _least(failed, total) > _FAILING:
        found.append(f"{failed} of {total} samples could not be decoded")
    return found


def _is_junk(metrics: Metrics) -> bool:
    """Return whether most samples are no crystals at all: atoms overlap, or almost none is valid."""
    both, decoded = metrics[_names(metrics)[1]], metrics["decoded_rate"]["value"]
    if _at_most(metrics["plausible_distance_rate"]) < _HALF * decoded:
        return True
    return not _asked(metrics, _COMPOSITIONS) and _at_most(both) < _real(both, _NEUTRAL) / 4 * decoded


def _asked(metrics: Metrics, names: Sequence[str] = ASKED) -> bool:
    """Return whether samples were drawn under any of these conditions."""
    return any(f"{name}_met_rate" in metrics for name in names)


def _is_far(entry: dict[str, Any]) -> bool:
    """Return whether a Kolmogorov-Smirnov statistic is large, and above its critical value."""
    value, critical = entry["value"], entry.get("critical_value")
    return value is not None and value > _FAR and critical is not None and value > critical


def _real(entry: dict[str, Any], otherwise: float) -> float:
    """Return the value of held-out real crystals, or `otherwise`."""
    return float(entry["held_out"]) if entry.get("held_out") is not None else otherwise


def _at_most(entry: dict[str, Any]) -> float:
    """Return the upper confidence limit of a share."""
    return _most(round(entry["value"] * entry["count"]), entry["count"])


def _at_least(entry: dict[str, Any]) -> float:
    """Return the lower confidence limit of a share."""
    return _least(round(entry["value"] * entry["count"]), entry["count"])


def _most(part: int, total: int) -> float:
    """Return the upper one-sided limit of a share (Clopper and Pearson, Biometrika 1934, 26, 404)."""
    return 1.0 if part == total else float(beta.ppf(_CONFIDENCE, part + 1, total - part))


def _least(part: int, total: int) -> float:
    """Return the lower one-sided limit of a share."""
    return 0.0 if part == 0 else float(beta.ppf(1 - _CONFIDENCE, part, total - part + 1))
