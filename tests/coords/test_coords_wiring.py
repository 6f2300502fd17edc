"""The coordinate check on wirings that are right, and on ones that are deliberately broken, each named.

Along density at width 512, where 1/64 leaves 8 nonzeros per neuron; broken ones at widths 64 and 256, densities 1 and
1/16. One sequence of 6 tokens, 4 steps at learning rate 2^-9, as `hpsweep coords` has them.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import hpsweep
from hpsweep.analysis.coords import culprit
from hpsweep.proxy import model, optimizer
from hpsweep.rules.multipliers import Numbers
from hpsweep.spec import Trial
from tests.own_model.plain_gpt import PlainGPT

TRIAL = Trial(lr=2**-9, steps=1, batch=1, context=6, head_size=16, base_width=64)
SMALL: dict[str, Any] = {"widths": [64, 256], "densities": [1, 1 / 16], "seeds": range(3)}


def named(sizes: pd.DataFrame) -> tuple[str, str, str] | None:
    """Module, verdict and field of the culprit, if there is one."""
    row = culprit(hpsweep.coords.verdicts(hpsweep.coords.slopes(sizes)))
    return row and (row["module"], row["verdict"], row["along"])


# --- the proxies along density ---


def slopes(scheme: Any, **options: Any) -> pd.DataFrame:
    sizes = hpsweep.coords.check(TRIAL.replace(scheme=scheme, base_width=128), widths=[512], **options)
    return hpsweep.coords.slopes(sizes).set_index(["module", "quantity"])


def test_under_supar_no_size_and_no_change_has_a_slope_beyond_a_tenth_over_density_1_to_a_64th() -> None:
    table = slopes("supar", densities=[1, 1 / 8, 1 / 64], seeds=range(4))
    assert len(table) == 14 * 2 + 9  # 14 activations, of which 9 are products with weights
    assert table["slope"].abs().max() < 0.1
    assert table["slope"].abs().median() < 0.03


@pytest.mark.parametrize("scheme", ["sp", "mup"])
def test_under_sp_and_mup_every_hidden_activation_shrinks_with_density(scheme: str) -> None:
    table = slopes(scheme, densities=[1, 1 / 64], seeds=range(2))
    hidden = table[[name.startswith("block") for name, _ in table.index]]
    products = hidden[[name.count(".") == 2 for name, _ in hidden.index]]
    assert len(products) == 8 * 3
    assert products["slope"].max() < -0.45  # sizes of qkv and mlp.in have -1/2, by theory
    assert products["slope"].xs("own", level=1).max() < -0.75
    assert hidden["slope"].max() < -0.35  # the residual stream, which begins with the embeddings


# --- a proxy wired wrongly ---


def ones(trials: Any, vocabulary: int) -> model.Multipliers:
    return MULTIPLIERS(trials, vocabulary)._replace(readout=torch.ones(len(trials)))


def root_scale(trials: Any, vocabulary: int) -> model.Multipliers:
    scale = torch.tensor([trial.head_size**-0.5 for trial in trials])
    return MULTIPLIERS(trials, vocabulary)._replace(attention=scale)


def unscaled(name: str, field: str, factor: Callable[[Trial], float]) -> Callable[[Trial, int], dict[str, Numbers]]:
    """The numbers of the tensors, of which one lacks a correction."""

    def numbers(trial: Trial, vocabulary: int) -> dict[str, Numbers]:
        table = NUMBERS(trial, vocabulary)
        value = getattr(table[name], field) * factor(trial)
        return table | {name: dataclasses.replace(table[name], **{field: value})}

    return numbers


MULTIPLIERS, NUMBERS = model.forward_multipliers, model.tensor_numbers


@pytest.mark.parametrize(
    ("where", "function", "broken", "name"),
    [
        (model, "forward_multipliers", MULTIPLIERS, None),
        (model, "forward_multipliers", ones, ("readout", "grows", "width")),
        pytest.param(
            *(model, "forward_multipliers", root_scale, ("block0.attention_logits", "grows", "width")),
            marks=pytest.mark.slow,
        ),
        (model, "tensor_numbers", unscaled("block0.mlp.in", "init_std", lambda t: t.m_rho**0.5),
         ("block0.mlp.in", "shrinks", "density")),
        pytest.param(model, "tensor_numbers", unscaled("block1.attention.out", "init_std", lambda t: t.m_d**0.5),
                     ("block1.attention.out", "grows", "width"), marks=pytest.mark.slow),
        (optimizer, "tensor_numbers", unscaled("block0.attention.qkv", "lr", lambda t: t.m_rho),
         ("block0.attention.qkv", "shrinks", "density")),
        pytest.param(optimizer, "tensor_numbers", unscaled("block1.mlp.out", "lr", lambda t: t.m_d),
                     ("block1.mlp.out", "grows", "width"), marks=pytest.mark.slow),
    ],
    ids=["right", "readout", "attention", "init m_rho", "init m_d", "lr m_rho", "lr m_d"],
)  # fmt: skip
def test_a_broken_proxy_is_caught_and_the_tensor_named(
    where: Any, function: str, broken: Any, name: tuple[str, str, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, function, broken)
    assert named(hpsweep.coords.check(TRIAL, **SMALL, heads=4)) == name


# --- a module of one's own, wired wrongly ---


def trained(
    module: nn.Module, plan: hpsweep.Plan, seed: int, scores: Callable[[Tensor], Tensor], *, leave: str | tuple[()] = ()
) -> Any:
    """The module with its weights and its optimizer by the plan, and its loss on 6 random tokens.

    `leave`: the forward multipliers that are left as they come.
    """
    plan.init_(module, init_std=0.08, seed=seed)
    plan.wire_(module, torch.arange(12).view(2, 6), leave=leave)
    made = torch.optim.AdamW(plan.param_groups(module, lr=2**-9, weight_decay=0.0), betas=(0.9, 0.95), eps=1e-12)
    plan.attach(module, made)
    ids = torch.randint(256, (1, 7), generator=torch.Generator().manual_seed(seed))
    return module, made, lambda: nn.functional.cross_entropy(scores(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def plan_of(module: nn.Module, base: Any, delta: Any, density: float, seed: int, *residual_out: str) -> hpsweep.Plan:
    kinds: Any = dict.fromkeys(residual_out, "residual_out")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*nonzeros per neuron")
        return hpsweep.parametrize(module, "supar", base=base, delta=delta, density=density, kinds=kinds, seed=seed)


def own(width: int, density: float, seed: int, fault: str = "") -> Any:
    """A plain GPT with 4 heads at every width, and one fault."""

    def plain(width: int) -> PlainGPT:
        return PlainGPT(TRIAL.replace(width=width, head_size=width // 4), 256)

    module = plain(width)
    plan = plan_of(module, plain(64), plain(128), density, seed, "*.out.weight", "*.mlp_out.weight")
    if fault == "readout":
        module.output_multiplier = 1.0
    elif fault == "attention":
        for block in module.blocks:
            block.attention_scale = (width / 4) ** -0.5  # type: ignore[assignment]
    elif fault:
        name, field, of, power = fault.split()
        tensor = plan.tensors[name]
        right = getattr(tensor, field) * getattr(tensor, of) ** float(power)
        plan.tensors[name] = dataclasses.replace(tensor, **{field: right})
    return trained(module, plan, seed, module, leave="*" if fault in ("readout", "attention") else ())


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ("", None),
        ("readout", ("readout", "grows", "width")),
        pytest.param("attention", ("attention_logits", "grows", "width"), marks=pytest.mark.slow),
        pytest.param(
            "blocks.0.mlp_in.weight init_std m_d 0.5", ("blocks.0.mlp_in", "grows", "width"), marks=pytest.mark.slow
        ),
        pytest.param(
            "blocks.1.out.weight init_std m_rho 0.5", ("blocks.1.out", "shrinks", "density"), marks=pytest.mark.slow
        ),
        ("blocks.0.qkv.weight lr m_d 1", ("blocks.0.qkv", "grows", "width")),
        pytest.param(
            "blocks.1.mlp_out.weight lr m_rho 1", ("blocks.1.mlp_out", "shrinks", "density"), marks=pytest.mark.slow
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_module_of_ones_own_is_caught_and_the_layer_named(
    fault: str, name: tuple[str, str, str] | None
) -> None:
    found = named(hpsweep.coords.check(lambda *cell: own(*cell, fault), **SMALL))
    if fault == "attention":
        assert found is not None
        assert found[0].startswith("blocks.0.")
        found = (found[0].removeprefix("blocks.0."), *found[1:])
    assert found == name


IDS: dict[str, Any] = {"vocab_size": 256, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}


def gpt2(width: int, density: float, seed: int, *, right: bool, attention: str) -> Any:
    def config(width: int) -> GPT2Config:
        sizes = {"n_embd": width, "n_head": 4, "n_layer": 1, "n_positions": 8}
        return GPT2Config(**sizes, **IDS, use_cache=False, attn_implementation=attention)

    module = GPT2LMHeadModel(config(width))
    plan = plan_of(module, config(64), config(128), density, seed, "*.c_proj.weight")
    return trained(module, plan, seed, lambda ids: module(ids).logits, leave=() if right else "*")


def llama(width: int, density: float, seed: int, *, right: bool) -> Any:
    def config(width: int) -> LlamaConfig:
        sizes = {"hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": 1}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False}
        return LlamaConfig(**sizes, **heads, **IDS, use_cache=False)

    module = LlamaForCausalLM(config(width))
    plan = plan_of(module, config(64), config(128), density, seed, "*.o_proj.weight", "*.down_proj.weight")
    return trained(module, plan, seed, lambda ids: module(ids).logits, leave=() if right else "lm_head.weight")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_gpt2_of_transformers_passes_as_the_page_wires_it_and_is_caught_as_it_comes(attention: str) -> None:
    assert named(hpsweep.coords.check(lambda *cell: gpt2(*cell, right=True, attention=attention), **SMALL)) is None
    options: dict[str, Any] = {"widths": [64, 256], "seeds": range(3)}
    as_it_comes = hpsweep.coords.check(lambda *cell: gpt2(*cell, right=False, attention=attention), **options)
    assert named(as_it_comes) == ("transformer.h.0.attn.attention_logits", "grows", "width")
    # Its embedding is its readout, and both are seen.
    assert {"transformer.wte", "lm_head"} <= set(as_it_comes["module"])


def test_llama_of_transformers_passes_with_its_multipliers_and_is_caught_without_the_readouts() -> None:
    assert named(hpsweep.coords.check(lambda *cell: llama(*cell, right=True), **SMALL)) is None
    sizes = hpsweep.coords.check(lambda *cell: llama(*cell, right=False), widths=[64, 256], seeds=range(3))
    assert named(sizes) == ("lm_head", "grows", "width")
