"""Whether the layers that a plan takes for inputs of the model are given data, as one forward pass shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hpsweep.parametrization.apply import parameters
from hpsweep.parametrization.kinds import by_name, reshard, unwrapped
from hpsweep.parametrization.patterns import patterns
from hpsweep.parametrization.probe import call
from hpsweep.parametrization.record import evaluating

if TYPE_CHECKING:
    from hpsweep.parametrization.plan import Plan


def check_given_data(plan: Plan, model: nn.Module, inputs: Any) -> None:
    """Raise ValueError if a layer that is planned as an embedding is given what a matrix with a width has made.

    Shapes do not tell a layer that is given data from an adapter's way up within the net. The graph that autograd
    records does; nothing is kept for a backward pass.
    """
    parameters(plan, model)  # raises for another model
    model = unwrapped(model)
    uses = by_name(model)
    layers = {
        name: uses[name].module
        for name, tensor in plan.tensors.items()
        if tensor.kind == "embedding" and tensor.fan_in is not None and not tensor.readouts and name in uses
    }
    if not layers or not isinstance(inputs, Tensor | tuple | list | Mapping):
        return
    wide = {
        id(getattr(uses[name].module, uses[name].local)): name
        for name, tensor in plan.tensors.items()
        if name in uses and (tensor.m_d != 1 or tensor.eps != 1) and name not in layers
    }
    found: dict[str, str] = {}

    def note(name: str) -> Callable[..., None]:
        def before(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            for given in (*args, *kwargs.values()):
                if isinstance(given, Tensor) and (maker := _made_by(given, wide)) is not None:
                    found.setdefault(name, maker)

        return before

    nothing = torch.empty(0)
    with ExitStack() as stack:
        for name, module in layers.items():
            stack.callback(module.register_forward_pre_hook(note(name), with_kwargs=True).remove)
        stack.enter_context(evaluating(model))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(lambda _: nothing, lambda _: nothing))
        call(model, inputs)
    reshard(model)
    if found:
        name, maker = next(iter(found.items()))
        more = f" (and so for {len(found) - 1} more)" if len(found) > 1 else ""
        kinds = dict.fromkeys(patterns(found, plan.tensors), "hidden")
        raise ValueError(
            f"{name} is planned as an embedding, a layer that is given data, and on these inputs it is given what "
            f"{maker} has made{more}. Make the plan anew with kinds={kinds}, and call its init_."
        )


def _made_by(given: Tensor, wide: Mapping[int, str]) -> str | None:
    """The name of one of the parameters that a tensor is computed from; None if it is from none of them."""
    stack, seen = [given.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name = wide.get(id(getattr(node, "variable", None)))
        if name is not None:
            return name
        stack += [after for after, _ in node.next_functions]
    return None
