"""Calls of torch functions that `record` keeps: attention, however it is computed, and products with one number."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hpsweep.parametrization.record import Product, Record, multiple

_MASKED = -1e4  # an attention logit below this was masked away

_WITH_SUMMAND = {torch.baddbmm, Tensor.baddbmm}
_PRODUCTS = {
    torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.einsum, *_WITH_SUMMAND,
}  # fmt: skip
_SOFTMAX = {F.softmax, torch.softmax, Tensor.softmax}
_LOG_SOFTMAX = {F.log_softmax, torch.log_softmax, Tensor.log_softmax}
_TIMES = {
    **dict.fromkeys((torch.mul, Tensor.mul, Tensor.mul_, Tensor.__mul__, Tensor.__rmul__, Tensor.__imul__), 1),
    **dict.fromkeys((torch.div, Tensor.div, Tensor.div_, Tensor.__truediv__, Tensor.__itruediv__), -1),
}
_DROPOUT = {F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, torch.dropout}


class Watched(TorchFunctionMode):
    """While it lasts, what torch functions are called with is recorded, and dropout keeps everything."""

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.record = record

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in _DROPOUT:
            return args[0] if args else kwargs["input"]
        if func is F.scaled_dot_product_attention:
            args, kwargs = self._attention(args, kwargs)
        elif func is F.multi_head_attention_forward:
            size = args[3] // args[4]  # width, number of heads; queries and keys are made within
            self.record.attended(size**-0.5, None, size, args[0].dtype)
        elif func in _SOFTMAX or func in _LOG_SOFTMAX:
            self._softmax(args[0] if args else kwargs["input"])
        factor = _number(func, args)
        result = func(*args, **kwargs)
        if func is F.embedding:
            self.record.looked_up(result)
        elif factor is not None:
            self.record.times(args[0], factor, result)
        elif func in (F.layer_norm, F.rms_norm):
            self.record.began(args[0])
            self.record.normed = result.detach().clone()
        elif func in _PRODUCTS:
            return self._product(func, args, kwargs, result)
        return result

    def _attention(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Note a call of torch's attention; gives the call without dropout."""
        query, key = (args[i] if len(args) > i else kwargs[name] for i, name in enumerate(("query", "key")))
        scale, size = kwargs.get("scale"), query.shape[-1]
        self.record.attended(size**-0.5 if scale is None else scale, (query, key), size, query.dtype)
        if len(args) > 4:
            return (*args[:4], 0.0, *args[5:]), kwargs
        return args, {**kwargs, "dropout_p": 0.0}

    def _product(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Tensor
    ) -> Tensor:
        """Note a product of two activations, which may be queries times keys; gives it, amplified."""
        given = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        left, *others = given[-2:] if func in _WITH_SUMMAND else given[:2]
        if len(others) != 1 or min(left.dim(), others[0].dim()) < 3 or _is_weight(left) or _is_weight(others[0]):
            return result
        size = left.shape[-1]
        if isinstance(args[0], str):
            terms, _, kept = args[0].replace(" ", "").partition("->")
            summed = set.intersection(*map(set, terms.split(","))) - set(kept)
            size = math.prod(left.shape[terms.index(letter)] for letter in summed)
        if size == 1:  # no sum, such as the angles of rotary positions
            return result
        self.record.multiplying.add(self.record.running[-1])
        columns = [result.detach().clone()]
        if func in _WITH_SUMMAND:
            columns = [product := torch.bmm(left, *others), given[0].broadcast_to(product.shape)]
        columns = [column * self.record.amplify for column in columns]
        self.record.products = [*self.record.products[-3:], Product(columns, (left, others[0]), size)]
        return result * self.record.amplify

    def _softmax(self, x: Tensor) -> None:
        """Note an attention, where a softmax is of a multiple of a product; or that one was not read."""
        seen, alike = x.detach().flatten() > _MASKED, False
        for columns, operands, size in reversed(self.record.products):
            if columns[0].numel() != x.numel():
                continue
            alike = True
            scale = multiple(x.detach().flatten()[seen], [column.flatten()[seen] for column in columns])
            if scale is not None:
                self.record.attended(scale[0], operands, size, x.dtype)
                self.record.products = []
                return
        if alike or x.dim() > 3:  # fewer dimensions may be a choice among experts or classes
            self.record.unread.add(self.record.running[-1])


def _number(func: Callable[..., Any], args: tuple[Any, ...]) -> float | None:
    """The one number by which a call multiplies its first argument; None for other calls."""
    if func not in _TIMES or len(args) < 2 or not isinstance(args[0], Tensor):
        return None
    other = args[1]
    if isinstance(other, Tensor) and other.numel() == 1 and not isinstance(other, nn.Parameter):
        other = other.item()
    if not isinstance(other, int | float) or other == 0 or args[0].numel() == 1:
        return None
    return float(other) ** _TIMES[func]


def _is_weight(x: Any) -> bool:
    return isinstance(x, nn.Parameter) or isinstance(getattr(x, "_base", None), nn.Parameter)
