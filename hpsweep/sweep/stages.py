"""The stages of a refinement of one group: a pure function of the results of its cells.

    octave     log2 of the searched hyperparameter; the values tried are whole, half and quarter octaves
    cell       (octave, seed): one trial of the group

    coarse   every octave of the space
    extend   two octaves more beyond the end that has the minimum, up to Refine.extend octaves beyond the space
    fine     half octaves within an octave of the minimum, three seeds or more; again around wherever it moves
    between  a minimum beside a diverged value: the middle of the two, down to a quarter octave
    wider    flat, or an interval wider than Refine.interval: half octaves within two octaves
    seeds    still so: more seeds in that window

until the group is ok or a limit is reached. A plan is replayed from its beginning whenever it is asked for: a stage
names cells; while some of them have no result, they are what is missing; when all have, the next stage follows from
the results of the stages so far and from nothing else. So it depends neither on the order in which results came, nor
on results that it did not ask for; and a larger limit continues what a smaller one began.

On 150 simulated groups (noise .003 and .01, optimum anywhere between two octaves) half octaves within two octaves with
3 seeds, 32 trials, left fewer groups flat and narrower intervals than within one octave with 6 seeds, 37 trials, or
quarter octaves with 3 seeds, 34 trials: hence the order. `python -m benchmarks.refine` compares the whole with grids.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from hpsweep.analysis.optimum.optima import optima
from hpsweep.spec import FINE_SEEDS, QUARTER, Refine, octaves_within
from hpsweep.text import as_power

Cell = tuple[float, int]  # (octave, seed)

FINE = 0.5
"""Step of the fine pass, octaves."""
NARROW = 1.0
"""Half width of the fine pass, octaves: the narrowest window of the fit."""
WIDE = 2.0
"""Half width of the widest window of the fit, octaves."""

_STRIDE = 2  # octaves by which a grid is extended at once


class Step(NamedTuple):
    """What a group does next: its stage and why, the cells planned so far, and those of them without a result.

    With stage "ok" or "limit reached" the group is at its end, and `why` says how.
    """

    stage: str
    why: str
    planned: tuple[Cell, ...]
    missing: tuple[Cell, ...]

    @property
    def ended(self) -> bool:
        """Whether nothing more will be asked for."""
        return self.stage in ("ok", "limit reached")


def next_step(
    over: str, space: tuple[float, float], seeds: Sequence[int], limits: Refine, results: Mapping[Cell, float | None]
) -> Step:
    """The next step of one group, from the results of its cells.

    `results` holds nats/token, inf where a trial diverged, None where one was given up; a cell that is not in it is
    missing. `seeds` are those that the sweep names; the plan goes on with the numbers after the largest.
    """
    planned: dict[Cell, None] = {}
    known: dict[Cell, float] = {}
    for stage, found, wanted in _stages(over, octaves_within(space), seeds, limits, planned, known):
        new = [cell for cell in wanted.cells if cell not in planned]
        if not new:  # the group is at its end
            return Step(stage, found, tuple(planned), ())
        new = new[: limits.trials - len(planned)]  # a group has a limited number of trials
        if not new:
            full = f"all {limits.trials} trials that a group may have: {found}"
            return Step("limit reached", full, tuple(planned), ())
        planned.update(dict.fromkeys(new))
        missing = tuple(cell for cell in planned if cell not in results)
        if missing:
            return Step(stage, f"{found}: {wanted.words}", tuple(planned), missing)
        for cell in new:
            loss = results[cell]
            if loss is not None:  # else it was given up
                known[cell] = loss
    raise AssertionError("the stages of a group end with ok or a limit")


class _Wanted(NamedTuple):
    """Cells, and the words for them."""

    words: str = ""
    cells: Sequence[Cell] = ()


def _stages(
    over: str,
    space: Sequence[float],
    seeds: Sequence[int],
    limits: Refine,
    planned: Collection[Cell],
    known: Mapping[Cell, float],
) -> Iterator[tuple[str, str, _Wanted]]:
    """(stage, what was found, cells wanted) in turn, at the end without cells.

    Between two of them the cells are `planned`, and `known` has grown by their losses.
    """
    few = _first(seeds, limits.coarse_seeds)
    least = max(FINE_SEEDS, len(seeds))
    ends = (space[0] - limits.extend, space[-1] + limits.extend)
    # The coarse pass, extended until the minimum is not at its end.
    yield "coarse", "nothing known", _octaves(space, few, f"every octave of the space, {_many(len(few), 'seed')}")
    more = _beyond_lowest(known, planned, ends)
    while more:
        yield "extend", _lowest_in_words(over, known), _octaves(more, few)
        more = _beyond_lowest(known, planned, ends)
    # The fine pass, until the interval of the optimum is narrow enough.
    stage = "fine"
    count = least
    reach = NARROW
    while True:
        fit = _fit(over, tuple(sorted(known.items())))
        if math.isnan(fit.at):
            yield (
                "limit reached",
                f"no {over} from {as_power(ends[0])} to {as_power(ends[1])} has a finite loss",
                _Wanted(),
            )
        is_narrow = fit.status == "ok" and fit.width <= limits.interval
        if is_narrow:
            wanted = _halves(fit.at, NARROW, least, seeds, planned, known, ends)
        else:
            wanted = _halves(fit.at, reach, count, seeds, planned, known, ends)
        if any(cell not in planned for cell in wanted.cells):
            yield stage, _found(over, fit, limits), wanted
            stage = "fine"
            continue
        if is_narrow:
            yield "ok", _found(over, fit, limits), _Wanted()
            continue
        # All of them are known, and the interval is too wide: look elsewhere, then wider, then with more seeds.
        between = _between(fit, planned, known)
        open_octaves = _open_octaves(fit, planned, known, ends)
        if between:
            words = f"{' and '.join(map(as_power, between))}, {_many(count, 'seed')}"
            yield "between", fit.why, _Wanted(words, _cells(between, _first(seeds, count)))
        elif open_octaves:
            yield "extend", fit.why, _octaves(open_octaves, few)
        elif fit.status == "edge" and _is_last(fit, known):
            yield "limit reached", f"{fit.why}; but {_no_further(fit, known, limits)}", _Wanted()
        elif reach < WIDE:
            stage = "wider"
            reach = WIDE
        elif fit.status == "none":
            yield "limit reached", fit.why, _Wanted()
        else:
            stage = "seeds"
            count = _more_seeds(count, fit, limits)


# --- where to look next ---


class _Fit(NamedTuple):
    """What `analysis.optimum` says of the cells so far, in octaves; NaN where there is none."""

    status: str
    why: str
    best: float  # of the cells
    opt: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """Width of the optimum's interval, octaves; infinite where there is no optimum inside."""
        if self.status != "ok":
            return math.inf
        return self.high - self.low

    @property
    def at(self) -> float:
        """Where the half octaves belong around: the optimum to half an octave, else the lowest cell."""
        if self.status == "ok":
            return round(self.opt / FINE) * FINE
        if self.status == "edge":
            return octave_of(2.0**self.opt)
        return self.best

    @property
    def side(self) -> int:
        """-1 or 1 where the optimum lies at or beyond that end."""
        if math.isnan(self.high):
            return 1
        return -1


