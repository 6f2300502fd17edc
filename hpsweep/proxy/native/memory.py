"""Memory as the library takes it: structures that mirror tensors.h, and arrays of whole vectors.

All memory is numpy's; the library only reads and writes it.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class TensorMemory(ctypes.Structure):
    """A tensor of trainable numbers: its values, gradient and moments, and AdamW's rate and decay."""

    _fields_ = [
        ("count", ctypes.c_long),
        *[(name, ctypes.c_void_p) for name in ("value", "gradient", "first", "second")],
        ("lr", ctypes.c_double),
        ("decay", ctypes.c_double),
    ]


class MatrixMemory(ctypes.Structure):
    """A matrix, and what the way that it is multiplied in needs: a mask, indices of nonzeros, pairs of bfloat16."""

    _fields_ = [
        ("weight", TensorMemory),
        *[(name, ctypes.c_int) for name in ("out", "in_", "way")],
        *[(name, ctypes.c_void_p) for name in ("mask", "start", "row", "column")],
        *[(name, ctypes.c_void_p) for name in ("start_transposed", "row_transposed", "place", "transposed")],
        *[(name, ctypes.c_void_p) for name in ("pairs", "pairs_transposed")],
    ]


class BlockMemory(ctypes.Structure):
    """A block of the GPT."""

    _fields_ = [
        *[(name, TensorMemory) for name in ("norm1", "norm2")],
        *[(name, MatrixMemory) for name in ("qkv", "out", "mlp_in", "mlp_out")],
    ]


class ModelMemory(ctypes.Structure):
    """A whole model, its sizes, and the constants of its training."""

    _fields_ = [
        *[
            (n, ctypes.c_int)
            for n in ("width", "depth", "heads", "head_size", "context", "batch", "vocabulary", "tied")
        ],
        *[(name, ctypes.c_float) for name in ("embedding", "attention", "readout")],
        *[(name, ctypes.c_double) for name in ("beta1", "beta2", "eps", "clip")],
        ("token", MatrixMemory),
        ("position", TensorMemory),
        ("blocks", ctypes.POINTER(BlockMemory)),
        ("norm", TensorMemory),
        ("untied", MatrixMemory),
        ("scratch", ctypes.c_void_p),
    ]


def padded(count: int) -> int:
    """The count in whole vectors, whatever their length: a multiple of 16."""
    return -(-count // 16) * 16


def aligned(count: int) -> Floats:
    """Zeros that begin at a whole cache line, and end at one."""
    memory = np.zeros(padded(count) + 16, np.float32)
    begin = -(memory.ctypes.data // 4) % 16
    return memory[begin : begin + padded(count)]


def aligned_rows(matrix: Floats) -> Floats:
    """A matrix with aligned rows, padded with zeros to whole vectors."""
    rows, columns = matrix.shape
    result = aligned(rows * padded(columns)).reshape(rows, -1)
    result[:, :columns] = matrix
    return result


def pointer(array: npt.NDArray[Any]) -> int:
    """Its address; the caller keeps the array as long as the library reads there."""
    return array.ctypes.data
