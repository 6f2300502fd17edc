"""Which torch functions multiply, choose by softmax, attend or drop; and what a product is of."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hpsweep.observer import Call
from hpsweep.observer.einsum import summed_dimensions

WITH_SUMMAND = {torch.addmm, Tensor.addmm, torch.baddbmm, Tensor.baddbmm}
"""Products that something is added to, which they are given first."""

OF_TWO = {
    torch.matmul,
    Tensor.matmul,
    Tensor.__matmul__,
    Tensor.__rmatmul__,
    torch.linalg.matmul,
    torch.bmm,
    Tensor.bmm,
}
"""Products of two tensors that may have batches."""

BATCHED = {*OF_TWO, torch.einsum, torch.baddbmm, Tensor.baddbmm}
"""Products that activations may have with each other."""

PRODUCTS = {*BATCHED, *WITH_SUMMAND, torch.mm, Tensor.mm, F.linear}

SOFTMAX = {F.softmax, torch.softmax, Tensor.softmax, torch.special.softmax}
LOG_SOFTMAX = {F.log_softmax, torch.log_softmax, Tensor.log_softmax, torch.special.log_softmax}
DROPOUT = {F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, torch.dropout}

MASKED = -1e4
"""An attention logit below this was masked away."""


class Factors(NamedTuple):
    """The two tensors of a product, each with its dimensions that are summed over, and what is added to it."""

    left: Tensor
    left_axes: tuple[int, ...]
    right: Tensor
    right_axes: tuple[int, ...]
    summand: Tensor | None = None

    @property
    def size(self) -> int:
        """How many numbers are summed for one entry of the product."""
        return math.prod(self.left.shape[axis] for axis in self.left_axes)


def factors_of(call: Call) -> Factors | None:
    """What a product is of; None for other calls, and where it is not of two tensors."""
    if call.func not in PRODUCTS:
        return None
    if call.func is torch.einsum:
        operands = summed_dimensions(*call.args)
        if operands is None:
            return None
        (left, left_axes), (right, right_axes) = operands
        return Factors(left, left_axes, right, right_axes)
    inputs = {name: value for name, value in call.kwargs.items() if name != "out"}
    given = list(tensors_in(call.args, inputs))
    summand = None
    if call.func in WITH_SUMMAND:
        summand, *given = given
    elif call.func is Tensor.__rmatmul__:
        given.reverse()
    elif call.func is F.linear:
        x, weight, *_ = given
        return Factors(x, (x.dim() - 1,), weight, (weight.dim() - 1,))
    if len(given) != 2:
        return None
    left, right = given
    return Factors(left, (left.dim() - 1,), right, (max(right.dim() - 2, 0),), summand)


def tensors_in(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Tensor]:
    """The tensors that a function is called with, those in lists and tuples too."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value, {})


def call_argument(call: Call, place: int, name: str) -> Any:
    """An argument by its place or its name; raises KeyError where it was not given."""
    if len(call.args) > place:
        return call.args[place]
    return call.kwargs[name]
