"""Sharding of weights, gradients and optimizer states over devices (FSDP), by PyTorch's `fully_shard`.

Lightning's FSDPStrategy wraps a whole module, and supports neither CPUs nor several optimizers. Here each network of a
model is sharded separately, in the model's `configure_model`, under Lightning's ModelParallelStrategy. Checkpoints are
the same as with one device, with unsharded tensors under the same names, so that a run can resume with any number of
devices and any strategy.
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
    """Strategy that shards the networks of a model over all devices; each device trains on different images.

    All processes take part in saving and loading a checkpoint; the first one writes it.
    """

    def __init__(self) -> None:
        """Write checkpoints as one file."""
        super().__init__(save_distributed_checkpoint=False)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """True: Lightning passes restored optimizer states to this strategy."""
        return True

    def setup_environment(self) -> None:
        """Use all devices for data parallelism, none for tensor parallelism."""
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
        """Return the state dict with unsharded tensors, on the CPU."""
        assert self.lightning_module is not None
        return gathered(self.lightning_module)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Return the content of a file."""
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load this device's shard of unsharded weights."""
        assert self.lightning_module is not None
        own = self.lightning_module.state_dict()
        state = {name: _shared_as(value, own.get(name)) for name, value in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(state, strict=strict)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the state of an optimizer with unsharded tensors, on the CPU."""
        optimizer = getattr(optimizer, "_optimizer", optimizer)
        told = optimizer.state_dict()
        states = {
            number: {name: _whole(value) for name, value in state.items()} for number, state in told["state"].items()
        }
        return {**told, "state": states}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load this device's shard of unsharded states."""
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
    """Shard networks if the model is trained by `FullySharded`; call it in `configure_model`.

    Args:
        model: the model of the networks.
        networks: the networks; each is gathered while it runs.
        by_forward: whether callers use `forward` directly, which skips a module's hooks.
        stays_whole: whether networks stay gathered until `divide_again`, as needed for second derivatives.
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
    """Free the gathered weights of a sharded network, which its next run gathers again."""
    if isinstance(network, FSDPModule):
        network.reshard()


def gathered(model: nn.Module) -> dict[str, Any]:
    """Return the state dict of a model with unsharded tensors; tensors that were sharded are on the CPU.

    All processes must call it.
    """
    return {name: _whole(value) for name, value in model.state_dict().items()}


def _whole(value: Any) -> Any:
    """Return the unsharded tensor of a sharded one; anything else is returned unchanged."""
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


def _shared_as(value: Any, own: Any) -> Any:
    """Return an unsharded tensor, sharded like another one of its shape; anything else is returned unchanged."""
    if not isinstance(own, DTensor) or not isinstance(value, Tensor) or value.shape != own.shape:
        return value
    # Every process has read the whole tensor: nothing is sent.
    return distribute_tensor(value.to(own.device), own.device_mesh, own.placements, src_data_rank=None)
