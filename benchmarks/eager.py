"""One trial as people train it today: a module, weight times mask in every forward pass, AdamW per group.

    python -m benchmarks.eager TRIAL TRAIN VALIDATION     fields of a trial as JSON, two files of bytes

trains one trial in this process, evaluates it, and prints its held-out loss: a process per trial.

The baseline of the benchmarks, after the published SuPar training (the supar branch of nanoGPT-mup, model.py and
train.py as of commit 40c3904 of the fork cat-state/nanoGPT-mup). As there: a weight is multiplied with its mask
whenever it is used, unless the trial is dense; three parameter groups (hidden, embeddings, gains) of torch.optim.AdamW,
fused on a GPU and torch's default on a CPU; the rates set at every step; gradients clipped by their norm. Cheaper than
there, so that the baseline is no straw man: tokens lie in memory on the device, a batch is one indexing, nothing is
logged, and no step waits for its loss. The numbers are those of hpsweep's rules, so that both train the same trial.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpsweep.architectures import SPARSE
from hpsweep.proxy.schedule import lr_factor
from hpsweep.rules.multipliers import attention_scale, readout_multiplier, tensor_numbers
from hpsweep.spec import Trial

VOCABULARY = 256
EVALUATED_TOGETHER = 64  # sequences


class MaskedLinear(nn.Linear):
    """A linear layer whose weight is multiplied with its mask in every forward pass; without a mask if dense."""

    def __init__(self, fan_in: int, fan_out: int, density: float) -> None:
        super().__init__(fan_in, fan_out, bias=False)
        self.mask = nn.Buffer((torch.rand(fan_out, fan_in) < density).float()) if density < 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output."""
        return F.linear(x, self.weight if self.mask is None else self.weight * self.mask)


class Block(nn.Module):
    """A pre-LayerNorm transformer block."""

    def __init__(self, trial: Trial) -> None:
        super().__init__()
        width, self.head_size, self.scale = trial.width, trial.head_size, attention_scale(trial)
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
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale)
        x = x + self.out(y.transpose(1, 2).reshape(batch, context, width))
        mlp: Tensor = self.mlp_out(F.gelu(self.mlp_in(self.norm2(x))))
        return x + mlp


class EagerGPT(nn.Module):
    """The GPT, initialized by the rules; its output is the mean loss of a batch."""

    def __init__(self, trial: Trial) -> None:
        super().__init__()
        self.token = nn.Embedding(VOCABULARY, trial.width)
        self.position = nn.Embedding(trial.context, trial.width)
        self.blocks = nn.Sequential(*[Block(trial) for _ in range(trial.depth)])
        self.norm = nn.LayerNorm(trial.width, bias=False)
        self.numbers = tensor_numbers(trial, VOCABULARY)
        self.input_alpha, self.output_alpha = self.numbers["embedding.token"].forward, readout_multiplier(trial)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=self.numbers[proxy_name(name)].init_std)

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy, nats/token."""
        x = self.blocks((self.token(inputs) + self.position.weight) * self.input_alpha)
        scores = F.linear(self.norm(x) * self.output_alpha, self.token.weight)
        return F.cross_entropy(scores.flatten(0, 1).float(), targets.flatten())


def proxy_name(name: str) -> str:
    """What hpsweep's rules call a parameter of EagerGPT."""
    if name in ("token.weight", "position.weight"):
        return f"embedding.{name.removesuffix('.weight')}"
    for ours, theirs in ((".qkv", ".attention.qkv"), (".out", ".attention.out"), (".mlp_", ".mlp.")):
        name = name.replace(ours, theirs)
    return name.replace("blocks.", "block").removesuffix(".weight")


class EagerTrial:
    """Model and optimizer of one trial on a device, and steps of its training.

    `tokens`: the training tokens, uint8; random bytes if None. `compiled`: the mode of torch.compile for the model;
    None leaves it eager.
    """

    def __init__(
        self,
        trial: Trial,
        tokens: npt.NDArray[np.uint8] | None = None,
        *,
        device: str = "cpu",
        compiled: str | None = None,
    ) -> None:
        if not trial.tied:
            raise ValueError("the eager baseline has a tied readout; give a trial with tied=True.")
        torch.manual_seed(trial.seed)
        self.trial, self.device = trial, torch.device(device)
        self.model = EagerGPT(trial).to(device)
        data = torch.randint(VOCABULARY, (100_000,), dtype=torch.uint8) if tokens is None else torch.tensor(tokens)
        self.data = data.to(device)
        self.positions = torch.arange(trial.context + 1, device=device)
        self.loss = cast(
            Callable[[Tensor, Tensor], Tensor],
            torch.compile(self.model, mode=compiled) if compiled else self.model,
        )
        self.optimizer = torch.optim.AdamW(
            _groups(self.model), betas=(trial.beta1, trial.beta2), eps=trial.eps, fused=device == "cuda" or None
        )

    def step(self, step: int) -> Tensor:
        """One step on a random batch; its loss, which stays on the device."""
        starts = torch.randint(len(self.data) - self.trial.context, (self.trial.batch,), device=self.device)
        return self.step_on(self.data[starts[:, None] + self.positions].long(), step)

    def step_on(self, sequences: Tensor, step: int) -> Tensor:
        """One step on sequences of context + 1 tokens, (batch, context + 1)."""
        factor = lr_factor(self.trial, step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        with self._precision():
            loss = self.loss(sequences[:, :-1], sequences[:, 1:])
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), self.trial.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    @torch.no_grad()
    def evaluate(self, tokens: npt.NDArray[np.uint8]) -> float:
        """Mean loss of the trial's held-out sequences, nats/token: the ones that hpsweep measures on."""
        count = self.trial.eval_sequences
        starts = torch.arange(count) * (len(tokens) - 1) // count
        sequences = torch.tensor(tokens)[starts[:, None] + self.positions.cpu()].long().to(self.device)
        with self._precision():
            losses = [
                len(part) * self.model(part[:, :-1], part[:, 1:]) for part in torch.split(sequences, EVALUATED_TOGETHER)
            ]
        return float(sum(losses) / count)

    def _precision(self) -> contextlib.AbstractContextManager[None]:
        enabled = self.trial.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)


def _groups(model: EagerGPT) -> list[dict[str, object]]:
    """Three groups, each with one rate and one decay: hidden matrices, embeddings, gains."""
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        n = model.numbers[proxy_name(name)]
        which = "gains" if parameter.dim() == 1 else "hidden" if n.kind in SPARSE else "embeddings"
        group = groups.setdefault(which, {"params": [], "base_lr": n.lr, "lr": n.lr, "weight_decay": n.weight_decay})
        assert (group["base_lr"], group["weight_decay"]) == (n.lr, n.weight_decay)
        group["params"].append(parameter)
    return list(groups.values())


def main() -> None:
    """Train and evaluate the trial of the command line."""
    fields, train, validation = sys.argv[1:]
    torch.set_num_threads(1)
    trial = Trial(**json.loads(fields))
    eager = EagerTrial(trial, np.fromfile(Path(train), np.uint8))
    for step in range(trial.total_steps):
        eager.step(step)
    print(json.dumps({"val_loss": eager.evaluate(np.fromfile(Path(validation), np.uint8))}))


if __name__ == "__main__":
    main()
