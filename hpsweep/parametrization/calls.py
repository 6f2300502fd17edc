"""Calls of torch functions that `record` keeps: attention, however it is computed, and products with one number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hpsweep.parametrization.einsum import summed
from hpsweep.parametrization.record import Product, Record, multiple

_MASKED = -1e4  # an attention logit below this was masked away

_WITH_SUMMAND = {torch.baddbmm, Tensor.baddbmm}
_PRODUCTS = {
    torch.matmul, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, torch.linalg.matmul, torch.bmm, Tensor.bmm,
    torch.einsum, *_WITH_SUMMAND,
}  # fmt: skip
_SOFTMAX = {F.softmax, torch.softmax, Tensor.softmax, torch.special.softmax}
_LOG_SOFTMAX = {F.log_softmax, torch.log_softmax, Tensor.log_softmax, torch.special.log_softmax}
_TIMES = {
    **dict.fromkeys(
        (
            torch.mul, torch.multiply, Tensor.mul, Tensor.multiply, Tensor.mul_, Tensor.multiply_, Tensor.__mul__,
            Tensor.__rmul__, Tensor.__imul__,
        ),
        1,
    ),
    **dict.fromkeys(
        (
            torch.div, torch.divide, torch.true_divide, Tensor.div, Tensor.divide, Tensor.true_divide, Tensor.div_,
            Tensor.divide_, Tensor.true_divide_, Tensor.__truediv__, Tensor.__itruediv__,
        ),
        -1,
    ),
}  # fmt: skip
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
        if any(map(_is_batched, _tensors(args, kwargs))):  # within vmap, whose tensors nobody may keep
            if func in _PRODUCTS or func in _SOFTMAX or func is F.scaled_dot_product_attention:
                self.record.multiplying.add(self.record.running[-1])
            return func(*args, **kwargs)
        first: Any = args[0] if args else kwargs.get("input")
        if func in _DROPOUT:
            return first
        if func is F.scaled_dot_product_attention:
            args, kwargs = self._attention(args, kwargs)
        elif func is F.multi_head_attention_forward:
            width, heads = (_argument(args, kwargs, *place) for place in ((3, "embed_dim_to_check"), (4, "num_heads")))
            size = width // heads
            query = _argument(args, kwargs, 0, "query")  # queries and keys are made within
            self.record.attended(size**-0.5, None, size, query.dtype)
        elif func in _SOFTMAX or func in _LOG_SOFTMAX:
            self._softmax(first)
        scaled = _times(func, args, kwargs)
        result = func(*args, **kwargs)
        if func is F.embedding:
            return self.record.looked_up(result)
        if scaled is not None:
            self.record.times(*scaled, result)
        elif func in (F.layer_norm, F.rms_norm):
            self.record.began(first)
            self.record.normed = result.detach().clone()
        elif func in _PRODUCTS:
            return self._product(func, args, kwargs, result)
        return result

    def _attention(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Note a call of torch's attention; gives the call without dropout."""
        query, key = _argument(args, kwargs, 0, "query"), _argument(args, kwargs, 1, "key")
        scale, size = kwargs.get("scale"), query.shape[-1]
        self.record.attended(size**-0.5 if scale is None else float(scale), (query, key), size, query.dtype)
        if len(args) > 4:
            return (*args[:4], 0.0, *args[5:]), kwargs
        return args, {**kwargs, "dropout_p": 0.0}

    def _product(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Tensor
    ) -> Tensor:
        """Note a product of two activations, which may be queries times keys; gives it, amplified."""
        found = _factors(func, args, kwargs)
        if found is None or not (min(found.left.dim(), found.right.dim()) > 2 or _is_square(result)):
            return result
        left, right, summand, size = found
        if _is_weight(left) or _is_weight(right) or size == 1:  # no sum: such as the angles of rotary positions
            return result
        self.record.multiplying.add(self.record.running[-1])
        columns = [result.detach().clone()]
        if summand is not None:
            columns = [product := torch.bmm(left, right), summand.broadcast_to(product.shape)]
        columns = [column * self.record.amplify for column in columns]
        self.record.products = [*self.record.products[-3:], Product(columns, (left, right), size)]
        if "out" in kwargs:
            return result.mul_(self.record.amplify)
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
        if alike or x.dim() > 3 or _is_square(x):  # what else has few dimensions chooses among experts or classes
            self.record.unread.add(self.record.running[-1])


class _Factors(NamedTuple):
    """The operands of a product, what is added to it, and how many numbers are summed for one of its entries."""

    left: Tensor
    right: Tensor
    summand: Tensor | None
    size: int


def _factors(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Factors | None:
    """What a product is of; None where it is not of two tensors."""
    if func is torch.einsum:
        found = summed(*args)
        return None if found is None else _Factors(found[0], found[1], None, found[2])
    given = list(_tensors(args, {name: value for name, value in kwargs.items() if name != "out"}))
    if func is Tensor.__rmatmul__:
        given.reverse()
    if func in _WITH_SUMMAND:
        summand, left, right = given
        return _Factors(left, right, summand, left.shape[-1])
    return _Factors(given[0], given[1], None, given[0].shape[-1]) if len(given) == 2 else None


def _tensors(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Tensor]:
    """The tensors that a function is called with, those in lists and tuples too."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value, {})


def _argument(args: Sequence[Any], kwargs: Mapping[str, Any], place: int, name: str) -> Any:
    return args[place] if len(args) > place else kwargs[name]


def _is_square(x: Tensor) -> bool:
    """Whether it may be the logits of every position for every other, one sequence at a time or several."""
    return x.dim() > 1 and x.shape[-1] == x.shape[-2] > 1


def _is_batched(x: Tensor) -> bool:
    return torch._C._functorch.is_functorch_wrapped_tensor(x)


def _times(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Tensor, float] | None:
    """What a call multiplies, and the one number by which; None for other calls."""
    if func not in _TIMES:
        return None
    named = [kwargs[name] for name in ("input", "other") if name in kwargs]
    if len(operands := [*args, *named]) != 2:
        return None
    x, other = operands
    if _TIMES[func] == 1 and _number(x) is not None:
        x, other = other, x
    number = _number(other)
    if number is None or number == 0 or not isinstance(x, Tensor) or x.numel() == 1:
        return None
    return x, number ** _TIMES[func]


def _number(x: Any) -> float | None:
    """A number, or a tensor of one that does not train."""
    if isinstance(x, Tensor) and x.numel() == 1 and not isinstance(x, nn.Parameter):
        x = x.item()
    return float(x) if isinstance(x, int | float) else None


def _is_weight(x: Any) -> bool:
    return isinstance(x, nn.Parameter) or isinstance(getattr(x, "_base", None), nn.Parameter)
