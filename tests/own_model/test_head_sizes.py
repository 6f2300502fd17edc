"""Attention scaled from the base's head size, on modules of others: found where both models say it, else asked for."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import hpsweep
from hpsweep.own_model.tensors.head_sizes import base_head_sizes

IDS = torch.arange(24).view(2, 12)


def gpt2(width: int, heads: int) -> GPT2LMHeadModel:
    sizes = {"n_embd": width, "n_head": heads, "n_layer": 2, "n_positions": 16, "vocab_size": 64}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, use_cache=False))


def llama(width: int, heads: int) -> LlamaForCausalLM:
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_attention_heads": heads, "vocab_size": 64}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=2, num_key_value_heads=heads, use_cache=False))


class Attention(nn.Module):
    """As nanoGPT writes it; without numbers of its own if not `says`."""

    def __init__(self, width: int, heads: int, says: bool) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.shape = (heads, width // heads)
        if says:
            self.n_head, self.n_embd = heads, width

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, self.shape).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        scores = q @ k.transpose(-2, -1) * self.shape[1] ** -0.5
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(-2))


class Own(nn.Module):
    def __init__(self, width: int, heads: int, says: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Embedding(64, width)
        self.attention, self.norm = Attention(width, heads, says), nn.LayerNorm(width)
        self.readout = nn.Linear(width, 64, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        return self.readout(self.norm(x + self.attention(x)))


def attentions(make: Any, width: int, heads: int, base: tuple[int, int], **options: Any) -> list[Any]:
    model = make(width, heads)
    plan = hpsweep.parametrize(
        model, "supar", base=lambda: make(*base), delta=lambda: make(2 * base[0], base[1]), **options
    )
    plan.init_(model, init_std=0.3, seed=0)
    return [row for row in plan.wire_(model, IDS).rows if row.kind == "attention"]


@pytest.mark.parametrize("make", [gpt2, llama, Own])
def test_at_the_base_and_with_more_heads_of_its_size_no_attention_is_changed(make: Any) -> None:
    for width, heads in ((32, 4), (64, 8)):
        for row in attentions(make, width, heads, (32, 4)):
            assert row.expected == 8**-0.5
            assert (row.before, row.after) == pytest.approx((8**-0.5, 8**-0.5), rel=1e-6)  # measured
            assert row.how == "as it was"


@pytest.mark.parametrize("make", [gpt2, llama])
def test_larger_heads_are_scaled_from_the_base(make: Any) -> None:
    rows = attentions(make, 64, 4, (32, 4))
    assert len(rows) == 2
    for row in rows:
        assert row.expected == pytest.approx(math.sqrt(8) / 16)
        assert row.after == pytest.approx(math.sqrt(8) / 16)
    [row, _] = attentions(make, 64, 4, (32, 4), alpha_attention=3.0)
    assert row.after == pytest.approx(3 * math.sqrt(8) / 16)
    [row, _] = attentions(make, 64, 4, (32, 4), base_head_size=1)
    assert row.after == pytest.approx(1 / 16)


def test_head_sizes_are_read_where_modules_keep_them_and_what_is_in_doubt_is_left_out() -> None:
    assert base_head_sizes(llama(64, 4), llama(32, 4)) == {"16": 8}
    assert base_head_sizes(gpt2(64, 8), gpt2(32, 4)) == {"8": 8}
    assert base_head_sizes(Own(64, 4), Own(32, 4)) == {"16": 8}
    assert base_head_sizes(Own(64, 4, says=False), Own(32, 4, says=False)) == {}
    two = nn.ModuleList([Own(64, 4), Own(64, 4)]), nn.ModuleList([Own(32, 4), Own(32, 2)])
    assert base_head_sizes(*two) == {}


def test_a_base_head_size_that_is_not_known_is_asked_for_and_the_remedy_ends_the_error() -> None:
    def silent(width: int, heads: int) -> Own:
        return Own(width, heads, says=False)

    with pytest.raises(ValueError, match=r"heads have 8 features, and .* not known: parametrize\(..., base_head_size="):
        attentions(silent, 64, 8, (32, 4))
    [row] = attentions(silent, 64, 8, (32, 4), base_head_size=8)
    assert row.how == "as it was"


def test_a_plan_of_before_is_read_with_the_published_scale_and_its_hash() -> None:
    plan = hpsweep.parametrize(Own(64, 4), "supar", base=lambda: Own(32, 4), base_head_size=1)
    said = plan.to_dict()
    assert said["version"] == 1
    assert not said.keys() & {"base_head_sizes", "alpha_attention"}
    again = hpsweep.Plan.from_dict(said)
    assert (again.hash, again.base_head_sizes, again.attention_scale(16)) == (plan.hash, {"*": 1}, 1 / 16)
    now = hpsweep.parametrize(Own(64, 4), "supar", base=lambda: Own(32, 4))
    assert now.to_dict()["version"] == 2
    assert hpsweep.Plan.from_dict(now.to_dict()) == now
    assert now.hash != plan.hash
    sp = hpsweep.parametrize(Own(64, 4), "sp", base=lambda: Own(32, 4))
    assert sp.to_dict()["version"] == 1  # sp asks nothing of attention: its plans and their hashes are as ever
    assert sp.attention_scale(16) == 1 / 4
    assert re.search(r"base head size 8 \(heads of 16\)", str(now))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha_attention": -1.0}, "the plan has alpha_attention -1.0; allowed: above 0"),
        ({"alpha_attention": True}, "the plan has alpha_attention True; allowed: above 0"),
        ({"base_head_sizes": {"16": 0}}, "the plan has base head size 0 at '16'; allowed: from 1 up"),
        ({"base_head_sizes": {"*": True}}, "the plan has base head size True at '*'; allowed: from 1 up"),
        ({"base_head_sizes": [8]}, "the plan is not one that Plan.to_dict() gave"),
        ({"version": [2]}, "the plan is of version [2]; this hpsweep reads up to 2"),
    ],
)
def test_a_plan_that_was_changed_is_refused(change: dict[str, Any], message: str) -> None:
    plan = hpsweep.parametrize(Own(64, 4), "supar", base=lambda: Own(32, 4))
    with pytest.raises(ValueError, match=re.escape(message)):
        hpsweep.Plan.from_dict({**plan.to_dict(), **change})


def test_a_checkpoint_of_before_is_told_from_its_scale_of_attention() -> None:
    old = hpsweep.parametrize(Own(64, 4), "supar", base=lambda: Own(32, 4), base_head_size=1)
    now = hpsweep.parametrize(Own(64, 4), "supar", base=lambda: Own(32, 4))
    with pytest.raises(ValueError, match=r"it scales attention by .*, base head size 1, here by .*, base head size 8"):
        now.load_state_dict(old.state_dict())
