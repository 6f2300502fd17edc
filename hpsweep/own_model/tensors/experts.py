"""Experts whose number grows with the width, and the layers that choose among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hpsweep.own_model.tensors.roles import CONVOLUTIONS, UPWARDS
from hpsweep.own_model.tensors.uses import Use

_Shapes = list[tuple[int, ...]]


class Experts(NamedTuple):
    """Name of every layer that chooses among a growing number of experts -> the dimension that it sums over; and the
    names of the experts' tensors, whose first dimension is that number.
    """

    routers: dict[str, int]
    tensors: set[str]


def growing_experts(uses: Mapping[str, tuple[Use, ...]], others: Sequence[Mapping[str, Use]]) -> Experts:
    """The routers and experts of a model whose number of experts grows, by shapes; `others` are base and delta.

    A router returns as many numbers as a tensor with three dimensions in the module around it is long, and is given a
    size that this tensor has besides: in the model, and in every other.
    """
    shapes = {name: _shapes(name, places[0], others) for name, places in uses.items()}
    stacks = {}
    for name, each in shapes.items():
        is_convolution = isinstance(uses[name][0].module, (*CONVOLUTIONS, *UPWARDS))
        if len(each[0]) == 3 and len(set(each)) > 1 and not is_convolution:
            stacks[name] = each
    found = Experts({}, set())
    for name, each in shapes.items():
        if len(each[0]) != 2 or not _grows(each, 0) or not _grows(each, 1):
            continue
        for stack, sizes in stacks.items():
            if not stack.startswith(_around(name, uses[name][0].local)):
                continue
            for axis in (1, 0):
                if _chooses(each, sizes, axis):
                    found.routers[name] = axis
                    found.tensors.add(stack)
    return found


def _shapes(name: str, use: Use, others: Sequence[Mapping[str, Use]]) -> _Shapes:
    """The shapes of a tensor in the model, its base and delta."""
    places = [use, *(other[name] for other in others)]
    return [tuple(getattr(place.module, place.local).shape) for place in places]


def _grows(shapes: _Shapes, axis: int) -> bool:
    return any(shape[axis] != shapes[0][axis] for shape in shapes)


def _chooses(layer: _Shapes, stack: _Shapes, axis: int) -> bool:
    """Whether a layer that sums over that axis returns a number for each of the stack's matrices."""
    for shape, experts in zip(layer, stack, strict=True):
        number = shape[1 - axis]
        given = shape[axis]
        if number != experts[0] or number == given or given not in experts[1:]:
            return False
    return True


def _around(name: str, local: str) -> str:
    """What the names begin with in the module around a layer's, or of a bare tensor in its own."""
    parts = name.split(".")
    inner = 1
    if local == "weight":  # the layer's own name too
        inner = 2
    return "".join(f"{part}." for part in parts[:-inner])
