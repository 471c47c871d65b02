"""Weights, gradients and optimizer states divided among several devices (FSDP), by PyTorch's `fully_shard`.

Lightning's FSDPStrategy wraps a whole module, takes no CPU, and knows one optimizer. Here each network of a model is
sharded by itself, in the model's `configure_model`, under Lightning's ModelParallelStrategy. Files are those of one
device: whole tensors under the same names, so that a run goes on with any number of devices and any strategy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.plugins.precision import HalfPrecision
from pytorch_lightning.strategies import ModelParallelStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from crystens.errors import CrystensError


class FullySharded(ModelParallelStrategy):
    """All devices share the weights of a model's networks, and each trains on images of its own.

    Every process takes part in writing and in reading a checkpoint; the first writes.
    """

    def __init__(self) -> None:
        """Write one file."""
        super().__init__(save_distributed_checkpoint=False)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Whether Lightning hands restored states of optimizers over: yes."""
        return True

    def setup_environment(self) -> None:
        """Divide the data among all devices, and no layer."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        self._tensor_parallel_size = 1
        super().setup_environment()

    def setup(self, trainer: pl.Trainer) -> None:
        """Set the model up for training.

        Raises:
            CrystensError: for weights of 16 bits.
        """
        if isinstance(self.precision_plugin, HalfPrecision):
            raise CrystensError(
                f"trainer.precision={self.precision_plugin.precision} is not for trainer=fsdp; take 32-true or "
                "bf16-mixed"
            )
        super().setup(trainer)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the state dict with whole tensors, on the CPU."""
        assert self.lightning_module is not None
        return gathered(self.lightning_module)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Return the content of a file."""
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take over this device's part of whole weights."""
        assert self.lightning_module is not None
        own = self.lightning_module.state_dict()
        state = {name: _shared_as(value, own.get(name)) for name, value in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(state, strict=strict)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the state of an optimizer with whole tensors, on the CPU."""
        optimizer = getattr(optimizer, "_optimizer", optimizer)
        told = optimizer.state_dict()
        states = {
            number: {name: _whole(value) for name, value in state.items()} for number, state in told["state"].items()
        }
        return {**told, "state": states}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take over this device's part of whole states."""
        for optimizer, told in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            numbers = [number for group in told["param_groups"] for number in group["params"]]
            states = {}
            for number, parameter in zip(numbers, parameters, strict=True):
                if number in told["state"]:
                    state = told["state"][number].items()
                    states[number] = {name: _shared_as(value, parameter) for name, value in state}
            optimizer.load_state_dict({**told, "state": states})


def shard(
    model: pl.LightningModule, networks: Iterable[nn.Module], by_forward: bool = False, stays_whole: bool = False
) -> None:
    """Divide networks among the devices if the model is trained by `FullySharded`; to be called in `configure_model`.

    Args:
        model: of which they are.
        networks: each is whole while it runs.
        by_forward: whether who runs them calls `forward`, which leaves out a module's hooks.
        stays_whole: whether they stay whole until `divide_again`, as what is differentiated twice has to.
    """
    trainer = model._trainer
    if trainer is None or not isinstance(trainer.strategy, FullySharded):
        return
    mesh = trainer.strategy.device_mesh["data_parallel"]
    for network in networks:
        if not isinstance(network, FSDPModule):
            sharded = fully_shard(network, mesh=mesh, reshard_after_forward=not stays_whole)
            if stays_whole:
                sharded.set_reshard_after_backward(False)
            if by_forward:
                register_fsdp_forward_method(network, "forward")


def divide_again(network: nn.Module) -> None:
    """Give up the whole weights of a network, which its next run gathers anew, if it is divided among devices."""
    if isinstance(network, FSDPModule):
        network.reshard()


def gathered(model: nn.Module) -> dict[str, Any]:
    """Return the state dict of a model with whole tensors, those that were divided on the CPU.

    Every process has to call it.
    """
    return {name: _whole(value) for name, value in model.state_dict().items()}


def _whole(value: Any) -> Any:
    """Return a divided tensor as a whole, and everything else as it is."""
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


def _shared_as(value: Any, own: Any) -> Any:
    """Return a whole tensor divided as another of its shape is; everything else as it is."""
    if not isinstance(own, DTensor) or not isinstance(value, Tensor) or value.shape != own.shape:
        return value
    # Every process has read the whole: nothing is sent.
    return distribute_tensor(value.to(own.device), own.device_mesh, own.placements, src_data_rank=None)
