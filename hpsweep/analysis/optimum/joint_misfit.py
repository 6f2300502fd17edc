"""How far losses deviate from any polynomial, and the fit of a window that accounts for it.

A cubic takes up a lopsided basin in part only: it puts the minimum too far to the gentle side, and more seeds make it
surer of that. As for one hyperparameter (curve.py), a loss lies off a true polynomial by its noise, by MISFIT of its
rise, and, along either field, together with all losses on its side of the minimum, by `one_sided_sd` of its rise
along that field. To this comes what the polynomial itself shows:

    lopsided   |right - left| / (right + left), what it rises an octave to the right of its minimum and to the left
    bent       LOPSIDED times that, MOST at most: by so much of their rise all losses on one side of the minimum lie off
               together, and those on the other as much the opposite way

For a cubic says neither how near the minimum the lopsidedness sets in nor all of it: of a basin that rises twice as
much at once, a kink, it shows a third, and shifts instead. A basin that shows none is taken for even.

The polynomial is fitted again by generalized least squares with all this, so that losses far up have little say, and
with a prior: a skew of SKEW in its cubic coefficients. What its minimum errs by, to first order, is `moved`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from hpsweep.analysis.optimum.curve import MISFIT, SKEW, one_sided_sd
from hpsweep.analysis.optimum.joint_fit import (
    Indices,
    Knowledge,
    WindowMinima,
    derivative_coefficients,
    design_matrix,
    polynomial_values,
    second_derivatives,
    window_minima,
)
from hpsweep.analysis.optimum.joint_points import Points
from hpsweep.analysis.runs.cells import Floats

LOPSIDED, MOST_BENT = 3.0, 0.33
"""Of a kink of 2, which lies a third of its rise off a parabola, a cubic shows .1. With 4 and a half the rows
`lopsided` and `kinked 2` of benchmarks/surface.py are no better covered, and a fifth wider."""

_ROUNDING = 0.01  # losses count as no more exact: of the largest rise in the window
_CUBES = (((3, 0), 1), ((2, 1), 3), ((1, 2), 3), ((0, 3), 1))  # exponents as in POWERS, and how many such products
_ONE_STEP = np.array([[-1.0], [0.0], [1.0]])  # octaves


class Refit(NamedTuple):
    """The polynomial of a window, fitted again, and what its minimum errs by beside the noise."""

    found: WindowMinima
    moved: Floats  # (field, field) covariance, octaves^2; as far as its points go where the loss does not bend upwards
    stretch: float  # by how much residuals that neither noise nor misfit explain widen an interval


def generalized_refit(points: Points, losses: Floats, centres: Indices, first: WindowMinima, noise: Floats) -> Refit:
    """The same window by generalized least squares; as it was where its points then hardly tell the terms apart.

    First without what it shows of lopsidedness, which the second takes from there.
    """
    rises = points.adjusted[first.used] - points.adjusted[first.used].min()
    alone = np.diag(noise**2 / np.maximum(points.n, 1) + (_ROUNDING * float(rises.max())) ** 2)
    found = first
    for rows, shown in ((1, False), (len(losses), True)):  # the first without replicates
        off = misfit_covariance(points, found, shown)
        known = Knowledge(off + alone, _cubic(found), found.places[0])
        found = (
            window_minima(points, losses[:rows], centres[:rows], first.window, float(noise[centres[0]]), known) or first
        )
    return Refit(found, _moved(points, found, off, known), _stretch(points, found, known.covariance))


def _cubic(found: WindowMinima) -> Floats:
    """Standard deviations of the cubic coefficients, by SKEW and the bends of a polynomial at its minimum."""
    uu, vv, _ = _bends(found)
    return np.array([SKEW / 3 * count * uu ** (a / 3) * vv ** (b / 3) for (a, b), count in _CUBES])


def _bends(found: WindowMinima) -> Floats:
    """Halves of the second derivatives at the minimum, by u u, v v and u v, nats/octave^2: those of a basin.

    Where the polynomial has none there, as at an end, those of a very flat one.
    """
    place = found.places[:1] - found.centre
    uu, uv, vv = (
        float(value[0]) / 2 for value in second_derivatives(found.coefficients[None], place, found.window.degree)
    )
    least = 1e-3 * max(uu, vv, 1e-12)
    uu, vv = max(uu, least), max(vv, least)
    most = 0.999 * math.sqrt(uu * vv)
    return np.array([uu, vv, min(max(uv, -most), most)])


def _rises(found: WindowMinima, z: Floats) -> Floats:
    """(points, field): what the loss rises z octaves from the minimum, by its bends there.

    What neither field does alone is shared out as what they do.
    """
    uu, vv, uv = _bends(found)
    along = np.array([uu, vv]) * z**2
    whole = along.sum(axis=1, keepdims=True)
    jointly = np.divide(2 * uv * (z[:, 0] * z[:, 1])[:, None], whole, out=np.zeros_like(whole), where=whole > 0)
    return np.asarray(along * (1 + jointly))


def misfit_covariance(points: Points, found: WindowMinima, shown: bool) -> Floats:
    """(points, points) covariance of the deviations of losses from a polynomial around its minimum, (nats/token)^2.

    shown: with what the polynomial shows of its own lopsidedness.
    """
    degree = found.window.degree
    place = found.places[0] - found.centre
    z = points.x - found.places[0]
    rises = _rises(found, z)
    # Every loss by itself.
    above = rises.sum(axis=1)
    covariance = np.diag((MISFIT * above) ** 2)
    for field, lopsided in enumerate(_lopsided(found.coefficients, place, degree)):
        at, rise = z[:, field], rises[:, field]
        # All on one side of the minimum together.
        beside = np.sign(at)[:, None] == np.sign(at)
        together = one_sided_sd(at) * rise
        covariance += np.outer(together, together) * beside
        if shown:  # one side as much the opposite way as the other
            bent = min(LOPSIDED * lopsided, MOST_BENT) * np.sign(at) * rise
            covariance += np.outer(bent, bent)
        if degree == 2:  # the skew that a cubic would fit
            skewed = SKEW / 3 * at * rise
            covariance += np.outer(skewed, skewed)
    return np.asarray(covariance)


def _lopsided(coefficients: Floats, place: Floats, degree: int) -> list[float]:
    """How much more a polynomial rises on one side of its minimum, per field, as a fraction of both rises."""
    found = []
    for axis in np.eye(2):
        left, here, right = polynomial_values(np.tile(coefficients, (3, 1)), place + _ONE_STEP * axis, degree)
        both = abs(left - here) + abs(right - here)
        lopsided = 0.0
        if both > 0:
            lopsided = abs(right - left) / both
        found.append(lopsided)
    return found


def _moved(points: Points, found: WindowMinima, off: Floats, known: Knowledge) -> Floats:
    """Covariance of the minimum, which moves by - bends^-1 slopes as losses and cubic coefficients err.

    Only of one field where it lies at an end of the other.
    """
    degree = found.window.degree
    place = (found.places[0] - found.centre)[None]
    covariance = np.zeros((2, 2))
    free = np.flatnonzero(found.sides[0] == 0)
    if not len(free):
        return covariance
    # How far the minimum moves as the coefficients do.
    uu, uv, vv = (float(value[0]) for value in second_derivatives(found.coefficients[None], place, degree))
    bends = np.array([[uu, uv], [uv, vv]])[np.ix_(free, free)]
    if np.linalg.eigvalsh(bends)[0] <= 0:
        return np.diag(np.ptp(points.x[found.used], axis=0) ** 2 * (found.sides[0] == 0))
    each = np.eye(len(found.coefficients))
    slopes = [
        design_matrix(place, degree - 1)[0] @ derivative_coefficients(each, degree, int(field)).T for field in free
    ]
    moves = -np.linalg.solve(bends, np.array(slopes))  # (free fields, coefficients)
    # As the losses err, and as the cubic coefficients do.
    by_losses = moves @ found.solve
    errors = by_losses @ off[np.ix_(found.used, found.used)] @ by_losses.T
    if degree > 2:
        terms = design_matrix(points.x[found.used] - found.centre, degree)
        by_prior = (by_losses @ terms - moves)[:, -len(known.cubic) :] * known.cubic
        errors += by_prior @ by_prior.T
    covariance[np.ix_(free, free)] = errors
    return covariance


def _stretch(points: Points, found: WindowMinima, whole: Floats) -> float:
    """By how much residuals that neither noise nor misfit explain widen an interval."""
    terms = design_matrix(points.x[found.used] - found.centre, found.window.degree)
    left = points.adjusted[found.used] - terms @ found.coefficients
    df = max(len(left) - len(found.coefficients), 1)
    covariance = whole[np.ix_(found.used, found.used)]
    square = float(left @ np.linalg.solve(covariance, left)) / df  # chi square per degree of freedom
    if square <= 1 + 2 * math.sqrt(2 / df):  # two standard deviations of chi square
        return 1.0
    return math.sqrt(square)
