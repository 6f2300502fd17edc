"""What holds while an optimizer trains a model under a plan: pruned weights stay zero, and groups keep their ratios."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from hpsweep.own_model.apply.initial import masks_of
from hpsweep.own_model.apply.optimizers import check_optimizer_settings, check_rule, unwrapped_optimizers
from hpsweep.own_model.data import PlanData, TensorPlan
from hpsweep.own_model.forward.wired import check_multiplied, check_wired, multiplied_modules
from hpsweep.own_model.tensors.finite import check_finite
from hpsweep.own_model.tensors.parameters import local_part, plan_parameters
from hpsweep.schemes import scales

RATIO_TOLERANCE = 1e-5
"""Relative; rates that are kept as float32 tensors differ by less."""

FIELDS: dict[str, tuple[str, str]] = {
    "lr": (
        "learning rates",
        "Use a scheduler that multiplies the rates (LambdaLR, or others without an absolute lowest or highest rate).",
    ),
    "weight_decay": ("weight decays", "Give the base value to plan.param_groups, and only multiply it afterwards."),
    "eps": ("eps", "Give the base value to plan.param_groups, or none there and one for all to the optimizer."),
}
"""Of parameter groups that a plan multiplies: what they are called, and what keeps their ratios."""


@dataclass(frozen=True)
class Attached:
    """The hooks that hold a plan while an optimizer trains."""

    handles: tuple[RemovableHandle, ...]

    def remove(self) -> None:
        """Remove the hooks: pruned weights are no longer held at zero."""
        for handle in self.handles:
            handle.remove()


class HeldTensor(NamedTuple):
    """One tensor under one optimizer. `gone` is True where a weight is pruned, None for a dense tensor."""

    name: str
    parameter: Tensor
    plan: TensorPlan
    gone: Tensor | None


def attach(plan: PlanData, model: nn.Module, optimizer: object, rule: str | None) -> Attached:
    """See Plan.attach."""
    named = plan_parameters(plan, model)
    if rule not in (None, "adam", "sgd"):
        raise ValueError(f"rule is {rule!r}; give 'adam', 'sgd', or nothing.")
    optimizers = unwrapped_optimizers(optimizer)
    if scales(plan.scheme):  # else multipliers are 1 at every size, whatever trains
        for one in optimizers:
            check_rule(plan.optimizer, one, rule)
    check_wired(plan, model)
    check_finite(model)
    masks = masks_of(plan, model)
    tensors = []
    for name, parameter in named.items():
        gone = None
        if name in masks:
            gone = ~local_part(masks[name])
        tensors.append(HeldTensor(name, parameter, plan.tensors[name], gone))
    parts = _parts(optimizers, tensors)
    handles: list[RemovableHandle] = []
    for one, part in zip(optimizers, parts, strict=True):
        handles += _hold(plan, model, one, part)
    return Attached(tuple(handles))


def _parts(optimizers: Sequence[torch.optim.Optimizer], tensors: Sequence[HeldTensor]) -> list[list[HeldTensor]]:
    """The tensors that each optimizer holds; frozen ones that none holds go with the first.

    Raises ValueError for a tensor that trains and is not held by one of them.
    """
    ids = [{id(p) for group in one.param_groups for p in group["params"]} for one in optimizers]
    parts: list[list[HeldTensor]] = [[] for _ in optimizers]
    for tensor in tensors:
        holders = [i for i, held in enumerate(ids) if id(tensor.parameter) in held]
        if len(holders) > 1:
            names = " and ".join(type(optimizers[i]).__name__ for i in holders)
            raise ValueError(f"{names} both hold {tensor.name}; give every tensor to one optimizer.")
        if not holders and tensor.parameter.requires_grad:
            several = "; where several optimizers train the model, attach them together, as a list"
            raise ValueError(
                f"the optimizer does not hold {tensor.name}; make it from plan.param_groups(model, ...) after the "
                f"model is wrapped, sharded and moved{several * (len(optimizers) == 1)}."
            )
        first = next(iter(holders), 0)
        parts[first].append(tensor)
    return parts


def _hold(
    plan: PlanData, model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Sequence[HeldTensor]
) -> Iterator[RemovableHandle]:
    """Check one optimizer and its tensors now, and register the hooks that do so at every step."""
    ours = {id(tensor.parameter) for tensor in tensors}
    places = {name: p for name, p in model.named_parameters(remove_duplicate=False) if id(p) in ours}
    multipliers = {id(tensor.parameter): tensor.plan for tensor in tensors}
    factors = multiplied_modules(model)
    pruned = {tensor.parameter: tensor for tensor in tensors if tensor.gone is not None}
    masks = {parameter: tensor.gone for parameter, tensor in pruned.items()}

    def gone(parameter: Tensor) -> Tensor:
        """Where a weight is pruned, on the device where the weight is by now."""
        mask = masks[parameter]
        assert mask is not None
        if mask.device != local_part(parameter).device:
            mask = masks[parameter] = mask.to(local_part(parameter).device)
        return mask

    @torch.no_grad()
    def check() -> None:
        _check_ratios(optimizer, multipliers)
        if scales(plan.scheme):
            check_optimizer_settings(optimizer)
        _check_in_use(model, places)
        check_multiplied(factors)
        _check_zero([(tensor.name, local_part(parameter), gone(parameter)) for parameter, tensor in pruned.items()])

    def zero_gradient(parameter: Tensor) -> None:
        if parameter.grad is not None:
            local_part(parameter.grad).masked_fill_(gone(parameter), 0.0)

    def before(*_: object) -> None:
        if not (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()):  # no value is known then
            check()
        for parameter in pruned:
            zero_gradient(parameter)

    @torch.no_grad()
    def after(*_: object) -> None:
        for parameter in pruned:
            local_part(parameter).masked_fill_(gone(parameter), 0.0)

    check()
    yield optimizer.register_step_pre_hook(before)
    yield optimizer.register_step_post_hook(after)
    for weights in pruned:
        if weights.requires_grad:
            yield weights.register_post_accumulate_grad_hook(zero_gradient)  # type: ignore[no-untyped-call]


def _check_in_use(model: nn.Module, places: Mapping[str, Tensor]) -> None:
    """Raise ValueError for a parameter that is no longer the model's, so that training would not change the model."""
    now = dict(model.named_parameters(remove_duplicate=False))
    for name, parameter in places.items():
        if now.get(name) is not parameter and not hasattr(
            parameter, "placements"
        ):  # FSDP2 swaps sharded and whole ones
            raise ValueError(
                f"{name} of the model is another tensor than the one that was attached, and would not be trained (as "
                "after load_state_dict(..., assign=True)). Make the optimizer from plan.param_groups(model, ...) "
                "again, and attach it."
            )


