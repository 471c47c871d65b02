"""trainer.accelerator=tpu: training on a TPU, or with PJRT_DEVICE=CPU on XLA's CPU device.

Lightning supports TPUs, but not XLA's CPU device, which has the same lazy tensors, compiled graphs and separate random
generator. The accelerator of this module replaces Lightning's, so that a run can be tested without a TPU:

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
    """XLA's CPU device, one in each process, under the name of the TPU."""

    @staticmethod
    @functools.cache  # as Lightning's own
    def is_available() -> bool:
        """Return True: it replaces the TPU only on request."""
        return True

    @staticmethod
    @functools.cache  # as Lightning's own
    def auto_device_count() -> int:
        """Return 1: several devices cannot work together on a CPU."""
        return 1

    @staticmethod
    def parse_devices(devices: int | str | list[int]) -> int:
        """Return 1.

        Raises:
            CrystensError: if another number of devices, or a certain device, is requested.
        """
        if devices not in (1, "1", "auto"):
            raise CrystensError(f"trainer.devices={devices}: XLA on the CPU (PJRT_DEVICE=CPU) has 1 device")
        return 1

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        """Return the one device."""
        return [torch.device("xla", 0)]


def prepare_accelerator(accelerator: Any) -> None:
    """Prepare the device of `trainer.accelerator`, or of `device` in sample.py; call it before a model is built.

    Only "tpu" needs preparation.

    Raises:
        CrystensError: if torch_xla is not installed, or there is neither a TPU nor PJRT_DEVICE=CPU.
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
    """Return a device by name: "auto" is CUDA if available and else the CPU, "tpu" the device of torch_xla.

    Raises:
        CrystensError: if this machine has no such device.
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
    """Return PJRT_DEVICE at the start of the first training of this process.

    torch_xla, which imagen-pytorch imports if it is installed, sets the variable to CPU if it finds no TPU. A later run
    must not take that for the user's choice.
    """
    return os.environ.get("PJRT_DEVICE")
