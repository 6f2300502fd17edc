"""How well the law's numbers are known: resamples, profiles, correlations, and what is weakly identified."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpsweep.analysis.cells import Floats
from hpsweep.analysis.law_fit import THETA, Design, Tie, huber, polish, predicted

RESAMPLES = ("residuals", "pairs", "wild")
_CHI2_95 = 3.841458820694124


def resample(
    theta: Floats, design: Design, loss: Floats, delta: float, *, how: str, count: int, generator: np.random.Generator
) -> Floats:
    """`count` refits to resampled cells, started at the fit: rows of theta.

    residuals  predicted loss times a log residual of any cell, inflated by sqrt(cells / (cells - numbers fitted))
    wild       predicted loss times the cell's own log residual, with a random sign, inflated likewise
    pairs      cells drawn with replacement; draws with too few distinct values to fit are drawn again
    """
    cells = len(loss)
    start = np.repeat(theta[None], count, axis=0)
    if how == "pairs":
        weight = np.stack([_draw(design, generator) for _ in range(count)])
        return polish(start, design, loss, delta, weight=weight).theta
    fit = predicted(theta[None], design)[0]
    residual = np.log(loss / fit) * inflation(design)
    if how == "residuals":
        drawn = generator.choice(residual, (count, cells))
    else:
        drawn = residual * generator.choice([-1.0, 1.0], (count, cells))
    return polish(start, design, fit * np.exp(drawn), delta).theta


def inflation(design: Design) -> float:
    """What residuals of a fit are multiplied by to have the size of the noise."""
    cells = len(design.n)
    return float(np.sqrt(cells / (cells - design.free.sum())))


def _draw(design: Design, generator: np.random.Generator) -> Floats:
    cells, free = len(design.n), int(design.free.sum())
    for _ in range(1000):
        weight = generator.multinomial(cells, np.full(cells, 1 / cells)).astype(float)
        there = weight > 0
        axes = (design.n, design.d) if design.dense else (design.x, design.n, design.d)
        if there.sum() > free and all(len(np.unique(axis[there])) >= 3 for axis in axes):
            break
    return weight
