"""What bare tensors of a module sum over, as its own forward shows: a copy without memory is called, and watched.

The products of the copy's parameters, or of views of them, with what comes of its input are looked at. A forward that
cannot be called with one tensor, or that changes a parameter before it multiplies, shows nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hpsweep.observer import Call, observing
from hpsweep.observer.functions import factors_of
from hpsweep.own_model.tensors.roles import Axes
from hpsweep.own_model.tensors.uses import Use

_POSITIONS = 7
_SIZES = 8  # of inputs that are tried, at most


class Traced:
    """What the parameters of modules sum over; every module is called once."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[nn.Module, dict[str, Axes]]] = {}

    def axis(self, use: Use) -> Axes | None:
        """The dimension that a tensor sums over, or several, by its module's forward; None if that does not show."""
        module = use.module
        if type(module).__module__.startswith("torch.nn.") or use.local not in module._parameters:
            return None
        if id(module) not in self._seen:
            self._seen[id(module)] = module, _traced(module)
        return self._seen[id(module)][1].get(use.local)


def _traced(module: nn.Module) -> dict[str, Axes]:
    """Names of the module's own parameters -> what they sum over, for the first input that its forward takes."""
    made: dict[int, Any] = {id(value): value for value in vars(module).values() if isinstance(value, Tensor)}
    for parameter in module.parameters():
        made[id(parameter)] = nn.Parameter(torch.empty(parameter.shape, device="meta", dtype=torch.float32))
    for buffer in module.buffers():
        made[id(buffer)] = torch.empty(buffer.shape, device="meta", dtype=buffer.dtype)
    names = {id(made[id(parameter)]): name for name, parameter in module.named_parameters(recurse=False)}
    sizes = dict.fromkeys(size for parameter in module.parameters() for size in parameter.shape)
    try:
        layer = copy.deepcopy(module, made)
    except Exception:  # what a module may hold has no copy
        return {}
    for size in list(sizes)[:_SIZES]:
        for shape in ((_POSITIONS, size), (2, _POSITIONS, size)):
            watched = _Watched(names)
            try:
                with torch.no_grad(), observing(watched):
                    layer.forward(torch.empty(shape, device="meta"))
            except Exception:  # whatever a forward of the user's may raise where the input does not fit: try the next
                continue
            found = {}
            for name, ways in watched.summed.items():
                if len(ways) == 1 and ways[0] is not None:  # in one way alone
                    found[name] = ways[0]
            return found
    return {}


class _Watched:
    """Makes the calls of torch functions, and notes what the named parameters sum over: `names` are theirs by id."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self.names = names
        self.summed: dict[str, list[Axes | None]] = {}  # in all ways that were seen

    def __call__(self, call: Call) -> Any:
        """What the function returns."""
        result = call.result()
        factors = factors_of(call)
        if factors is not None:
            left = self._parameter(factors.left)
            right = self._parameter(factors.right)
            # a product of two parameters makes another weight
            if left is not None and right is None:
                self._note(left, factors.left, factors.left_axes)
            elif right is not None and left is None:
                self._note(right, factors.right, factors.right_axes)
        return result

    def _note(self, parameter: Tensor, view: Tensor, axes: tuple[int, ...]) -> None:
        """Note that a parameter is summed over by those dimensions of a view of it."""
        ways = self.summed.setdefault(self.names[id(parameter)], [])
        way = _in_whole(parameter, view, axes)
        if way not in ways:
            ways.append(way)

    def _parameter(self, x: Tensor) -> Tensor | None:
        """The named parameter that a tensor is, or is a view of."""
        if id(x) in self.names:
            return x
        if id(x._base) in self.names:
            return x._base
        return None


def _in_whole(whole: Tensor, view: Tensor, over: tuple[int, ...]) -> Axes | None:
    """The dimensions of a parameter that those of a view of it are, by their strides; None where they are none."""
    steps = list(zip(whole.stride(), whole.shape, strict=True))
    asked = [(view.stride(axis), view.shape[axis]) for axis in over]
    if not asked or any(steps.count(step) != 1 for step in asked):
        return None
    axes = tuple(sorted(steps.index(step) for step in asked))
    if len(axes) == 1:
        return axes[0]
    return axes
