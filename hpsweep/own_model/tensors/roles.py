"""What a module's type, attributes and neighbours say of its tensors: what they sum over, and what they are."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from torch import nn

from hpsweep.own_model.tensors.uses import Use

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
UPWARDS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
Axes = int | tuple[int, ...]
"""The dimension that a tensor sums over, or several."""

_SIZES = (("in_features", "out_features"), ("input_size", "output_size"), ("in_channels", "out_channels"))
"""Attributes by which custom layers keep the sizes of what they are given and what they return."""


def summed_axis_of(use: Use, others: Sequence[Use], seen: int | None = None) -> int | None:
    """The dimension that a tensor sums over, if its module settles it; `others` are the same use in base and delta.

    `seen` is what the module's own forward showed, if it has one.
    """
    module = use.module
    local = use.local
    shape = _shape(use)
    if seen is not None:
        return seen
    if isinstance(module, nn.Linear) and local == "weight" and type(module).forward is not nn.Linear.forward:
        return _by_sizes(use, others) if _is_odd(use) else 1
    if isinstance(module, (nn.Linear, *CONVOLUTIONS)) and local == "weight":
        return 0 if is_turned(module) else 1  # (out, in, ...)
    if isinstance(module, nn.MultiheadAttention) and local.endswith("proj_weight"):
        return 1
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)) and local.startswith("weight_"):
        return 1
    if isinstance(module, nn.Bilinear) and local == "weight":
        return next((axis for axis in _grow(use, others) if axis > 0), 1)  # (out, in, in), over both
    if (is_transposed(module) or isinstance(module, UPWARDS)) and local == "weight":
        return 0  # (in, out, ...)
    flag = getattr(module, "is_transposed", None)
    if len(shape) == 3 and isinstance(flag, bool):
        return 1 if flag else 2  # transformers' experts: (expert, in, out) if transposed
    if len(shape) < 2 or local.endswith("bias"):
        return None
    if len(shape) == 3 and shape[1] == shape[2] and _grow(use, others) == [0]:
        return 2  # blocks along a diagonal, whose fan-in is fixed whichever of the two they sum over
    axis = _by_bias(use, others)
    if axis is None:
        axis = _by_sizes(use, others)
    return axis


def summed_axes(use: Use, axis: Axes) -> tuple[int, ...]:
    """All dimensions that a tensor sums over, of which `axis` is one: a bilinear layer sums over both of its inputs."""
    if isinstance(axis, tuple):
        return axis
    if isinstance(use.module, nn.Bilinear) and use.local == "weight" and axis > 0:
        return (1, 2)
    return (axis,)


def is_transposed(module: nn.Module) -> bool:
    """Whether it is the linear layer of transformers' GPT-2, known without importing transformers."""
    return any(c.__name__ == "Conv1D" and c.__module__.startswith("transformers.") for c in type(module).__mro__)


def _by_bias(use: Use, others: Sequence[Use]) -> int | None:
    """The one dimension of a bare matrix that its bias lacks, in the model and in the base."""
    names = {f"{use.local}_bias", re.sub("weight$", "bias", use.local)} - {use.local}
    axes = set(range(len(_shape(use))))
    found = False
    for place in (use, *others):
        for name in names:
            bias = place.module._parameters.get(name)
            if bias is not None:
                found = True
                axes = {a for a in axes if _without(_shape(place), a) == tuple(bias.shape)}
    return axes.pop() if found and len(axes) == 1 else None


def _by_sizes(use: Use, others: Sequence[Use]) -> int | None:
    """The one of the last two dimensions that has the size of what the module says that it is given."""
    found: set[int] = set()
    for place in (use, *others):
        *_, left, right = _shape(place)
        for names in _SIZES:
            sizes = tuple(getattr(place.module, name, None) for name in names)
            if sizes[0] == sizes[1]:
                continue  # or None both: they tell nothing
            dimensions = len(_shape(place))
            if sizes == (left, right):
                found.add(dimensions - 2)
            elif sizes == (right, left):
                found.add(dimensions - 1)
    return found.pop() if len(found) == 1 else None


