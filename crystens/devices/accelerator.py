"""trainer.accelerator=tpu: on a TPU, or, where PJRT_DEVICE=CPU says so, on XLA's CPU device.

Lightning trains on TPUs by itself. It does not take XLA's CPU device for one, although it is XLA all the same: lazy
tensors, compiled graphs, a random generator of its own. With the accelerator of this module in the place of Lightning's
a run can be tried before there is a TPU to run it on:

    PJRT_DEVICE=CPU python train.py model=wgan trainer.accelerator=tpu
"""

from __future__ import annotations

import functools
import os
from typing import Any

import torch
from pytorch_lightning.accelerators import AcceleratorRegistry, XLAAccelerator

from crystens.devices.xla import import_torch_xla, xla_device
from crystens.errors import CrystensError, first_line


class XLAOnCPU(XLAAccelerator):
    """XLA's CPU device, one to a process, under the name of the TPU."""

    @staticmethod
    @functools.cache  # as Lightning's own
    def is_available() -> bool:
        """Return true: it is in the TPU's place only where it was asked for."""
        return True

    @staticmethod
    @functools.cache  # as Lightning's own
    def auto_device_count() -> int:
        """Return 1: more than one cannot work together on a CPU."""
        return 1

    @staticmethod
    def parse_devices(devices: int | str | list[int]) -> int:
        """Return 1.

        Raises:
            CrystensError: if another number of devices, or a certain device, is asked for.
        """
        if devices not in (1, "1", "auto"):
            raise CrystensError(f"trainer.devices={devices}: XLA on the CPU (PJRT_DEVICE=CPU) has 1 device")
        return 1

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        """Return the one device."""
        return [torch.device("xla", 0)]


def prepare_accelerator(accelerator: Any) -> None:
    """Make ready what `trainer.accelerator`, or `device` of sample.py, names; to be called before a model is built.

    For any accelerator but "tpu" there is nothing to make ready.

    Raises:
        CrystensError: if there is no torch_xla, or neither a TPU nor PJRT_DEVICE=CPU.
    """
    runtime = _asked_for()
    if accelerator != "tpu":
        return
    import_torch_xla()
    if runtime == "CPU":
        AcceleratorRegistry.register("tpu", XLAOnCPU, description="XLA's CPU device", override=True)
        xla_device()  # before any backward pass: autograd makes its threads for the devices that it finds at the first
    elif not XLAAccelerator.is_available():
        raise CrystensError(
            "there is no TPU here; to try the run on XLA's CPU device, set PJRT_DEVICE=CPU before the command"
        )


def device_named(name: str) -> torch.device:
    """Return the device of a name: "auto" is CUDA where there is one and else the CPU, "tpu" the device of torch_xla.

    Raises:
        CrystensError: if there is no such device here.
    """
    if name == "tpu":
        return xla_device()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise CrystensError(f"device={name} cannot be used here: {first_line(error)}") from error
    return device


@functools.cache
def _asked_for() -> str | None:
    """Return PJRT_DEVICE as it was when the first training of the process began.

    Importing torch_xla, which imagen-pytorch does wherever it is installed, sets the variable to CPU if it finds no
    TPU; a later run would take that for a wish.
    """
    return os.environ.get("PJRT_DEVICE")
