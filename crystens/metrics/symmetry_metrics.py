"""Entries of `metrics.json` on symmetry: whether samples have the symmetry of real crystals, and the one they state.

All samples are in the denominator. A sample that failed, or in which no space group is found, counts neither as P1 nor
as having its stated group. The number of crystals without a group is an entry too.

The K-S statistics of space groups are in `crystens.metrics.distributions`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from crystens.metrics.crystal_table import OK, Row
from crystens.metrics.distributions import Reference
from crystens.metrics.entries import Metrics, entry, rate
from crystens.metrics.symmetries import LOOSE_SYMPREC, SYMPREC
from crystens.symmetry.space_groups import CRYSTAL_SYSTEMS, crystal_system

# By the suffix of a metric's name: column of the space group found, and its tolerance in words.
_FOUND = {
    "": ("space_group", f"at {SYMPREC:g} angstrom"),
    "_at_0.1": (
        "space_group_at_0.1",
        f"at {LOOSE_SYMPREC:g} angstrom, or a tenth of the shortest distance where that is less",
    ),
}


def symmetry_metrics(rows: Sequence[Row], reference: Reference | None) -> Metrics:
    """Return the metrics of the symmetry of samples.

    Args:
        rows: rows of all samples, failed samples included.
        reference: real crystals; their templates count as known. Without it no template counts as new.
    """
    total = len(rows)
    found = [row for row in rows if row["status"] == OK]
    metrics: Metrics = {
        "unknown_space_group": entry(
            sum(row["space_group"] is None for row in found),
            "samples",
            f"crystals in which no space group is found at {SYMPREC:g} angstrom, as where atoms overlap; they count "
            "neither as P1 nor as having the group they state",
            len(found),
        )
    }
    for end, (column, how) in _FOUND.items():
        metrics[f"p1_rate{end}"] = rate(
            sum(row[column] == 1 for row in rows),
            total,
            f"share of all samples whose atoms have no symmetry but that of a lattice (P1) {how}; failed samples are "
            "not among them",
        )
    stating = sum(row["generated_space_group"] is not None for row in rows)
    for end, (_, how) in _FOUND.items() if stating else ():
        # The loose tolerance alone would miss a stated small distortion that the atoms do have.
        also = f", or at {SYMPREC:g}" if end else ""
        metrics[f"stated_space_group_rate{end}"] = rate(
            sum(_has_stated(row, end) for row in rows),
            total,
            f"share of all samples in whose atoms the space group is found that their image or file states, {how}"
            f"{also}; P1 in a file that lists all atoms is no statement",
            stating=stating,
        )
    groups = Counter(row["space_group"] for row in found if row["space_group"] is not None)
    metrics["num_space_groups"] = entry(
        len(groups), "groups", f"different space groups found at {SYMPREC:g} angstrom", groups.total()
    )
    metrics["crystal_systems"] = _systems(groups, total)
    metrics["num_wyckoff_templates"] = entry(
        len({row["wyckoff_template"] for row in found} - {None}),
        "templates",
        "different Wyckoff templates: space group, letters of the orbits and number of elements",
        groups.total(),
    )
    if reference is not None:
        metrics["novel_template_rate"] = _novel_templates(rows, reference)
    return metrics


def symmetry_shares(rows: Sequence[Row], reference: Reference | None) -> dict[str, float | None]:
    """Return shares of samples: P1, the stated group, a new template; None without samples, or where unknown.

    The names are those of `symmetry_metrics`. Shares of the stated group are missing for samples that state no group.
    """
    known = reference is not None and reference.templates is not None
    stating = any(row["generated_space_group"] is not None for row in rows)
    shares: dict[str, float | None] = {}
    for end, (column, _) in _FOUND.items():
        shares[f"p1_rate{end}"] = _share([row[column] == 1 for row in rows])
    for end in _FOUND:
        shares[f"stated_space_group_rate{end}"] = _share([_has_stated(row, end) for row in rows if stating])
    shares["novel_template_rate"] = _share([_is_novel(row, reference) for row in rows if known])
    return shares


def system_shares(numbers: np.ndarray) -> dict[str, float]:
    """Return the share of each crystal system among space group numbers (N,), by name; all are 0 without numbers."""
    counts = Counter(crystal_system(int(number)) for number in numbers)
    return {name: counts[name] / max(len(numbers), 1) for name in CRYSTAL_SYSTEMS}


def _systems(groups: Counter[int], total: int) -> dict:
    """Return the entry of crystal systems, from the number of samples with each space group."""
    counts = dict.fromkeys(CRYSTAL_SYSTEMS, 0)
    for number, count in groups.items():
        counts[crystal_system(number)] += count
    description = "different crystal systems, of seven; shares: of all samples, of those with a space group"
    shares = {name: count / total for name, count in counts.items()}
    return entry(sum(count > 0 for count in counts.values()), "systems", description, groups.total(), shares=shares)


def _novel_templates(rows: Sequence[Row], reference: Reference) -> dict:
    """Return the entry of templates that the reference does not hold."""
    whose = f"{reference.name} ({reference.split})"
    valid = sum(_is_valid(row) for row in rows)
    if reference.templates is None:
        return entry(None, "1", f"the Wyckoff templates of {whose} are not known", 0)
    new = sum(_is_novel(row, reference) for row in rows)
    which = "valid by structure and composition" if "valid" in rows[0] else "structurally valid"
    return rate(
        new,
        len(rows),
        f"share of all samples that are {which} and have a Wyckoff template (space group, letters of the orbits, "
        f"number of elements) that none of {whose} has, {len(reference.templates)} templates; share_of_valid: the "
        "same as a share of the valid samples alone",
        number=new,
        valid=valid,
        share_of_valid=new / valid if valid else None,
    )


def _is_valid(row: Row) -> bool:
    """Return whether a sample is valid by all criteria that were judged."""
    return bool(row["valid"] if "valid" in row else row["structurally_valid"])


def _is_novel(row: Row, reference: Reference | None) -> bool:
    """Return whether a sample is valid and has a template that the reference (with known templates) lacks."""
    template = row["wyckoff_template"]
    return _is_valid(row) and template is not None and reference is not None and not reference.has_template(template)


def _has_stated(row: Row, end: str) -> bool:
    """Return whether the atoms of a sample have the space group that it states, at the tolerance of a suffix."""
    columns = [column for other, (column, _) in _FOUND.items() if other in ("", end)]
    return any(row[column] is not None and row[column] == row["generated_space_group"] for column in columns)


def _share(truths: Sequence[bool]) -> float | None:
    """Return the share of true values, None without values."""
    return sum(truths) / len(truths) if truths else None
