"""Seeds that are copies of another: the same runs recorded again under another number, rounded or not, all or some.

A copy narrows an interval as a run of its own would. Runs of two seeds of a group are one where their losses agree to
within the rounding of the coarser, at more values than chance explains. Two runs agree by chance at one value with a
probability of at most

    p = width / (s sqrt(2 pi)),     width of what counts as equal, s how much the differences of other pairs scatter

and at k of n values with (n over k) p^k at most. The scatter is about a line, as seeds may differ by a shift and a
slope, and at the same values, as noise grows with the learning rate. Where it is hardly larger than the width, as of
losses rounded to three digits, nothing is said. Where no other pair tells it, seeds of different precision are copies
if they agree everywhere, and the curve itself varies far more; seeds of one precision may be of a script that does not
use its seed, which the noise knows of.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpsweep.analysis.runs.cells import Floats
from hpsweep.analysis.runs.checks import group_text

CHANCE = 1e-6
"""Probability that seeds of a group without copies are taken for some, at most."""

CHANCE_ROUNDED = 1e-4
"""The same of seeds of different precision, which seeds that one script recorded do not have."""

SEVERAL = 3
"""Values at which seeds of different precision must agree where nothing says how much seeds differ."""

_FINEST = 1e-13  # of a loss: what is printed finer is not rounded
_DIGITS = 13  # significant ones, tried before a loss counts as not rounded
_EXACT = 1e-14  # of a loss: error of rounding in floats
_NORMAL_MEDIAN = 0.6745  # of |z|
_WIDTHS = 2.5  # that seeds scatter, at least, where agreeing says anything

_Indices = npt.NDArray[np.intp]


class _Line(NamedTuple):
    """The runs of one group: (seed, setting) losses and their units, NaN where there is none; (setting, field) octaves.

    Seeds stand in the order in which they are kept: the finer first, then those of more values, then as in the table.
    """

    place: _Indices  # of the run in the table, -1 where there is none
    loss: Floats
    unit: Floats
    octaves: Floats


class _Pair(NamedTuple):
    """Two seeds of a line, a kept one and what may be its copy, and the settings at which they agree."""

    kept: int
    copy: int
    shared: int  # settings that both have
    equal: _Indices  # those at which they agree
    clipped: _Indices  # others at which both were clipped
    width: float  # of differences that count as equal
    differ: bool  # in precision


def each_seed_once(runs: pd.DataFrame, group: Sequence[str], over: Sequence[str]) -> pd.DataFrame:
    """The runs without those that another seed of their group has at the same value, which a warning names."""
    ended = runs["status"] == "ok"
    rows = runs.loc[ended, list(dict.fromkeys([*group, *over, "seed"]))].reset_index(drop=True)
    if rows.empty:
        return runs
    rows = rows.assign(place=np.flatnonzero(ended), loss=runs.loc[ended, "val_loss"].to_numpy(float))
    rows["line"] = rows.groupby(list(group), sort=False, dropna=False).ngroup() if group else 0
    rows["own"] = rows.groupby(["line", "seed"], sort=False, dropna=False).ngroup()
    rows["nth"] = rows.groupby(["own", *over], sort=False).cumcount()  # of two settings that are one cell
    rows["setting"] = rows.groupby(["line", *over, "nth"], sort=False).ngroup()
    rows["unit"] = _units(rows["loss"].to_numpy(), rows["own"].to_numpy())
    found: list[tuple[_Line, _Pair]] = []
    for _, part in rows[rows["line"].isin(_lines_with_equals(rows))].groupby("line", sort=False):
        line = _line_of(part, over)
        found += [(line, pair) for pair in _copies(line)]
    if not found:
        return runs
    # Of each copied seed the first pair, by its last run.
    copies = {int(line.place[pair.copy].max()): (line, pair) for line, pair in reversed(found)}
    first_found = [*copies.values()][-1]
    _warn(runs, first_found, len(copies), group)
    keep = np.ones(len(runs), dtype=bool)  # by place, as an index may have a label twice
    for line, pair in found:
        keep[line.place[pair.copy, [*pair.equal, *pair.clipped]]] = False
    return runs[keep]


def _warn(runs: pd.DataFrame, first: tuple[_Line, _Pair], count: int, group: Sequence[str]) -> None:
    """Name the first of the copies, and say how many there are."""
    line, pair = first
    setting = pair.equal[0]
    kept = runs.iloc[line.place[pair.kept, setting]]
    copy = runs.iloc[line.place[pair.copy, setting]]
    to = "within the rounding of the coarser" if pair.differ else "to the last digit"
    others = ""
    if count > 1:
        others = f"; so have {count - 1} others"
    warnings.warn(
        f"{group_text([*group, 'seed'], tuple(copy[[*group, 'seed']]))} has the loss of seed {kept['seed']} at "
        f"{len(pair.equal)} of the {pair.shared} values that both have, {to}: the same runs, of which "
        f"one counts{others}.",
        stacklevel=4,
    )


# --- what a loss is rounded to ---


def _units(loss: Floats, seed: _Indices) -> Floats:
    """What one in the last place of each loss is, in decimals or in bits of a float, as the losses of its seed show."""
    size = np.maximum(np.abs(loss), 1e-300)
    mantissa, exponent = np.frexp(size)
    whole = (mantissa * 2.0**53).astype(np.int64)
    bits = _most(53 - np.log2(whole & -whole), seed)
    binary = np.ldexp(1.0, (exponent - bits).astype(int))
    power = np.floor(np.log10(size))
    digits = _digits(size / 10**power, 0.5 * binary / 10**power)
    decimals = 10.0 ** -_most(digits - 1 - power, seed)
    significant = 10.0 ** (power - _most(digits, seed) + 1)
    return np.asarray(np.max([binary, decimals, significant, _FINEST * size], axis=0))


def _digits(mantissa: Floats, error: Floats) -> Floats:
    """How many significant digits say each of these numbers, in [1, 10), to within its error."""
    digits = np.full(len(mantissa), float(_DIGITS + 2))
    for count in range(_DIGITS, 0, -1):
        exact = np.abs(np.round(mantissa, count - 1) - mantissa) <= np.maximum(error, _EXACT * mantissa)
        digits[exact] = count
    return digits


def _most(numbers: Floats, seed: _Indices) -> Floats:
    """The highest number of each seed, for all of its rows."""
    most = np.full(int(seed.max()) + 1, -np.inf)
    np.maximum.at(most, seed, numbers)
    return np.asarray(most[seed])


# --- pairs that agree ---


def _lines_with_equals(rows: pd.DataFrame) -> set[int]:
    """The groups where any two seeds agree at any setting: few, of a table without copies."""
    ordered = rows.sort_values(["setting", "loss"])
    setting, loss = ordered["setting"].to_numpy(), ordered["loss"].to_numpy()
    coarsest = ordered.groupby("setting", sort=False)["unit"].transform("max").to_numpy()
    same_setting = setting[1:] == setting[:-1]
    near = same_setting & (np.diff(loss) <= coarsest[1:])
    return set(ordered["line"].to_numpy()[1:][near].tolist())


def _line_of(part: pd.DataFrame, over: Sequence[str]) -> _Line:
    """The runs of one group as a table of seeds and settings."""
    seed = np.unique(part["own"], return_inverse=True)[1]
    setting = np.unique(part["setting"], return_inverse=True)[1]
    shape = (int(seed.max()) + 1, int(setting.max()) + 1)
    place = np.full(shape, -1, dtype=np.intp)
    place[seed, setting] = part["place"]
    loss = np.full(shape, np.nan)
    loss[seed, setting] = part["loss"]
    unit = np.full(shape, np.nan)
    unit[seed, setting] = part["unit"]
    octaves = np.zeros((shape[1], len(over)))
    octaves[setting] = np.log2(part[list(over)].to_numpy(float))
    # The finer seeds first, then those of more values, then as in the table.
    values = (place >= 0).sum(axis=1)
    precision = np.round(np.log10(np.nanmedian(unit, axis=1)))
    order = np.lexsort((-values, precision))
    return _Line(place[order], loss[order], unit[order], octaves)


def _copies(line: _Line) -> list[_Pair]:
    """The pairs of which one is a copy of the other where they agree."""
    pairs = [pair for kept in range(len(line.loss)) for pair in _agreeing(line, kept)]
    if not pairs:
        return []
    equal = [pair for pair in pairs if len(pair.equal) == pair.shared]
    others = np.setdiff1d(np.arange(len(line.loss)), [pair.copy for pair in equal])
    scatter, at = _scatter(line, others)
    if not len(scatter):
        # No other pair says how much seeds differ: the curve itself must vary far more than by rounding.
        equal = [pair for pair in equal if pair.differ and pair.shared >= SEVERAL]
        return [pair for pair in equal if _chance(pair, _spread(line.loss[pair.kept, pair.equal])) <= CHANCE_ROUNDED]
    tried = len(line.loss) * (len(line.loss) - 1)  # pairs, rounded or cut
    found = []
    for pair in pairs:
        allowed = (CHANCE_ROUNDED if pair.differ else CHANCE) / tried
        if _chance(pair, float(scatter.max())) > allowed:  # the least that it can be, which takes no time
            continue
        near = scatter[np.isin(at, pair.equal)]
        if len(near) < SEVERAL:
            near = scatter
        if _chance(pair, float(np.median(near))) <= allowed:
            found.append(pair)
    return found


def _chance(pair: _Pair, median: float) -> float:
    """How probable it is that two runs agree so, at most, where this is the median of how much they differ."""
    size = median / _NORMAL_MEDIAN
    if size < _WIDTHS * pair.width:
        return 1.0
    at_one_value = pair.width / (size * math.sqrt(2 * math.pi))
    return math.comb(pair.shared, len(pair.equal)) * at_one_value ** len(pair.equal)


def _spread(loss: Floats) -> float:
    """How much the losses of one seed vary over its settings: rounding as coarse as that says nothing."""
    return float(np.median(np.abs(loss - np.median(loss))))


def _agreeing(line: _Line, kept: int) -> list[_Pair]:
    """This seed and each of the later ones that agree with it at SEVERAL settings, or at all that both have.

    A highest loss that a seed has several times is where losses were clipped, and says nothing.
    """
    own, others = line.loss[kept], line.loss[kept + 1 :]
    own_unit, units = line.unit[kept], line.unit[kept + 1 :]
    clipped = own == np.nanmax(own)
    if clipped.sum() == 1:
        clipped = np.zeros_like(clipped)
    same = clipped & (own == others)
    difference = np.where(clipped, np.nan, own) - others
    both = np.isfinite(difference)
    # Where do they agree: the coarser is rounded to nearest, or cut off?
    fine, coarse = np.fmin(own_unit, units), np.fmax(own_unit, units)
    differ = coarse > fine * (1 + 1e-6)
    half = (coarse + fine) / 2 * (1 - 1e-6)  # of one unit: equal; of two, what rounding makes of it
    rounded = np.abs(difference) <= half
    toward_zero = difference * np.sign(own)
    cut = differ & (toward_zero >= -fine) & (toward_zero < coarse)
    more_cut = cut.sum(axis=1) > rounded.sum(axis=1)
    agree = np.where(more_cut[:, None], cut, rounded)
    shared = both.sum(axis=1)
    equal = agree.sum(axis=1)
    enough = (equal > 0) & (equal >= np.minimum(SEVERAL, shared))
    width = np.where(agree, np.where(differ, coarse + fine, coarse), 0.0).max(axis=1)
    differ = (differ & agree).any(axis=1)
    return [
        _Pair(
            kept,
            kept + 1 + i,
            int(shared[i]),
            np.flatnonzero(agree[i]),
            np.flatnonzero(same[i]),
            float(width[i]),
            differ=bool(differ[i]),
        )
        for i in np.flatnonzero(enough).tolist()
    ]


def _scatter(line: _Line, seeds: _Indices) -> tuple[Floats, _Indices]:
    """How much seeds that follow each other at a setting differ there, about a line of each pair, and the settings."""
    loss = line.loss[seeds]
    apart: dict[tuple[int, int], list[tuple[int, float]]] = {}
    for setting in range(loss.shape[1]):
        there = np.flatnonzero(np.isfinite(loss[:, setting])).tolist()
        for one, other in itertools.pairwise(there):
            difference = float(loss[other, setting] - loss[one, setting])
            apart.setdefault((one, other), []).append((setting, difference))
    rest, at = [np.zeros(0)], [np.zeros(0, dtype=np.intp)]
    for pairs in apart.values():
        settings = np.array([setting for setting, _ in pairs])
        differences = np.array([difference for _, difference in pairs])
        rest.append(_about_a_line(line.octaves[settings], differences))
        at.append(settings)
    return np.concatenate(rest), np.concatenate(at)


def _about_a_line(octaves: Floats, differences: Floats) -> Floats:
    """The differences' distances from the line through them, or from their mean where they are few, or from 0 if less.

    Seeds that all have one loss at a value, as where it is clipped, do not differ there, wherever the line is.
    """
    n, fields = octaves.shape
    if n == 1:
        return np.abs(differences)
    columns = np.ones((n, 1))
    if n >= fields + 2:
        columns = np.column_stack([np.ones(n), octaves])
    rest = differences - columns @ np.linalg.lstsq(columns, differences, rcond=None)[0]
    scale = math.sqrt(n / (n - np.linalg.matrix_rank(columns)))
    return np.asarray(np.minimum(np.abs(rest) * scale, np.abs(differences)))
