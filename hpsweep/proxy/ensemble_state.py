"""The tensors of an ensemble that trains, and its steps.

A step is one function of tensors on the device: batches, learning rates, the schedule's factor and the place in the
history are tensors too. A CPU runs it; a GPU replays it as one CUDA graph and is waited for only every CHECK_EVERY
steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hpsweep.proxy import compile_choice, gpu_step, model
from hpsweep.proxy.batches import Batches
from hpsweep.proxy.data import Dataset, validation_windows
from hpsweep.proxy.device import (
    Captured,
    evaluated_together,
    float32_products,
    in_halves,
    in_precision,
    keep_memory,
    let_go,
    on_device,
)
from hpsweep.proxy.divergence import loss_limit
from hpsweep.proxy.optimizer import Optimizer, clip_gradients, mask_gradients
from hpsweep.proxy.schedule import lr_factor
from hpsweep.spec import Trial

CHECK_EVERY = {"cpu": 1, "cuda": 16}
"""Steps between looks at which trials have diverged; a look makes the GPU wait. No result depends on it."""

SHRINK_AT = {"cpu": 1.0, "cuda": 0.5}
"""An ensemble is made smaller when trials have diverged and no more than this share of it is left: a GPU has to
capture its step anew. Until then they stay, which no neighbour notices. No result depends on it."""

STACKED = {"cpu": False, "cuda": True}
"""Whether a step is gpu_step's, which makes as many launches for one trial as for many. On a CPU torch's fused AdamW is
faster, as it reads a weight once. No result depends on it but for rounding."""


class Ensemble:
    """The tensors of the trials that are still training; `members` are their places among all trials."""

    def __init__(self, trials: Sequence[Trial], data: Dataset, device: torch.device) -> None:
        if device.type == "cpu":
            keep_memory()
        self.trials = list(trials)
        self.data = data
        self.device = device
        self.members = list(range(len(trials)))
        self.diverged: dict[int, int] = {}  # place among all trials -> step
        self.masks = model.hidden_masks(trials, data.vocabulary, device)
        self.parameters = model.initial_parameters(trials, data.vocabulary, device, kept=self.masks)
        self.multipliers = model.Multipliers(
            *(m.to(device) for m in model.forward_multipliers(trials, data.vocabulary))
        )
        self.optimizer = Optimizer(trials, self.parameters, data.vocabulary)
        self.batches = Batches(trials, data, device)
        self.number = torch.zeros(1, dtype=torch.int64, device=device)  # of the step
        self.factor = torch.ones((), device=device)  # of the learning rates, by the schedule
        self.history = torch.empty(0)
        self.take_step: gpu_step.Step = gpu_step.stacked_step
        self.cannot_compile = gpu_step.compiler_failed()
        self.engine = "torch"
        self.timed: tuple[int, float, object] | None = None  # steps done, when, by which graph
        self._begin()

    def _begin(self) -> None:
        self.columns = torch.tensor(self.members, device=self.device)
        self.captured: Captured | None = None
        if self.device.type == "cuda":
            self.captured = Captured()

    def step(self, step: int, history: Float[Tensor, "step trial"]) -> None:
        """One optimizer step of every member; its training losses go into `history[step]`."""
        if history is not self.history:
            self.history = history
            self._begin()
        self.batches.hold(step)
        self.number.fill_(step)
        self.factor.fill_(lr_factor(self.trials[0], step))
        with on_device(self.device), float32_products(self.device, self.trials[0].precision):
            if self.captured is None:
                self._update()
            else:
                self.captured.call(self._update)

    def _update(self) -> None:
        """The step whose number the device knows: nothing here asks the device for a value."""
        inputs, targets = self.batches.current()
        if STACKED.get(self.device.type, True):
            losses = self._stacked(inputs, targets)
        else:
            losses = self._one_by_one(inputs, targets)
        self.history.index_put_((self.number, self.columns), losses)

    def _stacked(
        self, inputs: Int[Tensor, "trial batch context"], targets: Int[Tensor, "trial batch context"]
    ) -> Float[Tensor, " trial"]:
        return self.take_step(*self._of_step(inputs, targets))

    def _of_step(self, inputs: Tensor, targets: Tensor) -> tuple[Any, ...]:
        """The arguments of gpu_step.stacked_step."""
        moments = self.optimizer.moments
        tensors = gpu_step.Tensors(
            parameters=self.parameters,
            exp_avg={name: each.exp_avg for name, each in moments.items()},
            exp_avg_sq={name: each.exp_avg_sq for name, each in moments.items()},
            masks=self.masks,
            lr=self.optimizer.lr,
            decay=self.optimizer.decay,
            multiply=self.multipliers,
        )
        return tensors, inputs, targets, self.factor, self.number, gpu_step.shared_constants(self.trials[0])

    def compile_if_it_pays(self, done: int, alive: Callable[[], None]) -> None:
        """Compile the step of a GPU once that is known to pay, by how long the last steps took; `done`: steps so far.

        To be called now and then, when no step is under way. A graph of uncompiled steps is captured anew then.
        """
        if self.captured is None or self.take_step is not gpu_step.stacked_step or self.cannot_compile:
            return
        now = (done, time.perf_counter(), self.captured.graph)
        before = self.timed
        self.timed = now
        each = 0.0  # seconds of a step, where they are known
        if before is not None and before[2] is not None and before[2] is now[2]:  # replays of one graph since
            each = (now[1] - before[1]) / (now[0] - before[0])
        if not compile_choice.compiling_pays(each * (self.trials[0].total_steps - done)):
            return
        self._begin()  # without the graph, whose memory nothing else could use
        let_go(self.device)
        with on_device(self.device), float32_products(self.device, self.trials[0].precision):
            self.take_step = gpu_step.compiled_step(*self._of_step(*self.batches.current()), alive=alive)
        self.cannot_compile = self.take_step is gpu_step.stacked_step
        if not self.cannot_compile:
            self.engine = "torch, compiled"

    def _one_by_one(
        self, inputs: Int[Tensor, "trial batch context"], targets: Int[Tensor, "trial batch context"]
    ) -> Float[Tensor, " trial"]:
        def of(parameters: model.Parameters) -> Float[Tensor, " trial"]:
            return self._losses(inputs, targets, parameters).mean(1)

        losses, found = gpu_step.with_gradients(of, self.parameters)
        # torch's fused AdamW reads a gradient as if it were laid out like its parameter, whatever its strides
        # (seen in torch 2.13 on CPU), and the gradient of a transposed weight is not.
        gradients = {name: g.contiguous() for name, g in found.items()}
        mask_gradients(gradients, self.masks)
        norms = clip_gradients(gradients, self.trials[0].clip)
        self.optimizer.step(gradients, self.factor)
        return torch.where(norms.isfinite(), losses, torch.nan)

    def drop_diverged(self, history: Float[Tensor, "step trial"], *, since: int) -> None:
        """Note the step of members whose losses from step `since` on say that they diverged; let go of them."""
        bad = beyond_limit(history[:, self.members], since, self.data.vocabulary)
        if not bool(bad.any()):
            return
        steps = (since + bad.int().argmax(0)).tolist()
        for member, step, gone in zip(self.members, steps, bad.any(0).tolist(), strict=True):
            if gone:
                self.diverged.setdefault(member, step)
        remaining = [i for i, member in enumerate(self.members) if member not in self.diverged]
        if len(remaining) <= SHRINK_AT.get(self.device.type, 0.5) * len(self.members):
            self._keep(remaining)

    def _keep(self, remaining: list[int]) -> None:
        self.members = [self.members[i] for i in remaining]
        self.take_step = gpu_step.stacked_step  # compiled for these sizes alone
        self._begin()
        self.parameters = {n: p[remaining] for n, p in self.parameters.items()}
        self.multipliers = model.Multipliers(*(m[remaining] for m in self.multipliers))
        self.masks = {n: m[remaining] for n, m in self.masks.items()}
        self.optimizer.keep(remaining, self.parameters)
        self.batches.keep(remaining)

    @torch.no_grad()
    def evaluate(self, alive: Callable[[], None] = lambda: None) -> dict[int, Float[np.ndarray, " sequence"]]:
        """Loss of every held-out sequence, nats/token, by the places of those that train among all trials.

        `alive` is called between batches of sequences.
        """
        if not self.members:
            return {}
        self.captured = None  # its graph holds the memory of a step
        let_go(self.device)
        first = self.trials[0]
        members = len(self.members)
        inputs, targets = (
            torch.from_numpy(x) for x in validation_windows(self.data, first.eval_sequences, first.context)
        )
        size = evaluated_together(first.batch, members, first.context, self.data.vocabulary, self.device)
        chunks = []
        with float32_products(self.device, first.precision):
            for start in range(0, first.eval_sequences, size):
                ids, following = (x[start : start + size].to(self.device) for x in (inputs, targets))
                chunks.append(self._held_out(ids, following))
                alive()
        each = torch.cat(chunks, 1).double().cpu().numpy()
        by_member = dict(zip(self.members, each, strict=True))
        return {member: losses for member, losses in by_member.items() if member not in self.diverged}

    def _held_out(
        self, inputs: Int[Tensor, "batch context"], targets: Int[Tensor, "batch context"]
    ) -> Float[Tensor, "trial batch"]:
        """Loss of every sequence in every trial; of fewer trials and sequences at a time where memory runs out."""
        first = self.trials[0]
        here = self.device

        def losses(members: slice, some: slice) -> Tensor:
            parameters = {name: parameter[members] for name, parameter in self.parameters.items()}
            multipliers = model.Multipliers(*(m[members] for m in self.multipliers))
            count = len(multipliers.readout)  # trials
            ids = inputs[some].expand(count, -1, -1)
            following = targets[some].expand(count, -1, -1)
            with in_precision(first, here):
                return model.sequence_losses(parameters, multipliers, ids, following, head_size=first.head_size)

        def of_all(some: slice) -> Tensor:
            return in_halves(lambda members: losses(members, some), slice(0, len(self.members)), 0, here)

        return in_halves(of_all, slice(0, len(inputs)), 1, here)

    def _losses(
        self,
        inputs: Int[Tensor, "trial batch context"],
        targets: Int[Tensor, "trial batch context"],
        parameters: model.Parameters | None = None,
    ) -> Float[Tensor, "trial batch"]:
        first = self.trials[0]
        with in_precision(first, self.device):
            return model.sequence_losses(
                parameters or self.parameters, self.multipliers, inputs, targets, head_size=first.head_size
            )


def beyond_limit(history: Float[Tensor, "step trial"], since: int, vocabulary: int) -> Bool[Tensor, "later trial"]:
    """Whether the loss of each step from `since` on says that the trial has diverged; not a number does too."""
    limits: Float[Tensor, " trial"] = loss_limit(history[0], vocabulary)
    return ~(history[since:] <= limits)
