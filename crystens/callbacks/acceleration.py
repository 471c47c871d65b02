"""Acceleration of networks: float32 matmul precision, memory format, torch.compile, and 16-bit weights.

A network is a module that a model holds directly or in a list: generator, critic, U-Nets and their averages. Its
`forward` is wrapped here. So names in the state dict do not change, a checkpoint can be loaded with and without
acceleration, and callers that skip `__call__`, such as imagen-pytorch, are covered too.

- `matmul_precision` is torch's setting for float32 products: "high" lets NVIDIA GPUs use tf32.
- `channels_last` stores the weights of convolutions in that memory format; their outputs follow.
- `compile` is a mode of torch.compile. Compiled code has no second derivatives, so that a gradient penalty is computed
  within `run_eagerly` (`crystens.models.eager`). Modes with CUDA graphs reuse the memory of their outputs, which are
  copied outside of a backward pass.
- 16-bit weights (`trainer.precision=bf16-true`): trained networks have float32 inputs and outputs and compute in 16
  bits; encoding, noise, losses and averaged weights stay float32. Lightning's plugin would convert crystals before they
  are encoded, and bfloat16 would round them to a tenth of an angstrom.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import HalfPrecision
from torch import Tensor, nn

from crystens.devices.sharding import FullySharded
from crystens.devices.xla import is_xla
from crystens.errors import CrystensError

MATMUL_PRECISIONS = ("highest", "high", "medium")
MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
_GRAPHS = ("reduce-overhead", "max-autotune")  # modes with CUDA graphs
_COMPILED_VARIANTS = 64  # compiled variants of a forward, shared by two U-Nets and averages, with and without gradient


class Acceleration(pl.Callback):
    """Callback that applies these options to a model's networks; the defaults change nothing.

    Args:
        matmul_precision: "highest", "high" or "medium".
        channels_last: whether convolutions use the memory format channels_last.
        compile: mode of torch.compile, None for none.

    Raises:
        CrystensError: if an option has another value.
    """

    def __init__(
        self, matmul_precision: str = "highest", channels_last: bool = False, compile: str | None = None
    ) -> None:
        """Check and store the options."""
        if matmul_precision not in MATMUL_PRECISIONS:
            raise CrystensError(f"{matmul_precision=} must be one of {', '.join(MATMUL_PRECISIONS)}")
        if compile is not None and compile not in MODES:
            raise CrystensError(f"{compile=} must be null or one of {', '.join(MODES)}")
        self.matmul_precision = matmul_precision
        self.channels_last = channels_last
        self.compile = compile

    def apply(self, model: nn.Module) -> None:
        """Apply the options to the networks of a model.

        Raises:
            CrystensError: if the model has no network.
        """
        torch.set_float32_matmul_precision(self.matmul_precision)
        if self.compile is None and not self.channels_last:
            return
        found = list(networks(model))
        if not found:
            raise CrystensError(
                f"{type(model).__name__} has no network as a submodule; it cannot be compiled or have channels_last: "
                "use acceleration=none"
            )
        for network in found:
            if self.channels_last:
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if self.compile is not None:
                torch._dynamo.config.recompile_limit = _COMPILED_VARIANTS
                _wrap(network).compile(self.compile)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Apply the options, before anything is moved to a device.

        Raises:
            CrystensError: if networks are to be compiled on an XLA device, or changed while they are sharded.
        """
        if isinstance(trainer.strategy, FullySharded) and (self.compile is not None or self.channels_last):
            raise CrystensError(
                "trainer=fsdp cannot be combined with channels_last or compile; use "
                "acceleration.channels_last=false and acceleration.compile=null, or trainer=ddp"
            )
        if self.compile is not None and is_xla(trainer.strategy.root_device):
            raise CrystensError(f"acceleration.compile={self.compile}: XLA compiles networks anyway; use null")
        self.apply(pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Convert restored optimizer states to the memory format of the weights; a checkpoint has that of its run."""
        for optimizer in trainer.optimizers:
            for parameter, state in optimizer.state.items():
                for name, value in state.items():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        state[name] = _laid_out(value, parameter)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Mark the outputs of the previous step as no longer needed, for CUDA graphs."""
        if self.compile in _GRAPHS:
            torch.compiler.cudagraph_mark_step_begin()


class NetworksOf16Bits(HalfPrecision):
    """16-bit weights for trained networks; replaces Lightning's plugin for bf16-true and 16-true."""

    def convert_module(self, module: nn.Module) -> nn.Module:
        """Convert the trained networks; averaged weights and counters do not change."""
        for network in networks(module):
            if any(parameter.requires_grad for parameter in network.parameters()):
                network.to(self._desired_input_dtype)
                _wrap(network).dtype = self._desired_input_dtype
        return module

    def convert_input(self, data: Any) -> Any:
        """Return crystals unchanged; they are encoded in float32."""
        return data

    @contextmanager
    def forward_context(self) -> Iterator[None]:
        """Do nothing: tensors created in a training step are float32."""
        yield


def precision_arguments(precision: Any, accelerator: Any) -> dict[str, Any]:
    """Return the arguments of the Trainer for `trainer.precision`.

    Raises:
        CrystensError: for precisions that cannot train: float16 on a CPU, for which Lightning would use bfloat16; pure
            float16, in which Adam would divide by 0; float64, because images are float32.
    """
    if accelerator == "tpu":
        return {}
    if precision == "16-true":
        raise CrystensError(
            "trainer.precision=16-true: the squares of small gradients are 0 in float16, and Adam divides by them; "
            "use bf16-true, or 16-mixed on a GPU"
        )
    if precision in (64, "64", "64-true"):
        raise CrystensError(f"trainer.precision={precision}: images are float32; use 32-true")
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available())
    if precision in (16, "16", "16-mixed") and on_cpu:
        raise CrystensError(f"trainer.precision={precision} needs a GPU; on a CPU use bf16-mixed")
    if precision == "bf16-true":
        return {"precision": None, "plugins": [NetworksOf16Bits("bf16-true")]}
    return {}


def networks(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the networks of a model: the modules with weights that it holds directly or in a list."""
    for child in model.children():
        for network in child if isinstance(child, nn.ModuleList) else [child]:
            if next(network.parameters(), None) is not None:
                yield network


class _Forward:
    """Replaces a network's `forward`."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self.forward = forward
        self.dtype: torch.dtype | None = None
        self.copies = False

    def compile(self, mode: str) -> None:
        """Compile the function, once."""
        if not hasattr(self, "mode"):
            self.mode = mode
            self.forward = torch.compile(self.forward, mode=mode)
            self.copies = mode in _GRAPHS

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the function in its precision."""
        if self.dtype is not None:
            arguments = tuple(_cast(value, self.dtype) for value in arguments)
            options = {name: _cast(value, self.dtype) for name, value in options.items()}
        alone = self.copies and not torch.is_grad_enabled()
        if alone:
            torch.compiler.cudagraph_mark_step_begin()
        output = self.forward(*arguments, **options)
        if alone:
            output = output.clone()
        return output if self.dtype is None else _cast(output, torch.float32)


def _wrap(network: nn.Module) -> _Forward:
    """Replace a network's `forward` and return the replacement."""
    found = network.__dict__.get("forward")
    if not isinstance(found, _Forward):
        found = _Forward(network.forward)
        network.forward = found
    return found


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Return a floating point tensor in another dtype; anything else is returned unchanged."""
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def _laid_out(value: Tensor, parameter: Tensor) -> Tensor:
    """Return a tensor with the strides of a parameter of the same shape."""
    if value.stride() == parameter.stride():
        return value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
