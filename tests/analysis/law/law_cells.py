"""Made tables for the tests of laws, and where the published runs are."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hpsweep.analysis.law.predict import evaluate
from tests.paths import ROOT

SPARSE = {"a_S": 12.0, "b_S": 0.9, "c_S": 40.0, "b_N": 0.25, "a_D": 5e8, "b_D": 0.4, "c": 0.8}
DENSE = {"A": 400.0, "b_N": 0.34, "a_D": 1.2e9, "b_D": 0.35, "c": 1.7}

REFERENCE = Path(os.environ.get("HPSWEEP_REFERENCE_DATA", ROOT.parent / "shared/reference/data"))


def published(name: str) -> pd.DataFrame:
    """A table of published runs; the test is skipped where there is none."""
    if not (REFERENCE / name).is_file():
        pytest.skip(f"no published runs: {REFERENCE / name} is absent (set HPSWEEP_REFERENCE_DATA)")
    return pd.read_csv(REFERENCE / name)


def t5() -> pd.DataFrame:
    """The T5 runs with N (nonzero), D (tokens), and columns named as fit_law has them by default."""
    table = published("t5_sparse_scaling.csv").rename(columns={"val-loss": "loss"})
    params = 24 * 12 * 768**2 * table["scale"] * (1 - table["sparsity"])
    return table.assign(params=params, tokens=table["steps"] * 128 * 512)


def made(coefficients: dict[str, float] = SPARSE, *, noise: float = 0.0, seed: int = 0, **axes: Any) -> pd.DataFrame:
    """A full grid of cells with the losses of a law, and relative noise."""
    dense = "A" in coefficients
    axes = {
        "sparsity": [0.0] if dense else [0.0, 0.5, 0.75, 0.875],
        "params": [1e6 * 4**k for k in range(5)],
        "tokens": [1e9 * 4**k for k in range(5)],
        **axes,
    }
    table = pd.DataFrame(list(itertools.product(*axes.values())), columns=list(axes))
    losses = evaluate(coefficients, table["sparsity"], table["params"], table["tokens"])
    factor = np.exp(noise * np.random.default_rng(seed).normal(size=len(table)))
    table = table.assign(loss=losses * factor)
    return table.drop(columns="sparsity") if dense else table
