"""What training gives: a row per trial and points of its training curve, whatever engine trained it."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from hpsweep.rules import count
from hpsweep.spec import Precision, Trial

CURVE_POINTS = 200
"""A training curve has at most this many points."""

Floats = npt.NDArray[np.floating[Any]]  # jaxtyping takes longer to import than all of this, in every worker
Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


@runtime_checkable
class Trained(Protocol):
    """What is known of the data that trials were trained on; a Dataset has it."""

    @property
    def vocabulary(self) -> int | None: ...  # noqa: D102
    @property
    def data_hash(self) -> str: ...  # noqa: D102


@dataclass(frozen=True)
class Outcome:
    """What training an ensemble gives: a row per trial (columns of store.RUNS) and curves (of store.CURVES)."""

    rows: list[dict[str, Any]]
    curves: dict[str, list[Any]]


Finished = Callable[[Outcome], None]
"""Called with what came of some trials while others are still being trained."""


def check_shapes(trials: Sequence[Trial]) -> None:
    """Nothing, when the trials share one shape; ValueError otherwise."""
    if len({trial.shape for trial in trials}) != 1:
        raise ValueError(f"an ensemble needs trials of one shape; got {len({t.shape for t in trials})} shapes.")


def check_precision(precision: Precision, device: str) -> None:
    """Nothing, where a cpu or cuda device takes products in this precision; ValueError otherwise."""
    if precision == "tf32" and device == "cpu":
        raise ValueError(
            "precision is 'tf32', which only NVIDIA's GPUs have (from Ampere on); use float32 or bfloat16 on a CPU."
        )
    said = os.environ.get("NVIDIA_TF32_OVERRIDE", "")
    if device != "cpu" and (precision, said) in (("float32", "1"), ("tf32", "0")):
        other = {"1": "TF32", "0": "float32"}[said]
        raise ValueError(
            f"NVIDIA_TF32_OVERRIDE={said} makes products of precision {precision!r} {other}; unset it, or ask for that."
        )


def ensemble_outcome(
    trials: Sequence[Trial],
    data: Trained,
    train_losses: Floats,
    validation: Mapping[int, Floats],
    diverged: Mapping[int, int],
    sizes: Callable[[Trial], dict[str, Any]] | None = None,
    **made_by: Any,
) -> Outcome:
    """Rows and curves of trained trials: losses by step and trial, and by place among the trials the loss of every
    held-out sequence or the step of divergence. `sizes`: the columns of a trial's sizes, where it is not of the
    built-in GPT. `made_by`: columns that say what trained them.
    """
    common = {
        "vocabulary": data.vocabulary,
        "data_hash": data.data_hash,
        **made_by,
        "finished_at": datetime.now(UTC),
        "python_version": platform.python_version(),
    }
    if sizes is None:
        assert data.vocabulary is not None
        sizes = functools.partial(count.size_columns, vocabulary=data.vocabulary)
    rows = [
        {
            "trial_id": t.trial_id,
            **t.resolved,
            **sizes(t),
            **_result(train_losses[:, i], validation.get(i), diverged.get(i)),
            **common,
        }
        for i, t in enumerate(trials)
    ]
    return Outcome(rows=rows, curves=_curves(trials, train_losses, rows))


def _result(train_losses: Floats, validation: Floats | None, diverged: int | None) -> dict[str, Any]:
    initial = _finite(train_losses[0])
    if validation is not None and not np.isfinite(validation).all():  # see divergence.py
        validation = None
        diverged = len(train_losses)
    if validation is None:
        return {"status": "diverged", "diverged_step": diverged, "initial_loss": initial}
    return {
        "status": "ok",
        "val_loss": float(validation.mean()),
        "val_loss_se": float(validation.std(ddof=1) / math.sqrt(len(validation))),
        "train_loss": float(train_losses[-max(1, len(train_losses) // 20) :].mean()),
        "initial_loss": initial,
    }


def _finite(value: float) -> float | None:
    if not math.isfinite(value):
        return None
    return float(value)


def _curves(trials: Sequence[Trial], train_losses: Floats, rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """At most CURVE_POINTS points a trial, each the mean training loss since the point before."""
    steps = trials[0].total_steps
    per_step = trials[0].batch * trials[0].context  # tokens
    ends = np.unique(np.linspace(0, steps, min(steps, CURVE_POINTS) + 1).round().astype(int))
    curves: dict[str, list[Any]] = {name: [] for name in ("trial_id", "step", "tokens", "train_loss", "val_loss")}
    for i, row in enumerate(rows):
        for start, end in itertools.pairwise(ends):
            loss = _finite(train_losses[start:end, i].mean())
            if loss is None:
                break  # from here on the trial had diverged
            curves["trial_id"].append(row["trial_id"])
            curves["step"].append(int(end))
            curves["tokens"].append(int(end) * per_step)
            curves["train_loss"].append(loss)
            val_loss = None
            if end == steps:
                val_loss = row.get("val_loss")
            curves["val_loss"].append(val_loss)
    return curves


def cpu_name() -> str:
    """The processor as its maker names it."""
    with contextlib.suppress(OSError):  # only Linux has this file
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
