"""One trial as people train it today: a module, weight times mask in every forward pass, AdamW per group.

The baseline of `throughput.py`, after the published SuPar training code; muP's factors are numbers here.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpsweep.spec import Trial


class MaskedLinear(nn.Linear):
    """A linear layer whose weight is multiplied with its mask in every forward pass."""

    def __init__(self, fan_in: int, fan_out: int, density: float) -> None:
        super().__init__(fan_in, fan_out, bias=False)
        self.mask = nn.Buffer((torch.rand(fan_out, fan_in) < density).float())

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output."""
        return F.linear(x, self.weight * self.mask)


class Block(nn.Module):
    """A pre-LayerNorm transformer block."""

    def __init__(self, trial: Trial) -> None:
        super().__init__()
        width, self.head_size = trial.width, trial.head_size
        self.norm1, self.norm2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.qkv, self.out = MaskedLinear(width, 3 * width, trial.density), MaskedLinear(width, width, trial.density)
        self.mlp_in = MaskedLinear(width, 4 * width, trial.density)
        self.mlp_out = MaskedLinear(4 * width, width, trial.density)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        batch, context, width = x.shape
        q, k, v = (
            part.view(batch, context, -1, self.head_size).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).split(width, -1)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1 / self.head_size)
        x = x + self.out(y.transpose(1, 2).reshape(batch, context, width))
        mlp: Tensor = self.mlp_out(F.gelu(self.mlp_in(self.norm2(x))))
        return x + mlp


class EagerTrial:
    """Model and optimizer of one trial, and a step of its training on random bytes."""

    def __init__(self, trial: Trial, vocabulary: int = 256) -> None:
        self.trial = trial
        self.token = nn.Embedding(vocabulary, trial.width)
        self.position = nn.Embedding(trial.context, trial.width)
        self.blocks = nn.Sequential(*[Block(trial) for _ in range(trial.depth)])
        self.norm = nn.LayerNorm(trial.width, bias=False)
        self.all = nn.ModuleList([self.token, self.position, self.blocks, self.norm])
        nn.init.normal_(self.token.weight, std=trial.init_std)
        hidden = [p for p in self.blocks.parameters() if p.dim() == 2]
        rest = [p for p in self.all.parameters() if p.dim() == 2 and all(p is not h for h in hidden)]
        gains = [p for p in self.all.parameters() if p.dim() == 1]
        rates = [(rest, trial.lr), (hidden, trial.lr / trial.m_rho), (gains, trial.lr)]
        self.optimizer = torch.optim.AdamW(
            [{"params": params, "lr": lr} for params, lr in rates], betas=(trial.beta1, trial.beta2)
        )
        self.data = torch.randint(vocabulary, (100_000,))

    def step(self) -> float:
        """One step on a random batch; returns the loss."""
        trial = self.trial
        starts = torch.randint(len(self.data) - trial.context - 1, (trial.batch,)).tolist()
        inputs = torch.stack([self.data[i : i + trial.context] for i in starts])
        targets = torch.stack([self.data[i + 1 : i + 1 + trial.context] for i in starts])
        x = self.blocks(self.token(inputs) + self.position.weight)
        scores = self.norm(x) @ self.token.weight.T
        loss = F.cross_entropy(scores.flatten(0, 1), targets.flatten())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.all.parameters(), trial.clip)
        self.optimizer.step()
        value = loss.item()
        assert math.isfinite(value)
        return value
