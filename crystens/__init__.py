"""Generative models of crystals on CrysTens, one image-like encoding of a crystal.

    import crystens

    generator = crystens.load("perov_5")        # a released model, a checkpoint file or a run folder
    crystals = generator.sample(10, seed=0)     # pymatgen Structures; None where decoding failed
    metrics = crystens.judge(generator.sample(10, seed=0, as_="decoded"), reference=generator)

These names are imported at their first use: a process that only reads files imports no PyTorch.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from crystens.devices.torchvision_schemas import declare_before_torchvision
from crystens.processes.openmp import limit_spinning

if TYPE_CHECKING:
    from crystens.crystal import Crystal
    from crystens.decoding import DecodedCrystal, Decoder
    from crystens.generator import Generator, load
    from crystens.samples.judging import judge
    from crystens.scaling import Scaling

# Importing crystens has three effects.
# Lightning and torchmetrics import torchvision, and are imported all over the package: without this, a CPU-only PyTorch
# beside the registry's torchvision cannot start.
declare_before_torchvision()
# Works only before torch is imported.
limit_spinning()
# pymatgen warns about noble gases when it sorts a formula. The filter is set here, so that it holds in every command
# and in every worker: no result depends on the value, and users cannot act on the warning.
warnings.filterwarnings("ignore", message="No Pauling electronegativity", category=UserWarning)

__version__ = "0.2.0"

__all__ = ["Crystal", "DecodedCrystal", "Decoder", "Generator", "Scaling", "judge", "load"]

_MODULES = {
    "Crystal": "crystal",
    "DecodedCrystal": "decoding",
    "Decoder": "decoding",
    "Generator": "generator",
    "Scaling": "scaling",
    "judge": "samples.judging",
    "load": "generator",
}


def __getattr__(name: str) -> Any:
    """Import a name of `__all__` at its first use."""
    if name not in _MODULES:
        raise AttributeError(f"module 'crystens' has no attribute '{name}'; it has {', '.join(__all__)}")
    return getattr(import_module(f"crystens.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """Return the public names, for completion."""
    return sorted([*globals(), *__all__])
