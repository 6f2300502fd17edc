"""What transferring costs where that was measured: the loss after tuning, and with the proxy's optimum reused."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hpsweep.analysis.cells import Cells, check_equal, check_runs, other_tuned
from hpsweep.analysis.optimum import ASSUMED_NOISE, Group, fit_groups

MEASURED_WITHIN = 0.25
"""Octaves between a setting and a measured cell within which the cell's loss is taken for the setting's."""

COMPARISON = (
    *("scheme", "width", "density", "hyperparameter", "status", "tuned_value", "tuned_loss", "tuned_loss_se"),
    *("proxy_value", "proxy_status", "transferred_value", "transferred_loss", "transferred_from", "regret", "why"),
)
"""Columns of `tuned_against_transferred`."""


def tuned_against_transferred(
    runs: pd.DataFrame,
    *,
    over: str = "lr",
    proxy: Mapping[str, Any] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per scheme, width and density: the loss after tuning there, and with the proxy's optimum reused there.

    tuned_value, tuned_loss, tuned_loss_se: the best measured setting over all hyperparameters tried, its mean loss, and
    that mean's standard error over seeds (`status` as in `optima`: at an edge the regret is at least what is given).
    proxy_value: the optimum of the same scheme's proxy (mup's and supar's stand in for each other at base density,
    where the two are the same). transferred_loss: the loss at that setting; the measured cell's at transferred_value if
    it lies within MEASURED_WITHIN octaves ("measured"), else on the straight line between its neighbours
    ("interpolated": on a convex curve the loss is no higher), null where the setting diverged or lies outside the grid.
    regret = transferred_loss - tuned_loss. Losses in nats/token, means as if every seed had been run everywhere. Raises
    ValueError as `optima` does.
    """
    runs, place = select_proxy(runs, proxy or {}, over)
    others = other_tuned(runs, over)
    by = ["scheme", "width", "density", *others]
    groups = fit_groups(runs, by, over=over, resamples=resamples, seed=seed)
    rows = []
    for key in sorted({group.key[:3] for group in groups}, key=lambda key: (key[0], key[1], -key[2])):
        here = [group for group in groups if group.key[:3] == key]
        tuned = min(here, key=lambda group: np.nan_to_num(group.row["best_loss"], nan=np.inf))
        schemes = [key[0]]
        if key[0] in ("mup", "supar") and place["density"] == place["base_density"]:
            schemes.append("mup" if key[0] == "supar" else "supar")
        for scheme in schemes:
            there = [group for group in groups if group.key[:3] == (scheme, place["width"], place["density"])]
            source, _ = proxy_of(there, others, rows_at(runs, {"scheme": scheme}))
            if source is not None:
                break
        same = [group for group in groups if source is not None and group.key == (*key, *source.key[3:])]
        rows.append(dict(zip(by[:3], key[:3], strict=True)) | _compared(tuned, source, same[0] if same else None))
    return pd.DataFrame(rows, columns=list(COMPARISON))


# --- which runs ---


