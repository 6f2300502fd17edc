"""The runs of a group as cells: the values tried of one hyperparameter, and the loss at each over seeds."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

CLOSEST = 0.3
"""Octaves between cells that are fitted, at least, where many are closer. Of quarter octaves two make one: as they
are, a flat curve of one seed is given an optimum in four of ten."""

MANY_CLOSE = 8
"""Pairs of neighbours that must be that close. Fewer, as of a grid refined around a minimum, are left as they are."""

_JUMP = 20.0  # times the median difference of close neighbours, which grows as the noise does: the most in one cell
_GROWTH_END = 3.0  # octaves right of the minimum after which the noise grows no more


# --- cells ---


@dataclass(frozen=True)
class Cells:
    """The values tried in one group, in ascending order; loss is NaN where a run diverged or none ended well."""

    values: Floats  # of the hyperparameter
    x: Floats  # log2(values), octaves
    loss: Floats  # mean over seeds, nats/token
    adjusted: Floats  # the same as if every seed had been run everywhere
    n: Floats  # runs behind loss
    runs: pd.DataFrame  # the single runs of the finite cells: columns cell, seed, loss
    seed_variance: float  # variance of a mean over these seeds, of what a seed does to all cells alike

    @cached_property
    def finite(self) -> npt.NDArray[np.bool_]:
        """Which cells have a loss."""
        return np.isfinite(self.loss)

    @cached_property
    def computed(self) -> dict[tuple[Any, ...], Any]:
        """What `computed_once` has computed of these cells."""
        return {}


def computed_once(
    function: Callable[Concatenate[Cells, _Arguments], _Result],
) -> Callable[Concatenate[Cells, _Arguments], _Result]:
    """A function of cells, called once with the same arguments: half a dozen tables ask the same of every group."""

    @wraps(function)
    def remembered(cells: Cells, /, *given: _Arguments.args, **named: _Arguments.kwargs) -> _Result:
        key = (function, *given, *named.items())
        if key not in cells.computed:
            cells.computed[key] = function(cells, *given, **named)
        found: _Result = cells.computed[key]
        return found

    return remembered


@computed_once
def merged_cells(cells: Cells) -> tuple[Cells, npt.NDArray[np.intp]]:
    """(cells CLOSEST apart or more, for each of the given ones which of these it is in).

    Those next to each other are merged, from the left, where their losses do not jump: place and losses are means over
    runs. All stay as they are where fewer than MANY are that close, or fewer than three would be left; where a twelfth
    of their range is less than CLOSEST it is that.
    """
    unchanged = cells, np.arange(len(cells.x))
    if not cells.finite.any():
        return unchanged
    closest = 0.99 * min(CLOSEST, float(np.ptp(cells.x[cells.finite])) / 12)
    close = cells.finite[1:] & cells.finite[:-1] & (np.diff(cells.x) < closest)
    if close.sum() < MANY_CLOSE:
        return unchanged
    # How far the losses of one merged cell may lie apart.
    growth = noise_growth(cells.x, cells.x[np.nanargmin(cells.adjusted)])
    differences = np.abs(np.diff(cells.adjusted)) / growth[1:]
    jump = _JUMP * float(np.median(differences[close])) * growth
    # From the left: a cell joins the one before unless it is too far from the first of these, or jumps.
    of = np.zeros(len(cells.x), dtype=np.intp)
    first = 0
    for cell in range(1, len(cells.x)):
        joins = close[cell - 1] and cells.x[cell] - cells.x[first] < closest
        if not joins or np.ptp(cells.adjusted[first : cell + 1]) > jump[cell]:
            first = cell
        of[cell] = of[cell - 1] + (first == cell)
    if len(np.unique(of[cells.finite])) < 3:
        return unchanged
    # Places and losses are means over runs.
    n = np.bincount(of, cells.n).astype(float)
    weight = np.maximum(cells.n, 1)
    total = np.bincount(of, weight)
    x, loss, adjusted = (np.bincount(of, weight * part) / total for part in (cells.x, cells.loss, cells.adjusted))
    runs = cells.runs.assign(cell=of[cells.runs["cell"]])
    return Cells(2.0**x, x, loss, adjusted, n, runs, cells.seed_variance), of


_KEPT = 10_000  # groups whose cells are kept
_known: dict[tuple[Any, ...], Cells] = {}


def cells_of(rows: pd.DataFrame, over: str) -> Cells:
    """The cells of one group, the same object for the same rows. Values at which no run ended are left out."""
    numbers = [rows[name].to_numpy(float).tobytes() for name in (over, "val_loss")]
    words = [tuple(rows[name].tolist()) for name in ("seed", "status")]
    key = (over, *numbers, *words)
    if key not in _known:
        if len(_known) >= _KEPT:
            _known.clear()
        _known[key] = _cells(rows, over)
    return _known[key]


def _cells(rows: pd.DataFrame, over: str) -> Cells:
    means = means_of(rows, rows[over].to_numpy(float))
    x = np.log2(means.values)
    growth = np.ones(len(x))
    if not means.is_empty:
        growth = noise_growth(x, x[np.nanargmin(means.loss)])
    adjusted, variance = without_seeds(means, growth)
    return Cells(means.values, x, means.loss, adjusted, means.n, means.runs, variance)


class Means(NamedTuple):
    """The settings tried, each a number or a row of numbers, in ascending order, and the mean loss at each over seeds.

    loss is NaN where a run diverged or none ended well. `runs` are the single runs of the others: cell, seed, loss.
    """

    values: Floats
    loss: Floats
    n: Floats
    runs: pd.DataFrame

    @property
    def is_empty(self) -> bool:
        """Whether no setting has a loss."""
        return not (self.n > 0).any()


def means_of(rows: pd.DataFrame, settings: Floats) -> Means:
    """Of the runs of one group, with the setting of each. Settings at which no run ended (all failed) are left out."""
    status = np.array(rows["status"].tolist(), dtype=object)
    trained = status != "failed"
    axis = 0 if settings.ndim > 1 else None
    values, cell = np.unique(settings[trained], axis=axis, return_inverse=True)
    cell = cell.reshape(-1)
    # A setting at which any seed diverged has no loss.
    good = ~np.isin(cell, cell[status[trained] == "diverged"])
    seeds = np.unique(rows["seed"].to_numpy()[trained][good], return_inverse=True)[1]
    losses = rows["val_loss"].to_numpy(float)[trained][good]
    runs = pd.DataFrame({"cell": cell[good], "seed": seeds, "loss": losses})
    n = np.bincount(runs["cell"], minlength=len(values)).astype(float)
    loss = np.full(len(values), np.nan)
    total = np.bincount(runs["cell"], runs["loss"], len(values))
    loss[n > 0] = total[n > 0] / n[n > 0]
    return Means(values, loss, n, runs)


def without_seeds(means: Means, growth: Floats) -> tuple[Floats, float]:
    """(means as if every seed had been run everywhere, variance of a mean over these seeds of what they do to all).

    `growth` is the noise of every setting relative to that at the minimum.
    """
    if means.is_empty:
        return means.loss, 0.0
    effects, _, _ = two_way(means.runs, 1 / growth)
    if len(effects) < 2:
        return means.loss, 0.0
    # Every mean loses what its own seeds add on average, and gains what all seeds do.
    n = means.n
    adjusted = means.loss.copy()
    total = np.bincount(means.runs["cell"], effects[means.runs["seed"]], len(n))
    shift = total[n > 0] / n[n > 0]
    adjusted[n > 0] -= shift - effects.mean()
    return adjusted, float(np.var(effects, ddof=1)) / len(effects)


def noise_growth(x: Floats, centre: float) -> Floats:
    """Noise relative to that at the minimum: it doubles per octave to the right, at first."""
    return np.asarray(2.0 ** np.clip(x - centre, 0.0, _GROWTH_END))


def two_way(single: pd.DataFrame, weight: Floats) -> tuple[Floats, float, int]:
    """(seed effects, weighted sum of squared residuals, degrees of freedom) of loss = cell + seed + noise.

    Without seed effects (an empty array) where the seeds' cells do not overlap, so that the two cannot be told
    apart. `weight` is one over the noise, per cell. The effects are those of the shortest vector of cell and seed
    effects; only their differences mean anything.
    """
    cells, cell = np.unique(single["cell"], return_inverse=True)
    seeds, seed = np.unique(single["seed"], return_inverse=True)
    n = np.zeros((len(cells), len(seeds)))
    np.add.at(n, (cell, seed), 1)
    squared = weight[cells] ** 2
    loss = single["loss"].to_numpy(float)
    mean = np.bincount(cell, loss) / np.bincount(cell)
    rest = loss - mean[cell]
    df = len(single) - len(cells)
    if not _connected(n > 0):
        return np.zeros(0), float(squared[cell] @ rest**2), df
    by_cell = np.zeros(len(cells))
    by_seed = np.zeros(len(seeds))
    for _ in range(2):  # the second solves for what rounding left of the first
        a, b = _additive(n * squared[:, None], cell, seed, squared[cell] * rest)
        rest = rest - a[cell] - b[seed]
        by_cell = by_cell + a
        by_seed = by_seed + b
    # Of all solutions, which differ by a shift, the shortest vector.
    shift = ((mean + by_cell).sum() - by_seed.sum()) / (len(cells) + len(seeds))
    return by_seed + shift, float(squared[cell] @ rest**2), df - (len(seeds) - 1)


def _additive(n: Floats, cell: npt.NDArray[np.intp], seed: npt.NDArray[np.intp], rest: Floats) -> tuple[Floats, Floats]:
    """Cell and seed effects, that of the first cell or seed 0: the normal equations of rest = cell + seed.

    n (cells, seeds) and `rest` are weighted. The side with more effects is eliminated, its block of the equations
    being diagonal; what is left for the other is the Schur complement.
    """
    of_cells = np.bincount(cell, rest)
    of_seeds = np.bincount(seed, rest)
    if len(of_cells) > len(of_seeds):
        b, a = _additive(n.T, seed, cell, rest)
        return a, b
    # Eliminate the seeds, solve for the cells, and put these in for the seeds.
    by_seed = n / n.sum(axis=0)
    schur = np.diag(n.sum(axis=1)) - by_seed @ n.T
    a = np.zeros(len(of_cells))
    a[1:] = np.linalg.solve(schur[1:, 1:], (of_cells - by_seed @ of_seeds)[1:])
    return a, of_seeds / n.sum(axis=0) - a @ by_seed


def _connected(met: npt.NDArray[np.bool_]) -> bool:
    """Whether every row of the table can be reached from the first by way of rows and columns that meet."""
    rows = np.arange(len(met)) == 0
    while True:
        reached = met[:, met[rows].any(axis=0)].any(axis=1)
        if (reached == rows).all():
            return bool(rows.all())
        rows = reached


def curve_fingerprint(cells: Cells) -> int:
    """A number by the shape of the curve alone: a group has one interval, however the table around it is grouped."""
    lowest = np.nanmin(cells.adjusted) if cells.finite.any() else 0.0
    above = cells.adjusted - lowest
    shape = [(round(x, 6), round(y, 6)) for x, y in zip(cells.x, above, strict=True)]
    return zlib.crc32(repr(shape).encode())


def run_counts(rows: pd.DataFrame) -> dict[str, int]:
    """The columns of `optima` that count the rows of a group."""
    status = rows["status"].tolist()
    return {
        "n_runs": len(rows),
        "n_seeds": len(np.unique(rows["seed"].to_numpy())),
        "n_diverged": status.count("diverged"),
        "n_failed": status.count("failed"),
    }
