"""Attention logits, seen where they go into torch's attention or a softmax."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

MASKED = -1e4
"""An attention logit below this was masked away."""

NAME = "attention_logits"
"""What they are called, after the module that was running."""

_PRODUCTS = (torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm)
_SOFTMAX = (torch.softmax, F.softmax, Tensor.softmax)


class Logits(NamedTuple):
    """Attention logits that are not masked, in one row, and the head size, 0 if it is not known."""

    values: Tensor
    head_size: int


class Attention:
    """Finds attention logits among the calls of torch functions; before a softmax, by the product that made them."""

    def __init__(self) -> None:
        self.product: tuple[torch.Size, int] = (torch.Size(), 0)  # shape of the last product, what it summed over

    def seen(
        self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], output: Any
    ) -> Logits | None:
        """The logits that this call works on; None if it is no attention."""
        if func is F.scaled_dot_product_attention:
            return _scaled(*args, **kwargs)
        if func in _PRODUCTS and len(args) == 2:
            self.product = output.shape, args[0].shape[-1]
        elif func is torch.einsum:
            self.product = torch.Size(), 0
        elif func in _SOFTMAX:
            scores: Tensor = args[0] if args else kwargs["input"]
            if scores.dim() > 2:  # fewer dimensions are no attention, but a choice among experts or classes
                return Logits(scores[scores > MASKED], self.product[1] if scores.shape == self.product[0] else 0)
        return None


def _scaled(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Logits:
    """From the arguments of torch's scaled_dot_product_attention."""
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    kept = torch.ones_like(scores, dtype=torch.bool)
    if is_causal:
        kept = kept.tril()
    if attn_mask is not None:
        kept = kept & (attn_mask if attn_mask.dtype == torch.bool else attn_mask > MASKED)
    return Logits(scores[kept], query.shape[-1])
