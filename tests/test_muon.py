"""The optimizer of two rules: which parameter gets which, and that it goes on where it stopped."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from crystens.errors import CrystensError
from crystens.optimization import muon
from crystens.optimization.muon import MuonAdamW


class Net(nn.Module):
    """A first and a last layer, and blocks with a vector each."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 8)
        self.blocks = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
        self.last = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = torch.relu(block(x))
        return self.last(x)


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


def steps(net: Net, optimizer: torch.optim.Optimizer, count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    for _ in range(count):
        optimizer.zero_grad()
        net(torch.randn(16, 3, generator=generator)).square().mean().backward()
        optimizer.step()


def test_each_part_of_the_network_moves_as_by_the_library_s_rule_for_it(net: Net) -> None:
    parts = copy.deepcopy(net)
    matrices = [block.weight for block in parts.blocks]
    others = [p for p in parts.parameters() if not any(p is m for m in matrices)]
    orthogonal = torch.optim.Muon(matrices, lr=0.03, momentum=0.9, weight_decay=0.2)
    adam = torch.optim.AdamW(others, lr=1e-3, betas=(0.8, 0.9), weight_decay=0.2, fused=True)
    together = MuonAdamW(net.named_parameters(), 1e-3, 0.03, (0.8, 0.9), 0.9, 0.2, fused=True)
    assert [group["weight_decay"] for group in MuonAdamW(net.named_parameters()).param_groups] == [0, 0]
    assert together.param_groups[1]["fused"]
    for _ in range(3):
        x = torch.randn(16, 3)
        for model, optimizers in ((net, [together]), (parts, [orthogonal, adam])):
            model.zero_grad()
            model(x).square().mean().backward()
            for optimizer in optimizers:
                optimizer.step()
    for ours, theirs in zip(net.parameters(), parts.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_learning_rates_of_both_rules_follow_the_schedule(net: Net) -> None:
    optimizer = MuonAdamW(net.named_parameters())
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 0.0)
    before = copy.deepcopy(net.state_dict())
    steps(net, optimizer, 1)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_it_goes_on_where_it_stopped(net: Net) -> None:
    optimizer = MuonAdamW(net.named_parameters())
    steps(net, optimizer, 3)
    other = copy.deepcopy(net)
    resumed = MuonAdamW(other.named_parameters())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(net, optimizer, 2)
    steps(other, resumed, 2)
    assert all(torch.equal(other.state_dict()[name], value) for name, value in net.state_dict().items())
    for group in resumed.param_groups:
        group["lr"] = 0.0
    steps(other, resumed, 1)
    assert all(torch.equal(other.state_dict()[name], value) for name, value in net.state_dict().items())
    fresh = copy.deepcopy(net)
    steps(fresh, MuonAdamW(fresh.named_parameters()), 2)
    steps(net, optimizer, 2)
    assert not torch.equal(net.blocks[0].weight, fresh.blocks[0].weight)
    assert not torch.equal(net.first.weight, fresh.first.weight)


def test_a_closure_makes_the_gradients(net: Net) -> None:
    optimizer = MuonAdamW(net.named_parameters())

    def closure() -> torch.Tensor:
        loss = net(torch.ones(2, 3)).square().mean()
        loss.backward()
        return loss

    before = net.blocks[0].weight.detach().clone()
    assert optimizer.step(closure) > 0
    assert not torch.equal(net.blocks[0].weight, before)


def test_xla_devices_are_refused(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "is_xla", lambda device: True)
    with pytest.raises(CrystensError, match=r"torch\.optim\.AdamW and.* '~model\.optimizer\.matrix_lr'"):
        MuonAdamW(net.named_parameters())


def test_parameters_without_names_are_refused(net: Net) -> None:
    with pytest.raises(CrystensError, match="named parameters"):
        MuonAdamW(net.parameters())  # type: ignore[arg-type]


def test_networks_without_blocks_are_refused() -> None:
    with pytest.raises(CrystensError, match=r"torch\.optim\.AdamW"):
        MuonAdamW(nn.Linear(2, 2).named_parameters())


def test_a_copy_of_network_and_optimizer_moves_as_they_do(net: Net) -> None:
    optimizer = MuonAdamW(net.named_parameters())
    steps(net, optimizer, 2)
    other, its_optimizer = copy.deepcopy((net, optimizer))
    steps(net, optimizer, 3)
    moved = [parameter.detach().clone() for parameter in net.parameters()]
    steps(other, its_optimizer, 3)
    assert all(torch.equal(a, b) for a, b in zip(moved, other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(moved, net.parameters(), strict=True))
