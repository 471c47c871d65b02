"""Energies of many crystals, computed in processes, one crystal at a time, and each only once.

A process is killed when its crystal takes too long, and dies when it takes too much memory; that costs the crystal
alone. Nothing is dropped: `energies` returns one `Energy` a crystal.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from crystens.crystal import Crystal
from crystens.errors import CrystensError
from crystens.guarded_pool import Broken, GuardedPool
from crystens.metrics.computed_once import ComputeOptions, computed_once
from crystens.metrics.energy import Energy, Relaxation, judged
from crystens.metrics.energy_cache import EnergyCache, cache_file, digest_of
from crystens.metrics.potentials import Potential


@dataclass(frozen=True, kw_only=True)
class EnergyOptions(ComputeOptions):
    """How energies are computed.

    Attributes:
        relaxation: how crystals are relaxed first; None takes them as they stand.
        cache: folder of what was computed; None for `energies` in `crystens.data.download.cache_folder()`.
    """

    relaxation: Relaxation | None = None
    time_limit: float = 120.0
    memory_limit: float = 6.0


def energies(
    crystals: Sequence[Crystal],
    potential: Potential,
    options: EnergyOptions | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Energy]:
    """Return an energy of each crystal, in order; what was computed before, by whichever run, is not computed again.

    A failure is tried again only where the limits are wider than those it met.

    Args:
        crystals: any crystals, however bad.
        potential: what gives the energies.
        options: how they are computed.
        progress: called with the number of crystals that are done.

    Raises:
        CrystensError: if the potential cannot be loaded.
    """
    options = options or EnergyOptions()
    cache = EnergyCache(cache_file(potential, options.cache))
    keys = [digest_of(crystal, options.relaxation) for crystal in crystals]
    return computed_once(
        crystals, keys, cache, options.limits, lambda waiting: _computed(waiting, potential, options), progress
    )


def _computed(
    waiting: dict[str, Crystal], potential: Potential, options: EnergyOptions
) -> Iterator[tuple[str, Energy, bool]]:
    """Yield the energy of each crystal as it is ready, and whether it would be the same on another day."""
    if not waiting:
        return
    if options.workers == 0:
        with _one_thread():
            _load(potential)
            for key, crystal in waiting.items():
                yield key, judged(crystal, potential, options.relaxation), True
        return
    tasks = {key: (crystal, options.relaxation) for key, crystal in waiting.items()}
    limits = options.time_limit, options.memory_limit
    with GuardedPool(min(options.workers, len(tasks)), *limits, __name__, _begin, (potential,)) as pool:
        for key, found in pool.results(tasks, _work):
            if isinstance(found, Broken):
                yield key, Energy(None, f"the potential {found.reason}", found.seconds), found.lasting
            else:
                yield key, found, True


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: more take seven times as long on small cells. Keep warnings of the potential away."""
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(threads)


def _load(potential: Potential) -> None:
    """Load a potential, or raise a CrystensError."""
    try:
        potential.calculator()
    except Exception as error:
        raise CrystensError(
            f"{potential.identity} cannot be loaded: {type(error).__name__}: {error}; install it anew"
        ) from error


# What a worker process has: its potential, and why that could not be loaded.
_own: dict[str, Any] = {}


def _begin(potential: Potential) -> None:
    """Load the potential of a worker process."""
    torch.set_num_threads(1)
    os.chdir(tempfile.gettempdir())  # CHGNet writes bond_graph_error.cif to where it stands
    _own["potential"] = potential
    try:
        _load(potential)
    except CrystensError as error:
        # An initializer that raises would be started again for ever; `_work` tells.
        _own["broken"] = str(error)


def _work(crystal: Crystal, relaxation: Relaxation | None) -> Energy:
    """Return the energy of a crystal, in a worker process."""
    if "broken" in _own:
        raise CrystensError(_own["broken"])
    return judged(crystal, _own["potential"], relaxation)
