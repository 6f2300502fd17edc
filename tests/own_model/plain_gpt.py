"""One trial as people train it today: an nn.Module GPT, masks on the weights, torch.optim.AdamW, a loop.

Written from the published descriptions without the package's model, optimizer or rules, as the reference that the
ensembles are compared with: nanoGPT at bias=False, muP and SuPar as arXiv 2405.15743, Table 1, has them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hpsweep.spec import Trial


class Block(nn.Module):
    def __init__(self, width: int, head_size: int, attention_scale: float) -> None:
        super().__init__()
        self.head_size, self.attention_scale = head_size, attention_scale
        self.norm1, self.norm2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.mlp_in, self.mlp_out = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, context, width = x.shape
        q, k, v = (
            part.view(batch, context, -1, self.head_size).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).split(width, -1)
        )
        scores = q @ k.transpose(-2, -1) * self.attention_scale
        future = torch.triu(torch.ones(context, context, dtype=torch.bool), 1)
        mixed = scores.masked_fill(future, -math.inf).softmax(-1) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, context, width))
        return x + self.mlp_out(nn.functional.gelu(self.mlp_in(self.norm2(x))))


class PlainGPT(nn.Module):
    def __init__(self, trial: Trial, vocabulary: int) -> None:
        super().__init__()
        mup = trial.scheme != "sp"
        self.input_multiplier = trial.alpha_input if mup else 1.0
        self.output_multiplier = trial.alpha_output * trial.base_width / trial.width if mup else 1.0
        mup_scale = trial.alpha_attention * math.sqrt(trial.base_head_size) / trial.head_size
        attention_scale = mup_scale if mup else 1 / math.sqrt(trial.head_size)
        self.token = nn.Embedding(vocabulary, trial.width)
        self.position = nn.Embedding(trial.context, trial.width)
        self.blocks = nn.ModuleList(Block(trial.width, trial.head_size, attention_scale) for _ in range(trial.depth))
        self.norm = nn.LayerNorm(trial.width, bias=False)
        self.readout = nn.Linear(trial.width, vocabulary, bias=False)
        if trial.tied:
            self.readout.weight = self.token.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = (self.token(ids) + self.position(torch.arange(ids.shape[-1]))) * self.input_multiplier
        for block in self.blocks:
            x = block(x)
        return self.readout(self.norm(x)) * self.output_multiplier

    def named(self, tied: bool) -> dict[str, nn.Parameter]:
        """Parameters by the package's tensor names."""
        names = {"embedding.token": self.token.weight, "embedding.position": self.position.weight}
        for i, block in enumerate(self.blocks):
            names |= {
                f"block{i}.norm1": block.norm1.weight,
                f"block{i}.norm2": block.norm2.weight,
                f"block{i}.attention.qkv": block.qkv.weight,
                f"block{i}.attention.out": block.out.weight,
                f"block{i}.mlp.in": block.mlp_in.weight,
                f"block{i}.mlp.out": block.mlp_out.weight,
            }
        names["norm"] = self.norm.weight
        return names if tied else names | {"readout": self.readout.weight}


def train_plain(
    trial: Trial,
    vocabulary: int,
    weights: dict[str, Tensor],
    masks: dict[str, Tensor],
    batches: list[tuple[Tensor, Tensor]],
) -> tuple[list[float], PlainGPT]:
    """Training loss of every step, from the given initial weights, and the trained module."""
    model = PlainGPT(trial, vocabulary)
    named = model.named(trial.tied)
    assert named.keys() == weights.keys()
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(weights[name])
    sparse = {named[name]: mask for name, mask in masks.items()}

    hidden_lr = {"sp": 1.0, "mup": 1 / trial.m_d, "supar": 1 / (trial.m_d * trial.m_rho)}[trial.scheme]
    hidden_decay = 1.0 if trial.weight_decay_rule == "coupled" else 1 / hidden_lr
    groups = []
    for name, parameter in named.items():
        if "norm" in name:
            lr, decay = 1.0, 0.0
        elif name.startswith("embedding"):
            lr, decay = trial.embedding_lr_mult, trial.weight_decay
        elif name == "readout":
            lr, decay = 1.0, trial.weight_decay
        else:
            lr, decay = hidden_lr, trial.weight_decay * hidden_decay
        groups.append({"params": [parameter], "lr": trial.lr * lr, "weight_decay": decay})
    optimizer = torch.optim.AdamW(groups, betas=(trial.beta1, trial.beta2), eps=trial.eps)
    warmup, last = round(trial.warmup_fraction * trial.total_steps), trial.total_steps - 1
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: (
            (s + 1) / warmup if s < warmup else 1 - (1 - trial.final_lr_fraction) * (s - warmup) / (last - warmup)
        ),
    )
    losses = []
    for inputs, targets in batches:
        loss = nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        for parameter, mask in sparse.items():
            assert parameter.grad is not None
            parameter.grad *= mask
        nn.utils.clip_grad_norm_(model.parameters(), trial.clip)
        optimizer.step()
        scheduler.step()
    return losses, model
