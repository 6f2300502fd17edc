"""Parameters in one memory: what is written to one must not change another, or itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hpsweep

IDS = torch.arange(1, 25).view(2, 12)


class Net(nn.Module):
    """Two layers up and down; `share` does something with their weights."""

    def __init__(self, width: int, share: Callable[[Any], None]) -> None:
        super().__init__()
        self.token, self.readout = nn.Embedding(50, width), nn.Linear(width, 50, bias=False)
        self.up, self.down = nn.Linear(width, 2 * width, bias=False), nn.Linear(2 * width, width, bias=False)
        self.other = nn.Linear(width, 2 * width, bias=False)
        share(self)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token(ids)
        return self.readout(x + self.down(F.relu(self.up(x) + self.other(x))))


def transposed(net: Any) -> None:
    net.down.weight = nn.Parameter(net.up.weight.data.t())


def the_same(net: Any) -> None:
    net.other.weight = nn.Parameter(net.up.weight.data)


def rows(net: Any) -> None:
    """Of a larger tensor, with half of the rows in common."""
    whole = torch.randn(3 * net.up.in_features, net.up.in_features)
    net.up.weight, net.other.weight = (
        nn.Parameter(whole[: len(net.up.weight)]),
        nn.Parameter(whole[-len(net.up.weight) :]),
    )


def frozen(net: Any) -> None:
    net.other.weight = nn.Parameter(net.up.weight.data, requires_grad=False)


def flat(net: Any) -> None:
    """All weights side by side in one memory, as optimizers and recurrent layers lay them."""
    memory = torch.randn(sum(p.numel() for p in net.parameters()))
    parts = memory.split([p.numel() for p in net.parameters()])
    for parameter, part in zip(net.parameters(), parts, strict=True):
        parameter.data = part.view(parameter.shape)


def columns(net: Any) -> None:
    """Of one matrix, which lie between each other in memory."""
    width = net.up.in_features
    whole = torch.randn(2 * width, 2 * width)
    net.up.weight, net.other.weight = nn.Parameter(whole[:, :width]), nn.Parameter(whole[:, width:])


def both_frozen(net: Any) -> None:
    frozen(net)
    net.up.weight.requires_grad_(False)


def planned(model: nn.Module, share: Callable[[Any], None]) -> hpsweep.Plan:
    return hpsweep.parametrize(model, "supar", base=lambda: Net(16, share), density=1 / 4)


@pytest.mark.parametrize(
    ("share", "second"), [(transposed, "down"), (the_same, "other"), (rows, "other"), (frozen, "other")]
)
def test_two_parameters_in_one_memory_are_refused_and_each_remedy_ends_it(share: Any, second: str) -> None:
    model = Net(64, share)
    with pytest.raises(
        ValueError, match=rf"up.weight \(128, 64\) and {second}.weight .* are two parameters in one"
    ) as told:
        planned(model, share)
    exec(str(told.value).rpartition("memory of its own: ")[2], {"model": model, "torch": torch})
    plan = planned(model, share)
    plan.init_(model, init_std=0.1, seed=0)
    plan.wire_(model, IDS)
    plan.attach(model, torch.optim.AdamW(plan.param_groups(model, lr=0.01)))
    assert float((model.up.weight != 0).float().mean()) == pytest.approx(1 / 4)


def test_two_equal_parameters_can_be_tied() -> None:
    model = Net(64, the_same)
    with pytest.raises(ValueError, match="Tie them, as one parameter") as told:
        planned(model, the_same)
    call = re.search(r"one parameter: (setattr\(.*?\)\));", str(told.value))
    assert call is not None
    exec(call[1], {"model": model})

    def tied(width: int = 16) -> Net:
        net = Net(width, lambda net: None)
        net.other.weight = net.up.weight
        return net

    plan = hpsweep.parametrize(model, "supar", base=tied)
    assert plan.tensors["up.weight"].tied == ("other.weight",)


@pytest.mark.parametrize("share", [flat, columns, both_frozen])
def test_parameters_side_by_side_are_planned(share: Any) -> None:
    plan = planned(Net(64, share), share)
    assert "down.weight" in plan.tensors


def test_a_parameter_that_holds_its_numbers_several_times_is_refused_and_the_remedy_ends_it() -> None:
    def expanded(net: Any) -> None:
        net.up.weight = nn.Parameter(torch.randn(1, net.up.in_features).expand(2 * net.up.in_features, -1))

    model = Net(64, expanded)
    with pytest.raises(ValueError, match=r"up.weight holds the same numbers several times .*\(0, 1\)") as told:
        planned(model, expanded)
    exec(str(told.value).rpartition("memory of its own: ")[2], {"model": model, "torch": torch})
    planned(model, expanded).init_(model, init_std=0.1, seed=0)


def test_parameters_that_come_to_share_memory_after_the_plan_was_made_are_refused() -> None:
    model = Net(64, lambda net: None)
    plan = planned(model, lambda net: None)
    model.other.weight.data = model.up.weight.data
    with pytest.raises(ValueError, match=r"up.weight .* and other.weight .* are two parameters in one memory"):
        plan.init_(model, init_std=0.1, seed=0)
