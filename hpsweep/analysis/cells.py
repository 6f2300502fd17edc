"""The runs of a group as cells: the values tried of one hyperparameter, and the loss at each over seeds.

Also what may be fitted together at all: runs on the same data that differ in nothing but what is fitted and the seed.
"""

from __future__ import annotations

import dataclasses
import difflib
import zlib
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hpsweep.english import counted, have
from hpsweep.spec import TUNED, Trial
from hpsweep.store import DONE, one_data_hash

Floats = npt.NDArray[np.float64]

TRIAL_FIELDS = tuple(f.name for f in dataclasses.fields(Trial) if f.name not in ("tokens", "tokens_per_parameter"))
"""Columns that say what was trained; the duration is stored as steps."""

_GROWTH_END = 3.0  # octaves right of the minimum after which the noise grows no more


# --- what may be fitted together ---


def check_runs(runs: pd.DataFrame, by: Sequence[str], over: str) -> None:
    """Raise ValueError unless the runs can be grouped by `by` and fitted over `over`."""
    if isinstance(by, str) or not by:
        raise ValueError(f"by is {by!r}; give a list with at least one column, such as ['scheme', 'density'].")
    if over not in TUNED:
        raise ValueError(f"over is {over!r}{_hint(over, TUNED)} It must be one of {', '.join(TUNED)}.")
    for name in (*by, over, "seed", "status", "val_loss", "data_hash"):
        if name not in runs.columns:
            raise ValueError(f"the runs have no column {name!r}{_hint(name, map(str, runs.columns))}")
    if over in by:
        raise ValueError(f"{over} is in by, and is what the optimum is sought over; keep it in one of them.")
    if len(runs) == 0:
        raise ValueError("there are no runs to fit; load a results folder that has some, or select less strictly.")
    if odd := sorted(set(runs["status"].dropna().unique()) - {*DONE, "failed"}) or ["null"] * runs["status"].hasnans:
        raise ValueError(f"runs have status {', '.join(map(str, odd))}; it must be ok, diverged or failed.")
    trained = runs.loc[runs["status"] != "failed", ["data_hash"]]
    if len(trained):
        one_data_hash(trained["data_hash"].unique())
    for name in dict.fromkeys((over, "width", "density")):
        if name in runs.columns:
            _check_positive(runs[name])
    if runs["seed"].isna().any():
        raise ValueError(f"seed is missing in {runs['seed'].isna().sum()} of {len(runs)} runs; leave those out.")
    broken = int(((runs["status"] == "ok") & ~np.isfinite(runs["val_loss"].astype(float))).sum())
    if broken:
        raise ValueError(
            f"{counted(broken, 'run')} {have(broken)} status ok and no finite val_loss; leave out or train again."
        )
    if "trial_id" in runs and not runs["trial_id"].is_unique:
        twice = runs.loc[runs["trial_id"].duplicated(), "trial_id"].iloc[0]
        raise ValueError(f"trial {twice} is in the runs twice; load folders together, hp.load(a, b), which joins them.")


def _check_positive(column: pd.Series[Any]) -> None:
    """Raise ValueError unless every value is a finite number above 0, which has a log2."""
    name = column.name
    if not pd.api.types.is_numeric_dtype(column):
        odd = next((repr(value) for value in column if isinstance(value, str)), f"values of type {column.dtype}")
        raise ValueError(f"{name} holds {odd} and must hold numbers: runs.astype({{{name!r}: float}}) makes them so.")
    values = column.to_numpy(float, na_value=np.nan)
    bad = ~(np.isfinite(values) & (values > 0))
    if bad.any():
        good = f"(runs.{name} > 0) & (runs.{name} < float('inf'))" if np.isposinf(values).any() else f"runs.{name} > 0"
        raise ValueError(
            f"{name} is {values[bad][0]:g} in {bad.sum()} of {len(values)} runs and has no log2; it must be finite and "
            f"above 0: select runs[{good}]."
        )


