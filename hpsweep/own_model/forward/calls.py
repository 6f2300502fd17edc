"""Calls of torch functions that `record` keeps: attention, however it is computed, and products with one number."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpsweep.observer import Call
from hpsweep.observer.functions import (
    BATCHED,
    DROPOUT,
    LOG_SOFTMAX,
    MASKED,
    SOFTMAX,
    call_argument,
    factors_of,
    tensors_in,
)
from hpsweep.own_model.forward.record import Product, Record, column_factors, is_bounded

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


class Watched:
    """Makes the calls of torch functions, of which it records what `probe` reads; dropout keeps everything."""

    def __init__(self, record: Record) -> None:
        self.record = record

    def __call__(self, call: Call) -> Any:
        """What the function returns, or what stands for it while the model is looked at."""
        func = call.func
        if any(map(_is_batched, tensors_in(call.args, call.kwargs))):  # within vmap, whose tensors nobody may keep
            if func in BATCHED or func in SOFTMAX or func is F.scaled_dot_product_attention:
                self.record.unread.add(self.record.running[-1])
            return call.result()
        if func in DROPOUT:
            return call.first
        if func is F.embedding:
            return self.record.looked_up(call.result())
        if func is F.scaled_dot_product_attention:
            return self._attention(call)
        if func in BATCHED:
            return self._product(call)
        if func is F.multi_head_attention_forward:
            self._whole_attention(call)
        elif func in SOFTMAX or func in LOG_SOFTMAX:
            self._softmax(call.first)
        elif func in _BENT and isinstance(call.first, Tensor) and self._product_of(call.first, zeros=True) is not None:
            self.record.bent.add(self.record.running[-1])
        scaled = _times(call)
        result = call.result()
        if scaled is not None:
            self.record.times(*scaled, result)
        elif func in (F.layer_norm, F.rms_norm):
            self.record.began(call.first)
            self.record.normed = result.detach().clone()
        elif func in _BY_WEIGHTS and any(map(_is_weight, tensors_in(call.args, call.kwargs))):
            self._made_by_weights(result)
        return result

    def _attention(self, call: Call) -> Tensor:
        """Note a call of torch's attention; makes it without dropout."""
        query = call_argument(call, 0, "query")
        key = call_argument(call, 1, "key")
        size = query.shape[-1]
        scale = call.kwargs.get("scale")
        scale = size**-0.5 if scale is None else float(scale)
        self.record.attended(scale, (query, key), size, query.dtype)
        if len(call.args) > 4:
            call = call._replace(args=(*call.args[:4], 0.0, *call.args[5:]))
        else:
            call = call._replace(kwargs={**call.kwargs, "dropout_p": 0.0})
        result: Tensor = call.result()
        return result

    def _whole_attention(self, call: Call) -> None:
        """Note a call of nn.MultiheadAttention's function, which makes queries and keys itself."""
        query = call_argument(call, 0, "query")
        width = call_argument(call, 3, "embed_dim_to_check")
        heads = call_argument(call, 4, "num_heads")
        size = width // heads
        self.record.attended(size**-0.5, None, size, query.dtype)

    def _product(self, call: Call) -> Tensor:
        """Note a product of two activations, which may be queries times keys; gives it, amplified."""
        result: Tensor = call.result()
        found = factors_of(call)
        if found is None or not (min(found.left.dim(), found.right.dim()) > 2 or _is_square(result)):
            return result
        if _is_weight(found.left) or _is_weight(found.right):
            self._made_by_weights(result)
            return result
        if found.size == 1:  # no sum: such as the angles of rotary positions
            return result
        self.record.multiplying.add(self.record.running[-1])
        columns = [result.detach().clone()]
        if found.summand is not None:
            product = torch.bmm(found.left, found.right)
            columns = [product, found.summand.broadcast_to(product.shape)]
        columns = [column * self.record.amplify for column in columns]
        made = Product(columns, (found.left, found.right), found.size, self.record.running[-1])
        self.record.products = [*self.record.products[-3:], made]
        if "out" in call.kwargs:
            return result.mul_(self.record.amplify)
        return result * self.record.amplify

    def _made_by_weights(self, result: Tensor) -> None:
        """Note what a layer has made with its weights."""
        self.record.by_weights = [*self.record.by_weights[-7:], result]

    def _softmax(self, x: Tensor) -> None:
        """Note an attention, where a softmax is of a multiple of a product; or that one was not read."""
        found = self._product_of(x)
        if found is not None:
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
        seen = flat > MASKED
        if zeros:
            seen = seen & (flat != 0)
        for product in reversed(alike):
            scale = column_factors(flat[seen], [column.flatten()[seen] for column in product.columns])
            if scale is not None:
                return scale[0], product
        return None

    def _is_of_layer(self, x: Tensor) -> bool:
        """Whether a tensor is a multiple of what a layer has just made with its weights."""
        alike = [made for made in self.record.by_weights if made.numel() == x.numel()]
        return any(column_factors(x.detach(), [made.detach()]) is not None for made in alike)


def _is_square(x: Tensor) -> bool:
    """Whether it may be the logits of every position for every other, one sequence at a time or several."""
    return x.dim() > 1 and x.shape[-1] == x.shape[-2] > 1


def _is_batched(x: Tensor) -> bool:
    return torch._C._functorch.is_functorch_wrapped_tensor(x)


def _times(call: Call) -> tuple[Tensor, float] | None:
    """What a call multiplies, and the one number by which; None for other calls."""
    if call.func not in _TIMES:
        return None
    named = [call.kwargs[name] for name in ("input", "other") if name in call.kwargs]
    operands = [*call.args, *named]
    if len(operands) != 2:
        return None
    x, other = operands
    if _TIMES[call.func] == 1 and _number(x) is not None:
        x, other = other, x
    number = _number(other)
    if number is None or number == 0 or not isinstance(x, Tensor) or x.numel() == 1:
        return None
    return x, number ** _TIMES[call.func]


def _number(x: Any) -> float | None:
    """A number, or a tensor of one that does not train."""
    if isinstance(x, Tensor) and x.numel() == 1 and not isinstance(x, nn.Parameter):
        x = x.item()
    if isinstance(x, int | float):
        return float(x)
    return None


def _is_weight(x: Any) -> bool:
    return isinstance(x, nn.Parameter) or isinstance(getattr(x, "_base", None), nn.Parameter)
