"""Rows of a table as plain data, which JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as plain data, null where something is missing."""
    return [record(row) for row in table.to_dict("records")]


def record(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Python numbers, and None for what is missing or not finite."""
    values = {str(name): value.item() if isinstance(value, np.generic) else value for name, value in row.items()}
    return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in values.items()}
