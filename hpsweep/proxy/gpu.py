"""What is known of a GPU without torch: which precisions it has, a share of its memory, what an error says of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from hpsweep.spec import Precision

SHARE = "HPSWEEP_GPU_SHARE"
"""The part of its GPU's memory that a process may take; a driver gives it to its workers in the environment."""

TF32_SINCE = (8, 0)
"""The compute capability from which on NVIDIA's GPUs have TF32: Ampere's."""

_RAN_OUT = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


class GPULost(RuntimeError):
    """This process cannot use its GPU any more; another one can."""


class Lacking(ValueError):
    """A GPU has not the precision that it was asked for, which is no fault of a trial."""


class Card(NamedTuple):
    """What torch says of a GPU: name, compute capability (None where it is not NVIDIA's), whether it takes bfloat16."""

    name: str
    capability: tuple[int, int] | None
    bfloat16: bool


def check_card(precision: Precision, card: Card) -> None:
    """Nothing, where the GPU has the precision; Lacking otherwise."""
    has_it = {"float32": True, "tf32": (card.capability or (0, 0)) >= TF32_SINCE, "bfloat16": card.bfloat16}
    if has_it[precision]:
        return
    needs = ""
    if precision == "tf32":
        needs = f" (NVIDIA's GPUs have it from compute capability {_version(TF32_SINCE)}, Ampere, on"
        if card.capability:
            needs += f"; this one is of {_version(card.capability)}"
        needs += ")"
    raise Lacking(
        f"precision is {precision!r}, which {card.name} does not have{needs}; use float32, or name only GPUs that have "
        "it in CUDA_VISIBLE_DEVICES."
    )


def _version(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))


def memory_share() -> float:
    """The part of its GPU's memory that this process may take. Raises ValueError for one outside of (0, 1]."""
    given = os.environ.get(SHARE, "1")
    try:
        part = float(given)
    except ValueError:
        part = 0.0
    if not 0 < part <= 1:
        raise ValueError(f"{SHARE} is {given!r}; allowed: above 0, up to 1 (all of a GPU's memory). Unset it for all.")
    return part


def ran_out(error: BaseException) -> bool:
    """Whether the error, or one that it came of, says in torch's words that a GPU's memory ran out."""
    return any(words in str(each) for each in _chain(error) for words in _RAN_OUT)


def is_lost(error: BaseException) -> bool:
    """Whether the error says that this process cannot use its GPU any more.

    After an error of a kernel or of the chip, such as an illegal memory access, every call fails with the same one.
    """
    if isinstance(error, GPULost):
        return True
    return not ran_out(error) and any("CUDA error" in str(each) for each in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it came of."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