def check_base(runs: pd.DataFrame) -> None:
    """Raise ValueError unless the runs say where their proxy is: its width and density."""
    for name in ("base_width", "base_density"):
        if name not in runs.columns:
            raise ValueError(
                f"the runs have no column {name!r}, which says where the proxy is; give it, such as "
                f"runs.assign({name}={'128' if name == 'base_width' else '1.0'})."
            )
        if runs[name].isna().any():
            raise ValueError(f"{name} is missing in {runs[name].isna().sum()} of {len(runs)} runs; leave those out.")


def check_resamples(resamples: Any) -> None:
    """Raise ValueError unless it is a whole number, 1 or more."""
    if isinstance(resamples, bool) or not isinstance(resamples, int | np.integer) or resamples < 1:
        raise ValueError(f"resamples is {resamples!r}; it must be a whole number, 1 or more: the default is 2000.")


def check_equal(rows: pd.DataFrame, free: Sequence[str], where: str) -> None:
    """Raise ValueError if the rows differ in a field of the trial that is not in `free`.

    The name of the data may differ: equal hashes are equal tokens, by whatever path and with whatever option.
    """
    for name in TRIAL_FIELDS:
        if name in rows.columns and name not in ("data", *free) and _varies(rows[name]):
            values = ", ".join(map(str, rows[name].drop_duplicates().sort_values()[:5]))
            first = plain(rows[name].iloc[0])
            raise ValueError(
                f"the runs of {where} differ in {name} ({values}): they have no common optimum. "
                f"Put {name!r} in by, or select one value, such as runs[runs.{name} == {first!r}], which is --where "
                f"{name}={first} on the command line."
            )


def needed(runs: pd.DataFrame, by: Sequence[str], over: str) -> pd.DataFrame:
    """The runs with the columns that a fit per group reads, or has to check: fields equal in all runs are left out."""
    names = dict.fromkeys([*by, over, "seed", "status", "val_loss"])
    varying = [name for name in TRIAL_FIELDS if name in runs and name not in ("data", *names) and _varies(runs[name])]
    return runs[[*names, *varying]]


def _varies(column: pd.Series[Any]) -> bool:
    """Whether there are several values, null being one."""
    return len(column) > 0 and not (column == column.iloc[0]).all() and column.nunique(dropna=False) > 1


def other_tuned(runs: pd.DataFrame, over: str) -> list[str]:
    """Searched hyperparameters other than `over` that vary in the runs.

    Raises ValueError where they were searched together with `over` at points that share no value, as Optuna's are: an
    optimum along one field needs runs that are equal in the others.
    """
    others = [name for name in TUNED if name != over and name in runs and runs[name].nunique() > 1]
    if (
        others
        and runs[over].nunique() > 2
        and runs.groupby(["scheme", "width", "density", *others])[over].nunique().max() < 3
    ):
        names = " and ".join([over, *others])
        best = runs[runs["status"] == "ok"].nsmallest(1, "val_loss")[[over, *others]].to_dict("records")
        at = "".join(f", {name} {value:.4g}" for row in best for name, value in row.items())
        raise ValueError(
            f"{names} were searched together, and no three values of {over} share the rest: there is no curve "
            f"along {over} to find an optimum on. Fit them together, as surface and --over {over},{others[0]} do, or "
            f"sweep a grid of {over} around the best run{at}."
        )
    return others


def _hint(name: str, allowed: Sequence[str] | Iterator[str]) -> str:
    close = difflib.get_close_matches(name, list(allowed), n=1)
    return f": did you mean {close[0]!r}?" if close else "."


def label(by: Sequence[str], key: tuple[Hashable, ...]) -> str:
    """A group's name, such as scheme sp, density 0.25."""
    return ", ".join(f"{name} {plain(value)}" for name, value in zip(by, key, strict=True))


