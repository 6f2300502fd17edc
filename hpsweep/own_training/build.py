"""The module of a trial: built by the user's function, parametrized from the module at base width, and initialized."""

from __future__ import annotations

import dataclasses
import random
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from hpsweep.architectures import FLOPS_OF_A_WEIGHT, SPARSE
from hpsweep.own_model.data import EVERY
from hpsweep.own_model.forward.probe import record_of
from hpsweep.own_model.parametrize import parametrize
from hpsweep.own_model.plan import Plan
from hpsweep.own_training.code import loaded_function
from hpsweep.spec import Model, Source, Trial
from hpsweep.text import shown

Inputs = Callable[[nn.Module], Any]
"""What a module is called with, as Plan.wire_ takes inputs."""


class Built(NamedTuple):
    """A module with its plan, initialized and masked; its forward multipliers are not in force yet."""

    module: nn.Module
    plan: Plan


_base_heads: dict[tuple[Any, ...], dict[str, int]] = {}
"""Base head sizes by head size, as measured; by what modules are built from."""


def module_of(model: Model, trial: Trial, vocabulary: int | None, *, device: str = "cpu") -> nn.Module:
    """What the user's function returns for this trial, with random numbers by the trial's seed.

    Raises ValueError where that is no torch module, and what the function raises.
    """
    build = loaded_function(model.source)
    seed_all(trial.seed)
    with torch.device(device):
        module = build(**arguments_of(model.source, trial, vocabulary=vocabulary))
    if not isinstance(module, nn.Module):
        raise ValueError(f"{model.source} returned {shown(module)}; it must return a torch.nn.Module.")
    return module


def arguments_of(source: Source, trial: Trial, **more: Any) -> dict[str, Any]:
    """What the function is called with, by name: fields of the trial, settings that are given, and `more`.

    Raises ValueError for an argument of `more` that is asked for and not known.
    """
    values: dict[str, Any] = {**trial.resolved, **trial.own_settings, **more}
    asked = {name: values[name] for name in source.arguments if name in values}
    for name in more:
        if name in asked and asked[name] is None:
            if name in source.required:
                raise ValueError(
                    f"{source} asks for {name!r}, which batches of your own do not tell; give it a default."
                )
            del asked[name]
    return asked


def built(model: Model, trial: Trial, vocabulary: int | None, *, device: str = "cpu") -> Built:
    """The module of a trial with its plan, its weights drawn by the trial's seed.

    Raises ValueError, with the remedy, where the rules cannot be derived: `kinds` and the like settle it.
    """
    module = module_of(model, trial, vocabulary, device=device)
    plan = plan_of(model, module, trial, vocabulary)
    plan.init_(module, init_std=trial.init_std, seed=trial.seed, leave=model.leave)
    return Built(module, plan)


def plan_of(model: Model, module: nn.Module, trial: Trial, vocabulary: int | None) -> Plan:
    """The plan of a trial's module, from the modules at base width and at twice that."""
    scales_heads = "head_size" in model.source.arguments
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # told once, by the driver, of all trials: see `checked_models`
        return parametrize(
            module,
            trial.scheme,
            base=lambda: module_of(model, _of_base(model, trial, 1), vocabulary, device="meta"),
            delta=lambda: module_of(model, _of_base(model, trial, 2), vocabulary, device="meta"),
            density=trial.density,
            base_density=trial.base_density,
            include=model.include,
            exclude=model.exclude,
            kinds=model.kinds or None,
            fan_in_axis=_axes(model.fan_in_axis),
            partial=model.partial,
            seed=trial.seed,
            base_head_size=trial.base_head_size if scales_heads else None,
            alpha_input=trial.alpha_input,
            alpha_attention=trial.alpha_attention,
            alpha_output=trial.alpha_output,
            embedding_lr_mult=trial.embedding_lr_mult,
            weight_decay_rule=trial.weight_decay_rule,
        )