@functools.lru_cache(maxsize=4096)
def _fit(over: str, cells: tuple[tuple[Cell, float], ...]) -> _Fit:
    if not cells:
        return _Fit("none", f"no trial of any {over} ended", *[math.nan] * 4)
    results = [(2.0**octave, seed, loss) for (octave, seed), loss in cells]
    runs = pd.DataFrame(results, columns=[over, "seed", "val_loss"])
    runs["status"] = ["ok" if math.isfinite(loss) else "diverged" for loss in runs["val_loss"]]
    (row,) = optima(runs.assign(group=0, data_hash=""), by=["group"], over=over).to_dict("records")
    best = row["best_value"]
    if not math.isnan(best):
        best = octave_of(best)
    return _Fit(row["status"], row["why"], best, row["log2_opt"], row["log2_low"], row["log2_high"])


def _octaves(octaves: Sequence[float], seeds: Sequence[int], words: str = "") -> _Wanted:
    return _Wanted(words or f"on to {' and '.join(map(as_power, octaves))}", _cells(octaves, seeds))


def _halves(
    at: float,
    reach: float,
    count: int,
    seeds: Sequence[int],
    planned: Collection[Cell],
    known: Mapping[Cell, float],
    ends: tuple[float, float],
) -> _Wanted:
    """The half octaves, and what else is planned, within `reach` of a place, but nothing at or past a divergence."""
    lower, upper = _diverged_around(at, known)
    halves = [k * FINE for k in range(math.ceil((at - reach) / FINE), math.floor((at + reach) / FINE) + 1)]
    near = {octave for octave, _ in planned if abs(octave - at) <= reach}
    not_diverged = [octave for octave in {*halves, *near} if lower < octave < upper]
    inside = [octave for octave in not_diverged if ends[0] <= octave <= ends[1]]
    words = f"half octaves within {_many(reach, 'octave')} of {as_power(at)}, {_many(count, 'seed')}"
    return _Wanted(words, _cells(inside, _first(seeds, count), at))


