"""What a law says at points, with bands and how far from the fit that is; what other coefficients say."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpsweep.analysis.law import resample as uncertainty
from hpsweep.analysis.law.data import LawData, design_of
from hpsweep.analysis.law.resample import RAW, Fit, coefficient_names
from hpsweep.analysis.law.solver import THETA, Design, Misfit, centred_theta, huber_loss, predicted_losses
from hpsweep.analysis.runs.arguments import check_table
from hpsweep.analysis.runs.cells import Floats
from hpsweep.analysis.runs.checks import check_numeric
from hpsweep.english import are
from hpsweep.text import shown

TEN_FOLD = 10.0
"""How far beyond the fitted N and D the law may be asked without saying extrapolate=True."""


def evaluate(coefficients: Mapping[str, float], sparsity: Any, params: Any, tokens: Any) -> Floats:
    """The loss by the formula, for coefficients in raw units: a_S, b_S, c_S (or A alone), b_N, a_D, b_D, c.

    Raises ValueError for what is no mapping, and for missing or unknown names.
    """
    if not isinstance(coefficients, Mapping):
        raise ValueError(
            f"coefficients is {shown(coefficients)}; give a dict of names and numbers, such as law.coefficients."
        )
    theta = centred_theta(_vector(coefficients), 1.0, 1.0)
    density = 1 - np.asarray(sparsity, float)
    x, n, d = np.broadcast_arrays(density, np.asarray(params, float), np.asarray(tokens, float))
    design = Design(np.log(x.ravel()), np.log(n.ravel()), np.log(d.ravel()), dense="A" in coefficients)
    losses = predicted_losses(theta, design)[0]
    return np.asarray(losses.reshape(x.shape))


def _vector(coefficients: Mapping[str, float]) -> Floats:
    given = dict(coefficients)
    if "A" in given:
        given = {"a_S": 0.0, "b_S": 0.0, "c_S": given.pop("A"), **given}
    if set(given) != set(RAW):
        lacking = sorted(set(RAW) - set(given))
        odd = sorted(set(given) - set(RAW))
        raise ValueError(
            f"coefficients {', '.join(lacking + odd)} are missing or unknown; give {', '.join(RAW)} (sparse), or "
            f"{', '.join(coefficient_names(True))} (dense)."
        )
    return np.array([float(given[name]) for name in RAW])


def score(law: LawData, coefficients: Mapping[str, float]) -> float:
    """The objective (mean Huber loss, residuals and delta as the law's) of other coefficients at the law's own rows.

    Raises ValueError for what is no law, and as `evaluate` does.
    """
    check_law(law)
    cells = pd.DataFrame(law.residuals)
    losses = evaluate(coefficients, cells["sparsity"], cells["params"], cells["tokens"])
    residual = law_misfit(law).residual(cells["loss"].to_numpy(float), losses)
    return float(huber_loss(residual, law.delta).mean())


def predict(law: LawData, points: pd.DataFrame, *, extrapolate: bool = False) -> pd.DataFrame:
    """The points (columns params, tokens, and sparsity unless it is 0) with the loss there and its 95 % bands.

    Columns added: predicted; low and high, of the law; run_low and run_high, of one more measured run; reach: inside
    the fitted ranges, beyond them by up to ten-fold in N or D, or far (more, or a sparsity that was not fitted).
    A warning names the ranges where points are outside of them. Raises ValueError for far points unless `extrapolate`,
    and for values that no model can have.
    """
    check_law(law)
    check_table(points, "points", ("params", "tokens"), "pd.DataFrame({'params': [1e9], 'tokens': [2e10]})")
    table = points.assign(sparsity=points.get("sparsity", 0.0))
    where = reach_of(law, table, extrapolate=extrapolate)
    outside = int((where != "inside").sum())
    if outside:
        warnings.warn(
            f"{outside} of {len(where)} points {are(outside)} outside of what the law was fitted to "
            f"({range_text(law)}): what it says there is extrapolated, and the column reach says how far.",
            stacklevel=2,
        )
    centre, bands = uncertainty.predicted_bands(
        fit_of(law), replicates_of(law), design_at(law, table), np.random.default_rng([law.seed, 310])
    )
    return points.assign(predicted=centre, **bands, reach=where)


def reach_of(law: LawData, table: pd.DataFrame, *, extrapolate: bool) -> npt.NDArray[np.str_]:
    """inside, beyond or far, for each point (columns sparsity, params, tokens).

    Raises ValueError for far points unless `extrapolate`, and for values that no model can have.
    """
    check_points(law, table)
    where = point_reach(law, table["sparsity"], table["params"], table["tokens"])
    if (where == "far").any() and not extrapolate:
        row = table[where == "far"].iloc[0]
        raise ValueError(
            f"sparsity {row['sparsity']:g}, params {row['params']:.4g}, tokens {row['tokens']:.4g} is far from what "
            f"was fitted ({range_text(law)}): more than {TEN_FOLD:g} times in N or D, or a sparsity outside. "
            "Say extrapolate=True to have it, marked."
        )
    return where


def check_law(law: Any) -> None:
    """Raise ValueError unless it is a law."""
    if not isinstance(law, LawData):
        raise ValueError(
            f"law is {shown(law)}; give a Law, such as hp.law.fit_law or hp.law.Law.read('law.json') returns."
        )


def check_points(law: LawData, table: pd.DataFrame) -> None:
    """Raise ValueError for values that no model, or no model of this law, can have."""
    for name in ("sparsity", "params", "tokens"):
        check_numeric(table[name])
    sparsity = table["sparsity"].to_numpy(float)
    outside = ~((sparsity >= 0) & (sparsity < 1))
    if outside.any():
        raise ValueError(f"sparsity is {sparsity[outside][0]:g}; it must be in [0, 1).")
    if law.form == "dense" and (sparsity > 0).any():
        raise ValueError(f"the law is dense and knows no sparsity {sparsity.max():g}; fit one to runs at several.")
    for name in ("params", "tokens"):
        values = table[name].to_numpy(float)
        impossible = ~(np.isfinite(values) & (values > 0))
        if impossible.any():
            raise ValueError(f"{name} is {values[impossible][0]:g}; it must be positive.")


def point_reach(law: LawData, sparsity: Any, params: Any, tokens: Any) -> npt.NDArray[np.str_]:
    """inside, beyond or far, for each point (see `predict`)."""
    inside = near = np.ones(np.broadcast(sparsity, params, tokens).shape, bool)
    axes = (("sparsity", sparsity, 1.0), ("params", params, TEN_FOLD), ("tokens", tokens, TEN_FOLD))
    for name, values, factor in axes:
        at = np.asarray(values, float)
        low, high = law.ranges[name]
        inside = inside & (at >= low * (1 - 1e-9)) & (at <= high * (1 + 1e-9))
        near = near & (at >= low / factor * (1 - 1e-9)) & (at <= high * factor * (1 + 1e-9))
    return np.where(inside, "inside", np.where(near, "beyond", "far"))


def range_text(law: LawData) -> str:
    """The fitted ranges in words."""
    s, n, d = (law.ranges[name] for name in ("sparsity", "params", "tokens"))
    return f"S {s[0]:g} to {s[1]:g}, N {n[0]:.4g} to {n[1]:.4g}, D {d[0]:.4g} to {d[1]:.4g}"


def replicates_of(law: LawData) -> Floats:
    """The resampled laws, rows of centred numbers in the order of THETA."""
    return np.array(law.replicates)


def theta_of(law: LawData) -> Floats:
    """The law's centred numbers, one row."""
    return np.array([[law.centred[name] for name in THETA]])


def design_at(law: LawData, table: pd.DataFrame) -> Design:
    """Points (columns sparsity, params, tokens) in the law's centred units."""
    return design_of(table, law.centre["params"], law.centre["tokens"], law.form == "dense")


def law_misfit(law: LawData) -> Misfit:
    """How the law was held against the losses."""
    return Misfit(law.delta, law.residual_kind == "log")


def fit_of(law: LawData) -> Fit:
    """The law's fit again, from its record."""
    cells = pd.DataFrame(law.residuals)
    return Fit(
        theta=theta_of(law)[0],
        design=design_at(law, cells),
        loss=cells["loss"].to_numpy(float),
        misfit=law_misfit(law),
        params=law.centre["params"],
        tokens=law.centre["tokens"],
    )
