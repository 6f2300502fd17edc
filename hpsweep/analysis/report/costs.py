"""The sections of a report on what a wrong setting costs: regret, transfer along a drift, sensitivity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hpsweep.analysis.plots.style import SCHEMES
from hpsweep.analysis.report.figures import matrix_panels
from hpsweep.analysis.report.parts import LONGEST, Cell, Section, Table, noise_of, rest_of, status, typeset, words
from hpsweep.analysis.report.tables import Tables, axes_of, in_order
from hpsweep.analysis.runs.places import group_label, value_of
from hpsweep.analysis.transfer.regret_matrix import matrix_text
from hpsweep.axes import AXES
from hpsweep.english import hyperparameter_name
from hpsweep.text import DASH, fixed, loss_interval, power_of, powers


def regret(tables: Tables) -> Section | None:
    """Tuned here against carried from the proxy, scheme beside scheme; None where there is no comparison."""
    found = tables.comparison
    if found.empty:
        return None
    axes = axes_of(found)
    at, unit = f"at {tables.over.replace('_', ' ')}", tables.unit.name
    header = (
        *(*axes, "scheme", f"tuned loss ({unit})", at, f"transferred loss ({unit})", at),
        *(
            f"regret ({unit})",
            f"95 % interval ({unit})",
            "regret (%)",
            "equal to more compute",
            "transferred loss is",
        ),
    )
    compute = _compute(tables, axes)
    order = found.assign(rank=found["scheme"].map(list(SCHEMES).index))
    ordered = in_order(order, [*axes, "rank"])[:LONGEST].to_dict("records")
    text = (
        "The best tuned loss at every width and density, beside the loss with the proxy's optimum re-used there. A "
        "small regret is worth little where another scheme, tuned, is better. Losses are measured where a run is near, "
        "else from a local fit, or interpolated on the straight line between two values tried. A regret below 0 is "
        "noise. Equal to more compute: what share of it would make good the regret, by what wider models gain here."
    )
    note = "±: the standard error of that loss, by the noise of the runs it is read from and by what seeds share."
    note = " ".join(filter(None, [note, rest_of(found, "hpsweep optimum")]))
    made = Table(
        caption="Tuned there, or carried from the proxy",
        header=header,
        rows=tuple(_regret_row(row, compute, axes) for row in ordered),
        keys=len(axes) + 1,
        note=note,
    )
    shown = tables.matrix.groupby("scheme").filter(_is_whole)
    panels = matrix_panels(shown, unit) if len(shown) else []
    matrices = [_matrix(shown[shown["scheme"] == name], unit) for name in SCHEMES if (shown["scheme"] == name).any()]
    return Section(title="Tuned against transferred", text=(text,), panels=tuple(panels), tables=(made, *matrices))


def _is_whole(rows: pd.DataFrame) -> bool:
    """Whether a scheme's matrix is there from every place to every place."""
    used = [name for name in rows if str(name).startswith("used_") and str(name).removeprefix("used_") in AXES]
    return len(rows) == len(rows[used].drop_duplicates()) ** 2


def _compute(tables: Tables, axes: Sequence[str]) -> dict[tuple[Any, ...], str]:
    """Scheme and place -> the compute that makes good the regret of the proxy's setting there."""
    if tables.matrix.empty:
        return {}
    rows = tables.matrix[tables.matrix["compute"].notna()]
    for name in axes:
        rows = rows[rows[f"tuned_{name}"] == tables.proxy[name]]
    return {
        (row["scheme"], *(row[f"used_{name}"] for name in axes)): f"{_percent(row['compute'])} {_percents(row)}".strip()
        for row in rows.to_dict("records")
    }


def _percent(fraction: float) -> str:
    return f"{fixed(100 * fraction, 0)} %"


def _percents(row: Mapping[Any, Any]) -> str:
    return loss_interval(100 * row["compute_low"], 100 * row["compute_high"], 0) if row["compute"] != 0 else ""


