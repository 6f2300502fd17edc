"""A step of an ensemble as one function of tensors, for a GPU: gradients and update of all trials at once.

It can be compiled whole by torch (Inductor), which then writes a few kernels for what are many passes over memory.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from hpsweep.proxy import compile_choice, model
from hpsweep.proxy.device import out_of_memory
from hpsweep.proxy.model import Parameters
from hpsweep.proxy.optimizer import stacked_update
from hpsweep.spec import Precision, Trial

SPEAK_SECONDS = 2.0
"""While it compiles, a worker says so often that it lives,"""
ALIVE_SECONDS = 600.0
"""and no longer than that, lest it hang unnoticed."""


class Constants(NamedTuple):
    """What the trials of an ensemble share, which a compiled step holds as constants."""

    head_size: int
    precision: Precision
    clip: float
    beta1: float
    beta2: float
    eps: float


def shared_constants(trial: Trial) -> Constants:
    """The constants of an ensemble, from any of its trials."""
    return Constants(*(getattr(trial, name) for name in Constants._fields))


Bits = UInt8[Tensor, "trial fan_out bytes"]
"""A mask with eight places to a byte: an update reads it twice, and what it reads is what takes its time."""


class Tensors(NamedTuple):
    """What a step reads and, but for masks, rates and decays, changes."""

    parameters: Parameters
    exp_avg: Parameters
    exp_avg_sq: Parameters
    masks: Mapping[str, Bool[Tensor, "trial fan_out fan_in"]] | Mapping[str, Bits]
    lr: Mapping[str, Float[Tensor, " trial"]]
    decay: Mapping[str, Float[Tensor, " trial"]]
    multiply: model.Multipliers


def stacked_step(
    tensors: Tensors,
    inputs: Int[Tensor, "trial batch context"],
    targets: Int[Tensor, "trial batch context"],
    factor: Float[Tensor, ""],
    number: Int[Tensor, " 1"],
    constants: Constants,
) -> Float[Tensor, " trial"]:
    """The loss of every trial, nats/token, after step `number` was taken with all learning rates times `factor`.

    The loss is NaN where the norm of the trial's gradient is not finite.
    """
    head_size, precision, clip, beta1, beta2, eps = constants

    def losses(parameters: Parameters) -> Float[Tensor, " trial"]:
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False):
            weights = model.folded_parameters(parameters, tensors.multiply)
            return model.sequence_losses(weights, tensors.multiply, inputs, targets, head_size=head_size).mean(1)

    found, gradients = with_gradients(losses, tensors.parameters)
    norms = stacked_update(
        tensors.parameters,
        gradients,
        {name: unpacked_mask(m, tensors.parameters[name].shape[-1]) for name, m in tensors.masks.items()},
        tensors.exp_avg,
        tensors.exp_avg_sq,
        tensors.lr,
        tensors.decay,
        factor,
        (number + 1).double(),
        clip=clip,
        beta1=beta1,
        beta2=beta2,
        eps=eps,
    )
    return torch.where(norms.isfinite(), found, torch.nan)


def packed_mask(mask: Bool[Tensor, "trial fan_out fan_in"]) -> Bits:
    """The mask with eight places to a byte, the first in the lowest bit."""
    whole = F.pad(mask, (0, -mask.shape[-1] % 8)).view(*mask.shape[:-1], -1, 8)
    return (whole.byte() << _bit(mask.device)).sum(-1, dtype=torch.uint8)


def unpacked_mask(
    mask: Bits | Bool[Tensor, "trial fan_out fan_in"], fan_in: int
) -> Bool[Tensor, "trial fan_out fan_in"]:
    """The mask of booleans; a mask that is not packed is returned as it is."""
    if mask.dtype == torch.bool:
        return mask
    places = (mask[..., None] >> _bit(mask.device)) & 1
    return places.bool().flatten(-2)[..., :fan_in]


def _bit(device: torch.device) -> UInt8[Tensor, " 8"]:
    return torch.arange(8, dtype=torch.uint8, device=device)


def with_gradients(
    losses: Callable[[Parameters], Float[Tensor, " trial"]], parameters: Parameters
) -> tuple[Float[Tensor, " trial"], Parameters]:
    """The losses at these parameters, and the gradients of their sum: each trial's of its own parameters."""
    if torch.compiler.is_compiling():  # it cannot follow autograd.grad; func.grad keeps all in memory if not compiled

        def total(p: Parameters) -> tuple[Float[Tensor, ""], Float[Tensor, " trial"]]:
            found = losses(p)
            return found.sum(), found

        gradients, found = torch.func.grad(total, has_aux=True)(parameters)
        return found, gradients
    leaves = {name: parameter.detach().requires_grad_(True) for name, parameter in parameters.items()}
    found = losses(leaves)
    each = torch.autograd.grad(found.sum(), list(leaves.values()))
    return found.detach(), dict(zip(leaves, each, strict=True))


Step = Callable[..., Tensor]
"""`stacked_step`, or what became of it when it was compiled."""


_failed: list[Exception] = []  # why nothing can be compiled in this process


def compiler_failed() -> bool:
    """Whether compiling a step has failed in this process, for another reason than memory."""
    return bool(_failed)


def compiled_step(tensors: Tensors, *others: Any, alive: Callable[[], None]) -> Step:
    """`stacked_step`, compiled for arguments like these, which stay as they are; or itself, with a warning.

    `alive` is called every SPEAK_SECONDS meanwhile. What failed for another reason than memory is not tried again in
    this process.
    """
    if compiler_failed():
        return stacked_step
    parameters, exp_avg, exp_avg_sq = (
        {name: value.clone() for name, value in each.items()}
        for each in (tensors.parameters, tensors.exp_avg, tensors.exp_avg_sq)
    )
    copies = tensors._replace(parameters=parameters, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq)
    bits = {name: packed_mask(mask) for name, mask in tensors.masks.items()}
    made: Step = torch.compile(stacked_step, fullgraph=True, dynamic=False)

    def take_step(tensors: Tensors, *others: Any) -> Tensor:
        return made(tensors._replace(masks=bits), *others)

    began = time.perf_counter()
    try:
        # every shape and size of ensembles is compiled for itself
        with torch._dynamo.config.patch(recompile_limit=1000), _heard(alive):
            take_step(copies, *others)
    except Exception as error:  # of a compiler of many layers, or memory that suffices uncompiled
        if not out_of_memory(error):
            _failed.append(error)
        first = next(iter(str(error).strip().splitlines()), "")
        why = f"{type(error).__name__}: {first[:200]}"
        warnings.warn(
            f"the step is not compiled, and takes about {1 / (1 - compile_choice.SAVED):.1f} times as long ({why})",
            stacklevel=2,
        )
        return stacked_step
    print(f"hpsweep: compiled the step of an ensemble in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return take_step


@contextlib.contextmanager
def _heard(alive: Callable[[], None]) -> Iterator[None]:
    """Call `alive` now and then from another thread: what the driver hears nothing of it takes to hang."""
    done = threading.Event()

    def speak() -> None:
        began = time.monotonic()
        while not done.wait(SPEAK_SECONDS) and time.monotonic() - began < ALIVE_SECONDS:
            alive()

    thread = threading.Thread(target=speak, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
