"""Columns of numbers that explain what a law leaves over: rows that differ in more than the law knows of.

Depth, width or a learning rate differ between the rows of every table of models of several sizes, and most follow from
the size. What does not follow from it is another setting; it matters where the residuals follow it: a law of rows of
two depths, one of them 10 % worse, is the law of neither.

    residual of a cell = a quadratic in log N, log D and log(1 - S) + the effect of the column + noise

The quadratic takes up what the form of the law misses.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpsweep.analysis.law.outliers import OUTLYING
from hpsweep.analysis.law.resample import Fit
from hpsweep.analysis.law.solver import Design
from hpsweep.analysis.runs.cells import Floats

REFUSED = (0.5, 0.01)
"""Share of the squared residuals, and of the loss, that a column explains where one law is refused; else it is told."""

_LEAST = 1e-3  # of the loss: a smaller effect is not told
_FOLLOWS = 0.75  # of the variance of a column that the sizes explain, above which it follows from them
_LEVELS = 6  # values of a column up to which each has an effect of its own; of more, the effect is a parabola
_ROWS = 3  # cells that a value needs, lest it be that of an outlier
_DOUBT = 18.0, 3.0  # likelihood ratio, and more of it per number of the effect: by chance one column in 100,000
_SD = 1.4826  # standard deviations per median absolute deviation, of normal noise
_SMALLEST = 1e-9  # of a standard deviation


class _Cells(NamedTuple):
    """The distinct cells, the number of the column's value in each (missing is the last), and the mean residuals."""

    design: Design
    level: npt.NDArray[np.intp]
    values: Floats  # of the levels
    residual: Floats


class Effect(NamedTuple):
    """What a column explains: its share of the squared residuals, and the range of its effect (part of the loss)."""

    name: str
    values: str
    share: float
    amount: float


def check_explained(settings: pd.DataFrame, fit: Fit) -> list[str]:
    """Warnings of the columns that explain residuals; `settings` has the rows of the fit (see
    `settings.numeric_settings`).

    Raises ValueError for those that explain most of them and a good part of the loss: one law describes no row then.
    """
    effects = [_effect(str(name), settings[name].to_numpy(float), fit) for name in settings]
    found = [effect for effect in effects if effect is not None]
    share, amount = REFUSED
    refused = [effect for effect in found if effect.share >= share and effect.amount >= amount]
    if refused:
        names = [effect.name for effect in refused]
        raise ValueError(
            f"{'; '.join(map(_effect_text, refused))}: more than size and data explain, and one law is fitted to all. "
            f"Keep the rows with one value, or fit all the same with --ignore {','.join(names)} (ignore={names!r})."
        )
    return [
        f"{_effect_text(effect)}, which is {100 * effect.share:.0f} % of the squared residuals: the law is of rows "
        f"that differ in it. Keep the rows with one value, or leave out what is no setting with --ignore {effect.name}."
        for effect in found
    ]


def _effect_text(effect: Effect) -> str:
    return f"the losses differ by {100 * effect.amount:.2g} % with {effect.name} ({effect.values})"


def _effect(name: str, column: Floats, fit: Fit) -> Effect | None:
    """What the column explains, or None where it follows from the sizes, or explains no more than chance does."""
    cells = _cells(column, fit)
    if len(cells.values) < 2 or _monotone(cells):
        return None
    effects = _effects(cells)
    numbers = effects.shape[1]
    sizes = _sizes(cells.design, numbers)
    free = len(cells.residual) - sizes.shape[1] - numbers
    if free < _ROWS or _beyond(sizes, cells.level.astype(float)) < 1 - _FOLLOWS:
        return None
    # The likelihood ratio of the effect, with residuals cut lest a far outlier decide.
    near = OUTLYING * max(_SD * float(np.median(np.abs(cells.residual))), _SMALLEST)
    share = _share(np.clip(cells.residual, -near, near), sizes, effects)
    ratio = -free * np.log(max(1 - share, _SMALLEST))
    # Its size, as a part of the loss.
    amount = _amount(cells.residual, sizes, effects)
    if not fit.misfit.log:
        amount /= float(np.median(fit.loss))
    least = REFUSED[1] if _of_one_axis(cells) else _LEAST  # sizes may differ by a little, whatever else they are
    if ratio < _DOUBT[0] + _DOUBT[1] * numbers or amount < least:
        return None
    return Effect(name, _listed(column), share, amount)


