"""Calls of torch functions that `record` keeps: attention, however it is computed, and products with one number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hpsweep.own_model.forward.record import Product, Record, is_bounded, multiple
from hpsweep.own_model.tensors.einsum import summed

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
_BY_WEIGHTS = {F.linear, torch.addmm, Tensor.addmm}
"""Functions that multiply with the weights of a layer, beside products."""

_BENT = {
    torch.exp, Tensor.exp, Tensor.exp_, torch.sigmoid, Tensor.sigmoid, F.sigmoid, torch.tanh, Tensor.tanh, F.tanh,
    torch.relu, Tensor.relu, F.relu, F.softplus, torch.square, Tensor.square, torch.amax, Tensor.amax, torch.max,
    Tensor.max, torch.logsumexp, Tensor.logsumexp,
}  # fmt: skip
"""What an attention may do to its logits in the place of a softmax, or as a part of one written out."""

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
                self.record.unread.add(self.record.running[-1])
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
        elif func in _BENT and isinstance(first, Tensor) and self._product_of(first, zeros=True) is not None:
            self.record.bent.add(self.record.running[-1])
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
        elif func in _BY_WEIGHTS and any(map(_is_weight, _tensors(args, kwargs))):
            self.record.by_weights = [*self.record.by_weights[-7:], result]
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
        if _is_weight(left) or _is_weight(right):
            self.record.by_weights = [*self.record.by_weights[-7:], result]
            return result
        if size == 1:  # no sum: such as the angles of rotary positions
            return result
        self.record.multiplying.add(self.record.running[-1])
        columns = [result.detach().clone()]
        if summand is not None:
            columns = [product := torch.bmm(left, right), summand.broadcast_to(product.shape)]
        columns = [column * self.record.amplify for column in columns]
        made = Product(columns, (left, right), size, self.record.running[-1])
        self.record.products = [*self.record.products[-3:], made]
        if "out" in kwargs:
            return result.mul_(self.record.amplify)
        return result * self.record.amplify

    def _softmax(self, x: Tensor) -> None:
        """Note an attention, where a softmax is of a multiple of a product; or that one was not read."""
        if (found := self._product_of(x)) is not None:
            scale, product = found
            self.record.attended(scale, product.operands, product.head_size, x.dtype)
            self.record.scored.add(product.module)
            self.record.products = []
            return
        same = [product for product in self.record.products if product.columns[0].numel() == x.numel()]
        if any(is_bounded(product.operands) for product in same):
            self.record.bounded.add(self.record.running[-1])
        # what else has few dimensions, and what a layer returns, chooses among experts or classes
        if (same or x.dim() > 3 or _is_square(x)) and not self._is_of_layer(x):
            self.record.unread.add(self.record.running[-1])

    def _product_of(self, x: Tensor, *, zeros: bool = False) -> tuple[float, Product] | None:
        """(factor, product): the latest product of which a tensor is a multiple where it is not masked; or None.

        `zeros`: what is zero is masked, too.
        """
        alike = [product for product in self.record.products if product.columns[0].numel() == x.numel()]
        if not alike or not x.is_floating_point():
            return None
        flat = x.detach().flatten()
        seen = (flat > _MASKED) & (flat != 0) if zeros else flat > _MASKED
        for product in reversed(alike):
            scale = multiple(flat[seen], [column.flatten()[seen] for column in product.columns])
            if scale is not None:
                return scale[0], product
        return None

    def _is_of_layer(self, x: Tensor) -> bool:
        """Whether a tensor is a multiple of what a layer has just made with its weights."""
        alike = [made for made in self.record.by_weights if made.numel() == x.numel()]
        return any(multiple(x.detach(), [made.detach()]) is not None for made in alike)


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
