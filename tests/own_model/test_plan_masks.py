"""Masks of own models: exact, the same everywhere, and zero through training and after a resume."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hpsweep
from hpsweep.architectures import kept_count
from hpsweep.rules.masks import mask
from tests.own_model.test_plan import Toy

Make = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]


IDS = torch.arange(1, 25).view(3, 8)


def sparse_toy(*, seed: int = 0, density: float = 1 / 8, **options: Any) -> tuple[Toy, hpsweep.Plan]:
    model = Toy(128, depth=2)
    plan = hpsweep.parametrize(model, "supar", base=lambda: Toy(32, depth=2), density=density, seed=seed, **options)
    plan.init_(model, init_std=0.1, seed=0)
    plan.wire_(model, IDS)
    return model, plan


def loss(model: nn.Module, step: int) -> Tensor:
    ids = torch.randint(1, 50, (4, 8), generator=torch.Generator().manual_seed(step))
    return nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.roll(1).flatten())


def assert_sparse(model: nn.Module, plan: hpsweep.Plan) -> None:
    """Zero where pruned, and nowhere else."""
    weights = dict(model.named_parameters())
    masks = plan.masks(model)
    assert len(masks) == 4
    for name, exists in masks.items():
        assert ((weights[name] != 0) == exists).all(), name


@pytest.mark.parametrize("density", [1 / 3, 1 / 8])
def test_masks_are_the_rules_with_exact_counts(density: float) -> None:
    model, plan = sparse_toy(seed=5, density=density)
    assert_sparse(model, plan)
    for name, exists in plan.masks(model).items():
        assert int(exists.sum()) == kept_count(exists.numel(), density) == plan.tensors[name].nonzeros
        assert (exists.numpy() == mask(5, name.removesuffix(".weight"), tuple(exists.shape), density)).all()
    assert plan.masks(model).keys() == {f"blocks.{i}.{name}.weight" for i in (0, 1) for name in ("up", "down")}


def test_a_dense_plan_has_no_masks() -> None:
    model, plan = sparse_toy(density=1.0)
    assert plan.masks(model) == {}


class Masked(nn.Linear):
    """A linear layer that multiplies its weight by a buffer."""

    def __init__(self, width: int, kept: float) -> None:
        super().__init__(width, width)
        self.register_buffer("kept", (torch.rand(width, width) < kept).float())

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight * self.kept, self.bias)


def test_a_layer_that_masks_its_own_weight_is_told() -> None:
    def toy(width: int, kept: float) -> Toy:
        model = Toy(width)
        model.blocks[0].down = Masked(width, kept)
        return model

    with pytest.warns(
        UserWarning, match=r"^blocks\.0\.down\.kept holds zeros and ones, 0\.\d+ of them ones.* density 0\.5"
    ):
        hpsweep.parametrize(toy(64, 0.25), "supar", base=lambda: toy(32, 0.25), density=0.5)
    plan = hpsweep.parametrize(toy(64, 1.0), "supar", base=lambda: toy(32, 1.0), density=0.5)  # ones alone mask nothing
    assert plan.warnings == ()


def test_masks_are_the_same_in_another_process() -> None:
    code = (
        "import torch; torch.manual_seed(9); torch.randn(3)\n"
        "from tests.own_model.test_plan_masks import sparse_toy; print(sparse_toy(seed=2)[1].mask_hash)"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == sparse_toy(seed=2)[1].mask_hash != sparse_toy(seed=3)[1].mask_hash


OPTIMIZERS: dict[str, Make] = {
    "AdamW": lambda groups: torch.optim.AdamW(groups),
    "fused AdamW": lambda groups: torch.optim.AdamW(groups, fused=True),
    "SGD": lambda groups: torch.optim.SGD(groups, momentum=0.9, nesterov=True),
    "RMSprop": lambda groups: torch.optim.RMSprop(groups, momentum=0.9),
}


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_pruned_weights_are_zero_at_every_step_with_accumulated_gradients(make: str) -> None:
    model, plan = sparse_toy(optimizer="sgd" if make == "SGD" else "adam")
    decay = 0.0 if make == "RMSprop" else 0.1  # RMSprop's would be added to the gradient
    optimizer = OPTIMIZERS[make](plan.param_groups(model, lr=0.01, weight_decay=decay))
    plan.attach(model, optimizer)
    masks = plan.masks(model)
    weights = dict(model.named_parameters())
    for step in range(6):
        for part in range(3):
            (loss(model, 3 * step + part) / 3).backward()
            for name, exists in masks.items():
                assert (weights[name].grad[~exists] == 0).all()
                assert (weights[name].grad[exists] != 0).any()
        optimizer.step()
        optimizer.zero_grad(set_to_none=step % 2 == 0)
        assert_sparse(model, plan)
    for name, exists in masks.items():
        for value in optimizer.state[weights[name]].values():
            assert not isinstance(value, Tensor) or value.shape != exists.shape or (value[~exists] == 0).all()


def test_pruned_weights_take_no_part_in_the_norm_of_the_gradient() -> None:
    model, plan = sparse_toy()
    optimizer = torch.optim.AdamW(plan.param_groups(model, lr=0.01))
    loss(model, 0).backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    for name, exists in plan.masks(model).items():
        gradients[name] *= exists
    optimizer.zero_grad()
    plan.attach(model, optimizer)
    loss(model, 0).backward()
    expected = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients.values()))
    assert float(nn.utils.clip_grad_norm_(model.parameters(), 1.0)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_pruned_weights_are_zero_under_compile_and_it_trains_alike() -> None:
    builder = pytest.importorskip("torch._inductor.cpp_builder")
    try:
        builder.get_cpp_compiler()
    except Exception as error:
        pytest.skip(f"no compiler: {error}")
    losses = []
    for compiled in (False, True):
        model, plan = sparse_toy()
        run: Any = torch.compile(model) if compiled else model
        optimizer = torch.optim.AdamW(plan.param_groups(run, lr=0.01, weight_decay=0.1), eps=1e-6)
        plan.attach(run, optimizer)
        losses.append([])
        for step in range(4):
            for part in range(2):
                value = loss(run, 2 * step + part)
                losses[-1].append(value.item())
                value.backward()
            optimizer.step()
            optimizer.zero_grad()
            assert_sparse(model, plan)
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


def test_hooks_hold_after_stray_gradients_and_dense_momentum_and_until_removed() -> None:
    model, plan = sparse_toy(optimizer="sgd")
    optimizer = torch.optim.SGD(plan.param_groups(model, lr=0.01), momentum=0.9)
    attached = plan.attach(model, optimizer)
    loss(model, 0).backward()
    optimizer.step()
    name = next(iter(plan.masks(model)))
    weight = model.get_parameter(name)
    optimizer.state[weight]["momentum_buffer"].fill_(1.0)  # as a dense checkpoint would bring
    weight.grad = torch.full_like(weight, torch.nan).masked_fill(plan.masks(model)[name], 1.0)
    optimizer.step()
    assert_sparse(model, plan)
    attached.remove()
    optimizer.step()
    assert (weight[~plan.masks(model)[name]] != 0).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 6),
        lambda o: torch.optim.lr_scheduler.StepLR(o, 2),
        lambda o: torch.optim.lr_scheduler.SequentialLR(
            o, [torch.optim.lr_scheduler.LinearLR(o, 0.1), torch.optim.lr_scheduler.ExponentialLR(o, 0.9)], [2]
        ),
    ],
)
def test_ratios_of_learning_rates_are_kept_by_schedulers(make: Callable[[Any], Any]) -> None:
    model, plan = sparse_toy(density=1 / 3)
    optimizer = torch.optim.AdamW(plan.param_groups(model, lr=0.01))
    plan.attach(model, optimizer)
    scheduler = make(optimizer)
    for step in range(6):
        loss(model, step).backward()
        optimizer.step()
        base = optimizer.param_groups[0]["lr"] / plan.tensors["token.weight"].lr
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(base * plan.tensors[group["names"][0]].lr, rel=1e-9)
        scheduler.step()


def test_a_scheduler_that_sets_absolute_rates_is_noticed_at_the_first_step() -> None:
    model, plan = sparse_toy(density=1 / 3)
    optimizer = torch.optim.AdamW(plan.param_groups(model, lr=0.01))
    plan.attach(model, optimizer)
    torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=10)
    loss(model, 0).backward()
    with pytest.raises(
        ValueError, match=r"learning rates 0.004 and 0.004 belong to multipliers 1 and 0.749977.*re-written"
    ):
        optimizer.step()


def test_attaching_refuses_what_it_cannot_hold() -> None:
    model, plan = sparse_toy()
    with pytest.raises(ValueError, match=r"the optimizer does not hold token.weight; make it from plan.param_groups"):
        plan.attach(model, torch.optim.AdamW(sparse_toy()[0].parameters()))
    optimizer = torch.optim.AdamW(plan.param_groups(model, lr=0.01))
    with torch.no_grad():
        model.blocks[1].up.weight.fill_(1.0)
    with pytest.raises(
        ValueError, match=r"blocks.1.up.weight has 28672 nonzero weights outside of its mask: .* of plan.init_"
    ):
        plan.attach(model, optimizer)


REWRITTEN: dict[str, tuple[str, Callable[[dict[str, Any]], Any], str]] = {
    "decay of gains": ("weight_decay", lambda group: 0.1, "weight decays 0.1 and 0.1 belong to multipliers 1 and 0 of"),
    "one decay left": (
        "weight_decay",
        lambda group: group["weight_decay"] if "token.weight" in group["names"] else 0.0,
        r"weight decays 0 and 0.1 belong to multipliers 1 and 1 of the plan.*re-written the groups.*param_groups",
    ),
    "eps": (
        "eps",
        lambda group: 1e-8 if "token.weight" in group["names"] else 1e-6,
        "eps 1e-08 and 1e-06 belong to multipliers 0.25 and",
    ),
}


@pytest.mark.parametrize("case", REWRITTEN)
def test_decays_and_eps_that_were_re_written_are_noticed_when_attached_and_at_a_step(case: str) -> None:
    field, value, message = REWRITTEN[case]
    for attach_first in (False, True):
        model, plan = sparse_toy()
        optimizer = torch.optim.AdamW(plan.param_groups(model, lr=0.01, weight_decay=0.1, eps=1e-8))
        if attach_first:
            plan.attach(model, optimizer)
        for group in optimizer.param_groups:
            group[field] = value(group)
        with pytest.raises(ValueError, match=message):
            optimizer.step() if attach_first else plan.attach(model, optimizer)


@pytest.mark.parametrize("rule", ["coupled", "independent"])
def test_decays_and_eps_that_are_multiplied_all_zero_or_all_one_value_are_not(rule: str) -> None:
    for decay, eps in ((0.1, 1e-8), (0.0, 1e-8), (0.1, None)):
        model, plan = sparse_toy(weight_decay_rule=rule)
        optimizer = torch.optim.AdamW(plan.param_groups(model, lr=0.01, weight_decay=decay, eps=eps))
        plan.attach(model, optimizer)
        loss(model, 0).backward()
        optimizer.step()
        for group in optimizer.param_groups:
            group["weight_decay"] *= 1 / 3
            group["eps"] *= 1 / 3
        optimizer.step()
        for group in optimizer.param_groups:
            group["weight_decay"] = 0.0
            group["eps"] = 1e-6
        optimizer.step()


def test_what_is_set_by_hand_or_was_there_before_does_not_enter_the_state_of_pruned_weights() -> None:
    for by_hand in (False, True):
        model, plan = sparse_toy()
        optimizer = torch.optim.AdamW(plan.param_groups(model, lr=0.01))
        if by_hand:
            plan.attach(model, optimizer)
            for parameter in model.parameters():
                parameter.grad = torch.ones_like(parameter)
        else:
            loss(model, 0).backward()
            plan.attach(model, optimizer)
        optimizer.step()
        for name, exists in plan.masks(model).items():
            state = optimizer.state[model.get_parameter(name)]
            assert (state["exp_avg"][~exists] == 0).all()
            assert (state["exp_avg_sq"][~exists] == 0).all()
            assert (state["exp_avg"][exists] != 0).any()


def test_a_resumed_run_equals_an_uninterrupted_one() -> None:
    def start() -> tuple[Toy, hpsweep.Plan, torch.optim.Optimizer]:
        model, plan = sparse_toy(seed=4)
        return model, plan, torch.optim.AdamW(plan.param_groups(model, lr=0.01, weight_decay=0.1))

    def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            optimizer.zero_grad()
            loss(model, step).backward()
            optimizer.step()

    model, plan, optimizer = start()
    plan.attach(model, optimizer)
    train(model, optimizer, range(3))
    file = io.BytesIO()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "plan": plan.state_dict()}
    torch.save(state, file)
    train(model, optimizer, range(3, 6))

    file.seek(0)
    stored = torch.load(file, weights_only=True)
    resumed, _, optimizer = start()
    again = hpsweep.Plan.from_state_dict(stored["plan"])
    assert again == plan
    resumed.load_state_dict(stored["model"])
    optimizer.load_state_dict(stored["optimizer"])
    again.attach(resumed, optimizer)
    train(resumed, optimizer, range(3, 6))
    assert_sparse(resumed, plan)
    assert all((a == b).all() for a, b in zip(model.parameters(), resumed.parameters(), strict=True))


def test_a_checkpoint_of_another_plan_is_refused_with_the_difference() -> None:
    _, plan = sparse_toy()
    plan.load_state_dict(plan.state_dict())
    with pytest.raises(ValueError, match=r"made under plan \w+, this is \w+: its seed is 1, here 0. Go on with"):
        plan.load_state_dict(sparse_toy(seed=1)[1].state_dict())
    with pytest.raises(ValueError, match=r"blocks.0.up.weight has nonzero_fan_in 32.0, here 16.0"):
        plan.load_state_dict(sparse_toy(density=1 / 4)[1].state_dict())
    with pytest.raises(ValueError, match=r"the checkpoint's masks have hash 0123, those of this plan \w+, though"):
        plan.load_state_dict(plan.state_dict() | {"mask_hash": "0123"})


def test_a_plan_that_was_edited_inside_of_a_checkpoint_is_refused_as_that() -> None:
    _, plan = sparse_toy()
    state = plan.state_dict()
    state["plan"]["tensors"]["blocks.0.up.weight"]["lr"] *= 2
    for load in (plan.load_state_dict, hpsweep.Plan.from_state_dict):
        with pytest.raises(
            ValueError, match=r"the checkpoint's plan has hash \w+, and was saved as \w+: it was changed"
        ):
            load(state)
