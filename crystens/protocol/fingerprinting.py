"""Fingerprints of many crystals, computed in worker processes and cached (`crystens.processes.computed_once`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from crystens.crystal import Crystal
from crystens.processes.computed_once import ComputeOptions, Work, computed_once
from crystens.processes.result_cache import ResultCache, digest_of
from crystens.protocol.fingerprints import Fingerprint, featurizers, fingerprint, made_by


@dataclass(frozen=True, kw_only=True)
class FingerprintOptions(ComputeOptions):
    """How fingerprints are computed.

    Attributes:
        cache: folder of the cache; None for `fingerprints` in `crystens.processes.cache_folder.cache_folder()`.
    """

    time_limit: float = 60.0
    memory_limit: float = 4.0


def fingerprints(
    crystals: Sequence[Crystal],
    options: FingerprintOptions | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Fingerprint]:
    """Return a fingerprint of each crystal, in order; results of earlier runs come from the cache.

    Args:
        crystals: any crystals, however bad.
        options: how they are computed.
        progress: called with the number of finished crystals.

    Raises:
        CrystensError: if matminer is not installed, or the cache cannot be read.
    """
    options = options or FingerprintOptions()
    featurizers()  # a missing package is reported once here, instead of by every worker
    work = Work(
        module=__name__,
        begin=featurizers,
        compute=fingerprint,
        here=fingerprint,
        failed=lambda reason, _: Fingerprint(None, None, f"the fingerprint {reason}"),
    )
    keys = [digest_of(crystal) for crystal in crystals]
    with ResultCache(Fingerprint, "fingerprints", made_by(), options.cache) as cache:
        return computed_once(crystals, keys, cache, options, work, progress)
