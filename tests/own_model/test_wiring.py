"""Forward multipliers of own models: measured, set, measured again, and refused where they cannot be seen."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

import hpsweep
from hpsweep.own_model.forward.wiring import Wiring

IDS = torch.randint(1, 96, (2, 12), generator=torch.Generator().manual_seed(0))
HEAD = 16

Make = Callable[[int], nn.Module]


def gpt2(width: int, **settings: Any) -> nn.Module:
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            n_embd=width, n_head=width // HEAD, n_layer=2, vocab_size=96, n_positions=24, bos_token_id=0,
            eos_token_id=0, **settings,
        )
    )  # fmt: skip


def like_llama(name: str, **settings: Any) -> Make:
    """Transformers' models with Llama's configuration."""

    def make(width: int) -> nn.Module:
        config = getattr(transformers, f"{name}Config")(
            num_hidden_layers=2, hidden_size=width, intermediate_size=2 * width, num_attention_heads=width // HEAD,
            num_key_value_heads=width // HEAD // 2, head_dim=HEAD, vocab_size=96, bos_token_id=0, eos_token_id=0,
            pad_token_id=0, **settings,
        )  # fmt: skip
        return getattr(transformers, f"{name}ForCausalLM")(config)

    return make


def bloom(width: int) -> nn.Module:
    config = transformers.BloomConfig(
        n_layer=2, hidden_size=width, n_head=width // HEAD, vocab_size=96, bos_token_id=0, eos_token_id=0
    )
    return transformers.BloomForCausalLM(config)


def opt(width: int) -> nn.Module:
    config = transformers.OPTConfig(
        num_hidden_layers=2, hidden_size=width, ffn_dim=4 * width, num_attention_heads=width // HEAD, vocab_size=96,
        word_embed_proj_dim=width, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return transformers.OPTForCausalLM(config)


class Block(nn.Module):
    """Fused projections; `way` is how attention is computed, `factor` by what queries times keys are multiplied."""

    def __init__(self, width: int, way: str, factor: float) -> None:
        super().__init__()
        self.norm, self.way, self.told = nn.LayerNorm(width), way, {"factor": factor}  # no attribute of its own
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, context, width = x.shape
        q, k, v = (
            part.view(batch, context, -1, HEAD).transpose(1, 2) for part in self.qkv(self.norm(x)).split(width, -1)
        )
        factor, future = self.told["factor"], torch.ones(context, context, dtype=torch.bool).triu(1)
        if self.way == "sdpa":
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=factor)
        elif self.way == "in place":
            scores = q @ k.transpose(-2, -1)
            scores *= factor
            y = scores.masked_fill_(future, -math.inf).softmax(-1) @ v
        elif self.way == "einsum":
            scores = torch.einsum("bhqd,bhkd->bhqk", q, k) * factor
            y = torch.softmax(scores + torch.where(future, -1e9, 0.0), -1) @ v
        elif self.way == "queries before":
            y = F.scaled_dot_product_attention(q * factor, k, v, is_causal=True, scale=1.0)
        elif self.way == "keys":
            y = F.scaled_dot_product_attention(q, k * HEAD, v, is_causal=True, scale=1 / HEAD)
        elif self.way == "twice":
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1 / HEAD)
            y = y + F.scaled_dot_product_attention(q, k, v, is_causal=True)
        elif self.way == "training":
            scale = HEAD**-0.5 if self.training else 1 / HEAD
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        else:
            bias = torch.arange(context) / context if self.way == "biased" else 0.0
            if self.way == "elementwise":
                scores = (q.unsqueeze(-2) * k.unsqueeze(-3)).sum(-1) / HEAD
            else:
                scores = q @ k.transpose(-2, -1) / HEAD + bias
            if self.way == "capped":
                scores = 50 * torch.tanh(scores / 50)
            scores = scores.masked_fill(future, -math.inf)
            e = scores.exp()
            weights = e / e.sum(-1, keepdim=True) if self.way == "exp" else scores.softmax(-1)
            y = (weights.unsqueeze(-1) * v.unsqueeze(-3)).sum(-2) if self.way == "elementwise" else weights @ v
        return x + self.out(y.transpose(1, 2).reshape(x.shape))


class Own(nn.Module):
    """A tied GPT that returns the logits of the last position."""

    def __init__(
        self, width: int, way: str = "sdpa", *, attention: float = HEAD**-0.5, embedding: float = 1.0,
        before: float = 1.0, after: float = 1.0, softcap: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.factors = {"embedding": embedding, "before": before, "after": after}
        self.token, self.position = nn.Embedding(96, width), nn.Embedding(24, width)
        self.blocks = nn.ModuleList(Block(width, way, attention) for _ in range(2))
        self.norm, self.readout = nn.LayerNorm(width), nn.Linear(width, 96, bias=False)
        self.readout.weight, self.softcap = self.token.weight, softcap

    def forward(self, ids: Tensor) -> Tensor:
        x = (self.token(ids) + self.position(torch.arange(ids.shape[1]))) * self.factors["embedding"]
        for block in self.blocks:
            x = block(x)
        logits = self.readout(self.norm(x)[:, [-1]] * self.factors["before"]) * self.factors["after"]
        return logits.tanh() if self.softcap else logits


QUERIES = {"*.qkv": slice(0, 64)}


def planned(make: Make, scheme: Any = "supar", **settings: Any) -> tuple[nn.Module, hpsweep.Plan]:
    """Width 64 over 32: the readout's factor is 0.8 / 2, the embeddings' 3, the attentions' 1 / head size."""
    model = make(64)
    settings = {"base_head_size": 1, **settings}
    plan = hpsweep.parametrize(
        model, scheme, base=make(32), density=1 / 4, alpha_input=3.0, alpha_output=0.8, **settings
    )
    plan.init_(model, init_std=0.3, seed=0)
    return model, plan


