"""Judging crystals in memory: the metrics of `crystens.evaluate`, without files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ase import Atoms
from pymatgen.core import Structure

from crystens.crystal import Crystal, as_crystal
from crystens.decoding import DecodedCrystal
from crystens.errors import CrystensError
from crystens.generator import Generator
from crystens.metrics.crystal_table import Row, crystal_row, failed_row
from crystens.metrics.distributions import Reference
from crystens.metrics.entries import Metrics
from crystens.metrics.metrics_file import summarise
from crystens.metrics.verdicts import verdict
from crystens.samples.references import read_reference


def judge(
    crystals: Sequence[Structure | Atoms | Crystal | DecodedCrystal | None],
    reference: Generator | Reference | str | Path | None = None,
    data_path: str | None = None,
    split: str | None = None,
) -> Metrics:
    """Return the metrics of crystals: an object with `value`, `unit`, `description` and `count` for each name.

    Args:
        crystals: samples; None is a failed sample and stays in the denominator of every rate. So does a Structure that
            cannot become a Crystal. A `DecodedCrystal` with merged sites is not structurally valid; its Structure would
            no longer show this.
        reference: real crystals to compare with: a generator, with its training data; the name of a data set with its
            `data_path`; "prototypes"; the path of any source; or a `Reference`. None for no comparison.
        data_path: folder or file of the data set.
        split: split of the data set, by default train.

    Raises:
        CrystensError: if there is no sample, an entry is no crystal at all, or the reference cannot be read.
    """
    if isinstance(reference, str | Path):
        reference = read_reference(str(reference), data_path, split)
    elif data_path is not None or split is not None:
        raise CrystensError("data_path and split need a reference that is the name of a data set")
    if isinstance(reference, Generator):
        reference = reference.reference
    if reference is not None and not isinstance(reference, Reference):
        raise CrystensError(
            f"{reference=} must be a generator, the name of a data set, the path of a source, or a Reference"
        )
    rows = [judged_row(index, item, reference) for index, item in enumerate(crystals)]
    metrics = summarise(rows, reference)
    return metrics | verdict(metrics, reference)


def judged_row(
    index: int, item: Structure | Atoms | Crystal | DecodedCrystal | None, reference: Reference | None
) -> Row:
    """Return the row of one sample."""
    if item is None:
        return failed_row(index, "no crystal")
    if isinstance(item, DecodedCrystal):
        if item.crystal is None:
            return failed_row(index, item.reason)
        return crystal_row(
            index,
            item.crystal,
            stated=item.generated_space_group,
            merged=item.merged_sites > 0,
            reference=reference,
        )
    if not isinstance(item, Structure | Atoms | Crystal):
        raise CrystensError(
            f"sample {index} is a {type(item).__name__}; give Structures, Atoms, Crystals, DecodedCrystals or None"
        )
    try:
        crystal = as_crystal(item, space_group=1)  # the row searches for its space group
    except CrystensError as error:
        return failed_row(index, str(error))
    return crystal_row(index, crystal, reference=reference)
