"""Simulated runs whose optimum is known, to judge by them what the analysis says: for benchmarks and tests.

    z       log2(lr) less the optimum, octaves
    loss    2 + a shift per seed + curve(z) + noise, nats/token; it doubles per octave to the right, up to HIGH
    curve   one of CURVES, all with .011 nats/octave^2 at the optimum; past the cliff .3 + .5 (z - cliff) on top

The optimum is lr = 1; what a seed does to all its runs has a standard deviation of .02 nats/token.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]
Measure = Callable[[float], Floats]  # log2(lr) -> loss of every seed, nats/token

LOW, HIGH = -5.0, 4.0
"""Where points lie, octaves from the optimum."""

CURVATURE = 0.011
"""Of every curve at its optimum, nats/octave^2."""


def _cubic(steepness: float) -> Callable[[Floats], Floats]:
    """CURVATURE z^2 + steepness z^3, continued by its tangents beyond 4 octaves."""

    def curve(z: Floats) -> Floats:
        near = np.clip(z, -4.0, 4.0)
        slope = 2 * CURVATURE * near + 3 * steepness * near**2
        return np.asarray(CURVATURE * near**2 + steepness * near**3 + slope * (z - near))

    return curve


def _exponential(z: Floats) -> Floats:
    """A straight line far left, steeper and steeper to the right; its z^3 is .2 of its z^2."""
    return np.asarray(2 * CURVATURE / 0.36 * (np.exp(0.6 * z) - 1 - 0.6 * z))


def asymmetric(ratio: float) -> Callable[[Floats], Floats]:
    """A parabola on the left; an octave to the right it rises `ratio` times as much, two octaves 2 ratio - 1 times."""

    def curve(z: Floats) -> Floats:
        return np.asarray(CURVATURE * z**2 * (1 + (ratio - 1) * np.clip(z, 0.0, HIGH)))

    return curve


def _kinked(ratio: float) -> Callable[[Floats], Floats]:
    """Two halves of parabolas; the right one rises `ratio` times as much, however near."""

    def curve(z: Floats) -> Floats:
        return np.asarray(2 * CURVATURE / (1 + ratio) * z**2 * np.where(z > 0, ratio, 1.0))

    return curve


RATIOS = (1.25, 1.5, 2.0, 2.5)
"""How much more an asymmetric curve rises an octave to the right; a tenth of real slices are beyond 2.2."""

CURVES: dict[str, Callable[[Floats], Floats]] = {
    "steep right": _cubic(0.0014),
    "steep left": _cubic(-0.0014),
    "symmetric": _cubic(0.0),
    "exponential": _exponential,
    "flat": np.zeros_like,
    **{f"asymmetric {ratio:g}": asymmetric(ratio) for ratio in RATIOS},
    "kinked 2": _kinked(2.0),
    "kinked 2.5": _kinked(2.5),
}
"""What the loss does around the optimum. The cubic of "steep right", .13 of its square, is the median of real runs."""


def simulated(
    groups: int,
    *,
    points: str,
    seeds: int,
    noise: float,
    curve: str = "steep right",
    cliff: float = 3.2,
    tilt: float = 0.0,
    slope: float = 0.0,
    tail: float | None = None,
    diverging: float = 0.0,
    missing: float = 0.0,
    beyond: tuple[int, float] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Runs of groups whose optimum is lr = 1; the columns are what `optima` needs, and group.

    points is a key of POINTS, curve one of CURVES; noise is in nats/token, cliff in octaves right of the optimum.
    tilt: standard deviation of an optimum of its own for every seed, octaves. slope: that of a slope of its own,
    nats/octave. tail: degrees of freedom of Student's t, scaled to the same standard deviation, that the noise is drawn
    from in the place of a normal. diverging: chance that a run past the cliff diverges instead. missing: chance that a
    run is not there, half of these as failed ones. beyond=(1, .5): the grid's highest value lies .5 octave below the
    optimum; (-1, .5): its lowest .5 above.
    """
    generator = np.random.default_rng(seed)
    frames = []
    for group in range(groups):
        optimum, shift = tilt * generator.standard_normal(seeds), 0.02 * generator.standard_normal(seeds)
        slopes = slope * generator.standard_normal(seeds) if slope else np.zeros(seeds)

        def measure(x: float, optimum: Floats = optimum, shift: Floats = shift, slopes: Floats = slopes) -> Floats:
            z = x - optimum
            size = noise * 2 ** min(max(x, 0.0), HIGH)
            loss = 2 + shift + slopes * x + CURVES[curve](z) + size * _drawn(generator, seeds, tail)
            return np.asarray(loss + (curve != "flat") * np.where(z > cliff, 0.3 + 0.5 * (z - cliff), 0.0))

        x = _beyond(generator, points, *beyond) if beyond else POINTS[points](generator, measure)
        frames.append(_runs(group, x, np.array([measure(value) for value in x]), generator, cliff, diverging, missing))
    return pd.concat(frames, ignore_index=True).assign(data_hash="d")


