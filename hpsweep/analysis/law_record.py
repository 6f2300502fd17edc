"""The file of a law: what is in it, whether its parts belong together, and laws of earlier versions."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hpsweep.analysis.law_fit import THETA, Design, Misfit, huber, predicted, raw
from hpsweep.analysis.law_uncertainty import names

LAW_VERSION = 2
"""Raised when a field of the law's JSON changes its meaning or is added."""

_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("form", "status", "why", "residual_kind"), str),
    **dict.fromkeys(("coefficients", "centred", "centre", "ranges", "levels", "conventions", "starts"), dict),
    **dict.fromkeys(("intervals", "weak", "warnings", "left_out", "held_out", "correlations", "profiles"), list),
    **dict.fromkeys(("residuals", "replicates", "outliers"), list),
    **dict.fromkeys(("cells", "rows", "seed", "schema_version"), int),
    **dict.fromkeys(("objective", "delta"), (int, float)),
    "without_outliers": (dict, type(None)),
}
_WORDS = {
    "form": ("sparse", "dense"),
    "status": ("ok", "weak", "not_converged"),
    "residual_kind": ("log", "raw"),
}
_EQUAL = 1e-6  # relative; how well the parts of a file must agree


def read(path: str | Path, fields: Iterable[str]) -> dict[str, Any]:
    """The fields of the law in a file, checked. Raises ValueError, on one line, for whatever is wrong with it."""
    values = _json(path)
    version = values["schema_version"]
    if version > LAW_VERSION:
        raise ValueError(
            f"{path} is a law of version {version}, and this hpsweep reads up to {LAW_VERSION}: upgrade hpsweep."
        )
    try:
        values = _from_version_1(values) if version == 1 else values
        _check(values, set(fields))
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{path} is a damaged law ({type(error).__name__}: {error}): fit it anew.") from None
    except ValueError as error:
        raise ValueError(f"{path} is a damaged law: {' '.join(str(error).split())}. Fit it anew.") from None
    return values


def _json(path: str | Path) -> dict[str, Any]:
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_no_constant)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); give the file of a law.") from None
    except (ValueError, RecursionError):
        values = None
    version = values.get("schema_version") if isinstance(values, dict) else None
    if not isinstance(values, dict) or isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ValueError(f"{path} is no law; write one with Law.write or the law command.")
    return values


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is no JSON")


def _from_version_1(values: dict[str, Any]) -> dict[str, Any]:
    """Version 1 knew log residuals alone, and called rows cells; it named no outliers."""
    places = {(row["sparsity"], row["params"], row["tokens"]) for row in values["residuals"]}
    added: dict[str, Any] = {"residual_kind": "log", "outliers": [], "without_outliers": None}
    counted = {"rows": values["cells"], "cells": len(places), "schema_version": LAW_VERSION}
    return {**values, **added, **counted}


def _check(values: dict[str, Any], fields: set[str]) -> None:
    """Raise ValueError unless the fields are there, of their types, and belong together."""
    if set(values) != fields:
        lacking, odd = sorted(fields - set(values)), sorted(set(values) - fields)
        raise ValueError(f"missing or unknown are {', '.join(lacking + odd)}")
    for name, kind in _KINDS.items():
        if not isinstance(values[name], kind) or isinstance(values[name], bool):
            raise ValueError(f"{name} is {values[name]!r:.40}")
    for name, words in _WORDS.items():
        if values[name] not in words:
            raise ValueError(f"{name} is {values[name]!r}, not one of {', '.join(words)}")
    theta = np.array([values["centred"][name] for name in THETA], float)
    replicates = np.array(values["replicates"], float)
    _check_numbers("centred", theta)
    _check_numbers("replicates", replicates)
    if replicates.ndim != 2 or replicates.shape[1] != len(THETA):
        raise ValueError(f"replicates has the shape {replicates.shape}, not a row of {len(THETA)} numbers per resample")
    _check_positive({"delta": values["delta"], **values["centre"]})
    _check_together(values, theta)


def _check_numbers(name: str, numbers: Any) -> None:
    if not (numbers.size and np.isfinite(numbers).all() and (numbers >= 0).all()):
        raise ValueError(f"{name} has values that are no number, or negative")


def _check_positive(numbers: dict[str, float]) -> None:
    for name, value in numbers.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value!r}, and must be positive")


def _check_together(values: dict[str, Any], theta: Any) -> None:
    """Raise ValueError where coefficients, centred numbers, residuals and objective do not say the same."""
    dense, centre = values["form"] == "dense", values["centre"]
    numbers = raw(theta[None], centre["params"], centre["tokens"])[0][2 if dense else 0 :]
    for name, number in zip(names(dense), numbers, strict=True):
        said = values["coefficients"][name]
        if not _same(math.inf if said is None else said, float(number)):
            raise ValueError(f"its coefficient {name} is {said}, and its centred numbers say {number:.6g}")
    rows = pd.DataFrame(values["residuals"])
    x, n, d, loss = (rows[name].to_numpy(float) for name in ("sparsity", "params", "tokens", "loss"))
    if not (len(rows) and ((x >= 0) & (x < 1) & (n > 0) & (d > 0) & (loss > 0)).all()):
        raise ValueError("its residuals have values that no model can have")
    design = Design(np.log(1 - x), np.log(n / centre["params"]), np.log(d / centre["tokens"]), dense)
    misfit = Misfit(values["delta"], values["residual_kind"] == "log")
    objective = float(huber(misfit.residual(loss, predicted(theta[None], design)[0]), misfit.delta).mean())
    if not _same(values["objective"], objective):
        raise ValueError(f"its objective is {values['objective']:.6g}, and its residuals say {objective:.6g}")


def _same(first: float, second: float) -> bool:
    return first == second or math.isclose(first, second, rel_tol=_EQUAL, abs_tol=1e-18)