def _diverged_around(at: float, known: Mapping[Cell, float]) -> tuple[float, float]:
    """The nearest octaves below and above at which a trial diverged; infinite where none did."""
    diverged = [octave for (octave, _), loss in known.items() if loss == math.inf]
    below = [octave for octave in diverged if octave < at]
    above = [octave for octave in diverged if octave > at]
    return max(below, default=-math.inf), min(above, default=math.inf)


def _between(fit: _Fit, planned: Collection[Cell], known: Mapping[Cell, float]) -> list[float]:
    """The untried value nearest the middle between the cells around the minimum and the diverged ones beside them.

    [] where the fit has an optimum.
    """
    if fit.status not in ("edge", "none"):
        return []
    lower, upper = _diverged_around(fit.at, known)
    finite = [octave for octave, _ in known if lower < octave < upper]
    tried = {octave for octave, _ in planned}
    found = []
    for side, end, wall in ((-1, min(finite), lower), (1, max(finite), upper)):
        if math.isinf(wall):  # nothing diverged there
            continue
        if fit.status == "edge" and side != fit.side:
            continue
        steps = round(abs(wall - end) / QUARTER)
        inside = [end + side * QUARTER * k for k in range(1, steps)]
        untried = [octave for octave in inside if octave not in tried]
        middle = (end + wall) / 2
        found += sorted(untried, key=lambda octave: abs(octave - middle))[:1]
    return found


def _beyond_lowest(known: Mapping[Cell, float], planned: Collection[Cell], ends: tuple[float, float]) -> list[float]:
    """Octaves to extend the coarse pass by: past the end that has the minimum; downwards where all diverged."""
    if not known:
        return []
    lowest = _lowest(known)
    tried = [octave for octave, _ in known]
    found = []
    if lowest is None or lowest == min(tried):
        found += _next_octaves(-1, planned, ends)
    if lowest == max(tried):
        found += _next_octaves(1, planned, ends)
    return found


def _lowest(known: Mapping[Cell, float]) -> float | None:
    """The octave with the lowest running median of three means, as in the fit; None where every one diverged."""
    by_octave: dict[float, list[float]] = {}
    for (octave, _), loss in known.items():
        by_octave.setdefault(octave, []).append(loss)
    tried = sorted(by_octave)
    means = [_mean(by_octave[octave]) for octave in tried]
    padded = [math.inf, *means, math.inf]
    ranked = []
    for i, (octave, mean) in enumerate(zip(tried, means, strict=True)):
        median = sorted(padded[i : i + 3])[1]
        if not math.isfinite(mean):  # beside finite values the median of a diverged one may be finite
            median = math.inf
        ranked.append((median, mean, octave))
    _, mean, octave = min(ranked)
    if not math.isfinite(mean):
        return None
    return octave


