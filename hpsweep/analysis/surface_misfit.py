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
from hpsweep.analysis.surface_fit import Found, Indices, Knowledge, bend, derivative, design, evaluated, find
from hpsweep.analysis.surface_points import Points

LOPSIDED, MOST = 3.0, 0.33
"""Chosen by the rows `lopsided` and `kinked 2` of benchmarks/surface.py."""

_ROUNDING = 0.01  # losses count as no more exact: of the largest rise in the window
_CUBES = (((3, 0), 1), ((2, 1), 3), ((1, 2), 3), ((0, 3), 1))  # exponents as in POWERS, and how many such products
_ONE_STEP = np.array([[-1.0], [0.0], [1.0]])  # octaves


class Refit(NamedTuple):
    """The polynomial of a window, fitted again, and what its minimum errs by beside the noise."""

    found: Found
    covariance: Floats  # (field, field), octaves^2; infinite where the loss does not bend
    stretch: float  # by how much residuals that neither noise nor misfit explain widen an interval


def refitted(points: Points, losses: Floats, centres: Indices, first: Found, noise: Floats) -> Refit:
    """The same window by generalized least squares; as it was where its points then hardly tell the terms apart."""
    rises = points.adjusted[first.used] - points.adjusted[first.used].min()
    alone = np.diag(noise**2 / np.maximum(points.n, 1) + (_ROUNDING * float(rises.max())) ** 2)
    found = first
    for rows, shown in ((1, False), (len(losses), True)):
        off, cubic = misfit(points, found, shown), _cubic(found)
        known = Knowledge(off + alone, cubic)
        level = float(noise[centres[0]])
        found = find(points, losses[:rows], centres[:rows], first.window, level, known) or first
    return Refit(found, _moved(points, found, off, known), _stretch(points, found, known.covariance))


def _cubic(found: Found) -> Floats:
    """Standard deviations of the cubic coefficients, by SKEW and the bends of a polynomial at its minimum."""
    bends = _bends(found)
    return np.array([SKEW / 3 * factor * bends[0] ** (a / 3) * bends[1] ** (b / 3) for (a, b), factor in _CUBES])


def _bends(found: Found) -> Floats:
    """Half of the second derivatives at the minimum, by either field and by both; a little where they are not above 0.

    What they are of is no basin then, or none of one of the fields.
    """
    place = found.places[:1] - found.centre
    uu, uv, vv = (float(value[0]) / 2 for value in bend(found.coefficients[None], place, found.window.degree))
    least = 1e-3 * max(uu, vv, 1e-12)
    uu, vv = max(uu, least), max(vv, least)
    most = 0.999 * math.sqrt(uu * vv)
    return np.array([uu, vv, min(max(uv, -most), most)])


def _rises(found: Found, z: Floats) -> Floats:
    """(points, field): what the loss rises z octaves from the minimum, by its bends there, shared out to the fields."""
    uu, vv, uv = _bends(found)
    along = np.array([uu, vv]) * z**2
    whole = along.sum(axis=1, keepdims=True)
    left = np.divide(2 * uv * (z[:, 0] * z[:, 1])[:, None], whole, out=np.zeros_like(whole), where=whole > 0)
    return np.asarray(along * (1 + left))


def misfit(points: Points, found: Found, shown: bool) -> Floats:
    """(points, points) covariance of what losses lie off a polynomial around its minimum, (nats/token)^2.

    shown: with what the polynomial shows of its own lopsidedness.
    """
    degree, place = found.window.degree, found.places[0] - found.centre
    z = points.x - found.places[0]
    rises = _rises(found, z)
    above = rises.sum(axis=1)
    covariance = np.diag((MISFIT * above) ** 2)
    for field, lopsided in enumerate(_lopsided(found.coefficients, place, degree)):
        at, rise = z[:, field], rises[:, field]
        beside = np.sign(at)[:, None] == np.sign(at)
        together = one_sided(at) * rise
        covariance += np.outer(together, together) * beside
        by = min(LOPSIDED * lopsided, MOST) * np.sign(at) * rise * shown
        covariance += np.outer(by, by)
        if degree == 2:
            skewed = SKEW / 3 * at * rise
            covariance += np.outer(skewed, skewed)
    return np.asarray(covariance)


def _lopsided(coefficients: Floats, place: Floats, degree: int) -> list[float]:
    """How much more a polynomial rises on one side of its minimum, per field, as a fraction of both rises."""
    found = []
    for axis in np.eye(2):
        left, here, right = evaluated(np.tile(coefficients, (3, 1)), place + _ONE_STEP * axis, degree)
        both = abs(left - here) + abs(right - here)
        found.append(abs(right - left) / both if both > 0 else 0.0)
    return found


def _moved(points: Points, found: Found, off: Floats, known: Knowledge) -> Floats:
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
    slopes = [design(place, degree - 1)[0] @ derivative(each, degree, int(field)).T for field in free]
    if slopes:
        moves = -np.linalg.solve(bends, np.array(slopes))
        by_losses = moves @ found.solve
        covariance[np.ix_(free, free)] = by_losses @ off[np.ix_(found.used, found.used)] @ by_losses.T
        if degree > 2:
            terms = design(points.x[found.used] - found.centre, degree)
            by_prior = (by_losses @ terms - moves)[:, -len(known.cubic) :] * known.cubic
            covariance[np.ix_(free, free)] += by_prior @ by_prior.T
    return covariance


def _stretch(points: Points, found: Found, whole: Floats) -> float:
    terms = design(points.x[found.used] - found.centre, found.window.degree)
    left = points.adjusted[found.used] - terms @ found.coefficients
    df = max(len(left) - len(found.coefficients), 1)
    square = float(left @ np.linalg.solve(whole[np.ix_(found.used, found.used)], left)) / df
    return math.sqrt(square) if square > 1 + 2 * math.sqrt(2 / df) else 1.0
