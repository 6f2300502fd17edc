"""The coordinate check: how large activations are, and how much the first steps change them, as a model scales.

A model is wired correctly if no size depends on width or density: activations neither grow nor vanish at the start,
and a few optimizer steps change every one of them as much in a wide, sparse model as in a narrow, dense one
(arXiv 2203.03466, appendix D.1; with density, arXiv 2405.15743, figure 4). The sizes are measured here;
`analysis.coords` has the slopes and the verdicts.
"""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from hpsweep.coords import module, proxy
from hpsweep.coords.subject import Activation, Subject
from hpsweep.spec import Trial

Build = Callable[[int, float, int], tuple[nn.Module, torch.optim.Optimizer, Callable[[], Tensor]]]
"""(width, density, seed) -> a new model, its optimizer, and its mean loss on one batch, always the same."""


class Model(NamedTuple):
    """What is built and measured: a build function takes these three."""

    width: int
    density: float
    seed: int


SIZE_COLUMNS = ("module", "place", "features", *Model._fields, "step", "size", "change", "own")
"""Columns of `coordinate_check`."""


def coordinate_check(
    what: Build | Trial,
    *,
    widths: Sequence[int],
    densities: Sequence[float] = (1.0,),
    steps: int = 4,
    seeds: Iterable[int] = range(4),
    heads: int | None = None,
    exclude: Iterable[str] = (),
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """One row per module, width, density, seed and step (0, before training, to `steps`): sizes on one fixed batch.

    Every width is measured at the highest density, and every density at the largest width. size is the root mean
    square of the module's output; change that of its difference to step 0; own that of the part of the change that
    the module's own weights make: its output for its inputs of step 0, less its output then. change and own are null
    at step 0, own is null where a module has no weights of its own. `features` is the last dimension of the output (of
    attention logits the head size, 0 where it is not known), `place` where it comes in the forward pass. Training is on
    the batch that is measured. `progress` is called with (models done, models in all).

    what  a Trial of the proxy GPT, trained at its lr without warm-up and decay. With `heads`, there are as many
          attention heads at every width, and they grow; else their size stays.
          Or a function (width, density, seed) -> (model, optimizer, loss) for any torch module, where loss() runs the
          model on one batch, always the same, and returns the mean loss. Recorded are the outputs of all modules
          but those whose names match a pattern in `exclude`, and attention logits, where they go through torch's
          scaled_dot_product_attention or a softmax. Dropout is off while sizes are measured.

    Raises ValueError for values out of range, naming a module with weights of its own that recorded nothing, and where
    the modules differ between widths or densities.
    """
    widths = _list(widths, "widths")
    densities = _list(densities, "densities")
    seeds = _list(seeds, "seeds")
    exclude = [exclude] if isinstance(exclude, str) else _list(exclude, "exclude")
    no_texts = [pattern for pattern in exclude if not isinstance(pattern, str)]
    if no_texts:
        raise ValueError(f"exclude has {no_texts[0]!r}; give patterns of names of modules, such as '*.attention'.")
    if progress is not None and not callable(progress):
        raise ValueError(f"progress is {progress!r}; give a function of (models done, models in all), or nothing.")
    _check_values(widths, densities, steps, seeds)
    models = _models(widths, densities, seeds)
    subject_of = _subjects(what, models, steps, heads, exclude, device)
    rows: list[dict[str, Any]] = []
    for done, model in enumerate(models):
        if progress is not None:
            progress(done, len(models))
        measured = _measured_rows(subject_of(model), model, steps)
        _check_same_modules(rows or measured, measured)
        rows += measured
    return pd.DataFrame(rows, columns=list(SIZE_COLUMNS))


def _subjects(
    what: Build | Trial, models: Sequence[Model], steps: int, heads: int | None, exclude: Sequence[str], device: str
) -> Callable[[Model], Subject]:
    """What builds one of the models. Raises ValueError for what does not go together."""
    if isinstance(what, Trial):
        if exclude:
            raise ValueError(f"exclude is {exclude}, which belongs to models of your own; a Trial is recorded whole.")
        check_device(device)
        trials = dict(zip(models, proxy.trials_of_models(what, models, steps=steps, heads=heads), strict=True))
        return lambda model: proxy.trial_subject(trials[model], device)
    if not callable(what) or isinstance(what, nn.Module):
        raise ValueError(f"cannot check a {type(what).__name__}; give a Trial, or a function that builds a model.")
    try:
        inspect.signature(what).bind(*models[0])
    except TypeError as error:
        raise ValueError(
            f"the build function cannot be called with (width, density, seed) ({error}); give one that takes these "
            "three."
        ) from None
    if heads is not None or device != "cpu":
        raise ValueError("heads and device belong to a Trial; the function that builds a model sees to them itself.")
    return lambda model: module.module_subject(what(*model), exclude)


def check_device(device: object) -> None:
    """Raise ValueError for a device on which a proxy cannot be checked."""
    kind = device.partition(":")[0] if isinstance(device, str) else None
    if kind not in ("cpu", "cuda"):
        raise ValueError(f"device is {device!r}; allowed: cpu, cuda.")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {device}, but there is no GPU that torch can use; use device cpu.")


def _list(given: Any, word: str) -> list[Any]:
    if not isinstance(given, Iterable) or isinstance(given, str):
        raise ValueError(f"{word} is {given!r}; give a list of values.")
    return list(given)


def _check_values(widths: Sequence[int], densities: Sequence[float], steps: int, seeds: Sequence[int]) -> None:
    def whole(value: Any, least: int) -> bool:
        return isinstance(value, numbers.Integral) and int(value) >= least

    def is_density(value: Any) -> bool:
        return isinstance(value, float | int) and 0 < value <= 1

    if not whole(steps, 1):
        raise ValueError(f"steps is {steps!r}; give a whole number of at least 1: changes are measured after a step.")
    allowed: dict[str, tuple[Sequence[Any], Callable[[Any], bool], str]] = {
        "widths": (widths, lambda value: whole(value, 1), "whole numbers of at least 1"),
        "densities": (densities, is_density, "numbers in (0, 1]"),
        "seeds": (seeds, lambda value: whole(value, 0), "whole numbers of at least 0"),
    }
    for name, (values, fits, form) in allowed.items():
        if not values or not all(map(fits, values)) or len(set(values)) < len(values):
            raise ValueError(f"{name} is {list(values)!r}; give one or more {form}, each once.")
    if len(widths) == len(densities) == 1:
        raise ValueError(
            f"there is one width ({widths[0]}) and one density ({densities[0]:g}), and nothing to compare; give "
            "several of one of them."
        )


def _models(widths: Sequence[int], densities: Sequence[float], seeds: Sequence[int]) -> list[Model]:
    """The densest of every width, then the widest of every density."""
    places = [(width, max(densities)) for width in sorted(widths)]
    places += [(max(widths), density) for density in sorted(densities, reverse=True)[1:]]
    return [Model(int(width), float(density), int(seed)) for width, density in places for seed in seeds]


def _measured_rows(subject: Subject, model: Model, steps: int) -> list[dict[str, Any]]:
    """The rows of one model."""
    rows: list[dict[str, Any]] = []
    first: dict[str, Activation] = {}
    for step in range(steps + 1):
        now = subject.activations()
        own_changes = subject.own() if step else {}
        if not first:
            first = now
        _check_same_shapes(first, now, step)
        for place, (name, (x, features)) in enumerate(now.items()):
            change = _size(x - first[name].values) if step else math.nan
            own = _size(own_changes[name]) if name in own_changes else math.nan
            rows.append(
                {
                    "module": name,
                    "place": place,
                    "features": features,
                    "step": step,
                    **model._asdict(),
                    "size": _size(x),
                    "change": change,
                    "own": own,
                }
            )
        if step < steps:
            subject.step()
    return rows


def _check_same_shapes(first: Mapping[str, Activation], now: Mapping[str, Activation], step: int) -> None:
    """Raise ValueError where a module recorded something at one of two steps only, or in another shape."""
    for name in {**now, **first}:
        if name not in now or name not in first or now[name].values.shape != first[name].values.shape:
            raise ValueError(f"{name} gave another shape at step {step} than before; let loss() take the same batch.")


def _size(x: Tensor) -> float:
    """Root mean square."""
    return x.double().square().mean().sqrt().item()


def _check_same_modules(before: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise ValueError where a model recorded other modules than those before it."""
    of_one_only = sorted({row["module"] for row in before} ^ {row["module"] for row in rows})
    if of_one_only:
        first, last = (f"width {part[0]['width']}, density {part[0]['density']:g}" for part in (before, rows))
        name = of_one_only[0]
        raise ValueError(
            f"{name} recorded something at only one of {first} and {last}; build the same modules everywhere, or "
            f"leave it out: exclude={(name,)!r}."
        )
