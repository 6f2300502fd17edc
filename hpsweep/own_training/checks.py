"""What is checked of a model of the user's own before any work: it is built, parametrized and called once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from hpsweep.own_model.plan import Plan
from hpsweep.own_training.batches import Batches, batches_of
from hpsweep.own_training.build import built, module_key, plan_of, size_columns
from hpsweep.own_training.code import code_hashes
from hpsweep.own_training.loop import losses_of, wired
from hpsweep.spec import Model, Trial
from hpsweep.units import is_images


class Checked(NamedTuple):
    """A model of the user's own that can train: its data by source, the sizes of its trials, and hashes of its code."""

    data: dict[str, Batches]
    sizes: Callable[[Trial], dict[str, Any]]
    code: dict[str, str]


def checked_model(trials: Sequence[Trial], model: Model, hashed: Trial) -> Checked:
    """What trials of a model of the user's own are, after every check that needs no workers.

    `hashed` is the trial whose batches are hashed, where they are the user's own: see `batches_of`.

    Each shape of theirs is built at base width, at twice that and at its own, parametrized, wired, and its loss taken
    once. Raises ValueError with what is wrong and the remedy, and what the user's functions raise.
    """
    hashes = code_hashes(model.sources)
    data: dict[str, Batches] = {}
    plans: dict[tuple[Any, ...], Plan] = {}
    for trial in trials:
        if trial.data not in data:
            data[trial.data] = _checked_batches(model, trial, hashed)
    for trial in _one_of_each_shape(model, trials):
        plans[_key(model, trial)] = _tried(model, trial, data[trial.data])

    def sizes(trial: Trial) -> dict[str, Any]:
        key = _key(model, trial)
        if key not in plans:  # of a density that was not tried
            vocabulary = data[trial.data].vocabulary
            plans[key] = plan_of(model, built(model, trial, vocabulary).module, trial, vocabulary)
        return size_columns(plans[key], trial)

    return Checked(data, sizes, hashes)


def _checked_batches(model: Model, trial: Trial, hashed: Trial) -> Batches:
    """The batches of a trial. Raises ValueError for data that is unfit."""
    if model.batches is None and is_images(trial.data):
        from hpsweep.images import check_images, load_images

        check_images(load_images(trial.data), eval_sequences=trial.eval_sequences)
    elif model.batches is None:
        from hpsweep.proxy.data import check_dataset, load_dataset

        check_dataset(load_dataset(trial.data), context=trial.context, eval_sequences=trial.eval_sequences)
    return batches_of(model, trial, hashed)


def _key(model: Model, trial: Trial) -> tuple[Any, ...]:
    """What the sizes of a trial's plan go by."""
    return (*module_key(model, trial), trial.base_width, trial.density)


def _one_of_each_shape(model: Model, trials: Iterable[Trial]) -> list[Trial]:
    """A trial for each module and density; of those the one whose scheme corrects most."""
    order = ("sp", "mup", "supar")
    chosen: dict[tuple[Any, ...], Trial] = {}
    for trial in trials:
        key = _key(model, trial)
        if key not in chosen or order.index(trial.scheme) > order.index(chosen[key].scheme):
            chosen[key] = trial
    return list(chosen.values())


def _tried(model: Model, trial: Trial, batches: Batches) -> Plan:
    """The plan of a trial, whose module has been built, wired, and called with a batch."""
    made = built(model, trial, batches.vocabulary)
    for warning in made.plan.warnings:
        warnings.warn(f"{model.source}, width {trial.width}, density {trial.density:g}: {warning}", stacklevel=2)
    batch = next(iter(batches.train(trial)))
    made = wired(made, model, trial, batches.vocabulary, batch)
    losses_of(model, made.module, batch)
    return made.plan
