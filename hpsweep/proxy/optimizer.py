"""AdamW with learning rates and weight decays per trial and per tensor.

The update itself is torch.optim.AdamW's: every trial's slice of a tensor is a parameter of its own, and the
slices of one trial that share a learning rate and a decay are one parameter group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hpsweep.parametrization.rules import tensor_numbers
from hpsweep.proxy.model import Parameters
from hpsweep.spec import Trial


def mask_gradients(gradients: Parameters, masks: Mapping[str, Bool[Tensor, "trial fan_out fan_in"]]) -> None:
    """Zero the gradient of weights that do not exist, so that they take no part in norms, clipping or steps."""
    for name, kept in masks.items():
        gradients[name].mul_(kept)


def clip_gradients(gradients: Parameters, limit: float) -> Float[Tensor, " trial"]:
    """Scale each trial's gradient down to norm `limit`; returns the norms before (torch.nn.utils' formula)."""
    norms = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients.values()])
    total: Tensor = torch.linalg.vector_norm(norms, dim=0)
    factor = (limit / (total + 1e-6)).clamp(max=1.0)
    for gradient in gradients.values():
        gradient.mul_(factor.view(-1, *[1] * (gradient.dim() - 1)))
    return total


class Optimizer:
    """AdamW over the tensors of an ensemble; trials can leave it between steps."""

    def __init__(self, trials: Sequence[Trial], parameters: Parameters, vocabulary: int) -> None:
        first = trials[0]
        self.adamw = torch.optim.AdamW(
            [group for i, t in enumerate(trials) for group in _groups(t, i, parameters, vocabulary)],
            lr=first.lr,
            betas=(first.beta1, first.beta2),
            eps=first.eps,
            fused=True,
        )

    def step(self, gradients: Parameters, factor: float) -> None:
        """One AdamW step of every trial, all learning rates multiplied by `factor`."""
        for group in self.adamw.param_groups:
            group["lr"] = group["base_lr"] * factor
            for name, parameter in zip(group["names"], group["params"], strict=True):
                parameter.grad = gradients[name][group["trial"]]
        self.adamw.step()

    def keep(self, remaining: Sequence[int], parameters: Parameters) -> None:
        """Let the other trials go: `remaining` are their old indices, `parameters` their tensors from now on."""
        groups = []
        for group in self.adamw.param_groups:
            if group["trial"] not in remaining:
                for parameter in group["params"]:
                    self.adamw.state.pop(parameter, None)
                continue
            group["trial"] = remaining.index(group["trial"])
            moved = [parameters[name][group["trial"]] for name in group["names"]]
            for old, new in zip(group["params"], moved, strict=True):
                if old in self.adamw.state:
                    self.adamw.state[new] = self.adamw.state.pop(old)
            group["params"] = moved
            groups.append(group)
        self.adamw.param_groups = groups


def _groups(trial: Trial, index: int, parameters: Parameters, vocabulary: int) -> list[dict[str, object]]:
    """Parameter groups of one trial: its slices, by learning rate and decay; together they hold every tensor."""
    numbers = tensor_numbers(trial, vocabulary)
    assert numbers.keys() == parameters.keys()
    by_rate: dict[tuple[float, float], list[str]] = {}
    for name, n in numbers.items():
        by_rate.setdefault((n.lr, n.weight_decay), []).append(name)
    return [
        {
            "params": [parameters[name][index] for name in names],
            "names": names,
            "trial": index,
            "base_lr": lr,
            "weight_decay": weight_decay,
        }
        for (lr, weight_decay), names in by_rate.items()
    ]
