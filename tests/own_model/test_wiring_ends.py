"""What `wire_` says of layers that are no ends of the model, and of attentions whose queries no layer returns."""

from __future__ import annotations

import re
from ast import literal_eval
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hpsweep

IDS = torch.arange(1, 25).view(2, 12)


class Net(nn.Module):
    """An embedding, a body of its own, a norm and a head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token, self.norm = nn.Embedding(50, width), nn.LayerNorm(width)
        self.head = nn.Linear(width, 50, bias=False)

    def body(self, x: Tensor) -> Tensor:
        return x

    def forward(self, ids: Tensor) -> Any:
        return self.head(self.norm(self.body(self.token(ids))))


def made(kind: type[Net], **options: Any) -> tuple[Net, hpsweep.Plan]:
    model = kind(64)
    plan = hpsweep.parametrize(model, "supar", base=lambda: kind(16), base_head_size=1, **options)
    plan.init_(model, init_std=0.3, seed=0)
    return model, plan


# --- a planned readout that lies within ---


class Halting(Net):
    """A number for every position, which multiplies what another layer returns."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.mixing, self.halt = nn.Linear(width, width), nn.Linear(width, 1)

    def body(self, x: Tensor) -> Tensor:
        return x + torch.sigmoid(self.halt(x)) * self.mixing(x)


class Valued(Halting):
    """The number is returned beside the logits, behind a tanh."""

    def forward(self, ids: Tensor) -> Any:
        x = self.norm(self.mixing(self.token(ids)))
        return self.head(x), torch.tanh(self.halt(x))


BOTH = {"halt.weight": "readout", "head.weight": "readout"}


def test_a_readout_whose_output_goes_into_another_layer_is_said_to_lie_within_and_the_remedy_ends_it() -> None:
    model, plan = made(Halting, kinds=BOTH)
    with pytest.raises(ValueError, match=r"of halt.weight, .* which goes into head.weight: it lies within") as told:
        plan.wire_(model, IDS)
    assert "leave=" not in str(told.value)
    kinds = re.search(r"anew with kinds=(\{.*?\}),", str(told.value))
    assert kinds is not None
    model, plan = made(Halting, kinds={**BOTH, **literal_eval(kinds[1])})
    assert {row.name for row in plan.wire_(model, IDS).rows} == {"token.weight", "head.weight"}


def test_a_readout_behind_a_function_goes_into_no_other_layer() -> None:
    model, plan = made(Valued, kinds=BOTH)
    with pytest.raises(ValueError, match=r"of halt.weight, .*: the model returns no multiple of its output") as told:
        plan.wire_(model, IDS)
    left = literal_eval(str(told.value).rpartition("leave=")[2].rstrip("."))
    assert left == ["halt.weight"]
    plan.wire_(model, IDS, leave=left)


# --- an attention whose queries no layer returns ---


class ByEinsum(Net):
    """Heads of 8, by bare parameters; `scale` as it is written into the code."""

    scale = 8**-0.5

    def __init__(self, width: int) -> None:
        super().__init__(width)
        for name in ("wq", "wk", "wv"):
            setattr(self, name, nn.Parameter(torch.randn(width, width // 8, 8)))

    def body(self, x: Tensor) -> Tensor:
        q, k, v = (torch.einsum("btd,dhk->bhtk", x, w) for w in (self.wq, self.wk, self.wv))
        scores = torch.einsum("bhtk,bhsk->bhts", q, k) * self.scale
        return x + torch.einsum("bhts,bhsk->bthk", scores.softmax(-1), v).flatten(2)


class Hidden(ByEinsum):
    """The scale lies before the product, where it is not seen."""

    def body(self, x: Tensor) -> Tensor:
        q, k, v = (torch.einsum("btd,dhk->bhtk", x, w) for w in (self.wq, self.wk, self.wv))
        scores = torch.einsum("bhtk,bhsk->bhts", q * self.scale + 0, k)
        return x + torch.einsum("bhts,bhsk->bthk", scores.softmax(-1), v).flatten(2)


class Inside(ByEinsum):
    """Beside a layer that returns no queries."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.mixing = nn.Linear(width, width)

    def body(self, x: Tensor) -> Tensor:
        return super().body(self.mixing(x))


AXES: Any = {"wq": 0, "wk": 0, "wv": 0}


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (ByEinsum, r"0\.353553 is there, and no layer in it returns its queries: let its code multiply by 0\.125 in"),
        (Hidden, r"may lie before; no layer returns the queries: multiply the logits, by 0\.125 in all"),
        (
            Inside,
            r"queries='NAME'.*its layers are mixing\. Where no layer returns them, let its code multiply by 0\.125",
        ),
    ],
)
def test_no_layer_is_asked_for_where_bare_parameters_make_the_queries(kind: type[ByEinsum], told: str) -> None:
    model, plan = made(kind, fan_in_axis=AXES)
    with pytest.raises(ValueError, match=told) as error:
        plan.wire_(model, IDS)
    assert "q_proj" not in str(error.value)
    assert ("queries=" in str(error.value)) == (kind is Inside)
    left = literal_eval(re.findall(r"leave=(\[.*?\])", str(error.value))[-1])
    plan.wire_(model, IDS, leave=left)


def test_the_number_that_is_named_ends_the_error() -> None:
    model, plan = made(type("Scaled", (ByEinsum,), {"scale": 0.125}), fan_in_axis=AXES)
    assert {row.name: row.how for row in plan.wire_(model, IDS).rows}[""] == "as it was"


class Biased(Net):
    """A bias by distance, added to the logits."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.qkv, self.distance = nn.Linear(width, 3 * width), nn.Embedding(12, width // 8)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, 8)).permute(2, 0, 3, 1, 4)
        apart = (torch.arange(12)[:, None] - torch.arange(12)).abs()
        return q, k, v, self.distance(apart).permute(2, 0, 1)

    def body(self, x: Tensor) -> Tensor:
        q, k, v, bias = self.parts(x)
        mixed = (q @ k.mT / 8 + bias).softmax(-1) @ v
        return x + mixed.transpose(1, 2).flatten(2)


class ByMask(Biased):
    """The same, as the error says."""

    def body(self, x: Tensor) -> Tensor:
        q, k, v, bias = self.parts(x)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.expand(len(q), -1, -1, -1), scale=1 / 8)
        return x + mixed.transpose(1, 2).flatten(2)


def test_what_is_added_to_the_logits_can_be_given_as_the_mask_of_torch_s_attention() -> None:
    model, plan = made(Biased)
    with pytest.raises(
        ValueError, match=r"F\.scaled_dot_product_attention, .* what is added to the logits as attn_mask"
    ):
        plan.wire_(model, IDS)
    model, plan = made(ByMask)
    assert {row.name: row.after for row in plan.wire_(model, IDS).rows}[""] == pytest.approx(1 / 8)
