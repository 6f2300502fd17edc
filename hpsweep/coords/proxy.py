"""The activations of a proxy, seen in the very code that is trained.

Every product with a tensor goes through torch.bmm, attention through torch's function or a softmax, and the residual
stream into layer_norm: all are seen by observing torch functions, so that the model needs no word of it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hpsweep.architectures import architecture, tensors
from hpsweep.coords.attention import NAME, Attention
from hpsweep.coords.subject import Activation, Subject
from hpsweep.observer import Call, observing
from hpsweep.proxy import model
from hpsweep.proxy.data import load_dataset
from hpsweep.proxy.device import check_gpu_has, float32_products, in_precision
from hpsweep.proxy.ensemble_state import Ensemble
from hpsweep.proxy.outcome import check_precision
from hpsweep.spec import Trial

FEW_INPUTS = 8
"""Nonzeros per neuron at the largest width below which the check of a proxy warns."""


def trials_of_models(
    trial: Trial, models: Sequence[tuple[int, float, int]], *, steps: int, heads: int | None
) -> list[Trial]:
    """The trial at every (width, density, seed), without warm-up and decay; with as many `heads`, if given."""
    if heads is not None and not isinstance(heads, int):
        raise ValueError(f"heads is {heads!r}; give a whole number of at least 1.")
    for width, _, _ in models:
        if heads is not None and (heads < 1 or width % heads):
            raise ValueError(
                f"heads is {heads}, which does not divide the width {width}; give a divisor of every width."
            )
    constant = trial.replace(steps=steps, warmup_fraction=0.0, final_lr_fraction=1.0)
    trials = []
    for width, density, seed in models:
        head_size = width // heads if heads else trial.head_size
        trials.append(constant.replace(width=width, head_size=head_size, density=density, seed=seed))
    sparsest = min(trials, key=lambda t: t.density)
    inputs = sparsest.width * sparsest.density
    if sparsest.density < 1 and inputs < FEW_INPUTS:
        enough = math.ceil(FEW_INPUTS / sparsest.density)
        warnings.warn(
            f"{inputs:.3g} nonzeros per neuron at width {sparsest.width} and density {sparsest.density:g}: the rules "
            f"average over them, and changes may grow as density falls. Take a width of {enough}.",
            stacklevel=3,
        )
    return trials


def trial_subject(trial: Trial, device: str) -> Subject:
    """The trial's model and its training, on its first batch again and again."""
    check_precision(trial.precision, torch.device(device).type)
    check_gpu_has(trial.precision, torch.device(device))
    data = load_dataset(trial.data)
    ensemble = Ensemble([trial], data, torch.device(device))
    ensemble.batches.hold(0)
    ids, _ = ensemble.batches.current()
    history = torch.full((1, 1), math.nan, device=device)  # the only step is the first one
    initial = {name: tensor.clone() for name, tensor in ensemble.parameters.items()}
    inputs: dict[str, Tensor] = {}
    readout = architecture().readout_tensor(trial)
    streams = architecture().residual_streams(trial.depth)

    @torch.no_grad()
    def activations() -> dict[str, Activation]:
        seen = _Products(ensemble.parameters, readout, streams)
        with (
            observing(seen),
            float32_products(ensemble.device, trial.precision),
            in_precision(trial, ensemble.device),
        ):
            model.logits(ensemble.parameters, ensemble.multipliers, ids, head_size=trial.head_size)
        for name, (_, kind) in tensors(trial, data.vocabulary).items():
            if kind not in ("embedding", "norm") and name not in seen.outputs:
                raise ValueError(
                    f"{name} recorded nothing: the model multiplies with it otherwise than by torch.bmm; let the "
                    "coordinate check see that too."
                )
        if not inputs:
            inputs.update(seen.inputs)
        return dict(seen.outputs)

    def own() -> dict[str, Tensor]:
        change = {name: ensemble.parameters[name] - then for name, then in initial.items()}
        change["readout"] = change[readout]
        return {name: x @ change[name].mT for name, x in inputs.items()}

    return Subject(activations, own, lambda: ensemble.step(0, history))


class _Products:
    """Makes the calls of torch functions, and notes what every matrix is multiplied with, the products, attention
    logits, and the residual stream. `streams` are its names by those of the norms, in the order of the forward pass.
    """

    def __init__(self, parameters: Mapping[str, Tensor], readout: str, streams: Mapping[str, str]) -> None:
        self.names = {tensor.data_ptr(): name for name, tensor in parameters.items()}
        self.names[parameters[readout].data_ptr()] = "readout"
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Activation] = {}
        self.attention = Attention()
        self.norms = iter(streams.items())
        self.block = ""

    def __call__(self, call: Call) -> Any:
        """What the function returns."""
        output = call.result()
        if call.func is torch.bmm:
            x, weight = call.args
            name = self.names[weight.data_ptr()]
            self.inputs[name] = x
            self.outputs[name] = Activation(output, output.shape[-1])
        elif call.func is F.layer_norm:
            norm, stream = next(self.norms)
            self.block = norm.rpartition(".")[0]
            if stream:
                self.outputs[stream] = Activation(call.first, call.first.shape[-1])
        else:
            logits = self.attention.seen(call, output)
            if logits is not None:
                self.outputs[f"{self.block}.{NAME}"] = Activation(logits.values, logits.head_size)
        return output
