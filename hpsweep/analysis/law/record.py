"""The file of a law: what every field may hold, whether its parts belong together, and laws of earlier versions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hpsweep.analysis.law.resample import coefficient_names
from hpsweep.analysis.law.solver import THETA, Design, Misfit, huber_loss, predicted_losses, raw_coefficients
from hpsweep.records import check_version, choice, mapping, number, optional, plain, read_record, rows, table, whole
from hpsweep.records import text as words

LAW_VERSION = 2
"""Raised when a field of the law's JSON changes its meaning or is added."""

_REAL = number(-1e300, 1e300)
_AT_LEAST_0 = number(0, 1e300)
_POSITIVE = number(0, 1e300, ends="(]")
_ROWS = rows(mapping(plain))
_ENDS = rows(_REAL, least=2, most=2)

LAW = table(
    form=choice("dense", "sparse"),
    status=choice("ok", "weak", "not_converged"),
    why=words,
    coefficients=mapping(optional(_REAL)),
    centred=table(**dict.fromkeys(THETA, _AT_LEAST_0)),
    centre=table(params=_POSITIVE, tokens=_POSITIVE),
    objective=_AT_LEAST_0,
    residual_kind=choice("log", "raw"),
    delta=_POSITIVE,
    cells=whole(1),
    rows=whole(1),
    ranges=table(sparsity=_ENDS, params=_ENDS, tokens=_ENDS, loss=_ENDS),
    levels=mapping(whole(1)),
    conventions=mapping(words),
    starts=table(polished=whole(0), agreeing=whole(0)),
    intervals=_ROWS,
    weak=rows(table(coefficient=words, reason=words)),
    warnings=rows(words),
    left_out=_ROWS,
    held_out=_ROWS,
    correlations=_ROWS,
    profiles=_ROWS,
    residuals=rows(mapping(plain), least=1),
    outliers=_ROWS,
    without_outliers=optional(mapping(plain)),
    replicates=rows(rows(_AT_LEAST_0, least=len(THETA), most=len(THETA)), least=1),
    seed=whole(0),
    schema_version=whole(1),
)
"""The check of every field of a law."""

_EQUAL = 1e-6  # relative; how well the parts of a file must agree


def law_fields(path: str | Path) -> dict[str, Any]:
    """The fields of the law in a file, checked. Raises ValueError, on one line, for whatever is wrong with it."""
    values = read_record(path, refusal="is no law", remedy="write one with Law.write or the law command")
    check_version(values, path, name="schema_version", version=LAW_VERSION, what="law", anew="fit it anew", oldest=1)
    try:
        if values["schema_version"] == 1:
            values = _from_version_1(values)
        LAW(values, "")
        _check_together(values)
    except (KeyError, TypeError) as error:  # a row without one of its columns, or with text in the place of a number
        raise ValueError(f"{path} is a damaged law ({type(error).__name__}: {error}); fit it anew.") from None
    except ValueError as error:
        raise ValueError(f"{path} is a damaged law ({error}); fit it anew.") from None
    return values


def _from_version_1(values: dict[str, Any]) -> dict[str, Any]:
    """Version 1 knew log residuals alone, and called rows cells; it named no outliers."""
    places = {(row["sparsity"], row["params"], row["tokens"]) for row in values["residuals"]}
    added: dict[str, Any] = {"residual_kind": "log", "outliers": [], "without_outliers": None}
    counted = {"rows": values["cells"], "cells": len(places), "schema_version": LAW_VERSION}
    return {**values, **added, **counted}


def _check_together(values: dict[str, Any]) -> None:
    """Raise ValueError where coefficients, centred numbers, residuals and objective do not say the same."""
    dense = values["form"] == "dense"
    centre = values["centre"]
    # The coefficients are the centred numbers in raw units.
    theta = np.array([values["centred"][name] for name in THETA], float)
    numbers = raw_coefficients(theta[None], centre["params"], centre["tokens"])[0][2 if dense else 0 :]
    for name, number_ in zip(coefficient_names(dense), numbers, strict=True):
        recorded = values["coefficients"][name]
        if not _same(math.inf if recorded is None else recorded, float(number_)):
            raise ValueError(f"its coefficient {name} is {recorded}, and its centred numbers say {number_:.6g}")
    # The objective is that of the residuals' rows.
    cells = pd.DataFrame(values["residuals"])
    x, n, d, loss = (cells[name].to_numpy(float) for name in ("sparsity", "params", "tokens", "loss"))
    if not ((x >= 0) & (x < 1) & (n > 0) & (d > 0) & (loss > 0)).all():
        raise ValueError("its residuals have values that no model can have")
    design = Design(np.log(1 - x), np.log(n / centre["params"]), np.log(d / centre["tokens"]), dense)
    misfit = Misfit(values["delta"], values["residual_kind"] == "log")
    residual = misfit.residual(loss, predicted_losses(theta[None], design)[0])
    objective = float(huber_loss(residual, misfit.delta).mean())
    if not _same(values["objective"], objective):
        raise ValueError(f"its objective is {values['objective']:.6g}, and its residuals say {objective:.6g}")


def _same(first: float, second: float) -> bool:
    return first == second or math.isclose(first, second, rel_tol=_EQUAL, abs_tol=1e-18)
