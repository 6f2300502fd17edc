"""The torch engine: an ensemble trained together on a CPU or a GPU, each trial as if it were alone."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hpsweep.proxy import model
from hpsweep.proxy.data import Dataset, load_dataset, train_offsets, validation_windows, windows
from hpsweep.proxy.optimizer import Optimizer, clip_gradients, mask_gradients
from hpsweep.proxy.outcome import DIVERGED_FACTOR, Outcome, Progress, check_shapes, cpu_name, outcome
from hpsweep.proxy.schedule import schedule
from hpsweep.spec import Trial

CHECK_EVERY = {"cpu": 1, "cuda": 16}
"""Steps between looks at which trials have diverged; a look makes the GPU wait. No result depends on it."""


def train(trials: Sequence[Trial], *, device: str = "cpu", progress: Progress | None = None) -> Outcome:
    """Train the trials, which share one shape, together; rows in their order.

    No trial's result depends on its neighbours. When memory runs out the ensemble is halved. `progress` is
    called with (steps done, steps in all). Raises ValueError if the shapes differ or the data is unfit.
    """
    check_shapes(trials)
    data = load_dataset(trials[0].data)
    try:
        return _train(trials, data, torch.device(device), progress)
    except RuntimeError as error:
        if not out_of_memory(error) or len(trials) == 1:
            raise
    if device == "cuda":
        torch.cuda.empty_cache()
    middle = len(trials) // 2
    halves = [train(part, device=device, progress=progress) for part in (trials[:middle], trials[middle:])]
    return Outcome(
        rows=[row for half in halves for row in half.rows],
        curves={name: [*halves[0].curves[name], *halves[1].curves[name]] for name in halves[0].curves},
    )


def out_of_memory(error: RuntimeError) -> bool:
    """Whether the error says that memory ran out, on a GPU or a CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _train(trials: Sequence[Trial], data: Dataset, device: torch.device, progress: Progress | None) -> Outcome:
    started = time.perf_counter()
    first = trials[0]
    ensemble = Ensemble(trials, data, device)
    history = torch.full((first.total_steps, len(trials)), torch.nan, device=device)
    every = CHECK_EVERY.get(device.type, 16)
    looked = 0
    for step in range(first.total_steps):
        ensemble.step(step, history)
        if (step + 1) % every == 0 or step + 1 == first.total_steps:
            ensemble.drop_diverged(history[: step + 1], since=looked)
            looked = step + 1
            if not ensemble.members:
                break
            if progress is not None:
                progress(looked, first.total_steps)
    return outcome(
        trials,
        data,
        history.double().cpu().numpy(),
        ensemble.evaluate(),
        ensemble.diverged,
        device=device_name(device),
        engine="torch",
        torch_version=str(torch.__version__),
        ensemble_size=len(trials),
        seconds=(time.perf_counter() - started) / len(trials),
    )


