"""A plan at density 1 has the ratios of the PyPI package mup, tensor by tensor."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import mup
import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import hpsweep


def mlp(width: int, inner: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(10, width), nn.ReLU(), nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, width), nn.ReLU(),
        nn.Linear(width, 3),
    )  # fmt: skip


def gpt2(width: int, inner: int | None = None, **settings: Any) -> GPT2LMHeadModel:
    config = GPT2Config(
        n_layer=2, n_embd=width, n_head=4, n_inner=inner, vocab_size=96, n_positions=40, bos_token_id=0, eos_token_id=0,
        **settings,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def llama(width: int, inner: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        num_hidden_layers=2, hidden_size=width, intermediate_size=inner, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=96,
    )  # fmt: skip
    return LlamaForCausalLM(config)


# name -> (base, target, kinds that shapes do not tell). Widths grow by different factors where mup allows it: for the
# (in, out) matrices of GPT-2 it takes the fan-out as the fan-in.
PAIRS: dict[str, tuple[nn.Module, nn.Module, dict[str, Any]]] = {
    "mlp": (mlp(32, 48), mlp(128, 96), {}),
    "gpt2": (gpt2(32), gpt2(128), {"*.c_proj.weight": "residual_out"}),
    "gpt2 untied": (gpt2(32, tie_word_embeddings=False), gpt2(64, tie_word_embeddings=False), {}),
    "llama": (
        llama(32, 96),
        llama(128, 192),
        {"*.o_proj.weight": "residual_out", "*.down_proj.weight": "residual_out"},
    ),
}


def in_mup(model: nn.Module) -> nn.Module:
    """A copy with the readout that mup asks for."""
    model = copy.deepcopy(model)
    if isinstance(model, nn.Sequential):
        model[-1] = mup.MuReadout(model[-1].in_features, model[-1].out_features)
    elif model.config.tie_word_embeddings:
        model.lm_head = mup.MuSharedReadout(model.transformer.wte.weight, bias=False)
    else:
        model.lm_head = mup.MuReadout(model.config.hidden_size, model.config.vocab_size, bias=False)
    return model


def rates(model: nn.Module, groups: list[dict[str, Any]], field: str) -> dict[str, float]:
    by_id = {id(parameter): group[field] for group in groups for parameter in group["params"]}
    return {name: by_id[id(parameter)] for name, parameter in model.named_parameters()}


def mup_init_std(parameter: Tensor) -> float:
    """What mup multiplies a base init std with."""
    scales = []
    mup.init.constant_std_init_(parameter, lambda _, scale=1.0: scales.append(scale))
    return float(scales[0])


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("scheme", ["mup", "supar"])
def test_a_plan_has_mups_learning_rates_init_stds_and_readout_multiplier(name: str, scheme: Any) -> None:
    base, target, kinds = PAIRS[name]
    reference = mup.set_base_shapes(in_mup(target), in_mup(base), rescale_params=False)
    plan = hpsweep.parametrize(target, scheme, base=base, kinds=kinds, weight_decay_rule="independent")
    adam = mup.MuAdamW(reference.parameters(), lr=0.01, weight_decay=0.1).param_groups
    groups = plan.param_groups(target, lr=0.01, weight_decay=0.1)
    assert rates(target, groups, "lr") == pytest.approx(rates(reference, adam, "lr"))

    at_base = hpsweep.parametrize(base, scheme, base=base, delta=target, kinds=kinds)
    theirs = dict(reference.named_parameters())
    assert plan.tensors.keys() == theirs.keys()
    decays, their_decays = rates(target, groups, "weight_decay"), rates(reference, adam, "weight_decay")
    for tensor_name, tensor in plan.tensors.items():
        if tensor.kind in ("norm", "bias"):
            continue  # they begin at constants, and are not decayed
        ratio = tensor.init_std / at_base.tensors[tensor_name].init_std
        assert ratio == pytest.approx(mup_init_std(theirs[tensor_name]))
        assert decays[tensor_name] == pytest.approx(their_decays[tensor_name])

    readouts = {name: module for name, module in reference.named_modules() if isinstance(module, mup.MuReadout)}
    assert plan.forward_multipliers == {f"{name}.weight": 1 / module.width_mult() for name, module in readouts.items()}


def test_a_plan_has_mups_learning_rates_under_sgd() -> None:
    base, target, _ = PAIRS["mlp"]
    reference = mup.set_base_shapes(in_mup(target), in_mup(base), rescale_params=False)
    plan = hpsweep.parametrize(target, "mup", base=base, optimizer="sgd")
    sgd = mup.MuSGD(reference.parameters(), lr=0.01).param_groups
    assert rates(target, plan.param_groups(target, lr=0.01), "lr") == pytest.approx(rates(reference, sgd, "lr"))
    assert rates(target, plan.param_groups(target, lr=0.01), "lr")["2.weight"] == pytest.approx(0.01 * 2 / 4)


def test_the_fan_in_of_gpt2s_matrices_is_their_first_dimension() -> None:
    """Widths 32 to 128 and inner 48 to 96: m_d is 4 for c_fc (128, 96) and 2 for c_proj (96, 128)."""
    plan = hpsweep.parametrize(gpt2(128, 96), "mup", base=gpt2(32, 48))
    up, down = plan.tensors["transformer.h.0.mlp.c_fc.weight"], plan.tensors["transformer.h.0.mlp.c_proj.weight"]
    assert (up.fan_in, up.m_d, up.lr, up.init_std) == (128, 4, 0.25, 0.5)
    assert (down.fan_in, down.m_d, down.lr, down.init_std) == (96, 2, 0.5, pytest.approx(0.5**0.5))


class Scaled(nn.Module):
    """The MLP with a multiplied output."""

    def __init__(self, width: int, factor: float) -> None:
        super().__init__()
        self.layers, self.factor = mlp(width, width), factor

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) * self.factor


@pytest.mark.parametrize(
    ("optimizer", "lr_of_readout"), [(torch.optim.AdamW, lambda t: 1 / t), (torch.optim.SGD, lambda t: 1 / t**2)]
)
def test_both_published_tables_of_the_readout_train_alike(
    optimizer: Callable[..., torch.optim.Optimizer], lr_of_readout: Callable[[float], float]
) -> None:
    """The abc-symmetry (a t, b / t, c / t), under SGD c / t^2. Ours, and mup's with its MuReadout: forward 1 / m_d,
    init s, lr n. The other table: forward 1, init s / m_d, lr n / m_d (SGD: n m_d / m_d^2 = n / m_d).
    """
    m_d = 4.0
    ours = Scaled(128, 1 / m_d)
    rule: Any = "adam" if optimizer is torch.optim.AdamW else "sgd"
    plan = hpsweep.parametrize(ours, "mup", base=lambda: Scaled(32, 1.0), optimizer=rule)
    assert plan.forward_multipliers == {"layers.6.weight": 1 / m_d}
    plan.init_(ours, init_std=0.2, seed=0)
    other = Scaled(128, 1.0)
    other.load_state_dict(ours.state_dict())
    with torch.no_grad():
        other.layers[-1].weight /= m_d
    x = torch.randn(64, 10, generator=torch.Generator().manual_seed(0))
    losses: dict[nn.Module, list[float]] = {}
    for model, is_other in ((ours, False), (other, True)):
        groups = plan.param_groups(model, lr=0.01)
        if is_other:  # the readout's weight and, with it, its bias: both carry the multiplier
            groups = [g | {"params": [p for p in g["params"] if p.shape[0] != 3]} for g in groups]
            unit = plan.tensors["layers.6.weight"].lr, plan.tensors["layers.6.bias"].lr
            last = model.layers[-1]
            for parameter, multiplier in zip((last.weight, last.bias), unit, strict=True):
                groups.append({"params": [parameter], "lr": 0.01 * multiplier * lr_of_readout(m_d)})
        steps = optimizer(groups, weight_decay=0.0, **({"eps": 1e-12} if rule == "adam" else {}))
        losses[model] = []
        for _ in range(15):
            loss = nn.functional.mse_loss(model(x), x[:, :3])
            losses[model].append(loss.item())
            steps.zero_grad()
            loss.backward()
            steps.step()
    assert losses[ours][-1] < 0.97 * losses[ours][0]
    assert losses[ours] == pytest.approx(losses[other], rel=1e-4)


def test_gradients_are_proportional_to_the_multipliers_of_eps_at_every_width_and_density() -> None:
    sizes: list[dict[str, float]] = []
    for width, density in ((64, 1.0), (1024, 1.0), (1024, 1 / 8)):
        model = Scaled(width, 64 / width)
        plan = hpsweep.parametrize(
            model, "supar", base=lambda: Scaled(64, 1.0), delta=lambda: Scaled(32, 1.0), density=density
        )
        plan.init_(model, init_std=0.2, seed=0)
        x = torch.randn(4096, 10, generator=torch.Generator().manual_seed(0))
        (model(x) * x[:, :3]).sum().backward()
        masks = plan.masks(model)
        sizes.append({})
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            kept = parameter.grad[masks[name]] if name in masks else parameter.grad
            sizes[-1][name] = float(kept.square().mean().sqrt()) / plan.tensors[name].eps
    for name in sizes[0]:
        if name != "layers.6.bias":
            assert sizes[1][name] == pytest.approx(sizes[0][name], rel=0.35), name
            assert sizes[2][name] == pytest.approx(sizes[1][name], rel=0.35), name


class TwoWidths(nn.Module):
    """10 to d to h to 3, with a multiplied output."""

    def __init__(self, d: int, h: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(10, d), nn.ReLU(), nn.Linear(d, h), nn.ReLU(), nn.Linear(h, 3)
        )  # fmt: skip
        self.factor = 64 / h

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) * self.factor


def test_gradients_follow_the_multipliers_of_eps_where_two_widths_grow_unlike() -> None:
    """Exact from the last hidden matrix on. Before it a gradient goes by both widths: that of the first layer by their
    geometric mean at the beginning, 1/4 where h alone is 16 times as wide, and its eps by its own width alone.
    """
    sizes: dict[tuple[int, int], dict[str, float]] = {}
    eps: dict[tuple[int, int], dict[str, float]] = {}
    for m_d, m_h in ((1, 1), (1, 16), (16, 1), (16, 16)):
        model = TwoWidths(64 * m_d, 64 * m_h)
        plan = hpsweep.parametrize(model, "mup", base=lambda: TwoWidths(64, 64), delta=lambda: TwoWidths(32, 32))
        plan.init_(model, init_std=0.2, seed=0)
        x = torch.randn(4096, 10, generator=torch.Generator().manual_seed(0))
        (model(x) * x[:, :3]).sum().backward()
        eps[m_d, m_h] = {name: plan.tensors[name].eps for name, _ in model.named_parameters()}
        sizes[m_d, m_h] = {
            name: float(parameter.grad.square().mean().sqrt()) for name, parameter in model.named_parameters()
        }
    for widths in sizes:
        shrunk = {name: size / sizes[1, 1][name] for name, size in sizes[widths].items()}
        for name in ("layers.2.weight", "layers.2.bias", "layers.4.weight"):
            assert shrunk[name] == pytest.approx(eps[widths][name], rel=0.35), (widths, name)
        assert eps[widths]["layers.2.weight"] == eps[widths]["layers.2.bias"] == 1 / widths[1]
        for name in ("layers.0.weight", "layers.0.bias"):
            assert eps[widths][name] == 1 / widths[0]
            assert shrunk[name] == pytest.approx((widths[0] * widths[1]) ** -0.5, rel=0.35), (widths, name)