def _cells(column: Floats, fit: Fit) -> _Cells:
    """The distinct cells; of a column of few values those whose value stands in _ROWS of them at least."""
    cell = fit.design.cell
    first = np.unique(cell, return_index=True)[1]
    residual = np.bincount(cell, fit.residual) / np.bincount(cell)
    values, level, count = np.unique(column[first], return_inverse=True, return_counts=True)
    kept = (count[level] >= _ROWS) | (len(values) > _LEVELS)
    values, level = np.unique(column[first][kept], return_inverse=True)
    return _Cells(fit.design.at(first).at(kept), level, values, residual[kept])


def _monotone(cells: _Cells) -> bool:
    """Whether the column only rises, or only falls, with N, D or 1 - S, or with a product or ratio of these."""
    x, n, d = cells.design.x, cells.design.n, cells.design.d
    for axis in (n, d, x, n - x, n + d, n + d - x, d - n, d - n + x):
        change = np.diff(_by_step(axis, cells))
        if len(change) and ((change >= 0).all() or (change <= 0).all()):
            return True
    return False


def _of_one_axis(cells: _Cells) -> bool:
    """Whether the column has one value for each N, dense N, D or S."""
    x, n, d = cells.design.x, cells.design.n, cells.design.d
    return any(len(_by_step(axis, cells)) for axis in (n, n - x, d, x))


def _by_step(axis: Floats, cells: _Cells) -> npt.NDArray[np.intp]:
    """The level at each distinct value of the axis, in its order; nothing where some have several."""
    step = np.unique(axis.round(6), return_inverse=True)[1]
    lowest = np.full(step.max() + 1, len(cells.values))
    highest = np.zeros(step.max() + 1, int)
    np.minimum.at(lowest, step, cells.level)
    np.maximum.at(highest, step, cells.level)
    return lowest if (lowest == highest).all() else lowest[:0]


def _effects(cells: _Cells) -> Floats:
    """Columns that combine to the effects: one for every value but the first; of many values a parabola in the rank."""
    if len(cells.values) <= _LEVELS:
        return np.asarray(cells.level[:, None] == np.arange(1, len(cells.values)), float)
    rank = cells.level / len(cells.values) - 0.5
    parabola = [rank, rank**2]
    missing = np.isnan(cells.values)[cells.level]
    if missing.any():
        parabola.append(missing)
    return np.column_stack(parabola).astype(float)


def _sizes(design: Design, numbers: int) -> Floats:
    """An orthonormal basis of the quadratics in log N, log D and log(1 - S); of their lines where cells are few."""
    axes = [design.n, design.d] if design.dense else [design.x, design.n, design.d]
    columns = [np.ones(len(design.n)), *axes]
    products = [a * b for a, b in itertools.combinations_with_replacement(axes, 2)]
    if len(design.n) - len(columns) - len(products) - numbers >= _ROWS:
        columns += products
    left, size, _ = np.linalg.svd(np.column_stack(columns), full_matrices=False)
    return np.asarray(left[:, size > _SMALLEST * size[0]])


def _beyond(sizes: Floats, column: Floats) -> float:
    """The part of the variance of a column that sizes leave, each sum of squares by its degrees of freedom."""
    cells, numbers = sizes.shape
    left = np.sum(_left(column, sizes) ** 2) / (cells - numbers)
    return float(left / np.var(column, ddof=1))


def _share(residual: Floats, sizes: Floats, effects: Floats) -> float:
    """The share of the squared residuals that the effects explain, of what the sizes leave of both."""
    residual, effects = _left(residual, sizes), _left(effects, sizes)
    total = float(np.sum(residual**2))
    if not total > _SMALLEST**2:
        return 0.0
    noise = residual - effects @ np.linalg.lstsq(effects, residual)[0]
    return 1 - float(np.sum(noise**2)) / total


def _amount(residual: Floats, sizes: Floats, effects: Floats) -> float:
    """The range of the effect over the cells; at most that beyond the sizes, where the column nearly follows them."""
    beyond = _left(effects, sizes)
    coefficients = np.linalg.lstsq(beyond, _left(residual, sizes))[0]
    return float(min(np.ptp(effects @ coefficients), np.ptp(beyond @ coefficients)))


def _left(columns: Floats, sizes: Floats) -> Floats:
    return np.asarray(columns - sizes @ (sizes.T @ columns))


def _listed(column: Floats) -> str:
    """The values in words, each with its rows; of many the lowest and the highest."""
    values, counts = np.unique(column, return_counts=True)
    if len(values) > _LEVELS:
        return f"{len(values)} values from {np.nanmin(values):g} to {np.nanmax(values):g}"
    names = ["none" if np.isnan(value) else format(value, "g") for value in values]
    return ", ".join(f"{value} in {n} rows" for value, n in zip(names, counts, strict=True))