class Ensemble:
    """The tensors of the trials that are still training; `members` are their places among all trials."""

    def __init__(self, trials: Sequence[Trial], data: Dataset, device: torch.device) -> None:
        self.trials, self.data, self.device = list(trials), data, device
        self.members = list(range(len(trials)))
        self.diverged: dict[int, int] = {}  # place among all trials -> step
        first = trials[0]
        self.parameters = {n: p.to(device) for n, p in model.initial_parameters(trials, data.vocabulary).items()}
        self.multipliers = model.Multipliers(*(m.to(device) for m in model.multipliers(trials, data.vocabulary)))
        self.masks = {n: m.to(device) for n, m in model.masks(trials, data.vocabulary).items()}
        self.optimizer = Optimizer(trials, self.parameters, data.vocabulary)
        self.offsets = {
            seed: train_offsets(data, seed=seed, steps=first.total_steps, batch=first.batch, context=first.context)
            for seed in {t.seed for t in trials}
        }

    def step(self, step: int, history: Float[Tensor, "step trial"]) -> None:
        """One optimizer step of every member; its training losses go into `history[step]`."""
        trials, first = [self.trials[i] for i in self.members], self.trials[0]
        drawn = {seed: windows(self.data.train, rows[step], first.context) for seed, rows in self.offsets.items()}
        inputs, targets = (
            torch.from_numpy(np.stack([drawn[t.seed][which] for t in trials])).to(self.device, non_blocking=True)
            for which in (0, 1)
        )
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)
        losses = self._losses(inputs, targets).mean(1)
        gradients = torch.autograd.grad(losses.sum(), list(self.parameters.values()))
        for parameter in self.parameters.values():
            parameter.requires_grad_(False)
        # torch's fused AdamW reads a gradient as if it were laid out like its parameter, whatever its strides
        # (seen in torch 2.13 on CPU), and the gradient of a transposed weight is not.
        by_name = {name: g.contiguous() for name, g in zip(self.parameters, gradients, strict=True)}
        mask_gradients(by_name, self.masks)
        norms = clip_gradients(by_name, first.clip)
        self.optimizer.step(by_name, schedule(first, step))
        history[step, self.members] = torch.where(norms.isfinite(), losses.detach(), torch.nan)

    def drop_diverged(self, history: Float[Tensor, "step trial"], *, since: int) -> None:
        """Let go of members whose losses from step `since` on say that they diverged, noting the step."""
        bad = beyond_limit(history[:, self.members], since, self.data.vocabulary)
        if not bool(bad.any()):
            return
        steps = (since + bad.int().argmax(0)).tolist()
        lost = bad.any(0).tolist()
        for member, step, gone in zip(self.members, steps, lost, strict=True):
            if gone:
                self.diverged[member] = step
        remaining = [i for i, gone in enumerate(lost) if not gone]
        self.members = [self.members[i] for i in remaining]
        self.parameters = {n: p[remaining] for n, p in self.parameters.items()}
        self.multipliers = model.Multipliers(*(m[remaining] for m in self.multipliers))
        self.masks = {n: m[remaining] for n, m in self.masks.items()}
        self.optimizer.keep(remaining, self.parameters)

    @torch.no_grad()
    def evaluate(self) -> dict[int, Float[np.ndarray, " sequence"]]:
        """Loss of every held-out sequence, nats/token, by the members' places among all trials."""
        if not self.members:
            return {}
        first = self.trials[0]
        inputs, targets = (
            torch.from_numpy(x) for x in validation_windows(self.data, first.eval_sequences, first.context)
        )
        size = 2 * first.batch
        chunks = [
            self._losses(self._for_all(inputs[i : i + size]), self._for_all(targets[i : i + size]))
            for i in range(0, first.eval_sequences, size)
        ]
        each = torch.cat(chunks, 1).double().cpu().numpy()
        return dict(zip(self.members, each, strict=True))

    def _for_all(self, ids: Int[Tensor, "batch context"]) -> Int[Tensor, "trial batch context"]:
        return ids.to(self.device).expand(len(self.members), *ids.shape)

    def _losses(
        self, inputs: Int[Tensor, "trial batch context"], targets: Int[Tensor, "trial batch context"]
    ) -> Float[Tensor, "trial batch"]:
        first = self.trials[0]
        with precision(first, self.device):
            return model.losses(self.parameters, self.multipliers, inputs, targets, head_size=first.head_size)


def beyond_limit(history: Float[Tensor, "step trial"], since: int, vocabulary: int) -> Bool[Tensor, "later trial"]:
    """Whether the loss of each step from `since` on says that the trial has diverged; not a number does too."""
    return ~(history[since:] <= DIVERGED_FACTOR * history[0].clamp(min=math.log(vocabulary)))


@contextlib.contextmanager
def precision(trial: Trial, device: torch.device) -> Iterator[None]:
    """bfloat16: products in bfloat16; weights, norms, losses and the optimizer in float32."""
    with torch.autocast(device.type, torch.bfloat16, enabled=trial.precision == "bfloat16"):
        yield


def device_name(device: torch.device) -> str:
    """The device as its maker names it."""
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else cpu_name()