def how(wiring: Wiring) -> dict[str, str]:
    return {row.name: row.how for row in wiring.rows}


# name -> (model, what is said of its embedding, its readout and its second attention)
TRANSFORMERS: dict[str, tuple[Any, str, str, str]] = {
    "GPT-2": (
        lambda **s: lambda width: gpt2(width, **s),
        "output of transformer.wte x 3",
        "input of lm_head x 0.4",
        "transformer.h.1.attn.scaling = 0.0625",
    ),
    "Granite": (
        lambda **s: like_llama("Granite", **s),
        "config.embedding_multiplier = 3",
        "config.logits_scaling = 2.5",
        "config.attention_multiplier = 0.0625",
    ),
}
for name, embedding, readout in (
    ("Llama", "output of model.embed_tokens x 3", "input of lm_head x 0.4"),
    ("Qwen3", "output of model.embed_tokens x 3", "input of lm_head x 0.4"),
    ("Gemma", "output of model.embed_tokens x 0.375", "input of lm_head x 0.4"),  # it multiplies by 8 already
    ("Cohere", "output of model.embed_tokens x 3", "config.logit_scale = 0.4"),
):
    TRANSFORMERS[name] = (partial(like_llama, name), embedding, readout, "model.layers.1.self_attn.scaling = 0.0625")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_models_of_transformers_are_wired_by_their_own_settings_where_they_have_them(name: str, attention: str) -> None:
    make, embedding, readout, scale = TRANSFORMERS[name]
    model, plan = planned(make(attn_implementation=attention))
    wiring = plan.wire_(model, {"input_ids": IDS, "labels": IDS})
    assert [wiring.rows[0].how, how(wiring)["lm_head.weight"], wiring.rows[-1].how] == [embedding, readout, scale]
    for row in wiring.rows:
        expected = {"embedding": 3.0, "readout": 0.4, "attention": 1 / HEAD}[row.kind]
        assert (row.expected, row.after) == (expected, pytest.approx(expected, rel=1e-4))
    assert set(how(plan.wire_(model, IDS)).values()) == {"as it was"}


