"""The numbers behind the law: its form in centred units, starts from a grid of exponents, and the polish.

    L = (sparse x^b_S + dense) n^-b_N + data d^-b_D + c         x = 1 - S, n = N / N0, d = D / D0

N0 and D0 are the geometric means of the data, so that sparse, dense, data and c are parts of the loss at one point,
in its unit, and none of the seven numbers is large or small. The dense form is the same with sparse = 0 and b_S = 0.

1. Starts: for every triple of exponents on a grid, the four coefficients by non-negative least squares on relative
   residuals, which is exact: of the 2^4 sets of coefficients left free, the best that is feasible.
2. Polish: mean Huber loss of the residuals, divided by its delta so that it is of order one (at its own size, about
   1e-5, the default tolerances of general optimizers end early). Newton's method with all second derivatives, damped as
   in Levenberg and Marquardt and kept inside the bounds by projection.

Residuals are log(measured / predicted), or measured - predicted in the unit of the loss: see `Misfit`.

Every problem is solved in a batch with others (starts, resamples, points of a profile): the first axis of `theta`.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hpsweep.analysis.runs.cells import Floats

THETA = ("sparse", "dense", "data", "c", "b_S", "b_N", "b_D")
"""The numbers of the law in centred units: parts of the loss at the geometric mean of N and D, and exponents."""

LARGEST_EXPONENT = 6.0
"""Upper bound of an exponent; a fit that ends there has not identified it."""

_LOWER = np.zeros(7)
_UPPER = np.array([np.inf] * 4 + [LARGEST_EXPONENT] * 3)
_GRID = np.array([0.02, 0.05, 0.1, 0.17, 0.25, 0.35, 0.5, 0.7, 1.0, 1.5, 2.5, 4.0])
_SUBSETS = np.array(list(itertools.product((False, True), repeat=4))[1:])
_PER_CHUNK = 2_000_000  # numbers of a batch's Jacobian held in memory at once


class Design(NamedTuple):
    """Cells in centred units; natural logarithms. `dense` leaves out the term that depends on sparsity."""

    x: Floats  # log(1 - S)
    n: Floats  # log(N / N0)
    d: Floats  # log(D / D0)
    dense: bool

    def at(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Design:
        """The design of some of the cells."""
        return Design(self.x[rows], self.n[rows], self.d[rows], self.dense)

    @property
    def cell(self) -> npt.NDArray[np.intp]:
        """The number of the distinct cell (S, N, D) that each row is a run of, from 0."""
        rows = np.column_stack([self.x, self.n, self.d]).round(9)
        return np.asarray(np.unique(rows, axis=0, return_inverse=True)[1]).ravel()

    @property
    def free(self) -> npt.NDArray[np.bool_]:
        """Which of THETA are fitted."""
        return np.array([not self.dense, True, True, True, not self.dense, True, True])


class Misfit(NamedTuple):
    """How a prediction is held against a measured loss: Huber's delta, on log residuals or on raw ones.

    Log residuals take the noise of a loss for proportional to it, raw ones for equal at every loss.
    """

    delta: float
    log: bool = True

    def scaled(self, loss: Floats) -> Floats:
        """Losses on the scale on which residuals are differences."""
        return np.asarray(np.log(loss) if self.log else loss)

    def residual(self, measured: Floats, predicted: Floats) -> Floats:
        """log(measured / predicted), or measured - predicted."""
        return np.asarray(np.log(measured / predicted) if self.log else measured - predicted)

    def moved(self, predicted: Floats, residual: Floats) -> Floats:
        """The loss that has that residual."""
        return np.asarray(predicted * np.exp(residual) if self.log else predicted + residual)


class Tie(NamedTuple):
    """A coefficient pinned to its value in raw units: theta[:, amplitude] = exp(offset + slope theta[:, exponent])."""

    amplitude: int
    exponent: int
    offset: Floats  # one per problem
    slope: Floats

    def at(self, problems: npt.NDArray[np.intp] | slice) -> Tie:
        """The tie of some of the problems."""
        return self._replace(offset=self.offset[problems], slope=self.slope[problems])


class Polished(NamedTuple):
    """Solutions of a batch: theta, the objective (mean Huber over delta), and which have converged."""

    theta: Floats
    value: Floats
    converged: npt.NDArray[np.bool_]


def predicted_losses(theta: Floats, design: Design) -> Floats:
    """Losses of shape (problem, cell)."""
    sparse, dense, data = _parts(theta, design)
    return np.asarray(sparse + dense + data + theta[:, 3, None])


def _parts(theta: Floats, design: Design) -> tuple[Floats, Floats, Floats]:
    size = np.exp(-theta[:, 5, None] * design.n)
    sparse = theta[:, 0, None] * np.exp(theta[:, 4, None] * design.x) * size
    return sparse, theta[:, 1, None] * size, theta[:, 2, None] * np.exp(-theta[:, 6, None] * design.d)


def huber_loss(residual: Floats, delta: float) -> Floats:
    """Huber's loss: r^2 / 2 up to delta, delta (|r| - delta / 2) beyond."""
    size = np.abs(residual)
    return np.asarray(np.where(size <= delta, 0.5 * size**2, delta * (size - 0.5 * delta)))