def _check_zero(pruned: Sequence[tuple[str, Tensor, Tensor]]) -> None:
    """Raise ValueError for pruned weights that are not zero, given as (name, weights, where they are pruned)."""
    if not pruned:
        return
    stray = [((weights != 0) & gone).any() for _, weights, gone in pruned]
    if not bool(torch.stack([found.to(stray[0].device) for found in stray]).any()):
        return
    name, weights, gone = next(row for row, found in zip(pruned, stray, strict=True) if found)
    raise ValueError(
        f"{name} has {int(((weights != 0) & gone).sum())} nonzero weights outside of its mask: they are not "
        "those of plan.init_(model, ...) or of a checkpoint of this plan, which is loaded before attaching. To prune "
        "them: for name, kept in plan.masks(model).items(): model.get_parameter(name).data.mul_(kept)"
    )


def _check_ratios(optimizer: torch.optim.Optimizer, tensors: Mapping[int, TensorPlan]) -> None:
    """Raise ValueError if a field of the groups is no longer one base value times the plan's multipliers."""
    for field, (word, remedy) in FIELDS.items():
        given = [group.get(field) for group in optimizer.param_groups]
        values = [_number(value) for value in given]
        if None in values:
            continue  # an optimizer that has none, or something else by that name
        if field == "eps" and len(set(values)) == 1:
            continue  # the optimizer's own, for all
        found = []
        for group, value in zip(optimizer.param_groups, values, strict=True):
            assert value is not None
            for multiplier in {getattr(tensors[id(p)], field) for p in group["params"] if id(p) in tensors}:
                if multiplier:
                    found.append((value / multiplier, value, multiplier))
                elif value:
                    found.append((math.inf, value, multiplier))
        if not found:
            continue
        low, high = min(found), max(found)
        if math.isinf(high[0]) or not math.isclose(low[0], high[0], rel_tol=RATIO_TOLERANCE):
            raise ValueError(
                f"the optimizer's {word} {low[1]:g} and {high[1]:g} belong to multipliers {low[2]:g} and {high[2]:g} "
                f"of the plan: something has re-written the groups. {remedy}"
            )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float | Tensor) else None
