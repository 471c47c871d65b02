"""`metrics.json`: metrics computed from the rows of `crystals.csv`, each with its meaning, unit and count.

Each metric is an entry (`crystens.metrics.entries`). If the reference knows metrics of held-out real crystals, the
entry has their value too (`held_out`). A Kolmogorov-Smirnov statistic also has its critical value at 1 % for the number
of samples (`critical_value`).
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pymatgen.core import Composition
from torch import Tensor

from crystens import __version__
from crystens.errors import CrystensError
from crystens.metrics.adherence import adherence_metrics
from crystens.metrics.crystal_table import OK, ORBIT_COLUMNS, Row
from crystens.metrics.distributions import QUANTITIES, Reference, critical_ks, finite_counts, ks_statistics
from crystens.metrics.entries import Metrics, average, entry, rate
from crystens.metrics.plausibility import CLOSE_RATIO, MIN_RATIO
from crystens.metrics.statistics import STATISTICS
from crystens.metrics.symmetry_metrics import symmetry_metrics
from crystens.metrics.validity import MIN_DISTANCE, MIN_VOLUME
from crystens.processes.atomic_file import write_whole
from crystens.sources.reasons import category_counts
from crystens.symmetry.projection import REPAIRS

_STATISTIC_TEXTS = {
    "cell_length_variance": ("angstrom^2", "population variance of the copies of a, b and c, mean of the three"),
    "cell_angle_variance": (
        "degree^2",
        "population variance of the copies of alpha, beta and gamma, mean of the three",
    ),
    "space_group_variance": ("1", "population variance of the copies of the space group number"),
    "coordinate_variance": (
        "fractional^2",
        "population variance of the 8 copies of a coordinate, mean over sites, x, y, z",
    ),
    "coordinate_agreement": ("fractional", "|own coordinate - mean of the votes|, mean over sites and x, y, z"),
    "pairwise_agreement": (
        "fractional",
        "sum over ordered pairs of |distance block - distance of the decoded coordinates|, divided by the number of "
        "sites",
    ),
}
_QUANTITY_TEXTS = {
    "a": "cell length a",
    "b": "cell length b",
    "c": "cell length c",
    "alpha": "cell angle alpha",
    "beta": "cell angle beta",
    "gamma": "cell angle gamma",
    "space_group": "space group number found in the atoms",
    "Z": "atomic number, one value a site (count: sites)",
}


def summarise(
    rows: Sequence[Row],
    reference: Reference | None = None,
    about: Mapping[str, Any] | None = None,
    distance: str = "fractional",
    projected: Sequence[Mapping[str, Tensor]] = (),
) -> Metrics:
    """Return the metrics of samples.

    Args:
        rows: rows of all samples, failed samples included.
        reference: real crystals to compare with; without them there are no Kolmogorov-Smirnov statistics and no
            novelty.
        about: origin of the samples (model, seed, checkpoint, decoding), in plain values; kept in `provenance`.
        distance: kind of distance in the distance block, which decides the unit of the pairwise agreement.
        projected: `image_statistics` of the images, batch by batch, after mirror images were averaged, for models that
            average them in sampling; added to the statistics of the images as the network gave them.

    Raises:
        CrystensError: if there is no row.
    """
    if not rows:
        raise CrystensError("there is no sample to judge; draw at least one")
    total = len(rows)
    decoded = [row for row in rows if row["status"] == OK]
    from_images = STATISTICS[0] in rows[0]
    metrics: Metrics = {"num_samples": entry(total, "samples", "all samples, those that failed included", total)}
    if from_images:
        for name in STATISTICS:
            metrics[name] = _statistic(name, [row[name] for row in rows], "on the image as the network gave it")
        for name in STATISTICS if projected else ():
            values = torch.cat([batch[name] for batch in projected]).tolist()
            metrics[f"{name}_projected"] = _statistic(name, values, "once its mirror images are averaged")
        if distance == "cartesian":
            for name in ("pairwise_agreement", "pairwise_agreement_projected"):
                metrics.get(name, {})["unit"] = "angstrom"
    how = "decoded to a crystal" if from_images else "could be read as an ordered crystal"
    metrics["decoded_rate"] = rate(len(decoded), total, f"share of all samples that {how}")
    metrics["structural_validity"] = rate(
        sum(bool(row["structurally_valid"]) for row in decoded),
        total,
        f"share of all samples with no two atoms nearer than {MIN_DISTANCE} angstrom over periodic images and a volume "
        f"of at least {MIN_VOLUME} angstrom^3; failed samples are not valid"
        + ("; measured before decoding merged such sites, so a sample with a merged site is not valid" * from_images),
    )
    if from_images:
        metrics["structural_validity_after_merging"] = rate(
            sum(_is_valid_as_written(row) for row in decoded),
            total,
            "the same of the crystals as they are written, after decoding merged sites that were too near",
        )
    formulas = {row["formula"] for row in decoded}
    metrics["unique_formula_rate"] = rate(
        len(formulas), total, "number of different reduced formulas divided by the number of all samples"
    )
    if reference is not None:
        known = set(reference.formulas)
        metrics["novel_formula_rate"] = rate(
            sum(row["formula"] not in known for row in decoded),
            total,
            f"share of all samples whose reduced formula is not in {reference.name} ({reference.split}, "
            f"{len(known)} formulas); failed samples are not novel",
        )
        metrics |= _distances(decoded, reference, from_images)
        if (about or {}).get("decode", {}).get("cell") == "conventional":
            _withdraw_cells(metrics)
    metrics |= symmetry_metrics(rows, reference)
    if from_images:
        merged = [float(row["merged_sites"]) for row in decoded]
        metrics["mean_merged_sites"] = average(
            merged, "sites", "sites merged into others in decoding, mean over decoded samples"
        )
    if ORBIT_COLUMNS[0] in rows[0]:
        metrics |= _repairs(rows)
    if moves := [row["largest_move"] for row in rows if row.get("largest_move") is not None]:
        text = "longest way of a site onto its place in the stated space group, mean over samples that have it imposed"
        metrics["mean_largest_move"] = average(moves, "angstrom", text)
    metrics |= _plausibility(rows, reference)
    metrics["failures"] = _failures(rows)
    if reference is not None and reference.held_out is not None:
        for name in metrics.keys() & reference.held_out.keys():
            metrics[name]["held_out"] = reference.held_out[name]
    metrics |= adherence_metrics(rows)
    metrics["provenance"] = _provenance(total, reference, about or {})
    return metrics


def _plausibility(rows: Sequence[Row], reference: Reference | None) -> Metrics:
    """Return the metrics of the columns of `crystens.metrics.plausibility`."""
    total = len(rows)
    metrics = {
        "plausible_distance_rate": rate(
            sum(row["status"] == OK and row["distance_ratio"] >= MIN_RATIO for row in rows),
            total,
            f"share of all samples with no two atoms nearer than {MIN_RATIO:g} of the sum of their covalent radii",
        ),
        "close_atoms_rate": rate(
            sum(row["status"] == OK and row["distance_ratio"] < CLOSE_RATIO for row in rows),
            total,
            f"share of all samples whose nearest two atoms are closer than {CLOSE_RATIO:g} of the sum of their "
            "covalent radii, as in 1 or 2 % of real crystals",
        ),
        "charge_neutral_rate": rate(
            sum(bool(row["charge_neutral"]) for row in rows),
            total,
            "share of all samples whose composition can be charge neutral by pymatgen's oxidation states with the "
            "Pauling test; single elements and alloys pass",
        ),
        "valid_and_neutral_rate": rate(
            sum(bool(row["structurally_valid"] and row["charge_neutral"]) for row in rows),
            total,
            "share of all samples that are structurally valid and pass as charge neutral",
        ),
        "mean_plausibility": entry(
            sum(row["plausibility"] or 0.0 for row in rows) / total,
            "1",
            "plausibility of a sample: 0 if atoms overlap, else the share of conditions that hold: distances, neutral "
            "composition, symmetry, known formula or template; mean over all samples, failed ones with 0",
            total,
        ),
    }
    if reference is not None:
        whose = f"{reference.name} ({reference.split})"
        for kind, what in (("formula", "reduced formula"), ("template", "Wyckoff template")):
            text = f"share of all samples whose {what} a crystal of {whose} has"
            if kind == "template" and reference.templates is None:
                metrics["known_template_rate"] = entry(None, "1", f"{text}; its templates are not known", 0)
            else:
                metrics[f"known_{kind}_rate"] = rate(sum(_is_known(row, kind, reference) for row in rows), total, text)
    return metrics


def _is_known(row: Row, kind: str, reference: Reference) -> bool:
    """Return whether the reference has the formula or the template of a sample."""
    if row["status"] != OK:
        return False
    if kind == "formula":
        return reference.has_formula(row["formula"])
    return bool(reference.has_template(row["wyckoff_template"]))


def write_metrics(path: str | Path, metrics: Metrics) -> None:
    """Write metrics as JSON, atomically: a kill leaves the old file or the new one."""
    write_whole(path, json.dumps(metrics, indent=2, allow_nan=False, default=str) + "\n")


def generated_values(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """Return the values of the `QUANTITIES` in decoded samples: one for each crystal, for Z one for each site.

    The space group is the group found in the atoms, for samples from images and from files.
    """
    decoded = [row for row in rows if row["status"] == OK]
    values = {name: _column(decoded, name) for name in QUANTITIES if name != "Z"}
    values["Z"] = np.concatenate([np.zeros(0), *(_atomic_numbers(row["formula"], row["num_sites"]) for row in decoded)])
    return values


def _column(rows: Sequence[Row], name: str) -> np.ndarray:
    """Return a column as floats, NaN where there is no value."""
    return np.array([np.nan if row[name] is None else row[name] for row in rows], dtype=np.float64)


def _atomic_numbers(formula: str, num_sites: int) -> np.ndarray:
    """Return the atomic number of each site of a cell with a reduced formula: (num_sites,)."""
    composition = Composition(formula)
    units = num_sites / composition.num_atoms
    return np.concatenate([np.full(round(amount * units), element.Z) for element, amount in composition.items()])


def _statistic(name: str, values: Sequence[float | None], where: str) -> dict[str, Any]:
    """Return the mean of an image statistic, measured at the stage `where`, over samples whose image holds a site."""
    unit, meaning = _STATISTIC_TEXTS[name]
    description = f"{meaning}; measured {where}, mean over all samples that hold a site"
    return average([value for value in values if value is not None and math.isfinite(value)], unit, description)


def _distances(decoded: Sequence[Row], reference: Reference, from_images: bool) -> Metrics:
    """Return the Kolmogorov-Smirnov statistics."""
    values = generated_values(decoded)
    distances, counts = ks_statistics(values, reference), finite_counts(values)
    entries = {}
    for quantity in QUANTITIES:
        name = f"ks_{quantity}"
        meaning = _QUANTITY_TEXTS[quantity]
        description = (
            f"Kolmogorov-Smirnov statistic (0 same, 1 disjoint) of the {meaning}: decoded samples against "
            f"{reference.name} ({reference.split})"
        )
        value = distances[name] if counts[name] else None
        # For Z, too, the number of crystals: the atoms of one crystal are not independent.
        critical = critical_ks(min(counts[name], len(decoded)), reference.count) if counts[name] else None
        entries[name] = entry(
            value,
            "1",
            description,
            counts[name],
            reference_count=len(reference.values[quantity]),
            critical_value=critical,
        )
    stated = {**values, "space_group": _column(decoded, "generated_space_group")}
    count = finite_counts(stated)["ks_space_group"]
    if from_images or count:
        value = ks_statistics(stated, reference)["ks_space_group"] if decoded else None
        description = entries["ks_space_group"]["description"].replace(
            "found in the atoms", "that the image or file states"
        )
        entries["ks_generated_space_group"] = {**entries["ks_space_group"], "value": value, "description": description}
        entries["ks_generated_space_group"].update(
            count=count, critical_value=critical_ks(count, reference.count) if count else None
        )
    return entries


def _withdraw_cells(metrics: Metrics) -> None:
    """Withdraw metrics that would compare conventional cells of samples with primitive cells of the training data."""
    for quantity in QUANTITIES:
        if quantity != "space_group":
            why = (
                "not compared: the samples are in conventional cells (decode.cell), the training data in primitive ones"
            )
            metrics[f"ks_{quantity}"].update(value=None, description=why)


def _repairs(rows: Sequence[Row]) -> Metrics:
    """Return the number of samples that decoding repaired, of samples from images of orbits."""
    total = len(rows)
    kinds = {kind: f"{kind}_orbits" for kind in REPAIRS}
    mended = {kind: sum(bool(row[column]) for row in rows) for kind, column in kinds.items()}
    any_kind = sum(any(row[column] for column in kinds.values()) for row in rows)
    return {
        "repaired_rate": entry(
            any_kind / total,
            "1",
            "share of all samples whose orbits decoding repaired: two orbits on one position, overlapping sites of one "
            "orbit, or overlapping orbits",
            total,
            samples=mended,
        ),
    }


def _is_valid_as_written(row: Row) -> bool:
    """Return whether the crystal of a row has a volume and no atoms too near."""
    nearest = row["shortest_distance"]
    return row["volume"] >= MIN_VOLUME and (nearest is None or nearest >= MIN_DISTANCE)


def _failures(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the number of failed samples, and their reasons."""
    reasons = category_counts(row["reason"] or "no reason given" for row in rows if row["status"] != OK)
    return entry(sum(reasons.values()), "samples", "samples that failed, by reason", len(rows), reasons=reasons)


def _provenance(total: int, reference: Reference | None, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings behind the metrics."""
    made_with: dict[str, Any] = {
        "crystens": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pymatgen": version("pymatgen"),
        "numpy": np.__version__,
    }
    if reference is not None:
        made_with["reference"] = {"name": reference.name, "split": reference.split, "count": reference.count}
    return entry({**made_with, **about}, "", "what the numbers were made with", total)
