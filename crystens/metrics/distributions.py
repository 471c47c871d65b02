"""Distributions of real and generated crystals, and how far apart they are (the paper's Figs. 4-6).

The eight `QUANTITIES` are compared: a, b, c (angstrom), alpha, beta, gamma (degree) and the space group number, with
one value for each crystal, and the atomic number Z, with one value for each site. The distance is the two-sample
Kolmogorov-Smirnov statistic: the largest gap of the two cumulative distributions, 0 for equal and 1 for disjoint ones.
It has no parameter and needs no bins.

A `Reference` keeps all real values. A checkpoint contains it, so that samples are judged without the training data.

Source: Alverson et al., Digital Discovery 2024, 3, 62, Sec. 4, Figs. 4-6.
"""

from __future__ import annotations

import functools
import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crystens.batch import CrystalBatch
from crystens.chemistry.formulas import reduced_composition, reduced_formula
from crystens.crystal import MAX_ATOMIC_NUMBER
from crystens.decoding import ImageReading
from crystens.errors import CrystensError
from crystens.metrics.symmetries import templates

log = logging.getLogger(__name__)

QUANTITIES = ("a", "b", "c", "alpha", "beta", "gamma", "space_group", "Z")

_TEXTS = ("formulas", "name", "split")
# Largest reference whose templates are found: that many take two minutes, once (`crystens.metrics.symmetries`).
MOST_TEMPLATES = 200_000

_SIGNIFICANCE = 0.01

_TEMPLATES = "templates"  # missing in references that were written before templates were kept

_HELD_OUT = "held_out"  # the same

_AT_ONCE = 1000  # crystals taken out of a batch at a time

# Values are compared to this many decimals (0.001 angstrom or degree): an angle of 90.000004, read from an image, must
# not differ from real angles of 90.
_DECIMALS = 3


