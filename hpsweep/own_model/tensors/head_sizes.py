"""What the head size of a model's attention is in its base, where both models say it.

Under mup and supar attention logits are scaled from the base's head size (rules.logit_scale), which no shape of a
weight tells: queries of 8 heads of 64 and of 4 heads of 128 have one weight. Modules keep it as an attribute.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn

_HEAD_SIZE = re.compile(r"(?<!all_)(head_dim|head_size|dim_head|d_head|d_kv|kv_channels|key_value_proj_dim)$")
_HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads")
_WIDTHS = ("embed_dim", "hidden_size", "n_embd", "d_model", "width", "dim")


def base_head_sizes(model: nn.Module, base: nn.Module) -> dict[str, int]:
    """Head size in the model -> head size in the base, as attributes of their modules say; without those in doubt."""
    others = dict(base.named_modules())
    found: dict[int, set[int]] = {}
    for name, module in model.named_modules():
        other = others.get(name)
        if other is not None:
            for size, base_size in _head_sizes(module, other):
                found.setdefault(size, set()).add(base_size)
    return {str(size): min(sizes) for size, sizes in sorted(found.items()) if len(sizes) == 1}


def _head_sizes(module: nn.Module, other: nn.Module) -> Iterator[tuple[int, int]]:
    """(head size, base head size) by two modules of one name: as they keep it, or as width over number of heads."""
    ours = _numbers(module)
    theirs = _numbers(other)
    for name in ours.keys() & theirs.keys():
        if _HEAD_SIZE.search(name):
            yield ours[name], theirs[name]
    heads = next((name for name in _HEADS if name in ours and name in theirs), "")
    width = next((name for name in _WIDTHS if name in ours and name in theirs), "")
    if heads and width and not ours[width] % ours[heads] and not theirs[width] % theirs[heads]:
        yield ours[width] // ours[heads], theirs[width] // theirs[heads]


def _numbers(module: nn.Module) -> dict[str, int]:
    """The positive whole numbers that a module keeps."""
    return {name: value for name, value in vars(module).items() if type(value) is int and value > 0}
