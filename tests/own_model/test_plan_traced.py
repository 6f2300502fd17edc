"""What bare matrices sum over, where their module's own forward shows it, and the question where it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hpsweep
from tests.own_model.test_plan import plan
from tests.own_model.test_plan_kinds import pair, settled
from tests.own_model.test_plan_remedies import Block, asked, blocks


class Narrow(nn.Module):
    """A product of two bare matrices by a fixed rank of 8, kept as (out, in) or as (in, out)."""

    def __init__(self, width: int, outputs: int | None = None, *, turned: bool = False) -> None:
        super().__init__()
        first, second = torch.randn(8, width), torch.randn(outputs or width, 8)
        self.turned = turned
        self.first, self.second = (nn.Parameter(m.T.contiguous() if turned else m) for m in (first, second))

    def forward(self, x: Tensor) -> Tensor:
        if self.turned:
            return x @ self.first @ self.second
        return F.linear(x @ self.first.T, self.second)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("grows", [1, 4])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_factors_of_low_rank_sum_over_what_their_forward_sums_over(turned: bool, grows: int, device: str) -> None:
    """As in nn.Linear: fan-in 64 and m_d 2 on the way in, fan-in 8 and m_d 1 on the way out."""
    layers = blocks(extra=lambda w: Narrow(w, grows * w, turned=turned))
    with torch.device(device):
        model, base = pair(blocks=layers)
    made = settled(model, base).tensors
    first, second = made["blocks.0.extra.first"], made["blocks.0.extra.second"]
    assert [(first.kind, first.fan_in, first.m_d), (second.kind, second.fan_in, second.m_d)] == [
        ("hidden", first.shape[int(not turned)], 2),
        ("hidden", 8, 1),
    ]


class Beside(nn.Linear):
    """A product of low rank, drawn at random, beside a layer's own weight."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, bias=False)
        self.first, self.second = nn.Parameter(torch.randn(4, width)), nn.Parameter(torch.randn(width, 4))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x @ self.first.T @ self.second.T


def test_factors_beside_the_weight_of_a_layer_sum_over_what_their_forward_sums_over() -> None:
    made = settled(*pair(extra=Beside)).tensors
    assert (made["extra.first"].kind, made["extra.first"].m_d) == ("hidden", 2)
    assert (made["extra.second"].kind, made["extra.second"].fan_in, made["extra.second"].m_d) == ("hidden", 4, 1)


def silent(width: int) -> nn.Module:
    """Two matrices whose forward takes more than one tensor."""
    made = Narrow(width)
    made.forward = lambda x, y: x @ y  # type: ignore[method-assign]
    return made


@pytest.mark.parametrize("make", [silent, lambda w: Block(w, down=lambda w: nn.Parameter(torch.randn(8, w)))])
def test_the_axis_is_asked_for_with_the_kind_where_no_forward_shows_it(make: Callable[[int], nn.Module]) -> None:
    text = asked(*pair(blocks=lambda w: nn.ModuleList([make(w), make(w)])))
    assert "or 'hidden' if it lies within, with fan_in_axis=" in text
    assert "': 0} (over 8, which does not) or fan_in_axis=" in text
    assert "': 1} (over 64, which grows)" in text
    assert "No answer is proposed for" in text


def test_a_kind_that_is_given_without_the_axis_is_not_settled_by_the_width() -> None:
    models = pair(extra=silent)
    kinds: Any = {"extra.*": "hidden"}
    text = asked(*models, kinds=kinds)
    assert "extra.second (64, 8) in Narrow is hidden, and sums over a dimension that nothing tells" in text
    made = plan(*models, kinds=kinds, fan_in_axis={"extra.*": 1}).tensors
    assert (made["extra.second"].m_d, made["extra.first"].m_d) == (1, 2)


class Experts(nn.Module):
    """Experts by einsum, whose two widths grow unlike."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(4, width, 64 + width))
        self.b = nn.Parameter(torch.randn(4, 64 + width, width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("...ef,efd->...ed", torch.einsum("...d,edf->...ef", x, self.a).relu(), self.b).sum(-2)


def test_bare_experts_sum_over_what_their_einsum_sums_over() -> None:
    made = settled(*pair(extra=Experts)).tensors
    assert (made["extra.a"].fan_in, made["extra.a"].m_d) == (64, 2)
    assert (made["extra.b"].fan_in, made["extra.b"].m_d) == (128, 128 / 96)


def test_a_matrix_that_is_used_both_ways_shows_nothing() -> None:
    class Both(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.both = nn.Parameter(torch.randn(8, width))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.both.T @ self.both

    assert "No answer is proposed for 'blocks.0.both'" in asked(*pair(blocks=lambda w: nn.ModuleList([Both(w)])))


def test_a_model_that_is_tried_is_left_as_it_was() -> None:
    model, base = pair(extra=Narrow)
    before, chance = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    assert isinstance(settled(model, base), hpsweep.Plan)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert torch.equal(chance, torch.get_rng_state())
