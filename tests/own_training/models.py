"""Models of a user's own, as functions in a file: what sweeps of the tests build."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    def __init__(self, width: int, head_size: int) -> None:
        super().__init__()
        self.head_size = head_size
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, context, width = x.shape
        q, k, v = (
            part.view(batch, context, -1, self.head_size).transpose(1, 2) for part in self.qkv(x).split(width, -1)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(batch, context, width))


class Block(nn.Module):
    def __init__(self, width: int, head_size: int, ratio: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.attention = Attention(width, head_size)
        layers = {
            "in": nn.Linear(width, ratio * width, bias=False),
            "out": nn.Linear(ratio * width, width, bias=False),
        }
        self.mlp = nn.ModuleDict(layers)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp["out"](nn.functional.gelu(self.mlp["in"](self.norm2(x))))


class GPT(nn.Module):
    """The built-in GPT as a user would write it, its tensors called as those of the built-in one."""

    def __init__(
        self, width: int, depth: int, head_size: int, context: int, vocabulary: int, tied: bool, ratio: int
    ) -> None:
        super().__init__()
        tables = {"token": nn.Embedding(vocabulary, width), "position": nn.Embedding(context, width)}
        self.embedding = nn.ModuleDict(tables)
        self.depth = depth
        for i in range(depth):
            self.add_module(f"block{i}", Block(width, head_size, ratio))
        self.norm = nn.LayerNorm(width, bias=False)
        self.readout = nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.readout.weight = self.embedding["token"].weight

    def forward(self, ids: Tensor) -> Tensor:
        positions = torch.arange(ids.shape[-1], device=ids.device)
        x = self.embedding["token"](ids) + self.embedding["position"](positions)
        for i in range(self.depth):
            x = self.get_submodule(f"block{i}")(x)
        logits: Tensor = self.readout(self.norm(x))
        return logits


def build_gpt(width: int, depth: int, head_size: int, context: int, vocabulary: int, tied: bool, ratio: int = 4) -> GPT:
    return GPT(width, depth, head_size, context, vocabulary, tied, ratio)


RESIDUAL = {"*attention.out.weight": "residual_out", "*mlp.out.weight": "residual_out"}
"""As the built-in GPT has it: what writes into the residual stream begins smaller."""
