"""Which layer is proposed for the queries of an attention: one that, multiplied, ends the error."""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hpsweep

IDS = torch.arange(24).view(2, 12)
SIZE = 16


class Attend(nn.Module):
    """Causal or not, with heads of 16; `way` says how queries are made and used."""

    def __init__(self, width: int, way: str) -> None:
        super().__init__()
        self.way, self.heads = way, width // SIZE
        self.q_a, self.q_norm = nn.Linear(width, width // 2), nn.RMSNorm(width // 2)
        self.q_b = nn.Linear(width // 2, width)
        self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(3))
        self.head_norm = nn.RMSNorm(SIZE)
        self.share = nn.Linear(width, width)
        self.temperature = nn.Parameter(torch.full((self.heads, 1, 1), 10.0))

    def forward(self, x: Tensor) -> Tensor:
        x = self.share(x) if self.way == "shared" else x
        q = self.q_a(x)
        q = self.q_b(q if self.way == "shared" else self.q_norm(q))
        q, k, v = (each.unflatten(-1, (self.heads, SIZE)).transpose(1, 2) for each in (q, self.k(x), self.v(x)))
        y = self.weighed(q, k, v)
        result: Tensor = self.o(y.transpose(1, 2).flatten(2))
        return result

    def weighed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.way == "cosine":
            q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
            return (q @ k.mT * self.temperature).softmax(-1) @ v
        if self.way == "chunks":
            return torch.cat([(part @ k.mT / SIZE**0.5).softmax(-1) @ v for part in q.split(5, 2)], 2)
        if self.way == "normed":
            q = self.head_norm(q)
        return F.scaled_dot_product_attention(q, k, v)


class Net(nn.Module):
    def __init__(self, width: int, way: str) -> None:
        super().__init__()
        self.token, self.readout = nn.Embedding(24, width), nn.Linear(width, 24)
        self.blocks = nn.ModuleList(Attend(width, way) for _ in range(2))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token(ids)
        for block in self.blocks:
            x = x + block(x)
        result: Tensor = self.readout(x)
        return result


def planned(way: str) -> tuple[Net, hpsweep.Plan]:
    kinds: dict[str, Any] = {"*.temperature": "keep"}
    model = Net(64, way)
    plan = hpsweep.parametrize(model, "supar", base=lambda: Net(32, way), base_head_size=1, kinds=kinds)
    plan.init_(model, init_std=0.3, seed=0)
    return model, plan


def error_of(wire: Callable[[], object]) -> str:
    with pytest.raises(ValueError, match="the attention factor") as raised:
        wire()
    return str(raised.value)


@pytest.mark.parametrize(
    ("way", "layer"), [("latent", "q_b"), ("shared", "q_b"), ("chunks", "q_b"), ("normed", "head_norm")]
)
def test_the_last_layer_whose_output_the_queries_are_proportional_to_is_proposed_and_ends_the_error(
    way: str, layer: str
) -> None:
    model, plan = planned(way)
    text = error_of(lambda: plan.wire_(model, IDS))
    found = re.search(r"queries=(\[.*?\])", text)
    assert found is not None
    assert literal_eval(found[1]) == [f"*.{layer}"]
    rows = plan.wire_(model, IDS, queries=literal_eval(found[1])).rows[-2:]
    assert [(row.before, row.after) for row in rows] == [(pytest.approx(0.25, rel=1e-3), pytest.approx(1 / SIZE))] * 2


def test_a_layer_that_was_named_and_is_not_the_one_is_answered_with_the_one() -> None:
    model, plan = planned("latent")
    text = error_of(lambda: plan.wire_(model, IDS, queries="*.q_a"))
    assert "the layer that returns its queries is not q_a, but q_b: queries='*.q_b'" in text
    assert "queries=['*.q_b']" in text


@pytest.mark.parametrize("alike", [True, False])
def test_the_logits_of_cosine_attention_are_told_not_to_grow_and_are_left(alike: bool) -> None:
    """Temperatures that differ from head to head, as after training, too."""
    model, plan = planned("cosine")
    if not alike:
        for block in model.blocks:
            block.temperature.data.mul_(torch.arange(1.0, 5.0).view(4, 1, 1))
    text = error_of(lambda: plan.wire_(model, IDS))
    assert "its logits do not grow with the head size" in text
    assert "queries=" not in text
    found = re.search(r"leave=(\[.*?\])", text)
    assert found is not None
    assert [row.how for row in plan.wire_(model, IDS, leave=literal_eval(found[1])).rows[-2:]] == ["left as it is"] * 2


def test_what_is_tried_for_the_error_leaves_no_hook() -> None:
    model, plan = planned("latent")
    error_of(lambda: plan.wire_(model, IDS))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
