"""The runs of a group as points: the settings tried of two hyperparameters, and the loss at each over seeds."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpsweep.analysis.runs.cells import Floats, means_of, noise_growth, without_seeds

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Points:
    """The settings tried in one group; loss is NaN where a run diverged or none ended well."""

    values: Floats  # (points, 2) of the two hyperparameters
    x: Floats  # log2(values), octaves
    loss: Floats  # mean over seeds, nats/token
    adjusted: Floats  # the same as if every seed had been run everywhere
    n: Floats  # runs behind loss
    runs: pd.DataFrame  # the single runs of the finite points: columns cell, seed, loss
    seed_variance: float  # variance of a mean over these seeds, of what a seed does to all points alike
    noisy: int | None  # which of the two makes the noise grow: the learning rate

    @property
    def finite(self) -> Flags:
        """Which points have a loss."""
        return np.isfinite(self.loss)

    def growth(self, centre: Floats) -> Floats:
        """Noise of every point relative to that at the centre."""
        if self.noisy is None:
            return np.ones(len(self.x))
        return noise_growth(self.x[:, self.noisy], float(centre[self.noisy]))

    def fingerprint(self) -> int:
        """A number by the shape of the surface alone."""
        lowest = np.nanmin(self.adjusted) if self.finite.any() else 0.0
        above = self.adjusted - lowest
        return zlib.crc32(np.column_stack([self.x, above]).round(6).tobytes())


def points_of(rows: pd.DataFrame, over: Sequence[str]) -> Points:
    """The points of one group. Settings at which no run ended (all failed) are left out."""
    means = means_of(rows, rows[list(over)].to_numpy(float))
    noisy = list(over).index("lr") if "lr" in over else None
    raw = Points(means.values, np.log2(means.values), means.loss, means.loss, means.n, means.runs, 0.0, noisy)
    if means.is_empty:
        return raw
    adjusted, variance = without_seeds(means, raw.growth(raw.x[np.nanargmin(means.loss)]))
    return replace(raw, adjusted=adjusted, seed_variance=variance)
