"""Attention logits, seen where they go into torch's attention or a softmax."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hpsweep.observer import Call
from hpsweep.observer.functions import MASKED, OF_TWO, SOFTMAX, factors_of

NAME = "attention_logits"
"""What they are called, after the module that was running."""


class Logits(NamedTuple):
    """Attention logits that are not masked, in one row, and the head size, 0 if it is not known."""

    values: Tensor
    head_size: int


class Attention:
    """Finds attention logits among the calls of torch functions; before a softmax, by the product that made them."""

    def __init__(self) -> None:
        self.product: tuple[torch.Size, int] = (torch.Size(), 0)  # shape of the last product, what it summed over

    def seen(self, call: Call, output: Any) -> Logits | None:
        """The logits that this call works on; None if it is no attention."""
        if call.func is F.scaled_dot_product_attention:
            return _scaled(*call.args, **call.kwargs)
        if call.func in OF_TWO:
            factors = factors_of(call)
            summed = factors.size if factors else 0
            self.product = (output.shape, summed)
        elif call.func is torch.einsum:  # which of its dimensions is the head size is not known
            self.product = (torch.Size(), 0)
        elif call.func in SOFTMAX:
            scores: Tensor = call.first
            if scores.dim() > 2:  # fewer dimensions are no attention, but a choice among experts or classes
                shape, summed = self.product
                head_size = summed if scores.shape == shape else 0
                return Logits(scores[scores > MASKED], head_size)
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
    if scale is None:
        scale = query.shape[-1] ** -0.5
    scores = query @ key.transpose(-2, -1) * scale
    kept = torch.ones_like(scores, dtype=torch.bool)
    if is_causal:
        kept = kept.tril()
    if attn_mask is not None:
        if attn_mask.dtype != torch.bool:  # it is added to the logits
            attn_mask = attn_mask > MASKED
        kept = kept & attn_mask
    return Logits(scores[kept], query.shape[-1])