@dataclass(frozen=True, eq=False)
class Reference:
    """The real crystals that samples are compared with.

    Attributes:
        values: a float32 array of all values for each of the `QUANTITIES`: (crystals,), for Z (sites,).
        formulas: the distinct reduced formulas, sorted.
        name: name of the crystals, for messages.
        split: the split that they are, by default "train".
        count: number of crystals.
        templates: the distinct Wyckoff templates (`crystens.metrics.symmetries.templates`), sorted; None where unknown:
            for references that were written before templates were kept, or that are larger than `MOST_TEMPLATES`.
        held_out: metrics of real crystals outside the reference, by name (`crystens.metrics.held_out`); None if there
            are none.
        held_out_name: name of the held-out crystals, for messages.
    """

    values: dict[str, np.ndarray]
    formulas: tuple[str, ...]
    name: str
    split: str
    count: int
    templates: tuple[str, ...] | None = None
    held_out: Mapping[str, float] | None = None
    held_out_name: str = ""

    def __post_init__(self) -> None:
        """Check that every quantity is there."""
        if set(self.values) != set(QUANTITIES):
            raise CrystensError(f"a reference needs values of {', '.join(QUANTITIES)}; got {', '.join(self.values)}")

    @classmethod
    def from_crystals(
        cls,
        crystals: CrystalBatch,
        name: str,
        split: str = "train",
        progress: Callable[[int], None] | None = None,
        with_templates: bool = True,
    ) -> Reference:
        """Return the reference of real crystals.

        Args:
            crystals: the crystals.
            name: name of the crystals, for messages.
            split: the split that they are.
            progress: called with the number of crystals whose template is known.
            with_templates: False leaves templates out, for lists of orbits, which are no crystals.

        Raises:
            CrystensError: if there are none.
        """
        if len(crystals) == 0:
            raise CrystensError(f"the {split} split of {name} is empty: there is nothing to compare samples with")
        columns = torch.cat([crystals.lengths, crystals.angles, crystals.space_groups[:, None].float()], dim=1)
        values = dict(zip(QUANTITIES, columns.T.float().numpy(force=True).copy(), strict=False))
        values["Z"] = crystals.numbers[crystals.site_mask].float().numpy(force=True)
        found = _templates(crystals, progress) if with_templates else None
        return cls(values, _formulas(crystals), name, split, len(crystals), found)

    @functools.cached_property
    def _known_formulas(self) -> frozenset[str]:
        """The formulas as a set."""
        return frozenset(self.formulas)

    @functools.cached_property
    def _known_templates(self) -> frozenset[str | None]:
        """The templates as a set."""
        return frozenset(self.templates or ())

    def has_formula(self, formula: str) -> bool:
        """Return whether a reduced formula occurs in the reference."""
        return formula in self._known_formulas

    def has_template(self, template: str | None) -> bool | None:
        """Return whether a Wyckoff template occurs in the reference; None if its templates are not known."""
        return None if self.templates is None else template in self._known_templates

    def state_dict(self) -> dict[str, Any]:
        """Return the reference as tensors and plain values, for a checkpoint."""
        values = {name: torch.from_numpy(array) for name, array in self.values.items()}
        return {
            "values": values,
            "formulas": list(self.formulas),
            "name": self.name,
            "split": self.split,
            "count": self.count,
            **({} if self.templates is None else {_TEMPLATES: list(self.templates)}),
            **({} if self.held_out is None else {_HELD_OUT: {"name": self.held_out_name, **self.held_out}}),
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Reference:
        """Return the reference that `state_dict` wrote."""
        values = {name: tensor.numpy(force=True) for name, tensor in state["values"].items()}
        known = tuple(state[_TEMPLATES]) if _TEMPLATES in state else None
        # A released model has the last part of the path of its data set: "mp_52 of mp_52".
        name = " of ".join(dict.fromkeys(state["name"].split(" of ")))
        told = (values, tuple(state["formulas"]), name, state["split"], state["count"], known)
        return cls(*told, *_held_out(state.get(_HELD_OUT)))

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the reference as a flat dictionary of tensors, texts as UTF-8 bytes, for a safetensors file.

        Ordered from the widest type to bytes, so that tensors stay aligned when they are written one after the other.
        """
        texts = {"formulas": "\n".join(self.formulas), "name": self.name, "split": self.split}
        if self.templates is not None:
            texts[_TEMPLATES] = "\n".join(self.templates)
        if self.held_out is not None:
            texts[_HELD_OUT] = json.dumps({"name": self.held_out_name, **self.held_out})
        return {
            "count": torch.tensor(self.count),
            **{name: torch.from_numpy(array) for name, array in self.values.items()},
            **{name: torch.tensor(list(text.encode()), dtype=torch.uint8) for name, text in texts.items()},
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Reference:
        """Return the reference that `to_tensors` wrote."""
        formulas, name, split = (_text(tensors[key]) for key in _TEXTS)
        values = {key: tensors[key].numpy(force=True) for key in QUANTITIES}
        known = tuple(_text(tensors[_TEMPLATES]).splitlines()) if _TEMPLATES in tensors else None
        held_out = json.loads(_text(tensors[_HELD_OUT])) if _HELD_OUT in tensors else None
        told = (values, tuple(formulas.split("\n")), name, split, int(tensors["count"]), known)
        return cls(*told, *_held_out(held_out))


def _held_out(state: Mapping[str, Any] | None) -> tuple[dict[str, float] | None, str]:
    """Return the metrics of held-out crystals and their name, from a file or checkpoint."""
    if state is None:
        return None, ""
    return {name: float(value) for name, value in state.items() if name != "name"}, str(state["name"])


def _text(tensor: Tensor) -> str:
    """Return a text from its UTF-8 bytes."""
    return bytes(tensor.tolist()).decode()


def ks_statistics(values: Mapping[str, np.ndarray], reference: Reference) -> dict[str, float]:
    """Return the Kolmogorov-Smirnov statistic of each quantity: names "ks_a" to "ks_Z", values 0-1.

    Args:
        values: generated values of each of the `QUANTITIES`, any number each. Values that are not finite are left out:
            a report states the number of values with the result (`finite_counts`).
        reference: the real values.

    A quantity without a finite value has the largest statistic, 1.
    """
    found = {}
    for name in QUANTITIES:
        generated, real = _finite(values[name]), reference.values[name].astype(np.float64)
        found[f"ks_{name}"] = ks_statistic(generated.round(_DECIMALS), real.round(_DECIMALS)) if len(generated) else 1.0
    return found


def ks_statistic(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Kolmogorov-Smirnov statistic (0-1) of two samples of one or more values, (n,) and (m,).

    Not scipy's `ks_2samp`: it also computes a p-value, which is not used, and divides by zero for one value each.
    """
    values = np.concatenate([first, second])
    below = [np.searchsorted(np.sort(one), values, side="right") / len(one) for one in (first, second)]
    return float(np.abs(below[0] - below[1]).max())


def critical_ks(samples: int, real: int) -> float:
    """Return the K-S statistic that two samples of one distribution exceed in 1 % of cases; it may be above 1.

    The formula is that of large samples. For Z, too, the numbers are those of crystals: the atoms of one crystal are
    not independent.
    """
    return math.sqrt(-math.log(_SIGNIFICANCE / 2) / 2 * (samples + real) / (samples * real)) if samples else math.inf


def finite_counts(values: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Return how many values of each quantity are finite: names as in `ks_statistics`."""
    return {f"ks_{name}": len(_finite(values[name])) for name in QUANTITIES}


def reading_values(reading: ImageReading) -> dict[str, np.ndarray]:
    """Return the generated values of the `QUANTITIES` in images that hold a site, before any clustering.

    Space groups and atomic numbers are rounded and limited to 1-230 and 1-118.
    """
    held = reading.counts > 0
    cells = reading.cells[held].numpy(force=True)
    values = dict(zip(QUANTITIES, cells.T, strict=False))
    values["space_group"] = np.clip(np.rint(values["space_group"]), 1, 230)
    mask = torch.arange(reading.numbers.shape[1], device=reading.counts.device) < reading.counts[:, None]
    values["Z"] = np.clip(np.rint(reading.numbers[mask].numpy(force=True)), 1, MAX_ATOMIC_NUMBER)
    return values


def _finite(values: np.ndarray) -> np.ndarray:
    """Return the finite values of an array."""
    values = np.asarray(values, dtype=np.float64)
    return values[np.isfinite(values)]


def _formulas(crystals: CrystalBatch) -> tuple[str, ...]:
    """Return the distinct reduced formulas of crystals, sorted."""
    rows = zip(crystals.numbers.numpy(force=True), crystals.counts.tolist(), strict=True)
    return tuple(sorted(set(map(reduced_formula, {reduced_composition(numbers[:count]) for numbers, count in rows}))))


def _templates(crystals: CrystalBatch, progress: Callable[[int], None] | None) -> tuple[str, ...] | None:
    """Return the distinct Wyckoff templates of crystals, sorted; None for more crystals than `MOST_TEMPLATES`."""
    if len(crystals) > MOST_TEMPLATES:
        log.warning(
            "Wyckoff templates are not computed for %d crystals (at most %d): the share of samples with a new template "
            "will not be known",
            len(crystals),
            MOST_TEMPLATES,
        )
        return None
    found: set[str | None] = set()
    for start in range(0, len(crystals), _AT_ONCE):
        places = range(start, min(start + _AT_ONCE, len(crystals)))
        found.update(templates([crystals.crystal(place) for place in places]))
        if progress is not None:
            progress(places.stop)
    return tuple(sorted(template for template in found if template is not None))