# --- starts ---


def polish_starts(design: Design, loss: Floats, misfit: Misfit, keep: int) -> Floats:
    """The `keep` best solutions of the grid by their Huber objective, no two of them neighbours on the grid."""
    grid_s = np.zeros(1) if design.dense else _GRID
    index = np.array(list(itertools.product(range(len(grid_s)), range(len(_GRID)), range(len(_GRID)))))
    exponents = np.column_stack([grid_s[index[:, 0]], _GRID[index[:, 1]], _GRID[index[:, 2]]])
    theta = np.concatenate(
        [linear_rest(exponents[part], design, loss, log=misfit.log) for part in _chunks(len(index), len(loss))]
    )
    value = np.concatenate(
        [
            huber_loss(misfit.residual(loss, predicted_losses(theta[part], design)), misfit.delta).mean(axis=1)
            for part in _chunks(len(index), len(loss))
        ]
    )
    chosen: list[int] = []
    for i in np.argsort(value):
        if all(np.abs(index[i] - index[j]).max() > 1 for j in chosen):
            chosen.append(int(i))
        if len(chosen) == keep:
            break
    return np.asarray(theta[chosen])


def linear_rest(exponents: Floats, design: Design, loss: Floats, *, log: bool = True) -> Floats:
    """theta with the coefficients that minimize the squared residuals, relative or raw, at each triple of exponents.

    Non-negative, and exact up to the conditioning of the normal equations: all 15 non-empty sets of coefficients.
    """
    unit = np.concatenate([np.ones((len(exponents), 4)), exponents], axis=1)
    sparse, dense, data = _parts(unit, design)
    unit_loss = loss if log else np.full_like(loss, loss.mean())
    columns = np.stack([sparse, dense, data, np.ones_like(data)], axis=-1) / unit_loss[:, None]
    gram = columns.transpose(0, 2, 1) @ columns
    target = ((loss / unit_loss)[:, None] * columns).sum(axis=1)
    # The normal equations of each set: those of the others are 1 x = 0. A small ridge keeps them solvable.
    best = np.zeros((len(exponents), 4))
    least = np.full(len(exponents), np.inf)
    for subset in _SUBSETS:
        if design.dense and subset[0]:
            continue
        inside = subset[:, None] & subset[None, :]
        ridge = 1e-13 * np.trace(gram, axis1=1, axis2=2)[:, None, None] * np.eye(4)
        matrix = np.where(inside, gram, 0.0) + ridge + np.diag(~subset).astype(float)
        solution = np.linalg.solve(matrix, np.where(subset, target, 0.0)[..., None])[..., 0]
        squares = np.einsum("gi,gij,gj->g", solution, gram, solution) - 2 * np.einsum("gi,gi->g", solution, target)
        better = (solution >= 0).all(axis=1) & (squares < least)
        best[better] = solution[better]
        least[better] = squares[better]
    return np.concatenate([best, exponents], axis=1)


