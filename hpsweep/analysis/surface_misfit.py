"""What a loss lies off every polynomial, and the fit of a window that knows it.

A cubic takes up a lopsided basin in part only: one that bends more at one place than at others puts its minimum too far
to the gentle side, and more seeds make it surer of that. So, as for one hyperparameter (fit.py), a loss lies off a true
polynomial by its noise, by MISFIT of its rise, and together with all losses on its side of the minimum, along either
field, by what `one_sided` says of its rise along that field. To this comes what the polynomial shows itself:

    lopsided   |right - left| / (right + left), its rises an octave to the right and to the left of its minimum
    by         LOPSIDED times that, at most MOST: what all losses on a side lie off together, as fractions of their rise

A basin that bends at once at its minimum, a kink, shows a third of its lopsidedness in a cubic, which shifts instead.
One without any is left as it is. A quadratic cannot show any: there the skew may be what SKEW says of one field.

The polynomial is then fitted by generalized least squares, which give losses far up less say; what its minimum may err
by is added to the interval, as the minimum moves with the losses.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from hpsweep.analysis.cells import Floats
from hpsweep.analysis.fit import MISFIT, SKEW, one_sided
from hpsweep.analysis.surface_fit import Found, Indices, bend, derivative, design, evaluated, find
from hpsweep.analysis.surface_points import Points

LOPSIDED, MOST = 4.0, 0.5
"""Chosen by the rows `lopsided` and `kinked 2` of benchmarks/surface.py."""

_ROUNDING = 0.01  # losses count as no more exact: of the largest rise in the window
_ONE_STEP = np.array([[-1.0], [0.0], [1.0]])  # octaves


class Refit(NamedTuple):
    """The polynomial of a window, fitted again, and what its minimum errs by beside the noise."""

    found: Found
    covariance: Floats  # (field, field), octaves^2; infinite where the loss does not bend
    stretch: float  # by how much residuals that neither noise nor misfit explain widen an interval


def refitted(points: Points, losses: Floats, centres: Indices, first: Found, noise: Floats) -> Refit:
    """The same window by generalized least squares; as it was where its points then hardly tell the terms apart."""
    off = misfit(points, first)
    rises = points.adjusted[first.used] - points.adjusted[first.used].min()
    alone = noise**2 / np.maximum(points.n, 1) + (_ROUNDING * float(rises.max())) ** 2
    whole = off + np.diag(alone)
    found = find(points, losses, centres, first.window, float(noise[centres[0]]), whole) or first
    return Refit(found, _moved(found, off), _stretch(points, found, whole))


def misfit(points: Points, found: Found) -> Floats:
    """(points, points) covariance of what losses lie off a polynomial around its minimum, (nats/token)^2."""
    degree, place = found.window.degree, found.places[0] - found.centre
    above = np.where(points.finite, points.adjusted - np.nanmin(points.adjusted), 0.0)
    z = points.x - found.places[0]
    uu, _, vv = (float(value[0]) for value in bend(found.coefficients[None], place[None], degree))
    rises = _shares(z, np.array([uu, vv])) * above[:, None]
    covariance = np.diag((MISFIT * above) ** 2)
    for field, lopsided in enumerate(_lopsided(found.coefficients, place, degree)):
        at, rise = z[:, field], rises[:, field]
        beside = np.sign(at)[:, None] == np.sign(at)
        together = one_sided(at) * rise
        by = min(LOPSIDED * lopsided, MOST) * rise
        covariance += (np.outer(together, together) + np.outer(by, by)) * beside
        if degree == 2:
            skewed = SKEW / 3 * at * rise
            covariance += np.outer(skewed, skewed)
    return np.asarray(covariance)


def _shares(z: Floats, bends: Floats) -> Floats:
    """(points, field): how much of the rise of a loss z octaves from the minimum is along either field."""
    along = np.maximum(bends, 1e-3 * max(float(bends.max()), 1e-12)) * z**2
    whole = along.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(along, whole, out=np.zeros_like(along), where=whole > 0))


def _lopsided(coefficients: Floats, place: Floats, degree: int) -> list[float]:
    """How much more a polynomial rises on one side of its minimum, per field, as a fraction of both rises."""
    found = []
    for axis in np.eye(2):
        left, here, right = evaluated(np.tile(coefficients, (3, 1)), place + _ONE_STEP * axis, degree)
        both = abs(left - here) + abs(right - here)
        found.append(abs(right - left) / both if both > 0 else 0.0)
    return found


def _moved(found: Found, off: Floats) -> Floats:
    """Covariance of the minimum by that of the losses, at first order; of one field where it lies at an end of the other.

    It moves by - bends^-1 slopes.
    """
    degree, place = found.window.degree, (found.places[0] - found.centre)[None]
    uu, uv, vv = (float(value[0]) for value in bend(found.coefficients[None], place, degree))
    free = np.flatnonzero(found.sides[0] == 0)
    bends = np.array([[uu, uv], [uv, vv]])[np.ix_(free, free)]
    covariance = np.zeros((2, 2))
    if len(free) and np.linalg.eigvalsh(bends)[0] <= 0:
        covariance[free, free] = math.inf
        return covariance
    each = np.eye(len(found.coefficients))
    slopes = [design(place, degree - 1)[0] @ derivative(each, degree, int(field)).T @ found.solve for field in free]
    if slopes:
        moves = np.linalg.solve(bends, np.array(slopes))
        covariance[np.ix_(free, free)] = moves @ off[np.ix_(found.used, found.used)] @ moves.T
    return covariance


def _stretch(points: Points, found: Found, whole: Floats) -> float:
    terms = design(points.x[found.used] - found.centre, found.window.degree)
    left = points.adjusted[found.used] - terms @ found.coefficients
    df = max(len(left) - len(found.coefficients), 1)
    square = float(left @ np.linalg.solve(whole[np.ix_(found.used, found.used)], left)) / df
    return math.sqrt(square) if square > 1 + 2 * math.sqrt(2 / df) else 1.0
