"""hpsweep's training loop for a module of the user's own: one trial after the other, each alone.

Optimizer, schedule, clipping, precision, divergence and evaluation are those of the built-in GPT.
"""

from __future__ import annotations

import contextlib
import fnmatch
import importlib.metadata
import inspect
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpsweep.own_training.batches import Batch, Batches, batches_of, moved
from hpsweep.own_training.build import Built, built, seed_all, size_columns, with_base_heads
from hpsweep.own_training.code import code_hash, code_hashes, loaded_function
from hpsweep.proxy.device import device_name, float32_products, in_precision, keep_memory
from hpsweep.proxy.divergence import loss_limit
from hpsweep.proxy.outcome import Finished, Outcome, Progress, ensemble_outcome
from hpsweep.proxy.schedule import lr_factor
from hpsweep.schemes import scales
from hpsweep.spec import Model, Source, Trial, trial_from_row

LOOK_EVERY = 16
"""Steps between looks at the losses, which a GPU waits for."""


def train_model(
    trials: Sequence[Trial],
    *,
    model: Mapping[str, Any],
    hashed: Mapping[str, Any] | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    finished: Finished | None = None,
) -> Outcome:
    """Train a module of the user's own for each trial; `model` is the Model as plain data.

    `hashed` are the fields of the trial whose batches are hashed, where they are the user's own; see `batches_of`.

    Rows and curves are in the trials' order. Raises ValueError where the module, its batches or its losses are not what
    they must be, and what the user's functions raise.
    """
    found = Model.from_dict(model)
    of_hash = trial_from_row(hashed) if hashed else None
    outcomes: list[Outcome] = []
    for number, trial in enumerate(trials, 1):
        outcomes.append(_train_one(found, trial, of_hash, torch.device(device), progress))
        if finished is not None and number < len(trials):
            finished(outcomes[-1])
    names = outcomes[0].curves
    curves = {name: [value for each in outcomes for value in each.curves[name]] for name in names}
    return Outcome(rows=[row for each in outcomes for row in each.rows], curves=curves)


def _train_one(
    model: Model, trial: Trial, hashed: Trial | None, device: torch.device, progress: Progress | None
) -> Outcome:
    started = time.perf_counter()
    if device.type == "cpu":
        keep_memory()
    code = code_hash(code_hashes(model.sources))
    batches = batches_of(model, trial, hashed)
    made = built(model, trial, batches.vocabulary)
    module = made.module.to(device)
    made = wired(made, model, trial, batches.vocabulary, moved(next(iter(batches.train(trial))), device))
    optimizer = adamw(made, trial)
    made.plan.attach(module, optimizer)
    seed_all(trial.seed)
    losses, diverged = _train_steps(model, module, optimizer, trial, batches, device, progress)
    validation = {}
    if diverged is None:
        validation[0] = held_out_losses(model, module, trial, batches, device)
    return ensemble_outcome(
        [trial],
        batches,
        losses[:, None],
        validation,
        {} if diverged is None else {0: diverged},
        sizes=lambda each: size_columns(made.plan, each),
        code_hash=code,
        device=device_name(device),
        engine="torch",
        torch_version=importlib.metadata.version("torch"),
        ensemble_size=1,
        seconds=time.perf_counter() - started,
    )


def wired(made: Built, model: Model, trial: Trial, vocabulary: int | None, batch: Batch) -> Built:
    """The module with the plan's forward multipliers in force, measured on two examples of a batch; as it is under sp.

    Raises ValueError for factors that cannot be measured or set.
    """
    if not scales(trial.scheme):
        return made
    few = _first(batch, 2)

    def inputs(module: nn.Module) -> Any:
        return called_with(model, module, few)

    made = with_base_heads(made, model, trial, vocabulary, inputs)
    queries = _queries_of(model, made.module)
    made.plan.wire_(made.module, inputs(made.module), queries=queries, leave=model.leave_factors)
    return made


def _queries_of(model: Model, module: nn.Module) -> Any:
    """The layers that return queries, as Plan.wire_ takes them: parts of outputs as slices at the module's width."""
    if not isinstance(model.queries, Mapping):
        return model.queries
    slices = {}
    for pattern, (begin, end) in model.queries.items():
        for name, layer in module.named_modules():
            if fnmatch.fnmatchcase(name, pattern) and isinstance(getattr(layer, "weight", None), Tensor):
                features = layer.weight.shape[0]
                slices[name] = slice(round(begin * features), round(end * features))
    return slices


def adamw(made: Built, trial: Trial) -> torch.optim.AdamW:
    """AdamW with the plan's parameter groups at the trial's base values; `fused` where torch has that."""
    groups = made.plan.param_groups(made.module, lr=trial.lr, weight_decay=trial.weight_decay)
    return torch.optim.AdamW(groups, betas=(trial.beta1, trial.beta2), eps=trial.eps, fused=True)


