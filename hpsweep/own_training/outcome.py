"""What losses that a script or a loop of the user's own has told make of its trial: the row and the curve."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from hpsweep.english import counted
from hpsweep.own_training.losses import Losses, NoResult, Point
from hpsweep.proxy.outcome import CURVE_POINTS, Outcome, cpu_name
from hpsweep.running_trial import SIZES
from hpsweep.spec import Trial


def reported_outcome(
    trial: Trial, losses: Losses, columns: Mapping[str, Any], *, device: str, engine: str, **made_by: Any
) -> Outcome:
    """The row and the curve of one trial; `columns` are those of its result, `made_by` what else its row says."""
    row = _row(trial, device, losses, columns, engine)
    return Outcome(rows=[{**row, **made_by}], curves=_curves(trial, losses, columns))


def result_columns(losses: Losses, last_step: int) -> dict[str, Any]:
    """Columns of the row: status ok or diverged, val_loss and its standard error, train_loss, initial_loss, and the
    step of divergence.

    The result is the held-out loss at `last_step`. Without a finite one there the trial has diverged at the first
    loss that is not finite. Raises NoResult where it has not diverged, and stopped before that step or went beyond.
    """
    points = losses.points
    initial = _initial_loss(points)
    final = next((point for point in points if point.step == last_step), Point(last_step))
    ended = final.val_loss is not None and math.isfinite(final.val_loss)
    infinite = [point.step for point in points if not point.is_finite]
    if infinite and not ended:
        return {"status": "diverged", "diverged_step": infinite[0], "initial_loss": initial}
    _check_ended(losses, last_step)
    return {
        "status": "ok",
        "val_loss": final.val_loss,
        "val_loss_se": final.val_loss_se,
        "train_loss": _last_train_loss(points, last_step),
        "initial_loss": initial,
    }


def _check_ended(losses: Losses, last_step: int) -> None:
    """Raise NoResult unless the last loss is a held-out one at the last step."""
    points = losses.points
    if not points:
        raise NoResult(
            f"there is no loss in {losses.where}. Report it by hpsweep.this_trial().report(step, val_loss=...), or "
            "say where it is by losses=."
        )
    if points[-1].step > last_step:
        raise NoResult(
            f"{losses.where} goes on to step {points[-1].step}, but the trial has {counted(last_step, 'step')}. Does "
            "the command give the script its number of steps, such as --max-steps={steps}?"
        )
    measured = [point.step for point in points if point.val_loss is not None]
    if not measured:
        raise NoResult(
            f"{losses.where} has training losses alone, up to step {points[-1].step}. A result is a held-out loss: "
            "give val_loss after the last step too."
        )
    if measured[-1] < last_step:
        hint = f"It has to be measured after step {last_step}, the last one"
        if measured[-1] == last_step - 1:
            hint += ". If the script counts steps from 0, say last_step='{steps-1}'"
        raise NoResult(f"the last held-out loss in {losses.where} is of step {measured[-1]}. {hint}.")


def _initial_loss(points: list[Point]) -> float | None:
    """The training loss of the first batch, where it was told by itself."""
    if points and points[0].step <= 1 and points[0].train_loss is not None and math.isfinite(points[0].train_loss):
        return points[0].train_loss
    return None


def _last_train_loss(points: list[Point], last_step: int) -> float | None:
    """The mean training loss of the last twentieth of the steps, or the last one before it."""
    told = [(point.step, point.train_loss) for point in points if point.train_loss is not None]
    late = [loss for step, loss in told if step > 0.95 * last_step] or [loss for _, loss in told[-1:]]
    if not late or not all(map(math.isfinite, late)):
        return None
    return sum(late) / len(late)


def _row(trial: Trial, device: str, losses: Losses, columns: Mapping[str, Any], engine: str) -> dict[str, Any]:
    """The row of a trial, as every engine gives it; sizes are those that the script reported."""
    sizes = {**dict.fromkeys(SIZES), "tokens": trial.total_tokens, **losses.sizes}
    return {
        "trial_id": trial.trial_id,
        **trial.resolved,
        **sizes,
        **columns,
        "device": cpu_name() if device == "cpu" else device,
        "engine": engine,
        "ensemble_size": 1,
        "finished_at": datetime.now(UTC),
    }


def _curves(trial: Trial, losses: Losses, columns: Mapping[str, Any]) -> dict[str, list[Any]]:
    """At most CURVE_POINTS points, each the mean of the training losses since the point before and the last held-out
    one; up to the first loss that is not finite.
    """
    diverged = columns.get("diverged_step") or math.inf
    points = [point for point in losses.points if 0 < point.step < diverged and point.is_finite]
    curves: dict[str, list[Any]] = {name: [] for name in ("trial_id", "step", "tokens", "train_loss", "val_loss")}
    for part in _parts(points):
        train = [point.train_loss for point in part if point.train_loss is not None]
        val = [point.val_loss for point in part if point.val_loss is not None]
        curves["trial_id"].append(trial.trial_id)
        curves["step"].append(part[-1].step)
        curves["tokens"].append(part[-1].step * trial.total_tokens // trial.total_steps)
        curves["train_loss"].append(sum(train) / len(train) if train else None)
        curves["val_loss"].append(val[-1] if val else None)
    return curves


def _parts(points: list[Point]) -> Iterator[list[Point]]:
    """The points in at most CURVE_POINTS parts, which are as long as each other."""
    count = min(len(points), CURVE_POINTS)
    for i in range(count):
        yield points[i * len(points) // count : (i + 1) * len(points) // count]
