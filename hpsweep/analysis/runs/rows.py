"""Rows of a table as plain data, which JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd


def plain_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as plain data, null where something is missing."""
    return [plain_row(row) for row in table.to_dict("records")]


def plain_row(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Python numbers, and None for what is missing or not finite."""
    return {str(name): _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