def by_hand(model: nn.Module, ids: Tensor) -> Tensor:
    """Own's logits with its sdpa, from its weights alone, multiplied as the plan asks."""
    x = 3.0 * (model.token.weight[ids] + model.position.weight[: ids.shape[1]])
    for block in model.blocks:
        h = F.layer_norm(x, x.shape[-1:], block.norm.weight, block.norm.bias)
        q, k, v = (h @ block.qkv.weight.T + block.qkv.bias).view(*ids.shape, 3, -1, HEAD).permute(2, 0, 3, 1, 4)
        scores = (q @ k.mT / HEAD).masked_fill(
            torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).triu(1), -math.inf
        )
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape)
        x = x + y @ block.out.weight.T + block.out.bias
    x = F.layer_norm(x, x.shape[-1:], model.norm.weight, model.norm.bias)[:, [-1]]
    return 0.4 * x @ model.token.weight.T


@pytest.mark.parametrize("way", ["sdpa", "in place", "einsum", "queries before"])
def test_a_fused_attention_is_wired_by_its_queries_in_training_and_evaluation(way: str) -> None:
    model, plan = planned(lambda width: Own(width, way))
    wiring = plan.wire_(model, IDS, queries=QUERIES)
    assert how(wiring)["blocks.1"] == "output of blocks.1.qkv x 0.25"
    for mode in (model.train(), model.eval()):
        torch.testing.assert_close(mode(IDS), by_hand(model, IDS))


