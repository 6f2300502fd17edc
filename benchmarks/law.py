"""How often the intervals of a law cover what was put in, for two ways to resample.

    python -m benchmarks.law                100 made tables per setting, 150 resamples each
    python -m benchmarks.law 300            more tables

Tables: the 48 cells of T5 (4 sparsities, 4 sizes, 3 data amounts) and 60 cells like a small sweep (3 densities, 4
widths, 5 data amounts); noise of the log loss normal with 0.003, Student's t with 3 degrees of freedom and scale 0.002,
or five times larger for small models. `pairs` draws cells with replacement, and is what `fit_law` does; `residuals`
draws log residuals, inflated by sqrt(cells / (cells - 7)), with replacement. `far` is the loss at 4 times the largest N
and twice the largest D.
"""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pandas as pd

from hpsweep.analysis.law.resample import Fit, resampled_theta
from hpsweep.analysis.law.solver import THETA, Design, Misfit, polish_starts, polished_minima, predicted_losses
from hpsweep.analysis.runs.cells import Floats

TRUTH = np.array([[0.252, 0.98, 0.225, 0.83, 1.345, 0.232, 0.385]])
"""A law in centred units: that of T5, as fitted."""

RESAMPLES = 150

MISFIT = Misfit(1e-3)


def cells_of(setting: str) -> Design:
    """The cells of a made table."""
    if setting == "t5":
        grid = itertools.product([0, 0.5, 0.75, 0.875], 4.0 ** np.arange(4), 2.0 ** np.arange(3))
        cells = np.array(list(grid))
    else:
        dense = itertools.product([0, 0.75, 0.9375], 4.0 ** np.arange(4), 2.0 ** np.arange(5))
        cells = np.array([(s, n * (1 - s), d) for s, n, d in dense])
    n, d = np.log(cells[:, 1]), np.log(cells[:, 2])
    return Design(np.log(1 - cells[:, 0]), n - n.mean(), d - d.mean(), False)


def noise_of(kind: str, design: Design, generator: np.random.Generator) -> Floats:
    """Noise of the log losses."""
    cells = len(design.n)
    if kind == "t":
        return 0.002 * generator.standard_t(3, cells)
    return generator.normal(size=cells) * (0.003 if kind == "normal" else 0.001 * (1 + 4 * (design.n < 0)))


def by_residuals(fit: Fit, count: int, generator: np.random.Generator) -> Floats:
    """Refits to the fit's losses times resampled residuals."""
    cells = len(fit.loss)
    drawn = generator.choice(fit.residual * np.sqrt(cells / (cells - 7)), (count, cells))
    losses = predicted_losses(fit.theta[None], fit.design)[0] * np.exp(drawn)
    return polished_minima(np.repeat(fit.theta[None], count, 0), fit.design, losses, fit.misfit).theta


def coverage(setting: str, kind: str, tables: int) -> list[dict[str, object]]:
    """One row per way to resample: the fraction of 95 % intervals that cover, by number and for the loss far away."""
    design = cells_of(setting)
    far = Design(np.log([0.25]), np.array([design.n.max() + np.log(4)]), np.array([design.d.max() + np.log(2)]), False)
    truth = np.append(TRUTH[0], predicted_losses(TRUTH, far)[0])
    generator = np.random.default_rng(1)
    inside: dict[str, list[Floats]] = {"pairs": [], "residuals": []}
    for _ in range(tables):
        losses = predicted_losses(TRUTH, design)[0] * np.exp(noise_of(kind, design, generator))
        found = polished_minima(polish_starts(design, losses, MISFIT, 8), design, losses, MISFIT)
        fit = Fit(found.theta[found.value.argmin()], design, losses, MISFIT, 1.0, 1.0)
        for way, draw in (("pairs", resampled_theta), ("residuals", by_residuals)):
            theta = draw(fit, RESAMPLES, generator)
            low, high = np.quantile(np.hstack([theta, predicted_losses(theta, far)]), [0.025, 0.975], axis=0)
            inside[way].append(((low <= truth) & (truth <= high)).astype(float))
    return [
        {"cells": setting, "noise": kind, "resampled": way}
        | dict(zip((*THETA, "far"), np.mean(hits, axis=0).round(2), strict=True))
        for way, hits in inside.items()
    ]


def main(tables: int = 100) -> None:
    """Print the table."""
    settings = itertools.product(("t5", "sweep"), ("normal", "t", "uneven"))
    rows = [row for setting, kind in settings for row in coverage(setting, kind, tables)]
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