def _drawn(generator: np.random.Generator, seeds: int, tail: float | None) -> Floats:
    if tail is None:
        return generator.standard_normal(seeds)
    return generator.standard_t(tail, seeds) * math.sqrt((tail - 2) / tail)


def _runs(
    group: int,
    x: Floats,
    losses: Floats,
    generator: np.random.Generator,
    cliff: float,
    diverging: float,
    missing: float,
) -> pd.DataFrame:
    """The rows of one group: losses is (points, seeds)."""
    seeds = losses.shape[1]
    at = np.repeat(x, seeds)
    status = np.full(at.shape, "ok", dtype=object)
    status[(at > cliff) & (generator.uniform(size=at.shape) < diverging)] = "diverged"
    lost = generator.uniform(size=at.shape)
    status[lost < missing / 2] = "failed"
    rows = pd.DataFrame({"group": group, "seed": np.tile(np.arange(seeds), len(x)), "lr": 2.0**at, "status": status})
    rows["val_loss"] = np.where(status == "ok", losses.ravel(), np.nan)
    return rows[(lost < missing / 2) | (lost >= missing)]


def _grid(step: float) -> Callable[[np.random.Generator, Measure], Floats]:
    def grid(generator: np.random.Generator, measure: Measure) -> Floats:
        return np.asarray(LOW + step * (generator.uniform() + np.arange(round((HIGH - LOW) / step))))

    return grid


def _decades(*multiples: int) -> Floats:
    """log2 of these multiples of eight powers of ten."""
    return np.log2([multiple * 10.0**power for power in range(-4, 4) for multiple in multiples])


def _uneven(values: Floats) -> Callable[[np.random.Generator, Measure], Floats]:
    def grid(generator: np.random.Generator, measure: Measure) -> Floats:
        x = values + generator.uniform(0, math.log2(10))
        return np.asarray(x[(x >= LOW) & (x < HIGH)])

    return grid


def _random(count: int) -> Callable[[np.random.Generator, Measure], Floats]:
    def points(generator: np.random.Generator, measure: Measure) -> Floats:
        return generator.uniform(LOW, HIGH, count)

    return points


def _tpe(generator: np.random.Generator, measure: Measure) -> Floats:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=int(generator.integers(2**31))))
    measured = []
    for _ in range(18):
        trial = study.ask()
        measured.append(trial.suggest_float("x", LOW, HIGH))
        study.tell(trial, float(measure(measured[-1]).mean()))
    return np.array(measured)


_STEPS = {"double octaves": 2.0, "octaves": 1.0, "half octaves": 0.5, "quarter octaves": 0.25}
_UNEVEN = {"1-2-5-10": _decades(1, 2, 5), "1-5-10": _decades(1, 5)}

POINTS: dict[str, Callable[[np.random.Generator, Measure], Floats]] = {
    **{name: _grid(step) for name, step in _STEPS.items()},
    **{name: _uneven(values) for name, values in _UNEVEN.items()},
    "random": _random(18),
    "150 random": _random(150),
    "tpe": _tpe,
}
"""Where runs are: grids that lie anywhere around the optimum, 18 or 150 random points, 18 that Optuna's TPE chose."""


def _beyond(generator: np.random.Generator, points: str, side: int, distance: float) -> Floats:
    """A grid of 7 octaves that ends `distance` octaves before the optimum on that side, at any of its values."""
    if points in _STEPS:
        step = _STEPS[points]
        return np.asarray(np.sort(-side * (distance + step * np.arange(round(7 / step) + 1))))
    values = _UNEVEN[points]
    x = values - values[len(values) // 2 + generator.integers(3)]
    return np.asarray(x[(side * x <= 0) & (side * x >= -7)] - side * distance)
