"""XLA devices, such as TPUs: requirements on code that also runs on CPU and CUDA.

An operation on an XLA device is recorded in a graph. The graph runs when one of its values is read, or when it is
closed; Lightning closes it after every optimizer step. A new graph is compiled, which takes seconds to minutes.
Therefore every training step must record the same graph: shapes must not depend on values, and no value may be read. A
loop without optimizer steps must close its graphs (`close_graph`), otherwise it becomes one long graph.

Only these functions import torch_xla, and only for an XLA device.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from crystens.errors import CrystensError


def is_xla(device: torch.device) -> bool:
    """Return whether a device is an XLA device."""
    return device.type == "xla"


def close_graph(device: torch.device) -> None:
    """Execute the pending operations of an XLA device; no effect on other devices."""
    if is_xla(device):
        import torch_xla

        torch_xla.sync()


def seed_device(device: torch.device, seeds: Sequence[int]) -> None:
    """Seed the random generator of an XLA device with all of `seeds` (0 or more); no effect on other devices.

    Lightning's `seed_everything` does not seed this generator. Its state cannot be saved and restored, because it
    changes with every graph that runs, not only with random draws.
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
            f'in a separate environment, pip install -e ".[tpu]" ({str(error).splitlines()[0]})'
        ) from error
