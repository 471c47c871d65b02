"""Runs a compiled network eagerly where second derivatives are needed."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn


def run_eagerly(network: nn.Module) -> AbstractContextManager[object]:
    """Return a context in which a network that torch.compile has compiled runs eagerly.

    Compiled code has no second derivative. torch.compile is not imported for a network that was not compiled.
    """
    forward = getattr(network.__dict__.get("forward"), "forward", None)
    compiled = hasattr(forward, "_torchdynamo_orig_callable")
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()