def _regret_row(
    row: Mapping[Any, Any], compute: Mapping[tuple[Any, ...], str], axes: Sequence[str]
) -> tuple[Cell, ...]:
    assumed = " (assumed)" * (row["interval"] == "assumed")
    error = f" ± {fixed(row['tuned_loss_se'], 3)}{assumed}" if pd.notna(row["tuned_loss_se"]) else ""
    known = pd.notna(row["regret"])
    return (
        *(value_of(name, row[name]) for name in (*axes, "scheme")),
        fixed(row["tuned_loss"], 3) + error,
        power_of(row["tuned_value"]),
        fixed(row["transferred_loss"], 3),
        power_of(row["transferred_value"]),
        ("at least " if known and row["status"] != "ok" else "") + fixed(row["regret"], 4),
        (loss_interval(row["regret_low"], row["regret_high"], 4) if row["regret_low"] != row["regret_high"] else "")
        or DASH,
        fixed(100 * row["regret"] / row["tuned_loss"], 1),
        compute.get((row["scheme"], *(row[name] for name in axes)), DASH),
        row["transferred_from"] if isinstance(row["transferred_from"], str) else typeset(row["why"]) or DASH,
    )


def _matrix(rows: pd.DataFrame, unit: str) -> Table:
    """The regret matrix of one scheme, with intervals."""
    text = matrix_text(rows)
    label = SCHEMES[rows["scheme"].iloc[0]].label
    return Table(
        caption=f"Regret under {label}: tuned at the row, used at the column",
        header=("tuned at", *map(str, text.columns)),
        rows=tuple((str(at), *map(typeset, cells)) for at, *cells in text.itertuples()),
        note=f"{unit} with 95 % intervals. ~: fitted or interpolated. >: at least, as the optimum there is a bound.",
        folded=True,
    )


def carried(tables: Tables) -> tuple[Table, ...]:
    """A constant against the setting along the fitted drift, judged at a scale held out; none without such scales."""
    found = tables.held_out
    if found.empty:
        return ()
    regret = f"regret ({tables.unit.name})"
    header = (
        *("scheme", "along", "held out", "better", "by constant", regret, "95 % interval"),
        *("along the drift", regret, "95 % interval", "noise"),
    )
    rows = []
    for row in found[:LONGEST].to_dict("records"):
        where = group_label({name: row[name] for name in axes_of(found)})
        costs = [
            (
                power_of(row[f"{name}_value"]),
                fixed(row[f"{name}_regret"], 4),
                loss_interval(row[f"{name}_low"], row[f"{name}_high"], 4) or DASH,
            )
            for name in ("constant", "along")
        ]
        scheme = value_of("scheme", row["scheme"])
        rows.append((scheme, row["along"], where, row["better"], *costs[0], *costs[1], noise_of(row)))
    note = (
        "Each line's last scale is held out of its drift. Better: whose loss there is lower, if the interval says so."
    )
    caption = "By constant, or along the fitted drift: a scale held out"
    return (Table(caption=caption, header=header, rows=tuple(rows), keys=3, note=note),)


def basins(tables: Tables) -> Section | None:
    """How much a wrong setting costs in every group; None where nothing was fitted."""
    found, by = tables.sensitivity, list(tables.by)
    if found.empty:
        return None
    header = (
        *(*words(by), "status", "1 % basin (octaves)", "95 % interval", "from", "to"),
        *(f"sensitivity ({tables.unit.name})", "95 % interval", "diverged", "noise"),
    )
    rows: list[tuple[Cell, ...]] = []
    for row in in_order(found, by)[:LONGEST].to_dict("records"):
        bound = row["basin_status"] == "bound"
        rows.append(
            (
                *(value_of(name, row[name]) for name in by),
                status(row["status"]),
                ("at least " if bound else "") + fixed(row["basin"], 2),
                loss_interval(row["basin_low"], row["basin_high"], 2) or DASH,
                power_of(row["basin_from"]),
                power_of(row["basin_to"]),
                fixed(row["sensitivity"], 3),
                loss_interval(row["low"], row["high"], 3) or DASH,
                str(row["n_diverged"]),
                noise_of(row),
            )
        )
    ends = found[["from_value", "to_value"]].iloc[0]
    text = (
        f"The 1 % basin: octaves of the {hyperparameter_name(tables.over)} in which the loss is at most 1 % above its "
        f"minimum. The sensitivity: the mean excess loss over {powers(*ends)}, a diverged run counted as the loss at "
        "initialization."
    )
    table = Table(
        caption="What a wrong setting costs", header=header, rows=tuple(rows), keys=len(by),
        note=rest_of(found, "hpsweep optimum"),
    )  # fmt: skip
    return Section(title="Sensitivity", text=(text,), tables=(table,))
