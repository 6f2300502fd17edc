"""A plan applied to a module: initial weights, parameter groups, masks that hold through training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from hpsweep.parametrization import masks
from hpsweep.parametrization.kinds import reshard, tensor_uses
from hpsweep.parametrization.wiring import check_wired
from hpsweep.spec import Trial

if TYPE_CHECKING:
    from hpsweep.parametrization.plan import Plan

RATIO_TOLERANCE = 1e-5
"""Relative; rates that are kept as float32 tensors differ by less."""


def parameters(plan: Plan, model: nn.Module) -> dict[str, nn.Parameter]:
    """The model's parameters by the plan's names; raises ValueError if they are not those of the plan."""
    reshard(model)
    places = {
        use.name: (use, names) for uses in tensor_uses(model) for use in uses for names in [{u.name for u in uses}]
    }
    found = {}
    for name, tensor in plan.tensors.items():
        use, names = places.get(name, (None, set()))
        if use is None:
            raise ValueError(f"the model has no tensor {name}, which the plan has; parametrize this model.")
        parameter = getattr(use.module, use.local)
        if tuple(parameter.shape) != tensor.shape:
            raise ValueError(
                f"{name} has shape {tuple(parameter.shape)}, in the plan {tensor.shape}; parametrize this model."
            )
        if names != {name, *tensor.tied}:
            raise ValueError(
                f"{name} is one tensor with {sorted(names - {name})}, in the plan with {sorted(tensor.tied)}; tie the "
                "weights again (they part when a module leaves the meta device), or parametrize this model."
            )
        found[name] = parameter
    planned = {n for name, tensor in plan.tensors.items() for n in (name, *tensor.tied)}
    for name in places:
        if name not in planned:
            raise ValueError(f"the model has the tensor {name}, which the plan has not; parametrize this model.")
    return found


def stream(name: str) -> str:
    """The name that a tensor's random numbers are drawn by: the module's. A module whose layers are called as the
    proxy's tensors begins as the proxy does.
    """
    return name.removesuffix(".weight")


def mask(plan: Plan, name: str) -> npt.NDArray[np.bool_]:
    """Where the weights of a tensor exist."""
    return masks.mask(plan.seed, stream(name), plan.tensors[name].shape, plan.tensors[name].density)


def like(whole: Tensor, parameter: Any) -> Tensor:
    """A tensor that every rank has, on the parameter's device and sharded as it is, without communication."""
    if hasattr(parameter, "placements"):  # a DTensor
        from torch.distributed.tensor import distribute_tensor

        mesh = parameter.device_mesh
        return distribute_tensor(whole.to(mesh.device_type), mesh, parameter.placements, src_data_rank=None)
    placed: Tensor = whole.to(parameter.device)
    return placed


def local(tensor: Any) -> Tensor:
    """This rank's part of a sharded tensor, sharing its memory; any other tensor as it is."""
    part = tensor.to_local() if hasattr(tensor, "placements") else tensor
    assert isinstance(part, Tensor)
    return part


@torch.no_grad()
def init_(plan: Plan, model: nn.Module, *, init_std: float, seed: int) -> None:
    """See Plan.init_."""
    Trial(steps=1, init_std=init_std, seed=seed)  # raises for values out of range
    padding = {
        id(module.weight): module.padding_idx
        for module in model.modules()
        if isinstance(module, nn.Embedding) and module.padding_idx is not None
    }
    for name, parameter in parameters(plan, model).items():
        tensor = plan.tensors[name]
        if parameter.is_meta:
            raise ValueError(f"{name} is on the meta device, without memory; call model.to_empty(device=...) before.")
        if tensor.kind in ("norm", "bias"):
            values = torch.full(tensor.shape, tensor.init_mean)
        else:
            values = torch.from_numpy(masks.normals(seed, stream(name), tensor.shape)) * (init_std * tensor.init_std)
        if plan.is_sparse(name):
            values *= torch.from_numpy(mask(plan, name))
        if id(parameter) in padding:
            values[padding[id(parameter)]] = 0.0
        parameter.copy_(like(values.to(parameter.dtype), parameter))


def param_groups(
    plan: Plan, model: nn.Module, *, lr: float, weight_decay: float, eps: float | None
) -> list[dict[str, Any]]:
    """See Plan.param_groups."""
    given = Trial(steps=1, lr=lr, weight_decay=weight_decay)  # raises for values out of range
    if eps is not None:
        given.replace(eps=eps)
    groups: dict[tuple[float, float, float], dict[str, Any]] = {}
    for name, parameter in parameters(plan, model).items():
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


@dataclass(frozen=True)
class Attached:
    """The hooks that hold a plan while an optimizer trains."""

    handles: tuple[RemovableHandle, ...]

    def remove(self) -> None:
        """Let go: pruned weights are free from now on."""
        for handle in self.handles:
            handle.remove()


def attach(plan: Plan, model: nn.Module, optimizer: torch.optim.Optimizer) -> Attached:
    """See Plan.attach."""
    named = parameters(plan, model)
    check_wired(plan, model)
    lr_multipliers = {id(parameter): plan.tensors[name].lr for name, parameter in named.items()}
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in named.items():
        if parameter.requires_grad and id(parameter) not in held:
            raise ValueError(
                f"the optimizer does not hold {name}; make it from plan.param_groups(model, ...) after the model is "
                "wrapped, sharded and moved."
            )
    pruned: dict[Tensor, Tensor] = {named[name]: local(kept).logical_not() for name, kept in plan.masks(model).items()}
    for name, parameter in named.items():
        if parameter in pruned and (stray := int((local(parameter.detach())[pruned[parameter]] != 0).sum())):
            raise ValueError(
                f"{name} has {stray} nonzero weights outside of its mask; begin with plan.init_(model, ...), or load a "
                "checkpoint of this plan before attaching."
            )

    def before(*_: object) -> None:
        _check_ratios(optimizer, lr_multipliers)
        for parameter in pruned:
            zero_gradient(parameter)

    def zero_gradient(parameter: Tensor) -> None:
        if parameter.grad is not None:
            local(parameter.grad).masked_fill_(pruned[parameter], 0.0)

    @torch.no_grad()
    def after(*_: object) -> None:
        for parameter, gone in pruned.items():
            local(parameter).masked_fill_(gone, 0.0)

    handles = [optimizer.register_step_pre_hook(before), optimizer.register_step_post_hook(after)]
    for weights in pruned:
        if weights.requires_grad:
            handles.append(weights.register_post_accumulate_grad_hook(zero_gradient))  # type: ignore[no-untyped-call]
    return Attached(tuple(handles))


def _check_ratios(optimizer: torch.optim.Optimizer, lr_multipliers: dict[int, float]) -> None:
    """Raise ValueError if learning rates are no longer one base rate times the plan's multipliers."""
    rates = []
    for group in optimizer.param_groups:
        rate = float(group["lr"])
        multipliers = {lr_multipliers[id(p)] for p in group["params"] if id(p) in lr_multipliers}
        rates += [(rate / multiplier, rate, multiplier) for multiplier in multipliers]
    low, high = min(rates), max(rates)
    if not math.isclose(low[0], high[0], rel_tol=RATIO_TOLERANCE):
        raise ValueError(
            f"the optimizer's learning rates {low[1]:g} and {high[1]:g} belong to multipliers "
            f"{low[2]:g} and {high[2]:g} of the plan: something has re-written the groups. Use a scheduler that "
            "multiplies the rates (LambdaLR, or others without an absolute lowest or highest rate)."
        )
