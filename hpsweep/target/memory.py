"""What a target run takes of a device's memory, and what is said where it runs out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from hpsweep.proxy.device import free_memory, out_of_memory
from hpsweep.rules import count
from hpsweep.spec import Trial


def check_memory(trial: Trial, vocabulary: int, device: torch.device) -> None:
    """Raise ValueError where a GPU has no memory for what every process holds of this trial."""
    if device.type != "cuda":
        return
    free = free_memory(device)
    if held_bytes(trial, vocabulary) > free:
        raise ValueError(
            f"{_held_in_words(trial, vocabulary)}, before any activation, and the GPU has {free / 1e9:.3g} GB free. "
            "Neither --accumulate nor more processes changes that: take a GPU with more memory, or give the card's "
            "settings (`hpsweep export`) to a trainer that divides weights and moments among GPUs."
        )


def held_bytes(trial: Trial, vocabulary: int) -> int:
    """Bytes that every process holds whatever the batch: in float32 weights, gradients and AdamW's two moments; masks.

    In bfloat16 too, where products alone are in it.
    """
    sizes = count.sizes(trial, vocabulary)
    size = 16 * sizes.parameters
    if trial.density < 1:  # its mask
        size += sizes.hidden_parameters
    return size


def _held_in_words(trial: Trial, vocabulary: int) -> str:
    sizes = count.sizes(trial, vocabulary)
    masks = ""
    if trial.density < 1:
        masks = f" + {sizes.hidden_parameters:.3g} x 1 byte (masks)"
    return (
        f"this target takes {held_bytes(trial, vocabulary) / 1e9:.3g} GB in every process: {sizes.parameters:.3g} "
        f"weights x 16 bytes (4 for the weight, 4 for its gradient, 8 for AdamW's moments){masks}"
    )


def out_of_memory_in_steps(trial: Trial, vocabulary: int, sequences: int) -> str:
    """What to say and to advise when memory ran out with so many sequences at a time in a process."""
    if sequences == 1:
        remedy = "one sequence is the least: take a device with more memory, or a trial of a shorter context"
    else:
        remedy = "raise --accumulate, or use more processes: both lower the rest, the activations"
    held = _held_in_words(trial, vocabulary)
    return f"memory ran out with {sequences} at a time of a batch's sequences: {held}; {remedy}."


def out_of_memory_before_steps(trial: Trial, vocabulary: int) -> str:
    """What to say and to advise when memory ran out before anything was trained."""
    held = _held_in_words(trial, vocabulary)
    return f"memory ran out before the first step: {held}; take a device with more memory, or free it of others."


OUT_OF_MEMORY_IN_CHECKPOINT = (
    "the machine's memory (not the GPU's) ran out while a checkpoint was written, which is gathered there first; the "
    "one before is kept, and the same command goes on from it: take a machine with more memory, or free it of others."
)


@contextlib.contextmanager
def memory_for(words: str) -> Iterator[None]:
    """Say these words, as a ValueError, where memory runs out."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise ValueError(words) from error
