"""Muon for the hidden matrices of a network and AdamW for all other parameters, as one optimizer.

Muon (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024) orthogonalises the update of a
matrix, and is meant for matrices between hidden features only. Input and output layers, and parameters that are no
matrices, use AdamW. Both optimizers are PyTorch's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch.nn import Parameter
from torch.optim import AdamW, Muon, Optimizer

from crystens.devices.xla import is_xla
from crystens.errors import CrystensError

_HIDDEN = "blocks."  # in the names of hidden layers


class MuonAdamW(Optimizer):
    """One step of Muon on the matrices of a network's blocks, and of AdamW on its other parameters.

    Args:
        params: named parameters of a network.
        lr: learning rate of AdamW.
        matrix_lr: learning rate of Muon: factor of the orthogonal update; a matrix with more rows than columns has the
            root of their ratio as another factor.
        betas: betas of AdamW.
        momentum: momentum of Muon.
        weight_decay: weight decay of both.
        fused: whether AdamW's step is one kernel; None leaves the choice to PyTorch.

    Raises:
        CrystensError: if parameters have no names, or there is no such matrix, or nothing else; on XLA devices, which
            lack an operation of Muon's.
    """

    def __init__(
        self,
        params: Iterable[tuple[str, Parameter]],
        lr: float = 2e-3,
        matrix_lr: float = 0.02,
        betas: tuple[float, float] = (0.9, 0.99),
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        fused: bool | None = None,
    ) -> None:
        """Divide the parameters."""
        named = list(params)
        if not all(isinstance(one, tuple) for one in named):
            raise CrystensError(
                "MuonAdamW needs named parameters, which this model does not give (model=edm does): use "
                "model.optimizer._target_=torch.optim.AdamW"
            )
        hidden = [_HIDDEN in name and parameter.ndim == 2 for name, parameter in named]
        matrices = [one for one, is_hidden in zip(named, hidden, strict=True) if is_hidden]
        others = [one for one, is_hidden in zip(named, hidden, strict=True) if not is_hidden]
        if not matrices or not others:
            raise CrystensError(
                f"MuonAdamW needs matrices in `blocks` and other parameters, got {len(matrices)} and {len(others)} of "
                "them: use torch.optim.AdamW"
            )
        if is_xla(matrices[0][1].device):
            raise CrystensError(
                "PyTorch's Muon has an operation that XLA does not have, so that each step would wait for the host: "
                "take, for a new run, model.optimizer._target_=torch.optim.AdamW and, if there is a matrix_lr, "
                "'~model.optimizer.matrix_lr'"
            )
        self._parts: list[Optimizer] = [
            Muon(matrices, lr=matrix_lr, momentum=momentum, weight_decay=weight_decay),
            AdamW(others, lr=lr, betas=(betas[0], betas[1]), weight_decay=weight_decay, fused=fused),
        ]
        super().__init__([group for part in self._parts for group in part.param_groups], {})

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs: PyTorch's own leaves out what a subclass adds."""
        return super().__getstate__() | {"_parts": self._parts}

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change the parameters by their gradients, which `closure` makes if it is given; return what it returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # State and learning rates live in this optimizer; the inner ones only provide the update.
        for part, group in zip(self._parts, self.param_groups, strict=True):
            part.param_groups, part.state = [group], self.state
            part.step()
        return loss
