"""A plan applied to a module: initial weights, masks and parameter groups."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hpsweep.architectures import VECTORS
from hpsweep.own_model.data import PlanData, TensorPlan, stream_name, tensor_mask
from hpsweep.own_model.tensors.parameters import local_part, plan_parameters, sharded_like
from hpsweep.own_model.tensors.uses import tensor_uses, values_by_pattern
from hpsweep.rules import masks
from hpsweep.spec import Trial


@torch.no_grad()
def init_(plan: PlanData, model: nn.Module, *, init_std: float, seed: int, leave: str | Iterable[str] = ()) -> None:
    """See Plan.init_."""
    Trial(steps=1, init_std=init_std, seed=seed)  # raises for values out of range
    named = plan_parameters(plan, model)
    padding = {
        id(module.weight): module.padding_idx
        for module in model.modules()
        if isinstance(module, nn.Embedding) and module.padding_idx is not None
    }
    if isinstance(leave, str):
        leave = [leave]
    left = values_by_pattern(leave, tensor_uses(model), "leave")
    stays = {name for name, tensor in plan.tensors.items() if tensor.kind == "keep" or name in left}
    _check_trainable(named, stays)
    for name, parameter in named.items():
        if name not in stays:
            values = _initial_values(plan.tensors[name], name, init_std, seed)
            if id(parameter) in padding:
                values[padding[id(parameter)]] = 0.0
            parameter.copy_(sharded_like(values.to(parameter.dtype), parameter))
        if plan.is_sparse(name):
            gone = local_part(sharded_like(torch.from_numpy(tensor_mask(plan, name)), parameter)).logical_not()
            local_part(parameter).masked_fill_(gone, 0.0)


def _initial_values(tensor: TensorPlan, name: str, init_std: float, seed: int) -> Tensor:
    """One constant for a vector, and for a matrix unit normals times its init std."""
    if tensor.kind in VECTORS:
        return torch.full(tensor.shape, tensor.init_mean or 0.0)
    normals = torch.from_numpy(masks.initial_normals(seed, stream_name(name), tensor.shape))
    return normals * (init_std * tensor.init_std)


def _check_trainable(named: Mapping[str, nn.Parameter], stays: Collection[str]) -> None:
    """Raise ValueError, before anything is filled, for parameters without memory, and for planned ones that are frozen.

    What stays as it is must be finite: memory that was never filled mostly is not.
    """
    for name, parameter in named.items():
        if parameter.is_meta:
            raise ValueError(f"{name} is on the meta device, without memory; call model.to_empty(device=...) before.")
        if not parameter.requires_grad and name not in stays:
            raise ValueError(
                f"{name} does not train (requires_grad is False), and the plan has it: parametrize the model as it is "
                f"trained, which leaves it out, or leave its values by leave={[name]!r}."
            )
        if name in stays and not bool(local_part(parameter).isfinite().all()):
            raise ValueError(
                f"{name} is to begin as it is, and has values that are not finite: build the model with memory, or "
                "load its values, before init_."
            )


def param_groups(
    plan: PlanData, model: nn.Module, *, lr: float, weight_decay: float, eps: float | None
) -> list[dict[str, Any]]:
    """See Plan.param_groups."""
    given = Trial(steps=1, lr=lr, weight_decay=weight_decay)  # raises for values out of range
    if eps is not None:
        given.replace(eps=eps)
    groups: dict[tuple[float, float, float], dict[str, Any]] = {}
    for name, parameter in plan_parameters(plan, model).items():
        tensor = plan.tensors[name]
        key = (tensor.lr, tensor.weight_decay, tensor.eps if eps is not None else 1.0)
        if key not in groups:
            groups[key] = {
                "params": [],
                "names": [],
                "lr": lr * tensor.lr,
                "weight_decay": weight_decay * tensor.weight_decay,
                **({} if eps is None else {"eps": eps * tensor.eps}),
            }
        groups[key]["params"].append(parameter)
        groups[key]["names"].append(name)
    return list(groups.values())


def masks_of(plan: PlanData, model: nn.Module) -> dict[str, Tensor]:
    """True where a weight exists, for every sparse tensor, on its device and sharded as it is."""
    return {
        name: sharded_like(torch.from_numpy(tensor_mask(plan, name)), parameter)
        for name, parameter in plan_parameters(plan, model).items()
        if plan.is_sparse(name)
    }
