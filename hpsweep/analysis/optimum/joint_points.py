"""The runs of a group as points: the settings tried of two hyperparameters, and the loss at each over seeds."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpsweep.analysis.runs.cells import Floats, noise_growth, two_way

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
        above = self.adjusted - (np.nanmin(self.adjusted) if self.finite.any() else 0.0)
        return zlib.crc32(np.column_stack([self.x, above]).round(6).tobytes())


def points_of(rows: pd.DataFrame, over: Sequence[str]) -> Points:
    """The points of one group. Settings at which no run ended (all failed) are left out."""
    trained = rows[rows["status"] != "failed"]
    values, cell = np.unique(trained[list(over)].to_numpy(float).reshape(-1, 2), axis=0, return_inverse=True)
    cell = cell.reshape(-1)
    good = ~np.isin(cell, cell[(trained["status"] == "diverged").to_numpy()])
    seeds = np.unique(trained["seed"].to_numpy()[good], return_inverse=True)[1]
    single = pd.DataFrame({"cell": cell[good], "seed": seeds, "loss": trained["val_loss"].to_numpy(float)[good]})
    n = np.bincount(single["cell"], minlength=len(values)).astype(float)
    loss = np.full(len(values), np.nan)
    loss[n > 0] = np.bincount(single["cell"], single["loss"], len(values))[n > 0] / n[n > 0]
    noisy = list(over).index("lr") if "lr" in over else None
    raw = Points(values, np.log2(values), loss, loss, n, single, 0.0, noisy)
    if single["seed"].nunique() < 2:
        return raw
    effects, _, _ = two_way(single, 1 / raw.growth(raw.x[np.nanargmin(loss)]))
    if not len(effects):
        return raw
    adjusted = loss.copy()
    shift = np.bincount(single["cell"], effects[single["seed"]], len(values))[n > 0] / n[n > 0]
    adjusted[n > 0] -= shift - effects.mean()
    variance = float(np.var(effects, ddof=1)) / len(effects)
    return Points(values, raw.x, loss, adjusted, n, single, variance, noisy)