def _is_odd(use: Use) -> bool:
    """Whether a linear layer's weight has not the shape that torch's layer has, by what the layer says of its sizes."""
    module: Any = use.module
    return _shape(use) != (module.out_features, module.in_features)


def is_turned(module: nn.Module) -> bool:
    """Whether a subclass of torch's convolutions keeps its weight as (in, out, ...), by the channels that it states."""
    if not isinstance(module, CONVOLUTIONS) or module.groups > 1:
        return False
    given = module.in_channels
    returned = module.out_channels
    return given != returned and tuple(module.weight.shape[:2]) == (given, returned)


def _grow(use: Use, others: Sequence[Use]) -> list[int]:
    """The dimensions that differ."""
    return differing_axes(_shape(use), [_shape(other) for other in others])


def differing_axes(shape: Sequence[int], others: Sequence[Sequence[int]]) -> list[int]:
    """The dimensions in which one of the other shapes differs."""
    return [axis for axis, size in enumerate(shape) if any(other[axis] != size for other in others)]


def groups_grow(use: Use, others: Sequence[Use]) -> float | None:
    """A convolution's number of groups over the base's, where it grows with the width: depthwise, mostly. Else None."""
    if not isinstance(use.module, (*CONVOLUTIONS, *UPWARDS)) or use.local != "weight":
        return None
    groups = [int(getattr(place.module, "groups", 0)) for place in (use, *others)]
    if len(set(groups)) < 2 or not all(groups):
        return None
    return groups[0] / groups[1]


def fan_in_of(use: Use, shape: tuple[int, ...], axis: Axes) -> int:
    """The number of weights of one output."""
    fan_in = math.prod(shape[summed] for summed in summed_axes(use, axis))
    if isinstance(use.module, (*CONVOLUTIONS, *UPWARDS)):
        fan_in *= math.prod(shape[2:])  # weights of one channel that is given, over all of the kernel
    if isinstance(use.module, UPWARDS):
        fan_in //= use.module.groups  # (in, out / groups, ...)
    return fan_in


def role_of(use: Use, others: Sequence[Use], axis: Axes | None, widths: list[int], *, given_axis: bool) -> str:
    """What a tensor is in one use: a kind; 'input' or 'router', which look like an embedding and a readout; or ''."""
    dimensions = len(_shape(use))
    if isinstance(use.module, nn.Embedding):
        if 0 in widths:
            raise ValueError(
                f"{use.name} has another number of entries than in the base (vocabulary or context); build the base "
                "with the same: it must differ in widths only."
            )
        return "embedding"
    of_recurrence = isinstance(use.module, (nn.RNNBase, nn.RNNCellBase)) and use.local.startswith("bias_")
    if (use.local.endswith("bias") or of_recurrence) and len(widths) < 2 and not given_axis:
        return "bias"
    if dimensions < 2:
        return "norm" if "Norm" in type(use.module).__name__ and use.local == "weight" else ""
    if groups_grow(use, others) is not None:
        return "hidden"  # its input is as wide as the net, though its fan-in is a kernel
    is_convolution = isinstance(use.module, (*CONVOLUTIONS, *UPWARDS))
    if dimensions == 3 and widths == [0] and axis in (1, 2) and not is_convolution:
        return "hidden"  # blocks of a fixed size, of which there are more
    if axis is None:
        return "router" if _named_router(use) and widths == [dimensions - 1] else ""
    if not widths:
        return ""
    summed = set(summed_axes(use, axis))
    returned = set(widths) - summed
    if not summed & set(widths):
        return "input" if len(returned) == 1 else ""
    if returned:
        return "hidden"
    return "router" if _named_router(use) else "readout"


def _named_router(use: Use) -> bool:
    """Whether the tensor's module, or the one around it, is called a router or a gate."""
    words = re.split(r"[._]", ".".join(use.name.lower().split(".")[-3:]))
    return bool({"router", "gate"} & set(words))


def name_words(name: str) -> set[str]:
    """The words of a name, with their numbers and without."""
    words = set(re.split(r"[._]", name.lower()))
    return words | {word.strip("0123456789") for word in words}


def _shape(use: Use) -> tuple[int, ...]:
    return tuple(getattr(use.module, use.local).shape)


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]
