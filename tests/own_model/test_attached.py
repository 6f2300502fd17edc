"""What could bring pruned weights back, or loosen a plan's hold, after `attach`: noticed before the next step."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hpsweep
from hpsweep.own_model.forward.wired import multiplied_modules
from tests.own_model.test_plan import Toy
from tests.own_model.test_plan_masks import assert_sparse, loss, sparse_toy


def training() -> tuple[Toy, hpsweep.Plan, torch.optim.Optimizer]:
    """After one step."""
    model, plan = sparse_toy()
    optimizer = torch.optim.AdamW(plan.param_groups(model, lr=0.01))
    plan.attach(model, optimizer)
    step(model, optimizer)
    return model, plan, optimizer


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss(model, 0).backward()
    optimizer.step()


def dense() -> dict[str, Tensor]:
    return Toy(128, depth=2).state_dict()


def by_data(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        parameter.data.copy_(dense()[name])


def by_another_storage(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        parameter.data = dense()[name].clone()


def one_weight(model: Any) -> None:
    weight = model.blocks[1].down.weight
    with torch.no_grad():
        weight.view(-1)[int((weight.view(-1) == 0).nonzero()[-1])] = 1e-30


def not_a_number(model: Any) -> None:
    weight = model.blocks[1].down.weight
    weight.data.view(-1)[int((weight.view(-1) == 0).nonzero()[-1])] = torch.nan


def an_average(model: nn.Module) -> None:
    average = torch.optim.swa_utils.AveragedModel(Toy(128, depth=2))
    model.load_state_dict(average.module.state_dict())


REVIVED: dict[str, Callable[[Any], Any]] = {
    "a dense checkpoint": lambda model: model.load_state_dict(dense()),
    "data that was copied": by_data,
    "data that was set": by_another_storage,
    "one weight": one_weight,
    "NaN": not_a_number,
    "an average of dense models": an_average,
}


@pytest.mark.parametrize("way", REVIVED)
def test_pruned_weights_that_came_back_are_refused_before_a_step_whatever_brought_them(way: str) -> None:
    model, _, optimizer = training()
    REVIVED[way](model)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with pytest.raises(ValueError, match=r"blocks\.[01]\.\w+\.weight has \d+ nonzero weights outside of its mask"):
        step(model, optimizer)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), before[name], rtol=0, atol=0, equal_nan=True)


def test_the_line_that_prunes_them_can_be_pasted_and_ends_the_error() -> None:
    model, plan, optimizer = training()
    model.load_state_dict(dense())
    with pytest.raises(ValueError, match="To prune them") as error:
        step(model, optimizer)
    line = re.search(r"To prune them: (for name, kept in .*)$", str(error.value))
    assert line is not None
    exec(line[1], {"plan": plan, "model": model})
    step(model, optimizer)
    assert_sparse(model, plan)


def test_a_checkpoint_of_the_plan_may_be_loaded_at_any_time() -> None:
    model, plan, optimizer = training()
    state = copy.deepcopy(model.state_dict())
    step(model, optimizer)
    model.load_state_dict(state)
    step(model, optimizer)
    assert_sparse(model, plan)


@pytest.mark.parametrize("way", ["assign", "new module", "untied"])
def test_a_parameter_that_the_optimizer_does_not_train_any_more_is_refused(way: str) -> None:
    model, plan, optimizer = training()
    if way == "assign":
        model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
    elif way == "new module":
        model.blocks[0].up = copy.deepcopy(model.blocks[0].up)
    else:
        model.token.weight = nn.Parameter(model.token.weight.detach().clone())
    with pytest.raises(ValueError, match=r"of the model is another tensor than the one that was attached.*again"):
        step(model, optimizer)
    plan.wire_(model, torch.arange(1, 25).view(3, 8))
    optimizer = torch.optim.AdamW(plan.param_groups(model, lr=0.01))  # the remedy
    plan.attach(model, optimizer)
    step(model, optimizer)
    assert_sparse(model, plan)


def test_a_multiplier_that_is_removed_after_attaching_is_refused_before_the_next_step() -> None:
    model, _, optimizer = training()
    name, (module, factor) = next(iter(multiplied_modules(model).items()))
    for hooks in (module._forward_hooks, module._forward_pre_hooks):
        hooks.clear()
    with pytest.raises(ValueError, match=f"the hooks of {name} multiplied by {factor:g} .* multiply by 1: .*wire_"):
        step(model, optimizer)


def test_a_model_that_changes_its_type_of_number_stays_masked() -> None:
    model, plan, optimizer = training()
    model.to(torch.bfloat16)
    model.to(torch.float64)
    optimizer.state.clear()
    step(model, optimizer)
    assert_sparse(model, plan)


def test_rates_masks_and_momenta_are_held_after_another_state_of_the_optimizer_is_loaded() -> None:
    model, plan, optimizer = training()
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(model, optimizer)
    assert_sparse(model, plan)
    whole = Toy(128, depth=2)
    dense_plan = hpsweep.parametrize(whole, "supar", base=lambda: Toy(32, depth=2))
    other = torch.optim.AdamW(optimizer.param_groups, lr=0.1)
    state = other.state_dict()
    for group, names in zip(state["param_groups"], optimizer.param_groups, strict=True):
        group["lr"] = 0.01 * dense_plan.tensors[names["names"][0]].lr
    optimizer.load_state_dict(state)
    with pytest.raises(ValueError, match=r"learning rates .* belong to multipliers .* re-written the groups"):
        step(model, optimizer)


def test_momenta_of_a_dense_model_do_not_bring_pruned_weights_back() -> None:
    model, plan, optimizer = training()
    state = copy.deepcopy(optimizer.state_dict())
    for values in state["state"].values():
        values["exp_avg"] = torch.ones_like(values["exp_avg"])
    optimizer.load_state_dict(state)
    for _ in range(2):
        step(model, optimizer)
        assert_sparse(model, plan)


def test_a_step_that_a_gradient_scaler_skips_changes_nothing_and_the_next_one_is_checked() -> None:
    model, plan, optimizer = training()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    before = model.blocks[0].up.weight.detach().clone()
    scaler.scale(loss(model, 1) * torch.inf).backward()
    scaler.step(optimizer)
    scaler.update()
    assert (model.blocks[0].up.weight == before).all()
    optimizer.zero_grad()
    scaler.scale(loss(model, 1)).backward()
    scaler.step(optimizer)
    assert_sparse(model, plan)
    model.load_state_dict(dense())
    with pytest.raises(ValueError, match="nonzero weights outside of its mask"):
        optimizer.step()


def test_frozen_matrices_that_no_optimizer_holds_are_watched_too() -> None:
    model, plan = sparse_toy()
    model.blocks[0].up.weight.requires_grad_(False)
    groups = plan.param_groups(model, lr=0.01)
    for group in groups:
        group["params"] = [p for p in group["params"] if p.requires_grad]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]])
    plan.attach(model, optimizer)
    step(model, optimizer)
    model.blocks[0].up.weight.data.fill_(1.0)
    with pytest.raises(ValueError, match=r"blocks\.0\.up\.weight has 28672 nonzero weights outside"):
        step(model, optimizer)


# --- values that are not finite ---


class WithBuffers(Toy):
    def __init__(self, width: int, **options: Any) -> None:
        super().__init__(width, **options)
        self.register_buffer("mask", torch.full((4, 4), -torch.inf).triu(1))
        for block in self.blocks:
            block.register_buffer("table", torch.ones(3), persistent=False)
            block.register_buffer("counts", torch.zeros(3, dtype=torch.int64))


def with_buffers() -> tuple[WithBuffers, hpsweep.Plan]:
    model = WithBuffers(64, depth=2)
    plan = hpsweep.parametrize(model, "supar", base=lambda: WithBuffers(32, depth=2))
    plan.init_(model, init_std=0.1, seed=0)
    return model, plan


BROKEN: dict[str, tuple[Callable[[Any], Any], str]] = {
    "one buffer": (lambda m: m.blocks[1].table.fill_(torch.nan), r"^blocks\.1\.table is not finite .*to_empty leaves"),
    "all buffers": (lambda m: [b.table.fill_(torch.inf) for b in m.blocks], r"^\*\.table are not finite .* anew"),
    "a buffer of -inf": (lambda m: m.mask.fill_(-torch.inf), r"^mask is not finite"),
    "one value": (lambda m: m.mask.view(-1)[3].fill_(torch.nan), r"^mask is not finite"),
    "a parameter": (
        lambda m: m.blocks[0].norm.weight.data[3].fill_(torch.inf),
        r"^blocks\.0\.norm\.weight is not finite .* plan\.init_",
    ),
    "the meta device": (lambda m: m.blocks.to("meta"), r"on the meta device, without values; call model\.to_empty"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_values_that_are_not_finite_are_named_in_one_line_when_wired_and_when_attached(case: str) -> None:
    damage, told = BROKEN[case]
    inputs = torch.arange(1, 25).view(3, 8)
    model, plan = with_buffers()
    damage(model)
    with pytest.raises(ValueError, match=told) as error:
        plan.wire_(model, inputs)
    assert "\n" not in str(error.value)
    model, plan = with_buffers()
    plan.wire_(model, inputs)
    optimizer = torch.optim.AdamW(plan.param_groups(model, lr=0.01))
    if case != "the meta device":
        damage(model)
        with pytest.raises(ValueError, match=told):
            plan.attach(model, optimizer)


def test_masks_of_minus_infinity_and_whole_numbers_are_no_fault() -> None:
    model, plan = with_buffers()
    plan.wire_(model, torch.arange(1, 25).view(3, 8))
    plan.attach(model, torch.optim.AdamW(plan.param_groups(model, lr=0.01)))
