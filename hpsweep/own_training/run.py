"""A training loop of the user's own: what it is given of its trial, and what it tells."""

from __future__ import annotations

import contextlib
import faulthandler
import math
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpsweep.own_training.code import code_hash, code_hashes, loaded_function
from hpsweep.own_training.logs import logged, trial_folder
from hpsweep.own_training.losses import Losses, Point, merged_points
from hpsweep.own_training.outcome import reported_outcome, result_columns
from hpsweep.proxy.divergence import loss_limit
from hpsweep.proxy.outcome import Finished, Outcome, Progress
from hpsweep.running_trial import COUNTS, SIZES
from hpsweep.spec import Loop, Model, Trial
from hpsweep.text import shown

if TYPE_CHECKING:
    import torch
    from torch import nn

    from hpsweep.own_model.plan import Plan


class Run:
    """A trial that a loop of the user's own trains. Its fields and settings are attributes: run.width, run.lr.

    device: cpu or cuda.
    folder: a folder of this trial alone, the same when it is tried again.
    model, plan: the module and its plan, where the sweep has a `model=` too; else None until `parametrize`.
    """

    def __init__(self, trial: Trial, device: str, folder: Path, progress: Progress | None = None) -> None:
        self.trial = trial
        self.device = device
        self.folder = folder
        self.model: nn.Module | None = None
        self.plan: Plan | None = None
        self.diverged_step: int | None = None
        self.losses = Losses(where="what the loop reported")
        self._progress = progress
        self._first = math.nan  # the first training loss

    def __getattr__(self, name: str) -> Any:
        """A field of the trial, or a setting of the sweep. Raises AttributeError for any other name."""
        if name.startswith("_") or name == "trial":
            raise AttributeError(name)
        values = {**self.trial.resolved, **self.trial.own_settings}
        if name in values:
            return values[name]
        return getattr(self.trial, name)

    def parametrize(
        self,
        model: nn.Module,
        *,
        base: object,
        inputs: Any = None,
        queries: Any = (),
        leave: str | Sequence[str] = (),
        leave_factors: str | Sequence[str] = (),
        **options: Any,
    ) -> Plan:
        """The plan of a module under the trial's scheme; the module is initialized, masked and wired then.

        `base` is the module at `run.base_width`, or a function that returns it. `inputs` is what the module is called
        with, a few examples, which mup and supar measure its forward factors by; `queries` and `leave_factors` are for
        them, as `Plan.wire_` takes `queries` and `leave`. `leave`: as `Plan.init_` takes it. `options` are those of
        `hpsweep.parametrize` that the trial does not tell: `kinds`, `delta`, `include` and the like. Raises ValueError
        as these do.
        """
        from hpsweep.own_model.parametrize import parametrize
        from hpsweep.schemes import scales

        trial = self.trial
        told: dict[str, Any] = {
            "density": trial.density,
            "base_density": trial.base_density,
            "seed": trial.seed,
            "alpha_input": trial.alpha_input,
            "alpha_attention": trial.alpha_attention,
            "alpha_output": trial.alpha_output,
            "embedding_lr_mult": trial.embedding_lr_mult,
            "weight_decay_rule": trial.weight_decay_rule,
        }
        plan = parametrize(model, trial.scheme, base=base, **{**told, **options})
        plan.init_(model, init_std=trial.init_std, seed=trial.seed, leave=leave)
        if scales(trial.scheme):
            if inputs is None:
                raise ValueError(
                    f"run.parametrize has no inputs, by which {trial.scheme} measures the model's forward factors; "
                    "give what the model is called with, a few examples: inputs=batch."
                )
            plan.wire_(model, inputs, queries=queries, leave=leave_factors)
        self.model = model
        self.plan = plan
        return plan

    def optimizer(self, model: nn.Module | None = None) -> torch.optim.AdamW:
        """AdamW with the plan's parameter groups at the trial's base values, which holds pruned weights at zero.

        Call it after `parametrize`, and after the model is moved to its device; ValueError before that. Multiply the
        learning rates of all groups alike, such as by `run.lr_factor(step)`.
        """
        from hpsweep.own_training.build import Built
        from hpsweep.own_training.loop import adamw

        model = model or self.model
        if model is None or self.plan is None:
            raise ValueError("run.optimizer has no plan; call run.parametrize(model, base=..., inputs=...) before.")
        optimizer = adamw(Built(model, self.plan), self.trial)
        self.plan.attach(model, optimizer)
        return optimizer

    def lr_factor(self, step: int) -> float:
        """The factor of all learning rates at a step, from 0 on: the warm-up and decay that the trial's fields say."""
        from hpsweep.proxy.schedule import lr_factor

        return lr_factor(self.trial, step)

    def report(
        self, step: int, *, train_loss: float | None = None, val_loss: float | None = None, **sizes: Any
    ) -> bool:
        """Note losses after so many steps, in nats; False where the trial has diverged, and training on is of no use.

        `sizes`: of the model and the data, such as parameters=..., hidden_nonzeros=..., data_hash=.... Raises
        ValueError for a step that is no whole number from 0 on, and for a size of another name.
        """
        if isinstance(step, bool) or int(step) != step or step < 0:
            raise ValueError(f"run.report has step {shown(step)}; give the number of steps that are done, from 0 on.")
        for name, value in sizes.items():
            if name not in SIZES:
                raise ValueError(f"run.report has {name!r}; sizes are {', '.join(SIZES)}.")
            self.losses.sizes[name] = int(value) if name in COUNTS else value
        train = None if train_loss is None else float(train_loss)
        val = None if val_loss is None else float(val_loss)
        if train is not None or val is not None:
            self.losses.points.append(Point(int(step), train, val))
        if train is not None and math.isnan(self._first):
            self._first = train
        if self._progress is not None:
            self._progress(min(int(step), self.trial.total_steps), self.trial.total_steps)
        if self.diverged_step is None and not self._is_sound(train, val):
            self.diverged_step = int(step)
        return self.diverged_step is None

    def _is_sound(self, train: float | None, val: float | None) -> bool:
        """Whether the losses are numbers, and the training loss has not outgrown the first one."""
        known = [loss for loss in (train, val) if loss is not None]
        if not all(map(math.isfinite, known)):
            return False
        return train is None or not train > loss_limit(self._first, None)