def with_base_heads(made: Built, model: Model, trial: Trial, vocabulary: int | None, inputs: Inputs) -> Built:
    """The same with the head sizes of the base model in its plan, where no attribute of the modules tells them.

    They are measured by a forward pass of both. `inputs` returns what a module is called with.
    """
    key = (*module_key(model, trial), trial.base_width)
    if key not in _base_heads:
        _base_heads[key] = _measured_base_heads(made, model, trial, vocabulary, inputs)
    known = {**_base_heads[key], **made.plan.base_head_sizes}
    return Built(made.module, dataclasses.replace(made.plan, base_head_sizes=known))


def _measured_base_heads(
    made: Built, model: Model, trial: Trial, vocabulary: int | None, inputs: Inputs
) -> dict[str, int]:
    ours = _head_sizes(made.plan, made.module, inputs)
    if all(str(size) in made.plan.base_head_sizes or EVERY in made.plan.base_head_sizes for size in ours.values()):
        return {}
    at_base = _of_base(model, trial, 1)
    base = built(model, at_base, vocabulary, device=str(next(made.module.parameters()).device))
    theirs = _head_sizes(base.plan, base.module, inputs)
    found: dict[str, set[int]] = {}
    for name, size in ours.items():
        if name in theirs:
            found.setdefault(str(size), set()).add(theirs[name])
    return {size: min(sizes) for size, sizes in found.items() if len(sizes) == 1}


def _head_sizes(plan: Plan, module: nn.Module, inputs: Inputs) -> dict[str, int]:
    """The head size of every attention that is seen, by the module that it is in."""
    record = record_of(plan, module, inputs(module))
    return {name: scales[0].head_size for name, scales in record.attention.items() if scales}


def module_key(model: Model, trial: Trial) -> tuple[Any, ...]:
    """What a module goes by: the values that its function is called with."""
    values = {**trial.resolved, **trial.own_settings}
    return (model.source, *((name, values.get(name)) for name in model.source.arguments), trial.data)


def _of_base(model: Model, trial: Trial, factor: int) -> Trial:
    trial = trial.replace(width=factor * trial.base_width, density=1.0)
    if "head_size" in model.source.arguments:
        trial = trial.replace(head_size=trial.base_head_size)
    return trial


def _axes(given: Mapping[str, Any]) -> dict[str, Any] | None:
    if not given:
        return None
    return {pattern: axis if isinstance(axis, int) else tuple(axis) for pattern, axis in given.items()}


def size_columns(plan: Plan, trial: Trial) -> dict[str, Any]:
    """A row's columns of sizes: tokens, numbers of weights, and FLOPs of training by the convention of 6 per weight.

    Attention's products of activations are not counted: what the module does with them is its own.
    """
    tensors = plan.tensors.values()
    numel = {id(tensor): int(np.prod(tensor.shape)) for tensor in tensors}
    hidden = [tensor for tensor in tensors if tensor.kind in SPARSE]
    ends = [tensor for tensor in tensors if tensor.kind in ("embedding", "readout")]
    hidden_parameters = sum(numel[id(tensor)] for tensor in hidden)
    hidden_nonzeros = sum(tensor.nonzeros for tensor in hidden)
    readout = sum(numel[id(tensor)] for tensor in tensors if tensor.kind == "readout" or tensor.readouts)
    tokens = trial.total_tokens

    def flops(weights: int) -> float:
        return float(tokens) * FLOPS_OF_A_WEIGHT * (weights + readout)

    return {
        "tokens": tokens,
        "parameters": sum(numel.values()),
        "embedding_parameters": sum(numel[id(tensor)] for tensor in ends),
        "hidden_parameters": hidden_parameters,
        "hidden_nonzeros": hidden_nonzeros,
        "flops_dense": flops(hidden_parameters),
        "flops_sparse": flops(hidden_nonzeros),
    }


def seed_all(seed: int) -> None:
    """Seed what draws random numbers in a user's code: torch, numpy and random."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  what users' code draws from
