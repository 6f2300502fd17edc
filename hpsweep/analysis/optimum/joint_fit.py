"""A polynomial in two hyperparameters around the lowest losses, and where among the tried points it is lowest.

u, v       octaves of the first and of the second hyperparameter
point      (group, u, v): its runs differ in the seed alone
quadratic  1, u, v, u^2, u v, v^2
cubic      and u^3, u^2 v, u v^2, v^3
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hpsweep.analysis.optimum.joint_points import Flags, Points
from hpsweep.analysis.runs.cells import Floats

Indices = npt.NDArray[np.intp]

POWERS: dict[int, list[tuple[int, int]]] = {
    degree: [(total - b, b) for total in range(degree + 1) for b in range(total + 1)] for degree in range(4)
}
"""Degree -> exponents of u and v, a pair per coefficient."""

CUT = 4.0
"""Points of a window that lie higher above its lowest than this many times the median are beyond a cliff."""

_LOWEST = (0.4, 12)  # the smoothing quadratic goes through this fraction of the points, the lowest, or so many
_LATTICE = 16  # points per side of the lattice on which a minimum is first sought
_EVEN, _TOLD_APART = 1e-3, 1e-6  # the least singular value, of the largest, with weights and with a covariance
_SIDE = 0.5  # the least component of an edge's normal for its points to count as an end of that field


# --- polynomials ---


def design_matrix(at: Floats, degree: int) -> Floats:
    """(places, coefficients) matrix of the polynomial's terms."""
    u, v = ([np.ones(len(at)), x, x * x, x * x * x] for x in at.T)  # powers 0 to 3
    return np.stack([u[a] * v[b] for a, b in POWERS[degree]], axis=1)


def polynomial_values(coefficients: Floats, at: Floats, degree: int) -> Floats:
    """Values of polynomials (rows of coefficients) at places (rows of `at`), one each."""
    return np.asarray((coefficients * design_matrix(at, degree)).sum(axis=1))


def derivative_coefficients(coefficients: Floats, degree: int, field: int) -> Floats:
    """Coefficients of the derivatives by u (field 0) or v (field 1), polynomials of one degree less."""
    # Of every term of the derivative: the term it comes from, and the factor that the derivative brings down.
    raised = [(a + (field == 0), b + (field == 1)) for a, b in POWERS[degree - 1]]
    factors = np.array([float(power[field]) for power in raised])
    terms = [POWERS[degree].index(power) for power in raised]
    return np.asarray(coefficients[:, terms] * factors)


class Hull(NamedTuple):
    """A convex polygon, counter-clockwise: where edges start, how they run, which way is out of them."""

    corners: Floats
    along: Floats
    normals: Floats
    sides: Floats  # (edges, 2): 1 or -1 where an edge is the high or low end of a field, else 0

    def holds(self, at: Floats) -> Flags:
        """Which of the places lie in the polygon."""
        out = ((at[:, None, :] - self.corners) * self.normals).sum(axis=-1)
        return np.asarray((out <= 1e-9).all(axis=1))


def convex_hull(at: Floats) -> Hull | None:
    """The convex hull of places (monotone chain); None where they lie on a line."""
    ordered = at[np.lexsort((at[:, 1], at[:, 0]))]
    new = np.diff(ordered[:, 0]) > 0
    ordered = ordered[np.concatenate([[True], new]) | np.concatenate([new, [True]])]  # the ends of every column
    corners: list[Floats] = []
    for chain in (ordered, ordered[::-1]):
        half: list[Floats] = []
        for place in chain:
            while len(half) > 1 and _turn(half[-2], half[-1], place) <= 1e-9:
                half.pop()
            half.append(place)
        corners += half[:-1]
    if len(corners) < 3:
        return None
    starts = np.array(corners)
    along = np.roll(starts, -1, axis=0) - starts
    normals = np.column_stack([along[:, 1], -along[:, 0]]) / np.linalg.norm(along, axis=1)[:, None]
    return Hull(starts, along, normals, np.where(np.abs(normals) >= _SIDE, np.sign(normals), 0.0))


