"""What a fitted law holds, as plain data, and its file. `law.Law` adds what it predicts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from hpsweep.analysis.law import record as law_record
from hpsweep.analysis.law.record import LAW_VERSION
from hpsweep.analysis.law.solver import Design
from hpsweep.store.record_file import check_record_path, record_json, write_record


@dataclass(frozen=True, kw_only=True)
class LawData:
    """A fitted law as plain data, with what speaks for and against it.

    status  ok             several starts agree, and every number is identified
            weak           the fit stands, and `weak` lists the numbers that the cells do not identify
            not_converged  fewer than three starts end at the lowest objective found
    `coefficients` are unrounded, in raw units (N and D as in the table); `centred` are the same at the geometric mean
    of N and D (`centre`), where sparse, dense, data and c are parts of the loss. `intervals` has a row per coefficient:
    value, low and high (95 %, resampled cells; of a number at 0 up to its profile's end), profile_low and profile_high
    (95 %, null where the profile does not end), and part, part_low, part_high: its part of the loss at the centre, or
    the exponent itself. `objective` is the mean Huber loss of the residuals, log or raw (`residual_kind`; `delta` is in
    their unit). `rows` counts the runs of the table, `cells` their distinct (S, N, D); `residuals` has the rows that
    were fitted: the runs, or the tuned losses of the cells. `outliers` are those that the law does not describe,
    `without_outliers` is the law of the others. `replicates` are centred numbers of the resamples, of which every band
    is made. Missing is null.
    """

    form: str
    status: str
    why: str
    coefficients: dict[str, float | None]
    centred: dict[str, float]
    centre: dict[str, float]
    objective: float
    residual_kind: str
    delta: float
    cells: int
    rows: int
    ranges: dict[str, list[float]]
    levels: dict[str, int]
    conventions: dict[str, str]
    starts: dict[str, int]
    intervals: list[dict[str, Any]]
    weak: list[dict[str, str]]
    warnings: list[str]
    left_out: list[dict[str, Any]]
    held_out: list[dict[str, Any]]
    correlations: list[dict[str, Any]]
    profiles: list[dict[str, Any]]
    residuals: list[dict[str, Any]]
    outliers: list[dict[str, Any]]
    without_outliers: dict[str, Any] | None
    replicates: list[list[float]]
    seed: int
    schema_version: int = LAW_VERSION

    def to_json(self) -> str:
        """The law as JSON text; floats in their shortest exact form."""
        return record_json(self)

    def write(self, path: str | Path) -> Path:
        """Write the JSON to a file, whole or not at all; returns its path.

        Raises ValueError where a newer hpsweep has written a law, and where the path is that of no file.
        """
        return write_record(self, path, what="law")

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """The law in a file, of this version or an earlier one.

        Raises ValueError if it is none, one of a later version, or one whose parts do not belong together.
        """
        return cls(**law_record.law_fields(path))


def check_law_path(path: str | Path) -> None:
    """Raise ValueError where writing a law would destroy that of a newer hpsweep, or what is no file."""
    check_record_path(path, version=LAW_VERSION, what="law")


def design_of(table: pd.DataFrame, params: float, tokens: float, dense: bool) -> Design:
    """Cells or points (columns sparsity, params, tokens) in units of so many parameters and tokens."""
    x, n, d = (np.log(column.to_numpy(float)) for column in (1 - table["sparsity"], table["params"], table["tokens"]))
    return Design(x, n - math.log(params), d - math.log(tokens), dense)