def select_proxy(runs: pd.DataFrame, proxy: Mapping[str, Any], over: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The runs with the proxy's fields, all widths and densities of them, and where the proxy is."""
    check_runs(runs, ["scheme", "width", "density", *(name for name in proxy if name != over)], over)
    for name, value in proxy.items():
        if name in ("width", "density"):
            continue
        chosen = runs[runs[name] == value]
        if chosen.empty:
            known = ", ".join(map(str, runs[name].drop_duplicates().sort_values()[:8]))
            raise ValueError(f"no run has {name} {value!r}, as proxy asks; there are {known}.")
        runs = chosen
    for name in ("base_width", "base_density"):
        if runs[name].nunique() > 1:
            check_equal(runs[[name]], (), "the sweep")
    base = {"base_width": int(runs["base_width"].iloc[0]), "base_density": float(runs["base_density"].iloc[0])}
    place = {"width": base["base_width"], "density": base["base_density"], **base, **proxy}
    return runs, place


def best_of(groups: Sequence[Group]) -> Group | None:
    """The group with the lowest measured loss among those with an optimum or a bound; failing those, any.

    Measured, because beside a cliff a parabola's own minimum lies below every loss that was ever reached.
    """
    if not groups:
        return None
    return min(
        groups, key=lambda g: (g.row["status"] not in ("ok", "edge"), np.nan_to_num(g.row["best_loss"], nan=np.inf))
    )


def proxy_of(groups: Sequence[Group], names: Sequence[str], runs: pd.DataFrame) -> tuple[Group | None, list[Group]]:
    """The group whose optimum is transferred, and others that are as good within noise.

    `groups` are those of the proxy, their keys ending in the values of the other searched fields `names`. Among the
    best and those within two standard errors of it, the one that was tried most in all `runs` of the scheme: one that
    was tried at a single density says nothing of how its optimum moves.
    """
    best = best_of(groups)
    if best is None or best.row["status"] not in ("ok", "edge"):
        return best, []
    alike = [group for group in groups if group.row["status"] == best.row["status"] and _as_good(group, best)]

    def tried(group: Group) -> int:
        return len(rows_at(runs, dict(zip(names, group.key[len(group.key) - len(names) :], strict=True))))

    chosen = max(alike, key=lambda group: (tried(group), -group.row["best_loss"]))
    return chosen, [group for group in alike if group is not chosen]


def _as_good(group: Group, best: Group) -> bool:
    """Whether the lowest mean loss is within two standard errors of the best one's."""
    errors = [np.nan_to_num(_standard_error(g.cells), nan=ASSUMED_NOISE) for g in (group, best)]
    return bool(group.row["best_loss"] - best.row["best_loss"] <= 2 * math.hypot(*errors))


def rows_at(runs: pd.DataFrame, settings: Mapping[str, Any]) -> pd.DataFrame:
    """The runs with these values."""
    for name, value in settings.items():
        runs = runs[runs[name] == value]
    return runs


# --- the comparison ---


def _compared(tuned: Group, source: Group | None, same: Group | None) -> dict[str, Any]:
    """A row of the comparison. `same` has the proxy's other hyperparameters, at this width and density."""
    row: dict[str, Any] = {
        **dict.fromkeys(COMPARISON[3:], math.nan),
        "hyperparameter": tuned.row["hyperparameter"],
        "status": tuned.row["status"],
        "tuned_value": tuned.row["best_value"],
        "tuned_loss": tuned.row["best_loss"],
        "tuned_loss_se": _standard_error(tuned.cells),
        "proxy_status": None,
        "transferred_from": None,
        "why": tuned.row["why"],
    }
    if source is None or source.row["status"] not in ("ok", "edge"):
        why = "the scheme's proxy was not trained" if source is None else f"the scheme's proxy: {source.row['why']}"
        return {**row, "why": "; ".join(filter(None, [row["why"], why]))}
    row.update(proxy_value=source.row["opt"], proxy_status=source.row["status"])
    if same is None:
        return {**row, "why": "; ".join(filter(None, [row["why"], "the proxy's setting was not tried here"]))}
    found = _loss_at(same.cells, source.row["log2_opt"])
    row.update(found, why="; ".join(filter(None, [row["why"], found.get("why")])))
    return {**row, "regret": row["transferred_loss"] - row["tuned_loss"]}


def _standard_error(cells: Cells) -> float:
    """Of the best cell's mean loss, from the spread of its seeds; NaN with one seed."""
    if not cells.finite.any():
        return math.nan
    single = cells.runs.loc[cells.runs["cell"] == int(np.nanargmin(cells.adjusted)), "loss"]
    return float(single.std(ddof=1) / math.sqrt(len(single))) if len(single) > 1 else math.nan


def _loss_at(cells: Cells, x: float) -> dict[str, Any]:
    """transferred_value, transferred_loss and transferred_from at log2 = x; only `why` where nothing is known."""
    nearest = int(np.argmin(np.abs(cells.x - x))) if len(cells.x) else -1
    if nearest < 0:
        return {"why": "no run ended here"}
    if abs(cells.x[nearest] - x) <= MEASURED_WITHIN:
        if not cells.finite[nearest]:
            return {"why": f"the proxy's setting diverges here ({cells.values[nearest]:.4g})"}
        return {
            "transferred_value": float(cells.values[nearest]),
            "transferred_loss": float(cells.adjusted[nearest]),
            "transferred_from": "measured",
        }
    right = int(np.searchsorted(cells.x, x))
    if right in (0, len(cells.x)):
        return {"why": f"the proxy's setting {2.0**x:.4g} lies outside the values tried here"}
    if not (cells.finite[right] and cells.finite[right - 1]):
        return {"why": f"runs beside the proxy's setting {2.0**x:.4g} diverge here"}
    loss = float(np.interp(x, cells.x[right - 1 : right + 1], cells.adjusted[right - 1 : right + 1]))
    return {"transferred_value": 2.0**x, "transferred_loss": loss, "transferred_from": "interpolated"}
