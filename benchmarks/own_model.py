"""What hpsweep adds to the training of a user's own module: a fixed cost per trial, and the time of a step.

The module is a GPT of torch.nn layers at density 1/8. A user's eager loop trains the same module beside it, with a mask
on each hidden matrix, clipping, torch's fused AdamW and the same batches. Both are timed by turns, in processor time,
which other work on the machine does not count in.

Cost: a minute on one core.
Run: python -m benchmarks.own_model
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hpsweep.own_training.batches import TextBatches
from hpsweep.own_training.loop import train_model
from hpsweep.spec import Model, Trial

WIDTH = 128
SHORT, LONG = 4, 44
"""Steps of the two trainings whose difference is the time of a step."""
ROUNDS = 7
DENSITY = 1 / 8


class Block(nn.Module):
    """Attention and MLP, as users write them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """A block's output, of the shape of its input: (batch, context, width)."""
        h = self.norm1(x)
        q, k, v = (layer(h).unflatten(-1, (-1, 32)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        sum_: Tensor = x + self.down(nn.functional.gelu(self.up(self.norm2(x))))
        return sum_


class Net(nn.Module):
    """A small GPT."""

    def __init__(self, width: int, depth: int, context: int, vocabulary: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits, (batch, context, vocabulary)."""
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits


def build(width: int, depth: int, context: int, vocabulary: int) -> Net:
    """The module of a trial."""
    return Net(width, depth, context, vocabulary)


MODEL = Model(build)
TRIAL = Trial(
    model=MODEL.label, width=WIDTH, base_width=64, density=DENSITY, steps=SHORT, batch=16, context=64, eval_sequences=16
)


def train_by_hpsweep(steps: int) -> None:
    """Train by hpsweep's loop."""
    train_model([TRIAL.replace(steps=steps)], model=MODEL.to_dict())


def train_by_hand(steps: int) -> None:
    """Train the same module by a loop as users write it, and take the loss of the same held-out sequences."""
    trial = TRIAL.replace(steps=steps)
    torch.manual_seed(0)
    net = Net(WIDTH, trial.depth, trial.context, 256)
    masks = {p: torch.rand_like(p) < DENSITY for block in net.blocks for p in block.parameters() if p.dim() == 2}
    with torch.no_grad():
        for parameter, mask in masks.items():
            parameter.mul_(mask)
    optimizer = torch.optim.AdamW(net.parameters(), lr=trial.lr, betas=(trial.beta1, trial.beta2), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    batches = TextBatches(trial.data)
    for inputs, targets in batches.train(trial):
        loss = nn.functional.cross_entropy(net(inputs).flatten(0, 1), targets.flatten())
        loss.item()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        for parameter, mask in masks.items():
            assert parameter.grad is not None
            parameter.grad *= mask
        nn.utils.clip_grad_norm_(net.parameters(), trial.clip)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            for parameter, mask in masks.items():
                parameter.mul_(mask)
    with torch.no_grad():
        for inputs, targets in batches.held_out(trial):
            nn.functional.cross_entropy(net(inputs).flatten(0, 1), targets.flatten())


def seconds(train: Callable[[int], None], steps: int) -> float:
    """Processor time of a training."""
    begun = time.process_time()
    train(steps)
    return time.process_time() - begun


def main() -> None:
    """Print seconds once per trial, milliseconds a step, and the ratio of throughputs."""
    torch.set_num_threads(1)
    ways = {"hpsweep": train_by_hpsweep, "by hand": train_by_hand}
    for train in ways.values():
        train(SHORT)  # what is done once
    fixed: dict[str, list[float]] = {name: [] for name in ways}
    step: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, train in ways.items():
            short, long = seconds(train, SHORT), seconds(train, LONG)
            step[name].append((long - short) / (LONG - SHORT))
            fixed[name].append(short - SHORT * step[name][-1])
    for name in ways:
        once, each = statistics.median(fixed[name]), statistics.median(step[name])
        print(f"{name:8} {once:6.3f} s once, {1e3 * each:6.1f} ms a step")
    ratios = sorted(hand / ours for hand, ours in zip(step["by hand"], step["hpsweep"], strict=True))
    print(f"throughput over the loop by hand: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
