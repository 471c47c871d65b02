"""XLA devices, of which TPUs are one kind: what they ask of code that also runs on CPU and CUDA.

An operation on an XLA device is not run but recorded. The record, a graph, runs when a value in it is read, or when
it is closed; Lightning closes it with every step of an optimizer. A graph that was not met before is compiled,
which takes seconds to minutes, so a step of training has to record the same graph every time: shapes that depend on no
value, and no values read. A loop in which no optimizer steps has to close its graphs itself (`close_graph`), or it
becomes one graph as long as the loop.

torch_xla is imported by these functions only, and only where an XLA device is meant.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from crystens.errors import CrystensError


def is_xla(device: torch.device) -> bool:
    """Return whether a device is one of XLA."""
    return device.type == "xla"


def close_graph(device: torch.device) -> None:
    """Run what has been recorded on an XLA device; nothing on any other."""
    if is_xla(device):
        import torch_xla

        torch_xla.sync()


def seed_device(device: torch.device, seeds: Sequence[int]) -> None:
    """Start the random generator of an XLA device anew, from all of `seeds` (0 or more); nothing on any other device.

    Lightning's `seed_everything` knows nothing of this generator. Its state cannot be restored to the draw, for it
    moves on with every graph that is run and not only with what is drawn.
    """
    if is_xla(device):
        import torch_xla

        mixed = np.random.SeedSequence(list(seeds)).generate_state(1, np.uint64)[0]
        torch_xla.manual_seed(int(mixed >> np.uint64(1)))


def xla_device() -> torch.device:
    """Return this process's XLA device.

    Raises:
        CrystensError: if torch_xla is not installed, or finds no device.
    """
    import_torch_xla()
    import torch_xla

    try:
        return torch_xla.device()
    except RuntimeError as error:
        raise CrystensError(f"XLA has no device here: {str(error).splitlines()[0]}") from error


def import_torch_xla() -> None:
    """Import torch_xla.

    Raises:
        CrystensError: if it is not installed, or not for this PyTorch.
    """
    try:
        import torch_xla  # noqa: F401
    except ImportError as error:
        raise CrystensError(
            f"a TPU needs torch_xla of the same release as PyTorch (here {torch.__version__}): install the extra tpu "
            f'in an environment of its own, pip install -e ".[tpu]" ({str(error).splitlines()[0]})'
        ) from error
