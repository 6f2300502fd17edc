"""A proxy as a plain module, parametrized, is the proxy."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hpsweep
from hpsweep.proxy import model, train
from hpsweep.proxy.data import load_dataset, token_windows, train_offsets
from hpsweep.proxy.schedule import lr_factor
from hpsweep.rules.multipliers import attention_scale, readout_multiplier, tensor_numbers
from hpsweep.spec import Trial
from tests.own_model.plain_gpt import PlainGPT
from tests.proxy.test_ensemble import MIXED

TRIALS = [*MIXED, MIXED[1].replace(tied=False)]


class ProxyModule(nn.Module):
    """PlainGPT with its layers called as the proxy's tensors."""

    def __init__(self, trial: Trial, vocabulary: int) -> None:
        super().__init__()
        plain = PlainGPT(trial, vocabulary)
        self.embedding = nn.ModuleDict({"token": plain.token, "position": plain.position})
        for i, block in enumerate(plain.blocks):
            layers: dict[str, nn.Module] = {
                "norm1": block.norm1,
                "attention": nn.ModuleDict({"qkv": block.qkv, "out": block.out}),
                "norm2": block.norm2,
                "mlp": nn.ModuleDict({"in": block.mlp_in, "out": block.mlp_out}),
            }
            self.add_module(f"block{i}", nn.ModuleDict(layers))
        self.norm, self.readout = plain.norm, plain.readout
        self.plain = [plain]  # in a list, so that no tensor has two names

    def forward(self, ids: Tensor) -> Tensor:
        return self.plain[0](ids)


def parametrized(trial: Trial, vocabulary: int) -> tuple[ProxyModule, hpsweep.Plan]:
    module = ProxyModule(trial, vocabulary)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*nonzeros per neuron")
        plan = hpsweep.parametrize(
            module,
            trial.scheme,
            base=lambda: ProxyModule(trial.replace(width=trial.base_width), vocabulary),
            density=trial.density,
            base_density=trial.base_density,
            kinds={"*attention.out.weight": "residual_out", "*mlp.out.weight": "residual_out"},
            seed=trial.seed,
            alpha_input=trial.alpha_input,
            alpha_attention=trial.alpha_attention,
            alpha_output=trial.alpha_output,
            base_head_size=trial.base_head_size,
            embedding_lr_mult=trial.embedding_lr_mult,
            weight_decay_rule=trial.weight_decay_rule,
        )
    plan.init_(module, init_std=trial.init_std, seed=trial.seed)
    wiring = plan.wire_(module, torch.arange(2 * trial.context).view(2, -1))
    assert {row.how for row in wiring.rows} == {"as it was"}  # PlainGPT multiplies by itself
    return module, plan


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.trial_id)
def test_a_parametrized_module_has_the_proxys_numbers_weights_and_masks(trial: Trial) -> None:
    module, plan = parametrized(trial, 256)
    numbers = tensor_numbers(trial, 256)
    weights = model.initial_parameters([trial], 256)
    masks = model.hidden_masks([trial], 256)
    assert {name.removesuffix(".weight") for name in plan.tensors} == numbers.keys()
    for name, tensor in plan.tensors.items():
        n = numbers[name.removesuffix(".weight")]
        assert (tensor.kind, tensor.m_d, tensor.m_rho) == (n.kind, n.m_d, n.m_rho)
        assert (trial.init_std * tensor.init_std, trial.lr * tensor.lr, trial.weight_decay * tensor.weight_decay) == (
            pytest.approx((n.init_std, n.lr, n.weight_decay))
        )
        torch.testing.assert_close(module.get_parameter(name).data, weights[name.removesuffix(".weight")][0])
    assert plan.tensors["embedding.token.weight"].forward == numbers["embedding.token"].forward
    factors = {"readout.weight": readout_multiplier(trial)}
    factors |= dict.fromkeys(
        ("embedding.token.weight", "embedding.position.weight"), numbers["embedding.token"].forward
    )
    assert plan.forward_multipliers == {name: factor for name, factor in factors.items() if factor != 1}
    assert plan.attention_scale(trial.head_size) == attention_scale(trial)
    assert {name.removesuffix(".weight") for name in plan.masks(module)} == masks.keys()
    for name, kept in plan.masks(module).items():
        assert (kept == masks[name.removesuffix(".weight")][0]).all()


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.trial_id)
def test_a_parametrized_module_trains_to_the_losses_of_the_ensemble_member(trial: Trial) -> None:
    data = load_dataset(trial.data)
    module, plan = parametrized(trial, data.vocabulary)
    groups = plan.param_groups(module, lr=trial.lr, weight_decay=trial.weight_decay)
    optimizer = torch.optim.AdamW(groups, betas=(trial.beta1, trial.beta2), eps=trial.eps)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(trial, step))
    plan.attach(module, optimizer)
    losses = []
    for row in train_offsets(data, seed=trial.seed, steps=trial.total_steps, batch=trial.batch, context=trial.context):
        inputs, targets = map(torch.from_numpy, token_windows(data.train, row, trial.context))
        loss = nn.functional.cross_entropy(module(inputs).flatten(0, 1), targets.flatten())
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), trial.clip)
        optimizer.step()
        scheduler.step()
    curve: list[Any] = list(train.train([trial]).curves["train_loss"])
    assert len(losses) == 30
    np.testing.assert_allclose(losses, curve, atol=1e-4)
