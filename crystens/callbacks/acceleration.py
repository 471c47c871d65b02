"""How the networks of a model are run: float32 products, memory format, torch.compile, and weights of 16 bits.

A network is a module that a model holds directly or in a list: generator, critic, U-Nets and their averages. Its
`forward` is wrapped here: names in the state dict stay, so that a checkpoint can be loaded with and without, and a
caller that leaves out `__call__`, as imagen-pytorch does, gets it as well.

- `matmul_precision` is torch's own for float32 products: "high" lets NVIDIA GPUs take tf32.
- `channels_last` keeps the weights of convolutions with the channels innermost; their outputs follow.
- `compile` is a mode of torch.compile. A term that is differentiated twice (a gradient penalty) is computed within
  `run_eagerly` (`crystens.models.eager`), because compiled code cannot be. Modes with CUDA graphs reuse the memory of
  their outputs; outside of a backward pass these are copied.
- Weights of 16 bits (`trainer.precision=bf16-true`): the networks that train take and give float32 and work in
  16 bits; encoding, noise, losses and averaged weights stay float32. Lightning's own converts the crystals before they
  are encoded, which bfloat16 would round to a tenth of an angstrom.
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
_COMPILED_VARIANTS = 64  # of one forward: two U-Nets and their averages share it, with and without gradient


class Acceleration(pl.Callback):
    """Has a model's networks run as the switches say; with the defaults it changes nothing.

    Args:
        matmul_precision: "highest", "high" or "medium".
        channels_last: whether convolutions have the channels innermost.
        compile: mode of torch.compile, None for none.

    Raises:
        CrystensError: if an option is not one of those.
    """

    def __init__(
        self, matmul_precision: str = "highest", channels_last: bool = False, compile: str | None = None
    ) -> None:
        """Check the options and keep them."""
        if matmul_precision not in MATMUL_PRECISIONS:
            raise CrystensError(f"{matmul_precision=} must be one of {', '.join(MATMUL_PRECISIONS)}")
        if compile is not None and compile not in MODES:
            raise CrystensError(f"{compile=} must be null or one of {', '.join(MODES)}")
        self.matmul_precision = matmul_precision
        self.channels_last = channels_last
        self.compile = compile

    def apply(self, model: nn.Module) -> None:
        """Change how the networks of a model run from now on.

        Raises:
            CrystensError: if the model has no network to change.
        """
        torch.set_float32_matmul_precision(self.matmul_precision)
        if self.compile is None and not self.channels_last:
            return
        found = list(networks(model))
        if not found:
            raise CrystensError(
                f"{type(model).__name__} holds its weights itself and no network; it cannot be compiled or have "
                "channels_last: take acceleration=none"
            )
        for network in found:
            if self.channels_last:
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if self.compile is not None:
                torch._dynamo.config.recompile_limit = _COMPILED_VARIANTS
                _wrap(network).compile(self.compile)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Change how the networks run, before anything is moved to a device.

        Raises:
            CrystensError: if they are to be compiled on a device of XLA, or to change while their weights are divided.
        """
        if isinstance(trainer.strategy, FullySharded) and (self.compile is not None or self.channels_last):
            raise CrystensError(
                "trainer=fsdp divides weights as they lie and runs networks as they are; take "
                "acceleration.channels_last=false and acceleration.compile=null, or trainer=ddp"
            )
        if self.compile is not None and is_xla(trainer.strategy.root_device):
            raise CrystensError(f"acceleration.compile={self.compile}: XLA compiles by itself; take null")
        self.apply(pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lay restored states of the optimizers out as their weights are; a checkpoint keeps the layout of its run."""
        for optimizer in trainer.optimizers:
            for parameter, state in optimizer.state.items():
                for name, value in state.items():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        state[name] = _laid_out(value, parameter)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Tell CUDA graphs that the outputs of the step before are no longer needed."""
        if self.compile in _GRAPHS:
            torch.compiler.cudagraph_mark_step_begin()


class NetworksOf16Bits(HalfPrecision):
    """Weights of 16 bits for the networks that train, in the place of Lightning's plugin for bf16-true and 16-true."""

    def convert_module(self, module: nn.Module) -> nn.Module:
        """Convert the networks that train; what does not, averages of weights and counts, stays as it is."""
        for network in networks(module):
            if any(parameter.requires_grad for parameter in network.parameters()):
                network.to(self._desired_input_dtype)
                _wrap(network).dtype = self._desired_input_dtype
        return module

    def convert_input(self, data: Any) -> Any:
        """Return crystals as they are; their images are made of them in float32."""
        return data

    @contextmanager
    def forward_context(self) -> Iterator[None]:
        """Change nothing: what is made in a training step is float32."""
        yield


def precision_arguments(precision: Any, accelerator: Any) -> dict[str, Any]:
    """Return the arguments of a Trainer that stand for `trainer.precision`.

    Raises:
        CrystensError: for what does not train: Lightning takes bfloat16 where float16 was asked for on a CPU, and Adam
            cannot divide by float16's small numbers; batches of crystals have no float64.
    """
    if accelerator == "tpu":
        return {}
    if precision == "16-true":
        raise CrystensError(
            "trainer.precision=16-true: the squares of small gradients are 0 in float16, and Adam divides by them; "
            "take bf16-true, or 16-mixed on a GPU"
        )
    if precision in (64, "64", "64-true"):
        raise CrystensError(f"trainer.precision={precision}: images are float32; take 32-true")
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available())
    if precision in (16, "16", "16-mixed") and on_cpu:
        raise CrystensError(f"trainer.precision={precision} needs a GPU; on a CPU take bf16-mixed")
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
    """Stands in the place of a network's `forward`."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self.forward = forward
        self.dtype: torch.dtype | None = None
        self.copies = False

    def compile(self, mode: str) -> None:
        """Compile what is called, once."""
        if not hasattr(self, "mode"):
            self.mode = mode
            self.forward = torch.compile(self.forward, mode=mode)
            self.copies = mode in _GRAPHS

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call it in its precision."""
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
    """Return what stands in the place of a network's `forward`, there from now on."""
    found = network.__dict__.get("forward")
    if not isinstance(found, _Forward):
        found = _Forward(network.forward)
        network.forward = found
    return found


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Return a tensor of floating point numbers in another type, and everything else as it is."""
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def _laid_out(value: Tensor, parameter: Tensor) -> Tensor:
    """Return a tensor with the strides of a parameter of its shape."""
    if value.stride() == parameter.stride():
        return value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
