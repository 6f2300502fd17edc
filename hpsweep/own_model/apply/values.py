"""A plan applied to a module: initial weights and parameter groups."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hpsweep.own_model.tensors.kinds import match, reshard, tensor_uses
from hpsweep.own_model.tensors.storage import check_separate
from hpsweep.rules import masks
from hpsweep.rules.multipliers import VECTORS
from hpsweep.spec import Trial

if TYPE_CHECKING:
    from hpsweep.own_model.plan import Plan


def parameters(plan: Plan, model: nn.Module) -> dict[str, nn.Parameter]:
    """The model's parameters by the plan's names; raises ValueError if they are not those of the plan."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"the model is of type {type(model).__name__}; give the torch.nn.Module that the plan is of.")
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
    check_separate(found)
    planned = {n for name, tensor in plan.tensors.items() for n in (name, *tensor.tied)}
    for name, (use, _) in places.items():
        if name not in planned and getattr(use.module, use.local).requires_grad:
            raise ValueError(
                f"the model has the tensor {name}, which the plan has not; parametrize this model, as it is trained (a "
                "plan leaves out what did not train when it was made)."
            )
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
def init_(plan: Plan, model: nn.Module, *, init_std: float, seed: int, leave: str | Iterable[str] = ()) -> None:
    """See Plan.init_."""
    Trial(steps=1, init_std=init_std, seed=seed)  # raises for values out of range
    named = parameters(plan, model)
    padding = {
        id(module.weight): module.padding_idx
        for module in model.modules()
        if isinstance(module, nn.Embedding) and module.padding_idx is not None
    }
    left = match([leave] if isinstance(leave, str) else leave, tensor_uses(model), "leave")
    stays = {name for name, tensor in plan.tensors.items() if tensor.kind == "keep" or name in left}
    _check_trainable(named, stays)
    for name, parameter in named.items():
        tensor = plan.tensors[name]
        if name in stays:
            values = None
        elif tensor.kind in VECTORS:
            values = torch.full(tensor.shape, 0.0 if tensor.init_mean is None else tensor.init_mean)
        else:
            values = torch.from_numpy(masks.normals(seed, stream(name), tensor.shape)) * (init_std * tensor.init_std)
        if values is not None:
            if id(parameter) in padding:
                values[padding[id(parameter)]] = 0.0
            parameter.copy_(like(values.to(parameter.dtype), parameter))
        if plan.is_sparse(name):
            gone = local(like(torch.from_numpy(mask(plan, name)), parameter)).logical_not()
            local(parameter).masked_fill_(gone, 0.0)


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
        if name in stays and not bool(local(parameter).isfinite().all()):
            raise ValueError(
                f"{name} is to begin as it is, and has values that are not finite: build the model with memory, or "
                "load its values, before init_."
            )


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
