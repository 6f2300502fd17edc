"""What a worker knows of its GPU without torch: its share of the memory, and what an error says of it."""

from __future__ import annotations

import os
from collections.abc import Iterator

SHARE = "HPSWEEP_GPU_SHARE"
"""The part of its GPU's memory that a process may take; a driver gives it to its workers in the environment."""

_RAN_OUT = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


class GPULost(RuntimeError):
    """This process cannot use its GPU any more; another one can."""


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