def _turn(a: Floats, b: Floats, c: Floats) -> float:
    return float((b[0] - a[0]) * (c[1] - b[1]) - (b[1] - a[1]) * (c[0] - b[0]))


def lowest_places(coefficients: Floats, inside: Hull, degree: int, near: Floats | None = None) -> tuple[Floats, Floats]:
    """(places, sides): where in the polygon each polynomial is lowest, and the ends of the fields where it is there.

    Within, Newton's method from the lowest of a lattice, or that place where it finds no minimum; on the edges, where
    the polynomial is one in a single variable, exactly. A minimum that Newton's method finds from `near` is it, however
    low the polynomial is at the edges.
    """
    if near is not None:
        place, exists = _newton(coefficients, np.tile(near, (len(coefficients), 1)), degree)
        side = np.zeros_like(place)
        rest = ~(exists & inside.holds(place))
        if rest.any():
            place[rest], side[rest] = lowest_places(coefficients[rest], inside, degree)
        return place, side
    # The lowest of a lattice, from which Newton's method starts.
    low, high = inside.corners.min(axis=0), inside.corners.max(axis=0)
    steps = (np.arange(_LATTICE) + 0.5) / _LATTICE
    lattice = low + np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2) * (high - low)
    lattice = lattice[inside.holds(lattice)]
    start = lattice[np.argmin(coefficients @ design_matrix(lattice, degree).T, axis=1)]
    place, exists = _newton(coefficients, start, degree)
    exists &= inside.holds(place)
    place = np.where(exists[:, None], place, start)
    # Or a place on an edge, where the polynomial is lower there.
    within = polynomial_values(coefficients, place, degree)
    on_edge, value, side = _lowest_on_edges(coefficients, inside, degree)
    is_lower = (value < within - 1e-12)[:, None]
    return np.where(is_lower, on_edge, place), np.where(is_lower, side, 0.0)


def _lowest_on_edges(coefficients: Floats, inside: Hull, degree: int) -> tuple[Floats, Floats, Floats]:
    """(places, values, sides) where each polynomial is lowest on the edges."""
    # On an edge it is a cubic in t, from 0 at its corner to 1 at the next: four values determine it.
    knots = np.arange(4) / 3
    at = (inside.corners[:, None] + knots[:, None] * inside.along[:, None]).reshape(-1, 2)
    values = (coefficients @ design_matrix(at, degree).T).reshape(len(coefficients), -1, 4)
    in_t = values @ np.linalg.inv(np.vander(knots, 4, increasing=True)).T
    constant, linear, square, cube = np.moveaxis(in_t, -1, 0)
    t = cubic_minimum(linear, square, cube)
    t = np.where((t > 0) & (t < 1), t, 0.0)
    along = ((cube * t + square) * t + linear) * t + constant
    # The minimum between the corners, or the corner where it is no lower.
    at_corner = values[..., 0]
    is_lower = (t > 0) & (along < at_corner)
    t = np.where(is_lower, t, 0.0)
    along = np.where(is_lower, along, at_corner)
    # Of all edges the lowest.
    edge = along.argmin(axis=1)
    row = np.arange(len(along))
    t = t[row, edge][:, None]
    corner = np.clip(inside.sides + np.roll(inside.sides, 1, axis=0), -1, 1)
    side = np.where(t > 0, inside.sides[edge], corner[edge])
    return inside.corners[edge] + t * inside.along[edge], along[row, edge], side


def cubic_minimum(b: Floats, c: Floats, d: Floats) -> Floats:
    """Where b t + c t^2 + d t^3 has its local minimum; NaN where it has none."""
    root = c + np.sqrt(np.clip(c * c - 3 * b * d, 0.0, None))
    exists = (c * c > 3 * b * d) & (root != 0)  # there the second derivative is 2 sqrt(c^2 - 3 b d)
    return np.where(exists, -b / np.where(exists, root, 1.0), np.nan)


