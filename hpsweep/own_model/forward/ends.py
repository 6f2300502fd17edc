"""Whether the layers that a plan takes for the ends of a model are its ends, as one forward pass shows.

An embedding is given data; what a readout returns goes into no other layer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from hpsweep.architectures import VECTORS
from hpsweep.observer import evaluating
from hpsweep.own_model.data import PlanData
from hpsweep.own_model.forward.probe import returned_by
from hpsweep.own_model.tensors.parameters import plan_parameters
from hpsweep.own_model.tensors.patterns import name_patterns
from hpsweep.own_model.tensors.uses import reshard, unwrapped, uses_by_name


def check_given_data(plan: PlanData, model: nn.Module, inputs: Any) -> None:
    """Raise ValueError if a layer that is planned as an embedding is given what a matrix with a width has made.

    Shapes do not tell a layer that is given data from an adapter's way up within the net. The graph that autograd
    records does; nothing is kept for a backward pass.
    """
    plan_parameters(plan, model)  # raises for another model
    model = unwrapped(model)
    uses = uses_by_name(model)
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
                makers = _made_by(given, wide, {}) if isinstance(given, Tensor) else frozenset()
                if makers:
                    first = min(makers, key=[*wide.values()].index)
                    found.setdefault(name, first)

        return before

    _run(model, inputs, {module: note(name) for name, module in layers.items()})
    if found:
        name, maker = next(iter(found.items()))
        more = ""
        if len(found) > 1:
            more = f" (and so for {len(found) - 1} more)"
        kinds = dict.fromkeys(name_patterns(found, plan.tensors), "hidden")
        raise ValueError(
            f"{name} is planned as an embedding, a layer that is given data, and on these inputs it is given what "
            f"{maker} has made{more}. Make the plan anew with kinds={kinds}, and call its init_."
        )


def layers_behind_readouts(plan: PlanData, model: nn.Module, inputs: Any, names: Collection[str]) -> dict[str, str]:
    """Of the readouts with these names, those whose output goes into another layer -> the name of that layer."""
    model = unwrapped(model)
    uses = uses_by_name(model)
    untied = [name for name in names if name in plan.tensors and name in uses]
    readouts = {id(getattr(uses[name].module, uses[name].local)): name for name in untied}
    layers = {
        uses[name].module: name
        for name, tensor in plan.tensors.items()
        if name in uses and name not in names and tensor.kind not in (*VECTORS, "embedding")
    }
    known: dict[Any, frozenset[str]] = {}
    found: dict[str, str] = {}

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        for given in (*args, *kwargs.values()):
            if not isinstance(given, Tensor):
                continue
            for name in _made_by(given, readouts, known):
                found.setdefault(name, layers[module])

    if readouts:
        _run(model, inputs, dict.fromkeys(layers, before))
    return found


def _run(model: nn.Module, inputs: Any, hooks: Mapping[nn.Module, Callable[..., None]]) -> None:
    """Call a model with hooks before some of its modules, and with a graph that keeps nothing."""
    nothing = torch.empty(0)
    with ExitStack() as stack:
        for module, hook in hooks.items():
            stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        stack.enter_context(evaluating(model))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(lambda _: nothing, lambda _: nothing))
        returned_by(model, inputs)
    reshard(model)


def _made_by(given: Tensor, parameters: Mapping[int, str], known: dict[Any, frozenset[str]]) -> frozenset[str]:
    """The names of those of the parameters that a tensor is computed from; `known` keeps what is found of its graph."""
    # the graph depth first, without recursion: a node is known when all that it is made of is
    stack = [given.grad_fn]
    while stack:
        node = stack[-1]
        if node is None or node in known:
            stack.pop()
            continue
        after = [each for each, _ in node.next_functions if each is not None]
        missing = [each for each in after if each not in known]
        if missing:
            stack += missing
            continue
        name = parameters.get(id(getattr(node, "variable", None)))
        own = frozenset() if name is None else frozenset({name})
        known[stack.pop()] = own.union(*(known[each] for each in after))
    if given.grad_fn is None:
        return frozenset()
    return known[given.grad_fn]
