"""Fingerprints of a structure and of a composition for the CDVAE protocol.

The fingerprint of a structure is matminer's CrystalNN fingerprint with the preset "ops", 61 values, averaged over
sites. The fingerprint of a composition is matminer's element properties with the preset "magpie", 132 values. They are
NaN for elements that a table lacks, as in the release that the protocol was written with.

A crystal without a fingerprint has a reason instead: pymatgen raises all kinds of errors for overlapping atoms and
cells without a volume.

Source: Zimmermann and Jain, RSC Adv. 2020, 10, 6063 (structure); Ward et al., npj Comput. Mater. 2016, 2, 16028
(composition); Xie et al., "Crystal Diffusion Variational Autoencoder for Periodic Material Generation", ICLR 2022.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from pymatgen.core import Composition

from crystens.crystal import Crystal
from crystens.errors import CrystensError, first_line

STRUCTURE_SIZE = 61
COMPOSITION_SIZE = 132

_PACKAGES = ("matminer", "pymatgen-core", "scipy")  # their versions are part of the cache key


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """Fingerprint of a crystal for the protocol, or the reason why it has none.

    Attributes:
        structure: mean over the sites of CrystalNN's order parameters, (61,); None if there is none.
        composition: Magpie's statistics of element properties, not scaled, NaN where unknown, (132,); None if
            `structure` is None.
        reason: why there is no fingerprint; None if there is one.
    """

    structure: np.ndarray | None
    composition: np.ndarray | None
    reason: str | None = None

    def to_plain(self) -> dict[str, Any]:
        """Return the fingerprint in values that JSON holds without loss."""
        arrays = {"structure": self.structure, "composition": self.composition}
        plain = {name: None if values is None else values.tolist() for name, values in arrays.items()}
        return {**plain, "reason": self.reason}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Fingerprint:
        """Return the fingerprint that `to_plain` wrote."""
        if plain["reason"] is not None:
            return cls(None, None, plain["reason"])
        return cls(np.array(plain["structure"]), np.array(plain["composition"]))


def fingerprint(crystal: Crystal) -> Fingerprint:
    """Return the fingerprint of a crystal, in this process and without a limit in time.

    Raises:
        CrystensError: if matminer is not installed.
    """
    sites, elements = featurizers()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            structure = crystal.to_structure()
            composition = np.asarray(elements.featurize(structure.composition), dtype=np.float64)
            values = np.mean([sites.featurize(structure, site) for site in range(len(structure))], axis=0)
    except Exception as error:  # pymatgen and Qhull raise many classes; only this crystal fails
        return Fingerprint(None, None, f"no fingerprint: {type(error).__name__}: {' '.join(first_line(error).split())}")
    if not np.isfinite(values).all():
        return Fingerprint(None, None, "no fingerprint: an order parameter is not a finite number")
    return Fingerprint(values, composition)


def composition_fingerprint(composition: Composition) -> np.ndarray:
    """Return Magpie's statistics of the element properties of a composition, NaN where unknown: (132,)."""
    return np.asarray(featurizers()[1].featurize(composition), dtype=np.float64)


def made_by() -> str:
    """Return the packages behind fingerprints with their versions."""
    return " ".join(f"{name} {version(name)}" for name in _PACKAGES)


@functools.cache
def featurizers() -> tuple[Any, Any]:
    """Return matminer's featurizers of a site and of a composition, created once in a process: they read tables.

    Raises:
        CrystensError: if matminer is not installed.
    """
    try:
        # They take three seconds to import.
        site = importlib.import_module("matminer.featurizers.site.fingerprint")
        composition = importlib.import_module("matminer.featurizers.composition.composite")
    except ImportError as error:
        raise CrystensError(
            f'matminer cannot be imported ({first_line(error)}); run pip install "crystens[metrics]"'
        ) from error
    return (
        site.CrystalNNFingerprint.from_preset("ops"),
        composition.ElementProperty.from_preset("magpie", impute_nan=False),
    )
