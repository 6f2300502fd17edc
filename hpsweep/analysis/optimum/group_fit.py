"""The fit of one group: an optimum, a bound at an end of the values tried, or neither, with the reason.

The steps are numbered in the docstring of optima.py.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hpsweep.analysis.optimum.curve import LIMIT
from hpsweep.analysis.optimum.minimum import Minimum, narrowest_minimum
from hpsweep.analysis.optimum.noise import Noise, perturbed_means
from hpsweep.analysis.optimum.window import CellWindow, centre_of, finite_segment, lowest_cells
from hpsweep.analysis.runs.cells import Cells, Floats, curve_fingerprint, merged_cells
from hpsweep.english import counted, have
from hpsweep.text import as_power

REFUSED_LIMIT = 0.25
"""Above this fraction of replicates without an optimum, the group has none either."""

COUNTS = ("n_runs", "n_seeds", "n_diverged", "n_failed")
"""Columns that count the rows of a group."""

OPTIMA_COLUMNS = (
    *("hyperparameter", "opt", "low", "high", "log2_opt", "log2_low", "log2_high", "loss_opt", "loss_opt_se"),
    *("best_value", "best_loss", "curvature", "window", *COUNTS, "refused"),
    *("interval", "status", "why"),
)
"""Columns of `optima` after the grouping ones."""


class GroupFit(NamedTuple):
    """The row of one group, without its counts, and what `Group` has of its fit."""

    row: dict[str, Any]
    weights: Floats | None = None
    minimum: Minimum | None = None


def known_fit(cells: Cells, noise: Noise, over: str, resamples: int, seed: int) -> GroupFit:
    """The fit of one group, computed once: a report has it in half a dozen tables."""
    key = (_fit, noise.single.tobytes(), *noise[1:], over, resamples, seed)
    if key not in cells.computed:
        generator = np.random.default_rng([seed, curve_fingerprint(cells)])
        cells.computed[key] = _fit(cells, noise, over, resamples, generator)
    found: GroupFit = cells.computed[key]
    return found


def _fit(cells: Cells, noise: Noise, over: str, resamples: int, generator: np.random.Generator) -> GroupFit:
    row: dict[str, Any] = {
        **dict.fromkeys(OPTIMA_COLUMNS, math.nan),
        "hyperparameter": over,
        "interval": None,
        "why": "",
    }
    finite = cells.finite
    if finite.any():
        best = int(np.nanargmin(cells.adjusted))
        row.update(best_value=float(cells.values[best]), best_loss=float(cells.adjusted[best]))
    if finite.sum() < 3:
        values = counted(int(finite.sum()), f"value of {over}", f"values of {over}")
        why = f"{values} {have(int(finite.sum()))} finite losses and at least 3 are needed: train more values"
        return GroupFit({**row, "status": "none", "why": why})
    if np.ptp(cells.adjusted[finite]) == 0:
        why = f"all losses are the same: {over} has no effect, or a loss is no loss"
        return GroupFit({**row, "status": "flat", "why": why})
    # Steps 1 and 2: the cells, and the smoothed minimum that they are fitted around.
    fitted, of = merged_cells(cells)
    centre = centre_of(fitted)
    if len(set(finite_segment(fitted.finite, centre))) == 1:
        why = f"the lowest loss, at {over} {as_power(fitted.x[centre])}, lies alone between diverged values: add values"
        return GroupFit({**row, "status": "none", "why": why})
    row["interval"] = noise.interval
    # Steps 3 to 6: the noise, the best curve, and the places that agree with the losses.
    noise = noise.of_merged(of, cells.n)
    found = narrowest_minimum(fitted, centre, noise)
    # Step 8: is the minimum at an end, or not to be told from it?
    means = perturbed_means(fitted.adjusted, fitted.n, noise, resamples, generator)
    drawn = lowest_cells(means, fitted.finite)
    row["refused"], side = _refused(fitted, drawn, found)
    side = _end(fitted, centre) or side
    if not side and found.open_below != found.open_above:
        side = _open_end(fitted, found)
    other_side_is_open = found.open_below if side > 0 else found.open_above
    if side and not other_side_is_open:
        return GroupFit({**row, **_edge(cells, of, fitted, centre, side, found, over)})
    why = _why_flat(fitted, found, row["refused"])
    if why:
        return GroupFit({**row, "curvature": found.curvature, "interval": None, "status": "flat", "why": why})
    # An optimum: its loss as a sum over the cells that were tried, but beside a cliff.
    weights = None
    if found.window.below is None and found.window.above is None:
        weights = found.weights[of] * cells.n / np.maximum(fitted.n, 1)[of]
    row = {**row, **_interior(fitted, found, noise)}
    found = found._replace(window=_unmerged(found.window, of), possible=_unmerged(found.possible, of))
    return GroupFit(row, weights, found)


def _unmerged(window: CellWindow, of: npt.NDArray[np.intp]) -> CellWindow:
    """The same of the cells that were tried, of which `of` says in which merged one each is."""
    below = None if window.below is None else int(np.flatnonzero(of == window.below)[-1])
    above = None if window.above is None else int(np.flatnonzero(of == window.above)[0])
    return CellWindow(window.reach, np.flatnonzero(np.isin(of, window.fitted)), below, above)


def _end(cells: Cells, centre: int) -> int:
    """-1 or 1 for the first or last of the finite cells around a cell, else 0."""
    first, last = finite_segment(cells.finite, centre)
    return int(centre == last) - int(centre == first)


def _refused(cells: Cells, drawn: npt.NDArray[np.intp], found: Minimum) -> tuple[float, int]:
    """(fraction of replicates whose lowest cell is none, the side on which they are or 0).

    None is a cell at an end, or beyond those that enclose the interval.
    """
    ends = np.array([_end(cells, cell) for cell in range(len(cells.x))])
    sides = ends[drawn]
    # The cells that enclose the interval.
    first = np.searchsorted(cells.x, found.low, side="right") - 1
    last = np.searchsorted(cells.x, found.high, side="left")
    is_outside = (drawn < first) | (drawn > last)
    refused = float(((sides != 0) | is_outside).mean())
    leaning = sides.mean()
    if refused > REFUSED_LIMIT and abs(leaning) > refused / 2:
        return refused, int(np.sign(leaning))
    return refused, 0


def _open_end(cells: Cells, found: Minimum) -> int:
    """-1 or 1 where nothing is excluded up to that end of the finite cells; 0 if it is up to that of the window."""
    return _end(cells, int(found.window.fitted[-1 if found.open_above else 0]))


def _interior(cells: Cells, found: Minimum, noise: Noise) -> dict[str, Any]:
    """The optimum that a fit found, with its interval."""
    low, high = _with_lowest(cells, found, noise)  # step 7
    below = float(np.nanmin(cells.adjusted)) - found.lowest
    return {
        **_in_octaves(found.place, low, high),
        "loss_opt": found.lowest,
        "loss_opt_se": math.hypot(max(found.lowest_se, below / LIMIT), math.sqrt(cells.seed_variance)),
        "curvature": found.curvature,
        "window": found.window.reach,
        "status": "ok",
    }


def _with_lowest(cells: Cells, found: Minimum, noise: Noise) -> tuple[float, float]:
    """(low, high), extended to the lowest cell where its noise does not explain that it is lowest."""
    index = found.window.fitted
    best = int(index[np.argmin(cells.adjusted[index])])
    place = float(cells.x[best])
    if found.low <= place <= found.high:
        return found.low, found.high
    # Its neighbour towards the interval: is it higher by more than noise?
    beside = best - 1
    if place < found.low:
        beside = best + 1
    variance = noise.variance(cells.n)
    error = math.sqrt(variance[beside] + variance[best])
    gap = cells.adjusted[beside] - cells.adjusted[best]
    if gap <= LIMIT * error:
        return found.low, found.high
    return min(found.low, place), max(found.high, place)


def _in_octaves(log2_opt: float, log2_low: float, log2_high: float) -> dict[str, float]:
    logs = {"opt": float(log2_opt), "low": float(log2_low), "high": float(log2_high)}
    in_octaves = {f"log2_{name}": log2 for name, log2 in logs.items()}
    values = {name: 2.0**log2 for name, log2 in logs.items()}
    return {**in_octaves, **values}


def _edge(
    tried: Cells, of: npt.NDArray[np.intp], cells: Cells, centre: int, side: int, found: Minimum, over: str
) -> dict[str, Any]:
    """What a minimum at an end of the finite cells, or not to be told from it, says: a bound with one side open.

    `cells` are those fitted, `of` says in which of them each that was tried is.
    """
    end = finite_segment(cells.finite, centre)[side > 0]
    before = cells.x[end - side]
    best = int(np.nanargmin(tried.adjusted))
    inner = before if of[best] == end else tried.x[best]
    at_end = tried.x[of == end]
    if side > 0:
        last, word, way = at_end[-1], "highest", "upwards"
        low, high = min(found.low, before, inner), math.nan
    else:
        last, word, way = at_end[0], "lowest", "downwards"
        low, high = math.nan, max(found.high, before, inner)
    where = "minimum at"
    if centre != end:
        where = f"minimum near {as_power(cells.x[centre])}, not to be told from"
    diverged = 0 <= end + side < len(cells.x)
    if diverged:
        beside = as_power(cells.x[end + side])
        why = f"{where} {over} {as_power(last)}, beside {beside}, which diverged: add values between them"
    else:
        why = f"{where} the {word} {over} {as_power(last)}: extend the grid {way}"
    bound = _in_octaves(tried.x[best], low, high)
    return {**bound, "loss_opt": float(tried.adjusted[best]), "status": "edge", "why": why}


def _why_flat(cells: Cells, found: Minimum, refused: float) -> str:
    """Why a fit shows no optimum; empty if it shows one."""
    remedy = "train more seeds, or values further apart"
    first, last = (as_power(cells.x[found.window.fitted[end]]) for end in (0, -1))
    if found.open_below or found.open_above:
        return f"the losses from {first} to {last} exclude no minimum {_where(found, first, last)}: {remedy}"
    if refused > REFUSED_LIMIT:
        return (
            f"{refused:.0%} of resamples have their lowest loss at an end, or away from the interval from "
            f"{as_power(found.low)} to {as_power(found.high)} (limit {REFUSED_LIMIT:.0%}): {remedy}"
        )
    return ""


def _where(found: Minimum, first: str, last: str) -> str:
    if found.open_below and found.open_above:
        return "anywhere between them, or beyond"
    if found.open_below:
        return f"at {first} or below"
    return f"at {last} or above"
