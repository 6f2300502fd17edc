"""The parameters of a module by the names of a plan, whole or sharded."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from hpsweep.own_model.data import PlanData
from hpsweep.own_model.tensors.storage import check_separate
from hpsweep.own_model.tensors.uses import reshard, tensor_uses


def plan_parameters(plan: PlanData, model: nn.Module) -> dict[str, nn.Parameter]:
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


def sharded_like(whole: Tensor, parameter: Any) -> Tensor:
    """A tensor that every rank has, on the parameter's device and sharded as it is, without communication."""
    if hasattr(parameter, "placements"):  # a DTensor
        from torch.distributed.tensor import distribute_tensor

        mesh = parameter.device_mesh
        return distribute_tensor(whole.to(mesh.device_type), mesh, parameter.placements, src_data_rank=None)
    placed: Tensor = whole.to(parameter.device)
    return placed


def local_part(tensor: Any) -> Tensor:
    """This rank's part of a sharded tensor, sharing its memory; any other tensor as it is."""
    part = tensor.to_local() if hasattr(tensor, "placements") else tensor
    assert isinstance(part, Tensor)
    return part