def _mean(losses: Sequence[float]) -> float:
    return math.fsum(losses) / len(losses)


def _next_octaves(side: int, planned: Collection[Cell], ends: tuple[float, float]) -> list[float]:
    """The next octaves past the planned ones on that side, those within the ends."""
    tried = [octave for octave, _ in planned]
    last = math.ceil(min(tried))
    if side > 0:
        last = math.floor(max(tried))
    following = [float(last + side * k) for k in range(1, _STRIDE + 1)]
    return [octave for octave in following if ends[0] <= octave <= ends[1]]


def _open_octaves(
    fit: _Fit, planned: Collection[Cell], known: Mapping[Cell, float], ends: tuple[float, float]
) -> list[float]:
    """Octaves past the end at which the minimum is, unless a diverged value lies there; [] where it is at no end."""
    if fit.status != "edge":
        return []
    wall = _diverged_around(fit.at, known)[fit.side > 0]
    if math.isfinite(wall):
        return []
    return _next_octaves(fit.side, planned, ends)


def _is_last(fit: _Fit, known: Mapping[Cell, float]) -> bool:
    """Whether no finite value lies beyond the lowest on the side to which the bound is open."""
    lower, upper = _diverged_around(fit.at, known)
    finite = [octave for octave, _ in known if lower < octave < upper]
    return not any((octave - fit.at) * fit.side > 0 for octave in finite)


def _more_seeds(count: int, fit: _Fit, limits: Refine) -> int:
    """As many as make the interval narrow enough if it goes by one over their root; one more at least, or twice all."""
    if math.isinf(fit.width):
        return 2 * count
    return min(2 * count, max(count + 1, math.ceil(count * (fit.width / limits.interval) ** 2)))


def _first(seeds: Sequence[int], count: int) -> list[int]:
    """The first seeds of the sweep; after its own, the numbers that follow the largest."""
    return [*sorted(seeds), *range(max(seeds) + 1, max(seeds) + 1 + count)][:count]


def _cells(octaves: Iterable[float], seeds: Iterable[int], at: float | None = None) -> list[Cell]:
    """Every combination, one seed after the other, what is nearest to `at` first."""
    ordered = sorted(octaves, key=lambda octave: (0.0 if at is None else abs(octave - at), octave))
    return [(octave, seed) for seed in seeds for octave in ordered]


def octave_of(value: float) -> float:
    """log2 of a value that a refinement tries, without what rounding adds."""
    return round(math.log2(value) / QUARTER) * QUARTER


# --- words ---


def _many(number: float, word: str) -> str:
    if number == 1:
        return f"{number:g} {word}"
    return f"{number:g} {word}s"


def _lowest_in_words(over: str, known: Mapping[Cell, float]) -> str:
    lowest = _lowest(known)
    if lowest is None:
        return "every value diverged"
    return f"the minimum is at the end, {over} {as_power(lowest)}"


def _found(over: str, fit: _Fit, limits: Refine) -> str:
    if fit.status != "ok":
        return fit.why
    interval = f"[{as_power(fit.low)}, {as_power(fit.high)}], {fit.width:.2g} octaves"
    wanted = f"at most {limits.interval:g} wanted"
    if fit.width <= limits.interval:
        wanted = "narrow enough"
    return f"optimum at {over} {as_power(fit.opt)} {interval}, {wanted}"


def _no_further(fit: _Fit, known: Mapping[Cell, float], limits: Refine) -> str:
    if math.isfinite(_diverged_around(fit.at, known)[fit.side > 0]):
        return f"values are no closer than {QUARTER:g} octave"
    return f"the grid ends {_many(limits.extend, 'octave')} beyond the space"
