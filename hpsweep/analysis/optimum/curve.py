"""The curve of a loss over one hyperparameter, and how well it agrees with the losses of some cells.

    loss(x)     = lowest + steepness rise(x - place, skew)
    rise(z, a)  = 2 (exp(a z) - 1 - a z) / a^2 = z^2 (1 + a z / 3 + ...)        lowest at z = 0, whatever a: a parabola
                  at a = 0, else steeper on one side (Varian's "linex" loss, 1975); at a = 1 it rises 2.0 times as much
                  an octave to the right as an octave to the left

window.py chooses the cells, minimum.py the curve; the docstring of optima.py explains how these parts make an optimum,
and why they are as they are.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hpsweep.analysis.runs.cells import Cells, Floats, noise_growth

SKEW = 1.2
"""Standard deviation of the skew, per octave. It is .8 on 141 published learning-rate slices; on half octaves .8 covers
.93 of curves that are kinked by 2, and 1.2 covers .95, as wide (`kinked 2` of benchmarks/coverage.py)."""

MISFIT, ONE_SIDED = 0.1, 0.12
"""Standard deviations of a loss about such a curve, as fractions of its rise above the lowest cell: by itself, and with
all others on its side of the minimum, the latter times half an octave and what it lies away from there."""

CENTRE = np.zeros(1)  # as a place

LIMIT = 1.96
"""Standard errors within which a place agrees with the losses."""

PLACE_STEP = 0.04
"""Octaves between places of a minimum that are tried."""
_MISPLACED = 1.0  # octaves
ROUNDING = 0.01
"""Losses count as no more exact than the grid of places: standard deviation, of their largest rise."""

_LEAST = 1e-24  # (nats/token)^2; no variance is smaller


def curve_rise(z: Floats, skew: Floats) -> Floats:
    """The rise of the loss z octaves from the minimum, in units of the rise at one octave without skew."""
    az = skew * z
    is_small = np.abs(az) < 1e-4
    large = np.where(is_small, 1.0, az)
    series = 1 + az / 3
    whole = 2 * (np.expm1(large) - large) / (large * large)
    return np.asarray(z * z * np.where(is_small, series, whole))


class CurvePoints(NamedTuple):
    """Cells as points: octaves from the centre, nats/token above it, and the inverse of the covariance of these."""

    x: Floats
    y: Floats
    precision: Floats  # (places, points, points): of curves whose minimum is at each of some places, or at one


class FittedCurves(NamedTuple):
    """The best curve for every (place, skew): each array is (places, skews)."""

    misfit: Floats  # chi^2, that of the skew with it
    steepness: Floats
    lowest: Floats
    variance: Floats  # of lowest


def curve_points(
    cells: Cells, index: npt.NDArray[np.intp], centre: int, variance: Floats, slope: float, place: Floats
) -> CurvePoints:
    """The cells of `index`, whose means have this variance, and a slope of sd `slope` that all share.

    The noise grows from each place, where that is left of the centre, or from _MISPLACED before it: a lucky run amid
    much noise, which lies to the right, makes a centre around which the noise seems low.
    """
    x = cells.x[index] - cells.x[centre]
    y = cells.adjusted[index] - cells.adjusted[centre]
    above = y - y.min()
    z = x - place[:, None]
    # What every loss lies off a curve by itself: its noise, a part of its rise, and rounding.
    start = np.clip(place, -_MISPLACED, 0.0)
    growth = np.array([noise_growth(x, at) for at in start]) / noise_growth(x, 0.0)
    alone = variance[index] * growth**2 + (MISFIT * above) ** 2 + (ROUNDING * above.max()) ** 2
    # Together with all on its side of the minimum; and with all, by the slope of the seeds.
    together = one_sided_sd(z) * above
    beside = np.sign(z)[:, :, None] == np.sign(z)[:, None, :]
    covariance = np.maximum(alone, _LEAST)[..., None] * np.eye(len(x)) + slope**2 * np.outer(x, x)
    covariance += together[:, :, None] * together[:, None, :] * beside
    return CurvePoints(x, y, np.linalg.inv(covariance))


def misfit_sd(z: Floats) -> Floats:
    """Standard deviation of a loss about the curve, z octaves from the minimum, as a fraction of its rise."""
    return np.hypot(MISFIT, one_sided_sd(z))


def one_sided_sd(z: Floats) -> Floats:
    """The part of it that all losses on one side of the minimum share, as a fraction of their rise."""
    return np.asarray(ONE_SIDED * (0.5 + np.abs(z)))


def fitted_curves(points: CurvePoints, place: Floats, skew: Floats) -> FittedCurves:
    """Generalized least squares for every place and skew; a curve with its maximum there is a straight line."""
    # The constant of the curve is eliminated by a centred precision matrix.
    precision = points.precision
    ones = precision.sum(axis=-1)
    total = ones.sum(axis=-1)
    centred = precision - ones[:, :, None] * ones[:, None, :] / total[:, None, None]
    # The steepness by the normal equation, not below 0.
    rises = curve_rise(points.x - place[:, None, None], skew[:, None])
    weighed = rises @ centred
    square = (weighed * rises).sum(axis=-1)
    product = weighed @ points.y
    risen = (rises * ones[:, None, :]).sum(axis=-1) / total[:, None]
    known = square > 1e-9 * (rises**2 * ones[:, None, :]).sum(axis=-1)
    square = np.where(known, square, math.inf)
    steepness = np.maximum(product, 0.0) / square
    # chi^2, with that of the skew.
    misfit = ((points.y @ centred) * points.y).sum(axis=-1)[:, None] - steepness * np.maximum(product, 0.0)
    lowest = (ones @ points.y / total)[:, None] - steepness * risen
    variance = 1 / total[:, None] + risen**2 / square
    return FittedCurves(misfit + (skew / SKEW) ** 2, steepness, lowest, variance)


def place_grid(start: float, end: float, step: float = PLACE_STEP) -> Floats:
    """Places from start to end, both with them, and the centre, 0."""
    inner = np.arange(math.ceil(start / step), math.floor(end / step) + 1) * step
    return np.unique(np.concatenate([[start], inner, [end]]))
