"""What bare tensors of a module sum over, as its own forward shows: a copy without memory is called, and watched.

The products of the copy's parameters, or of views of them, with what comes of its input are looked at. A forward that
cannot be called with one tensor, or that changes a parameter before it multiplies, shows nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hpsweep.own_model.tensors.einsum import summed_dimensions
from hpsweep.own_model.tensors.roles import Axes
from hpsweep.own_model.tensors.uses import Use

_POSITIONS = 7
_SIZES = 8  # of inputs that are tried, at most
_WITH_SUMMAND = {torch.addmm, Tensor.addmm, torch.baddbmm, Tensor.baddbmm}
_PRODUCTS = {
    torch.matmul, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, torch.linalg.matmul, torch.mm, Tensor.mm,
    torch.bmm, Tensor.bmm, *_WITH_SUMMAND,
}  # fmt: skip


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
                with torch.no_grad(), watched:
                    layer.forward(torch.empty(shape, device="meta"))
            except Exception:  # whatever a forward of the user's may raise where the input does not fit: try the next
                continue
            return {name: axes for name, [axes, *more] in watched.summed.items() if axes is not None and not more}
    return {}


class _Watched(TorchFunctionMode):
    """While it lasts, notes what the named parameters sum over: `names` are theirs by id."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self.names = names
        self.summed: dict[str, list[Axes | None]] = {}  # in all ways that were seen

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        operands = list(_operands(func, args, kwargs or {}))
        whole = [self._parameter(operand) for operand, _ in operands]
        if sum(parameter is not None for parameter in whole) == 1:  # a product of two makes another weight
            for (operand, over), parameter in zip(operands, whole, strict=True):
                if parameter is not None:
                    axes = _in_whole(parameter, operand, over)
                    ways = self.summed.setdefault(self.names[id(parameter)], [])
                    ways += [axes] * (axes not in ways)
        return result

    def _parameter(self, x: Tensor) -> Tensor | None:
        """The named parameter that a tensor is, or is a view of."""
        whole = x if id(x) in self.names else x._base
        return whole if id(whole) in self.names else None


def _operands(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[tuple[Tensor, tuple[int, ...]]]:
    """The two factors of a product, each with its dimensions that are summed over; none of other calls."""
    given = [*args, *kwargs.values()]
    if func is F.linear:
        yield from ((x, (x.dim() - 1,)) for x in given[:2])
    elif func is torch.einsum:
        yield from summed_dimensions(*args) or ()
    elif func in _PRODUCTS:
        left, right = given[1:3] if func in _WITH_SUMMAND else given[:2]
        if func is Tensor.__rmatmul__:
            left, right = right, left
        yield left, (left.dim() - 1,)
        yield right, (max(right.dim() - 2, 0),)


def _in_whole(whole: Tensor, view: Tensor, over: tuple[int, ...]) -> Axes | None:
    """The dimensions of a parameter that those of a view of it are, by their strides; None where they are none."""
    steps = list(zip(whole.stride(), whole.shape, strict=True))
    asked = [(view.stride(axis), view.shape[axis]) for axis in over]
    if not asked or any(steps.count(step) != 1 for step in asked):
        return None
    axes = tuple(sorted(steps.index(step) for step in asked))
    return axes[0] if len(axes) == 1 else axes