def _chunks(problems: int, cells: int) -> list[slice]:
    step = max(1, _PER_CHUNK // (7 * cells))
    return [slice(first, first + step) for first in range(0, problems, step)]


# --- polish ---


def polished_minima(
    theta: Floats,
    design: Design,
    loss: Floats,
    misfit: Misfit,
    *,
    weight: Floats | None = None,
    fixed: npt.NDArray[np.bool_] | None = None,
    tie: Tie | None = None,
    most: int = 300,
) -> Polished:
    """The nearest minima of the weighted mean Huber objective over delta, from every start.

    `loss` and `weight` have one row for all problems or one per problem; `fixed` says which of THETA stay.
    """
    problems, cells = len(theta), len(design.n)
    target = np.broadcast_to(misfit.scaled(loss), (problems, cells))
    weights = np.broadcast_to(np.ones(cells) if weight is None else weight, (problems, cells))
    parts = []
    held = ~design.free
    if fixed is not None:
        held = fixed | held
    held = np.broadcast_to(held, (problems, 7))
    for part in _chunks(problems, cells):
        bound = None if tie is None else tie.at(part)
        parts.append(_polish(theta[part].copy(), design, target[part], weights[part], misfit, held[part], bound, most))
    return Polished(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def objective(theta: Floats, design: Design, loss: Floats, misfit: Misfit, tie: Tie | None = None) -> Floats:
    """Mean Huber loss over delta of each row of theta, as `polished_minima` minimizes it; a tie is applied to theta."""
    flat = np.full((1, len(loss)), 1 / len(loss))
    return _value(_tied(theta, tie), design, misfit.scaled(loss)[None], flat, misfit)


def _polish(
    theta: Floats,
    design: Design,
    target: Floats,
    weight: Floats,
    misfit: Misfit,
    held: npt.NDArray[np.bool_],
    tie: Tie | None,
    most: int,
) -> Polished:
    weight = weight / weight.sum(axis=1, keepdims=True)
    theta = _tied(theta, tie)
    value = _value(theta, design, target, weight, misfit)
    damping = np.full(len(theta), 1e-3)
    done = np.zeros(len(theta), bool)
    still = np.zeros(len(theta), int)  # steps since the objective last fell
    for _ in range(most):
        go = np.flatnonzero(~done)
        if not len(go):
            break
        own = None if tie is None else tie.at(go)
        gradient, hessian, metric = _derivatives(theta[go], design, target[go], weight[go], misfit, own)
        # A number at a bound stays there while the objective falls beyond it.
        at_lower = (theta[go] <= _LOWER) & (gradient > 0)
        at_upper = (theta[go] >= _UPPER) & (gradient < 0)
        frozen = held[go] | at_lower | at_upper
        step = _step(gradient, hessian, metric, damping[go], frozen)
        trial = _tied(np.clip(theta[go] + step, _LOWER, _UPPER), own)
        new = _value(trial, design, target[go], weight[go], misfit)
        # Take the step where it helps; damp less after a good one, more after a bad one (Levenberg and Marquardt).
        better = new < value[go]
        scale = np.maximum(np.abs(theta[go]), 1e-3)
        small = (np.abs(trial - theta[go]) / scale).max(axis=1) < 1e-10
        gain = (value[go] - new) < 1e-13 * value[go]
        theta[go[better]] = trial[better]
        value[go[better]] = new[better]
        damping[go] = np.where(better, damping[go] / 5, damping[go] * 4).clip(1e-15, 1e12)
        still[go] = np.where(better & ~gain, 0, still[go] + 1)
        done[go] = small | (value[go] < 1e-28) | (still[go] > 12)
    return Polished(theta, value, done)


def _tied(theta: Floats, tie: Tie | None) -> Floats:
    if tie is not None:
        theta[:, tie.amplitude] = np.exp(tie.offset + tie.slope * theta[:, tie.exponent])
    return theta


def _value(theta: Floats, design: Design, target: Floats, weight: Floats, misfit: Misfit) -> Floats:
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        residual = misfit.scaled(predicted_losses(theta, design)) - target
        value = (weight * huber_loss(residual, misfit.delta)).sum(axis=1) / misfit.delta
    return np.where(np.isfinite(value), value, np.inf)


def _derivatives(
    theta: Floats, design: Design, target: Floats, weight: Floats, misfit: Misfit, tie: Tie | None
) -> tuple[Floats, Floats, Floats]:
    """Gradient and Hessian of the objective, and the diagonal of its Gauss-Newton matrix with Huber's weights."""
    sparse, dense, data = _parts(theta, design)
    loss = sparse + dense + data + theta[:, 3, None]
    size = np.exp(-theta[:, 5, None] * design.n)
    power = np.exp(theta[:, 4, None] * design.x) * size
    first = np.stack(
        [
            power,
            size,
            np.exp(-theta[:, 6, None] * design.d),
            np.ones_like(loss),
            sparse * design.x,
            -(sparse + dense) * design.n,
            -data * design.d,
        ],
        axis=-1,
    )
    second = {
        (0, 4): power * design.x,
        (0, 5): -power * design.n,
        (1, 5): -size * design.n,
        (2, 6): -first[..., 2] * design.d,
        (4, 4): sparse * design.x**2,
        (4, 5): -sparse * design.x * design.n,
        (5, 5): (sparse + dense) * design.n**2,
        (6, 6): data * design.d**2,
    }
    delta = misfit.delta
    residual = misfit.scaled(loss) - target
    unit_loss = loss if misfit.log else np.ones_like(loss)  # d loss / d residual
    slope = weight * np.clip(residual, -delta, delta) / delta  # of Huber's loss
    curvature = weight * (np.abs(residual) <= delta) / delta
    relative = first / unit_loss[..., None]
    bend = np.zeros((len(theta), 7, 7))
    for (i, j), value in second.items():
        bend[:, i, j] = bend[:, j, i] = (slope / unit_loss * value).sum(axis=1)
    if tie is not None:
        relative, bend = _chain(theta, relative, bend, slope, tie)
    gradient = (slope[:, None, :] @ relative)[:, 0]
    bent = curvature
    if misfit.log:
        bent = curvature - slope  # the logarithm bends as well
    hessian = relative.transpose(0, 2, 1) @ (bent[..., None] * relative) + bend
    majorant = weight / np.maximum(np.abs(residual), delta)
    metric = (majorant[:, None, :] @ relative**2)[:, 0]
    return gradient, hessian, metric


def _chain(theta: Floats, relative: Floats, bend: Floats, slope: Floats, tie: Tie) -> tuple[Floats, Floats]:
    """The same derivatives where a coefficient follows an exponent: a(b) = exp(offset + slope b)."""
    i, j = tie.amplitude, tie.exponent
    rate = tie.slope * theta[:, i]
    own = (slope * relative[..., i]).sum(axis=1)
    relative, bend = relative.copy(), bend.copy()
    across = bend[:, i, :].copy()
    relative[..., j] += rate[:, None] * relative[..., i]
    bend[:, j, j] += own * tie.slope * rate + 2 * rate * across[:, j]
    for k in range(7):
        if k not in (i, j):
            bend[:, j, k] += rate * across[:, k]
            bend[:, k, j] = bend[:, j, k]
    return relative, bend


def _step(gradient: Floats, hessian: Floats, metric: Floats, damping: Floats, frozen: npt.NDArray[np.bool_]) -> Floats:
    """Damped Newton step in the free numbers; where the matrix is not positive, its eigenvalues' sizes are taken."""
    scale = 1 / np.sqrt(np.where(frozen, 1.0, np.maximum(metric, 1e-30)))
    # Scale by the Gauss-Newton diagonal; a frozen number gets a row of the identity.
    matrix = hessian * scale[:, :, None] * scale[:, None, :]
    either_frozen = frozen[:, :, None] | frozen[:, None, :]
    matrix = np.where(either_frozen, np.eye(7), matrix)
    values, vectors = np.linalg.eigh(matrix)
    # The step in the basis of the eigenvectors, and back.
    scaled_gradient = np.where(frozen, 0.0, gradient * scale)
    along = np.einsum("pij,pi->pj", vectors, scaled_gradient)
    along /= np.maximum(np.abs(values), 1e-12) + damping[:, None]
    step = -np.einsum("pij,pj->pi", vectors, along)
    return np.asarray(step * np.where(frozen, 0.0, scale))


# --- units ---


def raw_coefficients(theta: Floats, params: float, tokens: float) -> Floats:
    """(a_S, b_S, c_S, b_N, a_D, b_D, c) of each row of theta, with the centre at so many parameters and tokens.

    Without the dense power of D (b_D = 0) a_D is 0 or infinite.
    """
    sparse, dense, data, c, b_s, b_n, b_d = theta.T
    size = params**b_n
    with np.errstate(divide="ignore", over="ignore"):
        a_d = tokens * np.exp(np.log(data) / b_d)
    return np.column_stack([sparse * size, b_s, dense * size, b_n, np.where(data > 0, a_d, 0.0), b_d, c])


def centred_theta(coefficients: Floats, params: float, tokens: float) -> Floats:
    """The inverse of `raw_coefficients`: theta of shape (1, 7)."""
    a_s, b_s, c_s, b_n, a_d, b_d, c = coefficients
    size = params**-b_n
    data = 0.0
    if a_d > 0:
        data = (a_d / tokens) ** b_d
    return np.array([[a_s * size, c_s * size, data, c, b_s, b_n, b_d]])