def plain(value: Any) -> Any:
    """A numpy number as Python's own."""
    return value.item() if isinstance(value, np.generic) else value


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

    @property
    def finite(self) -> npt.NDArray[np.bool_]:
        """Which cells have a loss."""
        return np.isfinite(self.loss)


def cells_of(rows: pd.DataFrame, over: str) -> Cells:
    """The cells of one group. Values at which no run ended (all failed) are left out."""
    trained = rows[rows["status"] != "failed"]
    values = np.sort(trained[over].unique().astype(float))
    cell = np.searchsorted(values, trained[over].to_numpy(float))
    status = trained["status"].to_numpy()
    good = ~np.isin(cell, cell[status == "diverged"])
    seeds = np.unique(trained["seed"].to_numpy()[good], return_inverse=True)[1]
    single = pd.DataFrame({"cell": cell[good], "seed": seeds, "loss": trained["val_loss"].to_numpy(float)[good]})
    n = np.bincount(single["cell"], minlength=len(values)).astype(float)
    loss = np.full(len(values), np.nan)
    loss[n > 0] = np.bincount(single["cell"], single["loss"], len(values))[n > 0] / n[n > 0]
    x = np.log2(values)
    if not (n > 0).any():
        return Cells(values, x, loss, loss, n, single, 0.0)
    effects, _, _ = two_way(single, 1 / noise_growth(x, x[np.nanargmin(loss)]))
    adjusted = loss.copy()
    if len(effects):
        shift = np.bincount(single["cell"], effects[single["seed"]], len(values))[n > 0] / n[n > 0]
        adjusted[n > 0] -= shift - effects.mean()
    variance = float(np.var(effects, ddof=1)) / len(effects) if len(effects) > 1 else 0.0
    return Cells(values, x, loss, adjusted, n, single, variance)


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
    rest, effects = loss - mean[cell], np.zeros(0)
    df = len(single) - len(cells)
    if _connected(n > 0):
        by_cell, by_seed = np.zeros(len(cells)), np.zeros(len(seeds))
        for _ in range(2):  # the second solves for what rounding left of the first
            a, b = _additive(n * squared[:, None], cell, seed, squared[cell] * rest)
            rest, by_cell, by_seed = rest - a[cell] - b[seed], by_cell + a, by_seed + b
        shift = ((mean + by_cell).sum() - by_seed.sum()) / (len(cells) + len(seeds))
        effects, df = by_seed + shift, df - (len(seeds) - 1)
    return effects, float(squared[cell] @ rest**2), df


def _additive(n: Floats, cell: npt.NDArray[np.intp], seed: npt.NDArray[np.intp], rest: Floats) -> tuple[Floats, Floats]:
    """Cell and seed effects, that of the first cell or seed 0: the normal equations of rest = cell + seed.

    n (cells, seeds) and `rest` are weighted. The side with more effects is eliminated, its block of the equations
    being diagonal; what is left for the other is the Schur complement.
    """
    of_cells, of_seeds = np.bincount(cell, rest), np.bincount(seed, rest)
    if len(of_cells) > len(of_seeds):
        b, a = _additive(n.T, seed, cell, rest)
        return a, b
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


def fingerprint(cells: Cells) -> int:
    """A number by the shape of the curve alone: a group has one interval, however the table around it is grouped."""
    above = cells.adjusted - (np.nanmin(cells.adjusted) if cells.finite.any() else 0.0)
    return zlib.crc32(repr([(round(x, 6), round(y, 6)) for x, y in zip(cells.x, above, strict=True)]).encode())


def counts(rows: pd.DataFrame) -> dict[str, int]:
    """The columns of `optima` that count the rows of a group."""
    return {
        "n_runs": len(rows),
        "n_seeds": int(rows["seed"].nunique()),
        "n_diverged": int((rows["status"] == "diverged").sum()),
        "n_failed": int((rows["status"] == "failed").sum()),
    }