@pytest.mark.parametrize("way", ["sdpa", "in place", "einsum"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_a_model_that_multiplies_by_itself_stays_as_it_is(way: str, place: str) -> None:
    model, plan = planned(lambda width: Own(width, way, attention=1 / HEAD, embedding=3.0, **{place: 0.4}))
    logits = model(IDS)
    assert set(how(plan.wire_(model, IDS)).values()) == {"as it was"}
    assert (model(IDS) == logits).all()
    torch.testing.assert_close(logits, by_hand(model, IDS))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("way", ["sdpa", "in place"])
def test_half_precision_is_read_to_its_rounding_and_set_exactly(dtype: torch.dtype, way: str) -> None:
    model, plan = planned(lambda width: Own(width, way).to(dtype))
    wiring = plan.wire_(model, IDS, queries=QUERIES)
    assert how(wiring)["readout.weight"] == "input of readout x 0.4"
    assert [hook.hpsweep_factor for hook in model.readout._forward_pre_hooks.values()] == [0.4]
    assert set(how(plan.wire_(model, IDS, queries=QUERIES)).values()) == {"as it was"}


def test_sp_asks_for_factors_of_1_and_the_root_of_the_head_size() -> None:
    model, plan = planned(like_llama("Gemma"), scheme="sp")
    wiring = plan.wire_(model, IDS)
    assert [row.expected for row in wiring.rows] == [1.0, 1.0, 0.25, 0.25]
    assert how(wiring)["model.embed_tokens.weight"] == "output of model.embed_tokens x 0.125"
    plain, plan = planned(Own, scheme="sp")
    plan.attach(plain, torch.optim.AdamW(plan.param_groups(plain, lr=0.01)))  # asks for no wiring


def test_a_layer_from_outside_and_a_readout_are_multiplied_without_their_biases() -> None:
    def make(width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3))

    model, plan = planned(make)
    with torch.no_grad():
        model[0].bias.fill_(0.5)
        model[4].bias.fill_(0.7)
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    assert how(plan.wire_(model, x)) == {"0.weight": "input of 0 x 3", "4.weight": "input of 4 x 0.4"}
    inner = model[2](F.relu(3 * x @ model[0].weight.T + 0.5)).relu()
    torch.testing.assert_close(model(x), 0.4 * inner @ model[4].weight.T + 0.7)


def test_an_alibi_that_is_added_does_not_hide_the_scale() -> None:
    model, plan = planned(bloom)
    assert how(plan.wire_(model, IDS))["transformer.h.0.self_attention"].endswith("inv_norm_factor = 0.0625")


@pytest.mark.parametrize("named", [{}, {"queries": "*.q_proj"}])
def test_queries_that_are_multiplied_before_are_read(named: Any) -> None:
    model, plan = planned(opt)
    wiring = plan.wire_(model, IDS, **named)
    assert [row.before for row in wiring.rows[-2:]] == pytest.approx([0.25, 0.25])
    assert {row.how.split(".", 4)[-1] for row in wiring.rows[-2:]} == {"self_attn.scaling = 0.0625"}


def state(model: nn.Module) -> Any:
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    config = model.config.to_dict() if hasattr(model, "config") else None
    return hooks, config, [getattr(m, "scaling", None) for m in model.modules()], [m.training for m in model.modules()]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (Own, r"attention factor of blocks.0, which has to be 0.0625: 0.25 is there, and could not be changed; name"),
        (
            lambda width: Own(width, softcap=True, attention=1 / HEAD),
            r"readout factor of readout.weight, which has to be 0.4: the model returns no multiple",
        ),
        (lambda width: Own(width, "queries before"), r"blocks.0, which has to be 0.0625: 0.25 is there"),
        (lambda width: Own(width, attention=1.0), r"no factor is seen between queries times keys and the softmax"),
        (lambda width: Own(width, "exp"), r"blocks.0: no softmax of a multiple of queries times keys is seen"),
        (lambda width: Own(width, "elementwise"), r"blocks.0: no softmax of a multiple of queries times keys is seen"),
        (lambda width: Own(width, "biased"), r"blocks.0: no softmax of a multiple of queries times keys is seen"),
        (lambda width: Own(width, "capped"), r"blocks.0, which has to be 0.0625: it is not one number|no softmax"),
        (lambda width: Own(width, "twice"), r"blocks.0, which .*: it has several attentions, 0.0625, 0.25"),
        (lambda width: Own(width, "training"), r"it is not one number: 0.0625 in evaluation, 0.25 in training, 0.0625"),
        (lambda width: Own(width, "keys"), r"blocks.0, which has to be 0.0625: 1 is there|no factor is seen"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_or_set_is_refused_and_nothing_is_changed(make: Make, told: str) -> None:
    model, plan = planned(make)
    before = state(model)
    with pytest.raises(ValueError, match=told):
        plan.wire_(model, IDS)
    assert state(model) == before
    with pytest.raises(ValueError, match=r"were not verified: call plan.wire_"):
        plan.attach(model, torch.optim.AdamW(plan.param_groups(model, lr=0.01)))


class WithMultihead(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = nn.Embedding(96, width)
        layer = nn.TransformerEncoderLayer(width, width // HEAD, 2 * width, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.readout = nn.Linear(width, 96)

    def forward(self, ids: Tensor) -> Tensor:
        return self.readout(self.layers(self.token(ids)))


def test_torchs_multihead_attention_is_read_and_left_only_where_that_is_said() -> None:
    model, plan = planned(WithMultihead)
    with pytest.raises(ValueError, match=r"layers.layers.0.self_attn, which has to be 0.0625: 0.25 is there"):
        plan.wire_(model, IDS)
    wiring = plan.wire_(model, IDS, leave="*.self_attn")
    assert how(wiring)["layers.layers.1.self_attn"] == "left as it is"
    assert wiring.rows[-1].after == 0.25
    plan.attach(model, torch.optim.AdamW(plan.param_groups(model, lr=0.01)))


def test_an_attention_that_is_not_seen_is_refused() -> None:
    class HiddenAttention(Block):
        def forward(self, x: Tensor) -> Tensor:
            return x + self.out(self.qkv(self.norm(x))[..., : x.shape[-1]])

    def make(width: int) -> nn.Module:
        model = Own(width)
        model.blocks[1] = HiddenAttention(width, "", 1.0)
        return model

    model, plan = planned(make)
    with pytest.raises(
        ValueError, match=r"attention factor of blocks.1: no softmax of a multiple of queries times keys"
    ):
        plan.wire_(model, IDS, queries={"blocks.0.qkv": slice(0, 64)})


def test_weights_that_are_zero_and_patterns_that_match_nothing_are_refused() -> None:
    model, plan = planned(Own)
    with pytest.raises(ValueError, match=r"queries has '\*.q', which matches no module"):
        plan.wire_(model, IDS, queries="*.q")
    with pytest.raises(ValueError, match=r"queries has '\*.qkv': 3; give a slice"):
        plan.wire_(model, IDS, queries={"*.qkv": 3})  # type: ignore[dict-item]
    with pytest.raises(
        ValueError, match=r"leave has 'h.\*', which matches none of the factors; there are token.weight, "
    ):
        plan.wire_(model, IDS, leave="h.*")
    nn.init.zeros_(model.token.weight)
    with pytest.raises(ValueError, match=r"readout.weight, which has to be 0.4: its output is zero: call plan.init_"):
        plan.wire_(model, IDS, queries=QUERIES)


def test_a_copy_a_loaded_model_and_another_plan_have_to_be_wired_again(tmp_path: Path) -> None:
    model, plan = planned(like_llama("Granite"))
    plan.wire_(model, IDS)
    other = copy.deepcopy(model)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    for again in (other, loaded):
        with pytest.raises(ValueError, match=r"were not verified: call plan.wire_"):
            plan.attach(again, torch.optim.AdamW(plan.param_groups(again, lr=0.01)))
    assert set(how(plan.wire_(loaded, IDS)).values()) == {"as it was"}  # its configuration has the multipliers
    _, mup = planned(like_llama("Granite"), scheme="mup")
    with pytest.raises(ValueError, match=rf"was wired under plan {plan.hash}, this is {mup.hash}"):
        mup.attach(model, torch.optim.AdamW(mup.param_groups(model, lr=0.01)))


def test_a_number_that_looks_like_the_scale_and_is_not_is_put_back() -> None:
    def make(width: int) -> nn.Module:
        model = Own(width)
        for block in model.blocks:
            block.dropout = HEAD**-0.5
        return model

    model, plan = planned(make)
    assert how(plan.wire_(model, IDS, queries=QUERIES))["blocks.0"] == "output of blocks.0.qkv x 0.25"
    assert [block.dropout for block in model.blocks] == [0.25, 0.25]


class Functional(nn.Module):
    """Norms as functions; the readout multiplied in the code; what is another in training."""

    def __init__(self, width: int, way: str = "norm", *, other: str = "") -> None:
        super().__init__()
        self.token, self.layer = nn.Embedding(96, width), nn.Linear(width, width)
        self.head, self.way, self.other, self.dropout = nn.Linear(width, 96), way, other, nn.Dropout(0.5)

    def forward(self, ids: Tensor) -> Tensor:
        x = F.dropout(self.dropout(self.token(ids) * 3), 0.5, self.training)
        if self.training and self.other == "embedding":
            x = x * 8
        angles = torch.ones(2, 12, 1) @ torch.arange(5.0).view(1, 1, 5).expand(2, 1, 5)  # sums over one number
        x = x + self.layer(F.layer_norm(x, x.shape[-1:]) if self.way == "norm within" else x) + 0 * angles.sum()
        if self.way in ("norm", "sliced"):
            x = F.layer_norm(x, x.shape[-1:])
        x = x * (0.4 if self.training or self.other != "readout" else 1.0)
        return self.head(x[:, [2, 5]] if self.way == "sliced" else x)


@pytest.mark.parametrize("way", ["norm", "sliced", "norm within", "none"])
def test_a_readout_behind_a_norm_without_a_module_is_read_and_not_multiplied_twice(way: str) -> None:
    model, plan = planned(lambda width: Functional(width, way))
    assert set(how(plan.wire_(model, IDS)).values()) == {"as it was"}  # and dropout is off in training


def test_statistics_of_batches_stay() -> None:
    def make(width: int) -> nn.Module:
        return nn.Sequential(
            nn.Linear(5, width), nn.BatchNorm1d(width), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3)
        )

    model, plan = planned(make)
    plan.wire_(model, torch.randn(7, 5))
    assert (model[1].running_mean == 0).all()
    assert model[1].training


@pytest.mark.parametrize("other", ["embedding", "readout"])
def test_what_is_another_factor_in_training_than_in_evaluation_is_refused(other: str) -> None:
    model, plan = planned(lambda width: Functional(width, other=other))
    with pytest.raises(ValueError, match=r"it is not one number: \S+ in evaluation, \S+ in training"):
        plan.wire_(model, IDS)


def test_a_softcap_that_is_nearly_a_multiple_is_refused() -> None:
    class Capped(Own):
        def forward(self, ids: Tensor) -> Tensor:
            return 30 * torch.tanh(super().forward(ids) / 30)

    model, plan = planned(lambda width: Capped(width, attention=1 / HEAD))
    plan.init_(model, init_std=0.005, seed=0)
    with pytest.raises(
        ValueError, match=r"readout factor of readout.weight, which has to be 0.4: the model returns no"
    ):
        plan.wire_(model, IDS)


def test_the_callers_configuration_is_not_changed() -> None:
    made = like_llama("Granite")
    model, plan = planned(made)
    given, before = model.config, model.config.to_dict()
    plan.wire_(model, IDS)
    assert given.to_dict() == before
    assert model.config.attention_multiplier == model.model.layers[0].self_attn.config.attention_multiplier == 1 / HEAD


def broken(what: str, model: nn.Module) -> None:
    if what == "hook":
        model.readout._forward_pre_hooks.clear()
    elif what == "module":
        model.readout = nn.Linear(64, 96, bias=False)
        model.readout.weight = model.token.weight
    else:
        model.blocks[1].scale = 0.25


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("hook", r"the factor of hooks of readout was 0.4 when the model was wired, and is None"),
        ("module", r"the factor of hooks of a module that is gone was 0.4"),
        ("scale", r"scale of blocks.1 was 0.0625 when the model was wired, and is 0.25: call plan.wire_"),
    ],
)
def test_wiring_that_was_undone_since_is_refused(what: str, told: str) -> None:
    model, plan = planned(Own)
    for block in model.blocks:
        block.scale = 1 / HEAD
    plan.wire_(model, IDS, queries=QUERIES)
    broken(what, model)
    with pytest.raises(ValueError, match=told):
        plan.attach(model, torch.optim.AdamW(plan.param_groups(model, lr=0.01)))


def test_a_wiring_that_fails_takes_back_the_one_before() -> None:
    model, plan = planned(Own)
    plan.wire_(model, IDS, queries=QUERIES)
    model.softcap = True
    with pytest.raises(ValueError, match="the model returns no multiple"):
        plan.wire_(model, IDS, queries=QUERIES)
    with pytest.raises(ValueError, match="were not verified"):
        plan.attach(model, torch.optim.AdamW(plan.param_groups(model, lr=0.01)))


def test_inputs_that_are_none_are_refused() -> None:
    model, plan = planned(Own)
    with pytest.raises(ValueError, match="inputs are str; give what the model is called with"):
        plan.wire_(model, "ids")


def test_hooks_are_replaced_and_not_piled_up_when_a_plan_follows_another() -> None:
    model, plan = planned(Own)
    plan.wire_(model, IDS, queries=QUERIES)
    sp = hpsweep.parametrize(model, "sp", base=Own(32))
    assert how(sp.wire_(model, IDS, queries=QUERIES))["readout.weight"] == "input of readout x 1"
    assert len(model.readout._forward_pre_hooks) == len(model.blocks[0].qkv._forward_hooks) == 1
    plan.wire_(model, IDS, queries=QUERIES)
    torch.testing.assert_close(model(IDS), by_hand(model, IDS))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_the_multipliers_are_in_force_under_compile() -> None:
    builder = pytest.importorskip("torch._inductor.cpp_builder")
    try:
        builder.get_cpp_compiler()
    except Exception as error:
        pytest.skip(f"no compiler: {error}")
    model, plan = planned(Own)
    compiled = torch.compile(model)
    plan.wire_(compiled, IDS, queries=QUERIES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.testing.assert_close(compiled(IDS), by_hand(model, IDS))