def called_with(model: Model, module: nn.Module, batch: Batch) -> Any:
    """What the module is called with when the loss of a batch is taken, as `Plan.wire_` takes inputs."""
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    hook = module.register_forward_pre_hook(lambda _, args, kwargs: seen.append((args, kwargs)), with_kwargs=True)
    try:
        with torch.no_grad():
            losses_of(model, module, batch)
    finally:
        hook.remove()
    if not seen:
        raise ValueError(f"the loss of {model.source} does not call the model, so its factors cannot be measured.")
    args, kwargs = seen[0]
    if not kwargs:
        return args
    if not args:
        return kwargs
    bound = inspect.signature(module.forward).bind(*args, **kwargs)
    return dict(bound.arguments)


def _first(value: Any, count: int) -> Any:
    """The first examples of a batch."""
    if isinstance(value, Tensor):
        return value[:count] if value.dim() else value
    if isinstance(value, dict):
        return {name: _first(each, count) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_first(each, count) for each in value)
    return value


def losses_of(model: Model, module: nn.Module, batch: Batch) -> Tensor:
    """The loss of each example of a batch, shape (batch,), or their mean, in float32. Raises ValueError for others."""
    inputs, targets = batch
    if isinstance(model.loss, Source):
        losses = loaded_function(model.loss)(module, inputs, targets)
        if not isinstance(losses, Tensor) or losses.dim() > 1:
            shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
            raise ValueError(f"{model.loss} returned {shape}; it must return a loss per example, or their mean.")
        return losses.float()
    returned = module(inputs)
    logits = getattr(returned, "logits", returned)
    if not isinstance(logits, Tensor) or logits.dim() < 2:
        raise ValueError(
            f"{model.source} returns {type(returned).__name__}, which has no logits; give Model(..., loss=...)."
        )
    each = nn.functional.cross_entropy(logits.float().flatten(0, -2), targets.flatten(), reduction="none")
    return each.view(targets.shape[0], -1).mean(1)


def _train_steps(
    model: Model,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    trial: Trial,
    batches: Batches,
    device: torch.device,
    progress: Progress | None,
) -> tuple[np.ndarray[Any, np.dtype[np.float64]], int | None]:
    """The training loss of every step, not a number after it diverged; and the step at which it did."""
    steps = trial.total_steps
    losses = torch.full((steps,), torch.nan, device=device)
    base_rates = [group["lr"] for group in optimizer.param_groups]
    given = _on_device(batches.train(trial), device)
    parameters = [p for p in module.parameters() if p.requires_grad]
    module.train()
    looked = 0
    for step, batch in enumerate(given):
        # The schedule, which multiplies the learning rates of all groups alike.
        factor = lr_factor(trial, step)
        for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
            group["lr"] = rate * factor
        # The gradient, of weights that exist alone: the plan's hooks zero the others before they are clipped.
        with _products(device, trial):
            with in_precision(trial, device):
                loss = losses_of(model, module, batch).mean()
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(parameters, trial.clip)
        losses[step] = torch.where(norm.isfinite(), loss.detach(), torch.nan)
        # What has diverged is not trained on; a step that is not a number must not reach the weights' checks.
        if (step + 1) % LOOK_EVERY == 0 or step + 1 == steps or device.type == "cpu":
            diverged = diverged_step(losses[: step + 1], looked, batches.vocabulary)
            looked = step + 1
            if diverged is not None:
                return losses.double().cpu().numpy(), diverged
            if progress is not None:
                progress(step + 1, steps)
        optimizer.step()
    return losses.double().cpu().numpy(), None


def _products(device: torch.device, trial: Trial) -> contextlib.AbstractContextManager[None]:
    """On a GPU float32 is what the trial's precision says; on a CPU products are torch's own, as in a user's loop.

    What the built-in GPT does there, products by oneDNN, made steps of a module of nn.Linear 1.4 times as long at width
    128: 69 ms against 50 (python -m benchmarks.own_model, with and without).
    """
    if device.type == "cpu":
        return contextlib.nullcontext()
    return float32_products(device, trial.precision)


def diverged_step(losses: Tensor, since: int, vocabulary: int | None) -> int | None:
    """The first step from `since` on whose loss says that the trial has diverged, as of the built-in GPT."""
    bad = ~(losses[since:] <= loss_limit(losses[0], vocabulary))
    if not bool(bad.any()):
        return None
    return since + int(bad.int().argmax())


def _on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    for batch in batches:
        yield moved(batch, device)


@torch.no_grad()
def held_out_losses(
    model: Model, module: nn.Module, trial: Trial, batches: Batches, device: torch.device
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The loss of every held-out example, or of every batch where the user's loss gives the mean."""
    module.eval()
    found = []
    with _products(device, trial):
        for batch in batches.held_out(trial):
            with in_precision(trial, device):
                found.append(losses_of(model, module, moved(batch, device)).reshape(-1))
    if not found:
        raise ValueError(f"{model.source}: nothing is held out; batches must give some for part 'held_out'.")
    return torch.cat(found).double().cpu().numpy()
