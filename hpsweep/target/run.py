"""The target run: one trial on one device or several, with checkpoints, into a results folder.

Model, optimizer, schedule, clipping, batches, masks and evaluation are the proxies', called from here.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hpsweep import store
from hpsweep.proxy import model
from hpsweep.proxy.data import Dataset, token_windows, train_offsets, validation_windows
from hpsweep.proxy.device import (
    check_gpu_has,
    device_name,
    evaluated_together,
    float32_products,
    in_halves,
    in_precision,
    keep_memory,
    let_go,
)
from hpsweep.proxy.ensemble_state import CHECK_EVERY, beyond_limit
from hpsweep.proxy.optimizer import Optimizer, clip_gradients, mask_gradients
from hpsweep.proxy.outcome import Outcome, check_precision, ensemble_outcome
from hpsweep.proxy.schedule import lr_factor
from hpsweep.spec import Trial
from hpsweep.sweep.datasets import check_hashes
from hpsweep.sweep.provenance import provenance_columns
from hpsweep.target.checkpoint import (
    Identity,
    Like,
    State,
    checkpoint_path,
    load_checkpoint,
    mask_hash,
    optimizer_moments,
    restore_moments,
    save_checkpoint,
)
from hpsweep.target.memory import (
    OUT_OF_MEMORY_IN_CHECKPOINT,
    check_memory,
    memory_for,
    out_of_memory_before_steps,
    out_of_memory_in_steps,
)
from hpsweep.target.module import ReferenceGPT
from hpsweep.target.ranks import Ranks, connected_ranks, process_count

Progress = Callable[[int, int, float], None]
"""Told steps taken, steps in all, and the last training loss (nats/token)."""


def check_split(trial: Trial, accumulate: int, checkpoint_every: int | None) -> None:
    """Raise ValueError where the batch cannot be split over the processes and parts, or a number is below 1."""
    for name, given in (("accumulate", accumulate), ("checkpoint-every", checkpoint_every)):
        if given is not None and given < 1:
            raise ValueError(f"--{name} is {given}; give a whole number of at least 1.")
    if trial.batch % (process_count() * accumulate):
        raise ValueError(
            f"batch {trial.batch} cannot be split over {process_count()} processes x {accumulate} parts "
            "(--accumulate); their product has to divide it."
        )


def train_target(
    trial: Trial,
    data: Dataset,
    folder: str | Path,
    *,
    device: str = "auto",
    compiled: bool = False,
    accumulate: int = 1,
    checkpoint_every: int | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Train the trial, going on from its checkpoint in `folder` if there is one; returns the row that is stored there.

    Under torchrun every process takes its part of each batch; the first one writes. A trial that is stored already is
    not trained again. `accumulate`: parts that a process takes one after another; `checkpoint_every`: steps, by default
    a twentieth of all. Raises ValueError for a folder in use or unusable, rows of other data, a checkpoint that is not
    this run's, a trial that cannot fit into the GPU's memory, before any work, and when memory runs out.
    """
    check_split(trial, accumulate, checkpoint_every)
    folder = Path(folder)
    with connected_ranks(device) as here, contextlib.ExitStack() as opened:
        check_precision(trial.precision, here.device.type)
        check_gpu_has(trial.precision, here.device)
        problem, row, held = None, None, None
        if here.first:
            problem, row, held = _begin(trial, data, folder, opened)
        problem, row = here.from_first((problem, row))
        if problem:
            raise ValueError(problem)
        if row:
            say(f"{folder} has this run already ({row['status']}).")
            return dict(row)
        check_memory(trial, data.vocabulary, here.device)
        with memory_for(out_of_memory_before_steps(trial, data.vocabulary)):
            run = Run(trial, data, here, compiled=compiled, accumulate=accumulate)
            path = checkpoint_path(folder, trial)
            saved = load_checkpoint(path, run.identity, run.like())
            if saved:
                run.restore(saved)
                say(f"goes on from step {run.steps_taken} of {trial.total_steps} ({path}).")
        here.agree(masks=run.identity.mask_hash, data=data.data_hash, step=run.steps_taken)
        every = checkpoint_every or max(1, trial.total_steps // 20)
        with memory_for(out_of_memory_in_steps(trial, data.vocabulary, trial.batch // (here.size * accumulate))):
            if held is None:
                result = run.train(path, every, progress)
            else:
                with held.writing() as kept:
                    result = run.train(checkpoint_path(kept, trial), every, _checking(held, progress))
        row = {**provenance_columns(optuna=False), "attempts": 1, **result.rows[0]}
        if held is not None:
            with held.writing() as kept:
                store.append(kept, [row], result.curves)
        return row


def _checking(held: store.Held, progress: Progress | None) -> Progress:
    """The progress, which raises FolderLost where the folder has been moved or removed."""

    def advance(taken: int, steps: int, loss: float) -> None:
        held.check()
        if progress is not None:
            progress(taken, steps, loss)

    return advance


def _begin(
    trial: Trial, data: Dataset, folder: Path, opened: contextlib.ExitStack
) -> tuple[str | None, dict[str, Any] | None, store.Held | None]:
    """Hold the folder; returns what is wrong with it, in one line, or the row of this trial if it has been trained."""
    try:
        store.check_folder(folder, folder.name)
        held = opened.enter_context(store.lock(folder))
        if held.stale:
            warnings.warn(f"taking over from {held.stale}, which died.", stacklevel=2)
        stored = store.read_runs(folder).to_pylist()
        check_hashes(folder, stored, {trial.data: data})
    except ValueError as error:
        return str(error).replace("--results", "--out"), None, None
    for row in stored:
        if row["trial_id"] == trial.trial_id and row["status"] in store.DONE:
            return None, row, held
    return None, None, held


class Run:
    """The model, optimizer and losses of a run between its steps, in one of its processes."""

    def __init__(self, trial: Trial, data: Dataset, here: Ranks, *, compiled: bool, accumulate: int) -> None:
        if here.device.type == "cpu":
            keep_memory()
        self.trial = trial
        self.data = data
        self.here = here
        self.accumulate = accumulate
        self.masks = model.hidden_masks([trial], data.vocabulary, here.device)
        self.module = ReferenceGPT(trial, data.vocabulary, here.device, self.masks)
        self.parameters = self.module.parameters_by_name()
        self.identity = Identity(trial, data.data_hash, mask_hash(self.masks))
        self.optimizer = Optimizer([trial], self.parameters, data.vocabulary)
        self.offsets = train_offsets(
            data, seed=trial.seed, steps=trial.total_steps, batch=trial.batch, context=trial.context
        )
        if compiled:
            self.module.compile()
        self.call: nn.Module = self.module
        if here.size > 1:
            devices = None
            if here.device.type == "cuda":
                devices = [here.device]
            # gradients lie in the buckets that are sent, and not in a second copy of them
            self.call = DistributedDataParallel(self.call, device_ids=devices, gradient_as_bucket_view=True)
        parts = ["torch target"]
        if here.size > 1:
            parts.append(f"{here.size} processes")
        if accumulate > 1:
            parts.append(f"{accumulate} parts")
        if compiled:
            parts.append("compiled")
        self.engine = ", ".join(parts)
        self.train_losses = torch.full((trial.total_steps, 1), torch.nan, device=here.device)
        self.steps_taken = 0
        self.seconds = 0.0  # of training, before this process too

    def state(self) -> State:
        """All that the next step depends on, beside the trial, on the CPU."""
        weights = {name: tensor[0].cpu() for name, tensor in self.parameters.items()}
        losses = self.train_losses[: self.steps_taken, 0].cpu()
        kept = {
            n: {key: value.cpu() for key, value in own.items()} for n, own in optimizer_moments(self.optimizer).items()
        }
        return State(self.steps_taken, weights, kept, losses, self.seconds)

    def like(self) -> Like:
        """The tensors whose names, shapes and types a checkpoint of this run has to have."""
        weights = {name: tensor[0] for name, tensor in self.parameters.items()}
        return Like(weights, optimizer_moments(self.optimizer), {name: mask[0] for name, mask in self.masks.items()})

    def restore(self, saved: State) -> None:
        """Set weights, moments, losses and step to those of `saved`."""
        for name, tensor in self.parameters.items():
            tensor[0].copy_(saved.weights[name])
        restore_moments(self.optimizer, saved.moments)
        self.train_losses[: saved.step, 0] = saved.train_losses.to(self.here.device)
        self.steps_taken = saved.step
        self.seconds = saved.seconds

    def train(self, path: Path, checkpoint_every: int, progress: Progress | None) -> Outcome:
        """Take the steps that are left, with a checkpoint now and then and after the last one; then evaluate."""
        started = time.perf_counter()
        before = self.seconds
        trial = self.trial
        device = self.here.device
        look_every = CHECK_EVERY.get(device.type, 16)
        looked = self.steps_taken
        diverged: dict[int, int] = {}
        while self.steps_taken < trial.total_steps and not diverged:
            self.step()
            taken = self.steps_taken
            keep = taken % checkpoint_every == 0 or taken == trial.total_steps
            if not (keep or taken % look_every == 0):
                continue
            bad = beyond_limit(self.train_losses[:taken], looked, self.data.vocabulary)
            if bool(bad.any()):
                diverged[0] = looked + int(bad.int().argmax())
                break
            looked = taken
            self.seconds = before + time.perf_counter() - started
            if keep and self.here.first:
                self.check_zeros()
                with memory_for(OUT_OF_MEMORY_IN_CHECKPOINT):
                    save_checkpoint(path, self.identity, self.state())
            if progress is not None:
                progress(taken, trial.total_steps, float(self.train_losses[taken - 1]))
        train_losses = self.train_losses.double().cpu().numpy()
        validation = {}
        if not diverged:
            validation[0] = self.evaluate()
        return ensemble_outcome(
            [trial],
            self.data,
            train_losses,
            validation,
            diverged,
            device=device_name(device),
            engine=self.engine,
            torch_version=str(torch.__version__),
            ensemble_size=1,
            seconds=before + time.perf_counter() - started,
        )

    def step(self) -> None:
        """One optimizer step. Every process takes its part of the batch; gradients are the mean over all of it."""
        step = self.steps_taken
        trial = self.trial
        parts = self.offsets[step].reshape(self.here.size, self.accumulate, -1)[self.here.rank]
        total = torch.zeros(1, device=self.here.device)
        for number, offsets in enumerate(parts, 1):
            inputs, targets = (
                torch.from_numpy(ids).to(self.here.device, non_blocking=True)
                for ids in token_windows(self.data.train, offsets, trial.context)
            )
            with self._reduced(last=number == len(parts)), float32_products(self.here.device, trial.precision):
                with in_precision(trial, self.here.device):
                    losses = self.call(inputs, targets).mean(1) / len(parts)
                losses.sum().backward()
            total += losses.detach()
        gradients = {}
        for name, weight in zip(self.module.names, self.module.weights, strict=True):
            assert weight.grad is not None
            gradients[name] = weight.grad.contiguous()  # see proxy.ensemble_state on why contiguous
            weight.grad = None
        mask_gradients(gradients, self.masks)
        norms = clip_gradients(gradients, trial.clip)
        factor = torch.tensor(lr_factor(trial, step)).to(self.here.device, non_blocking=True)
        self.optimizer.step(gradients, factor)
        known = torch.where(norms.isfinite(), total, torch.nan)
        self.train_losses[step] = self.here.sum(known) / self.here.size
        self.steps_taken += 1

    def _reduced(self, *, last: bool) -> contextlib.AbstractContextManager[None]:
        """Gradients are averaged over the processes once a step, with its last part."""
        if isinstance(self.call, DistributedDataParallel) and not last:
            return self.call.no_sync()
        return contextlib.nullcontext()

    @torch.no_grad()
    def evaluate(self) -> Float[np.ndarray, " sequence"]:
        """Loss of every held-out sequence, nats/token: those of the proxies' evaluation, spread over the processes."""
        trial = self.trial
        here = self.here
        windows = validation_windows(self.data, trial.eval_sequences, trial.context)
        inputs, targets = map(torch.from_numpy, windows)
        each = torch.zeros(trial.eval_sequences, dtype=torch.float64, device=here.device)
        in_a_step = trial.batch // (here.size * self.accumulate)
        size = evaluated_together(in_a_step, 1, trial.context, self.data.vocabulary, here.device)

        def losses(some: slice) -> Tensor:
            with float32_products(here.device, trial.precision), in_precision(trial, here.device):
                # not compiled: other sizes would be compiled anew
                return self.module.forward(inputs[some].to(here.device), targets[some].to(here.device))[0]

        let_go(here.device)
        for number, start in enumerate(range(0, trial.eval_sequences, size)):
            if number % here.size == here.rank:
                some = slice(start, min(start + size, trial.eval_sequences))
                each[some] = in_halves(losses, some, 0, here.device).double()
        return here.sum(each).cpu().numpy()

    def check_zeros(self) -> None:
        """Raise RuntimeError where a weight that does not exist is not exactly zero."""
        for name, kept in self.masks.items():
            if bool(self.parameters[name].masked_fill(kept, 0.0).any()):
                raise RuntimeError(f"masked weights of {name} are not zero after step {self.steps_taken}.")