def _newton(coefficients: Floats, start: Floats, degree: int, steps: int = 8) -> tuple[Floats, Flags]:
    """(places, which are minima), from Newton's method, which a quadratic needs one step of."""
    slopes = [derivative_coefficients(coefficients, degree, field) for field in (0, 1)]
    bends = _bends(coefficients, degree)
    at = start
    exists = np.ones(len(start), dtype=bool)
    for _ in range(steps if degree > 2 else 2):
        terms = design_matrix(at, degree - 1)
        by_u, by_v = ((slope * terms).sum(axis=1) for slope in slopes)
        uu, uv, vv = ((second * terms[:, : second.shape[1]]).sum(axis=1) for second in bends)
        det = uu * vv - uv * uv
        exists &= (uu > 0) & (det > 1e-12 * uu * uu)
        det = np.where(exists, det, np.inf)
        step = np.stack([(vv * by_u - uv * by_v) / det, (uu * by_v - uv * by_u) / det], axis=1)
        if degree > 2:  # far from the minimum a step may be too long
            step = np.clip(step, -1.0, 1.0)
        at = at - step
    return at, exists & (np.abs(step).max(axis=1) < 1e-3)


def _bends(coefficients: Floats, degree: int) -> list[Floats]:
    first = [derivative_coefficients(coefficients, degree, field) for field in (0, 1)]
    return [derivative_coefficients(first[a], degree - 1, b) for a, b in ((0, 0), (0, 1), (1, 1))]


def second_derivatives(coefficients: Floats, at: Floats, degree: int) -> tuple[Floats, Floats, Floats]:
    """Second derivatives by u u, u v and v v, one per polynomial, nats/octave^2."""
    uu, uv, vv = (polynomial_values(second, at, degree - 2) for second in _bends(coefficients, degree))
    return uu, uv, vv


# --- windows ---


class Window(NamedTuple):
    """The points around a centre that are fitted, by their octaves on either side, and the polynomial's degree."""

    u: float
    v: float
    degree: int

    def __str__(self) -> str:
        size = " x ".join("all" if math.isinf(half) else f"+-{half:g}" for half in (self.u, self.v))
        kind = "cubic" if self.degree == 3 else "quadratic"
        return f"{size} octaves, {kind}"


class WindowMinima(NamedTuple):
    """Lowest places, one per row of losses: NaN where the window around the row's centre has too few points.

    sides as `lowest_places` has them; value is the fitted loss, nats/token. Of the first row also the centre, the
    points of its window, its coefficients in octaves from the centre, and the matrix that made them of the losses.
    """

    window: Window
    places: Floats
    sides: Floats
    value: Floats
    centre: Floats
    used: Indices
    coefficients: Floats
    solve: Floats


def centres_of(points: Points, losses: Floats) -> Indices:
    """Per row of losses, the point at which a quadratic through the lowest points is lowest: a smoothed minimum."""
    # The lowest points.
    finite = np.flatnonzero(points.finite)
    fraction, fewest = _LOWEST
    order = np.asarray(finite[np.argsort(points.adjusted[finite], kind="stable")])
    keep = order[: max(fewest, math.ceil(fraction * len(finite)))]
    # The quadratic through them; where they lie too unevenly for one, the losses as they are.
    terms = design_matrix(points.x[keep] - points.x[keep].mean(axis=0), 2)
    solve = _solver(terms, np.sqrt(points.n[keep]), _EVEN)
    smooth = np.eye(len(keep))
    if solve is not None:
        smooth = terms @ solve
    return np.asarray(keep[np.argmin(losses[:, keep] @ smooth.T, axis=1)])


def window_points(points: Points, centre: int, window: Window, noise: float) -> Indices:
    """The points fitted: the finite ones within the window, less those beyond a cliff."""
    halves = np.array([window.u, window.v])
    is_within = np.abs(points.x - points.x[centre]) <= halves + 1e-9
    index = np.flatnonzero(points.finite & is_within.all(axis=1))
    # What rises far more than the others is beyond a cliff.
    rise = points.adjusted[index] - points.adjusted[index].min()
    highest = max(CUT * float(np.median(rise)), 8 * noise)
    return np.asarray(index[rise <= highest])


