"""AdamW with learning rates and weight decays per trial and per tensor.

The update itself is torch's AdamW: every trial's slice of a tensor is a parameter of its own, and the slices of one
trial that share a learning rate and a decay are updated in one call, by torch's function rather than its class, whose
import and bookkeeping cost more than the update of a small model. Rates are tensors, so that a step can be captured in
a CUDA graph.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hpsweep.proxy.model import Parameters
from hpsweep.rules.multipliers import tensor_numbers
from hpsweep.spec import Trial

_adamw = importlib.import_module("torch.optim.adamw").adamw  # torch.optim hides the module of this name


def mask_gradients(gradients: Parameters, masks: Mapping[str, Bool[Tensor, "trial fan_out fan_in"]]) -> None:
    """Zero the gradient of weights that do not exist, so that they take no part in norms, clipping or steps."""
    for name, kept in masks.items():
        gradients[name].mul_(kept)


def clip_gradients(gradients: Parameters, limit: float) -> Float[Tensor, " trial"]:
    """Scale each trial's gradient down to norm `limit`; returns the norms before (torch.nn.utils' formula)."""
    norms = [torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients.values()]
    total: Tensor = torch.linalg.vector_norm(torch.stack(norms, 1), dim=1)
    factor = (limit / (total + 1e-6)).clamp(max=1.0)
    for gradient in gradients.values():
        gradient.mul_(factor.view(-1, *[1] * (gradient.dim() - 1)))
    return total


def stacked_update(
    parameters: Parameters,
    gradients: Parameters,
    masks: Mapping[str, Bool[Tensor, "trial fan_out fan_in"]],
    exp_avg: Parameters,
    exp_avg_sq: Parameters,
    rates: Mapping[str, Float[Tensor, " trial"]],
    decays: Mapping[str, Float[Tensor, " trial"]],
    factor: Float[Tensor, ""],
    steps: Float[Tensor, " 1"],
    *,
    clip: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> Float[Tensor, " trial"]:
    """Mask and clip the gradients and take a step of AdamW, all trials at once; returns the norms before clipping.

    The numbers are those of `Optimizer.step`, but there are as many operations for one trial as for many. All rates are
    multiplied by `factor`. `steps` are those taken with this one, in float64, as 1 - beta2 ** steps is small at first.
    """
    mask_gradients(gradients, masks)
    # by column first: of folded parameters the gradients of gains are sums along columns too, in the same pass
    columns = [torch.linalg.vector_norm(g, dim=1).view(len(g), -1) for g in gradients.values()]
    norms: Tensor = torch.linalg.vector_norm(torch.cat(columns, 1), dim=1)
    clipped = (clip / (norms + 1e-6)).clamp(max=1.0)
    # Bias corrections of both moments.
    first = (1 - beta1**steps).float()
    second = (1 - beta2**steps).float()
    root = second.sqrt()
    rate = torch.stack(list(rates.values())) * factor  # (tensor, trial)
    kept = 1 - rate * torch.stack(list(decays.values()))
    ahead = rate * (root / first)
    for name, of_kept, of_ahead in zip(rates, kept.unbind(), ahead.unbind(), strict=True):
        p = parameters[name]
        m = exp_avg[name]
        v = exp_avg_sq[name]
        per_trial = (-1, *[1] * (p.dim() - 1))
        g = gradients[name].mul_(clipped.view(per_trial))
        m.lerp_(g, 1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        # rate m / first / (sqrt(v / second) + eps), with the numbers of whole trials taken out of the passes
        direction = m / v.sqrt().add_(eps * root)
        p.mul_(of_kept.view(per_trial)).addcmul_(direction, of_ahead.view(per_trial), value=-1)
    return norms


@dataclass(frozen=True, kw_only=True)
class Moments:
    """What AdamW keeps of a tensor."""

    step: Float[Tensor, " trial"]
    exp_avg: Float[Tensor, "trial ..."]
    exp_avg_sq: Float[Tensor, "trial ..."]


@dataclass(frozen=True, kw_only=True)
class _Group:
    """The tensors of one trial that share a learning rate and a decay."""

    trial: int
    names: Sequence[str]
    lr: float  # before the schedule
    weight_decay: float


class Optimizer:
    """AdamW over the tensors of an ensemble; trials can leave it between steps."""

    def __init__(self, trials: Sequence[Trial], parameters: Parameters, vocabulary: int) -> None:
        self.first = trials[0]
        self.device = next(iter(parameters.values())).device
        self.moments = {
            name: Moments(
                step=torch.zeros(len(trials), device=p.device),
                exp_avg=torch.zeros_like(p),
                exp_avg_sq=torch.zeros_like(p),
            )
            for name, p in parameters.items()
        }
        numbers = [tensor_numbers(trial, vocabulary) for trial in trials]
        self.lr = {name: torch.tensor([n[name].lr for n in numbers], device=self.device) for name in parameters}
        self.decay = {
            name: torch.tensor([n[name].weight_decay for n in numbers], device=self.device) for name in parameters
        }
        groups = []
        for i, trial in enumerate(trials):
            groups += _groups(trial, i, vocabulary)
        self._work_on(groups, parameters)

    def _work_on(self, groups: Sequence[_Group], parameters: Parameters) -> None:
        self.groups = groups
        self.base_rates = torch.tensor([group.lr for group in groups], device=self.device)
        self.rates = torch.empty_like(self.base_rates)
        self.slices = [
            [
                [parameters[name][group.trial] for name in group.names],
                *([getattr(self.moments[name], what)[group.trial] for name in group.names] for what in _MOMENTS),
            ]
            for group in groups
        ]

    def step(self, gradients: Parameters, factor: Float[Tensor, ""]) -> None:
        """One AdamW step of every trial, all learning rates multiplied by `factor`; gradients are contiguous."""
        torch.mul(self.base_rates, factor, out=self.rates)
        by_trial = {name: gradient.unbind() for name, gradient in gradients.items()}
        for group, rate, (weights, exp_avg, exp_avg_sq, steps) in zip(
            self.groups, self.rates.unbind(), self.slices, strict=True
        ):
            _adamw(
                weights,
                [by_trial[name][group.trial] for name in group.names],
                exp_avg,
                exp_avg_sq,
                [],
                steps,
                fused=True,
                amsgrad=False,
                maximize=False,
                lr=rate,
                weight_decay=group.weight_decay,
                beta1=self.first.beta1,
                beta2=self.first.beta2,
                eps=self.first.eps,
            )

    def keep(self, remaining: Sequence[int], parameters: Parameters) -> None:
        """Let the other trials go: `remaining` are their old indices, `parameters` their tensors from now on."""
        self.moments = {
            name: Moments(**{what: getattr(moments, what)[list(remaining)] for what in _MOMENTS})
            for name, moments in self.moments.items()
        }
        self.lr, self.decay = (
            {name: numbers[list(remaining)] for name, numbers in each.items()} for each in (self.lr, self.decay)
        )
        kept = [replace(g, trial=remaining.index(g.trial)) for g in self.groups if g.trial in remaining]
        self._work_on(kept, parameters)


_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def _groups(trial: Trial, index: int, vocabulary: int) -> list[_Group]:
    """The tensors of one trial by learning rate and decay; together they are all of them."""
    by_rate: dict[tuple[float, float], list[str]] = {}
    for name, n in tensor_numbers(trial, vocabulary).items():
        by_rate.setdefault((n.lr, n.weight_decay), []).append(name)
    return [
        _Group(trial=index, names=names, lr=lr, weight_decay=weight_decay)
        for (lr, weight_decay), names in by_rate.items()
    ]
