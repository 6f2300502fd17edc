"""The native engine compiled together with native_pieces.c, for this processor and for lesser ones."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpsweep.proxy.native import build, engine, memory

X86 = platform.machine() in ("x86_64", "AMD64")
TARGETS = {
    "this processor": ("-march=native",),
    "emulated tiles": ("-march=native", "-DEMULATE_AMX"),
    **({"AVX2": ("-mavx2", "-mfma"), "SSE2": ()} if X86 else {"baseline": ()}),
}
LANES = {"AVX2": 8, "SSE2": 4}
SANITIZER = os.environ.get("HPSWEEP_TEST_SANITIZER", "")
"""Flags of a sanitizer, when test_native_sanitizers.py runs these tests once more under it."""
TARGET = os.environ.get("HPSWEEP_TEST_TARGET", "")
"""One of TARGETS that test_native.py trains by, when that is asked for: as on another processor."""
if TARGET:
    TARGETS = {TARGET: TARGETS[TARGET]}  # the others are tested where none is named

_guarded: list[Any] = []  # memory with poisoned margins: never given back, lest numpy use it again


@functools.cache
def pieces(target: str, source: Path = Path(__file__).parent / "native_pieces.c") -> ctypes.CDLL:
    """The library for one of TARGETS; skips the test where there is no compiler, or the processor is another's."""
    compiler = build.find_compiler()
    if compiler is None:
        pytest.skip("needs a C compiler")
    flags = [*build.FLAGS, *TARGETS[target], *SANITIZER.split()]
    built = build.load_engine(build.compile_library(flags, compiler=compiler, source=source))
    if not built.native_prepare_machine():
        pytest.skip("this system does not allow tiles")
    return built


def use(target: str, patch: pytest.MonkeyPatch) -> ctypes.CDLL:
    """Let trials be trained by that library; under the address sanitizer, with guards around all arrays."""
    built = pieces(target)
    patch.setattr(engine, "compiled_engine", lambda: built)
    if "address" in SANITIZER:
        for module in (engine, memory):
            patch.setattr(module, "aligned", _aligned_and_guarded)
    return built


def call(function: Any, *arguments: Any) -> Any:
    """Calls a C function: arrays by address, Python's numbers as int and float, all else as it is."""
    kinds = {np.ndarray: lambda a: ctypes.c_void_p(a.ctypes.data), int: ctypes.c_int, float: ctypes.c_float}
    return function(*[kinds.get(type(a), lambda x: x)(a) for a in arguments])


def floats(values: Any) -> np.ndarray:
    """The values in aligned memory, in their shape; what is behind the last is only whole vectors' padding."""
    values = np.asarray(values, np.float32)
    result = memory.aligned(values.size)
    result[: values.size] = values.ravel()
    return result[: values.size].reshape(values.shape)


def rows(values: Any) -> np.ndarray:
    """A matrix in aligned memory, its rows padded with zeros to whole vectors."""
    return memory.aligned_rows(np.asarray(values, np.float32))


def _aligned_and_guarded(count: int) -> np.ndarray:
    size = memory.padded(count)
    floats = np.zeros(size + 16, np.float32)
    begin = -(floats.ctypes.data // 4) % 16
    poison = ctypes.CDLL(None).__asan_poison_memory_region
    for first, last in ((0, begin), (begin + size, size + 16)):
        poison(ctypes.c_void_p(floats.ctypes.data + 4 * first), ctypes.c_size_t(4 * (last - first)))
    _guarded.append(floats)
    return floats[begin : begin + size]
