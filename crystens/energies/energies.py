"""Energies of many crystals, computed in worker processes and cached (`crystens.processes.computed_once`)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import torch

from crystens.crystal import Crystal
from crystens.energies.potentials import Potential
from crystens.energies.relaxation import Energy, Relaxation, judged
from crystens.errors import CrystensError
from crystens.processes.computed_once import ComputeOptions, Work, computed_once
from crystens.processes.result_cache import ResultCache, digest_of

_FORMAT = 2  # part of the cache key; raise it when the result of the same options changes


@dataclass(frozen=True, kw_only=True)
class EnergyOptions(ComputeOptions):
    """Options of the computation of energies.

    Attributes:
        relaxation: relaxation before the energy is taken; None for none.
        cache: folder of the cache; None for `energies` in `crystens.processes.cache_folder.cache_folder()`.
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
    """Return an energy of each crystal, in order; results of earlier runs come from the cache.

    Args:
        crystals: any crystals, however bad.
        potential: the potential.
        options: options of the computation.
        progress: called with the number of finished crystals.

    Raises:
        CrystensError: if the potential cannot be loaded.
    """
    options = options or EnergyOptions()
    relaxation = options.relaxation
    asked = None if relaxation is None else {**asdict(relaxation), "ase": version("ase")}
    keys = [digest_of(crystal, [_FORMAT, asked]) for crystal in crystals]
    work = Work(
        module=__name__,
        begin=_begin,
        arguments=(potential,),
        compute=_work,
        more=(relaxation,),
        here=lambda crystal: _here(crystal, potential, relaxation),
        failed=lambda reason, seconds: Energy(None, f"the potential {reason}", seconds),
    )
    with ResultCache(Energy, "energies", potential.identity, options.cache) as cache:
        return computed_once(crystals, keys, cache, options, work, progress)


def _here(crystal: Crystal, potential: Potential, relaxation: Relaxation | None) -> Energy:
    """Return the energy of a crystal, in this process."""
    _load(potential)
    return judged(crystal, potential, relaxation)


def _load(potential: Potential) -> None:
    """Load a potential, or raise a CrystensError."""
    try:
        potential.calculator()
    except Exception as error:
        raise CrystensError(
            f"{potential.identity} cannot be loaded: {type(error).__name__}: {error}; install it again"
        ) from error


# In a worker process: its potential, and the error if it could not be loaded.
_own: dict[str, Any] = {}


def _begin(potential: Potential) -> None:
    """Load the potential of a worker process."""
    torch.set_num_threads(1)
    os.chdir(tempfile.gettempdir())  # CHGNet writes bond_graph_error.cif into the working directory
    _own["potential"] = potential
    try:
        _load(potential)
    except CrystensError as error:
        # A failing initializer would be started again forever; `_work` reports the error.
        _own["broken"] = str(error)


def _work(crystal: Crystal, relaxation: Relaxation | None) -> Energy:
    """Return the energy of a crystal, in a worker process."""
    if "broken" in _own:
        raise CrystensError(_own["broken"])
    return judged(crystal, _own["potential"], relaxation)