class Knowledge(NamedTuple):
    """What is known of losses and polynomials beforehand, by a fit that was made before."""

    covariance: Floats  # (points, points) of the losses about the polynomial, (nats/token)^2
    cubic: Floats  # standard deviations of its four cubic coefficients, nats/octave^3
    place: Floats  # of the minimum: it is sought near there, as losses far up have little say

    def spread(self, degree: int) -> Floats:
        """Standard deviation of every coefficient; infinite where nothing is known."""
        free = np.full(len(POWERS[min(degree, 2)]), np.inf)
        if degree < 3:
            return free
        return np.concatenate([free, self.cubic])


def fit_matrix(
    points: Points, centre: int, index: Indices, degree: int, known: Knowledge | None = None
) -> Floats | None:
    """(coefficients, points in the window) matrix from their means to the polynomial in octaves from the centre.

    Least squares, weighted by seeds and growth of noise, or by what is known. None where the points are too few or lie
    too unevenly.
    """
    offset = points.x[index] - points.x[centre]
    fewest = len(POWERS[degree])
    if degree > 2:
        fewest += 1
    values = min(len(np.unique(offset[:, field].round(6))) for field in (0, 1))
    if len(index) < fewest or values <= degree:
        return None
    # By seeds and growth of noise alone.
    weight = np.sqrt(points.n[index]) / points.growth(points.x[centre])[index]
    solve = _solver(design_matrix(offset, degree), weight, _EVEN)
    if solve is None or known is None:
        return solve
    # By the covariance of the losses, with a row per coefficient for what is known of it.
    whitening = np.linalg.inv(np.linalg.cholesky(known.covariance[np.ix_(index, index)]))
    rows = np.vstack([whitening @ design_matrix(offset, degree), np.diag(1 / known.spread(degree))])
    solve = _solver(rows, np.ones(len(rows)), _TOLD_APART)
    if solve is None:
        return None
    return solve[:, : len(index)] @ whitening


def _solver(terms: Floats, weight: Floats, least: float) -> Floats | None:
    """(terms, rows) matrix of the weighted least-squares fit; None where terms can hardly be told apart.

    By the scaled normal equations, which are small whatever the number of rows.
    """
    weighted = terms * weight[:, None]
    scale = np.linalg.norm(weighted, axis=0)
    if not scale.all():  # such as the product of two fields that were never varied together
        return None
    weighted /= scale
    values, vectors = np.linalg.eigh(weighted.T @ weighted)
    if values[0] <= least * least * values[-1]:
        return None
    solve = (vectors / values) @ (vectors.T @ (weighted * weight[:, None]).T)
    return np.asarray(solve / scale[:, None])


def window_minima(
    points: Points,
    losses: Floats,
    centres: Indices,
    window: Window,
    noise: float,
    known: Knowledge | None = None,
) -> WindowMinima | None:
    """The lowest places of polynomials through rows of losses; None where there is none for the first row."""
    places = np.full((len(losses), 2), np.nan)
    value = np.full(len(losses), np.nan)
    sides = np.zeros((len(losses), 2))
    for centre in np.unique(centres):
        rows = centres == centre
        index = window_points(points, int(centre), window, noise)
        solve = fit_matrix(points, int(centre), index, window.degree, known)
        around = None if solve is None else convex_hull(points.x[index] - points.x[centre])
        if solve is None or around is None:
            if rows[0]:
                return None
            continue
        coefficients = losses[rows][:, index] @ solve.T
        near = None if known is None else known.place - points.x[centre]
        offset, sides[rows] = lowest_places(coefficients, around, window.degree, near)
        places[rows] = offset + points.x[centre]
        value[rows] = polynomial_values(coefficients, offset, window.degree)
        if rows[0]:
            first, used, solver = coefficients[0], index, solve
    return WindowMinima(window, places, sides, value, points.x[centres[0]], used, first, solver)