def train_loop(
    trials: Sequence[Trial],
    *,
    loop: Mapping[str, Any],
    folder: str,
    model: Mapping[str, Any] | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    finished: Finished | None = None,
) -> Outcome:
    """Train the trials by a loop of the user's own, one after another; `loop` and `model` are records as plain data.

    `folder` is the sweep's, in which each trial has one of its own, with its log. Raises faults.TrialFailed where the
    loop raised an error or returned no loss.
    """
    found = Loop.from_dict(loop)
    builder = Model.from_dict(model) if model else None
    outcomes: list[Outcome] = []
    for number, trial in enumerate(trials, 1):
        outcomes.append(_train_one(found, builder, trial, device, Path(folder), progress))
        if finished is not None and number < len(trials):
            finished(outcomes[-1])
    names = outcomes[0].curves
    curves = {name: [value for each in outcomes for value in each.curves[name]] for name in names}
    return Outcome(rows=[row for each in outcomes for row in each.rows], curves=curves)


def _train_one(
    loop: Loop, model: Model | None, trial: Trial, device: str, folder: Path, progress: Progress | None
) -> Outcome:
    started = time.perf_counter()
    sources = (*loop.sources, *(model.sources if model else ()))
    code = code_hash(code_hashes(sources))
    own = trial_folder(folder, trial)
    run = Run(trial, device, own, progress)
    with logged(trial, own) as log, _limited(loop.timeout, log):
        if model is not None:
            _build(run, model)
        _seed(trial.seed)
        train = loaded_function(loop.source)
        own_settings = {name: value for name, value in trial.own_settings.items() if name in loop.source.arguments}
        fields = {name: trial.resolved[name] for name in loop.source.arguments[1:] if name in trial.resolved}
        returned = train(run, **{**fields, **own_settings})
        columns = _result(run, returned)
    return reported_outcome(
        trial,
        run.losses,
        columns,
        device=device,
        engine="own loop",
        seconds=time.perf_counter() - started,
        code_hash=code,
        **_sizes(run),
    )


def _build(run: Run, model: Model) -> None:
    """The module and its plan, of a sweep that has a model= too."""
    import torch

    from hpsweep.own_training.batches import batches_of, moved
    from hpsweep.own_training.build import built
    from hpsweep.own_training.loop import wired

    batches = batches_of(model, run.trial)
    made = built(model, run.trial, batches.vocabulary)
    module = made.module.to(run.device)
    batch = moved(next(iter(batches.train(run.trial))), torch.device(run.device))
    made = wired(made, model, run.trial, batches.vocabulary, batch)
    run.model = module
    run.plan = made.plan


def _result(run: Run, returned: Any) -> dict[str, Any]:
    """Columns of the result, by what the loop returned: the held-out loss, or one per example."""
    if run.diverged_step is not None:
        first = run.losses.points[0].train_loss if run.losses.points else None
        initial = first if first is not None and math.isfinite(first) else None
        return {"status": "diverged", "diverged_step": run.diverged_step, "initial_loss": initial}
    steps = run.trial.total_steps
    if returned is None:
        return _reported_result(run)
    losses = np.asarray([float(loss) for loss in returned] if np.ndim(returned) else [float(returned)])
    if not np.isfinite(losses).all():
        return {"status": "diverged", "diverged_step": steps, "initial_loss": None}
    error = None
    if len(losses) > 1:
        error = float(losses.std(ddof=1) / math.sqrt(len(losses)))
    run.losses.points.append(Point(steps, None, float(losses.mean()), error))
    return _reported_result(run)


def _reported_result(run: Run) -> dict[str, Any]:
    """Columns of the result by what was reported. Raises NoResult where that is no result."""
    run.losses.points = merged_points(run.losses.points)
    return result_columns(run.losses, run.trial.total_steps)


def _sizes(run: Run) -> dict[str, Any]:
    """The row's columns of sizes, where a plan tells them and the loop reported none."""
    if run.plan is None:
        return {}
    from hpsweep.own_training.build import size_columns

    return {name: value for name, value in size_columns(run.plan, run.trial).items() if name not in run.losses.sizes}


def _seed(seed: int) -> None:
    """Seed what draws random numbers, torch's too where it is imported."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  what users' code draws from
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


@contextlib.contextmanager
def _limited(seconds: float | None, log: Path) -> Iterator[None]:
    """While it lasts, this process ends after so many seconds, with where it was in the log."""
    if seconds is None:
        yield
        return
    with log.open("a", encoding="utf-8") as output:
        output.write(f"(a timeout of {seconds:g} s ends this trial)\n")
        output.flush()
        faulthandler.dump_traceback_later(seconds, exit=True, file=output)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
